"""Programs that a test starts: Python code in a fresh interpreter, compiled C.

Must never run code in the test's own interpreter. A program that a test keeps running never
outlives its `with` block.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from support.waiting import SOON, sleeping


def run_script(
    code: str,
    *args: str,
    options: tuple[str, ...] = (),
    prefix: tuple[str, ...] = (),
    deadline: float = 20.0,
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter to its end."""
    # Without a buffer, of which a child that it forks would print a copy.
    return subprocess.run(
        [*prefix, sys.executable, "-u", *options, "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
    )


def output_of(
    code: str, *args: str, options: tuple[str, ...] = (), prefix: tuple[str, ...] = ()
) -> str:
    """What `code` prints in a fresh interpreter, which must succeed and print no errors."""
    done = run_script(code, *args, options=options, prefix=prefix)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


class Beside:
    """A process that runs beside the test, and never outlives its `with` block."""

    process: subprocess.Popen[Any]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


class Script(Beside):
    """`code` running in a fresh interpreter beside the test."""

    process: subprocess.Popen[str]

    def __init__(
        self,
        code: str,
        *args: str,
        options: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, *options, "-c", code, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
        )

    def line(self) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, errors = self.process.communicate()
            raise AssertionError(f"the script ended early: {errors}")
        return line.strip()

    def tell(self, line: str = "") -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def asleep(self) -> bool:
        """Whether its main thread is blocked in the kernel."""
        return sleeping(self.process.pid, self.process.pid)

    def end(self, deadline: float = SOON) -> tuple[int, str, str]:
        """Wait for its end: exit code, the rest of its output, its standard error."""
        out, err = self.process.communicate(timeout=deadline)
        return self.process.returncode, out, err


def compiled(source: Path, folder: Path) -> Path:
    """The program of a C source, in `folder`."""
    program = folder / source.stem
    subprocess.run(
        ["cc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, source],
        check=True,
    )
    return program

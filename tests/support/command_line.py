"""The command line as a user runs it: a real process, with pipes or in a terminal of its own.

Must never run a command in the test's own interpreter. A command that a test keeps running never
outlives its `with` block.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from support.processes import Beside

# Long, because the machine may be busy, and each test starts an interpreter.
PATIENCE = 30.0
COMMAND = (sys.executable, "-m", "rsock")


def run(*args: str, data: bytes = b"", cwd: Path | None = None) -> tuple[int, str, str]:
    """Run a command to its end; return exit code, output, errors."""
    done = subprocess.run(
        [*COMMAND, *args],
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80", "LINES": "24"},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Running(Beside):
    """A command that runs beside the test, with pipes for its input and output."""

    process: subprocess.Popen[bytes]

    def __init__(
        self, *args: str, cwd: Path | None = None, descriptors: tuple[int, ...] = ()
    ) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *args],
            pass_fds=descriptors,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
        )

    def last_input(self, data: bytes) -> None:
        """Write the rest of its input, and end it."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.close()
        # `communicate` would flush it.
        self.process.stdin = None

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1].decode())
        return line.decode().rstrip("\n")

    def address(self) -> tuple[str, int]:
        """The address on which it says it listens."""
        found = re.match(r"listening on ([\d.]+):(\d+): ", self.line())
        assert found is not None
        return found[1], int(found[2])

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out.decode(), err.decode()


class Terminal:
    """A command in a terminal of 80 columns and 24 lines."""

    def __init__(self, *args: str, cwd: Path | None = None, columns: int = 80) -> None:
        self._master, slave = pty.openpty()
        self._closed = False
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *COMMAND, *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self.close()

    def close(self) -> None:
        """Close the terminal, as its window would be closed."""
        if not self._closed:
            self._closed = True
            os.close(self._master)

    def wait(self) -> int:
        """Wait for the end of the command, without its output."""
        return self._process.wait(PATIENCE)

    @property
    def pid(self) -> int:
        """The process of the command."""
        return self._process.pid

    @property
    def number(self) -> int:
        """The descriptor of the terminal's own side, which has the same mode."""
        return self._master

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, pattern: str) -> re.Match[str]:
        """Read its output, without colours and cursor movements, until the pattern is in it."""
        end = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.seen)) is None:
            if not self._read(max(0.0, end - time.monotonic())):
                raise AssertionError(f"no {pattern!r} in {self.seen}")
        return found

    def end(self) -> int:
        """Wait for its end."""
        end = time.monotonic() + PATIENCE
        while self._read(max(0.0, end - time.monotonic())):
            pass
        return self._process.wait(PATIENCE)

    def _read(self, patience: float) -> bool:
        if not select.select([self._master], [], [], patience)[0]:
            return False
        try:
            data = os.read(self._master, 65_536)
        except OSError:
            # Linux reports EIO when the other side has no owner any more.
            return False
        text = data.decode(errors="replace").replace("\r", "")
        self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
        return bool(data)


# Makes the terminal its controlling terminal, so that Ctrl-C reaches it, and then executes the
# command. A function for `preexec_fn` would work too, but makes this process fork: from then on
# every close in rsock, also in later tests, is that of a process that has forked.
_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""

"""The processes of a benchmark.

Owns how they start, on which core, how they are asked, and how they end. A child never outlives the
`with` block that started it. If the harness itself is killed, its ends of the pipes close, and
every child ends with its standard input. Must never measure.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

BENCHMARKS = Path(__file__).resolve().parent.parent
BINARIES = BENCHMARKS.parent / "target" / "bench" / "release"

_cores = sorted(os.sched_getaffinity(0))
SERVER_CORE = _cores[0]
LOAD_CORE = _cores[1 % len(_cores)]

# Longer than any answer takes, even on a busy machine.
PATIENCE = 60.0


# The interpreter of the scripts that are started now, in place of the harness's own.
_interpreter: str | None = None


@contextmanager
def interpreter(python: str) -> Iterator[None]:
    """Runs the scripts that are started in this context with another Python."""
    global _interpreter
    _interpreter = python
    try:
        yield
    finally:
        _interpreter = None


class BenchmarkError(Exception):
    """A benchmark could not be run; the text names the reason."""


def script(module: str, *arguments: str) -> list[str]:
    """The command that runs a module below `benchmarks/` with the Python of the harness."""
    return [sys.executable, "-m", module, *arguments]


def binary(name: str, *arguments: str) -> list[str]:
    """The command that runs a program of the crate `benchmarks/peers`."""
    return [str(BINARIES / name), *arguments]


class Child:
    """A process with a protocol of lines; the first line that it prints says that it is ready."""

    def __init__(self, command: list[str], core: int | None = None) -> None:
        if _interpreter and command[0] == sys.executable:
            command = [_interpreter, *command[1:]]
        self._command = command
        self._core = core
        self._unread = bytearray()
        self.greeting = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=BENCHMARKS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Before the program starts, because a server may size itself by the cores available.
            preexec_fn=self._pin,
            # Ctrl-C is for the harness, which then ends its children.
            process_group=0,
        )
        try:
            self.greeting = self._line()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, text: str) -> str:
        """Writes one line and returns the line that answers it."""
        try:
            stdin = _pipe(self._process.stdin)
            stdin.write(f"{text}\n".encode())
            stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._line()

    def _line(self) -> str:
        stdout = _pipe(self._process.stdout).fileno()
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._unread:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([stdout], [], [], left)[0]:
                raise BenchmarkError(f"{self}: no answer within {PATIENCE:.0f} s")
            data = os.read(stdout, 65_536)
            if not data:
                raise self._ended()
            self._unread += data
        line, _, rest = bytes(self._unread).partition(b"\n")
        self._unread[:] = rest
        return line.decode()

    def _ended(self) -> BenchmarkError:
        # Its pipe is closed, so it is ending; `_end` kills it if it does not.
        try:
            return BenchmarkError(f"{self}: ended with {self._process.wait(timeout=1.0)}")
        except subprocess.TimeoutExpired:
            return BenchmarkError(f"{self}: closed its output")

    def _end(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            _pipe(pipe).close()
        self._process.wait()

    def _pin(self) -> None:
        if self._core is not None:
            os.sched_setaffinity(0, {self._core})

    def __str__(self) -> str:
        return " ".join(self._command)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "Child asks for both pipes"
    return pipe

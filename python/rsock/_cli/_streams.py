"""The standard streams: that they are there, can be written to, and may be gone.

Must never decide what is written.
"""

import io
import os
import select
import sys

from ._errors import OutputGone

__all__ = ["abandon_output", "prepare", "write"]


def prepare() -> None:
    """See to it that there is something to read from and to write to, and that writing works."""
    # Where one was closed (`>&-`), the first socket would get its number and with it what is said.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Not every terminal has the letters of "µs".
            stream.reconfigure(errors="replace")


def write(number: int, data: bytes) -> None:
    """Write all of it to a descriptor; without a buffer, whose lock a blocked write would hold."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(number, left) :]
        except BlockingIOError:
            # Whoever shares the output with us has it so.
            poller = select.poll()
            poller.register(number, select.POLLOUT)
            poller.poll()
        except BrokenPipeError:
            raise OutputGone from None


def abandon_output() -> None:
    """Let the interpreter flush into nothing at its end, rather than complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)

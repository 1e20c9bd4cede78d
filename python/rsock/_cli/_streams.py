"""The standard streams of a command.

This file owns their state: open, writable, or closed by the reader. It must never decide what is
written.
"""

import io
import os
import select
import sys

from ._errors import OutputGone

__all__ = ["abandon_output", "prepare", "write"]


def prepare() -> None:
    """Open those standard streams that are closed, and make every character writable."""
    # If one was closed (`>&-`), the first socket would get its number, and receive the output.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Not every terminal can show the "µ" of "µs".
            stream.reconfigure(errors="replace")


def write(number: int, data: bytes) -> None:
    """Write all of `data` to a descriptor.

    It bypasses the buffer of the stream, whose lock a blocked write would hold.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(number, left) :]
        except BlockingIOError:
            # Another process that shares the output has made it non-blocking.
            poller = select.poll()
            poller.register(number, select.POLLOUT)
            # With a time limit: a Ctrl-C that arrives just before the poll does not interrupt it.
            poller.poll(1_000)
        except BrokenPipeError:
            raise OutputGone from None


def abandon_output() -> None:
    """Redirect standard output to /dev/null, so that the interpreter's last flush succeeds."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)

"""The input of a terminal, read without waiting. It must never change the terminal's mode."""

import contextlib
import os
from collections.abc import Iterator

__all__ = ["input_without_waiting"]


@contextlib.contextmanager
def input_without_waiting(number: int) -> Iterator[int]:
    """A descriptor for the input of `number`, whose reads never wait if that is a terminal.

    Ctrl-C throws away what has been typed, also after poll(2) has reported it. A read that came
    behind the interrupt would wait for more, and the interrupt with it. The descriptor is a new
    one, because the option would hold for every process that shares the old one.
    """
    own = None
    if os.isatty(number):
        # There may be no name that can be opened (su, a container).
        with contextlib.suppress(OSError):
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            own = os.open(os.ttyname(number), flags)
    try:
        yield number if own is None else own
    finally:
        if own is not None:
            os.close(own)

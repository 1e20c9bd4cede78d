"""Threads beside the main one. Must start none itself."""

import contextlib
import signal
from collections.abc import Iterator

__all__ = ["signals_blocked"]


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """What is started meanwhile leaves the signals to the main thread, which waits for them.

    A signal that another thread takes would be noticed with a delay.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""Keys of the terminal, while a command shows a live table.

It owns the mode of the terminal, and sets it back. It must never know what a key does.
"""

import contextlib
import os
import select
import sys
import termios
import threading
from collections.abc import Callable
from typing import Any

from ._threads import signals_blocked

__all__ = ["Keys", "can_be_read"]


def can_be_read() -> bool:
    """Whether standard input is a terminal, and this process is in its foreground."""
    try:
        number = sys.stdin.fileno()
        # A process in the background would be stopped by SIGTTOU.
        return os.isatty(number) and os.tcgetpgrp(number) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return False


class Keys:
    """Calls a function with each key that is pressed, on a thread of its own."""

    def __init__(self, pressed: Callable[[str], None]) -> None:
        self._pressed = pressed
        self._number = sys.stdin.fileno()
        self._before: list[Any] | None = None
        self._end = -1
        self._thread = threading.Thread(target=self._read, name="rsock-keys", daemon=True)

    def start(self) -> None:
        """Let each key through at once, without an echo. Ctrl-C and Ctrl-Z work as before."""
        try:
            mode = termios.tcgetattr(self._number)
        except termios.error:
            return
        self._before = termios.tcgetattr(self._number)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._number, termios.TCSANOW, mode)
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        with signals_blocked():
            self._thread.start()

    def stop(self) -> None:
        """Set the terminal back. A second call does nothing."""
        before, self._before = self._before, None
        if before is None:
            return
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._number, termios.TCSANOW, before)
        os.eventfd_write(self._end, 1)
        self._thread.join()
        os.close(self._end)

    def _read(self) -> None:
        poller = select.poll()
        poller.register(self._number, select.POLLIN)
        poller.register(self._end, select.POLLIN)
        while True:
            ready = [number for number, _ in poller.poll()]
            if self._end in ready:
                return
            try:
                key = os.read(self._number, 1)
            except OSError:
                # The terminal is gone.
                return
            if not key:
                return
            self._pressed(key.decode("ascii", "replace"))

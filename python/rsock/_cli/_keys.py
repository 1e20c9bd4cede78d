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
from typing import Any, Final

from ._terminal import input_without_waiting
from ._threads import signals_blocked

__all__ = ["Keys", "can_be_read"]


# How often the mode of the terminal is looked at, in milliseconds: a shell sets it back when the
# process is stopped (Ctrl-Z), and not again when it continues.
_LOOK: Final = 500


def can_be_read() -> bool:
    """Whether standard input is a terminal, and this process is in its foreground."""
    try:
        number = sys.stdin.fileno()
        return os.isatty(number) and _in_foreground(number)
    except (AttributeError, OSError, ValueError):
        return False


def _in_foreground(number: int) -> bool:
    # A process in the background would be stopped by SIGTTIN or SIGTTOU.
    return os.tcgetpgrp(number) == os.getpgrp()


class Keys:
    """Calls a function with each key that is pressed, on a thread of its own."""

    def __init__(self, pressed: Callable[[str], None]) -> None:
        self._pressed = pressed
        self._number = sys.stdin.fileno()
        self._before: list[Any] | None = None
        self._end = -1
        self._thread = threading.Thread(target=self._run, name="rsock-keys", daemon=True)

    def start(self) -> None:
        """Let each key through at once, without an echo. Ctrl-C and Ctrl-Z work as before."""
        with contextlib.suppress(termios.error):
            self._before = termios.tcgetattr(self._number)
            self._set_mode()
            self._end = os.eventfd(0, os.EFD_CLOEXEC)
            with signals_blocked():
                self._thread.start()

    def stop(self) -> None:
        """Set the terminal back. A second call does nothing."""
        before, self._before = self._before, None
        if before is None:
            return
        if self._end >= 0:
            os.eventfd_write(self._end, 1)
            self._thread.join()
            os.close(self._end)
        with contextlib.suppress(termios.error, OSError):
            if _in_foreground(self._number):
                termios.tcsetattr(self._number, termios.TCSANOW, before)

    def _set_mode(self) -> None:
        mode = termios.tcgetattr(self._number)
        if mode[3] & (termios.ICANON | termios.ECHO):
            mode[3] &= ~(termios.ICANON | termios.ECHO)
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._number, termios.TCSANOW, mode)

    def _run(self) -> None:
        # The terminal can disappear.
        with (
            contextlib.suppress(termios.error, OSError),
            input_without_waiting(self._number) as source,
        ):
            while self._read(source):
                pass

    def _read(self, source: int) -> bool:
        """Wait for a key, or for a look at the terminal. Returns False for the end."""
        poller = select.poll()
        poller.register(self._end, select.POLLIN)
        if _in_foreground(self._number):
            self._set_mode()
            poller.register(source, select.POLLIN)
        ready = [number for number, _ in poller.poll(_LOOK)]
        if self._end in ready:
            return False
        if not ready or not _in_foreground(self._number):
            return True
        try:
            key = os.read(source, 1)
        except BlockingIOError:
            return True
        if key:
            self._pressed(key.decode("ascii", "replace"))
        return bool(key)

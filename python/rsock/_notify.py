"""What a service is told to its manager: the protocol of `sd_notify(3)`.

It sends datagrams to the socket that NOTIFY_SOCKET names, and owns the thread of the watchdog. It
must never end a server because the manager cannot be reached, nor be loaded without NOTIFY_SOCKET.
"""

import contextlib
import os
import socket
import time
from _queue import Empty, SimpleQueue
from typing import Final

from ._threads import log_turn, start_thread, undisturbed

__all__ = ["Notifier", "notify", "watchdog_interval"]

# How many seconds a full queue of the manager is waited for.
_PATIENCE: Final = 1.0


def notify(state: str) -> bool:
    """Send assignments, such as "READY=1", one on each line; return whether there is a manager.

    Blocks for at most a second, if the manager reads nothing. Raises OSError, which names the
    address, and ValueError for an address that is neither a path nor an abstract name.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address[0] not in "/@":
        raise ValueError(f"NOTIFY_SOCKET={address!r}: must be a path, or @ and an abstract name")
    target = b"\0" + os.fsencode(address[1:]) if address[0] == "@" else os.fsencode(address)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_PATIENCE)
            sender.sendto(state.encode(), target)
    except OSError as error:
        text = error.strerror or str(error)
        raise OSError(error.errno, f"notify {address}: {text}") from None
    return True


def watchdog_interval() -> float | None:
    """Return how often the manager wants to hear of this process, in seconds; None for never.

    Half of WATCHDOG_USEC, as `sd_watchdog_enabled(3)` recommends it.
    """
    text, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        return None
    if process is not None and process != str(os.getpid()):
        return None
    return int(text) / 2_000_000


class Notifier:
    """Tells the manager about the states of one run; a manager that cannot be reached is logged."""

    def __init__(self) -> None:
        self._stopping = False
        self._failed = False
        self._watches = False
        # Has an item when the watchdog is to end, and when its thread has ended.
        self._end: SimpleQueue[None] = SimpleQueue()
        self._ended: SimpleQueue[None] = SimpleQueue()

    def ready(self, status: str) -> None:
        """Say that clients are served, and begin to feed the watchdog."""
        self._tell(f"READY=1\nSTATUS={_line(status)}")
        interval = watchdog_interval()
        if interval is not None and not self._watches:
            self._watches = True
            undisturbed(lambda: start_thread("rsock-watchdog", lambda: self._watch(interval)))

    def reloading(self) -> None:
        """Say that a reload has begun; `ready` ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def reloaded(self) -> None:
        """Say that a reload has ended, where another object has said `ready`."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """Say, once, that the stop has begun. The watchdog is fed until `close`."""
        if not self._stopping:
            self._stopping = True
            self._tell("STOPPING=1")

    def close(self) -> None:
        """Say that the stop has begun, if that was not said, and end the watchdog."""
        self.stopping()
        if self._watches:
            self._watches = False
            self._end.put(None)
            self._ended.get()

    def _watch(self, interval: float) -> None:
        try:
            while True:
                try:
                    self._end.get(timeout=interval)
                    return
                except Empty:
                    self._tell("WATCHDOG=1")
        finally:
            self._ended.put(None)

    def _tell(self, state: str) -> None:
        try:
            notify(state)
        except (OSError, ValueError) as error:
            if self._failed:
                return
            self._failed = True
            with contextlib.suppress(Exception), log_turn():
                import logging

                logging.getLogger("rsock").warning("the service manager is not told: %s", error)


def _line(text: str) -> str:
    """The text on one line: a line feed would begin another assignment."""
    return " ".join(text.split())

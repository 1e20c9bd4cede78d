"""A child of `--processes`, as it sees itself: the sockets of its parent.

It owns the variable and the words by which the two talk. It must never serve, nor outlive its
parent for longer than a drain.
"""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any, Final

from .. import _counts
from .._server import Server
from ._threads import signals_blocked

__all__ = ["VARIABLE", "Child", "Word", "packed", "unpacked"]

# What a parent puts into the environment of a child: a JSON object.
VARIABLE: Final = "_RSOCK_CHILD"


class Word:
    """What a parent asks of a child, each on a line of its own."""

    DRAIN = "drain"
    FORCE = "force"
    NUMBERS = "numbers"


class Child:
    """This process, if it was started by a parent."""

    def __init__(self, sockets: list[int], control: int, counts: bool) -> None:
        self.sockets: Final = sockets
        self._control = socket.socket(fileno=control)
        self._counts = counts
        self._lock = threading.Lock()
        self._servers: Sequence[Server] = ()
        for number in (control, *sockets):
            # What handlers start must not hold the listener.
            os.set_inheritable(number, False)
        if counts:
            _counts.track()

    @classmethod
    def here(cls) -> "Child | None":
        """Return what the environment says, which is taken out of it; None in any other process."""
        text = os.environ.pop(VARIABLE, None)
        return None if text is None else cls(**json.loads(text))

    def attend(self, servers: Sequence[Server]) -> None:
        """Do what the parent asks, from now on, on a thread."""
        self._servers = servers
        with signals_blocked():
            threading.Thread(target=self._hear, name="rsock-control", daemon=True).start()

    def serving(self) -> None:
        """Tell the parent that clients are served."""
        self._say({"serving": True})

    def ended(self) -> None:
        """Tell the parent the last numbers."""
        if self._counts:
            self._say({"numbers": packed(_counts.numbers())})

    def _hear(self) -> None:
        with contextlib.suppress(OSError), self._control.makefile("r") as words:
            for word in words:
                self._do(word.strip())
        # Also the end of the parent, without a word.
        self._do(Word.DRAIN)

    def _do(self, word: str) -> None:
        if word == Word.NUMBERS:
            self._say({"numbers": packed(_counts.numbers())})
        elif word == Word.DRAIN:
            for server in self._servers:
                server._begin_stop("SIGTERM")
        elif word == Word.FORCE:
            for server in self._servers:
                server._stop(0, "SIGTERM")

    def _say(self, what: dict[str, Any]) -> None:
        # The parent may be gone.
        with contextlib.suppress(OSError), self._lock:
            self._control.sendall(json.dumps(what).encode() + b"\n")


def packed(numbers: _counts.Numbers) -> list[list[Any]]:
    """Return numbers as JSON has them, whose objects have no tuples for keys."""
    return [[list(key), value] for key, value in numbers.items()]


def unpacked(numbers: list[list[Any]]) -> _counts.Numbers:
    """Return the numbers of `packed`."""
    return {tuple(key): value for key, value in numbers}

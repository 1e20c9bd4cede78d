"""Progress as log lines, for who asks for them: a client left, was reset, reached a limit.

Asked for by a level of the logger's own: `logging.getLogger("rsock.connections").setLevel("INFO")`
before the server starts. What is merely inherited does not count, for strangers cause these lines,
and a program that logs at INFO need not be flooded by them. Nothing here may print, hold a server,
or stand in the way of traffic: the lines follow the ledger, and what that forgets is counted.
"""

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._rsock import Follower, Record
    from ._server import Server

__all__ = ["Progress", "asked"]

logger: Final = logging.getLogger("rsock.connections")

# How long a stop waits for the last lines.
_LAST_LINES: Final = 1.0

_ENDS: Final = {
    "peer": "left",
    "local": "was closed by Python",
    "service": "was closed by the service",
    "reset": "was reset",
    "limit": "reached the limit {limit}",
    "error": "ended by an error: {error}",
    "stop": "was closed by the stop",
    "detached": "was given away",
}


class Progress:
    """The thread that writes the lines of one server."""

    def __init__(self, name: str, follower: "Follower") -> None:
        self._name = name
        self._follower = follower
        self._thread = threading.Thread(target=self._run, name="rsock-log", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the last lines of a server that has stopped."""
        if threading.current_thread() is not self._thread:
            self._thread.join(_LAST_LINES)

    def _run(self) -> None:
        missed = 0
        for record in self._follower:
            self._say(line(record))
            if self._follower.missed > missed:
                self._say(f"{self._follower.missed - missed} more")
                missed = self._follower.missed

    def _say(self, text: str) -> None:
        # A filter that raises loses its own line, and not those behind it.
        with contextlib.suppress(Exception):
            logger.info("%s: %s", self._name, text)


def asked(server: "Server") -> "Follower | None":
    """What the lines of a server that is about to start are made of; None where nobody asked."""
    if logger.level == logging.NOTSET or not logger.isEnabledFor(logging.INFO):
        return None
    try:
        return server.ledger.follow()
    except ValueError:
        # A ledger that remembers nothing.
        return None


def line(record: "Record") -> str:
    """One connection's end: "connection 3 from 127.0.0.1:40000 left after 0.012 s, …"."""
    end = _ENDS[record.closed_by or "peer"].format(limit=record.limit, error=record.error)
    return (
        f"connection {record.id} from {record.remote} {end} after {record.seconds:.3f} s, "
        f"{record.bytes_in} bytes in, {record.bytes_out} out"
    )

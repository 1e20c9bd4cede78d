"""Progress lines: a line in the log for each connection that ended.

They are enabled by a level set on their own logger before the server starts:
`logging.getLogger("rsock.connections").setLevel("INFO")`. An inherited level does not count: peers
cause these lines, and could flood the log of a program that logs at INFO. Nothing here may print,
keep a server alive, or delay traffic: the lines follow the ledger, and records that it discards
first are counted.
"""

import contextlib
import logging
from _queue import Empty, SimpleQueue
from typing import Final

from ._printable import tame
from ._rsock import Follower, Record, Server
from ._threads import get_ident, log_turn, start_thread, undisturbed

__all__ = ["Progress", "follower"]

logger: Final = logging.getLogger("rsock.connections")
# Peers choose the names of their sockets, and the texts of errors may have what they sent.
logger.addFilter(tame)

_ENDS: Final = {
    "peer": "left",
    "local": "was closed by Python",
    "service": "was closed by the service",
    "reset": "was reset",
    "limit": "reached the limit {limit}",
    "error": "ended by an error: {error}",
    "fault": "was ended by the fault {error}",
    "stop": "was closed by the stop",
    "detached": "was given away",
}


class Progress:
    """The thread that writes the lines of one server."""

    def __init__(self, name: str, follower: Follower) -> None:
        self._name = name
        self._follower = follower
        self._thread = 0
        # Has an item once the thread has ended.
        self._over: SimpleQueue[None] = SimpleQueue()
        undisturbed(lambda: start_thread("rsock-log", self._run))

    def join(self, timeout: float | None) -> None:
        """Wait for the last lines of a server that has stopped, for up to `timeout` seconds."""
        if get_ident() == self._thread:
            return
        with contextlib.suppress(Empty):
            self._over.get(timeout=timeout)
            # For the next caller.
            self._over.put(None)

    def _run(self) -> None:
        self._thread = get_ident()
        try:
            self._follow()
        finally:
            self._over.put(None)

    def _follow(self) -> None:
        missed = 0
        for record in self._follower:
            self._say(line(record), record)
            if self._follower.missed > missed:
                self._say(f"{self._follower.missed - missed} more")
                missed = self._follower.missed

    def _say(self, text: str, record: Record | None = None) -> None:
        # If a filter raises, this line is lost, but not the following ones.
        with contextlib.suppress(Exception), log_turn():
            # A formatter finds the connection as attributes of the log record.
            number = None if record is None else record.id
            extra = {"server": self._name, "connection": number, "account": record}
            logger.info("%s: %s", self._name, text, extra=extra)


def follower(server: Server) -> Follower | None:
    """Return a follower for a server that is about to start; None if the lines are disabled."""
    if logger.level == logging.NOTSET or not logger.isEnabledFor(logging.INFO):
        return None
    try:
        return server.ledger.follow()
    except ValueError:
        # A ledger that keeps no closed records.
        return None


def line(record: Record) -> str:
    """Return the line of a record: "connection 3 from 127.0.0.1:40000 left after 0.012 s, …"."""
    end = _ENDS[record.closed_by or "peer"].format(limit=record.limit, error=record.error)
    return (
        f"connection {record.id} from {record.remote} {end} after {record.seconds:.3f} s, "
        f"{record.bytes_in} bytes in, {record.bytes_out} out"
    )

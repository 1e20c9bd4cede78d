"""Drawings of what happened: the table of those that there are.

Each function reads an object and returns a `Drawing`. This package is loaded when a program asks
for a drawing; nothing here may change what it shows.
"""

from ..._drawing import Drawing
from ..._rsock import Ledger, Record, Server
from . import _ladder, _map, _queue, _segments, _states, _steps, _timeline

__all__ = ["ladder", "queue", "segments", "server_map", "states", "timeline"]


def ladder(record: Record, most: int) -> Drawing:
    """What passed on a connection, from top to bottom."""
    return _ladder.draw(_steps.ladder_of(record, most))


def states(record: Record) -> Drawing:
    """The states of TCP, with the path of a connection."""
    return _states.draw(record)


def segments(record: Record) -> Drawing:
    """How the bytes of a connection were cut."""
    return _segments.draw(record)


def timeline(ledger: Ledger) -> Drawing:
    """The connections of a ledger, by the time."""
    return _timeline.draw(ledger)


def queue(server: Server) -> Drawing:
    """Where the connections of a server are."""
    return _queue.draw(server)


def server_map(server: Server) -> Drawing:
    """Who talks to whom."""
    return _map.draw(server)

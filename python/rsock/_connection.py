"""`Connection`: a server's side of one client. What it shares with `Client` is in `_stream.py`."""

from collections.abc import Callable
from typing import TypeAlias

from . import _rsock
from ._stream import StreamMethods

__all__ = ["Connection"]


class Connection(StreamMethods, _rsock.Connection):
    """One accepted connection: what a handler is given, and what `Server.accept()` returns.

    It is a blocking socket in all that `Client` is one, methods, errors and return values alike.
    It also knows its `server`, its `record` in that server's ledger and that record's `id`.

    A handler's connection is closed when the handler returns. While the server drains, `draining`
    is true and reads give what is there, then `b""`, as if the client had finished.
    """


# What a handler may be: it serves a connection or, on UDP, answers the data of an address.
Function: TypeAlias = (
    Callable[[Connection], None] | Callable[[bytes, tuple[str, int]], bytes | None]
)

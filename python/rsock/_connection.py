"""`Connection`: a server's end of one accepted socket.

This file owns its class and its docstring. What it shares with `Client` is in `_stream.py`, and
nothing here may add a method that moves bytes.
"""

from typing import TYPE_CHECKING

from . import _rsock
from ._stream import StreamMethods

if TYPE_CHECKING:
    from ._server import Server

__all__ = ["Connection"]


class Connection(StreamMethods, _rsock.Connection):
    """One accepted connection: the argument of a handler, and what `Server.accept()` returns.

    It is a blocking socket with the methods, errors and return values of `Client`. In addition it
    has its `server`, its `record` in that server's ledger and that record's `id`.

    A handler's connection is closed when the handler returns. While the server drains, `draining`
    is true and reads return what has arrived, then `b""`, as if the client had finished.
    """

    if TYPE_CHECKING:
        # The stub knows only the compiled class of servers.
        @property
        def server(self) -> Server | None: ...

"""A stream in each of its roles, and a plain socket as the standard of comparison.

Nothing here knows how rsock works inside. The other end is always a plain `socket.socket`.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

from rsock import Accept, Client, Connection, Server
from support import SOON, dial, listener

# Any of the three; `Any`, because some arguments are wrong on purpose.
Stream = Any
Pair = tuple[Stream, socket.socket]

# The connecting side, and a server's side of a connection.
OURS = ("Client", "Connection")
ROLES = ("socket", *OURS)


@contextlib.contextmanager
def connected(role: str) -> Iterator[Pair]:
    """A stream in this role, without a time-out, and its peer."""
    with contextlib.ExitStack() as stack:
        stream: Stream
        if role == "Connection":
            server = stack.enter_context(Server(service=Accept(), drain=0.0))
            peer = stack.enter_context(dial(server.address))
            stream, _ = server.accept(SOON)
            stack.enter_context(stream)
        else:
            listening = stack.enter_context(listener())
            stream = stack.enter_context(Client() if role == "Client" else socket.socket())
            stream.connect(listening.getsockname())
            peer, _ = listening.accept()
            stack.enter_context(peer)
            peer.settimeout(SOON)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield stream, peer


def outcome(call: Callable[[], object]) -> object:
    """What a call returns; or the class and error number of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error), getattr(error, "errno", None)


@contextlib.contextmanager
def handled(function: Callable[[Connection], None]) -> Iterator[Server]:
    """A server with this handler. An exception of the handler is raised at the end."""
    with Server(service=function, on_error="raise") as server:
        yield server

"""The paths that an echo can take: a service in Rust, a handler, and Forward to another server.

A target, where there is one, is a separate process, so that the figures are those of the named
server alone. Must never choose sizes, nor judge.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from reliability.process import Child, Served

if TYPE_CHECKING:
    from rsock import Connection, Server

ECHO, HANDLER, FORWARD = "Echo()", "a handler", "Forward()"


def service(path: str, target: list[Any]) -> Any:
    """The service that makes a server echo on this path."""
    from rsock import Echo, Forward

    if path == HANDLER:
        return handler
    return Echo() if path == ECHO else Forward(*target)


def handler(conn: "Connection") -> None:
    while data := conn.recv(65_536):
        conn.sendall(data)


@contextlib.contextmanager
def served(path: str, make: Callable[..., "Server"], *arguments: object) -> Iterator[Served]:
    """The server of `make(path, target, …)`, in a child; and its target, where it forwards."""
    with contextlib.ExitStack() as stack:
        target: list[Any] = []
        if path == FORWARD:
            other = stack.enter_context(Child())
            target = other.call(_start_target)
        with Served(make, path, target, *arguments) as child:
            yield child


_target: Any = None


def _start_target() -> list[Any]:
    import rsock

    global _target
    rsock.raise_fd_limit()
    _target = rsock.Server(limits=rsock.Limits(write=None, half_close=None)).start()
    return list(_target.address)

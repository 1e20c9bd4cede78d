"""The paths that echoes take: a service in Rust, a handler, and Forward to a server elsewhere.

Where a target is needed it is a process of its own, so that what is measured is what is named. Must
never choose sizes, nor judge.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from reliability.process import Child, Served

if TYPE_CHECKING:
    from rsock import Connection, Server

ECHO, HANDLER, FORWARD = "Echo()", "a handler", "Forward()"


def service(path: str, target: list[Any]) -> Any:
    """What a server is to be given, so that it echoes in this path."""
    from rsock import Echo, Forward

    if path == HANDLER:
        return handler
    return Echo() if path == ECHO else Forward(*target)


def handler(conn: "Connection") -> None:
    while data := conn.recv(65_536):
        conn.sendall(data)


@contextlib.contextmanager
def served(path: str, make: Callable[..., "Server"], *arguments: object) -> Iterator[Served]:
    """The server of `make(path, target, …)`, in a child; with what it forwards to, where it does."""
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

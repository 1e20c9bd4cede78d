"""`Client`: the connecting side, as far as it is best said in Python.

Context managers, displays and the enums that `socket.socket` gives. Whatever moves bytes stays the
method of the compiled class: nothing here may stand between a caller and `send` or `recv`.
"""

import builtins
import socket
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from . import _display, _rsock

__all__ = ["Client"]


class Client(_rsock.Client):
    """A real socket, connecting to any server; blocking, like the standard library's.

    `Client(host, port)` or `Client((host, port))` connects, names being resolved by the system and
    every address of theirs tried; without an address the socket is only created, and
    `connect(address)` is a step of its own. It blocks, with the interpreter released, for
    `timeout` seconds at most (None: as long as the kernel tries) and lets signal handlers run.
    It raises `socket.gaierror` for an unknown host, TimeoutError, or the OSError that the last
    address met, such as ConnectionRefusedError.

    Methods with the names of `socket.socket` have its meaning, errors and return values. Beside
    them are `recv_exactly`, `recv_until`, `recv_line`, `abort`, `five_tuple` and `tcp_info`.
    A stream has no hidden buffer: what a call does not return stays in the kernel.

    `timeout`: seconds that one call may take, as in `settimeout`; None waits for ever.
    `options`: a `SocketOptions`, set before connecting.
    `source_address`: the `(host, port)` to connect from, as in `socket.create_connection`.
    `spin`: seconds that `recv` looks again without letting go of the interpreter before it waits
    properly. To let go and come back costs up to 5 ms while another Python thread is busy, so a
    short spin buys many more round trips for a little of everybody's CPU; 0 turns it off.
    `transport` and `path` take their defaults only: what they choose is not built yet.

    `with` and `async with` close it at the end.
    """

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6, as `socket.socket.family`."""
        return socket.AddressFamily(super().family)

    @property
    def type(self) -> socket.SocketKind:
        """SOCK_STREAM, as `socket.socket.type`."""
        return socket.SocketKind(super().type)

    # `type` is the property above from here on; annotations say `builtins.type`.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: builtins.type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: builtins.type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Closing does not wait for the peer, so it needs no thread (with SO_LINGER it may, which
        # whoever set it has asked for).
        self.close()

    def __repr__(self) -> str:
        return _display.client_repr(self)

    def _repr_html_(self) -> str:
        return _display.client_html(self)

    # `warn` is bound here because the module's globals may be gone when the interpreter exits.
    def __del__(self, _warn: Callable[..., Any] = warnings.warn) -> None:
        try:
            if self.closed:
                return
            text = f"unclosed {self!r}"
        except Exception:
            # Not readable any more, or made in the parent of this process: not ours to close.
            return
        _warn(text, ResourceWarning, source=self)
        # A warning that is kept keeps its source: the peer must not wait for that.
        self.close()

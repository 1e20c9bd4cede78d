"""`wait_for`: waiting until an address accepts connections.

It is a `Client` that tries again. Nothing here may send a byte, or keep the connection.
"""

import errno
import math
import re
import socket
from typing import Any, Final

from ._client import Client
from ._types import Destination

__all__ = ["wait_for"]

_LIKE_A_PORT: Final = re.compile(r"[^/\0]*:[0-9]+")
# What the engine tries again, beside ConnectionError and TimeoutError (src/net/stream/connect.rs).
_TEMPORARY: Final = (
    errno.ENOENT,
    errno.EAGAIN,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EHOSTUNREACH,
    errno.EHOSTDOWN,
)


def wait_for(address: Destination, timeout: float | None = 10.0) -> None:
    """Block until a server accepts connections at `address`; return as soon as one does.

    `address` is a `(host, port)` pair or the path of a Unix socket. It is tried again
    and again, at first every 5 ms and later every 50 ms, for at most `timeout` seconds (None:
    forever). The connection is closed without a byte sent, so the server accepts one that ends at
    once.

    Blocks with the interpreter released. Raises TimeoutError, whose `__cause__` is the last error,
    such as ConnectionRefusedError or the socket.gaierror of a name that is not known yet; and at
    once an OSError that time does not change, TypeError, ValueError or OverflowError.
    """
    if isinstance(address, str) and _LIKE_A_PORT.fullmatch(address):
        host, _, port = address.rpartition(":")
        raise ValueError(
            f"wait_for({address!r}): give the host and the port as a pair, ({host!r}, {port}), or "
            f"a path with a slash, './{address}'"
        )
    seconds = math.inf if timeout is None else timeout
    target: Any = {"host": address} if isinstance(address, tuple) else {"path": address}
    try:
        client = Client(**target, retry=seconds)
    except OSError as error:
        if not _is_temporary(error):
            raise
        text = f"wait_for({address!r}): nothing accepts connections after {seconds:g} s: {error}"
        raise TimeoutError(text) from error
    client.close()


def _is_temporary(error: OSError) -> bool:
    if isinstance(error, socket.gaierror):
        return error.errno != socket.EAI_SERVICE
    return isinstance(error, (ConnectionError, TimeoutError)) or error.errno in _TEMPORARY

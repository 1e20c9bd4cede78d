"""`Endpoint`: the transport and the address of one end of a stream.

An endpoint is a frozen value. It must never open a socket, nor resolve a name.
"""

from dataclasses import dataclass

from ._printable import printable
from ._shown import Shown

__all__ = ["Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint(Shown):
    """One end of a stream: its transport and its address.

    `transport` is "tcp", "udp", "unix" or "unix-datagram". `address` is `(host, port)`, where host
    includes the scope of a link-local IPv6 address ("fe80::1%eth0"), or the path of a Unix socket:
    "" for an unnamed one, as most clients are, and with a leading NUL for an abstract name
    (`unix(7)`).

    `str()` gives the usual notation: `127.0.0.1:8080`, `[::1]:80` (RFC 3986), the path, `@name` for
    an abstract name as in `ss(8)`, or `(unnamed)`.
    """

    transport: str
    address: tuple[str, int] | str

    @property
    def host(self) -> str | None:
        """The host, always numeric; None for a Unix socket."""
        return None if isinstance(self.address, str) else self.address[0]

    @property
    def port(self) -> int | None:
        """The port; None for a Unix socket."""
        return None if isinstance(self.address, str) else self.address[1]

    def __str__(self) -> str:
        if isinstance(self.address, str):
            if self.address.startswith("\0"):
                return printable(self.address.replace("\0", "@"))
            return printable(self.address) or "(unnamed)"
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

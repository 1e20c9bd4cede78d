"""`ProxyHeader`: what a proxy says about a connection that it passes on.

This file owns the value and the meaning of its fields. It must never read or write a header, which
the compiled module does.
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from ._endpoint import Endpoint

__all__ = ["ProxyHeader", "ProxyTLS"]

# The types of doc/proxy-protocol.txt, section 2.2.
_ALPN: Final = 0x01
_AUTHORITY: Final = 0x02
_UNIQUE_ID: Final = 0x05
_SSL: Final = 0x20
_SSL_VERSION: Final = 0x21
_SSL_COMMON_NAME: Final = 0x22
_SSL_CIPHER: Final = 0x23
# PP2_CLIENT_SSL, and the byte and the number before the fields within PP2_TYPE_SSL.
_CLIENT_SSL: Final = 0x01
_SSL_FIXED: Final = 5


class ProxyTLS(NamedTuple):
    """What a proxy says about the TLS of its client.

    version: such as "TLSv1.3"; None if it does not tell, as the next ones.
    cipher: the cipher.
    common_name: the common name of the client's certificate.
    verified: whether the client has shown a certificate, and it was valid.
    """

    version: str | None
    cipher: str | None
    common_name: str | None
    verified: bool


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A header of the PROXY protocol: whose connection a proxy passes on.

    source: who connected to the proxy, an Endpoint; None if the header does not tell, and the
        connection is one of the proxy's own, such as a health check (LOCAL, UNKNOWN).
    destination: the address at which the proxy accepted that connection, an Endpoint.
    tlvs: what else the header says, as pairs of a type and bytes; only in version 2.
    version: 1 or 2.

    `Client(proxy_protocol=ProxyHeader(…))` sends one; `source` and `destination` may then be pairs
    of host and port. Raises TypeError and ValueError for values that no header can have.
    """

    source: Endpoint | tuple[str, int] | None = None
    destination: Endpoint | tuple[str, int] | None = None
    tlvs: tuple[tuple[int, bytes], ...] = ()
    version: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        if self.version not in (1, 2):
            raise ValueError(f"ProxyHeader(version={self.version!r}): must be 1 or 2")
        for name in ("source", "destination"):
            value = getattr(self, name)
            if isinstance(value, tuple):
                object.__setattr__(self, name, Endpoint("tcp", value))
            elif value is not None and not isinstance(value, Endpoint):
                raise TypeError(f"ProxyHeader({name}={value!r}): must be an Endpoint, or a pair")
        if (self.source is None) != (self.destination is None):
            raise ValueError("ProxyHeader(…): source and destination go together")
        object.__setattr__(self, "tlvs", tuple(map(_checked, self.tlvs)))
        if self.tlvs and self.version == 1:
            raise ValueError("ProxyHeader(tlvs=…, version=1): only version 2 has them")

    def _first(self, kind: int) -> bytes | None:
        return next((value for found, value in self.tlvs if found == kind), None)

    @property
    def alpn(self) -> bytes | None:
        """The protocol that the client has negotiated with the proxy, such as b"h2"."""
        return self._first(_ALPN)

    @property
    def authority(self) -> str | None:
        """The host that the client has asked the proxy for, such as the SNI of TLS."""
        return _text(self._first(_AUTHORITY))

    @property
    def unique_id(self) -> bytes | None:
        """The proxy's own name for the connection."""
        return self._first(_UNIQUE_ID)

    @property
    def tls(self) -> ProxyTLS | None:
        """What the proxy says about its client's TLS, a ProxyTLS; None if it had none."""
        found = self._first(_SSL)
        if found is None or len(found) < _SSL_FIXED or not found[0] & _CLIENT_SSL:
            return None
        fields: dict[int, bytes] = {}
        rest = found[_SSL_FIXED:]
        while len(rest) >= 3:
            end = 3 + int.from_bytes(rest[1:3], "big")
            fields.setdefault(rest[0], rest[3:end])
            rest = rest[end:]
        has_certificate = bool(found[0] & ~_CLIENT_SSL)
        return ProxyTLS(
            version=_text(fields.get(_SSL_VERSION)),
            cipher=_text(fields.get(_SSL_CIPHER)),
            common_name=_text(fields.get(_SSL_COMMON_NAME)),
            verified=has_certificate and not any(found[1:_SSL_FIXED]),
        )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _checked(tlv: tuple[int, bytes]) -> tuple[int, bytes]:
    kind, value = tlv
    if isinstance(kind, bool) or not isinstance(kind, int) or not 0 <= kind <= 0xFF:
        raise ValueError(f"ProxyHeader(tlvs=…): type {kind!r} must be an int from 0 to 255")
    if not isinstance(value, bytes):
        raise TypeError(f"ProxyHeader(tlvs=…): the value of type {kind:#04x} must be bytes")
    return kind, value

"""Packets that carry what a recording says, with headers that are made up.

RFC 791 and 8200 (IP), 9293 (TCP), 768 (UDP). Nothing here may know the file that the packets go to.
"""

import ipaddress
import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from ._recorded import RecordedConnection, RecordedEvent

__all__ = ["Packet", "TcpFlow", "UdpFlow", "flow_of"]

_TCP: Final = 6
_UDP: Final = 17
_FIN, _SYN, _RST, _PSH, _ACK = 1, 2, 4, 8, 16
# Sizes of packets on Ethernet, and the headers of IP and TCP in them.
_MTU: Final = 1500
_HEADERS: Final = {4: 40, 6: 60}
# The most bytes of a datagram: a length of 16 bits counts the headers, but for that of IPv6.
_MOST_DATAGRAM: Final = {4: 65_535 - 28, 6: 65_535 - 8}
# The windows are open for more than any event has: 65 535 << 7 bytes.
_WINDOW: Final = 65_535
_WINDOW_SCALE: Final = 7
# Where no address is known. No protocol has the ports: the first is that of the server, the others
# are those of clients (RFC 6335).
_LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}
_SERVER_PORT: Final = 49_151
_CLIENT_PORTS: Final = range(49_152, 65_536)
# Redacted parts that the comment of a packet lists.
_LISTED: Final = 8

_Side = tuple[str, int]


class Packet(NamedTuple):
    """A packet from its IP header on, and a comment for people."""

    data: bytes
    comment: str = ""


def flow_of(connection: RecordedConnection, is_datagram: bool, target: str) -> "TcpFlow | UdpFlow":
    """Return what makes the packets of a connection.

    `target` is where the server forwarded to: its port stands for that of a server which is not
    known, because programs choose by the port how they show the bytes.
    """
    return (UdpFlow if is_datagram else TcpFlow)(connection, target)


class _Way:
    """One direction between two sides. It fills in what depends on the addresses."""

    def __init__(self, source: _Side, target: _Side, protocol: int) -> None:
        first, second = ipaddress.ip_address(source[0]), ipaddress.ip_address(target[0])
        self.version = 4 if first.version == second.version == 4 else 6
        if self.version == 6:
            pair = _as_ipv6(first) + _as_ipv6(second)
        else:
            pair = first.packed + second.packed
        self._pair = pair
        self._protocol = protocol
        # Of the pseudo header, without the length.
        self._sum = _sum(pair) + protocol
        self.ports = struct.pack("!HH", source[1], target[1])

    def packet(self, header: bytes, checksum_at: int, data: bytes) -> bytes:
        """A packet. `header` is that of the transport, whose checksum is filled in."""
        length = len(header) + len(data)
        checksum = _checksum(self._sum + length + _sum(header) + _sum(data))
        if self._protocol == _UDP:
            # 0 would mean that there is none.
            checksum = checksum or 0xFFFF
        filled = struct.pack("!H", checksum)
        return b"".join(
            (self._ip(length), header[:checksum_at], filled, header[checksum_at + 2 :], data)
        )

    def _ip(self, length: int) -> bytes:
        if self.version == 6:
            return struct.pack("!IHBB", 6 << 28, length, self._protocol, 64) + self._pair
        # The flag "don't fragment", and so no identification (RFC 6864).
        fixed = struct.pack("!BBHHHBB", 0x45, 0, 20 + length, 0, 0x4000, 64, self._protocol)
        return fixed + struct.pack("!H", _checksum(_sum(fixed) + _sum(self._pair))) + self._pair


class TcpFlow:
    """The packets of one connection: each event is cut into segments, and acknowledged."""

    def __init__(self, connection: RecordedConnection, target: str) -> None:
        client, server, self._comment = _sides(connection, target)
        self._ways = (_Way(client, server, _TCP), _Way(server, client, _TCP))
        # What each side sends next. The first numbers differ from one connection to the next, by
        # which connections with the same ports are told apart.
        first = (connection.number * 0x9E37_79B1) & 0xFFFF_FFFF
        self._next = [first, first ^ 0x8000_0000]
        self._is_reset = [False, False]
        self._most = _MTU - _HEADERS[self._ways[0].version]

    def opened(self) -> Iterator[Packet]:
        """The handshake."""
        options = struct.pack("!BBHBBBB", 2, 4, self._most, 1, 3, 3, _WINDOW_SCALE)
        yield Packet(self._segment(0, _SYN, options=options), self._comment)
        yield Packet(self._segment(1, _SYN | _ACK, options=options))
        yield Packet(self._segment(0, _ACK))

    def event(self, event: RecordedEvent) -> Iterator[Packet]:
        """The packets of an event."""
        side = 0 if event.direction == "up" else 1
        if event.kind == "reset":
            self._is_reset[side] = True
            yield Packet(self._segment(side, _RST | _ACK))
            return
        if event.kind == "end":
            yield Packet(self._segment(side, _FIN | _ACK))
        data = event.data
        for start in range(0, len(data), self._most):
            end = start + self._most
            is_last = end >= len(data)
            flags = _ACK | _PSH if is_last else _ACK
            comment = _redacted(event, start, end, is_last) if event.any else ""
            yield Packet(self._segment(side, flags, data[start:end]), comment)
        if (data or event.kind == "end") and not self._is_reset[1 - side]:
            yield Packet(self._segment(1 - side, _ACK))

    def _segment(self, side: int, flags: int, data: bytes = b"", options: bytes = b"") -> bytes:
        own = self._next[side]
        acknowledged = self._next[1 - side] if flags & _ACK else 0
        offset = 5 + len(options) // 4
        fields = (own, acknowledged, offset << 4, flags, _WINDOW, 0, 0)
        way = self._ways[side]
        header = way.ports + struct.pack("!IIBBHHH", *fields) + options
        self._next[side] = (own + len(data) + bool(flags & (_SYN | _FIN))) & 0xFFFF_FFFF
        return way.packet(header, 16, data)


class UdpFlow:
    """The packets of a peer: one for each datagram. What has no payload has no packet."""

    def __init__(self, connection: RecordedConnection, target: str) -> None:
        client, server, self._comment = _sides(connection, target)
        self._ways = (_Way(client, server, _UDP), _Way(server, client, _UDP))

    def opened(self) -> Iterator[Packet]:
        """Nothing: the first datagram is the first packet."""
        return iter(())

    def event(self, event: RecordedEvent) -> Iterator[Packet]:
        """The packet of an event."""
        if event.kind != "data":
            return
        way = self._ways[0 if event.direction == "up" else 1]
        data = event.data
        comments = [self._comment] if self._comment else []
        self._comment = ""
        most = _MOST_DATAGRAM[way.version]
        if event.any:
            comments.append(_redacted(event, 0, most, True))
        if len(data) > most:
            comments.append(f"cut: {len(data)} bytes are more than a datagram has")
            data = data[:most]
        header = way.ports + struct.pack("!HH", 8 + len(data), 0)
        yield Packet(way.packet(header, 6, data), "; ".join(filter(None, comments)))


def _sum(data: bytes) -> int:
    """The sum of the 16-bit words, modulo 65 535: 2**16 is 1 there, so that one division does."""
    if len(data) % 2:
        data += b"\0"
    return int.from_bytes(data, "big") % 0xFFFF


def _checksum(total: int) -> int:
    """The checksum of RFC 1071. No packet has words of 0 only, so 0 stands for 65 535."""
    return 0xFFFF - (total % 0xFFFF or 0xFFFF)


def _as_ipv6(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    if address.version == 6:
        return address.packed
    return bytes(10) + b"\xff\xff" + address.packed


def _sides(connection: RecordedConnection, target: str) -> tuple[_Side, _Side, str]:
    """The client, the server, and a comment that says what of them is made up."""
    comment = f"connection {connection.number} of the recording"
    client = connection.client.address
    local = None if connection.local is None else connection.local.address
    if isinstance(client, str):
        to = "" if connection.local is None else f" to {connection.local}"
        comment += f", of {connection.client}{to} by Unix sockets; addresses and ports are made up"
        port = _CLIENT_PORTS[(connection.number - 1) % len(_CLIENT_PORTS)]
        client, local = (_LOOPBACK[4], port), None
    elif local is None:
        comment += "; the recording does not say the server's address, which is made up"
    client = (_numeric(client[0]), client[1])
    if local is None or isinstance(local, str):
        host = _LOOPBACK[ipaddress.ip_address(client[0]).version]
        local = (host, _port_of(target))
        if local == client:
            local = (host, _SERVER_PORT if client[1] != _SERVER_PORT else _SERVER_PORT - 1)
    return client, (_numeric(local[0]), local[1]), comment


def _numeric(host: str) -> str:
    """An address without its scope, for which a packet has no room."""
    return host.partition("%")[0]


def _port_of(target: str) -> int:
    found = re.search(r":([0-9]{1,5})\Z", target)
    return int(found[1]) if found and 0 < int(found[1]) < 65_536 else _SERVER_PORT


def _redacted(event: RecordedEvent, start: int, end: int, is_last: bool) -> str:
    """What of the bytes from `start` to `end` stands for others, counted from `start`."""
    within = [
        (max(first, start) - start, min(last, end) - start)
        for first, last in event.any
        if (first < end and last > start)
        # An empty mark is in front of a byte, or behind the last one.
        or (first == last and (start <= first < end or (is_last and first >= end)))
    ]
    if not within:
        return ""
    parts = [
        f"bytes {first} to {last}" if first < last else f"at byte {first}"
        for first, last in within[:_LISTED]
    ]
    more = f" and {len(within) - _LISTED} more" if len(within) > _LISTED else ""
    return f"redacted, a mark is in place of what crossed: {', '.join(parts)}{more}"

"""The settings that callers pass in: `SocketOptions`, `Limits` and `Trace`.

They are frozen, and checked when they are made, so that the code that receives one can rely on it.
Nothing in this file may let a value through that the engine would have to check again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ._checks import (
    bad_value,
    check_bool,
    check_groups,
    check_int,
    check_keepalive,
    check_mode,
    check_rate,
    check_seconds,
    check_word,
)
from ._keywords import explained
from ._shown import Shown

__all__ = ["Limits", "SocketOptions", "Trace"]

# setsockopt(2) and listen(2) take a C int.
_C_INT_MAX: Final = 2**31 - 1
# What the kernel accepts for TCP_MAXSEG: TCP_MIN_MSS to MAX_TCP_WINDOW (net/ipv4/tcp.c).
_MAX_SEGMENT: Final = (88, 32_767)
# MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL and MAX_TCP_KEEPCNT (include/net/tcp.h).
_MAX_KEEPALIVE: Final = (32_767, 32_767, 127)
# TCP_USER_TIMEOUT takes a C int of milliseconds.
_MAX_USER_TIMEOUT: Final = _C_INT_MAX // 1_000
# l_linger was a signed short on the systems that introduced SO_LINGER; nine hours is plenty.
_MAX_LINGER: Final = 32_767
# One page. A smaller buffer would hold less than most messages, so that reading from the peer
# would stop and resume for each of them.
_MIN_WRITE_BUFFER: Final = 4_096
# Per connection: a larger value is most likely a mistake in the unit, and could exhaust memory.
_MAX_WRITE_BUFFER: Final = 2**30
# More than a machine accepts in a second.
_MAX_RATE: Final = 10_000_000
# A line is held in memory until its end arrives.
_MAX_LINE: Final = 2**30
# More than a Unix socket sends. UDP sends less: its length field has 16 bits (RFC 768).
_MAX_DATAGRAM: Final = 2**23
# More threads than most systems let a process have.
_MAX_THREADS: Final = 10_000
# Per connection: a larger value could exhaust memory.
_MAX_TRACE_BYTES: Final = 2**30
_MAX_TRACE_EVENTS: Final = 1_000_000
# A time limit of more than a year is most likely a mistake in the unit; None means "never".
_MAX_SECONDS: Final = 366 * 86_400


# One multicast group, with its interface; or several.
Group: TypeAlias = str | tuple[str, str | int | None]
Groups: TypeAlias = Group | Sequence[Group]


@explained
@dataclass(frozen=True, slots=True, kw_only=True)
class SocketOptions(Shown):
    """Options set on a socket before it is used; None leaves a value to the system.

    reuse_address: SO_REUSEADDR: a port whose last connections are in TIME-WAIT can be bound again.
    reuse_port: SO_REUSEPORT: several listeners of the same user share the port.
    backlog: how many connections may wait to be accepted, as in `listen(2)`; None is the system's
        maximum (net.core.somaxconn), which also caps every number given.
    nodelay: TCP_NODELAY: small messages leave at once instead of waiting for an acknowledgement.
    keepalive: SO_KEEPALIVE: probe a silent peer, and reset the connection if it does not answer.
        True does so after the system's times, usually two hours; (idle, interval, count) after
        `idle` seconds of silence, then every `interval` seconds, until `count` probes were not
        answered (TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, see `tcp(7)`). At most 32 767 s, and
        127 probes.
    user_timeout: TCP_USER_TIMEOUT (RFC 5482): seconds that data may stay unacknowledged before the
        connection is reset, rounded to milliseconds. With `keepalive`, the time that a silent peer
        has from the first probe on, in place of `count`. None is the system's, about 15 minutes.
    linger: SO_LINGER in whole seconds, 0 to 32 767: how long `close()` may wait for unsent bytes;
        0 discards them and resets the connection.
    send_buffer: SO_SNDBUF in bytes; Linux doubles it for its own book-keeping, see `socket(7)`.
    receive_buffer: SO_RCVBUF in bytes; Linux doubles it in the same way.
    max_segment: TCP_MAXSEG in bytes, 88 to 32 767, as the kernel defines it: 1472 gives 1460 bytes
        of payload beside the timestamp option.
    dual_stack: on "::", accept IPv4 as well (IPV6_V6ONLY off); no effect on any other host.
    mode: permission bits of the file of a Unix socket that a server binds, 0 to 0o777, whatever the
        umask; the file never has others. None leaves them to the umask.
    multicast: multicast groups that a UDP socket joins (IP_ADD_MEMBERSHIP): an address, with the
        interface behind a `%` or as a pair ("224.0.0.251", interface); or several of these in a
        list. The interface is its name, number or IPv4 address; without one the system chooses.

    A Unix socket takes `backlog`, `send_buffer`, `receive_buffer` (which Linux ignores there) and
    `mode`. On a Unix socket, `keepalive`, `user_timeout`, `linger`, `max_segment` and
    `reuse_port` raise ValueError, `nodelay` has no effect, and the others concern only ports. A
    TCP server refuses `mode`.

    Raises TypeError for a value of the wrong type and ValueError for one out of range, naming
    field and value.
    """

    reuse_address: bool = True
    reuse_port: bool = False
    backlog: int | None = None
    nodelay: bool = True
    keepalive: bool | tuple[int, int, int] | None = None
    user_timeout: float | None = None
    linger: float | None = None
    send_buffer: int | None = None
    receive_buffer: int | None = None
    max_segment: int | None = None
    dual_stack: bool = True
    mode: int | None = None
    multicast: Groups | None = None

    def __post_init__(self) -> None:
        for name in ("reuse_address", "reuse_port", "nodelay", "dual_stack"):
            check_bool(self, name)
        check_keepalive(self, "keepalive", _MAX_KEEPALIVE)
        check_seconds(self, "user_timeout", 0.001, _MAX_USER_TIMEOUT)
        check_int(self, "backlog", 0, _C_INT_MAX)
        check_int(self, "send_buffer", 1, _C_INT_MAX)
        check_int(self, "receive_buffer", 1, _C_INT_MAX)
        check_int(self, "max_segment", *_MAX_SEGMENT)
        check_mode(self, "mode")
        check_groups(self, "multicast")
        linger = check_seconds(self, "linger", 0, _MAX_LINGER)
        # The kernel counts whole seconds, and 0 means "reset": rounding half a second down to 0
        # would reset the connection.
        if linger is not None and linger != int(linger):
            raise bad_value(self, "linger", "must be a whole number of seconds")


@explained
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Shown):
    """What a server allows its connections; None means no limit, except for `connections`.

    connections: how many may be open at once; None is what the descriptor limit of the process
        allows when the server starts, and at least 8.
    per_host: how many connections one peer address may have; one more is accepted and reset at
        once, whatever `overflow` is, and counted as refused.
    overflow: what happens to one more than `connections` or `accept_rate` allow: "wait" leaves it
        in the backlog until there is room, "refuse" accepts and resets it.
    accept_rate: how many connections are accepted each second, on average; after a pause as many as
        in one second, and at least 1, come at once. `overflow` says what happens to more of them.
        Not on a server of datagrams.
    handshakes: how many handshakes of TLS are made at once with clients, at the accept and by
        `start_tls` of connections and scripts; further ones wait, under `first_byte`.
    idle: seconds without a byte in either direction; then the connection is closed.
    first_byte: seconds from the accept to the peer's first byte; then it is closed.
    write: seconds without progress while there is data to send that the peer does not take; then
        the connection is reset.
    half_close: seconds from our FIN to the peer's, and for sending what is left to a peer that has
        finished sending; then the connection is reset. It does not bound the time that the target
        of a Forward takes to answer a client that has finished: `idle` does, or, without `idle`,
        10 minutes without a byte.
    lifetime: seconds from the accept to the end of the connection, whatever it does; then it is
        closed, and a handler's next call raises TimeoutError. A handler that computes goes on until
        its next call.
    line: bytes of a line, its ending included, in services that read lines; a longer one ends the
        connection. 1 to 2**30.
    write_buffer: bytes held for one connection whose peer does not read; at this size, reading from
        the peer pauses too. 4 096 to 2**30. Only for services in Rust; a handler's `sendall` waits.
    datagram: bytes of one datagram that are received; a longer one is cut, and counted as
        truncated. 1 to 2**23; None is 65 535, the longest that UDP allows, and for Unix sockets
        212 960, the longest that one sends unless it has set its send buffer.
    handler_threads: how many handlers run at once, each on a thread of its own; further
        connections wait for one of them to return. 1 to 10 000.

    The record of a connection that a limit ended has `closed_by` "limit", and `limit` names the
    limit. With a handler or `Accept()`, `idle`, `first_byte` and `write` apply while one of the
    connection's own calls waits: the call raises TimeoutError, and the connection is closed. They
    do not apply to a read or write through `fileno()` or `to_socket()`; `lifetime` does.

    Raises TypeError for a value of the wrong type and ValueError for one out of range, naming field
    and value.
    """

    connections: int | None = None
    per_host: int | None = None
    overflow: Literal["wait", "refuse"] = "wait"
    accept_rate: float | None = None
    handshakes: int | None = None
    idle: float | None = None
    first_byte: float | None = None
    write: float | None = 60.0
    half_close: float | None = 30.0
    lifetime: float | None = None
    line: int = 65_536
    datagram: int | None = None
    write_buffer: int = 65_536
    handler_threads: int = 256

    def __post_init__(self) -> None:
        check_int(self, "connections", 1, _C_INT_MAX)
        check_int(self, "per_host", 1, _C_INT_MAX)
        check_word(self, "overflow", ("wait", "refuse"))
        check_rate(self, "accept_rate", _MAX_RATE)
        check_int(self, "handshakes", 1, _C_INT_MAX)
        for name in ("idle", "first_byte", "write", "half_close", "lifetime"):
            if check_seconds(self, name, 0, _MAX_SECONDS) == 0:
                raise bad_value(self, name, "must be more than 0; None never gives up")
        check_int(self, "line", 1, _MAX_LINE, optional=False)
        check_int(self, "write_buffer", _MIN_WRITE_BUFFER, _MAX_WRITE_BUFFER, optional=False)
        check_int(self, "datagram", 1, _MAX_DATAGRAM)
        check_int(self, "handler_threads", 1, _MAX_THREADS, optional=False)


@explained
@dataclass(frozen=True, slots=True, kw_only=True)
class Trace(Shown):
    """How much of the traffic of each connection a server keeps.

    bytes: how many bytes of data, in both directions together; the oldest data is discarded first.
        0 keeps no data, only sizes and times. At most 2**30.
    events: how many receives and sends; the oldest are discarded first. 1 to 1 000 000.

    A trace is kept as long as its record is: for the open connections, and for up to `history`
    closed ones. Raises TypeError for a value of the wrong type and ValueError for one out of range,
    naming field and value.
    """

    bytes: int = 8_192
    events: int = 128

    def __post_init__(self) -> None:
        check_int(self, "bytes", 0, _MAX_TRACE_BYTES, optional=False)
        check_int(self, "events", 1, _MAX_TRACE_EVENTS, optional=False)

"""The plain values that go in and out of rsock: options, limits, addresses, counts and reports.

Everything here is frozen and knows no socket and no thread. `SocketOptions` and `Limits` are
checked when they are made, so whoever receives one may trust it: nothing in this file may let a
value through that the engine would have to check again.
"""

from dataclasses import dataclass, field, fields
from os import PathLike
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = [
    "Endpoint",
    "FiveTuple",
    "Limits",
    "PeerCredentials",
    "ProcessLimits",
    "SocketOptions",
    "StopReport",
    "TcpInfo",
    "Totals",
    "Trace",
    "TraceEvent",
]

# The path of a Unix socket as callers give it.
SocketPath: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]
# Where to connect or to listen.
Destination: TypeAlias = tuple[str, int | str] | SocketPath

# setsockopt(2) and listen(2) take a C int.
_C_INT_MAX: Final = 2**31 - 1
# What the kernel takes for TCP_MAXSEG: from TCP_MIN_MSS to MAX_TCP_WINDOW (net/ipv4/tcp.c).
_MAX_SEGMENT: Final = (88, 32_767)
# l_linger was a signed short on the systems SO_LINGER comes from; nine hours is plenty.
_MAX_LINGER: Final = 32_767
# One page. A smaller buffer would hold less than most messages, so that the peer's reading would
# be stopped and resumed for every one of them.
_MIN_WRITE_BUFFER: Final = 4_096
# It is per connection: more than this is a slip of units, and would put the memory at risk.
_MAX_WRITE_BUFFER: Final = 2**30
# Of a line as much is kept until its end comes.
_MAX_LINE: Final = 2**30
# The length of a UDP datagram has 16 bits (RFC 768).
_MAX_DATAGRAM: Final = 65_535
# More threads than most systems let a process have.
_MAX_THREADS: Final = 10_000
# Of each connection: more than this would put the memory at risk.
_MAX_TRACE_BYTES: Final = 2**30
_MAX_TRACE_EVENTS: Final = 1_000_000
# A time limit longer than a year is a slip of units as well; None says "never".
_MAX_SECONDS: Final = 366 * 86_400


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a stream: its transport and its address.

    `transport` is "tcp", "udp" or "unix". `address` is `(host, port)`, the scope of a link-local
    IPv6 address inside host ("fe80::1%eth0"), or the path of a Unix socket: "" for one without a
    name, as most clients are, and a NUL first for an abstract name (`unix(7)`).

    `str()` gives the usual notation: `127.0.0.1:8080`, `[::1]:80` (RFC 3986), the path, `@name` for
    an abstract name as `ss(8)` has it, or `(unnamed)`.
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


def printable(text: str) -> str:
    """`text` on one line, with nothing that a terminal would obey: peers choose names, too."""

    def shown(char: str) -> str:
        if "\udc80" <= char <= "\udcff":
            # Of a byte that is no text, as os.fsdecode has it.
            return f"\\x{ord(char) - 0xDC00:02x}"
        return char if char.isprintable() else repr(char)[1:-1]

    return "".join(map(shown, text))


class FiveTuple(NamedTuple):
    """A connected stream as a program sees it: its descriptor and its two addresses.

    An ordinary tuple with names, as `getsockname(2)` and `getpeername(2)` tell it. Of a Unix socket
    the hosts are the paths ("" where there is none), and the ports, which it has not, are 0.
    """

    fd: int
    local_host: str
    local_port: int
    remote_host: str
    remote_port: int


class PeerCredentials(NamedTuple):
    """The process at the other end of a Unix socket, which the kernel vouches for: `unix(7)`.

    pid: the process that connected or, seen from a client, that listens; 0 where it is outside of
        the PID namespace of this one.
    uid, gid: its effective user and group when it did so.
    """

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketOptions:
    """What is set on a socket before it is used; None leaves a value to the system.

    reuse_address: SO_REUSEADDR: a port whose last connections are in TIME-WAIT can be bound again.
    reuse_port: SO_REUSEPORT: several listeners of the same user share the port.
    backlog: how many connections may wait to be accepted, as in `listen(2)`; None is the system's
        maximum (net.core.somaxconn), which also caps every number given.
    nodelay: TCP_NODELAY: small messages leave at once instead of waiting for an acknowledgement.
    keepalive: SO_KEEPALIVE: True has the kernel probe a silent peer.
    linger: SO_LINGER in whole seconds, 0 to 32 767: how long `close()` may wait for unsent bytes;
        0 discards them and resets the connection.
    send_buffer: SO_SNDBUF in bytes; Linux doubles it for its own book-keeping, see `socket(7)`.
    receive_buffer: SO_RCVBUF in bytes, with the same remark.
    max_segment: TCP_MAXSEG in bytes, 88 to 32 767, as the kernel means it: 1472 gives 1460 bytes
        of payload beside the timestamp option.
    dual_stack: on "::", take IPv4 as well (IPV6_V6ONLY off); it concerns no other host.
    mode: permission bits of the file of a Unix socket that a server binds, 0 to 0o777, whatever the
        umask; the file never has others. None leaves them to the umask.

    A Unix socket takes `backlog`, `send_buffer`, `receive_buffer` (which Linux ignores there) and
    `mode`. On one, `keepalive`, `linger`, `max_segment` and `reuse_port` are a ValueError,
    `nodelay` is what it is anyway, and the others concern only ports. A TCP server refuses `mode`.

    Raises TypeError for a value of the wrong type and ValueError for one out of range, naming
    field and value.
    """

    reuse_address: bool = True
    reuse_port: bool = False
    backlog: int | None = None
    nodelay: bool = True
    keepalive: bool | None = None
    linger: float | None = None
    send_buffer: int | None = None
    receive_buffer: int | None = None
    max_segment: int | None = None
    dual_stack: bool = True
    mode: int | None = None

    def __post_init__(self) -> None:
        for name in ("reuse_address", "reuse_port", "nodelay", "dual_stack"):
            _check_bool(self, name)
        _check_bool(self, "keepalive", optional=True)
        _check_int(self, "backlog", 0, _C_INT_MAX)
        _check_int(self, "send_buffer", 1, _C_INT_MAX)
        _check_int(self, "receive_buffer", 1, _C_INT_MAX)
        _check_int(self, "max_segment", *_MAX_SEGMENT)
        _check_mode(self)
        linger = _check_seconds(self, "linger", 0, _MAX_LINGER)
        # The kernel counts whole seconds, and 0 means "reset": half a second must not become that.
        if linger is not None and linger != int(linger):
            raise _bad(self, "linger", "must be a whole number of seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server allows its connections; None means no limit, save for `connections`.

    connections: how many may be open at once; None is what the descriptor limit of the process
        allows when the server starts, and 8 at least.
    per_host: how many of them one peer's address may have; one more is accepted and reset at
        once, whatever `overflow` says, and counted as refused.
    overflow: what happens to one more than `connections`: "wait" leaves it in the backlog until
        another has closed, "refuse" accepts and resets it.
    idle: seconds without a byte in either direction; then the connection is closed.
    first_byte: seconds from the accept to the peer's first byte; then it is closed.
    write: seconds without progress while something is to be sent that the peer does not take; then
        the connection is reset.
    half_close: seconds from our FIN to the peer's, and for what is still owed to a peer that has
        finished sending.
    line: bytes of a line, its ending included, in services that read lines; a longer one ends the
        connection. 1 to 2**30.
    write_buffer: bytes held for one connection that does not read; beyond it, it is not read from
        either. 4 096 to 2**30. Only of services in Rust; a handler's `sendall` just waits.
    datagram: bytes of one UDP datagram that are taken; what is longer is cut, and counted as
        truncated. 1 to 65 535, which no datagram exceeds.
    handler_threads: how many handlers run at once, each on a thread of its own; a connection
        beyond that waits for one of them to return. 1 to 10 000.

    What a limit ended has `closed_by` "limit" in its record, and `limit` names which. With a
    handler or `Accept()`, `idle`, `first_byte` and `write` hold while one of the connection's own
    calls waits: the call raises TimeoutError, and the connection is over.

    Raises TypeError for a value of the wrong type and ValueError for one out of range, naming field
    and value.
    """

    connections: int | None = None
    per_host: int | None = None
    overflow: Literal["wait", "refuse"] = "wait"
    idle: float | None = None
    first_byte: float | None = None
    write: float | None = 60.0
    half_close: float | None = 30.0
    line: int = 65_536
    datagram: int = 65_535
    write_buffer: int = 65_536
    handler_threads: int = 256

    def __post_init__(self) -> None:
        _check_int(self, "connections", 1, _C_INT_MAX)
        _check_int(self, "per_host", 1, _C_INT_MAX)
        if not isinstance(self.overflow, str):
            raise _wrong_type(self, "overflow", "'wait' or 'refuse'")
        if self.overflow not in ("wait", "refuse"):
            raise _bad(self, "overflow", "must be 'wait' or 'refuse'")
        for name in ("idle", "first_byte", "write", "half_close"):
            if _check_seconds(self, name, 0, _MAX_SECONDS) == 0:
                raise _bad(self, name, "must be more than 0; None never gives up")
        _check_int(self, "line", 1, _MAX_LINE, optional=False)
        _check_int(self, "write_buffer", _MIN_WRITE_BUFFER, _MAX_WRITE_BUFFER, optional=False)
        _check_int(self, "datagram", 1, _MAX_DATAGRAM, optional=False)
        _check_int(self, "handler_threads", 1, _MAX_THREADS, optional=False)


@dataclass(frozen=True, slots=True)
class Leg:
    """The far leg of a connection that a `Forward` passes on, at the moment of asking.

    local: our side, an Endpoint.
    remote: the target's side: which of its addresses was reached.
    messages_in, messages_out: successful receives from the target and sends to it.
    bytes_in, bytes_out: payload bytes received from the target and sent to it.
    """

    local: Endpoint
    remote: Endpoint
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class StopReport:
    """How a server came to its end.

    drained: connections that ended in order after the stop was asked for, all owed delivered.
    forced: connections that were reset at the deadline.
    abandoned: handler threads that did not return in time and were left behind.
    errors: services and handlers that failed during the server's life.
    cause: why it stopped: "stop", "SIGINT", "SIGTERM", "exception", "accept error", "exit", or
        "dropped" (collected without a stop).
    seconds: how long stopping took.
    """

    drained: int
    forced: int
    abandoned: int
    errors: int
    cause: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums of a ledger since its server started, also of connections it no longer holds.

    They balance: accepted == open + closed.

    accepted: connections taken from the backlog and admitted.
    open: those of them that are open now.
    closed: those of them that have ended.
    refused: connections turned away, because a limit was reached; not in `accepted`.
    accept_errors: failed `accept(2)` calls.
    suspects: datagrams that got no answer because of where they came from, or were sent to.
    dropped: datagrams that were not sent, for want of room or because a stranger would have got
        more than its share.
    truncated: datagrams received that were longer than `Limits.datagram`, and were cut.
    waited: connections that had to wait for a handler, because all `handler_threads` were busy.
    messages_in, messages_out: successful receives and sends that carried data.
    bytes_in, bytes_out: payload bytes received and sent.
    closed_by: how many of `closed` ended for which reason; the reasons are those of
        `Record.closed_by`.
    """

    accepted: int
    open: int
    closed: int
    refused: int
    accept_errors: int
    waited: int
    suspects: int
    dropped: int
    truncated: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    # A dict has no hash; the counts beside it are enough for one.
    closed_by: dict[str, int] = field(hash=False)

    @property
    def bits_in(self) -> int:
        """Payload bits received: 8 × bytes_in."""
        return 8 * self.bytes_in

    @property
    def bits_out(self) -> int:
        """Payload bits sent: 8 × bytes_out."""
        return 8 * self.bytes_out


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What the system lets this process have; `process_limits()` reads it.

    fd_soft: open descriptors allowed now (RLIMIT_NOFILE, see `getrlimit(2)`).
    fd_hard: what `raise_fd_limit()` can raise that to.
    fd_in_use: descriptors open at the moment of asking.
    ephemeral_ports: first and last port given to outgoing connections
        (net.ipv4.ip_local_port_range); a client needs one for each connection to one address.
    backlog_max: longest queue of connections waiting to be accepted (net.core.somaxconn).
    """

    fd_soft: int
    fd_hard: int
    fd_in_use: int
    ephemeral_ports: tuple[int, int]
    backlog_max: int


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """What the kernel knows about a TCP connection at one moment: TCP_INFO of `tcp(7)`.

    state: the state's name in RFC 9293: "ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-1", …
    rtt: smoothed round-trip time, in seconds.
    rtt_variance: its mean deviation, in seconds (RFC 6298).
    min_rtt: the shortest round trip of the last minutes, in seconds; None before the first one.
    retransmit_timeout: in seconds (RFC 6298).
    retransmits: segments sent again since the connection was made.
    lost: segments held for lost now.
    out_of_order: segments that came before one that was sent earlier.
    segments_in, segments_out: segments received and sent, those without data included.
    data_segments_in, data_segments_out: of these, segments with data.
    bytes_received: bytes received in order; the peer's FIN counts as one.
    bytes_sent: bytes sent, those that were sent again included.
    bytes_acked: bytes sent that the peer has acknowledged; its SYN and FIN count as one each.
    bytes_retransmitted: bytes sent again.
    unacknowledged: segments sent and not yet acknowledged.
    send_mss, receive_mss, advertised_mss: largest segment's payload in bytes: now sent, assumed of
        the peer, and announced to it.
    path_mtu: largest packet the path is known to take, in bytes.
    send_window: bytes that the peer takes now: the window it announced (RFC 9293); None on Linux
        before 5.4.
    receive_window: bytes that we take now: the window announced to the peer; None before 6.2.
    receive_space: bytes the receive buffer is tuned for.
    congestion_algorithm: such as "cubic" or "bbr" (TCP_CONGESTION).
    congestion_state: what the sender thinks of the path: "open" (all is well), "disorder" (the
        first hints of a loss), "CWR" (the window is being reduced), "recovery" (a loss is made up
        for), "loss" (a time-out ran out).
    congestion_window: segments that may be under way.
    slow_start_threshold: in segments (RFC 5681); 2147483647 until the first loss.
    delivery_rate: latest measured rate of delivery, in bytes per second; 0 while unknown.
    """

    state: str
    rtt: float
    rtt_variance: float
    min_rtt: float | None
    retransmit_timeout: float
    retransmits: int
    lost: int
    out_of_order: int
    segments_in: int
    segments_out: int
    data_segments_in: int
    data_segments_out: int
    bytes_received: int
    bytes_sent: int
    bytes_acked: int
    bytes_retransmitted: int
    unacknowledged: int
    send_mss: int
    receive_mss: int
    advertised_mss: int
    path_mtu: int
    send_window: int | None
    receive_window: int | None
    receive_space: int
    congestion_algorithm: str
    congestion_state: str
    congestion_window: int
    slow_start_threshold: int
    delivery_rate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """How much a server remembers of what goes over each of its connections.

    bytes: of data, in both directions together; the data of the oldest events goes first. 0 keeps
        none, only sizes and times. At most 2**30.
    events: receives and sends; the oldest go first. 1 to 1 000 000.

    It is kept as long as the record is: up to `history` of them, beside those that are open. Raises
    TypeError for a value of the wrong type and ValueError for one out of range, naming field and
    value.
    """

    bytes: int = 8_192
    events: int = 128

    def __post_init__(self) -> None:
        _check_int(self, "bytes", 0, _MAX_TRACE_BYTES, optional=False)
        _check_int(self, "events", 1, _MAX_TRACE_EVENTS, optional=False)


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One receive or send that carried data: a message of `Record.messages_in` or `messages_out`.

    number: its number in the connection, from 1; what was before the first one that is remembered
        has been forgotten.
    seconds: when it was, counted from the record's `opened_at`.
    direction: "in" (from the peer) or "out" (to it).
    size: how many bytes it carried.
    data: its bytes, from the first on, as far as they are remembered.
    """

    number: int
    seconds: float
    direction: Literal["in", "out"]
    size: int
    data: bytes

    @property
    def truncated(self) -> bool:
        """Whether some of its bytes, or all, are not remembered."""
        return len(self.data) < self.size


# The checks. Each names class, field and value, as the caller would write them.

_Checked = SocketOptions | Limits | Trace


def _spelled(owner: _Checked, name: str) -> str:
    return f"{type(owner).__name__}({name}={getattr(owner, name)!r})"


def _bad(owner: _Checked, name: str, rule: str) -> ValueError:
    return ValueError(f"{_spelled(owner, name)}: {name} {rule}")


def _wrong_type(owner: _Checked, name: str, expected: str) -> TypeError:
    got = type(getattr(owner, name)).__name__
    return TypeError(f"{_spelled(owner, name)}: {name} must be {expected}, not {got}")


def _check_built(owner: _Checked, *names: str) -> None:
    """Take only the default of what is not built yet: an option that does nothing is a lie."""
    defaults = {each.name: each.default for each in fields(owner)}
    for name in names:
        value, default = getattr(owner, name), defaults[name]
        if isinstance(value, bool) or value != default:
            raise ValueError(
                f"{_spelled(owner, name)}: {name} is not built yet; leave it at {default!r}"
            )


def _check_bool(owner: _Checked, name: str, *, optional: bool = False) -> None:
    value = getattr(owner, name)
    if not isinstance(value, bool) and not (optional and value is None):
        raise _wrong_type(owner, name, "True, False or None" if optional else "True or False")


def _check_int(
    owner: _Checked, name: str, lowest: int, highest: int, *, optional: bool = True
) -> None:
    value = getattr(owner, name)
    if optional and value is None:
        return
    # A bool is an int to Python, but a count that is True is a mistake.
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(owner, name, "an int or None" if optional else "an int")
    if not lowest <= value <= highest:
        raise _bad(owner, name, f"must be between {lowest} and {highest}")


def _check_mode(owner: SocketOptions) -> None:
    mode = owner.mode
    if mode is None:
        return
    if isinstance(mode, bool) or not isinstance(mode, int):
        raise _wrong_type(owner, "mode", "an int such as 0o600, or None")
    if not 0 <= mode <= 0o777:
        # 600 for 0o600 is the usual slip.
        raise _bad(owner, "mode", f"must be between 0o0 and 0o777, which {oct(mode)} is not")


def _check_seconds(owner: _Checked, name: str, lowest: int, highest: int) -> float | None:
    value = getattr(owner, name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(owner, name, "a number of seconds or None")
    # Written so that NaN, which compares as false with everything, is refused as well.
    if not lowest <= value <= highest:
        raise _bad(owner, name, f"must be between {lowest} and {highest} seconds")
    return value

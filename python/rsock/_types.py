"""The plain values that the compiled module returns or is typed with.

The values are frozen, and know no socket and no thread. The aliases are those that the stub and
the Python half share: the stub can import nothing that lies above it (see `__init__.py`). Nothing
here may import the compiled module, which imports this one.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from os import PathLike
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from ._drawing import Drawing
from ._endpoint import Endpoint
from ._fault import Fault
from ._proxy import ProxyHeader, ProxyTLS
from ._settings import Limits, SocketOptions, Trace
from ._shown import Shown, html_of

__all__ = [
    "Cell",
    "Certificate",
    "Destination",
    "Drawing",
    "DriveResult",
    "Endpoint",
    "Fault",
    "FaultCount",
    "FaultEvent",
    "FaultEvents",
    "FiveTuple",
    "Function",
    "Latencies",
    "Leg",
    "Limits",
    "PeerCredentials",
    "ProcessLimits",
    "ProxyHeader",
    "ProxyTLS",
    "Recorded",
    "RecordedClient",
    "RecordedMoment",
    "RecordedParts",
    "Redact",
    "Row",
    "ScriptResult",
    "Sender",
    "SocketOptions",
    "SocketPath",
    "StopReport",
    "TcpInfo",
    "TextFile",
    "TlsInfo",
    "Totals",
    "Trace",
    "TraceEvent",
]

# The compiled module looks these four classes up here, and pickles name this module: it has to stay
# the one that they give as their own.
for _kind in (Endpoint, Limits, SocketOptions, Trace):
    _kind.__module__ = __name__
del _kind

_T = TypeVar("_T")

# The path of a Unix socket, as callers give it.
SocketPath: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]
# Where to connect or to listen.
Destination: TypeAlias = tuple[str, int | str] | SocketPath

# What a recording must not have: patterns of bytes, each alone or with what replaces its matches.
_Pattern: TypeAlias = bytes | re.Pattern[bytes]
_Rule: TypeAlias = _Pattern | tuple[_Pattern, bytes]
Redact: TypeAlias = _Rule | Iterable[_Rule]
# What a recording contains: an event is seconds, direction, kind, bytes and the ranges of any
# bytes; a connection is number, transport, address, seconds, events and the server's address. At
# the end where the file is cut: line, place and what there is. A moment is the number of a
# connection, and the connection when it is opened, or an event.
RecordedParts: TypeAlias = tuple[float, str, str, bytes, tuple[tuple[int, int], ...]]
_Address: TypeAlias = tuple[str, int] | str
RecordedClient: TypeAlias = tuple[int, str, _Address, float, list[RecordedParts], _Address | None]
RecordedMoment: TypeAlias = tuple[int, RecordedClient | None, RecordedParts | None]
Recorded: TypeAlias = tuple[
    str,
    int | None,
    str,
    list[RecordedClient],
    float | None,
    tuple[int, int, str] | None,
]

# A handler: it serves a connection or, on UDP, answers the data of an address. The connection is
# `rsock.Connection`, which lies above the stub, so the type of the argument cannot be checked.
Function: TypeAlias = Callable[[Any], None] | Callable[[bytes, "Sender"], bytes | None]

# A value in the tables of a ledger, and one row of them.
Cell: TypeAlias = str | int | float | datetime | None
Row: TypeAlias = dict[str, Cell]


class Sender(tuple[str, int]):
    """The sender of a UDP datagram: `(host, port)`, as `socket.recvfrom` returns it.

    `destination` is the `(host, port)` that the datagram was sent to: an address of this machine,
    or a broadcast or multicast address.
    """

    destination: tuple[str, int] | None

    def __new__(
        cls, address: tuple[str, int], destination: tuple[str, int] | None = None
    ) -> "Sender":
        self = super().__new__(cls, address)
        self.destination = destination
        return self


class TextFile(Protocol):
    """Anything with a `write` method that takes text."""

    def write(self, text: str, /) -> object:
        """Write the text."""


class Listing(Shown, list[_T]):
    """A list whose `repr` stays short, because a notebook shows it: its first and last items."""

    # How many items a `repr` has.
    _shown = 20

    def __repr__(self) -> str:
        hidden = len(self) - self._shown
        if hidden <= 0:
            return super().__repr__()
        head, tail = self[: self._shown // 2], self[-(self._shown // 2) :]
        return (
            f"[{', '.join(map(repr, head))},\n … {hidden:,} more …,\n {', '.join(map(repr, tail))}]"
        )


class TraceEvents(Listing["TraceEvent"]):
    """The list of `Record.trace`."""

    _shown = 6


class FaultEvents(Listing["FaultEvent"]):
    """The list of `Record.faults`: the first events, with the number of those after them.

    more: how many events there were that the list does not have.
    """

    _shown = 6

    def __init__(self, events: "Iterable[FaultEvent]" = (), more: int = 0) -> None:
        super().__init__(events)
        self.more = more

    def __repr__(self) -> str:
        text = super().__repr__()
        return f"{text[:-1]},\n … {self.more:,} later ones are not kept]" if self.more else text


class FiveTuple(NamedTuple):
    """A connected stream as a program sees it: its descriptor and its two addresses.

    An ordinary named tuple, with the addresses of `getsockname(2)` and `getpeername(2)`. For a Unix
    socket the hosts are the paths ("" where there is none), and the ports are 0.
    """

    fd: int
    local_host: str
    local_port: int
    remote_host: str
    remote_port: int

    def _repr_html_(self) -> str:
        return html_of(self)


class FaultCount(NamedTuple):
    """What a fault of a server has done so far.

    fault: the fault.
    connections: how many connections it concerned.
    events: how often it has done something, as `Record.faults` lists it.
    """

    fault: Fault
    connections: int
    events: int

    def _repr_html_(self) -> str:
        return html_of(self)


class PeerCredentials(NamedTuple):
    """The process at the other end of a Unix socket, as the kernel reports it: `unix(7)`.

    pid: the process that connected or, for a client, the one that listens; 0 if it is outside the
        PID namespace of this process.
    uid, gid: its effective user and group at that time.
    """

    pid: int
    uid: int
    gid: int

    def _repr_html_(self) -> str:
        return html_of(self)


@dataclass(frozen=True, slots=True)
class Certificate(Shown):
    """The certificate of a peer (RFC 5280).

    der: the certificate, as `ssl.DER_cert_to_PEM_cert` takes it.
    subject: its owner, as in "CN=example.org, O=Example".
    names: the hosts, addresses, e-mail addresses and URIs of subjectAltName.
    """

    der: bytes
    subject: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TlsInfo(Shown):
    """What the TLS handshake of a connection has agreed on.

    version: "TLSv1.3" or "TLSv1.2".
    cipher: the cipher suite, by its name in the registry of IANA.
    sni: the host that the client has asked for; None where it has named none, and for a client.
    alpn: the protocol that was chosen (RFC 7301); None where there is none.
    resumed: whether it continues an earlier session, without certificates.
    peer: the certificate of the peer; None where it has sent none.
    """

    version: str
    cipher: str
    sni: str | None
    alpn: str | None
    resumed: bool
    peer: Certificate | None


@dataclass(frozen=True, slots=True)
class Leg(Shown):
    """The far leg of a connection that a `Forward` passes on, at the time of the call.

    local: our end, an Endpoint.
    remote: the target's end: which of its addresses was reached.
    messages_in, messages_out: successful receives from the target and sends to it.
    bytes_in, bytes_out: payload bytes received from the target and sent to it.
    tls: what TLS has agreed on with the target; None without TLS.
    """

    local: Endpoint
    remote: Endpoint
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    tls: TlsInfo | None = None


@dataclass(frozen=True, slots=True)
class StopReport(Shown):
    """How a server stopped.

    drained: connections that ended in order after the stop began, with all their data delivered.
    forced: connections that were reset at the deadline.
    abandoned: handler threads that did not return in time and were left running.
    errors: failures of services and handlers during the server's life.
    cause: why it stopped: "stop", "SIGINT", "SIGTERM", "exception", "accept error" (its listening
        socket failed, or the program closed a descriptor of the server), "exit", or "dropped"
        (garbage-collected without a stop).
    seconds: how long stopping took.
    seed: the seed of the random numbers of its faults, to have the same faults again by
        `Server(…, seed=…)`; None if it had no fault.
    """

    drained: int
    forced: int
    abandoned: int
    errors: int
    cause: str
    seconds: float
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Totals(Shown):
    """The sums of a ledger since its server started, including records it no longer holds.

    They balance: accepted == open + closed.

    accepted: connections taken from the backlog and admitted.
    open: accepted connections that are open now.
    closed: accepted connections that have ended.
    refused: connections that were reset at once, and datagrams that were dropped, because a limit
        was reached or their address is not served; not in `accepted`.
    refused_by: how many of `refused` for each reason: "allow", "deny", "connections", "per_host"
        and "accept_rate", the arguments of the server and of its limits.
    proxy_errors: connections of the networks of `Server(proxy_protocol=…)` that did not begin with
        a valid header of that protocol.
    tls_handshakes: TLS handshakes with clients that were completed, by the version: "TLSv1.2" and
        "TLSv1.3".
    tls_resumed: how many of them continued an earlier session.
    tls_failed: connections that ended during their TLS handshake, for whatever reason; a health
        check that only connects is one.
    target_tls_handshakes, target_tls_resumed, target_tls_failed: the same of the handshakes of
        `Forward(…, tls=…)` with its target. A target that refuses the connect is none of them.
    accept_errors: failed `accept(2)` calls.
    suspects: datagrams that got no answer because of the address they came from or were sent to.
    dropped: datagrams that were not sent because a buffer was full, or because the answer would
        have been too long for an address that is not verified.
    truncated: datagrams received that were longer than `Limits.datagram`, and were cut.
    waited: connections that had to wait for a handler, because all `handler_threads` were busy.
    messages_in, messages_out: successful receives and sends that carried data.
    bytes_in, bytes_out: payload bytes received and sent.
    closed_by: how many of `closed` ended for each of the reasons of `Record.closed_by`.
    """

    accepted: int
    open: int
    closed: int
    refused: int
    proxy_errors: int
    tls_resumed: int
    tls_failed: int
    target_tls_resumed: int
    target_tls_failed: int
    accept_errors: int
    waited: int
    suspects: int
    dropped: int
    truncated: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    # A dict has no hash; the other counts are enough for one.
    tls_handshakes: dict[str, int] = field(hash=False)
    target_tls_handshakes: dict[str, int] = field(hash=False)
    closed_by: dict[str, int] = field(hash=False)
    refused_by: dict[str, int] = field(hash=False)

    @property
    def bits_in(self) -> int:
        """Payload bits received: 8 × bytes_in."""
        return 8 * self.bytes_in

    @property
    def bits_out(self) -> int:
        """Payload bits sent: 8 × bytes_out."""
        return 8 * self.bytes_out


@dataclass(frozen=True, slots=True)
class ProcessLimits(Shown):
    """The system's limits on this process, as `process_limits()` reads them.

    fd_soft: open descriptors allowed now (RLIMIT_NOFILE, see `getrlimit(2)`).
    fd_hard: what `raise_fd_limit()` can raise that to.
    fd_in_use: descriptors open at the time of the call.
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
class TcpInfo(Shown):
    """What the kernel knows about a TCP connection at one moment: TCP_INFO of `tcp(7)`.

    state: the state's name in RFC 9293: "ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-1", …
    rtt: smoothed round-trip time, in seconds.
    rtt_variance: its mean deviation, in seconds (RFC 6298).
    min_rtt: the shortest round trip of the last minutes, in seconds; None before the first one.
    retransmit_timeout: in seconds (RFC 6298).
    retransmits: segments sent again since the connection was made.
    lost: segments that are considered lost now.
    out_of_order: segments that arrived before one that was sent earlier.
    segments_in, segments_out: segments received and sent, including those without data.
    data_segments_in, data_segments_out: of these, segments with data.
    bytes_received: bytes received in order; the peer's FIN counts as one.
    bytes_sent: bytes sent, including retransmitted ones.
    bytes_acked: bytes sent that the peer has acknowledged; its SYN and FIN count as one each.
    bytes_retransmitted: bytes that were sent again.
    unacknowledged: segments sent and not yet acknowledged.
    send_mss, receive_mss, advertised_mss: payload of the largest segment in bytes: as sent now, as
        estimated for the peer, and as announced to it.
    path_mtu: largest packet that the path is known to carry, in bytes.
    send_window: bytes that the peer accepts now: the window it announced (RFC 9293); None on Linux
        before 5.4.
    receive_window: bytes that we accept now: the window announced to the peer; None before 6.2.
    receive_space: bytes that the receive buffer is tuned for.
    congestion_algorithm: such as "cubic" or "bbr" (TCP_CONGESTION).
    congestion_state: the sender's view of the path: "open" (no sign of loss), "disorder" (first
        signs of a loss), "CWR" (the window is being reduced), "recovery" (a loss is being
        repaired), "loss" (the retransmission timer expired).
    congestion_window: segments that may be in flight.
    slow_start_threshold: in segments (RFC 5681); 2147483647 until the first loss.
    delivery_rate: last measured delivery rate, in bytes per second; 0 while unknown.
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


@dataclass(frozen=True, slots=True)
class FaultEvent(Shown):
    """One thing that a fault of `rsock.faults` did to a connection.

    fault: the fault in its text form, such as "latency:0.2".
    action: what it did: "delayed", "slowed", "sliced", "closed", "reset", "truncated", "garbled",
        "corrupted", "held", "dropped", "duplicated", "reordered". A fault that acts on everything
        that passes has one event for each direction, when it first acts.
    direction: "up" for what the client sent, "down" for what the server sent.
    seconds: when it happened, counted from the record's `opened_at`.
    offset: where it happened: how many bytes had gone this way through the fault before; of
        datagrams, how many datagrams.
    size: how many bytes it concerned; 0 if it concerned the connection, or all that follows.
    """

    fault: str
    action: str
    direction: Literal["up", "down"]
    seconds: float
    offset: int
    size: int


# How many bytes of its data the `repr` of an event has: of text, and of what is escaped in it.
_SHOWN_DATA: Final = 32
_SHOWN_BINARY: Final = 8


@dataclass(frozen=True, slots=True)
class Latencies(Shown):
    """The times of the answers to a load, in seconds.

    min, mean, max: the shortest, the mean and the longest.
    p50, p90, p99, p999: percentiles; of `p99`, 99 % are not longer. Exact to three digits.
    """

    min: float
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class DriveResult(Shown):
    """What `drive` has measured.

    messages: how many messages were answered.
    missing: how many were not.
    bytes: how many bytes the answers had.
    seconds: from the first connect to the last answer.
    errors: how many connections ended early, by the cause: the name of an exception, "too much" or
        "wrong bytes".
    latency: the times of the answers; None if there was none.
    """

    messages: int
    missing: int
    bytes: int
    seconds: float
    errors: dict[str, int]
    latency: Latencies | None

    @property
    def per_second(self) -> float:
        """Answered messages per second."""
        return self.messages / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as a dict of plain values."""
        return {**asdict(self), "per_second": self.per_second}

    def __str__(self) -> str:
        """Describe it in a few lines."""
        lines = [
            f"{self.messages:,} messages in {self.seconds:.3f} s, {self.per_second:,.0f} a second"
        ]
        if self.latency is not None:
            figures = asdict(self.latency).items()
            lines.append("ms: " + ", ".join(f"{name} {each * 1e3:.3f}" for name, each in figures))
        if self.missing:
            lines.append(f"{self.missing:,} messages were not answered")
        lines += [f"{count:,} × {cause}" for cause, count in self.errors.items()]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ScriptResult(Shown):
    """How the dialogue of a Script, a Replay or a ReplayClient went.

    connection: the number of the connection, as `Record.id`; of a ReplayClient, that of the
        connection in the recording.
    done: whether the script, or the connection of the recording, was played to its end.
    step: the number of the last step that was begun, from 1; 0 for none. The steps of a recording
        are the events of the connection.
    steps: how many steps there are.
    error: why it was not played to its end: the step, its source line or the line of the recording,
        what was expected and what was received; None if it was, or while it goes on.
    captures: what steps of a Script have captured, by name.
    unused: what was received and no step has taken, as far as it was kept.
    position: of a dialogue that goes on, the step that it waits at, with its source line, and how
        many bytes it has; None once it has ended.
    """

    connection: int
    done: bool
    step: int
    steps: int
    error: str | None
    captures: dict[str, bytes]
    unused: bytes
    position: str | None = None


@dataclass(frozen=True, slots=True)
class TraceEvent(Shown):
    """One receive or send that carried data, or something that a fault did.

    A receive or a send is a message of `Record.messages_in` or `messages_out`; on the far leg of a
    `Forward`, of those of `Record.far`.

    number: its number in the connection, from 1; events before the first one kept were discarded.
    seconds: when it happened, counted from the record's `opened_at`.
    direction: "in" (from the peer), "out" (to it) or "fault". On the far leg: "far connect" (a
        connect to the target begins), "far connected", "far failed", "far out" (to the target) or
        "far in" (from it).
    size: how many bytes it carried; 0 where it carries none.
    data: its bytes from the first on, as far as they were kept.
    fault: what a fault did, a FaultEvent; None for other events.
    detail: of "far connect" the target's address, of "far connected" the address of our end, of
        "far failed" the target's address and the error; "" for other events.
    """

    number: int
    seconds: float
    direction: Literal[
        "in", "out", "fault", "far connect", "far connected", "far failed", "far out", "far in"
    ]
    size: int
    data: bytes
    fault: FaultEvent | None = None
    detail: str = ""

    def __repr__(self) -> str:
        """As it is made, but with the start of long data only: there may be kilobytes."""
        if self.fault is not None:
            return (
                f"TraceEvent(number={self.number}, seconds={self.seconds!r},"
                f" direction={self.direction!r}, fault={self.fault!r})"
            )
        if self.detail:
            return (
                f"TraceEvent(number={self.number}, seconds={self.seconds!r},"
                f" direction={self.direction!r}, detail={self.detail!r})"
            )
        data, rest = self.data, ""
        if len(data) > _SHOWN_DATA:
            data, rest = data[:_SHOWN_DATA], f"… {len(self.data):,} bytes"
            if len(repr(data)) > 2 * _SHOWN_DATA:
                data = data[:_SHOWN_BINARY]
        return (
            f"TraceEvent(number={self.number}, seconds={self.seconds!r},"
            f" direction={self.direction!r}, size={self.size}, data={data!r}{rest})"
        )

    @property
    def leg(self) -> Literal["near", "far"]:
        """The leg that it was on: "near", to the peer, or "far", to the target of a `Forward`."""
        return "far" if self.direction.startswith("far ") else "near"

    @property
    def truncated(self) -> bool:
        """Whether some of its bytes, or all, were not kept."""
        return len(self.data) < self.size

"""The displays of plain values: settings, results, statistics, lists.

Everything here reads a value and returns HTML. It must never raise, nor show more of a long value
than fits a screen, except folded.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from .._endpoint import Endpoint
from .._fault import Fault
from .._recorded import RecordedConnection, RecordedEvent
from .._rsock import Record, Server
from .._settings import Limits, SocketOptions, Trace
from .._types import (
    Certificate,
    DriveResult,
    FaultCount,
    FaultEvent,
    FaultEvents,
    FiveTuple,
    Latencies,
    Leg,
    PeerCredentials,
    ProcessLimits,
    ScriptResult,
    StopReport,
    TcpInfo,
    Totals,
    TraceEvent,
    TraceEvents,
)
from ._tables import Rows, folded, html_table
from ._units import count, seconds, size
from ._views import RIGHT, never_raises, record_rows, server_repr

__all__ = ["event_rows", "value_html"]

# Items of a list that are shown, and that are shown folded.
_MAX_ITEMS: Final = 20
_MAX_FOLDED: Final = 500
# Bytes of a value: a screen's line of them, escaped.
_MAX_BYTES: Final = 48
# What TCP_INFO has for a threshold that has not been set (TCP_INFINITE_SSTHRESH).
_NO_THRESHOLD: Final = 2**31 - 1

_SECONDS: Final = frozenset(
    {
        "seconds",
        "rtt",
        "rtt_variance",
        "min_rtt",
        "retransmit_timeout",
        "idle",
        "first_byte",
        "write",
        "half_close",
        "lifetime",
        "user_timeout",
        "drain",
    }
)
_BYTES: Final = frozenset(
    {
        "bytes",
        "bytes_received",
        "bytes_sent",
        "bytes_acked",
        "bytes_retransmitted",
        "send_window",
        "receive_window",
        "receive_space",
        "bytes_in",
        "bytes_out",
        "write_buffer",
        "line",
        "datagram",
        "send_buffer",
        "receive_buffer",
        "size",
        "path_mtu",
        "send_mss",
        "receive_mss",
        "advertised_mss",
        "max_segment",
    }
)
# Identifiers, which are written without separators.
_NUMBERS: Final = frozenset(
    {"fd", "pid", "uid", "gid", "port", "local_port", "remote_port", "seed"}
)


@never_raises
def value_html(value: object) -> str:
    """Return the display of a plain value, or of a list of records, events or results."""
    for kind, show in _VIEWS:
        if isinstance(value, kind):
            return show(value)
    if isinstance(value, Sequence):
        return _list(value)
    return _plain(value)


# One value.


def _plain(value: object) -> str:
    """The fields of a value; the connections of a recording are a table below them."""
    rows = _fields(value)
    connections = getattr(value, "connections", None)
    if not isinstance(connections, list):
        return html_table(type(value).__name__, (), rows)
    number = count(len(connections), "connection")
    rows = [(name, number if name == "connections" else text) for name, text in rows]
    table = html_table(type(value).__name__, (), rows)
    return table + _list(connections) if connections else table


def _text(name: str, value: object) -> str:
    """A value of a field as a person reads it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and name in _SECONDS:
        return seconds(value)
    if isinstance(value, int):
        if name in _NUMBERS:
            return str(value)
        if name in _BYTES:
            return f"{value:,} B" if value < 10_000 else f"{value:,} B ({size(value)})"
        return f"{value:,}"
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, Certificate):
        return _owner(value)
    if isinstance(value, dict):
        parts = (f"{key} {_text('', each)}" for key, each in value.items())
        return ", ".join(parts) or "none"
    return value if isinstance(value, str) else str(value)


def _bytes(data: bytes, total: int | None = None) -> str:
    """The start of some bytes as a literal; `total` is how many there were."""
    total = len(data) if total is None else total
    if not total:
        return "b''"
    if not data:
        return f"{total:,} B, not kept"
    rest = f"… {total:,} B" if total > _MAX_BYTES else ""
    return repr(data[:_MAX_BYTES]) + rest


def _fields(value: object) -> Rows:
    """A row for each field of a dataclass, or for each of a named tuple."""
    if dataclasses.is_dataclass(value):
        names: Iterable[str] = (field.name for field in dataclasses.fields(value))
    else:
        names = getattr(value, "_fields", ())
    return [(name.replace("_", " "), _text(name, getattr(value, name))) for name in names]


def _settings(value: Any) -> str:
    """Settings: what was chosen, and which of it is not the default."""
    kind = type(value)
    default = kind()
    none = {"Limits": "no limit", "SocketOptions": "the system's"}.get(kind.__name__, "none")
    rows: Rows = []
    for field in dataclasses.fields(kind):
        name = field.name
        chosen = getattr(value, name)
        text = none if chosen is None else _text(name, chosen)
        if name == "mode" and chosen is not None:
            text = f"0o{chosen:o}"
        if (kind, name, chosen) == (Limits, "connections", None):
            text = "as the descriptors allow"
        if (kind, name, chosen) == (SocketOptions, "backlog", None):
            text = "the system's maximum"
        mark = "" if chosen == getattr(default, name) else "  (set)"
        rows.append((name, text + mark))
    return html_table(kind.__name__, (), rows)


def _tcp_info(info: Any) -> str:
    rows = []
    for name, text in _fields(info):
        if name == "slow start threshold" and info.slow_start_threshold >= _NO_THRESHOLD:
            text = "none until the first loss"
        if name == "delivery rate":
            text = f"{size(info.delivery_rate)}/s" if info.delivery_rate else "unknown"
        if name in ("congestion window", "unacknowledged"):
            text = count(getattr(info, name.replace(" ", "_")), "segment")
        rows.append((name, "unknown" if text == "none" else text))
    return html_table(f"TcpInfo: {info.state}", (), rows)


def _stop_report(report: Any) -> str:
    title = f"StopReport: {report.cause}, in {seconds(report.seconds)}"
    rows = [
        ("drained", f"{count(report.drained, 'connection')}, ended in order"),
        ("forced", f"{count(report.forced, 'connection')}, reset at the deadline"),
        ("abandoned", f"{count(report.abandoned, 'handler thread')}, left running"),
        ("errors", f"{report.errors:,} of services and handlers"),
        ("cause", report.cause),
        ("took", seconds(report.seconds)),
        *([("seed", str(report.seed))] if report.seed is not None else []),
    ]
    return html_table(title, (), rows)


def _totals(totals: Any) -> str:
    title = (
        f"Totals: {totals.accepted:,} accepted = {totals.open:,} open + {totals.closed:,} closed"
    )
    rows: Rows = []
    for field in dataclasses.fields(totals)[3:]:
        name, value = field.name.replace("_", " "), getattr(totals, field.name)
        if isinstance(value, dict):
            rows += [(f"{name} {each}", f"{number:,}") for each, number in value.items() if number]
        # What went wrong only if there was any.
        elif value or field.name.startswith(("messages", "bytes")):
            rows.append((name, _text(field.name, value)))
    return html_table(title, (), rows)


def _five_tuple(five: Any) -> str:
    def end(host: str, port: int) -> str:
        return str(Endpoint("tcp", (host, port))) if port else host or "(unnamed)"

    rows = [
        ("descriptor", str(five.fd)),
        ("local", end(five.local_host, five.local_port)),
        ("remote", end(five.remote_host, five.remote_port)),
    ]
    return html_table("FiveTuple", (), rows)


def _fault(fault: Any) -> str:
    fields = [
        (field.name, _text("seconds" if field.name == "jitter" else field.name, chosen))
        for field in dataclasses.fields(fault)
        if (chosen := getattr(fault, field.name, None)) is not None
    ]
    return html_table(f"{type(fault).__name__}: {fault}", (), fields)


def _script_result(result: Any) -> str:
    state = "played to its end" if result.done else f"diverged at step {result.step:,}"
    if result.position is not None:
        state = f"at step {result.step:,}"
    rows = [
        ("step", f"{result.step:,} of {result.steps:,}"),
        *([("waits at", result.position)] if result.position else []),
        *([("error", result.error)] if result.error else []),
        *[(f"captured {name}", _bytes(data)) for name, data in result.captures.items()],
        *([("unused", _bytes(result.unused))] if result.unused else []),
    ]
    return html_table(f"Script with connection {result.connection:,}: {state}", (), rows)


def _latencies(times: Latencies) -> Rows:
    return [(name, seconds(each)) for name, each in dataclasses.asdict(times).items()]


def _drive_result(result: Any) -> str:
    rows = [
        ("messages", f"{result.messages:,} in {seconds(result.seconds)}"),
        ("per second", f"{result.per_second:,.0f}"),
        ("bytes", size(result.bytes)),
        *([("not answered", f"{result.missing:,}")] if result.missing else []),
        *[("error", f"{cause}: {many:,}") for cause, many in result.errors.items()],
    ]
    if result.latency is not None:
        rows += [(f"latency {name}", each) for name, each in _latencies(result.latency)]
    return html_table("DriveResult", (), rows)


def _endpoint(endpoint: Any) -> str:
    rows = [("transport", endpoint.transport), ("address", str(endpoint))]
    return html_table(f"Endpoint {endpoint}", (), rows)


def _owner(certificate: Certificate) -> str:
    names = ", ".join(certificate.names)
    return f"{certificate.subject or 'no subject'}{f' ({names})' if names else ''}"


def _certificate(certificate: Any) -> str:
    rows = [
        ("subject", certificate.subject or "none"),
        ("names", ", ".join(certificate.names) or "none"),
        ("der", _bytes(certificate.der)),
    ]
    return html_table("Certificate", (), rows)


def _recorded_connection(connection: Any) -> str:
    rows = [
        ("client", str(connection.client)),
        *([("server", str(connection.local))] if connection.local is not None else []),
        ("opened at", seconds(connection.seconds)),
        ("up", f"{_crossed_size(connection, 'up')} from the client"),
        ("down", f"{_crossed_size(connection, 'down')} from the server"),
    ]
    table = html_table(f"RecordedConnection {connection.number:,}", (), rows)
    return table + _list(connection.events) if connection.events else table


def _crossed_size(connection: RecordedConnection, direction: str) -> str:
    parts = (len(event.data) for event in connection.events if event.direction == direction)
    return size(sum(parts))


def _recorded_event(event: Any) -> str:
    [(time, direction, number, what)] = _crossed_rows([event])
    rows = [("time", time), ("direction", direction), ("bytes", number), ("data", what)]
    return html_table("RecordedEvent", (), rows)


def _trace_event(event: Any) -> str:
    [(_, time, direction, number, what)] = event_rows([event])
    rows = [("time", time), ("direction", direction), ("bytes", number), ("data", what)]
    return html_table(f"TraceEvent {event.number:,}", (), rows)


def _fault_count(counted: Any) -> str:
    rows = [
        ("fault", str(counted.fault)),
        ("connections", f"{counted.connections:,}"),
        ("events", f"{counted.events:,}"),
    ]
    return html_table("FaultCount", (), rows)


# Lists.


def event_rows(events: Sequence[TraceEvent]) -> Rows:
    """A row for each event of a trace."""
    return [
        (
            f"{event.number:,}",
            seconds(event.seconds),
            event.direction,
            f"{event.size:,}" if event.size else "",
            _content(event),
        )
        for event in events
    ]


def _content(event: TraceEvent) -> str:
    if event.fault is not None:
        return _done(event.fault)
    return event.detail or _bytes(event.data, event.size)


# Which end had sent what a fault concerned.
_SENDERS: Final = {"up": "up (from the client)", "down": "down (from the server)"}


def _done(event: FaultEvent) -> str:
    sender = _SENDERS.get(event.direction, event.direction)
    return f"{event.action} at {event.offset:,}, {sender}, by {event.fault}"


def _list(items: Sequence[Any]) -> str:
    """A list: its items as rows of a table, or one by one."""
    kinds = {type(item) for item in items}
    if not kinds:
        noun = {TraceEvents: "event", FaultEvents: "fault event"}.get(type(items))
        return html_table(count(0, noun) if noun else "nothing: an empty list", (), ())
    if all(issubclass(kind, Record) for kind in kinds):
        columns, rows, notes = record_rows(items)
        return html_table(count(len(items), "record"), columns, rows, notes, RIGHT)
    if kinds == {TraceEvent}:
        number = count(len(items), "event")
        return _cut(number, ("event", "time", "direction", "bytes", "data"), items, event_rows)
    if kinds == {RecordedConnection}:
        columns = ("connection", "opened at", "up", "down", "client", "finished first")
        return _cut(count(len(items), "connection"), columns, items, _recorded_rows)
    if kinds == {RecordedEvent}:
        columns = ("time", "direction", "bytes", "data")
        return _cut(count(len(items), "event"), columns, items, _crossed_rows)
    if kinds == {FaultEvent}:
        more = getattr(items, "more", 0)
        notes = [f"{count(more, 'later one')} not kept"] if more else []
        number = count(len(items), "fault event")
        return _cut(number, ("time", "what it did"), items, _fault_rows, notes)
    if kinds == {ScriptResult}:
        columns = ("connection", "step", "result")
        return _cut(count(len(items), "dialogue"), columns, items, _script_rows)
    if all(issubclass(kind, Server) for kind in kinds):
        return _cut(count(len(items), "server"), ("server",), items, _server_rows)
    if all(issubclass(kind, Fault) for kind in kinds):
        return _cut(count(len(items), "fault"), ("fault",), items, _repr_rows)
    return _cut(count(len(items), "item"), ("item",), items, _repr_rows)


def _recorded_rows(connections: Sequence[Any]) -> Rows:
    return [
        (
            f"{connection.number:,}",
            seconds(connection.seconds),
            _crossed_size(connection, "up"),
            _crossed_size(connection, "down"),
            str(connection.client),
            _recorded_end(connection.events),
        )
        for connection in connections
    ]


# Which end each direction comes from.
_ENDS: Final = {"up": "client", "down": "server"}


def _recorded_end(events: Sequence[RecordedEvent]) -> str:
    """The end that finished first, or the one that sent a reset."""
    for event in events:
        if event.kind != "data":
            by = _ENDS.get(event.direction, event.direction)
            return f"{by} (reset)" if event.kind == "reset" else by
    return "-"


def _crossed_rows(events: Sequence[Any]) -> Rows:
    return [
        (
            seconds(event.seconds),
            _SENDERS.get(event.direction, event.direction),
            f"{len(event.data):,}" if event.kind == "data" else "",
            _crossed(event),
        )
        for event in events
    ]


def _crossed(event: RecordedEvent) -> str:
    if event.kind != "data":
        return event.kind
    redacted = f"; {count(len(event.any), 'part')} redacted" if event.any else ""
    return _bytes(event.data) + redacted


def _fault_rows(events: Sequence[Any]) -> Rows:
    return [(seconds(event.seconds), _done(event)) for event in events]


def _script_rows(results: Sequence[Any]) -> Rows:
    return [
        (
            f"{result.connection:,}",
            f"{result.step:,} of {result.steps:,}",
            _result(result),
        )
        for result in results
    ]


# Where a step is in its script, which has a column of its own.
_WHERE: Final = re.compile(r"step [\d,]+ of [\d,]+(?: \(.*?\))?: ")


def _result(result: ScriptResult) -> str:
    """How a dialogue went, on one line."""
    if result.done:
        return "done"
    if result.error is None:
        return f"waits: {_WHERE.sub('', result.position, count=1)}" if result.position else "-"
    first, *lines = _WHERE.sub("", result.error, count=1).splitlines() or [""]
    received = [line.strip() for line in lines if line.lstrip().startswith("received")]
    return "; ".join([f"diverged: {first}", *received[:1]])


def _server_rows(servers: Sequence[Any]) -> Rows:
    return [(server_repr(server),) for server in servers]


def _repr_rows(items: Sequence[Any]) -> Rows:
    return [(repr(item),) for item in items]


def _cut(
    title: str,
    columns: Sequence[str],
    items: Sequence[Any],
    rows: Callable[[Sequence[Any]], Rows],
    notes: Sequence[str] = (),
) -> str:
    """A table of the first and the last items, and one of those between them that is folded."""
    right = frozenset({"event", "time", "bytes", "connection", "opened at", "up", "down"})
    hidden = len(items) - _MAX_ITEMS
    if hidden <= 0:
        return html_table(title, columns if items else (), rows(items), notes, right)
    half = _MAX_ITEMS // 2
    gap = [("…", *[""] * (len(columns) - 2), f"{hidden:,} more")[-len(columns) :]]
    shown = [*rows(items[:half]), *gap, *rows(items[-half:])]
    between = items[half:-half][:_MAX_FOLDED]
    later = hidden - len(between)
    rest = [f"… and {later:,} more"] if later else []
    more = html_table("", columns, rows(between), rest, right)
    return html_table(title, columns, shown, notes, right) + folded(
        f"the {len(between):,} between them", more
    )


# The first class that fits.
_VIEWS: Final[Sequence[tuple[type | tuple[type, ...], Callable[[Any], str]]]] = (
    ((Limits, SocketOptions, Trace), _settings),
    (TcpInfo, _tcp_info),
    (StopReport, _stop_report),
    (Totals, _totals),
    (FiveTuple, _five_tuple),
    (Fault, _fault),
    (ScriptResult, _script_result),
    (Latencies, lambda times: html_table("Latencies", (), _latencies(times))),
    (DriveResult, _drive_result),
    (Endpoint, _endpoint),
    (TraceEvent, _trace_event),
    (FaultCount, _fault_count),
    (Certificate, _certificate),
    (RecordedConnection, _recorded_connection),
    (RecordedEvent, _recorded_event),
    (
        (Leg, PeerCredentials, ProcessLimits, FaultEvent),
        lambda value: html_table(type(value).__name__, (), _fields(value)),
    ),
)

"""The views of rsock's objects: what each display says.

Everything here reads an object and returns a string. A view must never raise, whatever the state
of its object: debuggers, logs and finalizers ask for displays of objects in any state.
"""

import contextlib
import functools
import html
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from .._endpoint import Endpoint
from .._exceptions import StateError
from .._printable import printable
from .._rsock import Ledger, Record, Server, Stream
from .._types import TcpInfo, Totals
from ._faults import done_by_faults, fault_count, fault_rows, faults_in_force
from ._tables import Rows, cell, html_table, text_table
from ._units import count, seconds, size

__all__ = [
    "RIGHT",
    "calls",
    "causes",
    "end",
    "error_text",
    "ledger_html",
    "ledger_repr",
    "never_raises",
    "open_or_end",
    "peer",
    "record_html",
    "record_repr",
    "record_rows",
    "refusals",
    "server_address",
    "server_html",
    "server_repr",
    "short_end",
    "stream_html",
    "stream_repr",
    "sums",
    "told_end",
    "traffic_line",
    "transport",
]

_T = TypeVar("_T")

# As many records as fit a screen together with the code that shows them.
_MAX_RECORDS: Final = 20
# Different texts of errors, each of which may have what a peer sent.
_MAX_CAUSES: Final = 5
# Exceptions of handlers.
_MAX_ERRORS: Final = 3

# One line each, for repr().


def never_raises(show: Callable[[_T], str]) -> Callable[[_T], str]:
    """Return the text of an exception as the display, such as of an object in a forked child."""

    @functools.wraps(show)
    def safe(thing: _T) -> str:
        try:
            return show(thing)
        except Exception as error:
            text = printable(f"<{type(thing).__name__}: {error}>")
            return html.escape(text) if show.__name__.endswith("_html") else text

    return safe


@never_raises
def server_repr(server: Server) -> str:
    """`<Server 127.0.0.1:43211 serving Echo() 3 open, faults: latency:0.2 (3 connections, …)>`."""
    state = server.state
    parts = [type(server).__name__, server_address(server), state, cell(repr(server.service))]
    if state in ("serving", "draining"):
        parts.append(f"{server.ledger.totals.open:,} open")
    text, faults = " ".join(parts), faults_in_force(server)
    return f"<{text}, faults: {faults}, seed {server.seed}>" if faults else f"<{text}>"


@never_raises
def stream_repr(stream: Stream) -> str:
    """`<Client 127.0.0.1:50312 -> 127.0.0.1:8080 connected>`."""
    local, remote, state = _stream_sides(stream)
    record = stream.record
    accepted = record is not None and record.role == "server"
    sides = _arrow(record).join(str(side) for side in (local, remote) if side is not None)
    words = (type(stream).__name__, str(stream.id) if accepted else "", sides, state)
    return f"<{' '.join(filter(None, words))}>"


@never_raises
def record_repr(record: Record) -> str:
    """`<Record 7 tcp 127.0.0.1:80 <- 127.0.0.1:50312 open 1.25 s, in 3 (48 B), out 3 (48 B)>`."""
    state = "open" if record.closed_by is None else f"closed by {end(record)}"
    ends = f"{record.local}{_arrow(record)}{peer(record)}"
    if record.far is not None:
        ends = f"{record.far.remote} <- {ends}"
    faults = fault_count(record)
    return (
        f"<Record {record.id} {record.transport} {ends} {state} {seconds(record.seconds)},"
        f" in {record.messages_in:,} ({size(record.bytes_in)}),"
        f" out {record.messages_out:,} ({size(record.bytes_out)})"
        f"{', ' * bool(faults)}{faults}>"
    )


# Tables.


@never_raises
def ledger_repr(ledger: Ledger) -> str:
    """The totals on a line, and a table of the newest records below it."""
    return text_table(f"<Ledger {sums(ledger)}>", *_ledger_rows(ledger), RIGHT)


@never_raises
def ledger_html(ledger: Ledger) -> str:
    """The same totals and records as an HTML table."""
    return html_table(f"Ledger: {sums(ledger)}", *_ledger_rows(ledger), RIGHT)


@never_raises
def record_html(record: Record) -> str:
    """One record as an HTML table of names and values."""
    return html_table(
        f"Record {record.id}{' of a client' * (record.role == 'client')}",
        (),
        [
            ("transport", transport(record)),
            ("local", str(record.local)),
            ("remote", str(record.remote)),
            *([("forwarded to", str(record.far.remote))] if record.far else []),
            ("lasted" if record.closed_by else "open for", seconds(record.seconds)),
            *_traffic(record, record.transport),
            *_tcp_rows(record.tcp_info),
            *done_by_faults(record),
            *_end_rows(record),
        ],
    )


@never_raises
def server_html(server: Server) -> str:
    """One server as an HTML table of names and values."""
    totals = server.ledger.totals
    return html_table(
        f"{type(server).__name__} {server_address(server)}",
        (),
        [
            ("state", server.state),
            ("transport", f"{server.transport}{', TLS' * (server.tls is not None)}"),
            ("service", repr(server.service)),
            (
                "connections",
                f"{totals.open:,} open, {totals.closed:,} closed"
                + (f", {refusals(totals)}" if totals.refused else ""),
            ),
            *_traffic(totals, server.transport),
            *_queue_rows(server),
            *fault_rows(server),
            *_error_rows(server),
        ],
        _notes(server.ledger),
    )


@never_raises
def stream_html(stream: Stream) -> str:
    """One stream as an HTML table of names and values."""
    local, remote, state = _stream_sides(stream)
    record = stream.record
    if record is not None:
        # A closed socket has no addresses; its record has them.
        local, remote = local or record.local, remote or record.remote
        if state == "connected" and record.transport == "tcp":
            # The socket is asked, not the record, which a forked child may not use.
            with contextlib.suppress(OSError, StateError):
                finished = _finished(stream.tcp_info)
                state += f"; {finished}" * bool(finished)
    rows = [("state", state)]
    if local is not None:
        rows.append(("local", str(local)))
    if remote is not None:
        rows.append(("remote", str(remote)))
    if not stream.closed:
        timeout = stream.gettimeout()
        rows.append(("descriptor", str(stream.fileno())))
        rows.append(("timeout", "none" if timeout is None else seconds(timeout)))
    if record is not None:
        rows += _traffic(record, record.transport)
    return html_table(type(stream).__name__, (), rows)


# The parts of the views; the command line shows some of them, too.


def _traffic(counts: Record | Totals, transport: str) -> list[tuple[str, str]]:
    return [
        ("in", f"{calls(transport, 'in', counts.messages_in)}, {size(counts.bytes_in)}"),
        ("out", f"{calls(transport, 'out', counts.messages_out)}, {size(counts.bytes_out)}"),
    ]


# A stream has no messages: what is counted are the calls that carried data.
_CALLS: Final = {"in": "read", "out": "write"}


def _call(transport: str, way: str) -> str:
    return _CALLS[way] if transport in ("tcp", "unix") else "datagram"


def calls(transport: str, way: str, number: int) -> str:
    """`1 read`, `3 writes`, or `2 datagrams`."""
    return count(number, _call(transport, way))


def traffic_line(record: Record) -> str:
    """`3 reads (48 B), 1 write (16 B)`, or the datagrams each way."""
    parts = (
        ("in", record.messages_in, record.bytes_in),
        ("out", record.messages_out, record.bytes_out),
    )
    return ", ".join(
        calls(record.transport, way, number)
        + f" {way}" * (_call(record.transport, way) == "datagram")
        + f" ({size(octets)})"
        for way, number, octets in parts
    )


def _queue_rows(server: Server) -> list[tuple[str, str]]:
    """The connections that wait in the kernel's queue, if there are any."""
    if server.transport not in ("tcp", "unix") or server.state not in ("listening", "serving"):
        return []
    waiting = server.waiting
    return [("waiting", f"{waiting:,} to be accepted")] if waiting else []


def _error_rows(server: Server) -> list[tuple[str, str]]:
    """What handlers raised: the last exceptions."""
    errors: Sequence[BaseException] = getattr(server, "errors", ())
    rows = [("error", error_text(error)) for error in errors[-_MAX_ERRORS:]]
    hidden = len(errors) - len(rows)
    return [*rows, ("errors", f"{count(hidden, 'earlier one')}")] if hidden else rows


def error_text(error: BaseException) -> str:
    """`ValueError: the text`, or the name alone."""
    try:
        text = str(error)
    except Exception:
        # The exception is of the user's code, and may be unable to describe itself.
        text = ""
    return f"{type(error).__name__}{': ' * bool(text)}{text}"


def _arrow(record: Record | None) -> str:
    """An arrow from the connecting end to the listening end; our end is on the left."""
    return " <- " if record is not None and record.role == "server" else " -> "


def server_address(server: Server) -> str:
    """The address that a server listens on or, before it is bound, the one it was given."""
    try:
        address = server.address
    except StateError:
        address = (server.host, server.port) if server.path is None else server.path
    return str(Endpoint(server.transport, address))


def _stream_sides(stream: Stream) -> tuple[Endpoint | None, Endpoint | None, str]:
    """Local end, remote end and state, each as far as the kernel knows it."""
    if stream.closed:
        return None, None, "closed"
    local = _stream_end(stream.getsockname())
    named = bool(local.address if local.port is None else local.port)
    try:
        remote = _stream_end(stream.getpeername())
    except OSError:
        # A port without a peer: bound only, still connecting, or reset by the peer.
        return local if named else None, None, "not connected" if named else "created"
    return local, remote, "connected"


def _stream_end(address: str | bytes | tuple[str, int]) -> Endpoint:
    """One end as the kernel reports it: the name of a Unix socket, or host and port."""
    if isinstance(address, tuple):
        return Endpoint("tcp", address[:2])
    return Endpoint("unix", os.fsdecode(address))


def peer(record: Record) -> str:
    """The peer's address or, for an unnamed client of a Unix socket, its process."""
    credentials = record.peer_credentials
    if credentials is None or record.remote.address:
        return str(record.remote)
    return f"pid {credentials.pid}, uid {credentials.uid}"


# What ended a connection is wrapped if it is long, so it is last.
_COLUMNS: Final = ("id", "peer", "lasted", "in", "out", "faults", "closed by")
# The columns that are flush right.
RIGHT: Final = frozenset(
    {*_COLUMNS, "reads", "writes", "datagrams in", "datagrams out"} - {"peer", "closed by"}
)


def _columns(records: Sequence[Record]) -> list[str]:
    """The names of the columns; of what is counted, if it is the same for all records."""
    kinds = {record.transport in ("tcp", "unix") for record in records}
    names = {True: ("reads", "writes"), False: ("datagrams in", "datagrams out")}
    both = names[kinds.pop()] if len(kinds) == 1 else ("in", "out")
    return [dict(zip(("in", "out"), both, strict=True)).get(name, name) for name in _COLUMNS]


def _ledger_rows(ledger: Ledger) -> tuple[Sequence[str], Rows, list[str]]:
    """Columns, rows and closing notes of a ledger."""
    columns, rows, notes = record_rows(list(ledger))
    return columns, rows, [*notes, *_notes(ledger)]


def record_rows(records: Sequence[Record]) -> tuple[Sequence[str], Rows, list[str]]:
    """Columns, rows and closing notes: the newest open records, then the newest closed ones."""
    newest = sorted(records, key=lambda record: record.id, reverse=True)
    opened = [record for record in newest if record.closed_by is None]
    closed = [record for record in newest if record.closed_by is not None]
    shown = (opened + closed)[:_MAX_RECORDS]
    struck = any(record._fault_count for record in shown)
    rows: Rows = [
        (
            str(record.id),
            peer(record),
            seconds(record.seconds),
            f"{record.messages_in:,} ({size(record.bytes_in)})",
            f"{record.messages_out:,} ({size(record.bytes_out)})",
            *([f"{record._fault_count:,}"] if struck else []),
            open_or_end(record),
        )
        for record in shown
    ]
    columns = [name for name in _columns(shown) if struck or name != "faults"]
    hidden = max(0, len(opened) - len(shown))
    notes = _hidden(hidden, len(records) - len(shown) - hidden)
    return (columns if rows else ()), rows, notes


def _hidden(opened: int, closed: int) -> list[str]:
    """How many records a table does not show."""
    parts = [f"{opened:,} open"] * bool(opened) + [f"{closed:,} closed"] * bool(closed)
    return [f"… and {opened + closed:,} more: {', '.join(parts)}"] if parts else []


def _notes(ledger: Ledger) -> list[str]:
    """What ended connections too early, and how many records are gone."""
    notes = [f"ended by {cause}: {number:,}" for cause, number in causes(ledger)]
    gone = ledger.totals.closed - len(ledger.closed)
    if gone > 0:
        notes.append(f"{gone:,} older ones are not kept; the totals include them")
    return notes


def causes(ledger: Ledger) -> list[tuple[str, int]]:
    """What faults, limits and errors ended connections, and how many; the most frequent first.

    Only the records that the ledger holds have the text; of different texts the most frequent are
    listed, and the others are counted together.
    """
    totals = ledger.totals.closed_by
    counted: list[tuple[str, int]] = []
    for reason in ("error", "limit", "fault"):
        number = totals.get(reason, 0)
        if not number:
            continue
        found = Counter(end(record) for record in ledger.closed if record.closed_by == reason)
        counted += (frequent := found.most_common(_MAX_CAUSES))
        rest = number - sum(many for _, many in frequent)
        if rest > 0:
            counted.append((f"other {reason}s" if frequent else f"{reason}s", rest))
    return counted


def sums(ledger: Ledger) -> str:
    """The totals of a ledger on one line; what went wrong only if there was any."""
    totals = ledger.totals
    text = (
        f"{totals.accepted:,} accepted = {totals.open:,} open + {totals.closed:,} closed;"
        f" {size(totals.bytes_in)} in, {size(totals.bytes_out)} out"
    )
    if totals.closed_by.get("error"):
        text += f"; {count(totals.closed_by['error'], 'error')}"
    if totals.refused:
        text += f"; {refusals(totals)}"
    if totals.waited:
        text += f"; {totals.waited:,} waited for a handler"
    if totals.accept_errors:
        text += f"; {count(totals.accept_errors, 'accept error')}"
    return text


def refusals(totals: Totals) -> str:
    """`3 refused (Limits.per_host)`, or with the number of each reason if there are several."""
    reasons = [
        (reason if reason in ("allow", "deny") else f"Limits.{reason}", number)
        for reason, number in totals.refused_by.items()
        if number
    ]
    if len(reasons) == 1:
        told = reasons[0][0]
    else:
        told = ", ".join(f"{reason} {number:,}" for reason, number in reasons)
    return f"{totals.refused:,} refused" + (f" ({told})" if told else "")


def end(record: Record) -> str:
    """How a connection ended, with the limit, the fault or the error that ended it.

    A RST is named where the word alone would leave an orderly end to be believed.
    """
    if record.closed_by is None:
        return "still open"
    detail = record.limit or _reason(_error(record)) or record.fault
    if record.limit and record.error:
        # That of a handler's call, such as of a frame; the name of the limit is "line" for all.
        detail = _CALL.sub("", record.error)
    if record.closed_by == "reset" and (detail or "").endswith(_RESET):
        # Which call met the reset says nothing about it.
        detail = None
    if record.reset_sent and not detail:
        detail = "RST" if record.transport == "tcp" else "reset"
    return f"{record.closed_by} ({cell(detail)})" if detail else record.closed_by


def _error(record: Record) -> str | None:
    """The error of a record; an address of a forwarder's far leg is named as the target's."""
    error, far = record.error, record.far
    if error is None or far is None or record.closed_by == "fault":
        return error
    at = f" {far.remote}: "
    return error.replace(at, f" target{at}", 1)


# A client that differs from its recording: the path of the file would leave no room for the reason.
_RECORDED: Final = re.compile(
    r"connection \d+: .*?,(?: line (?P<line>\d+) \(its| behind the end of its) connection \d+\)?: "
)
_NOT_RECORDED: Final = re.compile(r"connection \d+: .* (?=has \d+ connections? and no more$)")


def _reason(error: str | None) -> str | None:
    """The text of an error, without the path of a recording."""
    if error is None:
        return None
    found = _RECORDED.match(error)
    if found is not None:
        line = f"line {found['line']}: " if found["line"] else ""
        return f"{line}{error[found.end() :]}"
    return _NOT_RECORDED.sub("the recording ", error)


# The class and the call before the reason: "ValueError: recv_frame: a frame of 5 bytes, …".
_CALL: Final = re.compile(r"(?:\w+Error: )?(?:[a-z_]+: )?")


# What the system says of ECONNRESET.
_RESET: Final = "Connection reset by peer"
# Whose doing it was, where the word alone does not say it.
_WHOSE: Final = {"local": "this end", "reset": "by the peer"}
# States of TCP in which one direction has ended.
_FINISHED: Final = {
    "CLOSE-WAIT": "the peer has finished",
    "FIN-WAIT-1": "this end has finished",
    "FIN-WAIT-2": "this end has finished",
}


def _finished(info: TcpInfo | None) -> str:
    """Which end of an open connection has finished sending; "" while none has."""
    return _FINISHED.get(info.state, "") if info is not None else ""


def open_or_end(record: Record) -> str:
    """The same, and for an open connection which end has finished."""
    finished = _finished(record.tcp_info) if record.closed_by is None else ""
    return f"{end(record)}; {finished}" if finished else end(record)


def transport(record: Record) -> str:
    """`tcp`, or `tcp, TLSv1.3`."""
    return record.transport if record.tls is None else f"{record.transport}, {record.tls.version}"


def _end_rows(record: Record) -> list[tuple[str, str]]:
    """What ended a connection, and the whole text of an error."""
    by, error = record.closed_by, _error(record)
    is_told = record.fault in ("reset", "abort")
    sent = [("reset sent", "yes")] if record.reset_sent and not is_told else []
    if by == "fault" or not error:
        # The text of a fault is on its own row already.
        return [*sent, ("closed by", told_end(record))]
    whose = record.limit or _WHOSE.get(by or "")
    return [*sent, ("closed by", f"{by}{f' ({whose})' * bool(whose)}"), ("error", error)]


def told_end(record: Record) -> str:
    """The same for a reader who does not know the words: `local (this end)`."""
    told = open_or_end(record)
    if told == "local (RST)":
        return "local (this end, by RST)"
    return f"{told} ({_WHOSE[told]})" if told in _WHOSE else told


# The step and the address before what the system says: "connect 127.0.0.1:80: Connection refused".
# Of an exception in a handler, also its class: "TimeoutError: recv 127.0.0.1:80: timed out".
_STEP: Final = re.compile(
    r"(?:\w+Error: \[Errno -?\d+\] |TimeoutError: )?[a-z_]+(?: .+)?: (?=[A-Z]|timed out)"
)


def short_end(record: Record) -> str:
    """The same for a narrow column: an error of the system without its step and address."""
    if record.closed_by in (None, "reset") or not record.error or record.limit:
        return end(record)
    text = _reason(record.error) or ""
    step = _STEP.match(text)
    of_target = step is not None and _error(record) != record.error
    shown = "target: " * of_target + (text[step.end() :] if step else text)
    return f"{record.closed_by} ({cell(shown)})"


def _tcp_rows(info: TcpInfo | None) -> list[tuple[str, str]]:
    if info is None:
        return []
    segments = (
        f"{info.segments_in:,} in, {info.segments_out:,} out; with data:"
        f" {info.data_segments_in:,} in, {info.data_segments_out:,} out"
    )
    again = f"; {info.retransmits:,} sent again" if info.retransmits else ""
    return [("round trip", seconds(info.rtt)), ("segments", segments + again)]

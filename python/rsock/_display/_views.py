"""What rsock's objects look like: one line or a small table, as plain text and as HTML.

Everything here only reads, and returns a string. Nothing may print, nothing may change what it
shows, and nothing may raise: a display is asked for by debuggers, logs and finalizers, in states
its object was never meant to be seen in.
"""

import functools
import html
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from ._exceptions import StateError
from ._types import Endpoint, TcpInfo, printable

if TYPE_CHECKING:
    from ._rsock import Ledger, Record
    from ._server import Server
    from ._stream import StreamMethods

__all__ = [
    "ledger_html",
    "ledger_repr",
    "record_html",
    "record_repr",
    "server_html",
    "server_repr",
    "stream_html",
    "stream_repr",
]

_T = TypeVar("_T")

# As much of a ledger as fits a screen beside the code that asked for it.
_MAX_RECORDS: Final = 20
# Long enough for any address and port; error texts and Unix paths are cut.
_MAX_CELL: Final = 64


# One line each, for repr().


def _never_raises(show: Callable[[_T], str]) -> Callable[[_T], str]:
    """Make what went wrong the display, such as the use of an object in a forked child."""

    @functools.wraps(show)
    def safe(thing: _T) -> str:
        try:
            return show(thing)
        except Exception as error:
            text = f"<{type(thing).__name__}: {error}>"
            return html.escape(text) if show.__name__.endswith("_html") else text

    return safe


@_never_raises
def server_repr(server: "Server") -> str:
    """`<Server 127.0.0.1:43211 serving Echo() 3 open>`."""
    state = server.state
    parts = [type(server).__name__, _server_address(server), state, _cell(repr(server.service))]
    if state in ("serving", "draining"):
        parts.append(f"{server.ledger.totals.open:,} open")
    return f"<{' '.join(parts)}>"


@_never_raises
def stream_repr(stream: "StreamMethods") -> str:
    """`<Client 127.0.0.1:50312 -> 127.0.0.1:8080 connected>`."""
    local, remote, state = _stream_sides(stream)
    record = stream.record
    accepted = record is not None and record.role == "server"
    sides = _arrow(record).join(str(side) for side in (local, remote) if side is not None)
    words = (type(stream).__name__, str(stream.id) if accepted else "", sides, state)
    return f"<{' '.join(filter(None, words))}>"


@_never_raises
def record_repr(record: "Record") -> str:
    """`<Record 7 tcp 127.0.0.1:80 <- 127.0.0.1:50312 open 1.25 s, in 3 (48 B), out 3 (48 B)>`."""
    end = "open" if record.closed_by is None else f"closed by {_end(record)}"
    ends = f"{record.local}{_arrow(record)}{_peer(record)}"
    if record.far is not None:
        ends = f"{record.far.remote} <- {ends}"
    return (
        f"<Record {record.id} {record.transport} {ends} {end} {_seconds(record.seconds)},"
        f" in {record.messages_in:,} ({_bytes(record.bytes_in)}),"
        f" out {record.messages_out:,} ({_bytes(record.bytes_out)})>"
    )


# Tables.


@_never_raises
def ledger_repr(ledger: "Ledger") -> str:
    """The totals on a line, and a table of the newest records below it."""
    return _text_table(f"<Ledger {_totals(ledger)}>", *_ledger_rows(ledger))


@_never_raises
def ledger_html(ledger: "Ledger") -> str:
    """The same as an HTML table."""
    return _html_table(f"Ledger: {_totals(ledger)}", *_ledger_rows(ledger))


@_never_raises
def record_html(record: "Record") -> str:
    """One record as an HTML table of names and values."""
    return _html_table(
        f"Record {record.id}",
        (),
        [
            ("transport", record.transport),
            ("local", str(record.local)),
            ("remote", str(record.remote)),
            *([("forwarded to", str(record.far.remote))] if record.far else []),
            ("lasted" if record.closed_by else "open for", _seconds(record.seconds)),
            ("in", f"{_count(record.messages_in, 'message')}, {_bytes(record.bytes_in)}"),
            ("out", f"{_count(record.messages_out, 'message')}, {_bytes(record.bytes_out)}"),
            *_tcp_rows(record.tcp_info),
            ("closed by", _end(record)),
        ],
    )


@_never_raises
def server_html(server: "Server") -> str:
    """One server as an HTML table of names and values."""
    totals = server.ledger.totals
    return _html_table(
        f"{type(server).__name__} {_server_address(server)}",
        (),
        [
            ("state", server.state),
            ("transport", server.transport),
            ("service", repr(server.service)),
            ("connections", f"{totals.open:,} open, {totals.closed:,} closed"),
            ("in", f"{_count(totals.messages_in, 'message')}, {_bytes(totals.bytes_in)}"),
            ("out", f"{_count(totals.messages_out, 'message')}, {_bytes(totals.bytes_out)}"),
        ],
    )


@_never_raises
def stream_html(stream: "StreamMethods") -> str:
    """One stream as an HTML table of names and values."""
    local, remote, state = _stream_sides(stream)
    rows = [("state", state)]
    if local is not None:
        rows.append(("local", str(local)))
    if remote is not None:
        rows.append(("remote", str(remote)))
    if not stream.closed:
        timeout = stream.gettimeout()
        rows.append(("descriptor", str(stream.fileno())))
        rows.append(("timeout", "none" if timeout is None else _seconds(timeout)))
    return _html_table(type(stream).__name__, (), rows)


# What they are made of.


def _arrow(record: "Record | None") -> str:
    """From whoever connected to whoever was connected to, our own side being on the left."""
    return " <- " if record is not None and record.role == "server" else " -> "


def _server_address(server: "Server") -> str:
    try:
        address = server.address
    except StateError:
        # Not bound yet: the address that was asked for.
        address = (server.host, server.port) if server.path is None else server.path
    return str(Endpoint(server.transport, address))


def _stream_sides(stream: "StreamMethods") -> tuple[Endpoint | None, Endpoint | None, str]:
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


def _stream_end(address: "str | bytes | tuple[str, int]") -> Endpoint:
    """One end as the kernel tells it: the name of a Unix socket, or host and port."""
    if isinstance(address, tuple):
        return Endpoint("tcp", address[:2])
    return Endpoint("unix", os.fsdecode(address))


def _peer(record: "Record") -> str:
    """Who the peer is: its address or, where a Unix socket's client has none, its process."""
    who = record.peer_credentials
    if who is None or record.remote.address:
        return str(record.remote)
    return f"pid {who.pid}, uid {who.uid}"


_COLUMNS: Final = (
    "id",
    "peer",
    "lasted",
    "messages in",
    "bytes in",
    "messages out",
    "bytes out",
    "closed by",
)
# Of these, what reads best flush right.
_RIGHT: Final = frozenset(_COLUMNS) - {"peer", "closed by"}

_Rows = list[tuple[str, ...]]


def _ledger_rows(ledger: "Ledger") -> tuple[Sequence[str], _Rows, str]:
    """Columns, rows and closing note: the newest records first."""
    records = list(ledger)
    newest = sorted(records, key=lambda record: record.id, reverse=True)[:_MAX_RECORDS]
    rows: _Rows = [
        (
            str(record.id),
            _peer(record),
            _seconds(record.seconds),
            f"{record.messages_in:,}",
            _bytes(record.bytes_in),
            f"{record.messages_out:,}",
            _bytes(record.bytes_out),
            _end(record),
        )
        for record in newest
    ]
    more = len(records) - len(newest)
    return (_COLUMNS if rows else ()), rows, (f"… and {more:,} more" if more else "")


def _totals(ledger: "Ledger") -> str:
    totals = ledger.totals
    text = (
        f"{totals.accepted:,} accepted = {totals.open:,} open + {totals.closed:,} closed;"
        f" {_bytes(totals.bytes_in)} in, {_bytes(totals.bytes_out)} out"
    )
    if totals.refused:
        text += f"; {totals.refused:,} refused"
    if totals.waited:
        text += f"; {totals.waited:,} waited for a handler"
    if totals.accept_errors:
        text += f"; {_count(totals.accept_errors, 'accept error')}"
    return text


def _end(record: "Record") -> str:
    if record.closed_by is None:
        return "still open"
    detail = record.limit or record.error
    return f"{record.closed_by} ({_cell(detail)})" if detail else record.closed_by


def _tcp_rows(info: TcpInfo | None) -> list[tuple[str, str]]:
    if info is None:
        return []
    segments = f"{info.segments_in:,} in, {info.segments_out:,} out"
    again = f" ({info.retransmits:,} of them again)" if info.retransmits else ""
    return [("round trip", _seconds(info.rtt)), ("segments", segments + again)]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _bytes(number: int) -> str:
    """`512 B`, `1.5 KiB`, `12.0 GiB`: exact below 1 KiB, one decimal above."""
    if number < 1024:
        return f"{number} B"
    value = float(number)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        # Whatever would be rounded to 1024.0 belongs to the next unit.
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:,.1f} PiB"


def _seconds(number: float) -> str:
    """`35 µs`, `1.2 ms`, `1.25 s`, `5 min 03 s`, `2 h 05 min`: two units at most."""
    if number < 0.001:
        return f"{number * 1e6:.0f} µs"
    if number < 1:
        return f"{number * 1e3:.1f} ms"
    if number < 60:
        return f"{number:.2f} s"
    minutes, seconds = divmod(int(number), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"


# The two ways to draw a table.


def _cell(text: str) -> str:
    """`text` on one line and of bounded width."""
    text = printable(text)
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…"


def _text_table(title: str, columns: Sequence[str], rows: _Rows, note: str = "") -> str:
    lines = [columns, *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Iterable[str]) -> str:
        padded = (
            cell.rjust(width) if column in _RIGHT else cell.ljust(width)
            for column, cell, width in zip(columns, cells, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    # A ledger without records is its title alone.
    body = map(line, lines) if rows else ()
    return "\n".join(filter(None, (title, *body, note)))


# Styles are on the elements, where neither a notebook's style sheet nor a sanitizer that drops
# <style> undoes them. Text keeps the page's own colour and lines are half-transparent grey, so
# that the table fits a light page and a dark one.
_TABLE: Final = "border-collapse:collapse;white-space:nowrap;font-variant-numeric:tabular-nums"
_CAPTION: Final = "caption-side:top;text-align:left;color:inherit;font-weight:600;padding:.2em .8em"
_CELL: Final = "padding:.2em .8em;border-bottom:1px solid #8886"


def _html_table(
    title: str, columns: Sequence[str], rows: Iterable[tuple[str, ...]], note: str = ""
) -> str:
    """One <table>; without columns, the first cell of a row is its heading."""
    head = "".join(_html_cell("th", column, column, scope="col") for column in columns)
    body = "".join(f"<tr>{''.join(_html_row(columns, row))}</tr>" for row in rows)
    foot = ""
    if note:
        cell = (
            f'<td colspan="{len(columns)}" style="{_CELL};text-align:left">{html.escape(note)}</td>'
        )
        foot = f"<tfoot><tr>{cell}</tr></tfoot>"
    return (
        f'<table style="{_TABLE}"><caption style="{_CAPTION}">{html.escape(title)}</caption>'
        + (f"<thead><tr>{head}</tr></thead>" if head else "")
        + f"<tbody>{body}</tbody>{foot}</table>"
    )


def _html_row(columns: Sequence[str], row: tuple[str, ...]) -> Iterable[str]:
    if columns:
        return (_html_cell("td", column, cell) for column, cell in zip(columns, row, strict=True))
    heading, *cells = row
    return (
        _html_cell("th", "", heading, scope="row"),
        *(_html_cell("td", "", cell) for cell in cells),
    )


def _html_cell(tag: str, column: str, text: str, *, scope: str = "") -> str:
    align = "right" if column in _RIGHT else "left"
    weight = ";font-weight:normal;opacity:.7" if tag == "th" else ""
    attribute = f' scope="{scope}"' if scope else ""
    return (
        f'<{tag}{attribute} style="{_CELL};text-align:{align}{weight}">'
        f"{html.escape(_cell(text))}</{tag}>"
    )

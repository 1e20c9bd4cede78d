"""The drawing of a map: who talks to whom, by the addresses of both ends of each connection.

Clients are on the left, the server in the middle, and the targets of a Forward on the right.
Nothing here may draw more ends than fit a screen: those of one host are then drawn together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..._drawing import Drawing
from ..._rsock import Forward, Record, Server
from .._units import count, size
from .._views import peer, server_address
from ._svg import MARGIN, WIDTH, Picture, fit
from ._text import joined, short

__all__ = ["draw"]

_MAX_ENDS: Final = 14
_TOGETHER: Final = ", all ports"
_BOX: Final = 30.0
_STEP: Final = 40.0
# Where the columns of boxes are: clients, the server, targets.
_CLIENTS: Final = (16.0, 190.0)
_TARGETS: Final = (494.0, 190.0)


@dataclass
class _End:
    """One peer, or several of one host."""

    name: str
    connections: int = 0
    open: int = 0
    octets: int = 0


def draw(server: Server) -> Drawing:
    """Return the drawing of a server."""
    records = list(server.ledger)
    clients, hidden = _ends(records, [_client(record) for record in records])
    forwarded = [record for record in records if record.far is not None]
    targets, hidden_targets = _ends(forwarded, [_target(record) for record in forwarded])
    address = server_address(server)
    title = f"Map of {address}"
    opened = sum(record.closed_by is None for record in records)
    # Those of one host are together if there are many.
    noun = "host" if any(each.name.endswith(_TOGETHER) for each in clients) else "client"
    state = "" if server.state == "serving" else f"{server.state}; "
    summary = (
        f"{state}{count(len(clients) + hidden, noun)}, {count(len(records), 'connection')},"
        f" {opened:,} open"
    )
    notes = []
    if hidden:
        notes.append(f"{count(hidden, f'more {noun}')} not drawn.")
    if hidden_targets:
        notes.append(f"{count(hidden_targets, 'more target')} not drawn.")
    if targets:
        notes.append("Each forwarded connection has a second one, from this server to its target.")
    missed = sum(record.far is None and record.closed_by == "error" for record in records)
    if missed and isinstance(server.service, Forward):
        notes.append(f"Not forwarded, because of an error: {count(missed, 'connection')}.")
    if records:
        notes.append("Bytes are those of both directions together.")
    told = "; ".join(f"{each.name} to {address}: {_words(each)}" for each in clients)
    there = "; ".join(f"{address} to {each.name}: {_words(each)}" for each in targets)
    description = f"{summary}. {told}. {there}".strip()
    picture = Picture()
    top = picture.heading(title, [fit(f"{summary}; {server.service!r}", WIDTH - 32, 12)]) + 8
    rows = max(len(clients), len(targets), 1)
    middle = top + rows * _STEP / 2
    x, wide = (272.0, 156.0) if targets else (464.0, 220.0)
    _links(picture, clients, top + (rows - len(clients)) * _STEP / 2, middle, x, "client", rows)
    _links(
        picture, targets, top + (rows - len(targets)) * _STEP / 2, middle, x + wide, "target", rows
    )
    tall = max(56.0, min(rows * _STEP - 10, 96.0))
    picture.box(x, middle - tall / 2, wide, tall, "panel", "up", line=2)
    for at, (text, mono, colour) in enumerate(
        (
            (server.name if server.name != address else "server", False, "ink"),
            (address, True, "muted"),
        )
    ):
        shown = fit(text, wide - 16, 12 - at, mono=mono, bold=not at, middle=True)
        picture.text(
            x + wide / 2,
            middle - 2 + at * 17,
            shown,
            colour,
            size=12 - at,
            mono=mono,
            bold=not at,
            anchor="middle",
        )
    y = _legend(picture, max(top + rows * _STEP, middle + tall / 2) + 18)
    height = picture.notes(y, notes) + 4
    svg = picture.svg(title, description, height)
    return Drawing(title, description, svg, _text(title, summary, address, clients, targets, notes))


def _client(record: Record) -> str:
    return peer(record)


def _target(record: Record) -> str:
    return str(record.far.remote) if record.far is not None else ""


def _ends(records: Sequence[Record], names: Sequence[str]) -> tuple[list[_End], int]:
    """The peers of some records, the most recent ones first, and how many there are besides."""
    if len(set(names)) > _MAX_ENDS:
        # Without their ports; of Unix sockets there are no hosts.
        names = [
            f"{record.remote.host}{_TOGETHER}"
            if name == str(record.remote) and record.remote.host
            else name
            for record, name in zip(records, names, strict=True)
        ]
    found: dict[str, _End] = {}
    for record, name in zip(records, names, strict=True):
        each = found.setdefault(name, _End(name))
        each.connections += 1
        each.open += record.closed_by is None
        each.octets += record.bytes_in + record.bytes_out
    newest = list(reversed(found.values()))
    newest.sort(key=lambda each: each.open == 0)
    return newest[:_MAX_ENDS], max(0, len(newest) - _MAX_ENDS)


def _words(each: _End) -> str:
    state = f"{each.open:,} open" if each.open else "closed"
    return f"{count(each.connections, 'connection')} ({state}), {size(each.octets)}"


def _links(
    picture: Picture, ends: Sequence[_End], y: float, middle: float, x: float, side: str, rows: int
) -> None:
    """Boxes of one column, and a line from each to the server."""
    left, wide = _CLIENTS if side == "client" else _TARGETS
    if side == "client" and x > 300:
        wide = 220.0
    for at, each in enumerate(ends):
        line = y + at * _STEP + _BOX / 2
        colour = "up" if each.open else "muted"
        meet = middle + (line - middle) * min(1.0, 44 / max(rows * _STEP / 2, 1))
        start, stop = (left + wide, x) if side == "client" else (x, left)
        begin, finish = (line, meet) if side == "client" else (meet, line)
        bend = (stop - start) / 2
        picture.path(
            f"M{start:.1f},{begin:.1f} C{start + bend:.1f},{begin:.1f}"
            f" {stop - bend:.1f},{finish:.1f} {stop - 7:.1f},{finish:.1f}",
            colour,
            width=2 if each.open else 1.2,
            dash="" if each.open else "4 4",
        )
        picture.arrow(stop - 8, finish, stop, finish, colour, head=7)
        picture.box(left, y + at * _STEP, wide, _BOX, "panel", colour if each.open else "grid")
        name = fit(each.name, wide - 16, 11, mono=True, middle=True)
        picture.text(left + 8, line - 2, name, size=11, mono=True)
        text = fit(_words(each), wide - 16, 9.5)
        picture.text(left + 8, line + 10, text, "muted", size=9.5)


def _legend(picture: Picture, y: float) -> float:
    picture.line(MARGIN, y - 4, MARGIN + 30, y - 4, "up", width=2)
    picture.text(MARGIN + 37, y, "open", "muted", size=11)
    picture.line(MARGIN + 92, y - 4, MARGIN + 122, y - 4, "muted", width=1.2, dash="4 4")
    picture.text(MARGIN + 129, y, "closed", "muted", size=11)
    return y + 20


def _text(
    title: str,
    summary: str,
    address: str,
    clients: Sequence[_End],
    targets: Sequence[_End],
    notes: Sequence[str],
) -> str:
    lines = [title, summary, ""]
    address = short(address, 30, middle=True)
    for each in clients:
        arrow = "──▶" if each.open else "╌╌▶"
        lines.append(
            f"  {short(each.name, 30, middle=True):<24} {arrow} {address}   {_words(each)}"
        )
    for each in targets:
        arrow = "──▶" if each.open else "╌╌▶"
        lines.append(
            f"  {address:<24} {arrow} {short(each.name, 30, middle=True)}   {_words(each)}"
        )
    if not clients:
        lines.append(f"  {address}: no connection yet")
    return joined([*lines, "", *notes])

"""The drawing of the states of TCP: the diagram of RFC 9293, with the path of one connection.

The kernel reports one state, the last one before the close; the other steps of a path are inferred
from what ended the connection, and drawn as such. Nothing here may be drawn of another transport.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..._drawing import Drawing
from ..._rsock import Record
from .._views import told_end
from ._ends import HAD_ENDED, End, ends_of
from ._svg import MARGIN, Picture, width_of
from ._text import joined

__all__ = ["draw"]


@dataclass(frozen=True)
class _Node:
    name: str
    x: float
    y: float


@dataclass(frozen=True)
class _Edge:
    """A transition: where its line runs, and what it is called, there and at which place."""

    start: str
    stop: str
    label: str
    points: tuple[tuple[float, float], ...]
    at: tuple[float, float]
    anchor: str = "middle"
    # Where its number is, if not beside its name.
    number: tuple[float, float] | None = None


# "CLOSED" is at the top, where a connection begins, and at the bottom, where it ends.
_BEGIN, _END = "CLOSED ", "CLOSED"
_HALF_WIDTH, _HALF_HEIGHT = 62.0, 15.0
_NODES: Final = {
    node.name: node
    for node in (
        _Node(_BEGIN, 350, 30),
        _Node("LISTEN", 350, 110),
        _Node("SYN-RECEIVED", 140, 190),
        _Node("SYN-SENT", 560, 190),
        _Node("ESTABLISHED", 350, 270),
        _Node("FIN-WAIT-1", 140, 350),
        _Node("CLOSE-WAIT", 560, 350),
        _Node("FIN-WAIT-2", 140, 440),
        _Node("CLOSING", 325, 440),
        _Node("LAST-ACK", 560, 440),
        _Node("TIME-WAIT", 140, 530),
        _Node(_END, 560, 530),
    )
}


def _edges() -> tuple[_Edge, ...]:
    begin, listen, received, sent = _BEGIN, "LISTEN", "SYN-RECEIVED", "SYN-SENT"
    open_, wait1, wait2 = "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2"
    close, closing, last, time = "CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT"
    return (
        _Edge(begin, listen, "listen()", ((350, 45), (350, 95)), (340, 74), "end"),
        _Edge(begin, sent, "connect(): send SYN", ((412, 36), (560, 175)), (496, 100), "start"),
        _Edge(
            listen, received, "SYN in: send SYN, ACK", ((288, 118), (170, 175)), (214, 138), "end"
        ),
        _Edge(sent, received, "SYN in: send ACK", ((498, 190), (202, 190)), (350, 184)),
        _Edge(received, open_, "ACK in", ((170, 205), (288, 262)), (242, 226), "start"),
        _Edge(sent, open_, "SYN, ACK in: send ACK", ((540, 205), (412, 262)), (496, 244), "start"),
        _Edge(open_, wait1, "close(): send FIN", ((288, 278), (170, 335)), (212, 302), "end"),
        _Edge(open_, close, "FIN in: send ACK", ((412, 278), (530, 335)), (490, 302), "start"),
        _Edge(wait1, wait2, "ACK in", ((140, 365), (140, 425)), (130, 399), "end"),
        _Edge(wait1, closing, "FIN in: send ACK", ((180, 365), (290, 425)), (252, 392), "start"),
        _Edge(close, last, "close(): send FIN", ((560, 365), (560, 425)), (550, 399), "end"),
        _Edge(
            wait2,
            time,
            "FIN in: send ACK",
            ((140, 455), (140, 515)),
            (148, 490),
            "start",
            (125, 490),
        ),
        _Edge(closing, time, "ACK in", ((310, 455), (202, 522)), (276, 502), "start"),
        _Edge(last, _END, "ACK in", ((560, 455), (560, 515)), (550, 489), "end"),
        _Edge(time, _END, "after 60 s (2 MSL)", ((202, 532), (498, 532)), (350, 547)),
        _Edge(open_, _END, "RST", ((370, 285), (424, 440), (520, 515)), (432, 416), "start"),
        _Edge(close, _END, "RST", ((622, 354), (680, 440), (622, 526)), (570, 478), "start"),
        _Edge(wait1, _END, "RST", ((202, 350), (430, 381), (512, 515)), (318, 362), "start"),
        _Edge(wait2, _END, "RST", ((202, 446), (498, 524)), (372, 486), "start"),
        _Edge(closing, _END, "RST", ((350, 455), (506, 516)), (408, 506), "end"),
    )


_EDGES: Final = _edges()
# Drawn only where a connection has taken them: a RST closes it in every state. The name of such a
# transition tells who sent it.
_RARE: Final = frozenset({"RST"})


def _name(edge: _Edge, record: Record) -> str:
    if edge.label in _RARE:
        return "RST in" if record.closed_by == "reset" else "send RST"
    # A close that resets can follow the FINs, where data had not been sent yet.
    info = record.tcp_info
    is_last = info is not None and info.state == edge.start == "LAST-ACK"
    return "send RST" if is_last and record.reset_sent else edge.label


_ACTIVE: Final = ("FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", _END)
_PASSIVE: Final = ("CLOSE-WAIT", "LAST-ACK", _END)
_CROSSED: Final = ("FIN-WAIT-1", "CLOSING", "TIME-WAIT", _END)


def draw(record: Record) -> Drawing:
    """Return the drawing of a record; raises ValueError if it is not of TCP."""
    if record.transport != "tcp":
        raise ValueError(
            f"states of connection {record.id}: it is {record.transport}, and only TCP has states"
        )
    info = record.tcp_info
    last = info.state if info is not None else None
    ends = [] if record.closed_by is None else ends_of(record)
    path = _path(record, last, ends)
    gap = _gap(ends)
    perhaps = _perhaps(ends, path, last)
    reached = {*path, *[_END] * bool(gap)} - {stop for _, stop in perhaps}
    steps = list(itertools.pairwise(path))
    who = "connection" if record.role == "server" else "client"
    title = f"TCP states of {who} {record.id:,}"
    state = (
        "the state now is"
        if record.closed_by is None
        else "the last state that the kernel reported is"
    )
    ended = "open" if record.closed_by is None else f"closed by {told_end(record)}"
    summary = f"{ended}; {state} {last or 'unknown'}"
    shown = " → ".join(name.strip() for name in path) + " … CLOSED" * bool(gap)
    description = f"{summary}. Path: {shown}."
    if perhaps:
        description += f" Its last {len(perhaps)} steps may not have happened."
    picture = Picture()
    top = picture.heading(title, [summary])
    taken = {step: number for number, step in enumerate(steps, 1)}
    for edge in sorted(_EDGES, key=lambda edge: (edge.start, edge.stop) in taken):
        number = taken.get((edge.start, edge.stop))
        if number is not None or edge.label not in _RARE:
            is_sure = (edge.start, edge.stop) not in perhaps
            _edge(picture, edge, _name(edge, record), number, top, is_sure)
    for node in _NODES.values():
        _node(picture, node, node.name in reached, node.name == last, top)
    notes = [gap] * bool(gap) + _notes(record, path)
    height = picture.notes(_legend(picture, top + 578, bool(perhaps)), notes) + 4
    names = {(edge.start, edge.stop): _name(edge, record) for edge in _EDGES}
    return Drawing(
        title,
        description,
        picture.svg(title, description, height),
        _text(title, summary, path, last, names, notes, bool(gap), perhaps),
    )


def _path(record: Record, last: str | None, ends: Sequence[End]) -> list[str]:
    """The states in their order."""
    if record.role == "server":
        path = ["LISTEN", "SYN-RECEIVED", "ESTABLISHED"]
    else:
        path = [_BEGIN, "SYN-SENT", "ESTABLISHED"]
    if record.closed_by is None:
        return _until(path, last)
    if not ends:
        return path
    if any(end.kind == "reset" for end in ends):
        # The state that the kernel saw last says how far the connection had come.
        return [*path, *(_until([], last) if last != _END else []), _END]
    if _gap(ends):
        return [*path, "CLOSE-WAIT"] if ends[0].way == "in" else path
    if last == "CLOSING":
        return [*path, *_CROSSED]
    return [*path, *(_PASSIVE if ends[0].way == "in" else _ACTIVE)]


def _gap(ends: Sequence[End]) -> str:
    """Why the way to the last state is not known; "" where it is."""
    kind = ends[-1].kind if ends else ""
    return {
        "both": "Both ends have sent FIN, but which was first is not recorded.",
        "gone": HAD_ENDED,
    }.get(kind, "")


def _perhaps(ends: Sequence[End], path: list[str], last: str | None) -> set[tuple[str, str]]:
    """The steps that may follow a close, of which no record is kept."""
    if not ends or ends[-1].kind != "unknown":
        return set()
    known = last if last in _ACTIVE[:2] else _ACTIVE[0]
    return set(itertools.pairwise(path[path.index(known) :]))


def _until(path: list[str], last: str | None) -> list[str]:
    """The path of an open connection: up to its state."""
    for ends in (_ACTIVE, _PASSIVE, _CROSSED):
        if last in ends:
            return [*path, *ends[: ends.index(last) + 1]]
    return path


def _edge(
    picture: Picture, edge: _Edge, name: str, number: int | None, top: float, is_sure: bool
) -> None:
    colour = "grid" if number is None else "bad" if "RST" in name else "up"
    points = [(x, y + top) for x, y in edge.points]
    wide = 1.3 if number is None else 2.4
    dash = "" if is_sure else "5 4"
    for (x1, y1), (x2, y2) in itertools.pairwise(points[:-1]):
        picture.line(x1, y1, x2, y2, colour, width=wide, dash=dash)
    (x1, y1), (x2, y2) = points[-2:]
    picture.arrow(x1, y1, x2, y2, colour, width=wide, dash=dash, head=8)
    x, y = edge.at[0], edge.at[1] + top
    label = "muted" if number is None else colour
    picture.text(x, y, name, label, size=11, anchor=edge.anchor, bold=number is not None)
    if number is None:
        return
    wide = width_of(name, 11, bold=True)
    x += {"start": wide + 15, "end": -wide - 15, "middle": wide / 2 + 15}[edge.anchor]
    if edge.number is not None:
        x, y = edge.number[0], edge.number[1] + top
    picture.circle(x, y - 4, 8.5, colour)
    picture.text(x, y, str(number), "card", size=11, anchor="middle", bold=True)


def _node(picture: Picture, node: _Node, taken: bool, current: bool, top: float) -> None:
    picture.box(
        node.x - _HALF_WIDTH,
        node.y + top - _HALF_HEIGHT,
        2 * _HALF_WIDTH,
        2 * _HALF_HEIGHT,
        "up" if current else "panel",
        "up" if taken else "grid",
        radius=15,
        line=2 if taken else 1,
    )
    colour = "card" if current else "ink" if taken else "muted"
    picture.text(
        node.x,
        node.y + top + 4,
        node.name.strip(),
        colour,
        size=11,
        anchor="middle",
        bold=taken,
    )


def _legend(picture: Picture, y: float, may_follow: bool) -> float:
    x = float(MARGIN)
    picture.box(x, y - 11, 26, 14, "up", "up", radius=7)
    picture.text(x + 33, y, "reported by the kernel", "muted", size=11)
    x += 180
    picture.box(x, y - 11, 26, 14, "panel", "up", radius=7, line=2)
    picture.text(
        x + 33, y, "on the path, inferred from how the connection began and ended", "muted", size=11
    )
    if may_follow:
        y += 18
        picture.arrow(MARGIN, y - 4, MARGIN + 27, y - 4, "up", width=2.4, dash="5 4")
        picture.text(MARGIN + 33, y, "may have followed, not recorded", "muted", size=11)
    return y + 20


def _notes(record: Record, path: list[str]) -> list[str]:
    notes = []
    if record.role == "server":
        notes.append(
            "LISTEN is the state of the listening socket. accept() returns a socket that is already"
            " ESTABLISHED: the kernel has finished the handshake by then."
        )
    if record.closed_by is not None and "TIME-WAIT" in path:
        notes.append(
            "The kernel takes the last steps after the close, and alone: FIN-WAIT-2 lasts until the"
            " peer's FIN, TIME-WAIT for 60 s. They may not have happened yet."
        )
    return notes


def _text(
    title: str,
    summary: str,
    path: list[str],
    last: str | None,
    labels: dict[tuple[str, str], str],
    notes: list[str],
    is_gap: bool,
    perhaps: set[tuple[str, str]],
) -> str:
    lines = [title, summary, ""]
    for number, (name, after) in enumerate(zip(path, [*path[1:], ""], strict=True), 1):
        mark = "  ◀ reported by the kernel" if name == last else ""
        lines.append(f"  [{name.strip():^14}]{mark}")
        if after:
            line = "┊" if (name, after) in perhaps else "│"
            lines.append(f"        {line} {number}. {labels[name, after]}")
            lines.append("        ▼")
    if is_gap:
        mark = "  ◀ reported by the kernel" if last == _END else ""
        lines += ["        ┊", f"  [{_END:^14}]{mark}"]
    if perhaps:
        lines += ["", "┊ may have followed, which is not recorded."]
    lines += [
        "",
        "What the kernel did not report is inferred from how the connection began and ended.",
        *notes,
    ]
    return joined(lines)

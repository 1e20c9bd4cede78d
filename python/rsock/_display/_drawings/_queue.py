"""The drawing of a queue: where the connections of a server are, from the backlog to their end.

It shows one moment. Nothing here may be drawn of a server without connections.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..._drawing import Drawing
from ..._rsock import Accept, Handler, Server, process_limits
from .._units import count
from .._views import refusals, server_address
from ._svg import MARGIN, WIDTH, Picture, fit
from ._text import joined

__all__ = ["draw"]

_BOX: Final = 186.0
_GAP: Final = (WIDTH - 2 * MARGIN - 3 * _BOX) / 2
_HEIGHT: Final = 150.0
# Connections of a box that are drawn one by one.
_MAX_DOTS: Final = 40
_DOTS: Final = 10


@dataclass(frozen=True)
class _Place:
    """One place where connections are."""

    name: str
    number: int
    below: str
    colour: str


def draw(server: Server) -> Drawing:
    """Return the drawing of a server; raises ValueError on a transport without connections."""
    if server.transport not in ("tcp", "unix"):
        raise ValueError(
            f"queue of {server.name}: it serves {server.transport}, which has no connections that"
            f" wait"
        )
    totals = server.ledger.totals
    backlog = server.options.backlog
    most = process_limits().backlog_max
    longest = most if backlog is None else min(backlog, most)
    limit = server.limits.connections
    places = [
        _Place("waiting", server.waiting, f"backlog: {longest:,}", "warn"),
        _Place("open", totals.open, "" if limit is None else f"limit: {limit:,}", "up"),
        _Place("ended", totals.closed, f"accepted in all: {totals.accepted:,}", "good"),
    ]
    title = f"Queue of {server_address(server)}"
    summary = f"{server.state}, {server.service!r}"
    moves = (_taker(server), "close")
    causes = [(by, number) for by, number in totals.closed_by.items() if number]
    notes = list(_notes(server))
    told = ", ".join(f"{place.number:,} {place.name}" for place in places)
    description = f"{summary}. {told}. {' '.join(notes)}".strip()
    picture = Picture()
    y = picture.heading(title, [fit(summary, WIDTH - 2 * MARGIN, 12)]) + 6
    for at, place in enumerate(places):
        _place(picture, place, MARGIN + at * (_BOX + _GAP), y, causes if at == 2 else ())
    for at, move in enumerate(moves):
        x = MARGIN + _BOX + at * (_BOX + _GAP)
        middle = y + _HEIGHT / 2
        picture.arrow(x + 6, middle, x + _GAP - 6, middle, "muted", width=2, head=10)
        picture.text(
            x + _GAP / 2, middle - 10, move, "muted", size=10.5, mono=True, anchor="middle"
        )
    height = picture.notes(y + _HEIGHT + 24, notes) + 4
    svg = picture.svg(title, description, height)
    return Drawing(title, description, svg, _text(title, summary, places, moves, causes, notes))


def _taker(server: Server) -> str:
    """What takes a connection out of the queue."""
    if isinstance(server.service, Accept):
        return "accept()"
    return "handler" if isinstance(server.service, Handler) else "accept"


def _notes(server: Server) -> list[str]:
    totals = server.ledger.totals
    notes = [
        "A waiting connection is established: the kernel has finished its handshake, and what its"
        " client sends is kept."
    ]
    if server.transport == "unix":
        notes.append("Linux does not tell how many connections of a Unix socket wait.")
    if totals.refused:
        told = refusals(totals).partition(" refused")[2]
        notes.append(f"Refused: {count(totals.refused, 'connection')}{told}.")
    if totals.waited:
        notes.append(f"Waited for a free handler thread: {count(totals.waited, 'connection')}.")
    if totals.accept_errors:
        notes.append(f"Failed calls of accept: {totals.accept_errors:,}.")
    return notes


def _place(
    picture: Picture, place: _Place, x: float, y: float, causes: Sequence[tuple[str, int]]
) -> None:
    picture.box(x, y, _BOX, _HEIGHT)
    picture.text(x + 12, y + 24, f"{place.number:,}", place.colour, size=20, bold=True)
    picture.text(x + _BOX - 12, y + 22, place.name, size=13, bold=True, anchor="end")
    if place.below:
        picture.text(x + _BOX - 12, y + 38, place.below, "muted", size=10.5, anchor="end")
    if causes:
        # Ends have their causes in place of dots.
        rows = sorted(causes, key=lambda cause: -cause[1])
        for at, (by, number) in enumerate(rows[:5]):
            line = y + 62 + at * 17
            picture.text(x + 12, line, by, "muted", size=11)
            picture.text(x + _BOX - 12, line, f"{number:,}", size=11, mono=True, anchor="end")
        return
    for at in range(min(place.number, _MAX_DOTS)):
        row, column = divmod(at, _DOTS)
        picture.circle(x + 19 + column * 16.4, y + 62 + row * 17, 5.5, place.colour)
    if place.number > _MAX_DOTS:
        text = f"and {place.number - _MAX_DOTS:,} more"
        picture.text(x + 12, y + _HEIGHT - 10, text, "muted", size=11)


def _text(
    title: str,
    summary: str,
    places: Sequence[_Place],
    moves: Sequence[str],
    causes: Sequence[tuple[str, int]],
    notes: Sequence[str],
) -> str:
    lines = [title, summary, ""]
    for place, move in zip(places, (*moves, ""), strict=True):
        dots = "●" * min(place.number, _MAX_DOTS)
        more = f" and {place.number - _MAX_DOTS:,} more" if place.number > _MAX_DOTS else ""
        below = f"  ({place.below})" if place.below else ""
        lines.append(f"  {place.name:<8} {place.number:>8,}  {dots}{more}{below}")
        if move:
            lines += [f"      │ {move}", "      ▼"]
    lines += [f"           {number:>8,}  {by}" for by, number in causes]
    return joined([*lines, "", *notes])

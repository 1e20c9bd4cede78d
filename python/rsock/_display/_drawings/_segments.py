"""The drawing of segments: how the bytes of a connection were cut, by programs and by TCP.

The reads and writes are those of the trace. The kernel counts segments and does not list them:
their sizes are computed from the size of the largest, and drawn as computed only if their number is
the one that the kernel has counted. Nothing here may show a computed size as a measured one.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..._drawing import Drawing
from ..._rsock import Record
from ..._types import TcpInfo
from .._units import count, size
from ._svg import MARGIN, WIDTH, Picture, width_of
from ._text import COLUMNS, joined

__all__ = ["draw"]

_LEFT: Final = 108.0
_HEIGHT: Final = 28.0
# Pieces of one row.
_MAX_PIECES: Final = 60


@dataclass(frozen=True)
class _Row:
    """One way of cutting the same bytes."""

    name: str
    # The sizes of the pieces, or None where only their number is known.
    sizes: Sequence[int] | None
    number: int
    known: bool


@dataclass(frozen=True)
class _Part:
    """One direction: what was said about it, and its rows."""

    title: str
    colour: str
    total: int
    rows: Sequence[_Row]
    note: str


def draw(record: Record) -> Drawing:
    """Return the drawing of a record; raises ValueError if there are no segments."""
    info = record.tcp_info
    if info is None:
        raise ValueError(
            f"segments of connection {record.id}: it is {record.transport}, and only TCP has"
            f" segments"
        )
    parts = [part for part in (_received(record, info), _sent(record, info)) if part.total]
    who = "connection" if record.role == "server" else "client"
    title = f"Segments of {who} {record.id:,}"
    summary = (
        f"largest segment: {info.send_mss:,} B to the peer, {info.receive_mss:,} B from it, as the"
        f" kernel estimates"
    )
    if info.retransmits:
        summary += f"; {count(info.retransmits, 'segment')} sent again"
    description = "; ".join([summary, *(part.title for part in parts)]) + "."
    picture = Picture()
    y = picture.heading(title, [summary]) + 12
    for part in parts:
        y = _part(picture, part, y)
    if not parts:
        picture.text(MARGIN, y, "no data yet", "muted")
        y += 24
    y = _legend(picture, parts, y + 4)
    notes = ["A read may end within a segment, and a segment may have bytes of several writes."]
    height = picture.notes(y, notes) + 4
    svg = picture.svg(title, description, height)
    return Drawing(title, description, svg, _text(title, summary, parts, notes))


def _received(record: Record, info: TcpInfo) -> _Part:
    # The peer's FIN counts as one byte.
    total = info.bytes_received - (info.bytes_received == record.bytes_in + 1)
    reads = _calls(record, "in", "reads")
    cut = _cut([total], info.receive_mss)
    guess = ""
    if len(cut) != info.data_segments_in and reads.sizes and sum(reads.sizes) == total:
        by_reads = _cut(reads.sizes, info.receive_mss)
        if len(by_reads) == info.data_segments_in:
            cut, guess = by_reads, ", if each read begins with a segment"
    segments = _segments(cut, info.data_segments_in)
    colour = "up" if record.role == "server" else "down"
    return _Part(
        f"Received: {total:,} B in {count(info.data_segments_in, 'segment')}, {_reads(record)}",
        colour,
        total,
        [segments, reads],
        _verdict(segments, len(cut), info.receive_mss, guess),
    )


def _reads(record: Record) -> str:
    return count(record.messages_in, "read")


def _sent(record: Record, info: TcpInfo) -> _Part:
    # Bytes of `bytes_sent` that were sent again are in it twice.
    total = info.bytes_sent - info.bytes_retransmitted
    calls = _calls(record, "out", "writes")
    whole = calls.sizes is not None and sum(calls.sizes) == total
    cut = _cut(calls.sizes if whole and calls.sizes else [total], info.send_mss)
    segments = _segments(cut, info.data_segments_out - info.retransmits)
    colour = "down" if record.role == "server" else "up"
    return _Part(
        f"Sent: {total:,} B in {count(record.messages_out, 'write')},"
        f" {count(info.data_segments_out, 'segment')}",
        colour,
        total,
        [calls, segments],
        _verdict(segments, len(cut), info.send_mss),
    )


def _calls(record: Record, way: str, name: str) -> _Row:
    """The reads or writes of the trace, if it has them all."""
    number = record.messages_in if way == "in" else record.messages_out
    events = [event.size for event in record.trace or () if event.direction == way]
    return _Row(name, events if len(events) == number else None, number, True)


def _cut(sizes: Sequence[int], mss: int) -> list[int]:
    """The sizes of the segments of some writes, each sent at once."""
    cut = []
    for each in sizes:
        # A list of millions is not drawn.
        whole = min(each // max(mss, 1), 100_000)
        cut += [mss] * whole + [each % max(mss, 1)] * bool(each % max(mss, 1))
    return cut


def _segments(cut: Sequence[int], counted: int) -> _Row:
    return _Row("segments", cut if len(cut) == counted else None, counted, False)


def _verdict(row: _Row, computed: int, mss: int, guess: str = "") -> str:
    if row.sizes is not None:
        return (
            f"Segments: the kernel counted {row.number:,}; the sizes are computed from the largest,"
            f" {mss:,} B{guess}."
        )
    return (
        f"Segments: the kernel counted {row.number:,}, and segments of {mss:,} B would be"
        f" {computed:,}; so the sizes are not known."
    )


def _part(picture: Picture, part: _Part, y: float) -> float:
    picture.text(MARGIN, y + 4, part.title, size=13, bold=True)
    y += 18
    for row in part.rows:
        _row(picture, row, y, part)
        y += _HEIGHT + 8
    return picture.notes(y + 8, [part.note]) + 12


def _row(picture: Picture, row: _Row, y: float, part: _Part) -> None:
    picture.text(MARGIN, y + 18, row.name, "muted", size=12)
    room = WIDTH - MARGIN - _LEFT
    sizes = row.sizes
    if sizes is None:
        number = max(row.number, 1)
        # As many parts of equal width, without sizes.
        shown = min(number, _MAX_PIECES)
        for at in range(shown):
            x = _LEFT + room * at / shown
            picture.box(x, y, room / shown - 1, _HEIGHT, "panel", "muted", radius=3, dash="3 3")
        if row.number > shown:
            _over(picture, f"{row.number:,} pieces of unknown sizes, {shown} are drawn", y)
        return
    x = _LEFT
    pieces = list(sizes[:_MAX_PIECES])
    total = max(sum(sizes), 1)
    rest = total - sum(pieces)
    # A piece has room for its edge, however small it is.
    scale = room / total
    for piece in pieces:
        wide = piece * scale
        dash = "" if row.known else "5 3"
        picture.box(x, y, wide - 1, _HEIGHT, "panel", part.colour, radius=3, line=1.6, dash=dash)
        text = f"{piece:,}"
        if width_of(text, 11, mono=True) < wide - 8:
            picture.text(
                x + wide / 2, y + 18, text, part.colour, size=11, mono=True, anchor="middle"
            )
        x += wide
    if rest > 0:
        picture.box(x, y, rest * scale - 1, _HEIGHT, "card", "grid", radius=3)
        text = f"{len(sizes) - len(pieces):,} more" if sizes else "none"
        if width_of(text, 11) < rest * scale - 8:
            middle = x + rest * scale / 2
            picture.text(middle, y + 18, text, "muted", size=11, anchor="middle")


def _over(picture: Picture, text: str, y: float) -> None:
    """A text over the middle of a row."""
    middle = (_LEFT + WIDTH - MARGIN) / 2
    wide = width_of(text, 11) + 16
    picture.box(middle - wide / 2, y + 5, wide, _HEIGHT - 10, "card", "")
    picture.text(middle, y + 18, text, "muted", size=11, anchor="middle")


def _legend(picture: Picture, parts: Sequence[_Part], y: float) -> float:
    rows = [row for part in parts for row in part.rows]
    entries = []
    if any(row.known and row.sizes is not None for row in rows):
        entries.append(("up", "", "recorded by the trace"))
    if any(not row.known and row.sizes is not None for row in rows):
        entries.append(("up", "5 3", "computed"))
    if any(row.sizes is None for row in rows):
        entries.append(("muted", "3 3", "only the number is known"))
    x = float(MARGIN)
    for colour, dash, text in entries:
        picture.box(x, y - 11, 28, 14, "panel", colour, radius=3, line=1.6, dash=dash)
        picture.text(x + 35, y, text, "muted", size=11)
        x += 35 + width_of(text, 11) + 22
    return y + 20


def _text(title: str, summary: str, parts: Sequence[_Part], notes: Sequence[str]) -> str:
    lines = [title, summary]
    for part in parts:
        lines += ["", part.title]
        lines += [f"  {row.name:<9} {_sizes(row)}" for row in part.rows]
        lines += textwrap.wrap(part.note, COLUMNS, initial_indent="  ", subsequent_indent="  ")
    if not parts:
        lines += ["", "no data yet"]
    return joined([*lines, "", *notes])


def _sizes(row: _Row) -> str:
    """The sizes in brackets: `|1460|1460|1460|620|`; equal ones together if there are many."""
    if row.sizes is None:
        return f"{row.number:,}, of unknown sizes"
    if not row.sizes:
        return "none"
    if len(row.sizes) <= 12:
        return "|" + "|".join(str(each) for each in row.sizes) + "|"
    shown = "|".join(str(each) for each in row.sizes[:10])
    rest = row.sizes[10:]
    return f"|{shown}| and {len(rest):,} more ({size(sum(rest))})"

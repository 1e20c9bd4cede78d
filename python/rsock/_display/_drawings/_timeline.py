"""The drawing of a timeline: the connections of a ledger as bars, by how they ended.

A bar is known by its pattern and by the word beside it, not by its colour alone. Nothing here may
draw more rows than fit a screen.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from ..._drawing import Drawing
from ..._rsock import Ledger, Record
from .._units import count, seconds
from .._views import peer, sums
from ._svg import MARGIN, WIDTH, Picture, fit, width_of
from ._text import COLUMNS, Canvas, short

__all__ = ["draw"]

_MAX_ROWS: Final = 30
_ROW: Final = 19.0
_LEFT, _RIGHT = 196.0, 562.0
# How connections end: the colour, the pattern, and the character of a bar of text.
_ENDS: Final = {
    "open": ("up", "solid", "━"),
    "peer": ("good", "solid", "█"),
    "local": ("up", "rising", "▓"),
    "service": ("down", "columns", "▒"),
    "reset": ("bad", "cross", "×"),
    "error": ("bad", "falling", "!"),
    "fault": ("warn", "dots", "~"),
    "limit": ("warn", "rows", "="),
    "stop": ("muted", "rising", "#"),
    "detached": ("muted", "columns", ":"),
}


def draw(ledger: Ledger) -> Drawing:
    """Return the drawing of a ledger."""
    records = list(ledger)
    shown = _chosen(records)
    hidden = len(records) - len(shown)
    drawn = f"{len(shown):,} of " if hidden else ""
    title = f"Timeline of {drawn}{count(len(records), 'connection')}"
    summary = sums(ledger)
    ends = Counter(record.closed_by or "open" for record in shown)
    told = ", ".join(f"{number:,} {_ended(by)}" for by, number in ends.items())
    notes = [f"{count(hidden, 'more record')} of the ledger not drawn"] if hidden else []
    gone = ledger.totals.closed - len(ledger.closed)
    if gone > 0:
        notes.append(f"{count(gone, 'older connection')} not kept by the ledger")
    description = f"{summary}. Drawn: {told or 'none'}. {'; '.join(notes)}".rstrip()
    picture = Picture()
    y = picture.heading(title, [summary]) + 8
    if not shown:
        picture.text(MARGIN, y, "no connection yet", "muted")
        svg = picture.svg(title, description, y + 20)
        return Drawing(title, description, svg, f"{title}\n{summary}\nno connection yet")
    start = min(record.opened_at for record in shown)
    total = max(max(record.opened_at + record.seconds for record in shown) - start, 1e-6)
    y = _axis(picture, total, y, len(shown))
    for record in shown:
        _row(picture, record, y, start, total)
        y += _ROW
    y = _legend(picture, ends, y + 22)
    height = picture.notes(y, notes) + 4
    text = _text(title, summary, shown, start, total, notes)
    return Drawing(title, description, picture.svg(title, description, height), text)


def _chosen(records: Sequence[Record]) -> list[Record]:
    """The open records and the newest closed ones, in the order of their beginnings."""
    newest = sorted(records, key=lambda record: (record.closed_by is None, record.id), reverse=True)
    return sorted(newest[:_MAX_ROWS], key=lambda record: (record.opened_at, record.id))


def _ended(by: str) -> str:
    return "open" if by == "open" else f"closed by {by}"


# The distances of the marks of an axis of minutes or more, in seconds.
_STEPS: Final = (30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400)


def _step(total: float) -> float:
    """The distance of the marks of an axis: 1, 2 or 5 times a power of ten; minutes and hours."""
    rough = total / 6
    if total >= 120:
        return next((step for step in _STEPS if step >= rough), rough)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)


def _mark(at: float, step: float, total: float) -> str:
    """A time on the axis, with no more digits than the steps need."""
    if at == 0:
        return "0"
    if total >= 120:
        return seconds(at)
    unit, name = next(
        (unit, name)
        for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
        if total >= unit or name == "µs"
    )
    digits = max(0, -math.floor(math.log10(step / unit) + 1e-9))
    return f"{at / unit:,.{digits}f} {name}"


def _axis(picture: Picture, total: float, y: float, rows: int) -> float:
    bottom = y + 8 + rows * _ROW
    step = _step(total)
    free = 0.0
    for number in range(int(total / step) + 1):
        x = _LEFT + (_RIGHT - _LEFT) * number * step / total
        picture.line(x, y + 4, x, bottom, "grid", width=1)
        mark = _mark(number * step, step, total)
        half = width_of(mark, 10.5) / 2
        if x - half >= free:
            picture.text(x, y, mark, "muted", size=10.5, anchor="middle")
            free = x + half + 8
    return y + 18


def _row(picture: Picture, record: Record, y: float, start: float, total: float) -> None:
    by = record.closed_by or "open"
    colour, kind, _ = _ENDS.get(by, _ENDS["detached"])
    name = f"{record.id:,}"
    picture.text(
        MARGIN + 30, y + 3, fit(name, 30, 10.5, mono=True), size=10.5, mono=True, anchor="end"
    )
    address = fit(peer(record), _LEFT - MARGIN - 52, 10.5, mono=True, middle=True)
    picture.text(MARGIN + 38, y + 3, address, "muted", size=10.5, mono=True)
    scale = (_RIGHT - _LEFT) / total
    x = _LEFT + (record.opened_at - start) * scale
    wide = max(record.seconds * scale, 2.5)
    x = min(x, _RIGHT - 2.5)
    fill = picture.pattern(by, colour, kind)
    if record.closed_by is None:
        # It goes on: the bar has an arrow for its end.
        picture.box(x, y - 5, max(wide - 6, 1), 11, fill, "", radius=2)
        right = x + wide
        picture.polygon([(right + 4, y + 0.5), (right - 6, y - 7), (right - 6, y + 8)], colour)
    else:
        picture.box(x, y - 5, wide, 11, fill, "", radius=2)
    text = f"{by} {seconds(record.seconds)}"
    picture.text(WIDTH - MARGIN, y + 3, text, "muted", size=10.5, mono=True, anchor="end")


def _legend(picture: Picture, ends: Counter[str], y: float) -> float:
    x = float(MARGIN)
    for by, (colour, kind, _) in _ENDS.items():
        if by not in ends:
            continue
        text = f"{_ended(by)}: {ends[by]:,}"
        wide = width_of(text, 11) + 50
        if x + wide > WIDTH - MARGIN:
            x, y = float(MARGIN), y + 20
        picture.box(x, y - 10, 24, 12, picture.pattern(by, colour, kind), "", radius=2)
        picture.text(x + 31, y, text, "muted", size=11)
        x += wide + 8
    return y + 20


def _text(
    title: str,
    summary: str,
    shown: Sequence[Record],
    start: float,
    total: float,
    notes: Sequence[str],
) -> str:
    canvas = Canvas()
    canvas.put(0, 0, short(title, COLUMNS))
    canvas.put(1, 0, short(summary, COLUMNS))
    left, wide = 30, 46
    canvas.put(2, left, f"0{seconds(total):>{wide - 1}}")
    for row, record in enumerate(shown, 3):
        by = record.closed_by or "open"
        canvas.put(row, 0, f"{record.id:>5} {short(peer(record), 22, middle=True)}")
        begin = min(int((record.opened_at - start) / total * wide), wide - 1)
        length = max(1, min(round(record.seconds / total * wide), wide - begin))
        bar = _ENDS.get(by, _ENDS["detached"])[2] * length
        canvas.put(row, left + begin, bar[:-1] + "▶" if by == "open" else bar)
        canvas.put(row, left + wide + 2, f"{by} {seconds(record.seconds)}")
    for row, note in enumerate(notes, canvas.rows):
        canvas.put(row, 0, f"… {note}")
    return str(canvas)

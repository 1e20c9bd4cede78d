"""The drawing of a ladder: two ends, and what passed between them from top to bottom.

It draws steps, whatever their source, and must never read a record.
"""

import math
from collections.abc import Sequence
from typing import Final

from ..._drawing import Drawing
from .._units import seconds
from ._steps import Ladder, Step
from ._svg import MARGIN, WIDTH, Picture, fit, width_of
from ._text import Canvas, short

__all__ = ["draw"]

# Where the lines of the two ends are: the peer's, ours, by whether ours is on the right.
_LINES: Final = {True: (112.0, 470.0), False: (588.0, 230.0)}
_ROW: Final = 27.0
_SLOPE: Final = 7.0
# The columns beside our line: the time, and the call.
_TIME: Final = 74.0
_CALL: Final = 84.0
_SMALL: Final = 11.0
# A pause from which on the space between two steps grows, and the most that it grows by.
_PAUSE: Final = 0.001
_MAX_PAUSE: Final = 34.0


def draw(ladder: Ladder) -> Drawing:
    """Return the drawing of a ladder."""
    description = _description(ladder)
    picture = Picture()
    y = picture.heading(ladder.title, [ladder.summary]) + 4
    theirs, ours = _LINES[ladder.accepted]
    y = _ends(picture, ladder, y)
    top = y
    y += 24
    before: float | None = None
    way = ""
    for step in ladder.steps:
        # The arrow before ends below the height of its step, and this one begins above.
        if step.way == "in" and way in ("out", "gap"):
            y += _SLOPE + 2
        way = "gap" if step.kind == "gap" else step.way
        y = _pause(picture, y, before, step.seconds, (theirs, ours))
        if step.seconds is not None:
            before = step.seconds
        _step(picture, step, y, theirs, ours)
        y += _ROW
    bottom = y
    lines = Picture()
    for x in (theirs, ours):
        lines.line(x, top, x, bottom, "muted", width=2)
    # The lines of the ends are under everything else.
    picture.below(lines)
    y = _legend(picture, ladder.steps, bottom + 24)
    height = picture.notes(y, ladder.notes) + 4
    svg = picture.svg(ladder.title, description, height)
    return Drawing(ladder.title, description, svg, _text(ladder))


def _description(ladder: Ladder) -> str:
    known = sum(step.known and step.kind == "data" for step in ladder.steps)
    return (
        f"{ladder.summary}. Between {ladder.theirs} and {ladder.ours}: {known} recorded reads and"
        f" writes; {sum(not step.known for step in ladder.steps)} steps are inferred."
    )


def _time(since: float) -> str:
    """A time of our end: of seconds, as many digits as tell one step from the next."""
    return f"{since:.3f} s" if 1 <= since < 60 else seconds(since)


def _ends(picture: Picture, ladder: Ladder, y: float) -> float:
    """The boxes of the two ends, at the heads of their lines."""
    theirs, ours = _LINES[ladder.accepted]
    names = ("client", "server")
    for x, address, name in (
        (theirs, ladder.theirs, names[not ladder.accepted]),
        (ours, ladder.ours, names[ladder.accepted]),
    ):
        # As wide as both boxes can be side by side.
        most = 318.0
        shown = fit(address, most - 20, _SMALL, mono=True, middle=True)
        mark = " (this end)" if x == ours else ""
        widest = max(width_of(shown, _SMALL, mono=True), width_of(name + mark, 12, bold=True))
        width = min(most, widest + 24)
        x = min(max(x, MARGIN + width / 2), WIDTH - MARGIN - width / 2)
        picture.box(x - width / 2, y, width, 40)
        picture.text(x, y + 17, name + mark, size=12, bold=True, anchor="middle")
        picture.text(x, y + 32, shown, "muted", size=_SMALL, mono=True, anchor="middle")
    return y + 40


def _pause(
    picture: Picture,
    y: float,
    before: float | None,
    now: float | None,
    lines: tuple[float, float],
) -> float:
    """Space for a pause, which grows with the logarithm of its length."""
    if before is None or now is None or now - before <= _PAUSE:
        return y
    extra = min(_MAX_PAUSE, 10 * math.log10((now - before) / _PAUSE))
    if extra < 16:
        return y + extra
    middle = y - 19 + extra / 2
    x = (lines[0] + lines[1]) / 2
    text = f"{seconds(now - before)} later"
    picture.text(x, middle + 4, text, "muted", size=10.5, anchor="middle", italic=True)
    wide = width_of(text, 10.5) / 2 + 10
    for side in (-1, 1):
        picture.line(x + side * wide, middle, x + side * 150, middle, "grid", width=1)
    return y + extra


def _step(picture: Picture, step: Step, y: float, theirs: float, ours: float) -> None:
    side = 1 if ours > theirs else -1
    anchor = "start" if side > 0 else "end"
    line = y + 4
    if step.kind == "gap":
        picture.text(
            (theirs + ours) / 2, line, f"… {step.label} …", "muted", anchor="middle", italic=True
        )
        return
    if step.seconds is not None:
        # The column of the times is flush right on either side.
        x = ours + _TIME if side > 0 else ours - 12
        picture.text(x, line, _time(step.seconds), "muted", size=10.5, mono=True, anchor="end")
    if step.call:
        x = ours + side * _CALL if step.seconds is not None else ours + side * 12
        room = (WIDTH - MARGIN - x) if side > 0 else (x - MARGIN)
        text = fit(step.call, room, _SMALL, mono=True)
        picture.text(x, line, text, size=_SMALL, mono=True, anchor=anchor)
    if step.peer_call:
        x = theirs - side * 12
        text = fit(step.peer_call, 118, _SMALL, mono=True)
        picture.text(
            x, line, text, "muted", size=_SMALL, mono=True, anchor="end" if side > 0 else "start"
        )
    if step.kind == "fault":
        picture.polygon([(ours, y - 6), (ours + 6, y), (ours, y + 6), (ours - 6, y)], "warn")
        text = fit(step.label, abs(ours - theirs) - 36, _SMALL, mono=True)
        x = ours - side * 14
        picture.text(
            x, line, text, "warn", size=_SMALL, mono=True, anchor="end" if side > 0 else "start"
        )
    elif step.kind == "here":
        picture.circle(ours, y, 4.5, "card", "ink", 2)
    elif step.way:
        _arrow(picture, step, y, theirs, ours)


def _arrow(picture: Picture, step: Step, y: float, theirs: float, ours: float) -> None:
    start, stop = (theirs, ours) if step.way == "in" else (ours, theirs)
    colour = _colour(step, ours > theirs)
    gap = 3 if stop > start else -3
    # An arrow takes time: its end is below its start. The event of our end is at the height `y`.
    rise = (-_SLOPE, 0.0) if step.way == "in" else (0.0, _SLOPE)
    # Of a reset, the other end has nothing more to say.
    dash = "" if step.known else "5 4"
    picture.arrow(
        start + gap,
        y + rise[0],
        stop - gap,
        y + rise[1],
        colour,
        width=3 if step.kind == "sum" else 1.8,
        dash=dash,
        head=10 if step.kind == "sum" else 8,
    )
    if step.kind == "reset":
        picture.cross(stop - 5 * gap, y + (rise[0] + rise[1]) / 2 + rise[1] / 2, colour, 4)
    label = _label(step, abs(ours - theirs) - 40)
    middle, high = (start + stop) / 2, y + sum(rise) / 2 - 6
    picture.text(
        middle, high, label, colour, size=_SMALL, mono=True, anchor="middle", italic=not step.known
    )


def _label(step: Step, room: float) -> str:
    return fit(_plain(step), room, _SMALL, mono=True)


def _colour(step: Step, accepted: bool) -> str:
    if step.kind == "reset":
        return "bad"
    if not step.known:
        return "muted"
    # Up is from the client to the server.
    return "up" if (step.way == "in") is accepted else "down"


def _legend(picture: Picture, steps: Sequence[Step], y: float) -> float:
    """What the marks mean, as far as they are there; return where the notes begin."""
    entries: list[tuple[str, str]] = []
    if any(step.kind == "data" for step in steps):
        entries.append(("recorded", "recorded: a read or a write"))
    if any(step.kind == "sum" for step in steps):
        entries.append(("sum", "counted"))
    if any(not step.known for step in steps):
        entries.append(("inferred", "inferred, not recorded"))
    if any(step.kind == "fault" for step in steps):
        entries.append(("fault", "a fault (up: client to server)"))
    x = float(MARGIN)
    for kind, text in entries:
        if kind == "fault":
            picture.polygon([(x + 6, y - 10), (x + 12, y - 4), (x + 6, y + 2), (x, y - 4)], "warn")
            x += 18
        else:
            dash = "5 4" if kind == "inferred" else ""
            colour = "muted" if kind == "inferred" else "up"
            wide = 3 if kind == "sum" else 1.8
            picture.arrow(x, y - 4, x + 30, y - 4, colour, width=wide, dash=dash)
            x += 37
        picture.text(x, y, text, "muted", size=_SMALL)
        x += width_of(text, _SMALL) + 22
    return y + 20


# As text.

# The columns of the two lines.
_LEFT: Final = 14
_RIGHT: Final = 60
_BETWEEN: Final = _RIGHT - _LEFT - 1


def _text(ladder: Ladder) -> str:
    canvas = Canvas()
    canvas.put(0, 0, short(ladder.title, 100))
    canvas.put(1, 0, short(ladder.summary, 100))
    theirs, ours = (_LEFT, _RIGHT) if ladder.accepted else (_RIGHT, _LEFT + 12)
    left, right = min(theirs, ours), max(theirs, ours)
    addresses = (ladder.theirs, ladder.ours) if ladder.accepted else (ladder.ours, ladder.theirs)
    for x, name, address in ((left, "client", addresses[0]), (right, "server", addresses[1])):
        canvas.centre(3, x, name + " (this end)" * (x == ours))
        canvas.centre(4, x, short(address, min(44, 2 * x), middle=True))
    row = 5
    before: float | None = None
    for step in ladder.steps:
        if before is not None and step.seconds is not None and step.seconds - before >= 0.1:
            for x in (left, right):
                canvas.put(row, x, "┊")
            canvas.centre(row, (left + right) // 2, f"{seconds(step.seconds - before)} later")
            row += 1
        before = step.seconds if step.seconds is not None else before
        for x in (left, right):
            canvas.put(row, x, "│")
        _text_step(canvas, row, step, left, right, ours)
        row += 1
    used = [("──▶ recorded", any(step.kind == "data" for step in ladder.steps))]
    used += [("══▶ counted", any(step.kind == "sum" for step in ladder.steps))]
    used += [("╌╌▶ inferred, not recorded", any(not step.known for step in ladder.steps))]
    used += [("◆ a fault", any(step.kind == "fault" for step in ladder.steps))]
    canvas.put(row + 1, 0, "   ".join(text for text, there in used if there))
    return str(canvas)


def _text_step(canvas: Canvas, row: int, step: Step, left: int, right: int, ours: int) -> None:
    between = right - left - 1
    if step.kind == "gap":
        canvas.centre(row, (left + right) // 2, short(f"… {step.label} …", between - 2))
        return
    told = f"{_time(step.seconds):>10}  {step.call}" if step.seconds is not None else step.call
    if ours == right:
        canvas.put(row, right + 2, told)
        canvas.put(row, max(0, left - 1 - len(step.peer_call)), short(step.peer_call, left))
    else:
        call = short(f"{step.call} {_time(step.seconds) if step.seconds is not None else ''}", left)
        canvas.put(row, max(0, left - 1 - len(call)), call)
        canvas.put(row, right + 2, step.peer_call)
    if step.kind == "fault":
        canvas.put(row, ours, "◆")
        text = short(step.label, between - 2)
        canvas.put(row, right - 1 - len(text) if ours == right else left + 2, text)
    elif step.kind == "here":
        canvas.put(row, ours, "●")
    elif step.way:
        fill = "═" if step.kind == "sum" else "─" if step.known else "╌"
        rightwards = (step.way == "in") is (ours == right)
        line = fill * (between - 1) + "▶" if rightwards else "◀" + fill * (between - 1)
        canvas.put(row, left + 1, line)
        label = f" {short(_plain(step), between - 8)} "
        canvas.centre(row, (left + right) // 2, label)


def _plain(step: Step) -> str:
    """The label of an arrow, with the first bytes in quotes."""
    shown = repr(step.data[:60])[1:] if step.data else ""
    return f"{step.label}  {shown}".rstrip()

"""The drawing of a ladder: the ends, and what passed between them from top to bottom.

It draws steps, whatever their source, and must never read a record.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..._drawing import Drawing
from .._units import seconds
from ._steps import Ladder, Step
from ._svg import MARGIN, WIDTH, Picture, fit, width_of
from ._text import Canvas, joined, short

__all__ = ["draw"]


@dataclass(frozen=True)
class _Places:
    """Where the lines of the ends are, and the times of ours."""

    theirs: float
    ours: float
    # The right end of the times.
    time: float
    # The widest box of an end.
    box: float
    target: float | None = None

    @property
    def lines(self) -> tuple[float, ...]:
        lines = (self.theirs, self.ours)
        return lines if self.target is None else (*lines, self.target)


# By whether our end is the one that accepted, which is on the right.
_PLACES: Final = {
    True: _Places(theirs=112, ours=470, time=544, box=318),
    False: _Places(theirs=588, ours=230, time=218, box=318),
}
# With a target: the calls of our end are beside its line, and the times to the left of all.
_FORWARDED: Final = _Places(theirs=156, ours=384, time=76, box=196, target=612)
_ROW: Final = 27.0
_SLOPE: Final = 7.0
# The distance of the column of calls from our line.
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
    places = _FORWARDED if ladder.target else _PLACES[ladder.accepted]
    y = _ends(picture, ladder, places, y)
    top = y
    y += 24
    before: float | None = None
    way = ""
    for step in ladder.steps:
        # The arrow before ends below the height of its step, and this one begins above.
        if step.way == "in" and way in ("out", "gap"):
            y += _SLOPE + 2
        way = "gap" if step.kind == "gap" else step.way
        at = _at(step)
        y = _pause(picture, y, before, at, places)
        before = _since(before, step)
        _step(picture, step, y, places)
        y += _ROW
    bottom = y
    lines = Picture()
    for x in places.lines:
        lines.line(x, top, x, bottom, "muted", width=2)
    # The lines of the ends are under everything else.
    picture.below(lines)
    y = _legend(picture, ladder.steps, bottom + 24)
    height = picture.notes(y, ladder.notes) + 4
    svg = picture.svg(ladder.title, description, height)
    return Drawing(ladder.title, description, svg, _text(ladder))


def _at(step: Step) -> float | None:
    """When a step was, for the pause before it."""
    return step.by if step.seconds is None else step.seconds


def _since(before: float | None, step: Step) -> float | None:
    """From when on the pause after a step counts; what has many times, or unknown ones, ends it."""
    at = _at(step)
    return before if at is None and step.kind not in ("sum", "gap") else at


def _description(ladder: Ladder) -> str:
    known = sum(step.known and step.kind == "data" for step in ladder.steps)
    target = f", {ladder.target}" * bool(ladder.target)
    return (
        f"{ladder.summary}. Between {ladder.theirs}{target} and {ladder.ours}: {known} recorded"
        f" reads and writes; {sum(not step.known for step in ladder.steps)} steps are inferred."
    )


def _time(since: float) -> str:
    """A time of our end: of seconds, as many digits as tell one step from the next."""
    return f"{since:.3f} s" if 1 <= since < 60 else seconds(since)


def _heads(ladder: Ladder) -> list[tuple[str, str]]:
    """The name and the address of each end: the peer's, ours, and a target's."""
    if ladder.target:
        ours = ("forwarder (this end)", ladder.ours)
        return [("client", ladder.theirs), ours, ("target", ladder.target)]
    peer, own = ("client", "server") if ladder.accepted else ("server", "client")
    return [(peer, ladder.theirs), (f"{own} (this end)", ladder.ours)]


def _ends(picture: Picture, ladder: Ladder, places: _Places, y: float) -> float:
    """The boxes of the ends, at the heads of their lines."""
    for x, (name, address) in zip(places.lines, _heads(ladder), strict=True):
        shown = fit(address, places.box - 20, _SMALL, mono=True, middle=True)
        widest = max(width_of(shown, _SMALL, mono=True), width_of(name, 12, bold=True))
        width = min(places.box, widest + 24)
        x = min(max(x, MARGIN + width / 2), WIDTH - MARGIN - width / 2)
        picture.box(x - width / 2, y, width, 40)
        picture.text(x, y + 17, name, size=12, bold=True, anchor="middle")
        picture.text(x, y + 32, shown, "muted", size=_SMALL, mono=True, anchor="middle")
    return y + 40


def _pause(
    picture: Picture,
    y: float,
    before: float | None,
    now: float | None,
    places: _Places,
) -> float:
    """Space for a pause, which grows with the logarithm of its length."""
    if before is None or now is None or now - before <= _PAUSE:
        return y
    extra = min(_MAX_PAUSE, 10 * math.log10((now - before) / _PAUSE))
    if extra < 16:
        return y + extra
    middle = y - 19 + extra / 2
    x = (places.theirs + places.ours) / 2
    text = f"{seconds(now - before)} later"
    picture.text(x, middle + 4, text, "muted", size=10.5, anchor="middle", italic=True)
    wide = width_of(text, 10.5) / 2 + 10
    for side in (-1, 1):
        most = min(150, abs(places.ours - places.theirs) / 2 - 12)
        picture.line(x + side * wide, middle, x + side * most, middle, "grid", width=1)
    return y + extra


def _step(picture: Picture, step: Step, y: float, places: _Places) -> None:
    theirs, ours = places.theirs, places.ours
    side = 1 if ours > theirs else -1
    line = y + 4
    if step.kind == "gap":
        _gap(picture, step, y, places)
        return
    if step.seconds is not None:
        # The column of the times is flush right on either side.
        time = _time(step.seconds)
        picture.text(places.time, line, time, "muted", size=10.5, mono=True, anchor="end")
    _calls(picture, step, line, places)
    if step.kind == "fault":
        picture.polygon([(ours, y - 6), (ours + 6, y), (ours, y + 6), (ours - 6, y)], "warn")
        text = fit(step.label, abs(ours - theirs) - 36, _SMALL, mono=True)
        x = ours - side * 14
        anchor = "end" if side > 0 else "start"
        picture.text(x, line, text, "warn", size=_SMALL, mono=True, anchor=anchor)
    elif step.kind == "here":
        picture.circle(ours, y, 4.5, "card", "ink", 2)
    elif step.way:
        _arrow(picture, step, y, places)


def _gap(picture: Picture, step: Step, y: float, places: _Places) -> None:
    """What is not drawn; with a target, the text may be wider than the space between two lines."""
    text = fit(f"… {step.label} …", WIDTH - 2 * MARGIN - 16, 12)
    x = (places.lines[0] + places.lines[-1]) / 2
    if places.target is not None:
        wide = width_of(text, 12) + 12
        x = min(max(x, MARGIN + wide / 2), WIDTH - MARGIN - wide / 2)
        picture.box(x - wide / 2, y - 9, wide, 19, "card", "card")
    picture.text(x, y + 4, text, "muted", anchor="middle", italic=True)


def _calls(picture: Picture, step: Step, line: float, places: _Places) -> None:
    """What our end did, and what the other end must have done."""
    theirs, ours = places.theirs, places.ours
    side = 1 if ours > theirs else -1
    if places.target is None:
        x = ours + side * (12 if step.seconds is None else _CALL)
        room = (WIDTH - MARGIN - x) if side > 0 else (x - MARGIN)
        beside, outer = side, theirs - side * 12
        call, most = step.call, 118.0
    else:
        # On the side of our line on which there is no arrow. What the arrow says is not said twice.
        beside = -1 if step.leg == "far" and step.way else 1
        x, room = ours + beside * 12, places.target - ours - 24
        outer = theirs - 12 if step.leg == "near" else places.target + 12
        call, most = "" if step.kind == "data" else step.call, 64.0
    anchor = "start" if beside > 0 else "end"
    picture.text(x, line, fit(call, room, _SMALL, mono=True), size=_SMALL, mono=True, anchor=anchor)
    anchor = "end" if outer < ours else "start"
    text = fit(step.peer_call, most, _SMALL, mono=True)
    picture.text(outer, line, text, "muted", size=_SMALL, mono=True, anchor=anchor)


def _arrow(picture: Picture, step: Step, y: float, places: _Places) -> None:
    other = places.theirs if step.leg == "near" or places.target is None else places.target
    start, stop = (other, places.ours) if step.way == "in" else (places.ours, other)
    colour = _colour(step, stop > start)
    gap = 3 if stop > start else -3
    # An arrow takes time: its end is below its start. The event of our end is at the height `y`.
    rise = {"in": (-_SLOPE, 0.0), "out": (0.0, _SLOPE)}.get(step.way, (0.0, 0.0))
    middle = (start + stop) / 2
    lines = [(start + gap, stop - gap)]
    if step.way == "both":
        # Two heads, one at each end.
        lines = [(middle, start + gap), (middle, stop - gap)]
    for begin, end in lines:
        picture.arrow(
            begin,
            y + rise[0],
            end,
            y + rise[1],
            colour,
            width=3 if step.kind == "sum" else 1.8,
            dash="" if step.known else "5 4",
            head=10 if step.kind == "sum" else 8,
        )
    if step.kind == "reset":
        # The other end has nothing more to say.
        picture.cross(stop - 5 * gap, y + (rise[0] + rise[1]) / 2 + rise[1] / 2, colour, 4)
    label = _label(step, abs(stop - start) - 40)
    high = y + sum(rise) / 2 - 6
    picture.text(
        middle, high, label, colour, size=_SMALL, mono=True, anchor="middle", italic=not step.known
    )


def _label(step: Step, room: float) -> str:
    return fit(_plain(step), room, _SMALL, mono=True)


def _colour(step: Step, rightwards: bool) -> str:
    if step.kind == "reset":
        return "bad"
    if not step.known:
        return "muted"
    # Up is from the client to the server, and the client is on the left.
    return "up" if rightwards else "down"


def _legend(picture: Picture, steps: Sequence[Step], y: float) -> float:
    """What the marks mean, as far as they are there; return where the notes begin."""
    entries: list[tuple[str, str]] = []
    if any(step.kind == "data" for step in steps):
        entries.append(("recorded", "recorded: a read or a write"))
    if any(step.kind == "reset" and step.known for step in steps):
        entries.append(("reset", "recorded: closed by RST"))
    if any(step.kind == "sum" for step in steps):
        entries.append(("sum", "counted"))
    if any(not step.known for step in steps):
        entries.append(("inferred", "inferred, not recorded"))
    if any(step.kind == "fault" for step in steps):
        entries.append(("fault", "a fault (up: client to server, down: server to client)"))
    x = float(MARGIN)
    for kind, text in entries:
        if x + 37 + width_of(text, _SMALL) > WIDTH - MARGIN:
            x, y = float(MARGIN), y + 18
        if kind == "fault":
            picture.polygon([(x + 6, y - 10), (x + 12, y - 4), (x + 6, y + 2), (x, y - 4)], "warn")
            x += 18
        else:
            dash = "5 4" if kind == "inferred" else ""
            colour = {"inferred": "muted", "reset": "bad"}.get(kind, "up")
            wide = 3 if kind == "sum" else 1.8
            picture.arrow(x, y - 4, x + 30, y - 4, colour, width=wide, dash=dash)
            x += 37
        picture.text(x, y, text, "muted", size=_SMALL)
        x += width_of(text, _SMALL) + 22
    return y + 20


# As text.

# The columns of the lines: of two ends, by whether ours is on the right, or of three.
_COLUMNS: Final = {True: (14, 60), False: (60, 26)}
_OF_THREE: Final = (24, 56, 88)


def _text(ladder: Ladder) -> str:
    canvas = Canvas()
    canvas.put(0, 0, short(ladder.title, 100))
    canvas.put(1, 0, short(ladder.summary, 100))
    columns = _OF_THREE if ladder.target else _COLUMNS[ladder.accepted]
    most = 31 if ladder.target else 44
    for x, (name, address) in zip(columns, _heads(ladder), strict=True):
        canvas.centre(3, x, name)
        canvas.centre(4, x, short(address, min(most, 2 * x, 2 * (100 - x) - 1), middle=True))
    row = 5
    before: float | None = None
    for step in ladder.steps:
        at = _at(step)
        if before is not None and at is not None and at - before >= 0.1:
            for x in columns:
                canvas.put(row, x, "┊")
            text = f"{seconds(at - before)} later"
            canvas.centre(row, sum(columns[:2]) // 2, text)
            row += 1
        before = _since(before, step)
        for x in columns:
            canvas.put(row, x, "│")
        if step.kind == "gap":
            middle = (min(columns) + max(columns)) // 2
            most = max(columns) - min(columns) - 3
            canvas.centre(row, middle, short(f"… {step.label} …", most))
        elif ladder.target:
            _text_of_three(canvas, row, step)
        else:
            _text_of_two(canvas, row, step, *columns[:2])
        row += 1
    used = [("──▶ recorded", any(step.kind == "data" for step in ladder.steps))]
    resets = any(step.kind == "reset" and step.known for step in ladder.steps)
    used += [("──▶ RST recorded: closed by it", resets)]
    used += [("══▶ counted", any(step.kind == "sum" for step in ladder.steps))]
    used += [("╌╌▶ inferred, not recorded", any(not step.known for step in ladder.steps))]
    used += [("◆ a fault", any(step.kind == "fault" for step in ladder.steps))]
    canvas.put(row + 1, 0, "   ".join(text for text, there in used if there))
    return joined([*str(canvas).splitlines(), "", *ladder.notes])


def _text_of_two(canvas: Canvas, row: int, step: Step, theirs: int, ours: int) -> None:
    left, right = min(theirs, ours), max(theirs, ours)
    told = f"{_time(step.seconds):>10}  {step.call}" if step.seconds is not None else step.call
    if ours == right:
        canvas.put(row, right + 2, told)
        canvas.put(row, max(0, left - 1 - len(step.peer_call)), short(step.peer_call, left))
    else:
        call = short(f"{step.call} {_time(step.seconds) if step.seconds is not None else ''}", left)
        canvas.put(row, max(0, left - 1 - len(call)), call)
        canvas.put(row, right + 2, step.peer_call)
    _text_mark(canvas, row, step, theirs, ours)


def _text_of_three(canvas: Canvas, row: int, step: Step) -> None:
    theirs, ours, target = _OF_THREE
    if step.seconds is not None:
        canvas.put(row, 0, f"{_time(step.seconds):>10}")
    call = "" if step.kind == "data" else short(step.call, target - ours - 4)
    is_far = step.leg == "far"
    canvas.put(row, ours - 1 - len(call) if is_far and step.way else ours + 2, call)
    if is_far:
        canvas.put(row, target + 2, step.peer_call)
    else:
        canvas.put(row, theirs - 1 - len(step.peer_call), step.peer_call)
    _text_mark(canvas, row, step, target if is_far else theirs, ours)


def _text_mark(canvas: Canvas, row: int, step: Step, other: int, ours: int) -> None:
    """What a step has between our line and another one."""
    left, right = min(other, ours), max(other, ours)
    between = right - left - 1
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
        if step.way == "both":
            line = "◀" + fill * (between - 2) + "▶"
        canvas.put(row, left + 1, line)
        room = between - (4 if step.way == "both" else 8)
        label = f" {short(_plain(step), room)} "
        canvas.centre(row, (left + right) // 2, label)


def _plain(step: Step) -> str:
    """The label of an arrow, with the first bytes in quotes."""
    shown = repr(step.data[:60])[1:] if step.data else ""
    return f"{step.label}  {shown}".rstrip()

"""A small writer of SVG: lines, shapes, arrows and text, in the colours of a page.

Every text is escaped and has a bounded width. Nothing here may refer to anything outside the
picture, nor give a shape a colour that is not in `COLOURS`.
"""

import html
import textwrap
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

from ..._printable import printable

__all__ = ["COLOURS", "MARGIN", "WIDTH", "Picture", "fit", "width_of", "wrapped"]

# The width of every picture, in pixels: that of a notebook's output in a narrow window.
WIDTH: Final = 700
MARGIN: Final = 16

# Each colour on a light page and on a dark one, and on those with high contrast. Texts have a
# contrast of 4.5 to 1 or more, and of 7 to 1 with high contrast.
COLOURS: Final = {
    "ink": ("#1f2328", "#e6edf3", "#000000", "#ffffff"),
    "muted": ("#59636e", "#9198a1", "#1f2328", "#e6edf3"),
    "grid": ("#d1d9e0", "#3d444d", "#59636e", "#b7bdc8"),
    "card": ("#ffffff", "#0d1117", "#ffffff", "#000000"),
    "panel": ("#f3f5f8", "#1c232c", "#ffffff", "#000000"),
    "up": ("#0969da", "#4493f8", "#0349b4", "#71b7ff"),
    "down": ("#8250df", "#b083f0", "#622cbc", "#cb9eff"),
    "good": ("#1a7f37", "#3fb950", "#055d20", "#26cd4d"),
    "bad": ("#cf222e", "#f85149", "#a0111f", "#ff9492"),
    "warn": ("#916000", "#d29922", "#744500", "#f0b72f"),
}
_LIGHT, _DARK, _LIGHT_CONTRAST, _DARK_CONTRAST = range(4)
# JupyterLab sets these to the colours of its theme.
_THEMED: Final = {
    "ink": "--jp-ui-font-color1",
    "card": "--jp-layout-color0",
}
# How a page says which scheme it has, where that is not the system's: JupyterLab; marimo, sites of
# Sphinx, and VS Code, whose light theme with high contrast has both classes.
_PAGES: Final = (
    (_LIGHT, "[data-jp-theme-light=true]"),
    (_DARK, "[data-jp-theme-light=false]"),
    (_LIGHT, "[data-theme=light]", ".vscode-light"),
    (_DARK, "[data-theme=dark]", ".vscode-dark"),
    (_DARK_CONTRAST, ".vscode-high-contrast"),
    (_LIGHT_CONTRAST, ".vscode-high-contrast-light"),
)

_SANS: Final = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
_MONO: Final = (
    "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
)
# The width of a character, as a part of the font's size: exact for the fixed font, and more than
# the mean of the other ones.
_MONO_WIDTH: Final = 0.605
_SANS_WIDTH: Final = 0.56
_BOLD_WIDTH: Final = 0.6


def _style() -> str:
    """The rules that give the classes their colours, by the scheme of the page."""

    def colours(at: int, themed: bool = False) -> str:
        values = []
        for name, all_schemes in COLOURS.items():
            variable = _THEMED.get(name) if themed else None
            value = f"var({variable},{all_schemes[at]})" if variable else all_schemes[at]
            values.append(f"--{name}:{value}")
        return f"{{{';'.join(values)}}}"

    fills = "".join(f".rsock .f-{name}{{fill:var(--{name})}}" for name in COLOURS)
    strokes = "".join(f".rsock .s-{name}{{stroke:var(--{name})}}" for name in COLOURS)
    pages = "".join(
        f"{','.join(f'{mark} svg.rsock' for mark in marks)}{colours(at, 'jp' in marks[0])}"
        for at, *marks in _PAGES
    )
    return (
        f"svg.rsock{colours(_LIGHT)}"
        f"@media(prefers-color-scheme:dark){{svg.rsock{colours(_DARK)}}}{pages}"
        f"@media print{{svg.rsock.rsock.rsock{colours(_LIGHT)}}}"
        f"{fills}{strokes}"
    )


def _cells(text: str) -> int:
    """How many columns of a fixed font a text takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def width_of(text: str, size: float, *, mono: bool = False, bold: bool = False) -> float:
    """The width of a text in pixels, as far as it can be known without the font."""
    part = _MONO_WIDTH if mono else _BOLD_WIDTH if bold else _SANS_WIDTH
    return _cells(text) * size * part


def fit(
    text: str,
    width: float,
    size: float,
    *,
    mono: bool = False,
    bold: bool = False,
    middle: bool = False,
) -> str:
    """Return `text` cut to a width; `middle` leaves out its middle, as for an address."""
    # A text of megabytes is cut before it is escaped.
    text = printable(text[:500])
    if width_of(text, size, mono=mono, bold=bold) <= width:
        return text
    most = len(text)
    while most > 1:
        most -= 1
        head = most // 2 if middle else most
        short = text[:head] + "…" + (text[len(text) - (most - head) :] if middle else "")
        if width_of(short, size, mono=mono, bold=bold) <= width:
            return short
    return "…"


def wrapped(text: str, width: float, size: float) -> list[str]:
    """The lines of a text that is broken between words."""
    return textwrap.wrap(printable(text[:2_000]), max(10, int(width / (size * _SANS_WIDTH))))


def _n(value: float) -> str:
    """A coordinate: at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


class Picture:
    """A picture that grows downwards; `height` is given at the end."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._defs: list[str] = []

    def line(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        colour: str = "ink",
        *,
        width: float = 1.5,
        dash: str = "",
    ) -> None:
        """Draw a straight line."""
        self._parts.append(
            f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"'
            f"{_paint('', colour, width, dash)}/>"
        )

    def path(
        self, d: str, colour: str = "ink", *, width: float = 1.5, dash: str = "", fill: str = ""
    ) -> None:
        """Draw a path; `d` is that of SVG."""
        self._parts.append(f'<path d="{d}"{_paint(fill, colour, width, dash)}/>')

    def polygon(self, points: Iterable[tuple[float, float]], colour: str) -> None:
        """Draw a filled polygon."""
        text = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._parts.append(f'<polygon points="{text}"{_paint(colour)}/>')

    def circle(
        self, x: float, y: float, radius: float, fill: str, stroke: str = "", width: float = 1.5
    ) -> None:
        """Draw a circle."""
        paint = _paint(fill, stroke, width)
        self._parts.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"{paint}/>')

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = "panel",
        stroke: str = "grid",
        *,
        radius: float = 6,
        line: float = 1,
        dash: str = "",
    ) -> None:
        """Draw a rectangle with round corners."""
        self._parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0.5))}"'
            f' height="{_n(height)}" rx="{_n(radius)}"{_paint(fill, stroke, line, dash)}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: str = "ink",
        *,
        size: float = 12,
        anchor: str = "start",
        mono: bool = False,
        bold: bool = False,
        italic: bool = False,
    ) -> None:
        """Write one line of text, whose baseline is at `y`."""
        if not text:
            return
        style = f' font-family="{_MONO}"' if mono else ""
        style += ' font-weight="600"' if bold else ""
        style += ' font-style="italic"' if italic else ""
        style += f' text-anchor="{anchor}"' if anchor != "start" else ""
        shown = html.escape(printable(text), quote=False)
        self._parts.append(
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}"{style}{_paint(colour)}'
            f' xml:space="preserve">{shown}</text>'
        )

    def lines(self, x: float, y: float, texts: Sequence[str], size: float = 11) -> float:
        """Write lines of muted text, and return the baseline of the next one."""
        for text in texts:
            self.text(x, y, text, "muted", size=size)
            y += size + 5
        return y

    def arrow(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        colour: str,
        *,
        width: float = 1.5,
        dash: str = "",
        head: float = 8,
    ) -> None:
        """Draw a straight arrow from the first point to the second."""
        length = max(((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5, 0.001)
        dx, dy = (x2 - x1) / length, (y2 - y1) / length
        self.line(
            x1, y1, x2 - dx * head * 0.8, y2 - dy * head * 0.8, colour, width=width, dash=dash
        )
        wide = head * 0.45
        self.polygon(
            (
                (x2, y2),
                (x2 - dx * head - dy * wide, y2 - dy * head + dx * wide),
                (x2 - dx * head + dy * wide, y2 - dy * head - dx * wide),
            ),
            colour,
        )

    def cross(self, x: float, y: float, colour: str, size: float = 5) -> None:
        """Draw a cross."""
        self.line(x - size, y - size, x + size, y + size, colour, width=2)
        self.line(x - size, y + size, x + size, y - size, colour, width=2)

    def below(self, other: "Picture") -> None:
        """Put the shapes of another picture under those of this one."""
        self._parts[:0] = other._parts

    def pattern(self, name: str, colour: str, kind: str) -> str:
        """Define a fill that is known by its lines too, and return what `box` takes for it."""
        # The same name means the same pattern in every picture of a page.
        key = f"rsock-{name}-{zlib.crc32(f'{colour}{kind}'.encode()):08x}"
        marks = {
            "solid": "",
            "rising": '<path d="M-2,2 l4,-4 M0,8 l8,-8 M6,10 l4,-4"',
            "falling": '<path d="M-2,6 l4,4 M0,0 l8,8 M6,-2 l4,4"',
            "cross": '<path d="M0,0 l8,8 M0,8 l8,-8"',
            "dots": '<path d="M2,2 h1.6 M6,6 h1.6"',
            "columns": '<path d="M2,0 v8 M6,0 v8"',
            "rows": '<path d="M0,2 h8 M0,6 h8"',
        }[kind]
        mark = f"{marks}{_paint('', 'card', 1.4)}/>" if marks else ""
        self._defs.append(
            f'<pattern id="{key}" width="8" height="8" patternUnits="userSpaceOnUse">'
            f'<rect width="8" height="8"{_paint(colour)}/>{mark}</pattern>'
        )
        return f"url(#{key})"

    def heading(self, title: str, below: Sequence[str] = ()) -> float:
        """Write the title and what is said below it; return where the drawing begins."""
        y = MARGIN + 14.0
        shown = fit(title, WIDTH - 2 * MARGIN, 15, bold=True, middle=True)
        self.text(MARGIN, y, shown, size=15, bold=True)
        y += 20
        for text in below:
            for line in wrapped(text, WIDTH - 2 * MARGIN, 12):
                self.text(MARGIN, y, line, "muted", size=12)
                y += 17
        return y

    def notes(self, y: float, notes: Sequence[str]) -> float:
        """Write notes below the drawing; return the height of the picture."""
        for note in notes:
            y = self.lines(MARGIN, y, wrapped(note, WIDTH - 2 * MARGIN, 11))
        return y

    def svg(self, title: str, description: str, height: float) -> str:
        """Return the document."""
        title, description = html.escape(printable(title)), html.escape(printable(description))
        size = f'width="{WIDTH}" height="{_n(height)}" viewBox="0 0 {WIDTH} {_n(height)}"'
        defs = "".join(dict.fromkeys(self._defs))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="rsock" {size} role="img"'
            f' aria-label="{title}" style="max-width:100%;height:auto" font-family="{_SANS}">'
            f"<title>{title}</title><desc>{description}</desc><style>{_style()}</style>"
            + (f"<defs>{defs}</defs>" if defs else "")
            + f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{_n(height - 1)}" rx="8"'
            f"{_paint('card', 'grid', 1)}/>" + "".join(self._parts) + "</svg>"
        )


def _paint(fill: str = "", stroke: str = "", width: float = 0, dash: str = "") -> str:
    """The colours of a shape: as attributes, and as classes, which follow the page's scheme."""
    classes = [f"f-{fill}"] * (fill in COLOURS) + [f"s-{stroke}"] * bool(stroke)
    text = f' class="{" ".join(classes)}"' if classes else ""
    text += f' fill="{COLOURS[fill][0] if fill in COLOURS else fill or "none"}"'
    if stroke:
        text += f' stroke="{COLOURS[stroke][0]}" stroke-width="{_n(width)}"'
        text += f' stroke-dasharray="{dash}"' if dash else ""
    return text

"""A canvas of characters: drawings for a terminal.

Every text is made printable. Nothing here may write beyond the width of the canvas.
"""

import textwrap
from collections.abc import Iterable
from typing import Final

from ..._printable import printable

__all__ = ["COLUMNS", "Canvas", "joined", "short"]

# The widest drawing. Narrower than a notebook's output, and than most terminals.
COLUMNS: Final = 100


def short(text: str, most: int, *, middle: bool = False) -> str:
    """Return `text` cut to a number of characters; `middle` leaves out its middle."""
    text = printable(text[: most * 4 + 500])
    if len(text) <= most:
        return text
    if not middle:
        return text[: most - 1] + "…"
    head = (most - 1) // 2
    return text[:head] + "…" + text[len(text) - (most - 1 - head) :]


def joined(lines: Iterable[str]) -> str:
    """Return lines as one text; a sentence that is too long is wrapped, and a row is cut."""
    shown: list[str] = []
    for line in lines:
        if line.startswith(" "):
            shown.append(short(line, COLUMNS))
        else:
            shown += textwrap.wrap(short(line, 4 * COLUMNS, middle=True), COLUMNS) or [""]
    return "\n".join(shown).rstrip()


class Canvas:
    """Lines of characters, which grow as they are written to."""

    def __init__(self) -> None:
        self._rows: list[list[str]] = []

    def put(self, row: int, column: int, text: str) -> None:
        """Write text from a place on."""
        while len(self._rows) <= row:
            self._rows.append([])
        line = self._rows[row]
        text = printable(text)[: max(0, COLUMNS - column)]
        line.extend(" " * (column + len(text) - len(line)))
        line[column : column + len(text)] = text

    def centre(self, row: int, column: int, text: str) -> None:
        """Write text with its middle at a place."""
        self.put(row, max(0, column - len(text) // 2), text)

    @property
    def rows(self) -> int:
        """How many lines there are."""
        return len(self._rows)

    def __str__(self) -> str:
        return "\n".join("".join(line).rstrip() for line in self._rows)

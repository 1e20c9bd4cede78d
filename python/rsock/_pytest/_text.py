"""Bytes as the report of a test shows them. Owns their bounds; must never pass on a
byte that a terminal would act on.
"""

from collections.abc import Iterator
from typing import Final

from .._printable import hex_rows, printable

__all__ = ["dump", "one_line", "shown"]

# Bytes that a line shows of a message.
_SHOWN: Final = 40
# Characters of the text of an error.
_TEXT: Final = 160


def shown(data: bytes, total: int | None = None) -> str:
    """Return bytes as a literal, the first of them; `total` is how many there were."""
    total = len(data) if total is None else total
    if len(data) <= _SHOWN and total <= len(data):
        return repr(data)
    return f"{data[:_SHOWN]!r}… ({total:,} bytes)"


def one_line(text: str) -> str:
    """Return the first line of a text, escaped and of bounded length."""
    lines = text.strip().splitlines() or [""]
    line = printable(lines[0])
    return line if len(line) <= _TEXT else f"{line[:_TEXT]}…"


def dump(data: bytes, start: int) -> Iterator[str]:
    """Yield lines of bytes in hex and as text; `start` is the offset of the first one."""
    for at, row in hex_rows(data):
        yield f"  {start + at:6}  {row}"

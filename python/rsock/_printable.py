"""Text that peers or errors chose, on its way out: to a log, a terminal, a page or a table.

Every such way leads through this file, which escapes what a terminal would act on and what would
begin a line of its own. It must never change text that can be printed.
"""

import contextlib
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Protocol

__all__ = ["hex_rows", "printable", "printable_lines", "spreadsheet_safe", "tame"]

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

# How the traceback module introduces one exception after another.
_BETWEEN: Final = "\n"
# What a line of a traceback begins with if it is not the text of an exception: the indentation of
# a frame, or the border of an exception group.
_INDENTED: Final = (" ", "\t", "|", "+")
# What makes a spreadsheet take a cell for a formula, or for a command (CWE-1236).
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
# Bytes in a row of hexadecimal digits.
_ROW: Final = 16


def printable(text: str) -> str:
    """Return `text` on one line, with control characters escaped as in a str literal.

    Escaped are all characters that are not printable: control characters, ends of lines,
    characters that change the direction of writing, and bytes that are not valid text.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_lines(text: str) -> str:
    """Return `text` with control characters escaped; ends of lines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" else _shown(char) for char in text)


def hex_rows(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield rows of bytes: the offset of each, and its bytes in hex and as ASCII."""
    for start in range(0, len(data), _ROW):
        row = data[start : start + _ROW]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield start, f"{row.hex(' '):<{3 * _ROW}} {text}"


def spreadsheet_safe(text: str) -> str:
    """Return a cell of CSV that no spreadsheet takes for a formula.

    A cell that begins like one gets an apostrophe before it, which a spreadsheet takes for the mark
    of a text. Control characters are escaped, except ends of lines, which CSV quotes (RFC 4180).
    """
    text = printable_lines(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


class _LogRecord(Protocol):
    """The parts of a `logging.LogRecord` that are read and written here."""

    msg: Any
    args: Any
    exc_info: Any
    exc_text: str | None

    def getMessage(self) -> str: ...  # noqa: N802


def tame(record: _LogRecord) -> bool:
    """Escape the message and the traceback of a log record; a filter of the loggers of rsock.

    A record that needs no escaping is left as it is, with its arguments. Otherwise the traceback is
    put where `logging.Formatter` keeps it for further handlers.
    """
    # An argument or an exception that cannot be shown is left to the handlers of the log.
    with contextlib.suppress(Exception):
        message = record.getMessage()
        if not message.isprintable():
            record.msg, record.args = printable(message), None
        if record.exc_info and record.exc_text is None and record.exc_info[1] is not None:
            plain, escaped = _traceback(record.exc_info)
            if escaped != plain:
                record.exc_text = escaped
    return True


def _traceback(exc_info: _ExcInfo) -> tuple[str, str]:
    """A traceback as Python writes it; and escaped, without lines that begin at the margin."""
    parts = traceback.format_exception(*exc_info)
    plain = "".join(parts).removesuffix("\n")
    return plain, "".join(map(_part, parts)).removesuffix("\n")


def _part(text: str) -> str:
    """One exception, frame or note; further lines of an exception's text are indented."""
    first, end, rest = printable_lines(text).partition("\n")
    if not rest or text.startswith(_BETWEEN):
        return first + end + rest
    lines = (
        line if not line.strip() or line.startswith(_INDENTED) else f"    {line}"
        for line in rest.splitlines(keepends=True)
    )
    return first + end + "".join(lines)


def _shown(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        # os.fsdecode writes a byte that is not valid text as a surrogate.
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char if char.isprintable() else repr(char)[1:-1]

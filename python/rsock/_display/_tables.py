"""Tables, drawn as plain text or as HTML.

A table knows only strings: what the rows mean is in `_views.py`. Every text is cut to a bounded
width and escaped; nothing may get into a table in another way.
"""

import html
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from .._printable import printable

__all__ = ["Rows", "cell", "folded", "html_table", "text_table"]

Rows = list[tuple[str, ...]]

# Long enough for any address and port; error texts and Unix paths are cut.
_MAX_CELL: Final = 64
# A value on a row of its own, which is wrapped, and its lines: a report has several.
_MAX_VALUE: Final = 800
_MAX_LINES: Final = 12


def cell(text: str, most: int = _MAX_CELL) -> str:
    """Return `text` on one line and of bounded width."""
    # Cut first: a text may have megabytes.
    text = printable(text[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"


def text_table(
    title: str,
    columns: Sequence[str],
    rows: Rows,
    notes: Sequence[str] = (),
    right: Collection[str] = (),
) -> str:
    """Return a table as lines of text; the columns named in `right` are flush right."""
    lines = [columns, *([cell(text) for text in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Iterable[str]) -> str:
        padded = (
            text.rjust(width) if column in right else text.ljust(width)
            for column, text, width in zip(columns, cells, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    # A table without rows is its title alone.
    body = map(line, lines) if rows else ()
    return "\n".join((cell(title, _MAX_VALUE), *body, *map(printable, notes)))


# Styles are on the elements, where neither a notebook's style sheet nor a sanitizer that drops
# <style> undoes them. Text keeps the page's own colour and lines are half-transparent grey, so
# that the table suits a light page and a dark one.
_TABLE: Final = "border-collapse:collapse;white-space:nowrap;font-variant-numeric:tabular-nums"
_CAPTION: Final = "caption-side:top;text-align:left;color:inherit;font-weight:600;padding:.2em .8em"
_CELL: Final = "padding:.2em .8em;border-bottom:1px solid #8886"
# The value beside a heading may be long.
_VALUE: Final = "white-space:normal;overflow-wrap:anywhere"
# So may the last column, which is wrapped before the table becomes wider than the page.
_LAST: Final = f"{_VALUE};min-width:9em"
# A note is as wide as the rows above it, and makes no column wider.
_NOTE: Final = f"width:0;min-width:100%;{_VALUE}"
# A table that is wider than the page is scrolled by itself.
_SCROLLED: Final = "max-width:100%;overflow-x:auto"


def html_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[tuple[str, ...]],
    notes: Sequence[str] = (),
    right: Collection[str] = (),
) -> str:
    """Return one table; without columns, the first cell of a row is its heading."""
    head = "".join(_html_cell("th", column, column in right, scope="col") for column in columns)
    body = "".join(f"<tr>{''.join(_html_row(columns, row, right))}</tr>" for row in rows)
    wide = f'<td colspan="{len(columns) or 2}" style="{_CELL};text-align:left">'
    note = f'<div style="{_NOTE}">'
    foot = "".join(f"<tr>{wide}{note}{_html(text)}</div></td></tr>" for text in notes)
    return (
        f'<div style="{_SCROLLED}"><table style="{_TABLE}">'
        f'<caption style="{_CAPTION}">{_html(cell(title, _MAX_VALUE))}</caption>'
        + (f"<thead><tr>{head}</tr></thead>" if head else "")
        + f"<tbody>{body}</tbody>"
        + (f"<tfoot>{foot}</tfoot>" if foot else "")
        + "</table></div>"
    )


def folded(summary: str, content: str) -> str:
    """Return HTML that a click on `summary` shows; `content` is HTML."""
    return f'<details><summary style="cursor:pointer">{_html(summary)}</summary>{content}</details>'


def _html_row(
    columns: Sequence[str], row: tuple[str, ...], right: Collection[str]
) -> Iterable[str]:
    if columns:
        last = len(columns) - 1
        return (
            _html_cell(
                "td",
                text,
                column in right,
                style=_LAST if at == last and column not in right else "",
            )
            for at, (column, text) in enumerate(zip(columns, row, strict=True))
        )
    heading, *cells = row
    return (_html_cell("th", heading, scope="row"), *map(_html_value, cells))


def _html_cell(
    tag: str,
    text: str,
    right: bool = False,
    *,
    scope: str = "",
    style: str = "",
) -> str:
    style = f"{_CELL};text-align:{'right' if right else 'left'}{';' * bool(style)}{style}"
    if tag == "th":
        style += ";font-weight:normal;opacity:.8"
    attribute = f' scope="{scope}"' if scope else ""
    return f'<{tag}{attribute} style="{style}">{_html(cell(text))}</{tag}>'


def _html_value(text: str) -> str:
    """The value beside a heading, with its lines."""
    lines = text[:_MAX_VALUE].split("\n", _MAX_LINES)
    cut = len(text) > _MAX_VALUE or len(lines) > _MAX_LINES
    shown = "<br>".join(map(_html, lines[:_MAX_LINES])) + "…" * cut
    return f'<td style="{_CELL};text-align:left;{_VALUE}">{shown}</td>'


def _html(text: str) -> str:
    return html.escape(printable(text))

"""The line references in CONTRIBUTING.md.

Owns the form of such a reference. Must never guess: a reference whose text is not found is an
error. Run as a program it writes the current line numbers into the page.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
# `path:line` (`text of that line`)
REFERENCE = re.compile(r"`(?P<path>[\w./]+):(?P<line>\d+)` \(`(?P<what>[^`]+)`\)")


def line_of(path: str, what: str) -> int:
    """The number of the first line of a project file that contains this text."""
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        if what in line:
            return number
    raise LookupError(f"{path} has no line with {what!r}")


def brought_up_to_date(text: str) -> str:
    """The page's text with every reference at its current line."""

    def renew(found: re.Match[str]) -> str:
        path, what = found["path"], found["what"]
        return f"`{path}:{line_of(path, what)}` (`{what}`)"

    return REFERENCE.sub(renew, text)


if __name__ == "__main__":
    PAGE.write_text(brought_up_to_date(PAGE.read_text()))

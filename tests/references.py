"""The lines that CONTRIBUTING.md points at. Owns the form of such a reference; must never guess:
what is named has to be found.

Run as a program it writes the present line numbers into the page.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
# `path:line` (`what stands there`)
REFERENCE = re.compile(r"`(?P<path>[\w./]+):(?P<line>\d+)` \(`(?P<what>[^`]+)`\)")


def line_of(path: str, what: str) -> int:
    """The first line of a file of the project that holds these words."""
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        if what in line:
            return number
    raise LookupError(f"{path} has no line with {what!r}")


def brought_up_to_date(text: str) -> str:
    """The page's text with every reference at its present line."""

    def renew(found: re.Match[str]) -> str:
        path, what = found["path"], found["what"]
        return f"`{path}:{line_of(path, what)}` (`{what}`)"

    return REFERENCE.sub(renew, text)


if __name__ == "__main__":
    PAGE.write_text(brought_up_to_date(PAGE.read_text()))

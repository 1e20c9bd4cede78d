"""An SVG document, read and judged: what it refers to, and where its texts are.

Must never use the code that draws.
"""

from __future__ import annotations

import re
import unicodedata
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from rsock import Drawing

SVG = "{http://www.w3.org/2000/svg}"
# Of the font's size: the advance of a fixed font, and the mean of DejaVu Sans, which is wide.
MONO, SANS = 0.6, 0.56


@dataclass(frozen=True)
class Box:
    """Where a text is."""

    text: str
    left: float
    right: float
    top: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        # A pixel of touching is none.
        return (
            min(self.right, other.right) - max(self.left, other.left) > 1
            and min(self.bottom, other.bottom) - max(self.top, other.top) > 1
        )


def parsed(drawing: Drawing) -> ET.Element:
    """The document, which is well-formed, described, and refers to nothing elsewhere."""
    # With the colon: the random name of a directory may have the letters.
    assert not re.search("https?:|://", drawing.svg.replace("http://www.w3.org/2000/svg", ""))
    assert "url(" not in drawing.svg.replace("url(#", "")
    root = ET.fromstring(drawing.svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") == drawing.title
    assert [root.findtext(f"{SVG}{name}") for name in ("title", "desc")] == [
        drawing.title,
        drawing.description,
    ]
    known = {"svg", "title", "desc", "style", "defs", "pattern", "rect", "line", "path", "polygon"}
    for each in root.iter():
        assert each.tag.removeprefix(SVG) in known | {"circle", "text"}
        assert not [name for name in each.attrib if name.startswith("on") or "href" in name]
    return root


def texts(root: ET.Element) -> list[Box]:
    """The boxes of all texts."""
    found = []
    for each in root.iter(f"{SVG}text"):
        text, size = each.text or "", float(each.get("font-size", "0"))
        cells = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
        wide = cells * size * (MONO if each.get("font-family") else SANS)
        x, y = float(each.get("x", "0")), float(each.get("y", "0"))
        left = (
            x - wide * {"start": 0.0, "middle": 0.5, "end": 1.0}[each.get("text-anchor", "start")]
        )
        found.append(Box(text, left, left + wide, y - size * 0.75, y + size * 0.2))
    return found


def readable(drawing: Drawing) -> list[str]:
    """Check a drawing; return its texts."""
    root = parsed(drawing)
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    assert width == 700
    boxes = texts(root)
    for each in boxes:
        assert each.left >= 0, each
        assert each.right <= width, each
        assert each.top >= 0, each
        assert each.bottom <= height, each
        assert each.bottom - each.top >= 9, each
    for at, one in enumerate(boxes):
        for other in boxes[at + 1 :]:
            assert not one.overlaps(other), (one, other)
    # The text form fits a terminal of 100 columns, and has no empty end.
    assert all(len(line) <= 100 for line in drawing.text.splitlines()), drawing.text
    assert drawing.text == drawing.text.rstrip()
    return [each.text for each in boxes]

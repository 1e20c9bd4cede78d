"""The pictures of the docs: drawn from real connections, and drawn again by a command."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from support.project import ROOT

IMAGES = ROOT / "docs" / "images"
SVG = "{http://www.w3.org/2000/svg}"


def words(picture: Path) -> list[str]:
    """The words of a picture, without what differs from run to run: numbers and units of time."""
    root = ET.fromstring(picture.read_text(encoding="utf-8"))
    texts = (
        re.sub(r"\d[\d,.]*( (µs|ms|s|B|KiB)\b)?", "0", each.text or "") for each in root.iter()
    )
    # Whether a pause has a name depends on its length.
    return sorted(
        {text for text in texts if re.search("[a-zA-Z]{2}", text) and "later" not in text}
    )


def test_the_pictures_of_the_guide_can_be_drawn_again(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(IMAGES / "drawings.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    drawn = sorted(tmp_path.glob("*.svg"))
    page = (ROOT / "docs" / "guide" / "seeing.md").read_text()
    shown = re.findall(r"\]\(\.\./images/(\w+\.svg)\)", page)
    assert sorted(shown) == [picture.name for picture in drawn]
    for picture in drawn:
        kept = words(IMAGES / picture.name)
        # Of a description, the sentences that name addresses and counts are compared too.
        assert words(picture) == kept, (
            f"{picture.name}: run .venv/bin/python docs/images/drawings.py"
        )


def test_pictures_have_a_text_for_those_who_do_not_see_them() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for text, name in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text()):
            assert len(text) >= 20, (page, name)
            assert name.startswith("http") or (page.parent / name).is_file(), (page, name)

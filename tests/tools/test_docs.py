"""Every Python block of README.md and of the docs runs, each in its own interpreter.

A block that begins with ```python no-run is for reading only.
"""

from __future__ import annotations

import re

import pytest
import references
from support import run_script
from support.pages import BLOCK
from support.project import ROOT, TESTS


def blocks() -> list[tuple[str, str]]:
    """Name (file and line) and code of every block that must run."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        if not page.exists():
            continue
        text = page.read_text()
        for block in BLOCK.finditer(text):
            if "no-run" not in block["note"]:
                line = text.count("\n", 0, block.start()) + 1
                found.append((f"{page.relative_to(ROOT)}:{line}", block["code"]))
    return found


BLOCKS = blocks()


@pytest.mark.parametrize("code", [code for _, code in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_a_block_of_the_docs_runs(code: str) -> None:
    done = run_script(code, options=("-W", "error"))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_readme_shows_how_it_is_used() -> None:
    assert any(name.startswith("README.md:") for name, _ in BLOCKS)


def test_contributing_points_at_the_lines_it_names() -> None:
    text = references.PAGE.read_text()
    assert len(references.REFERENCE.findall(text)) >= 10
    assert text == references.brought_up_to_date(text), "run .venv/bin/python tests/references.py"


def test_the_page_of_the_notes_names_tests_that_there_are() -> None:
    text = (ROOT / "docs" / "guide" / "notes.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert len(named) >= 24
    found = {path.name: path for path in TESTS.glob("*/test_*.py")}
    for file, name in named:
        assert f"def {name}(" in found[file].read_text(), f"{file}::{name}"


def test_the_page_on_the_kinds_of_faults_names_tests_that_exist() -> None:
    page = (ROOT / "docs/internals/faults.md").read_text()
    named = set(re.findall(r"`([a-z_]+_[a-z_]+_[a-z_]+)`", page.partition("## What the tests")[2]))
    sources = [ROOT / "tests/net/faults.rs", ROOT / "tests/faults/test_kinds.py"]
    text = "".join(source.read_text() for source in sources)
    assert len(named) > 10
    assert {name for name in named if f"{name}(" not in text} == set()

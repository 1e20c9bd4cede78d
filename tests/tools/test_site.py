"""The guide as a web site: every page and every public name has its place in it."""

from __future__ import annotations

import re

from support.project import ROOT

import rsock
from rsock import faults

DOCS = ROOT / "docs"


def test_every_page_is_in_the_list_of_the_site() -> None:
    listed: set[str] = set()
    for block in re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.S):
        listed.update(line for line in block.splitlines() if line and not line.startswith(":"))
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")}
    notebooks = ROOT / "notebooks"
    tour = {
        f"tour/{path.relative_to(notebooks).with_suffix('')}" for path in notebooks.rglob("*.ipynb")
    }
    assert listed == (pages - {"index"}) | tour


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    named = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)$", text, re.M))
    public = {f"rsock.{name}" for name in rsock.__all__ if name not in ("Service", "__version__")}
    public |= {f"rsock.faults.{name}" for name in faults.__all__}
    assert named == public, "docs/reference/ has a page for each kind of name"


def test_links_that_leave_the_site_lead_to_files() -> None:
    """Sphinx checks those between the pages."""
    links = [
        (page, link)
        for page in DOCS.rglob("*.md")
        for link in re.findall(r"\]\((\.\./[^)#\s]+)", page.read_text())
    ]
    assert len(links) > 5
    assert [(page, link) for page, link in links if not (page.parent / link).exists()] == []

"""Every display and drawing in a plain page, which follows the colour scheme of the system."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support import gallery
from support.contrast import low_contrast

# What a page needs to follow the scheme.
HEAD = """<meta name="color-scheme" content="light dark">
<style>
  html { background: Canvas; }
  body { font: 14px system-ui, sans-serif; margin: 16px; }
  h2 { font-size: 14px; }
</style>"""

# Parts that reach out of the page, and not only out of a place that scrolls by itself.
TOO_WIDE = """
() => [...document.querySelectorAll("section")]
  .filter((each) => each.scrollWidth > each.clientWidth)
  .map((each) => each.id)
"""


@pytest.fixture(scope="module")
def page(browser: Any, displays: dict[str, str], drawings: dict[str, str]) -> Iterator[Any]:
    with browser.new_page(viewport={"width": 732, "height": 1_000}) as page:
        page.set_content(gallery.page({**drawings, **displays}, HEAD))
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    assert low_contrast(page) == []


def test_displays_and_drawings_fit_700_pixels(
    page: Any, displays: dict[str, str], drawings: dict[str, str], shoot: Any
) -> None:
    assert page.locator("section").count() == len(displays) + len(drawings)
    assert page.evaluate(TOO_WIDE) == []
    for drawing in page.locator("svg.rsock").all():
        box = drawing.bounding_box()
        assert box["width"] == 700
        assert box["height"] > 100
    for name in drawings:
        shoot(page, f"drawing-{name}", f"#{name} svg")
    for name in displays:
        shoot(page, f"display-{name}", f"#{name}")


def test_nothing_of_a_peer_is_markup(page: Any) -> None:
    assert page.locator("section script, section img, section [onerror]").count() == 0
    assert page.get_by_text("<script>alert(1)</script>").count() > 1

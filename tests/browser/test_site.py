"""The site in a browser: on a phone and on a desk, in both colour schemes, by keyboard alone."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1_400, "height": 900}

# The start, a page with a drawing, and one of the reference.
THREE = ("index.html", "guide/seeing.html", "reference/server.html")

# Elements that reach out of the page to the right, and are not in a part that scrolls by itself.
TOO_WIDE = """
() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const scrolls = (element) =>
    element && element !== document.body &&
    (["auto", "scroll", "hidden"].includes(getComputedStyle(element).overflowX) ||
     scrolls(element.parentElement));
  return [...document.querySelectorAll("article *")]
    .filter((each) => each.getBoundingClientRect().right > width + 1)
    .filter((each) => !scrolls(each.parentElement))
    .map((each) => `${each.tagName} ${each.className} ${each.textContent.slice(0, 60)}`)
    .concat(`the page: ${document.documentElement.scrollWidth} of ${width}`);
}
"""


@pytest.fixture(params=[PHONE, DESK], ids=["phone", "desk"])
def page(request: pytest.FixtureRequest, browser: Any, site: Any) -> Iterator[Any]:
    """A page of the site. It reports no error to the console, and finds all that it asks for."""
    errors: list[str] = []

    def told(message: Any) -> None:
        if message.type == "error":
            errors.append(message.text)

    def failed(request: Any) -> None:
        # The next page ends the requests of the one before.
        if "ERR_ABORTED" not in str(request.failure):
            errors.append(f"{request.failure} {request.url}")

    def answered(response: Any) -> None:
        if response.status >= 400:
            errors.append(f"{response.status} {response.url}")

    with browser.new_context(viewport=request.param, base_url=site.url) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("requestfailed", failed)
        page.on("console", told)
        page.on("response", answered)
        yield page
    assert errors == []


def test_no_page_is_wider_than_the_screen(page: Any, site: Any, shoot: Any) -> None:
    wide = {}
    pages = sorted(site.folder.rglob("*.html"))
    assert len(pages) > 40
    for file in pages:
        name = str(file.relative_to(site.folder))
        if name.startswith(("_", "tour/ko/")):
            continue
        page.goto(f"/{name}")
        if found := page.evaluate(TOO_WIDE):
            wide[name] = found[:5]
        if name in THREE:
            label = f"site-{name.removesuffix('.html').replace('/', '-')}"
            shoot(page, label, widths=(page.viewport_size["width"],))
    assert wide == {}


def test_the_search_finds_a_word(page: Any) -> None:
    page.goto("/search.html?q=timeline")
    first = page.locator("#search-results li a").first
    first.wait_for()
    first.click()
    page.wait_for_load_state()
    assert "timeline" in page.locator("article").inner_text().lower()


def test_the_first_tab_leads_to_the_content(page: Any) -> None:
    page.goto("/guide/seeing.html")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className").startswith("skip-to-content")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    inside = "() => document.querySelector('article').contains(document.activeElement)"
    page.wait_for_function(inside)


def test_a_page_can_be_chosen_by_keyboard(page: Any) -> None:
    """On a phone as well, where the list of pages is behind a button."""
    page.goto("/index.html")
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "() => document.activeElement.ariaLabel || document.activeElement.textContent.trim()"
        )
        seen.add(name)
        if name == "Start":
            break
    assert "Start" in seen, seen
    page.keyboard.press("Enter")
    page.wait_for_url("**/start.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", THREE)
def test_axe_finds_no_serious_fault(name: str, scheme: str, page: Any) -> None:
    axe: Any = importlib.import_module("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme)
    page.goto(f"/{name}")
    found = axe.run(page).response
    serious = [
        (fault["id"], fault["impact"], [node["target"] for node in fault["nodes"]][:5])
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert serious == []
    # It has looked at the page.
    assert len(found["passes"]) > 10

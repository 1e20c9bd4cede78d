"""Displays, drawings and the live view in marimo, whose theme is not that of the system."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import dial, read_to_end, says_back
from support.contrast import low_contrast
from support.live_view import LiveView, echo_time
from support.marimo import Marimo

# The theme is set by the notebook itself.
NOTEBOOK = """
# /// script
# [tool.marimo.display]
# theme = "{theme}"
# ///
import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo
    import rsock

    return mo, rsock


@app.cell
def _(rsock):
    server = rsock.Server(name="live", trace=True).start()
    with server.client(timeout=10) as client:
        client.sendall(b"hello")
        client.recv_exactly(5)
    [record] = server.ledger.wait(open=0, closed=1)
    server
    return record, server


@app.cell
def _(mo, server):
    {watch}
    return


@app.cell
def _(record):
    record
    return


@app.cell
def _(record):
    record.ladder()
    return


@app.cell
def _(server):
    server.ledger
    return
"""

# Each theme on a system of the other scheme; a widget as it is, and as an element of marimo's.
VIEWS = {"light": "server.watch()", "dark": "mo.ui.anywidget(server.watch())"}
OTHER = {"light": "dark", "dark": "light"}


@pytest.fixture(scope="module")
def marimo() -> Iterator[Marimo]:
    if importlib.util.find_spec("marimo") is None:
        pytest.skip("there is no marimo: make browser-test installs it")
    notebooks = {
        f"{theme}.py": NOTEBOOK.format(theme=theme, watch=watch) for theme, watch in VIEWS.items()
    }
    with tempfile.TemporaryDirectory(prefix="rsock-") as root:
        with Marimo(Path(root), notebooks) as marimo:
            yield marimo


@pytest.fixture(scope="module", params=VIEWS)
def theme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def only(theme: str) -> pytest.MarkDecorator:
    """For what takes seconds and has nothing to do with colours."""
    return pytest.mark.parametrize("theme", [theme], scope="module")


@pytest.fixture(scope="module")
def live(browser: Any, marimo: Marimo, theme: str) -> Iterator[LiveView]:
    with browser.new_context(
        viewport={"width": 1_400, "height": 1_000}, color_scheme=OTHER[theme]
    ) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{marimo.origin}/?file={theme}.py")
        caption = page.locator("table caption", has_text="Server 127.0.0.1:")
        # What is hidden has no inner text, and marimo shows an output a moment after it has come.
        caption.wait_for()
        port = int(caption.inner_text().rpartition(":")[2])
        live = LiveView(page, ("127.0.0.1", port))
        page.on("request", lambda request: live.sent(request.post_data))
        yield live


def higher(page: Any) -> None:
    page.set_viewport_size({**page.viewport_size, "height": 1_600})


def test_displays_and_drawings_have_the_colours_of_the_theme(
    live: LiveView, theme: str, shoot: Any
) -> None:
    page = live.page
    for text in ("Record 1", "Ledger: 1 accepted"):
        page.locator("table caption", has_text=text).wait_for()
    drawing = page.locator("svg.rsock")
    box = drawing.bounding_box()
    assert box["width"] > 500
    assert box["height"] > 200
    assert live.view.get_attribute("data-scheme") == theme
    card = drawing.locator("rect").first.evaluate("card => getComputedStyle(card).fill")
    assert card == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[theme]
    with dial(live.address) as peer:
        assert says_back(peer)
        live.view.get_by_role("cell", name=f"127.0.0.1:{peer.getsockname()[1]}").wait_for()
        assert low_contrast(page, within=".output") == []
        shoot(page, f"marimo-{theme}", schemes=(OTHER[theme],), prepare=lambda: higher(page))


def test_a_fault_added_by_its_button_delays_the_echo_until_it_is_removed(live: LiveView) -> None:
    with dial(live.address) as peer:
        assert min(echo_time(peer) for _ in range(10)) < 0.2
        live.add_fault("latency:0.2")
        live.view.locator("code", has_text="latency:0.2").wait_for()
        assert echo_time(peer) >= 0.2
        live.click("Remove the fault latency:0.2")
        live.view.locator("code").wait_for(state="detached")
        assert min(echo_time(peer) for _ in range(10)) < 0.2


def test_the_button_of_a_connection_closes_it_and_no_other(live: LiveView) -> None:
    with dial(live.address) as one, dial(live.address) as two:
        assert says_back(one)
        assert says_back(two)
        row = live.view.get_by_role("row", name=f"127.0.0.1:{one.getsockname()[1]}")
        row.get_by_role("button", name="Close connection").click()
        assert read_to_end(one) == b""
        assert says_back(two)


@only("dark")
def test_a_view_asks_only_while_it_is_seen(live: LiveView) -> None:
    live.asks_again()
    live.page.locator("table caption", has_text="Ledger: ").evaluate(
        "last => { last.style.paddingTop = '3000px'; last.scrollIntoView(false); }"
    )
    live.asks_no_more()
    live.view.scroll_into_view_if_needed()
    live.asks_again()


@only("light")
def test_a_view_does_not_ask_in_a_page_that_is_hidden(live: LiveView) -> None:
    """No page of Chromium without a screen is ever hidden, so this one only says that it is."""
    live.asks_again()
    live.page.evaluate(
        "() => Object.defineProperty(document, 'hidden', { value: true, configurable: true })"
    )
    live.asks_no_more()
    live.page.evaluate("() => delete document.hidden")
    live.asks_again()


def test_drain_stops_the_server(live: LiveView) -> None:
    live.drains()

"""`server.watch()` in JupyterLab: its buttons do what they say, to real connections."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support import dial, read_to_end, refused, says_back, wait_until
from support.lab import Lab

CELLS = (
    "import rsock\nserver = rsock.Server(name='live').start()\nprint(server.port)",
    "server.watch()",
)

# Opens the notebook, runs its cells, and returns what the first one printed.
RUN = """
async (path) => {
  const app = window.jupyterapp;
  const panel = await app.commands.execute("docmanager:open", { path, factory: "Notebook" });
  await panel.context.ready;
  await panel.sessionContext.ready;
  app.shell.activateById(panel.id);
  await app.commands.execute("notebook:run-all-cells");
  return panel.content.model.cells.get(0).outputs.toJSON()[0].text;
}
"""

QUESTION = b'"act":"ask"'


class Live:
    """A live view in a page, the address of its server, and the questions that it asked."""

    def __init__(self, page: Any, lab: Lab) -> None:
        self.page = page
        self.questions = 0
        page.on("websocket", lambda socket: socket.on("framesent", self._sent))
        port = page.evaluate(RUN, lab.write("live.ipynb", CELLS))
        self.address = ("127.0.0.1", int("".join(port)))
        self.view = page.locator(".rsock-watch")
        self.view.get_by_text("serving", exact=False).wait_for()

    def _sent(self, frame: Any) -> None:
        data = frame if isinstance(frame, bytes) else str(frame).encode()
        self.questions += QUESTION in data.replace(b" ", b"")

    def click(self, name: str) -> None:
        self.view.get_by_role("button", name=name, exact=True).click()

    def add_fault(self, text: str) -> None:
        self.view.get_by_label("A fault, such as latency:0.2").fill(text)
        self.click("add fault")

    def asks_again(self) -> None:
        """Wait for another question. (Playwright hears of it while it waits for the page.)"""
        before = self.questions
        wait_until(lambda: self.page.wait_for_timeout(50) or self.questions > before)


@pytest.fixture
def live(lab_page: Any, lab: Lab) -> Live:
    return Live(lab_page, lab)


def echo_time(peer: Any) -> float:
    before = time.monotonic()
    assert says_back(peer)
    return time.monotonic() - before


def test_a_fault_added_by_its_button_delays_the_echo_until_it_is_removed(
    live: Live, shoot: Any
) -> None:
    with dial(live.address) as peer:
        assert min(echo_time(peer) for _ in range(10)) < 0.2
        live.add_fault("latency:0.2")
        live.view.locator("code", has_text="latency:0.2").wait_for()
        assert echo_time(peer) >= 0.2
        live.view.get_by_role("cell", name=f"127.0.0.1:{peer.getsockname()[1]}").wait_for()
        shoot(live.page, "live-view", ".rsock-watch")
        shoot(live.page, "live-view-page")
        live.click("Remove the fault latency:0.2")
        live.view.locator("code").wait_for(state="detached")
        assert min(echo_time(peer) for _ in range(10)) < 0.2


def test_the_button_of_a_connection_closes_it_and_no_other(live: Live) -> None:
    with dial(live.address) as one, dial(live.address) as two:
        assert says_back(one)
        assert says_back(two)
        live.click("Close connection 1")
        assert read_to_end(one) == b""
        live.view.get_by_text("ended last: 1:").wait_for()
        assert says_back(two)


def test_an_error_is_shown_in_the_view(live: Live) -> None:
    live.add_fault("nonsense:1")
    live.view.get_by_role("alert").get_by_text("no kind 'nonsense'").wait_for()


def test_drain_stops_the_server(live: Live) -> None:
    with dial(live.address) as peer:
        assert says_back(peer)
        live.click("Drain: accept no more, and stop")
        assert read_to_end(peer) == b""
    live.view.get_by_text("stopped", exact=False).first.wait_for()
    assert refused(live.address)


def test_a_view_asks_only_while_it_is_seen(live: Live) -> None:
    live.asks_again()
    page = live.page
    page.evaluate(
        """() => { window.watched = jupyterapp.shell.currentWidget.id;
                   return jupyterapp.commands.execute("launcher:create").then(() => null); }"""
    )
    live.view.wait_for(state="hidden")
    before = live.questions
    # Four times the period of its questions.
    page.wait_for_timeout(2_000)
    assert live.questions <= before + 1
    page.evaluate("() => jupyterapp.shell.activateById(window.watched)")
    live.asks_again()


def test_a_page_that_is_loaded_again_shows_the_view_again(live: Live) -> None:
    page = live.page
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    page.wait_for_function("() => window.jupyterapp !== undefined")
    live.view.get_by_text("serving", exact=False).wait_for()
    with dial(live.address) as peer:
        assert says_back(peer)
        live.view.get_by_role("cell", name=f"127.0.0.1:{peer.getsockname()[1]}").wait_for()

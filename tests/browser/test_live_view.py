"""`server.watch()` in JupyterLab: its buttons do what they say, to real connections."""

from __future__ import annotations

from typing import Any

import pytest
from support import dial, read_to_end, says_back
from support.contrast import low_contrast
from support.lab import Lab, in_scheme
from support.live_view import LiveView, echo_time

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


@pytest.fixture
def live(lab_page: Any, lab: Lab) -> LiveView:
    sockets: list[Any] = []
    lab_page.on("websocket", lambda socket: sockets.append(socket))
    port = lab_page.evaluate(RUN, lab.write("live.ipynb", CELLS))
    live = LiveView(lab_page, ("127.0.0.1", int("".join(port))))
    for socket in sockets:
        socket.on("framesent", live.sent)
    return live


def test_a_fault_added_by_its_button_delays_the_echo_until_it_is_removed(
    live: LiveView, shoot: Any
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


def test_the_view_stands_out_from_the_page_in_both_themes(live: LiveView) -> None:
    page = live.page
    # axe takes what is in the body, which has no height in JupyterLab, for hidden.
    page.evaluate("() => { document.body.style.height = '100vh'; }")
    live.add_fault("nonsense:1")
    live.view.get_by_role("alert").get_by_text("no kind 'nonsense'").wait_for()
    live.add_fault("latency:0.001")
    live.view.locator("code", has_text="latency").wait_for()
    live.view.get_by_label("A fault").fill("")
    with dial(live.address) as peer:
        assert says_back(peer)
        live.view.get_by_role("cell", name=f"127.0.0.1:{peer.getsockname()[1]}").wait_for()
        for scheme in ("dark", "light"):
            in_scheme(page, scheme)
            page.locator(f".rsock-watch[data-scheme={scheme}]").wait_for()
            assert low_contrast(page, within=".rsock-watch") == []


def test_the_button_of_a_connection_closes_it_and_no_other(live: LiveView) -> None:
    with dial(live.address) as one, dial(live.address) as two:
        assert says_back(one)
        assert says_back(two)
        live.click("Close connection 1")
        assert read_to_end(one) == b""
        live.view.get_by_text("ended last: 1:").wait_for()
        assert says_back(two)


def test_an_error_is_shown_in_the_view(live: LiveView) -> None:
    live.add_fault("nonsense:1")
    live.view.get_by_role("alert").get_by_text("no kind 'nonsense'").wait_for()


def test_drain_stops_the_server(live: LiveView) -> None:
    live.drains()


def test_a_view_asks_only_while_it_is_seen(live: LiveView) -> None:
    live.asks_again()
    page = live.page
    page.evaluate(
        """() => { window.watched = jupyterapp.shell.currentWidget.id;
                   return jupyterapp.commands.execute("launcher:create").then(() => null); }"""
    )
    live.view.wait_for(state="hidden")
    live.asks_no_more()
    page.evaluate("() => jupyterapp.shell.activateById(window.watched)")
    live.asks_again()


def test_a_page_that_is_loaded_again_shows_the_view_again(live: LiveView) -> None:
    page = live.page
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    page.wait_for_function("() => window.jupyterapp !== undefined")
    live.view.get_by_text("serving", exact=False).wait_for()
    with dial(live.address) as peer:
        assert says_back(peer)
        live.view.get_by_role("cell", name=f"127.0.0.1:{peer.getsockname()[1]}").wait_for()

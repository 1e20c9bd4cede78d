"""The live view of a notebook: what it asks for happens, and what it shows is no markup."""

from __future__ import annotations

import contextlib
import html
import importlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support import dial, read_to_end, says_back
from support.markup import checked

import rsock
from rsock import Accept, Connection, Server
from rsock._display import _watch


def echo_time(peer: Any) -> float:
    before = time.monotonic()
    assert says_back(peer)
    return time.monotonic() - before


def test_a_question_is_answered_with_plain_values(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        told = _watch.answer(echo, {"act": "ask"})
        assert json.loads(json.dumps(told)) == told
        assert told["error"] == ""
        assert (told["state"], told["open"], told["accepted"]) == ("serving", 1, 1)
        assert told["calls"] == "reads and writes"
        [row] = told["rows"]
        assert row["id"] == 1
        assert row["rtt"]
    many = [dial(echo.address) for _ in range(30)]
    assert all(says_back(each) for each in many)
    told = _watch.answer(echo, {"act": "ask"})
    assert (len(told["rows"]), told["hidden"]) == (20, 10)
    for each in many:
        each.close()


def test_a_fault_that_is_added_acts_and_one_that_is_removed_does_not(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        told = _watch.answer(echo, {"act": "fault", "fault": "latency:0.2"})
        assert told["error"] == ""
        [fault] = told["faults"]
        assert fault["text"] == "latency:0.2"
        assert echo_time(peer) >= 0.2
        told = _watch.answer(echo, {"act": "remove", "number": fault["number"]})
        assert told["faults"] == []
        assert min(echo_time(peer) for _ in range(10)) < 0.2


@pytest.mark.parametrize("service", ["echo", "handler", "accept"])
def test_one_connection_is_closed_and_the_others_are_not(service: str) -> None:
    def serve(conn: Connection) -> None:
        with contextlib.suppress(OSError):
            while data := conn.recv(100):
                conn.sendall(data)

    # The connections of handlers stay with workers where there may be faults.
    kinds: dict[str, Any] = {"echo": None, "handler": serve, "accept": Accept()}
    with Server(service=kinds[service], faults=[]) as server:
        with dial(server.address) as one, dial(server.address) as two:
            held = [server.accept(timeout=10)[0] for _ in range(2)] if service == "accept" else []
            server.ledger.wait(open=2)
            told = _watch.answer(server, {"act": "close", "id": 1})
            assert told["error"] == ""
            assert told["faults"] == []
            with contextlib.suppress(ConnectionResetError):
                assert read_to_end(one) == b""
            if service != "accept":
                server.ledger.wait(open=1, closed=1)
                assert says_back(two)
            for each in held:
                each.close()


def test_drain_stops_the_server_without_waiting_for_it(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        _watch.answer(echo, {"act": "drain"})
        assert read_to_end(peer) == b""
    assert echo.wait(10).cause == "stop"
    assert _watch.answer(echo, {"act": "ask"})["state"] == "stopped"


@pytest.mark.parametrize(
    "message",
    [
        {"act": "fault", "fault": "nonsense:1"},
        {"act": "fault"},
        {"act": "remove", "number": "x"},
        {"act": "close"},
    ],
)
def test_what_cannot_be_done_is_told(echo: Server, message: dict[str, object]) -> None:
    told = _watch.answer(echo, message)
    assert told["error"]
    assert told["state"] == "serving"


@pytest.mark.parametrize("message", [None, "ask", 7, {}, {"act": "__class__"}, {"act": None}])
def test_another_message_only_asks(echo: Server, message: object) -> None:
    told = _watch.answer(echo, message)
    assert (told["error"], told["state"]) == ("", "serving")


def test_without_anywidget_the_table_is_shown(
    echo: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    view = echo.watch()
    assert repr(echo) in repr(view)
    assert "pip install anywidget" in repr(view)
    assert "serving" in checked(view).text


def test_the_widget_asks_and_is_answered() -> None:
    """In an interpreter of its own, because ipywidgets keeps each widget for ever."""
    try:
        importlib.import_module("anywidget")
    except ImportError as error:
        pytest.skip(f"no anywidget: {error}")
    code = """
import rsock
with rsock.Server() as server:
    view = server.watch()
    sent = []
    view.send = sent.append
    view._handle_custom_msg({"act": "fault", "fault": "latency:0.1"}, [])
    assert [str(fault) for fault in server.faults] == ["latency:0.1"]
    assert sent[0]["faults"][0]["text"] == "latency:0.1", sent
    bundle = view._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "<table" in data["text/html"]
    assert data["text/plain"] == repr(server)
    assert "application/vnd.jupyter.widget-view+json" in data
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


# The browser's half, in a real browser.

PAGE = """<!doctype html><meta charset="utf-8"><style>{css}</style><div id="el"></div>
<script type="module">
{esm}
const answers = {answers};
const asked = [];
let show = null;
const model = {{
  send: (message) => {{
    asked.push(message);
    document.body.dataset.asked = JSON.stringify(asked);
    setTimeout(() => show(answers[Math.min(asked.length, answers.length) - 1]), 1);
  }},
  on: (_name, call) => {{ show = call; }},
  off: () => {{ document.body.dataset.off = "yes"; }},
}};
const clean = view.render({{ model, el: document.querySelector("#el") }});
{script}
</script>"""

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium")


def page_after(folder: Path, answers: Sequence[object], script: str, milliseconds: int) -> str:
    """The document of the view, after a script and a while of the browser's own time."""
    here = Path(_watch.__file__)
    esm = here.with_name("_watch.js").read_text().replace("export default", "const view =")
    # `<` as an escape of JSON: nothing in a value ends the script.
    values = json.dumps(answers).replace("<", "\\u003c")
    css = here.with_name("_watch.css").read_text()
    page = folder / "page.html"
    page.write_text(PAGE.format(css=css, esm=esm, answers=values, script=script), encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        f"--virtual-time-budget={milliseconds}",
        "--dump-dom",
        str(page),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked_by(document: str) -> list[dict[str, object]]:
    found = re.search(r'data-asked="([^"]*)"', document)
    assert found, document[-2_000:]
    messages: list[dict[str, object]] = json.loads(html.unescape(found[1]))
    return messages


@needs_browser
def test_the_view_shows_what_it_is_answered(tmp_path: Path) -> None:
    hostile = "<script>document.title = 'owned'</script><img src=x onerror=alert(1)>"
    with Server(name=hostile) as server, dial(server.address) as peer:
        assert says_back(peer)
        first = _watch.answer(server, {"act": "fault", "fault": "latency:0.001"})
        for _ in range(5):
            assert says_back(peer)
        second = _watch.answer(server, {"act": "ask"})
        third = _watch.answer(server, {"act": "fault", "fault": "nonsense:1"})
        # Rates are of the server's own clock.
        second["time"] = third["time"] + 0.5
        second["messages"] = third["messages"] + 50
        document = page_after(tmp_path, [first, third, second], "", 1_800)
        assert f"<td>{peer.getsockname()[0]}:{peer.getsockname()[1]}</td>" in document
    assert '<b>100</b><span class="muted">reads and writes/s</span>' in document
    # The error of a button stays while the view goes on asking.
    assert "no kind 'nonsense'" in document
    assert "<code>latency:0.001</code>" in document
    shown = document.partition("</script>")[0].partition('<div id="el">')[2]
    assert "<img" not in shown
    assert "&lt;script&gt;document.title" in shown
    assert "<title>" not in document
    assert {message["act"] for message in asked_by(document)} == {"ask"}


def test_the_rate_of_datagrams_is_called_so() -> None:
    with Server(transport="udp") as server:
        assert _watch.answer(server, {"act": "ask"})["calls"] == "datagrams"


@needs_browser
def test_the_buttons_of_the_view_ask_for_what_they_say(echo: Server, tmp_path: Path) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        told = _watch.answer(echo, {"act": "fault", "fault": "latency:0.001"})
    script = """
    setTimeout(() => {
      document.querySelector("input").value = "reset:after=5B";
      for (const text of ["add fault", "remove", "close", "drain"]) {
        [...document.querySelectorAll("button")].find((each) => each.textContent === text).click();
      }
    }, 100);
    """
    asked = asked_by(page_after(tmp_path, [told], script, 400))
    number = told["faults"][0]["number"]
    assert [message for message in asked if message["act"] != "ask"] == [
        {"act": "fault", "fault": "reset:after=5B"},
        {"act": "remove", "number": number},
        {"act": "close", "id": 1},
        {"act": "drain"},
    ]


@needs_browser
def test_a_view_that_is_hidden_stopped_or_gone_does_not_ask(echo: Server, tmp_path: Path) -> None:
    told = _watch.answer(echo, {"act": "ask"})
    away = 'setTimeout(() => { document.querySelector("#el").style.display = "none"; }, 1200);'
    gone = "setTimeout(clean, 1200);"
    stopped = [told, {**told, "state": "stopped"}]
    (tmp_path / "seen").mkdir()
    visible = len(asked_by(page_after(tmp_path / "seen", [told], "", 10_000)))
    assert visible >= 10
    for name, answers, script in (
        ("away", [told], away),
        ("gone", [told], gone),
        ("stopped", stopped, ""),
    ):
        (tmp_path / name).mkdir()
        asked = asked_by(page_after(tmp_path / name, answers, script, 10_000))
        assert 1 <= len(asked) <= 6, (name, len(asked))
    assert rsock.servers() == [echo]

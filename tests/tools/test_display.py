"""`repr` and the notebook table: right in every state, escaped, small, and never an exception."""

from __future__ import annotations

import os
import socket
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support import LOOPBACK, Background, dial, payload, says_back, send_until_stuck, wait_until

from rsock import Client, Echo, Endpoint, Limits, Server, SocketOptions

VOID = {"br", "col", "hr", "img", "meta", "wbr"}


class Checker(HTMLParser):
    """Collects text and tags, and fails on a tag that is closed in the wrong order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def html_of(thing: Server | Client | object) -> str:
    name = "_repr_html_"
    text = getattr(thing, name)()
    assert isinstance(text, str)
    return text


def checked(thing: object) -> Checker:
    return Checker(html_of(thing))


def one_line(thing: object) -> str:
    text = repr(thing)
    assert "\n" not in text
    assert len(text) < 300
    return text


STATES = ["new", "created", "bound", "listening", "serving", "stopped"]


def server_in(state: str) -> Server:
    server = Server(name="shown")
    for step in ("create", "bind", "listen", "start", "stop")[: STATES.index(state)]:
        getattr(server, step)()
    assert server.state == state
    return server


@pytest.mark.parametrize("state", STATES)
def test_a_server_shows_its_state(state: str) -> None:
    server = server_in(state)
    text = one_line(server)
    assert state in text
    assert "Echo" in text
    assert state in checked(server).text
    assert "table" in checked(server).tags
    checked(server.ledger)
    assert repr(server.ledger).startswith("<Ledger ")
    server.stop()


def test_a_draining_server_shows_it() -> None:
    server = Server(drain=30.0).start()
    with dial(server.address) as stuck:
        send_until_stuck(stuck, payload(16 << 20))
        stopping = Background(server.stop)
        wait_until(lambda: server.state == "draining")
        assert "draining" in one_line(server)
        assert "draining" in checked(server).text
        server.stop(0)
        stopping.result()


def test_a_server_shows_address_service_and_live_connections(echo: Server) -> None:
    with dial(echo.address) as first, dial(echo.address) as second:
        assert says_back(first)
        assert says_back(second)
        text = one_line(echo)
        assert f"{LOOPBACK}:{echo.port}" in text
        assert "serving" in text
        assert "Echo()" in text
        assert "2" in text.replace(str(echo.port), "")
        shown = checked(echo).text
        assert f"{LOOPBACK}:{echo.port}" in shown
        assert "Echo()" in shown


def test_the_live_connections_are_counted_now(echo: Server) -> None:
    empty = one_line(echo)
    with dial(echo.address) as peer:
        assert says_back(peer)
        assert one_line(echo) != empty
    echo.ledger.wait(open=0)
    assert one_line(echo) == empty


def test_an_echo_is_shown_as_it_is_made() -> None:
    assert repr(Echo()) == "Echo()"


def test_a_client_is_shown_in_every_state(echo: Server) -> None:
    unconnected = Client()
    one_line(unconnected)
    checked(unconnected)
    unconnected.close()
    client = echo.client()
    host, port = client.getsockname()[:2]
    for text in (one_line(client), checked(client).text):
        assert f"{host}:{port}" in text
        assert f"{LOOPBACK}:{echo.port}" in text
    client.close()
    assert "closed" in one_line(client)
    assert "closed" in checked(client).text
    aborted = echo.client()
    aborted.abort()
    one_line(aborted)
    checked(aborted)
    detached = echo.client()
    os.close(detached.detach())
    one_line(detached)
    checked(detached)


def test_a_client_whose_peer_has_gone_is_shown(echo: Server) -> None:
    with echo.client(timeout=5.0) as client:
        assert says_back(client)
        echo.stop(0)
        one_line(client)
        checked(client)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        one_line(client)
        checked(client)


def test_a_record_is_shown_open_and_closed(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        [record] = echo.ledger.open
        host, port = peer.getsockname()
        for text in (one_line(record), checked(record).text):
            assert f"{host}:{port}" in text
    echo.ledger.wait(open=0)
    [record] = echo.ledger.closed
    for text in (one_line(record), checked(record).text):
        assert "peer" in text
        assert "5" in text


def test_a_record_shows_what_the_kernel_knows(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
    [record] = echo.ledger.wait(open=0, closed=1)
    assert record.tcp_info is not None
    shown = checked(record).text
    assert "round trip" in shown
    assert f"{record.tcp_info.segments_in} in, {record.tcp_info.segments_out} out" in shown


def test_a_ledger_shows_its_totals(echo: Server) -> None:
    for _ in range(3):
        with dial(echo.address) as peer:
            assert says_back(peer)
    echo.ledger.wait(open=0, closed=3)
    assert "3 accepted" in repr(echo.ledger)
    shown = checked(echo.ledger)
    assert "table" in shown.tags
    assert "peer" in shown.text


def test_a_ledger_of_many_records_stays_a_small_table(echo: Server) -> None:
    for _ in range(300):
        with dial(echo.address) as peer:
            peer.sendall(b"x")
    echo.ledger.wait(open=0, closed=300)
    for thing in (echo.ledger, echo):
        text = html_of(thing)
        assert len(text) < 20_000
        assert text.count("<tr") <= 40
    assert "300" in checked(echo.ledger).text
    assert "300" in repr(echo.ledger)
    assert repr(echo.ledger).count("\n") <= 40


SCRIPT = "<script>alert('1')</script>\"&amp;"


def test_what_others_chose_is_escaped() -> None:
    hostile = type(SCRIPT, (Server,), {})
    server = hostile(name=SCRIPT)
    with server, dial(server.address) as peer:
        assert says_back(peer)
        for thing in (server, server.ledger, *server.ledger.open):
            assert "<script" not in html_of(thing)
            checked(thing)
        assert SCRIPT in checked(server).text
        assert SCRIPT in repr(server)


def test_a_name_that_a_peer_chose_stays_on_one_line(directory: Path) -> None:
    name = b"\0\x1b[2J\n\xff" + os.urandom(4).hex().encode()
    with Server(path=str(directory / "\udcff\x1b\n")) as server:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10)
            peer.bind(name)
            peer.connect(os.fsencode(server.path or ""))
            assert says_back(peer)
            (record,) = server.ledger.open
            things = (server, server.ledger, record)
            for thing in things:
                checked(thing)
            texts = [repr(server), repr(record), str(record.remote), html_of(server)]
            for text in texts:
                assert "\x1b" not in text
                assert text.encode()
            assert "\n" not in repr(server) + repr(record) + str(record.remote)
            with pytest.raises(OSError, match=r"connect @.x1b\[2J.n") as caught:
                Client(path=name[:-1])
            assert "\x1b" not in str(caught.value)


def test_a_host_that_was_asked_for_is_escaped() -> None:
    server = Server("<i>host<b>")
    assert "<i>" not in html_of(server)
    assert "<i>host<b>" in checked(server).text


def test_a_table_brings_no_script_and_nothing_from_elsewhere(echo: Server) -> None:
    for thing in (echo, echo.ledger):
        text = html_of(thing).lower()
        assert "<script" not in text
        assert "http:" not in text
        assert "https:" not in text
        assert "url(" not in text


def test_a_table_can_be_read_on_light_and_dark_pages(echo: Server) -> None:
    text = html_of(echo)
    for colour in ("color:black", "color:white", "color:#000", "color:#fff", "background:#fff"):
        assert colour not in text.replace(" ", "").lower()


def test_plain_values_are_shown_as_they_are_made() -> None:
    values = {
        "Endpoint": Endpoint("tcp", (LOOPBACK, 80)),
        "Limits": Limits(connections=4),
        "SocketOptions": SocketOptions(backlog=7),
    }
    for name, value in values.items():
        assert repr(value).startswith(name + "(")
        assert eval(repr(value)) == value
    assert str(Endpoint("tcp", (LOOPBACK, 80))) == "127.0.0.1:80"
    assert str(Endpoint("tcp", ("::1", 80))) == "[::1]:80"

"""`repr` and the notebook table: right in every state, escaped, small, and never an exception."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest
from support import (
    LOOPBACK,
    Background,
    closed_port,
    dial,
    payload,
    read_exactly,
    says_back,
    send_until_stuck,
    wait_until,
)
from support.markup import checked, html_of

from rsock import (
    Client,
    Connection,
    Echo,
    Endpoint,
    Forward,
    Limits,
    Replay,
    Server,
    SocketOptions,
    TraceEvent,
)


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


def test_a_ledger_shows_what_is_open_first_and_how_much_it_hides(echo: Server) -> None:
    with dial(echo.address) as first:
        assert says_back(first)
        for _ in range(60):
            with dial(echo.address) as peer:
                assert says_back(peer)
        echo.ledger.wait(open=1, closed=60)
        shown = repr(echo.ledger)
        assert shown.splitlines()[2].split()[0] == "1"
        assert shown.count("still open") == 1
        assert "… and 41 more: 41 closed" in shown
        html = checked(echo.ledger).text
        assert "still open" in html
        assert "… and 41 more: 41 closed" in html
        extra = [dial(echo.address) for _ in range(25)]
        assert all(says_back(each) for each in extra)
        assert "… and 66 more: 6 open, 60 closed" in repr(echo.ledger)
        for each in extra:
            each.close()


def test_a_ledger_says_how_many_records_are_not_kept() -> None:
    with Server(history=3) as server:
        for _ in range(7):
            with dial(server.address) as peer:
                assert says_back(peer)
        server.ledger.wait(open=0, closed=7)
        for text in (repr(server.ledger), checked(server.ledger).text):
            assert "4 older ones are not kept" in text


def test_a_ledger_and_a_server_show_what_ended_connections_too_early() -> None:
    with closed_port() as (host, port), Server(service=Forward(host, port)) as server:
        for _ in range(3):
            with contextlib.suppress(ConnectionResetError), dial(server.address) as peer:
                peer.recv(1)
        server.ledger.wait(open=0, closed=3)
        cause = f"ended by error (connect {host}:{port}: Connection refused): 3"
        assert cause in repr(server.ledger)
        assert "; 3 errors" in repr(server.ledger).splitlines()[0]
        for thing in (server.ledger, server):
            assert cause in checked(thing).text
    with Server(limits=Limits(idle=0.05)) as server, dial(server.address) as peer:
        assert peer.recv(1) == b""
        server.ledger.wait(open=0, closed=1)
        assert "ended by limit (idle): 1" in repr(server.ledger)


def test_a_limit_of_a_call_of_a_handler_is_told_by_what_was_above_it() -> None:
    with Server(service=lambda conn: conn.recv_frame()) as server, dial(server.address) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\n")
        assert peer.recv(1) == b""
        server.ledger.wait(open=0, closed=1)
        told = "limit (a frame of 1195725856 bytes, where the limit is 16777216)"
        for thing in (server.ledger, server):
            assert told in checked(thing).text
        assert f"ended by {told}: 1" in repr(server.ledger)


def test_a_difference_from_a_recording_is_told_by_its_line_and_not_by_its_path(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a-recording-with-a-long-name-in-a-deep-folder.rec"
    path.write_text(
        "rsock recording 1\ntransport tcp\nstarted 2026-11-28T09:05:00.000000Z\n"
        'target shop.example:7\n1 0.0 open 127.0.0.1:50000\n1 0.1 > b"tea"\n1 0.2 < b"4"\nstop 1\n'
    )
    with Server(service=Replay(path), on_error=lambda _: None) as server:
        for _ in range(3):
            with contextlib.suppress(ConnectionResetError), dial(server.address) as peer:
                peer.sendall(b"cup")
                peer.recv(1)
        server.ledger.wait(open=0, closed=3)
        for text in (repr(server.ledger), checked(server).text):
            assert "error (line 6: the client sends something else" in text
            assert "error (the recording has 1 connection and no more)" in text
            assert path.name not in text.replace(repr(server.service), "")
        assert "ended by error (the recording has 1 connection and no more): 2" in repr(
            server.ledger
        )


def test_different_errors_are_listed_up_to_a_few() -> None:
    def fail(conn: Connection) -> None:
        raise ValueError(f"number {min(conn.id, 20)}")

    with Server(service=fail, on_error=lambda _: None) as server:
        for _ in range(30):
            with contextlib.suppress(ConnectionResetError), dial(server.address) as peer:
                peer.recv(1)
        server.ledger.wait(open=0, closed=30)
        lines = [line for line in repr(server.ledger).splitlines() if line.startswith("ended by")]
    assert lines[0] == "ended by error (ValueError: number 20): 11"
    assert len(lines) == 6
    assert lines[-1] == "ended by other errors: 15"


def test_a_trace_of_kilobytes_is_shown_in_a_few_lines() -> None:
    with Server(trace=True) as server, dial(server.address) as peer:
        for _ in range(60):
            peer.sendall(b"\0" * 100)
            assert len(read_exactly(peer, 100)) == 100
        [record] = server.ledger.open
        trace = record.trace
        assert trace is not None
        assert len(trace) >= 100
        assert len(repr(trace)) < 1_000
        assert f"… {len(trace) - 6:,} more …" in repr(trace)
        # The values are all there.
        assert isinstance(trace, list)
        assert trace[-1].data == b"\0" * 100
        assert repr(trace[-1]).endswith("\\x00'… 100 bytes)")
        short = trace[0]
        assert repr(short).startswith("TraceEvent(number=")


def test_a_short_event_is_shown_as_it_is_made() -> None:
    event = TraceEvent(1, 0.5, "in", 5, b"hello")
    assert repr(event) == (
        "TraceEvent(number=1, seconds=0.5, direction='in', size=5, data=b'hello')"
    )
    assert eval(repr(event)) == event


def test_a_list_of_thousands_of_records_is_shown_in_a_few_lines(echo: Server) -> None:
    for _ in range(50):
        with dial(echo.address) as peer:
            peer.sendall(b"x")
    records = echo.ledger.wait(open=0, closed=50)
    for each in (records, echo.ledger.closed):
        assert "… 30 more …" in repr(each)
        assert repr(each).count("<Record ") == 20
        assert each == list(each)
        assert isinstance(each, list)
    assert "more" not in repr(records[:20])
    assert repr(echo.ledger.open) == "[]"


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

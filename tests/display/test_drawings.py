"""Drawings of real connections: readable, well-formed, and honest about what is inferred."""

from __future__ import annotations

import contextlib
import html
import importlib
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import LOOPBACK, closed_port, dial, given_back, held, read_exactly, says_back
from support.drawings import SVG, parsed, readable
from support.markup import Checker

import rsock
from rsock import (
    Accept,
    Client,
    Connection,
    Drawing,
    Forward,
    Limits,
    Record,
    Server,
    SocketOptions,
    Trace,
)
from rsock.faults import Latency, Reset

# Markup, a title for the terminal, broken UTF-8, a change of direction.
HOSTILE = b"<script>alert(1)</script>\x1b]0;owned\x07\xff\xfe \xe2\x80\xae&amp;]]>"


def only(server: Server) -> Record:
    [record] = server.ledger.wait(open=0, closed=1)
    return record


def echoed(server: Server, *messages: bytes) -> Record:
    """Send messages, one after the other, and return the record once the connection has closed."""
    with dial(server.address) as peer:
        for message in messages:
            peer.sendall(message)
            assert read_exactly(peer, len(message)) == message
    return only(server)


def row(drawing: Drawing, word: str) -> str:
    """The line of the text form that has a word."""
    [line] = [line for line in drawing.text.splitlines() if word in line]
    return line


# The ladder.


def test_a_ladder_shows_handshake_messages_and_end_in_order() -> None:
    with Server(trace=True) as server:
        record = echoed(server, b"hello", b"goodbye")
    drawing = record.ladder()
    seen = readable(drawing)
    order = ["SYN", "SYN, ACK", "ACK", "5 B  'hello'", "7 B  'goodbye'", "FIN"]
    assert [text for text in dict.fromkeys(seen) if text in order] == order
    assert seen.count("5 B  'hello'") == 2
    for word in ("accept()", "recv 5 B", "send 7 B", "closed: peer", "0 µs"):
        assert word in seen
    lines = drawing.text.splitlines()
    places = [next(at for at, line in enumerate(lines) if each in line) for each in order]
    assert places == sorted(places)
    assert str(record.remote) in drawing.text
    assert str(record.local) in drawing.text
    assert repr(drawing) == str(drawing) == drawing.text


def test_what_is_inferred_is_dashed_and_what_is_recorded_is_not() -> None:
    with Server(trace=True) as server:
        drawing = echoed(server, b"hello").ladder()
    root = parsed(drawing)
    colours = {
        (line.get("class"), line.get("stroke-dasharray") is not None)
        for line in root.iter(f"{SVG}line")
        if line.get("stroke-width") == "1.8"
    }
    assert colours == {("s-muted", True), ("s-up", False), ("s-down", False)}
    assert "╌ SYN ╌" in drawing.text
    assert "─ 5 B  'hello' ─" in drawing.text
    assert "inferred, not recorded" in readable(drawing)


def test_a_reset_is_drawn_as_one() -> None:
    with Server(trace=True) as server, dial(server.address) as peer:
        peer.sendall(b"hello")
        assert read_exactly(peer, 5) == b"hello"
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        drawing = only(server).ladder()
    seen = readable(drawing)
    assert "RST" in seen
    assert "FIN" not in seen
    assert row(drawing, "RST").rstrip().endswith("▶│")


def test_faults_are_in_the_ladder() -> None:
    faults = [Latency(0.001), Reset(after_bytes=30)]
    with Server(trace=True, faults=faults) as server, dial(server.address) as peer:
        with contextlib.suppress(ConnectionResetError):
            for _ in range(30):
                peer.sendall(b"message")
                if not peer.recv(100):
                    break
        drawing = only(server).ladder()
    seen = readable(drawing)
    assert any("latency:0.001" in text for text in seen)
    assert "a fault (up: client to server, down: server to client)" in seen
    assert "◆" in drawing.text
    assert "closed: fault" in seen


def test_a_long_ladder_says_what_it_leaves_out() -> None:
    with Server(trace=Trace(events=10_000)) as server:
        record = echoed(server, *[b"%06d" % number for number in range(500)])
    trace = record.trace
    assert trace is not None
    for drawing in (record.ladder(), record.ladder(most=8)):
        seen = readable(drawing)
        [gap] = [text for text in seen if "more events" in text]
        assert len(drawing.svg) < 60_000
        assert "500 in (" not in gap
    hidden = len(trace) - 8
    assert f"… {hidden:,} more events: " in gap
    assert "'000000'" in drawing.text
    assert "'000499'" in drawing.text
    whole = record.ladder(most=10_000)
    assert whole.text.count("send 6 B") + whole.text.count("recv 6 B") == len(trace)


def test_a_ladder_says_what_the_trace_did_not_keep() -> None:
    with Server(trace=Trace(events=4, bytes=0)) as server:
        record = echoed(server, *[b"x"] * 20)
    seen = readable(record.ladder())
    assert any("earlier events not kept" in text for text in seen)
    assert any(text.startswith("Of 4 events only the size was kept") for text in seen)


def test_the_text_of_a_drawing_has_its_notes() -> None:
    with Server(trace=Trace(bytes=0)) as traced, Server() as plain:
        record, bare = echoed(traced, b"hello"), echoed(plain, b"hello")
    notes = {
        record.ladder: "Of 2 events only the size was kept: Server(trace=Trace(bytes=…))",
        bare.ladder: "Server(trace=True) records each read and write",
        record.states: "LISTEN is the state of the listening socket.",
        record.segments: "A read may end within a segment",
    }
    for draw, note in notes.items():
        text = draw().text
        assert note in text
        assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("most", [1, 0, -1, 10_001])
def test_a_ladder_refuses_a_number_of_events_that_it_cannot_have(most: int, echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        [record] = echo.ledger.open
        with pytest.raises(ValueError, match=str(most)):
            record.ladder(most=most)


def test_without_a_trace_a_ladder_has_the_sums_and_says_so(echo: Server) -> None:
    with echo.client(timeout=10) as client:
        assert says_back(client)
        assert client.record is not None
        seen = readable(client.record.ladder())
        assert "client (this end)" in seen
        assert "connect()" in seen
        assert "still open" in seen
    drawing = only(echo).ladder()
    seen = readable(drawing)
    assert "1 read, 5 B in all" in drawing.text
    assert "1 write, 5 B in all" in drawing.text
    assert any("Server(trace=True)" in text for text in seen)


def test_ladders_of_other_transports_have_no_segments(directory: Path) -> None:
    with Server(path=directory / "s.sock", trace=True) as server:
        with server.client(timeout=10) as client:
            assert says_back(client)
        seen = readable(only(server).ladder())
        assert "end of stream" in seen
        assert "SYN" not in seen
    with Server(transport="udp", trace=True) as server:
        with server.client(timeout=10) as client:
            client.send(b"hello")
            assert client.recv(10) == b"hello"
            [record] = server.ledger.open
            seen = readable(record.ladder())
            assert "FIN" not in seen
            for draw in (record.states, record.segments):
                with pytest.raises(ValueError, match="udp, and only TCP has"):
                    draw()
            with pytest.raises(ValueError, match="udp"):
                server.queue()
            readable(server.map())
            readable(server.ledger.timeline())


def test_long_pauses_and_names_do_not_overlap(directory: Path) -> None:
    name = directory / ("a-very-long-name-" * 4)
    with Server(path=name, trace=True, name="x" * 300) as server:
        with server.client(timeout=10) as client:
            for pause in (0.0, 0.002, 0.3):
                time.sleep(pause)
                assert says_back(client)
            [record] = server.ledger.open
            seen = readable(record.ladder())
            assert any(text.endswith(" later") for text in seen)
            readable(server.map())
            readable(server.queue())
            readable(server.ledger.timeline())


# The states.


def test_the_states_of_a_connection_that_its_peer_closed(echo: Server) -> None:
    record = echoed(echo, b"hello")
    drawing = record.states()
    seen = readable(drawing)
    assert "LAST-ACK" in drawing.text
    assert "FIN-WAIT-1" not in drawing.text
    # Five steps, numbered, from LISTEN to CLOSED.
    assert [text for text in seen if text.isdigit()] == ["1", "2", "3", "4", "5"]
    assert record.tcp_info is not None
    assert "reported by the kernel" in row(drawing, f"[{record.tcp_info.state:^14}]")


def test_the_states_of_an_open_connection_end_at_its_state(echo: Server) -> None:
    with echo.client(timeout=10) as client:
        assert says_back(client)
        assert client.record is not None
        drawing = client.record.states()
        readable(drawing)
        assert "SYN-SENT" in drawing.text
        assert drawing.text.splitlines()[-3].startswith("  [ ESTABLISHED  ]")
        [record] = echo.ledger.open
        assert "LISTEN" in record.states().text
    closed = client.record.states()
    readable(closed)
    assert "TIME-WAIT" in closed.text


def test_the_states_of_a_reset_connection_skip_the_close() -> None:
    with Server() as server, server.client(timeout=10) as client:
        assert says_back(client)
        client.abort()
        drawing = only(server).states()
    seen = readable(drawing)
    assert "RST in" in seen
    assert "LAST-ACK" not in drawing.text


# The segments.


def test_five_thousand_bytes_are_four_segments_of_1460_bytes() -> None:
    options = SocketOptions(max_segment=1472)
    with Server(trace=True, options=options) as server:
        with Client(*server.address, timeout=10, options=options) as client:
            client.sendall(b"x" * 5_000)
            assert client.recv_exactly(5_000)
        record = only(server)
    drawing = record.segments()
    seen = readable(drawing)
    info = record.tcp_info
    assert info is not None
    writes = [event.size for event in record.trace or () if event.direction == "out"]
    # Only what agrees with the count of the kernel is computed.
    if writes == [5_000] and (info.send_mss, info.data_segments_out) == (1_460, 4):
        assert "|1460|1460|1460|620|" in drawing.text
        assert seen.count("1,460") >= 3
    else:
        assert "unknown" in drawing.text
    assert f"the kernel counted {info.data_segments_out:,}" in drawing.text


def test_segments_that_do_not_agree_with_the_count_are_not_invented(echo: Server) -> None:
    record = echoed(echo, *[b"x" * (100 + number) for number in range(90)])
    drawing = record.segments()
    readable(drawing)
    assert "of unknown sizes" in drawing.text
    assert "only the number is known" in drawing.svg


# The ledger and the server.


def fail(conn: Connection) -> None:
    line = conn.recv_line()
    if line == b"fail\n":
        raise ValueError(HOSTILE.decode("latin-1"))
    conn.sendall(line)


def test_a_timeline_has_every_kind_of_end() -> None:
    limits = Limits(first_byte=0.05)
    with Server(service=fail, limits=limits, on_error=lambda _: None) as server:
        for message in (b"fail\n", b"hello\n", b""):
            with dial(server.address) as peer, contextlib.suppress(ConnectionResetError):
                peer.sendall(message)
                peer.recv(10)
        server.ledger.wait(open=0, closed=3)
        drawing = server.ledger.timeline()
        seen = readable(drawing)
    for by in ("error", "local", "limit"):
        assert f"closed by {by}: 1" in seen
        assert any(text.startswith(f"{by} ") for text in seen)
    fills = [box.get("fill", "") for box in parsed(drawing).iter(f"{SVG}rect")]
    # Each kind has a pattern of its own, not only a colour.
    assert len({fill for fill in fills if fill.startswith("url(#")}) == 3


def test_a_timeline_shows_what_is_open_and_counts_what_is_hidden(echo: Server) -> None:
    with dial(echo.address) as first:
        assert says_back(first)
        for _ in range(60):
            with dial(echo.address) as peer:
                assert says_back(peer)
        echo.ledger.wait(open=1, closed=60)
        drawing = echo.ledger.timeline()
        seen = readable(drawing)
        assert "open: 1" in seen
        assert "31 more records of the ledger not drawn" in seen
        assert drawing.text.count(f"{LOOPBACK}:") == 30
    with Server() as unused:
        assert "no connection yet" in readable(unused.ledger.timeline())


def test_a_queue_shows_what_waits_is_open_and_has_ended() -> None:
    with Server(service=Accept(), options=SocketOptions(backlog=100)) as server:
        clients = [dial(server.address) for _ in range(50)]
        taken = [server.accept(timeout=10)[0] for _ in range(3)]
        taken[0].close()
        drawing = server.queue()
        seen = readable(drawing)
        assert row(drawing, "  waiting ").split()[1] == "47"
        assert row(drawing, "  open ").split()[1] == "2"
        assert row(drawing, "  ended ").split()[1] == "1"
        assert {"47", "2", "1", "and 7 more", "backlog: 100", "accept()"} <= set(seen)
        for each in (*clients, *taken):
            each.close()
    readable(server.queue())


def test_a_map_has_clients_server_and_targets(echo: Server) -> None:
    with Server(service=Forward(echo)) as relay:
        with dial(relay.address) as one, dial(relay.address) as two:
            assert says_back(one)
            assert says_back(two)
            drawing = relay.map()
            seen = readable(drawing)
            for peer in (one, two):
                assert f"{LOOPBACK}:{peer.getsockname()[1]}" in seen
            assert f"{LOOPBACK}:{echo.port}" in seen
            assert any(text.startswith("2 connections (2 open), ") for text in seen)
    many = [dial(echo.address) for _ in range(20)]
    assert all(says_back(each) for each in many)
    seen = readable(echo.map())
    assert f"{LOOPBACK}, all ports" in seen
    for each in many:
        each.close()


def test_drawings_of_a_server_that_has_not_started_are_there() -> None:
    server = Server()
    for draw in (server.queue, server.map, server.ledger.timeline):
        readable(draw())


def test_a_refused_forward_is_drawn() -> None:
    with closed_port() as (host, port), Server(service=Forward(host, port), trace=True) as server:
        with contextlib.suppress(ConnectionResetError), dial(server.address) as peer:
            peer.recv(1)
        record = only(server)
        for draw in (record.ladder, record.states, record.segments, server.map):
            readable(draw())
        seen = readable(record.ladder())
        assert "Connection refused" in seen
        # What refuses does not listen.
        assert "listen()" not in seen


def test_the_map_of_a_forward_says_that_its_target_was_not_reached() -> None:
    with closed_port() as (host, port), Server(service=Forward(host, port)) as server:
        with contextlib.suppress(ConnectionResetError), dial(server.address) as peer:
            peer.recv(1)
        server.ledger.wait(open=0, closed=1)
        seen = readable(server.map())
        assert "Not forwarded, because of an error: 1 connection." in seen
    assert server.map().text.splitlines()[1] == "stopped; 1 client, 1 connection, 0 open"


def test_many_clients_of_one_host_are_one_host(echo: Server) -> None:
    for _ in range(20):
        with dial(echo.address) as peer:
            assert says_back(peer)
    echo.ledger.wait(open=0, closed=20)
    assert echo.map().text.splitlines()[1] == "1 host, 20 connections, 0 open"
    readable(echo.map())


def test_a_close_of_this_end_does_not_claim_what_the_kernel_has_yet_to_do() -> None:
    with Server(limits=Limits(idle=0.05), trace=True) as server, dial(server.address) as peer:
        assert peer.recv(1) == b""
        record = only(server)
        # The peer is open.
        seen = " ".join(readable(record.states()))
    assert "TIME-WAIT for 60 s. They may not have happened yet." in seen


def test_a_note_of_segments_is_shown_to_its_end() -> None:
    with Server(trace=True) as server:
        record = echoed(server, b"x" * 100, b"x" * 200)
        drawing = record.segments()
    assert not [text for text in readable(drawing) if text.endswith("…")]
    assert "if each read begins with a segment." in " ".join(drawing.text.split())


# Whatever a peer sends.


def test_bytes_of_a_peer_are_no_markup() -> None:
    with Server(trace=Trace(bytes=4 << 20), service=fail, on_error=lambda _: None) as server:
        with dial(server.address) as peer, contextlib.suppress(ConnectionResetError):
            peer.sendall(HOSTILE * 20_000)
            peer.sendall(b"\nfail\n")
            peer.settimeout(10)
            while peer.recv(65_536):
                pass
        record = only(server)
    drawings = [record.ladder(), record.states(), record.segments(), server.ledger.timeline()]
    for drawing in [*drawings, server.map(), server.queue()]:
        readable(drawing)
        assert len(drawing.svg) < 60_000
        page = getattr(drawing, "_repr_html_")()  # noqa: B009
        Checker(page)
        for text in (html.unescape(page.replace("<style>", "")), drawing.text):
            assert not any(char in text for char in "\x1b\x07\u202e")
        assert "<script" not in page
    assert "<script>" in html.unescape(record.ladder().svg)


def test_the_same_record_gives_the_same_drawing() -> None:
    with Server(trace=True) as server:
        record = echoed(server, b"hello", os.urandom(20))
    for draw in (record.ladder, record.states, record.segments, server.ledger.timeline, server.map):
        assert draw() == draw()
        hash(draw())


def test_a_drawing_keeps_nothing_open() -> None:
    before = held()
    with Server(trace=True) as server:
        record = echoed(server, b"hello")
        record.ladder()
        server.map()
    given_back(before)


# Files.


def test_a_drawing_is_saved_by_the_ending(tmp_path: Path, echo: Server) -> None:
    drawing = echoed(echo, b"hello").ladder()
    drawing.save(tmp_path / "ladder.svg")
    drawing.save(str(tmp_path / "ladder.txt"))
    assert (tmp_path / "ladder.svg").read_text(encoding="utf-8") == drawing.svg
    assert (tmp_path / "ladder.txt").read_text(encoding="utf-8") == drawing.text + "\n"
    for name in ("ladder.jpeg", "ladder"):
        with pytest.raises(ValueError, match=r"none of \.svg, \.png and \.txt"):
            drawing.save(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        drawing.save(tmp_path / "missing" / "ladder.svg")


def test_a_png_needs_a_package_and_the_error_names_it(
    tmp_path: Path, echo: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = echoed(echo, b"hello").ladder()
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    with pytest.raises(ImportError, match=r"ladder\.png.*pip install cairosvg"):
        drawing.save(tmp_path / "ladder.png")
    assert not (tmp_path / "ladder.png").exists()


def test_a_png_is_written_where_the_package_is_installed(tmp_path: Path, echo: Server) -> None:
    try:
        importlib.import_module("cairosvg")
    except (ImportError, OSError) as error:
        pytest.skip(f"no cairosvg: {error}")
    record = echoed(echo, b"hello")
    for name, drawing in {"ladder": record.ladder(), "time": echo.ledger.timeline()}.items():
        drawing.save(tmp_path / f"{name}.png")
        data = (tmp_path / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        # Two dots per pixel.
        assert struct.unpack(">I", data[16:20]) == (1_400,)


def test_drawings_are_loaded_only_when_one_is_asked_for() -> None:
    code = (
        "import rsock, sys\n"
        "server = rsock.Server()\n"
        "repr(server); server._repr_html_()\n"
        "assert not [name for name in sys.modules if '_drawings' in name]\n"
        "assert 'no connection yet' in server.ledger.timeline().text\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert rsock.Drawing is Drawing

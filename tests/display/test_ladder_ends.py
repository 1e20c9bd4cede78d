"""Ladders of forwarders, and ends of connections: what is recorded, and what is inferred."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import pytest
from support import SOON, closed_port, dial, dial_path, read_exactly, says_back, wait_until
from support.drawings import readable

from rsock import Accept, Connection, Drawing, Forward, Record, Server, Trace
from rsock.faults import Latency

# Left to right: the client's line, the forwarder's, the target's.
CLIENT, OURS, TARGET = 24, 56, 88


def only(server: Server) -> Record:
    [record] = server.ledger.wait(open=0, closed=1)
    return record


def connected(server: Server) -> Record:
    [record] = server.ledger.wait(open=1)
    wait_until(lambda: record.far is not None)
    return record


def rows(drawing: Drawing) -> list[str]:
    """The lines of the text form that have steps."""
    return [line for line in drawing.text.splitlines() if line[OURS : OURS + 1] in ("│", "●", "◆")]


def crossings(drawing: Drawing) -> list[str]:
    """What crosses, in order: "near SYN >", "far 5 B  'x' <"."""
    found = []
    for line in rows(drawing):
        for leg, left, right in (("near", CLIENT, OURS), ("far", OURS, TARGET)):
            between = line[left + 1 : right]
            text = between.strip("─╌═▶◀ ")
            if text and ("▶" in between or "◀" in between):
                found.append(f"{leg} {text} {'>' if '▶' in between else '<'}")
    return found


def test_a_forwarded_connection_has_three_lines(echo: Server) -> None:
    with Server(service=Forward(echo), trace=True) as front:
        with dial(front.address) as peer:
            connected(front)
            assert says_back(peer)
        record = only(front)
    drawing = record.ladder()
    seen = readable(drawing)
    for word in ("client", "forwarder (this end)", "target", "connect()", "connected"):
        assert word in seen
    assert record.far is not None
    assert str(record.far.remote) in seen
    assert crossings(drawing) == [
        "near SYN >",
        "near SYN, ACK <",
        "near ACK >",
        "far SYN >",
        "far SYN, ACK <",
        "far ACK >",
        "near 5 B  'hello' >",
        "far 5 B  'hello' >",
        "far 5 B  'hello' <",
        "near 5 B  'hello' <",
        "near FIN >",
        "far FIN >",
        "far FIN <",
        "near FIN <",
    ]


def test_its_events_have_times_and_the_rest_has_none(echo: Server) -> None:
    with Server(service=Forward(echo), trace=True) as front:
        with dial(front.address) as peer:
            connected(front)
            assert says_back(peer)
        drawing = only(front).ladder()
    timed = [line for line in rows(drawing) if line[:10].strip()]
    # The accept, the two steps of the connect, four messages, and the end.
    assert len(timed) == 8
    assert all("FIN" not in line for line in timed)


def test_without_a_trace_it_has_the_sums_of_both_legs(echo: Server) -> None:
    with Server(service=Forward(echo)) as front:
        with dial(front.address) as peer:
            assert says_back(peer)
        drawing = only(front).ladder()
    readable(drawing)
    sums = [each for each in crossings(drawing) if "in all" in each]
    read, write = "1 read, 5 B in all", "1 write, 5 B in all"
    assert sums == [f"near {read} >", f"far {write} >", f"far {read} <", f"near {write} <"]


def test_a_target_that_refuses_is_the_first_to_reset() -> None:
    with closed_port() as (host, port), Server(service=Forward(host, port), trace=True) as front:
        with contextlib.suppress(ConnectionResetError), dial(front.address) as peer:
            peer.recv(1)
        drawing = only(front).ladder()
    seen = readable(drawing)
    assert f"{host}:{port}" in seen
    assert "Connection refused" in seen
    assert crossings(drawing)[-3:] == ["far SYN >", "far RST <", "near RST <"]


def test_a_target_that_resets_ends_both_legs() -> None:
    with (
        Server(service=Accept()) as target,
        Server(service=Forward(target), trace=True) as front,
        dial(front.address) as peer,
    ):
        peer.sendall(b"hello")
        conn, _ = target.accept(timeout=SOON)
        assert conn.recv_exactly(5) == b"hello"
        conn.abort()
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        drawing = only(front).ladder()
    readable(drawing)
    assert crossings(drawing)[-2:] == ["far RST <", "near RST <"]


def test_a_target_that_finishes_first_is_drawn_first() -> None:
    with (
        Server(service=Accept()) as target,
        Server(service=Forward(target), trace=True) as front,
        dial(front.address) as peer,
    ):
        connected(front)
        target.accept(timeout=SOON)[0].close()
        assert peer.recv(1) == b""
        peer.close()
        record = only(front)
    assert record.closed_by == "service"
    drawing = record.ladder()
    readable(drawing)
    assert crossings(drawing)[-4:] == ["far FIN <", "near FIN <", "near FIN >", "far FIN >"]


def test_a_client_that_resets_is_passed_on() -> None:
    with (
        Server(service=Accept()) as target,
        Server(service=Forward(target), trace=True) as front,
    ):
        with front.client(timeout=SOON) as client:
            connected(front)
            client.abort()
        drawing = only(front).ladder()
        conn, _ = target.accept(timeout=SOON)
        with conn, pytest.raises(ConnectionResetError):
            conn.recv(1)
    readable(drawing)
    assert crossings(drawing)[-2:] == ["near RST >", "far RST >"]


def test_a_long_forward_says_what_it_leaves_out(echo: Server) -> None:
    with Server(service=Forward(echo), trace=Trace(events=10_000)) as front:
        with dial(front.address) as peer:
            for number in range(200):
                assert says_back(peer, b"%040d" % number)
        record = only(front)
    for most in (8, 40, 10_000):
        drawing = record.ladder(most=most)
        seen = readable(drawing)
        gaps = [text for text in seen if "more events" in text]
        assert len(gaps) == (most < 1_000)
        assert all("far in (" in gap for gap in gaps)


def test_faults_pauses_and_long_names_fit(directory: Path) -> None:
    target_path = directory / ("a-very-long-name-" * 4)
    with (
        Server(path=target_path) as target,
        Server(
            path=directory / ("another-" * 8),
            service=Forward(target),
            trace=True,
            faults=[Latency(0.02, jitter=0.001)],
        ) as front,
    ):
        with front.client(timeout=SOON) as client:
            message = "한글 message \u202e\x1b]0;x\x07".encode() * 3
            assert says_back(client, message)
            # Long enough to be named.
            time.sleep(0.15)
            assert says_back(client, message)
        drawing = only(front).ladder()
    seen = readable(drawing)
    assert any("latency" in text for text in seen)
    assert any(text.endswith(" later") for text in seen)
    assert "end of stream" in seen
    assert "SYN" not in seen


def test_a_forwarder_of_datagrams_has_three_lines_and_no_handshake() -> None:
    with (
        Server(transport="udp") as target,
        Server(transport="udp", service=Forward(target), trace=True) as front,
        front.client(timeout=SOON) as client,
    ):
        client.send(b"hello")
        assert client.recv(100) == b"hello"
        [record] = front.ledger.open
        wait_until(lambda: record.messages_out == 1)
        drawing = record.ladder()
    readable(drawing)
    label = "5 B  'hello'"
    assert crossings(drawing) == [
        f"near {label} >",
        f"far {label} >",
        f"far {label} <",
        f"near {label} <",
    ]


def test_ipv6_addresses_fit() -> None:
    with Server("::1") as target, Server("::1", service=Forward(target), trace=True) as front:
        with socket.create_connection(front.address[:2], timeout=SOON) as peer:
            assert says_back(peer)
        seen = readable(only(front).ladder())
    assert any(text.startswith("[::1]:") for text in seen)


# The ends of a connection that is not forwarded.


def close(conn: Connection) -> None:
    conn.close()


def abort(conn: Connection) -> None:
    conn.abort()


def finish_and_abort(conn: Connection) -> None:
    conn.shutdown(socket.SHUT_WR)
    info = conn.tcp_info
    assert info is not None
    conn.abort()


@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("end", [close, abort, finish_and_abort])
def test_a_ladder_says_whether_it_was_fin_or_rst(end: object, unread: bool) -> None:
    assert callable(end)
    with Server(service=Accept(), trace=True) as server, dial(server.address) as peer:
        conn, _ = server.accept(timeout=SOON)
        peer.sendall(b"hello!")
        assert conn.recv_exactly(5 if unread else 6)
        end(conn)
        record = only(server)
    drawing, states = record.ladder(), record.states()
    seen = readable(drawing)
    readable(states)
    assert "FIN, or RST" not in drawing.text
    is_reset = unread or end is not close
    assert ("RST" in seen) is is_reset
    # A FIN before the close has no time.
    expected = {close: [] if unread else ["FIN"], finish_and_abort: ["FIN, time unknown"]}
    assert [text for text in seen if "FIN" in text] == expected.get(end, [])
    assert ("recorded: closed by RST" in seen) is is_reset
    assert ("RFC 1122" in " ".join(seen)) is unread
    assert ("RST" in states.text) is is_reset
    # It is recorded, so it is no dashed line.
    line = [line for line in drawing.text.splitlines() if " RST " in line]
    assert not is_reset or "─ RST ─" in line[0]


def test_a_stop_is_drawn_as_it_was() -> None:
    for drain, word in ((0, "RST"), (SOON, "FIN")):
        with Server(trace=True) as server, dial(server.address) as peer:
            peer.sendall(b"hello")
            assert read_exactly(peer, 5) == b"hello"
            server.stop(drain)
            [record] = server.ledger.closed
        drawing = record.ladder()
        assert [each for each in ("FIN", "RST") if each in readable(drawing)] == [word]


def test_a_peer_of_a_unix_socket_gets_a_reset_for_unread_data(directory: Path) -> None:
    with Server(path=directory / "s", service=Accept(), trace=True) as server:
        with dial_path(str(directory / "s")) as peer:
            conn, _ = server.accept(timeout=SOON)
            peer.sendall(b"unread")
            conn.close()
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        seen = readable(only(server).ladder())
    assert "reset" in seen
    assert "RST" not in seen

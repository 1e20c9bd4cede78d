"""Ends of connections in drawings: in the order of time, and no more than is known of them."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from pathlib import Path
from typing import Literal

import pytest
from support import SOON, dial, dial_path, read_exactly, reset, says_back, wait_until
from support.drawings import SVG, parsed, readable, texts

from rsock import Accept, Connection, Drawing, Forward, Limits, Record, Script, Server
from rsock.faults import CloseAfter, Truncate

# Left to right: the client's line, and the server's. A forwarder has three.
TWO, THREE = (14, 60), (24, 56, 88)
BOTH = "FIN each way, order unknown <>"
UNKNOWN = "… client's close not recorded …"
GONE = "… had ended before …"
# Long enough to be named in both forms of a ladder.
PAUSE = 0.12


def only(server: Server) -> Record:
    [record] = server.ledger.wait(open=0, closed=1)
    return record


def ends(drawing: Drawing, lines: tuple[int, ...] = TWO, *, pauses: bool = False) -> list[str]:
    """What comes after the last read or write, in order; of a pause only that it is there.

    Pauses are left out where a test has made none: a slow machine makes its own.
    """
    seen = readable(drawing)
    found: list[str] = []
    for line in drawing.text.splitlines():
        if line[lines[0] : lines[0] + 1] not in ("│", "┊"):
            continue
        if "┊" in line:
            found += ["later"] * pauses
            continue
        for left, right in itertools.pairwise(lines):
            between = line[left + 1 : right]
            label = between.strip("─╌═ ▶◀●")
            if "─ " in between and "RST" not in label:
                found = []
            elif ("◀" in between) or ("▶" in between) or "…" in between:
                found.append(f"{label} {'<' * ('◀' in between)}{'>' * ('▶' in between)}".strip())
        found += [
            text for text in seen if text.startswith(("closed:", "still open")) and text in line
        ]
    return found


def test_a_reset_is_drawn_after_the_pause_before_it() -> None:
    with Server(trace=True) as server, dial(server.address) as peer:
        assert says_back(peer)
        time.sleep(PAUSE)
        reset(peer)
        drawing = only(server).ladder()
    assert ends(drawing, pauses=True) == ["later", "RST >", "closed: reset"]
    tops = {box.text.partition(" ms ")[2] or box.text: box.top for box in texts(parsed(drawing))}
    assert tops["later"] < tops["RST"] < tops["closed: reset"]


def test_the_ends_of_both_are_drawn_after_the_pause_before_them() -> None:
    with Server(trace=True) as server, dial(server.address) as peer:
        assert says_back(peer)
        time.sleep(PAUSE)
        peer.close()
        drawing = only(server).ladder()
    assert ends(drawing, pauses=True) == ["later", "FIN >", "FIN <", "closed: peer"]
    tops = [box.top for box in texts(parsed(drawing)) if box.text == "FIN"]
    later = max(box.top for box in texts(parsed(drawing)) if box.text.endswith("later"))
    assert all(top > later for top in tops)


def test_a_reset_by_this_end_has_the_time_of_the_close() -> None:
    with Server(trace=True) as server, dial(server.address) as peer:
        assert says_back(peer)
        time.sleep(PAUSE)
        server.stop(0)
        [record] = server.ledger.closed
    drawing = record.ladder()
    assert ends(drawing, pauses=True) == ["later", "RST <", "closed: stop"]
    [line] = [line for line in drawing.text.splitlines() if "─ RST ─" in line]
    assert line.endswith("s  closed: stop")


def test_the_end_of_a_client_that_is_still_open_is_not_invented() -> None:
    for limits in (Limits(idle=0.5), Limits(lifetime=0.8)):
        with Server(trace=True, limits=limits) as server, dial(server.address) as peer:
            assert says_back(peer)
            assert peer.recv(1) == b""
            record = only(server)
            drawing, states = record.ladder(), record.states()
        assert ends(drawing, pauses=True) == ["later", "FIN <", "closed: limit", UNKNOWN]
        assert "finished" not in readable(drawing)
        # The steps that may follow are told from those that did.
        readable(states)
        assert "│ 3. close(): send FIN" in states.text
        assert "┊ 4. ACK in" in states.text
        assert "┊ 6. after 60 s (2 MSL)" in states.text
        dashed = [
            line.get("stroke-dasharray")
            for line in parsed(states).iter(f"{SVG}line")
            if line.get("stroke-width") == "2.4"
        ]
        # Six steps and the legend.
        assert (dashed.count(None), len(dashed)) == (3, 7)


def test_of_a_closed_client_the_end_of_the_server_is_not_invented(echo: Server) -> None:
    with echo.client(timeout=SOON) as client:
        assert says_back(client)
        client.close()
        assert client.record is not None
        drawing = client.record.ladder()
    seen = readable(drawing)
    assert "… server's close not recorded …" in seen
    assert seen.count("FIN") == 1
    assert "… server's close not recorded …" in drawing.text


def test_no_pause_is_drawn_after_what_has_no_time(echo: Server) -> None:
    with echo.client(timeout=SOON) as client:
        assert says_back(client)
        time.sleep(PAUSE)
        assert client.record is not None
        sums = client.record.ladder()
    record = only(echo)
    with Server(trace=True) as server:
        with dial(server.address) as peer:
            for pause in (0.0, PAUSE, 0.0):
                time.sleep(pause)
                assert says_back(peer)
        hidden = only(server).ladder(most=2)
    for drawing in (sums, record.ladder()):
        assert not [text for text in readable(drawing) if text.endswith(" later")]
        assert " later" not in drawing.text
    # Nor between what is not drawn and what comes next.
    lines = hidden.text.splitlines()
    at = next(at for at, line in enumerate(lines) if "more events" in line)
    assert " later" not in lines[at + 1]


def test_a_handler_that_returns_does_not_know_when_the_client_ends() -> None:
    def answer(conn: Connection) -> None:
        conn.sendall(conn.recv_exactly(5))

    with Server(service=answer, trace=True) as server, dial(server.address) as peer:
        peer.sendall(b"hello")
        assert read_exactly(peer, 5) == b"hello"
        drawing = only(server).ladder()
    assert ends(drawing) == ["FIN <", "closed: local", UNKNOWN]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_after_a_truncation_the_order_of_the_ends_is_said_not_to_be_known(
    direction: Literal["up", "down"],
) -> None:
    with (
        Server(trace=True, faults=[Truncate(3, direction=direction)]) as server,
        dial(server.address) as peer,
    ):
        peer.sendall(b"hello")
        # The server was first.
        assert read_exactly(peer, 3) == b"hel"
        assert peer.recv(1) == b""
        peer.close()
        record = only(server)
    drawing, states = record.ladder(), record.states()
    assert record.closed_by == "peer"
    assert ends(drawing) == [BOTH, "closed: peer"]
    assert "which was first, is not recorded" in " ".join(readable(drawing))
    assert_no_path(states)
    assert "Both ends have sent FIN, but which was first is not recorded." in states.text


def assert_no_path(states: Drawing) -> None:
    """The path has neither the states of the end that was first, nor those of the other one."""
    readable(states)
    for name in ("FIN-WAIT-1", "CLOSE-WAIT", "LAST-ACK", "TIME-WAIT"):
        assert name not in states.text
    assert "[    CLOSED    ]  ◀ reported by the kernel" in states.text


def test_a_handler_that_finishes_first_is_not_drawn_as_the_second() -> None:
    def answer(conn: Connection) -> None:
        conn.shutdown(socket.SHUT_WR)
        assert conn.recv(1) == b""

    with Server(service=answer, trace=True) as server:
        with dial(server.address) as peer:
            assert peer.recv(1) == b""
        record = only(server)
    assert ends(record.ladder())[-2:] == [BOTH, "closed: peer"]
    assert_no_path(record.states())


def test_a_service_that_ends_does_not_claim_to_have_been_first() -> None:
    script = Script().expect(b"hello").send(b"bye")
    with Server(service=script, trace=True) as server:
        with dial(server.address) as peer:
            peer.sendall(b"hello")
            assert read_exactly(peer, 3) == b"bye"
            assert peer.recv(1) == b""
        record = only(server)
    assert record.closed_by == "service"
    assert ends(record.ladder()) == [BOTH, "closed: service"]
    assert_no_path(record.states())
    # As after a fault that closes.
    with Server(trace=True, faults=[CloseAfter(after_bytes=3)]) as server:
        with dial(server.address) as peer:
            peer.sendall(b"hello")
            assert peer.recv(1) == b""
        record = only(server)
    assert ends(record.ladder())[-2:] == [BOTH, "closed: fault"]


def test_a_client_that_resets_what_this_end_has_finished_has_sent_no_fin() -> None:
    script = Script().expect(b"hello").send(b"bye")
    with Server(service=script, trace=True) as server, dial(server.address) as peer:
        peer.sendall(b"hello")
        assert read_exactly(peer, 3) == b"bye"
        assert peer.recv(1) == b""
        reset(peer)
        record = only(server)
    assert record.closed_by == "service"
    assert ends(record.ladder()) == [GONE, "closed: service"]
    assert_no_path(record.states())
    for drawing in (record.ladder(), record.states()):
        assert "by RST of the peer, or by a" in drawing.text


def test_a_fin_that_came_before_the_close_comes_first_and_has_no_time() -> None:
    with Server(service=Accept(), trace=True) as server, dial(server.address) as peer:
        conn, _ = server.accept(timeout=SOON)
        peer.sendall(b"hello")
        assert conn.recv_exactly(5) == b"hello"
        peer.shutdown(socket.SHUT_WR)
        wait_until(lambda: state(conn) == "CLOSE-WAIT")
        [record] = server.ledger.open
        came = "FIN, time unknown >"
        assert ends(record.ladder()) == [came, "still open"]
        conn.close()
        record = only(server)
    assert ends(record.ladder()) == [came, "FIN <", "closed: local"]
    assert "LAST-ACK" in record.states().text


def state(conn: Connection) -> str:
    info = conn.tcp_info
    assert info is not None
    return info.state


def diverge(server: Server, peer: socket.socket) -> None:
    peer.sendall(b"other")


def stop(server: Server, peer: socket.socket) -> None:
    server.stop(0)


def abort(conn: Connection) -> None:
    conn.recv_exactly(5)
    conn.abort()


@pytest.mark.parametrize(
    ("service", "act", "by"),
    [
        (abort, diverge, "local"),
        (Script().expect(b"hello"), diverge, "error"),
        (Script().expect(b"hello"), stop, "stop"),
    ],
    ids=["abort", "script", "stop"],
)
def test_the_states_of_a_reset_by_this_end_have_no_orderly_end(
    service: object, act: object, by: str
) -> None:
    assert callable(act)
    with (
        Server(service=service, trace=True, on_error=lambda _: None) as server,  # type: ignore[arg-type]
        dial(server.address) as peer,
    ):
        server.ledger.wait(open=1)
        act(server, peer)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        record = only(server)
    assert record.closed_by == by
    states = record.states()
    readable(states)
    assert "│ 3. send RST" in states.text
    assert "FIN" not in states.text
    assert ends(record.ladder())[-2:] == ["RST <", f"closed: {by}"]


def no_number_is_covered(states: Drawing) -> None:
    """No circle of a number is under the box of a state."""
    root = parsed(states)
    nodes = [each for each in root.iter(f"{SVG}rect") if each.get("width") == "124"]
    circles = list(root.iter(f"{SVG}circle"))
    assert nodes
    assert circles
    for circle in circles:
        x, y, radius = (float(circle.get(name, "0")) for name in ("cx", "cy", "r"))
        for node in nodes:
            left, top = float(node.get("x", "0")), float(node.get("y", "0"))
            wide, high = float(node.get("width", "0")), float(node.get("height", "0"))
            beside = x + radius <= left or x - radius >= left + wide
            assert beside or y + radius <= top or y - radius >= top + high


@pytest.mark.parametrize("last", ["ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-1", "LAST-ACK", "CLOSING"])
def test_a_reset_leads_from_each_state_to_the_last_one(last: str) -> None:
    with Server(service=Accept(), trace=True) as server, dial(server.address) as peer:
        conn, _ = server.accept(timeout=SOON)
        # The FIN waits behind data for which the peer has no room, and so is not acknowledged.
        conn.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                conn.send(bytes(65_536))
        if last in ("CLOSE-WAIT", "LAST-ACK"):
            peer.shutdown(socket.SHUT_WR)
            wait_until(lambda: state(conn) == "CLOSE-WAIT")
        if last not in ("ESTABLISHED", "CLOSE-WAIT"):
            conn.shutdown(socket.SHUT_WR)
        if last == "CLOSING":
            peer.shutdown(socket.SHUT_WR)
        wait_until(lambda: state(conn) == last)
        conn.abort()
        record = only(server)
    assert record.reset_sent
    states = record.states()
    seen = readable(states)
    assert seen.count("send RST") == 1
    no_number_is_covered(states)
    text = states.text.splitlines()
    at = next(at for at, line in enumerate(text) if f"[{last:^14}]" in line)
    assert text[at].endswith("◀ reported by the kernel")
    assert text[at + 1].endswith("send RST")
    assert "[    CLOSED    ]" in text[at + 3]
    assert ends(record.ladder())[-2:] == ["RST <", "closed: local"]


def test_a_unix_socket_says_what_is_not_known_too(directory: Path) -> None:
    path = str(directory / "s")
    with Server(path=path, trace=True, faults=[Truncate(3)]) as server:
        with dial_path(path) as peer:
            peer.sendall(b"hello")
            assert read_exactly(peer, 3) == b"hel"
            assert peer.recv(1) == b""
        drawing = only(server).ladder()
    assert ends(drawing) == ["end each way, order unknown <>", "closed: peer"]
    with Server(path=path, trace=True, limits=Limits(idle=0.4)) as server:
        with dial_path(path) as peer:
            assert says_back(peer)
            assert peer.recv(1) == b""
            drawing = only(server).ladder()
    assert ends(drawing) == ["end of stream <", "closed: limit", UNKNOWN]


def test_a_forwarder_says_what_it_does_not_know_of_both(echo: Server) -> None:
    both = [BOTH, BOTH, "closed: peer"]
    with Server(service=Forward(echo), trace=True, faults=[Truncate(3)]) as front:
        with dial(front.address) as peer:
            peer.sendall(b"hello")
            assert read_exactly(peer, 3) == b"hel"
            assert peer.recv(1) == b""
        assert ends(only(front).ladder(), THREE) == both
    with Server(service=Forward(echo), trace=True, limits=Limits(idle=0.4)) as front:
        with dial(front.address) as peer:
            assert says_back(peer)
            assert peer.recv(1) == b""
            drawing = only(front).ladder()
    assert ends(drawing, THREE)[:3] == ["FIN <", "FIN >", "closed: limit"]
    assert "… closes of the other ends not recorded …" in readable(drawing)

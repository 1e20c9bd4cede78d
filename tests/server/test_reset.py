"""`Server.reset()`: a server that serves many examples, each as if it were the first."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import dial, given_back, held, wait_until

from rsock import (
    Accept,
    ByConnection,
    Connection,
    Echo,
    Forward,
    Greeting,
    Replay,
    Script,
    Server,
    StateError,
    Trace,
)
from rsock.faults import Corrupt, Drop, NeverAccept, Reset


def upper(conn: Connection) -> None:
    while data := conn.recv(1024):
        conn.sendall(data.upper())


def has_ended(client: socket.socket) -> bool:
    """Wait for the end of what the server sends, with FIN or RST."""
    try:
        while client.recv(100):
            pass
    except ConnectionResetError:
        pass
    return True


def forgotten(server: Server) -> bool:
    totals = server.ledger.totals
    counts = (totals.accepted, totals.open, totals.closed, totals.refused, totals.bytes_in)
    return list(server.ledger) == [] and counts == (0, 0, 0, 0, 0)


STREAMS: dict[str, Callable[[], dict[str, Any]]] = {
    "echo": dict,
    "four workers": lambda: {"workers": 4},
    "handler": lambda: {"service": upper},
    "handler with stages": lambda: {"service": upper, "faults": []},
    "script": lambda: {"service": Script().expect("x").expect("never")},
    "mixed": lambda: {"service": ByConnection(upper, rest=Echo())},
}


@pytest.mark.parametrize("options", STREAMS.values(), ids=STREAMS.keys())
def test_every_connection_ends_and_the_next_one_is_the_first(
    options: Callable[[], dict[str, Any]],
) -> None:
    with Server(trace=Trace(), **options()) as server:
        for _ in range(3):
            with dial(server.address) as quiet, dial(server.address) as heard:
                heard.sendall(b"x")
                records = server.ledger.wait(open=2)
                wait_until(lambda: server.ledger.totals.bytes_in == 1)
                assert sorted(record.id for record in records) == [1, 2]
                assert server.reset() is server
                assert forgotten(server)
                assert has_ended(quiet)
                assert has_ended(heard)
                assert server.errors == []
                assert server.script_results == []


def test_it_works_on_a_unix_path(tmp_path: Any) -> None:
    with Server(path=tmp_path / "sock") as server:
        client = server.client(timeout=5.0)
        server.ledger.wait(open=1)
        server.reset()
        assert forgotten(server)
        client.close()
        with server.client(timeout=5.0):
            [record] = server.ledger.wait(open=1)
            assert record.id == 1


@pytest.mark.parametrize("faults", [None, []], ids=["plain", "with stages"])
def test_connections_that_were_handed_out_and_the_queue_are_reset(faults: Any) -> None:
    options = {} if faults is None else {"faults": faults}
    with Server(service=Accept(), **options) as server:
        taken, waiting = dial(server.address), dial(server.address)
        with taken, waiting:
            conn, _ = server.accept(timeout=5.0)
            wait_until(lambda: server.waiting == 1)
            server.reset()
            assert forgotten(server)
            assert server.waiting == 0
            assert has_ended(taken)
            assert has_ended(waiting)
            with pytest.raises(OSError, match=r"Bad file descriptor|reset"):
                conn.sendall(b"x")
        with dial(server.address), server.accept(timeout=5.0)[0] as conn:
            assert conn.id == 1


@pytest.mark.parametrize(
    "service", [None, lambda data, _: data, Accept()], ids=["echo", "handler", "accept"]
)
def test_peers_of_a_udp_server_are_forgotten(service: Any) -> None:
    with Server(transport="udp", service=service) as server:
        for _ in range(3):
            with server.client(timeout=5.0) as client:
                client.send(b"hello")
                if isinstance(service, Accept):
                    assert server.accept(timeout=5.0)[0] == b"hello"
                else:
                    assert client.recv(10) == b"hello"
                [record] = server.ledger
                assert record.id == 1
                server.reset()
                assert forgotten(server)


def test_sessions_of_a_udp_forwarder_are_forgotten() -> None:
    with Server(transport="udp") as target:
        with Server(transport="udp", service=Forward(target)) as server:
            for _ in range(3):
                with server.client(timeout=5.0) as client:
                    client.send(b"hello")
                    assert client.recv(10) == b"hello"
                    assert [record.id for record in server.ledger] == [1]
                    server.reset()
                    assert forgotten(server)


def test_connections_that_arrive_all_the_time_are_all_accounted_for() -> None:
    stop = threading.Event()

    def flood(server: Server) -> None:
        while not stop.is_set():
            with contextlib.suppress(ConnectionError), dial(server.address) as client:
                client.sendall(b"x")

    with Server(workers=2) as server:
        thread = threading.Thread(target=flood, args=(server,))
        thread.start()
        try:
            for _ in range(50):
                server.reset()
                totals = server.ledger.totals
                assert totals.accepted == totals.open + totals.closed
                assert all(record.id >= 1 for record in server.ledger)
        finally:
            stop.set()
            thread.join()
        server.reset()
        assert forgotten(server)


def test_the_services_of_a_by_connection_begin_again() -> None:
    service = ByConnection(Greeting("first\n"), rest=Echo())
    with Server(service=service) as server:
        for _ in range(3):
            with server.client(timeout=5.0) as client:
                assert client.recv_line() == b"first\n"
            server.reset()


def test_the_results_of_a_script_are_those_since_the_reset() -> None:
    script = Script().expect("hello").send("bye")
    with Server(service=script) as other, Server(service=script) as server:
        for each in (other, server):
            with each.client(timeout=5.0) as client:
                client.sendall(b"hello")
                assert client.recv_exactly(3) == b"bye"
        assert [result.done for result in server.script_results] == [True]
        server.reset()
        assert server.script_results == []
        # Those of another server with the same script stay.
        assert [result.done for result in other.script_results] == [True]


def test_faults_draw_the_same_again_and_their_counts_begin_again() -> None:
    faults = [Corrupt(0.5), Reset(after_bytes=20, direction="down", connections=1)]
    with Server(faults=faults, seed=7) as server:
        answers = []
        for _ in range(3):
            with server.client(timeout=5.0) as client:
                client.sendall(bytes(40))
                with pytest.raises(ConnectionResetError) as raised:
                    client.recv_exactly(40)
                answers.append(getattr(raised.value, "partial"))  # noqa: B009
            with server.client(timeout=5.0) as client:
                client.sendall(bytes(40))
                answers.append(client.recv_exactly(40))
            assert [each.connections for each in server.faults.counts()] == [2, 1]
            server.reset()
            assert [each.connections for each in server.faults.counts()] == [0, 0]
        assert answers[:2] == answers[2:4] == answers[4:]
        assert answers[0] != bytes(20)


def test_a_fault_for_the_first_connections_that_was_added_later_begins_again() -> None:
    with Server(workers=1, faults=[]) as server:
        with server.client(timeout=5.0) as client:
            client.sendall(b"x")
            client.recv_exactly(1)
        server.faults.add(Reset(after_bytes=1, direction="up", connections=1))
        for _ in range(2):
            with server.client(timeout=5.0) as client:
                client.sendall(b"x")
                with pytest.raises(ConnectionResetError):
                    client.recv_exactly(1)
            server.reset()


def test_datagrams_are_dropped_as_before() -> None:
    with Server(transport="udp", faults=[Drop(0.5, direction="up")], seed=3) as server:
        rounds = []
        for _ in range(2):
            with server.client(timeout=5.0) as client:
                for number in range(20):
                    client.send(bytes([number]))
                wait_until(lambda: server.ledger.totals.messages_in == 20)
                answered = server.ledger.totals.messages_out
                rounds.append(sorted(client.recv(10) for _ in range(answered)))
            server.reset()
        assert rounds[0] == rounds[1]
        assert 0 < len(rounds[0]) < 20


def test_connections_that_a_fault_keeps_in_the_queue_stay_there() -> None:
    with Server(faults=[]) as server:
        with server.fault(NeverAccept()), dial(server.address) as client:
            wait_until(lambda: server.waiting == 1)
            server.reset()
            assert server.waiting == 1
            server.faults.clear()
            client.sendall(b"x")
            assert client.recv(1) == b"x"


def test_errors_of_handlers_are_neither_kept_nor_raised() -> None:
    def broken(conn: Connection) -> None:
        raise LookupError("no such record")

    with Server(service=broken, on_error="raise") as server:
        with dial(server.address) as client:
            assert has_ended(client)
        wait_until(lambda: len(server.errors) == 1)
        server.reset()
        assert server.errors == []
    assert server.wait().errors == 0


def test_a_follower_goes_on() -> None:
    with Server() as server:
        follower = server.ledger.follow(timeout=5.0)
        for number in range(3):
            with dial(server.address) as client:
                client.sendall(bytes(number + 1))
                client.shutdown(socket.SHUT_WR)
                assert has_ended(client)
            record = next(follower)
            assert (record.id, record.bytes_in) == (1, number + 1)
            server.reset()
        assert follower.missed == 0


def test_a_wait_for_a_later_count_goes_on() -> None:
    with Server() as server:
        found: list[int] = []

        def wait() -> None:
            found.append(len(server.ledger.wait(closed=2, timeout=10.0)))

        thread = threading.Thread(target=wait)
        with dial(server.address):
            pass
        server.ledger.wait(closed=1)
        thread.start()
        server.reset()
        for _ in range(2):
            with dial(server.address):
                pass
        thread.join()
        assert found[0] in (2, 3)


def test_records_that_were_kept_stay_as_they_are() -> None:
    with Server(trace=True) as server:
        with server.client(timeout=5.0) as client:
            client.sendall(b"hello")
            client.recv_exactly(5)
        [record] = server.ledger.wait(open=0, closed=1)
        server.reset()
        assert (record.bytes_in, record.closed_by) == (5, "peer")
        assert record.trace is not None


def test_a_handler_that_does_not_return_is_named_by_a_time_out() -> None:
    begun, held = threading.Event(), threading.Event()

    def stuck(conn: Connection) -> None:
        begun.set()
        held.wait(30)

    with Server(service=stuck) as server:
        with dial(server.address):
            assert begun.wait(10)
            with pytest.raises(TimeoutError, match="until 1 handler has returned"):
                server.reset(timeout=0.05)
            assert server.ledger.totals.accepted == 1
            held.set()
            server.reset()
        assert forgotten(server)


def test_it_is_an_error_in_a_handler_and_unless_the_server_serves() -> None:
    raised: list[BaseException] = []

    def resets(conn: Connection) -> None:
        server = conn.server
        assert server is not None
        try:
            server.reset(timeout=5.0)
        except RuntimeError as error:
            raised.append(error)

    server = Server(service=resets)
    with pytest.raises(StateError, match="new"):
        server.reset()
    with server, dial(server.address) as client:
        assert has_ended(client)
    assert "within a handler" in str(raised[0])
    with pytest.raises(StateError, match="stopped"):
        server.reset()


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan")])
def test_a_wrong_time_out_is_named(timeout: Any) -> None:
    with Server() as server, dial(server.address):
        server.ledger.wait(open=1)
        with pytest.raises((TypeError, ValueError), match="timeout"):
            server.reset(timeout=timeout)
        assert server.ledger.totals.open == 1


SHARED: list[Server] = []


@pytest.fixture
def shared() -> Any:
    with Server(faults=[Corrupt(0.01)], seed=1) as server:
        SHARED.append(server)
        yield server
        SHARED.clear()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(min_size=1, max_size=64), min_size=1, max_size=4))
def examples(messages: list[bytes]) -> None:
    server = SHARED[0].reset()
    for message in messages:
        with server.client(timeout=5.0) as client:
            client.sendall(message)
            assert len(client.recv_exactly(len(message))) == len(message)
    records = server.ledger.wait(open=0, closed=len(messages))
    assert [record.id for record in records] == list(range(1, len(messages) + 1))
    assert server.ledger.totals.bytes_in == sum(map(len, messages))


def test_one_server_serves_two_hundred_examples(shared: Server) -> None:
    with shared.client(timeout=5.0) as client:
        client.sendall(b"x")
        client.recv_exactly(1)
    shared.reset()
    # From the first connection on.
    before = held()
    examples()
    shared.reset()
    given_back(before)


RECORDED = r"""rsock recording 1
transport {transport}
started 2026-11-28T09:05:00.000001Z
target peer.test:7
1 0.000000 open 127.0.0.1:50001
1 0.000100 > b"one"
1 0.000200 < b"ONE"
2 0.000000 open 127.0.0.1:50002
2 0.000100 > b"two"
2 0.000200 < b"TWO"
stop 9
"""


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_replay_begins_with_the_first_connection(tmp_path: Any, transport: str) -> None:
    path = tmp_path / "dialogue.rec"
    path.write_text(RECORDED.format(transport=transport))
    with Server(service=Replay(path), transport=transport, on_error=lambda error: None) as server:
        for _ in range(3):
            for said, answer in ((b"one", b"ONE"), (b"two", b"TWO")):
                with server.client(timeout=5.0) as client:
                    client.send(said)
                    assert client.recv(10) == answer
            server.reset()
            assert server.script_results == []

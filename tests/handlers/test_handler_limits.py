"""Limits with Python handlers: open connections, running handlers, waiting connections."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from support import (
    LATE,
    SOON,
    Arrivals,
    Background,
    arrived,
    dial,
    ended,
    output_of,
    read_exactly,
    read_to_end,
    reset,
    says_back,
    threads,
    wait_until,
    was_reset,
)

from rsock import Accept, Connection, Limits, Server, StateError

Overflow = Literal["wait", "refuse"]


class Count:
    """How many threads are inside its `with` block now, and the highest number so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = self.all = 0

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.all += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


def echoes(conn: Connection) -> None:
    while data := conn.recv(65_536):
        conn.sendall(data)


def visit_all(address: tuple[str, int], clients: int, visits: int) -> None:
    """Clients that connect, exchange an echo where admitted, and leave, some with a reset."""

    def come_and_go() -> None:
        for number in range(visits):
            with contextlib.suppress(ConnectionError), dial(address) as peer:
                says_back(peer)
                if number % 3 == 0:
                    reset(peer)

    comers = [Background(come_and_go) for _ in range(clients)]
    for comer in comers:
        comer.result(20.0)


@contextlib.contextmanager
def accepting(server: Server, handler: Callable[[Connection], None], takers: int) -> Iterator[None]:
    """Threads that accept and serve, until the server stops."""

    def take() -> None:
        for conn, _ in server:
            with conn, contextlib.suppress(OSError):
                handler(conn)
            # Dropped, so that it is not held while the thread waits for the next one.
            del conn

    taking = [Background(take) for _ in range(takers)]
    yield
    server.stop()
    for each in taking:
        each.result()


# --- connections ---------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["wait", "refuse"])
@pytest.mark.parametrize("way", ["handlers", "accept"])
def test_the_limit_of_connections_is_never_exceeded(way: str, overflow: Overflow) -> None:
    count = Count()
    limits = Limits(connections=3, overflow=overflow)

    def serve(conn: Connection) -> None:
        with count:
            open_now = len(conn.server.ledger.open) if conn.server else 0
            assert open_now <= 3
            echoes(conn)

    service = serve if way == "handlers" else Accept()
    with Server(service=service, limits=limits, on_error="raise") as server:
        ledger = server.ledger
        with contextlib.ExitStack() as stack:
            if way == "accept":
                stack.enter_context(accepting(server, serve, takers=5))
            visit_all(server.address, clients=6, visits=15)
            # A client that left before its turn is accepted all the same, and then closed.
            wait_until(lambda: ledger.totals.accepted + ledger.totals.refused == 90)
            ledger.wait(open=0)
    totals = ledger.totals
    assert 1 <= count.most <= 3
    assert count.all == totals.accepted == totals.closed
    if overflow == "wait":
        assert totals.refused == 0


@pytest.mark.parametrize("way", ["handlers", "accept"])
def test_one_more_than_the_limit_waits_in_the_queue(way: str) -> None:
    limits = Limits(connections=2)
    service = echoes if way == "handlers" else Accept()
    with Server(service=service, limits=limits) as server, contextlib.ExitStack() as stack:
        if way == "accept":
            stack.enter_context(accepting(server, echoes, takers=3))
        first, second = dial(server.address), dial(server.address)
        with first, second, dial(server.address) as third:
            assert says_back(first)
            assert says_back(second)
            third.sendall(b"let me in")
            arrived(third)
            totals = server.ledger.totals
            assert (totals.accepted, totals.open, totals.waited) == (2, 2, 0)
            third.settimeout(0.1)
            with pytest.raises(TimeoutError):
                third.recv(1)
            third.settimeout(SOON)
            first.close()
            assert read_exactly(third, 9) == b"let me in"
            assert says_back(second)


@pytest.mark.parametrize("way", ["handlers", "accept"])
def test_one_more_than_the_limit_is_refused(way: str) -> None:
    limits = Limits(connections=1, overflow="refuse")
    service = echoes if way == "handlers" else Accept()
    with Server(service=service, limits=limits) as server, contextlib.ExitStack() as stack:
        if way == "accept":
            stack.enter_context(accepting(server, echoes, takers=2))
        with dial(server.address) as first:
            assert says_back(first)
            for number in range(1, 6):
                with contextlib.suppress(ConnectionResetError), dial(server.address) as other:
                    assert was_reset(other)
                wait_until(lambda wanted=number: server.ledger.totals.refused == wanted)  # type: ignore[misc]
            assert says_back(first)
        server.ledger.wait(open=0)
        with dial(server.address) as next_one:
            assert says_back(next_one)
        assert server.ledger.totals.accepted == 2


def test_accept_waits_while_the_limit_is_reached() -> None:
    with Server(service=Accept(), limits=Limits(connections=1)) as server:
        with dial(server.address), dial(server.address) as second:
            conn, _ = server.accept(SOON)
            with pytest.raises(TimeoutError):
                server.accept(0.05)
            accepting_second = Background(server.accept)
            wait_until(accepting_second.asleep)
            assert server.ledger.totals.accepted == 1
            conn.close()
            other, address = accepting_second.result()
            assert address == second.getsockname()
            other.close()


def test_accept_refuses_while_it_waits_and_the_limit_is_reached() -> None:
    limits = Limits(connections=1, overflow="refuse")
    with Server(service=Accept(), limits=limits) as server:
        with dial(server.address) as first, dial(server.address) as second:
            conn, _ = server.accept(SOON)
            # The program does not call accept for it, so it stays in the queue.
            assert server.ledger.totals.refused == 0
            with pytest.raises(TimeoutError):
                server.accept(0.05)
            assert was_reset(second)
            assert server.ledger.totals.refused == 1
            conn.sendall(b"unharmed")
            assert read_exactly(first, 8) == b"unharmed"
            conn.close()


# --- threads -------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_handlers_run_than_there_may_be_threads(most: int) -> None:
    count = Count()

    def serve(conn: Connection) -> None:
        with count:
            echoes(conn)

    with Server(service=serve, limits=Limits(handler_threads=most)) as server:
        visit_all(server.address, clients=7, visits=12)
        server.ledger.wait(open=0, closed=84)
        there = [name for name in threads().values() if name.startswith("rsock-handler")]
        assert len(there) == most
    assert count.most == most
    assert count.all == 84


def test_those_who_wait_for_a_thread_are_served_in_the_order_they_came() -> None:
    gate = threading.Event()
    order: list[int] = []

    def serve(conn: Connection) -> None:
        assert gate.wait(SOON)
        order.append(conn.record.remote.port or 0)

    with Server(service=serve, limits=Limits(handler_threads=1), on_error="raise") as server:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(dial(server.address)) for _ in range(20)]
            server.ledger.wait(open=20)
            gate.set()
            assert all([ended(peer) for peer in peers])
            assert order == [peer.getsockname()[1] for peer in peers]
        server.ledger.wait(open=0)


def test_those_who_wait_for_a_thread_are_open_and_counted() -> None:
    gate = threading.Event()
    at = Arrivals()

    def serve(conn: Connection) -> None:
        at.here()
        assert gate.wait(SOON)
        conn.sendall(b"served")

    with Server(service=serve, limits=Limits(handler_threads=2)) as server:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(dial(server.address)) for _ in range(2)]
            at.until(2)
            assert server.ledger.totals.waited == 0
            peers += [stack.enter_context(dial(server.address)) for _ in range(5)]
            server.ledger.wait(open=7)
            wait_until(lambda: server.ledger.totals.waited == 5)
            assert len(at.threads) == 2
            gate.set()
            assert [read_to_end(peer) for peer in peers] == [b"served"] * 7
        assert server.ledger.totals.waited == 5


def test_that_connections_wait_is_said_once_for_each_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def serve_four_at_a_time(server: Server, gate: threading.Event) -> None:
        with contextlib.ExitStack() as stack:
            gate.clear()
            at.threads.clear()
            peers = [stack.enter_context(dial(server.address)) for _ in range(2)]
            # Both threads are busy before a connection waits for one.
            at.until(2)
            peers += [stack.enter_context(dial(server.address)) for _ in range(2)]
            server.ledger.wait(open=4)
            gate.set()
            assert all([ended(peer) for peer in peers])

    at = Arrivals()
    gates = [threading.Event(), threading.Event()]
    with caplog.at_level(logging.DEBUG, logger="rsock"):
        for number, gate in enumerate(gates):

            def handler(conn: Connection, gate: threading.Event = gate) -> None:
                at.here()
                assert gate.wait(SOON)

            with Server(
                service=handler,
                limits=Limits(handler_threads=2),
                name=f"busy-{number}",
            ) as server:
                for _ in range(3):
                    serve_four_at_a_time(server, gate)
                said = [r for r in caplog.records if r.name == "rsock"][number:]
                assert [record.levelno for record in said] == [logging.WARNING]
                text = said[0].getMessage()
                assert str(server.port) in text
                assert "all 2 handler threads are busy" in text
                assert "handler_threads" in text
    assert len(caplog.records) == 2


def test_connections_that_come_before_the_threads_are_busy_are_counted_as_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    over = threading.Event()

    def stay(conn: Connection) -> None:
        assert over.wait(SOON)

    server = Server(service=stay, limits=Limits(handler_threads=2)).listen()
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(dial(server.address))
        stack.enter_context(server)
        stack.callback(over.set)
        wait_until(lambda: server.ledger.totals.waited == 3)
        # By the thread that has taken the last connection, and not when one is free again.
        wait_until(lambda: "all 2 handler threads are busy" in caplog.text)
    assert server.ledger.totals.waited == 3


def test_nothing_is_logged_while_no_connection_waits(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="rsock"):
        with Server(service=echoes, limits=Limits(handler_threads=6)) as server:
            with contextlib.ExitStack() as stack:
                # Exactly the maximum number of threads.
                peers = [stack.enter_context(dial(server.address)) for _ in range(6)]
                assert {says_back(peer) for peer in peers} == {True}
                assert server.ledger.totals.waited == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_connection_that_waits_for_a_thread_counts_as_open_for_the_limit() -> None:
    gate = threading.Event()
    limits = Limits(connections=2, handler_threads=1, overflow="refuse")

    def serve(conn: Connection) -> None:
        assert gate.wait(SOON)
        conn.sendall(b"served")

    with Server(service=serve, limits=limits) as server:
        with dial(server.address) as first, dial(server.address) as second:
            server.ledger.wait(open=2)
            with contextlib.suppress(ConnectionResetError), dial(server.address) as third:
                assert was_reset(third)
            gate.set()
            assert (read_to_end(first), read_to_end(second)) == (b"served", b"served")


def test_one_who_left_while_waiting_for_a_thread_is_still_handed_over() -> None:
    gate = threading.Event()
    got: list[bytes] = []

    def serve(conn: Connection) -> None:
        assert gate.wait(SOON)
        got.append(conn.recv_line())

    with Server(service=serve, limits=Limits(handler_threads=1), on_error="raise") as server:
        with dial(server.address) as first:
            server.ledger.wait(open=1)
            with dial(server.address) as second:
                second.sendall(b"second\n")
                server.ledger.wait(open=2)
            first.sendall(b"first\n")
            gate.set()
            assert ended(first)
        server.ledger.wait(open=0, closed=2)
    assert got == [b"first\n", b"second\n"]


# --- descriptors ---------------------------------------------------------------------------

FEW = """
import contextlib, resource, socket, sys, threading, time
from rsock import Accept, Server
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))

def echoes(conn):
    with conn:
        while data := conn.recv(100):
            conn.sendall(data)

def take():
    for conn, _ in server:
        threading.Thread(target=echoes, args=(conn,), daemon=True).start()
        del conn

def says_back(peer):
    peer.sendall(b"x")
    return peer.recv(1) == b"x"

server = Server(service=echoes if sys.argv[1] == "handlers" else Accept()).start()
if sys.argv[1] == "accept":
    taker = threading.Thread(target=take)
    taker.start()
with contextlib.ExitStack() as stack:
    served = [stack.enter_context(socket.create_connection(server.address, 5)) for _ in range(4)]
    print(all([says_back(peer) for peer in served]))
    waiting = []
    while True:
        try:
            waiting.append(stack.enter_context(socket.socket()))
        except OSError:
            break
    # The last descriptor is taken before the server has anything to accept.
    for peer in waiting:
        peer.settimeout(5)
        peer.connect(server.address)
    end = time.monotonic() + 5
    while not server.ledger.totals.accept_errors and time.monotonic() < end:
        time.sleep(0.005)
    errors = server.ledger.totals.accept_errors
    print(errors > 0, all([says_back(peer) for peer in served]))
    # The acceptor backs off: about ten attempts a second are not spinning.
    time.sleep(0.3)
    print(server.ledger.totals.accept_errors - errors <= 6)
    last = waiting.pop()
    last.sendall(b"x")
    for peer in waiting:
        peer.close()
    print(last.recv(1) == b"x", server.state)
server.stop()
if sys.argv[1] == "accept":
    taker.join(5)
    print(taker.is_alive())
"""


@pytest.mark.parametrize("way", ["handlers", "accept"])
def test_out_of_descriptors_the_next_is_served_once_one_is_free(way: str) -> None:
    out = output_of(FEW, way).split()
    assert out[:5] == ["True", "True", "True", "True", "True"]
    assert out[5:] == ["serving", *(["False"] if way == "accept" else [])]


def test_accept_out_of_descriptors_gives_up_at_its_timeout() -> None:
    code = """
import errno, os, resource, socket, time
from rsock import Accept, Server
server = Server(service=Accept()).start()
peer = socket.create_connection(server.address, 5)
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
held = []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass
began = time.monotonic()
try:
    server.accept(0.15)
except OSError as error:
    print(errno.errorcode[error.errno], 0.14 < time.monotonic() - began < 5)
os.close(held.pop())
conn, address = server.accept(5)
print(address == peer.getsockname())
conn.close()
print(server.stop().cause)
"""
    assert output_of(code).split() == ["EMFILE", "True", "True", "stop"]


def test_a_limit_never_keeps_a_stop_waiting() -> None:
    server = Server(service=Accept(), limits=Limits(connections=1)).start()
    with dial(server.address), dial(server.address):
        conn, _ = server.accept(SOON)
        waiting = Background(server.accept)
        wait_until(waiting.asleep)
        report = server.stop(10.0)
        assert report.seconds < LATE
        with pytest.raises(StateError):
            waiting.result()
        conn.close()

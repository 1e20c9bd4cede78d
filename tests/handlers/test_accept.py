"""`Accept()`: a connection is taken only when the program calls `accept`."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import os
import signal
import socket
import struct
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import (
    AT_ONCE,
    LATE,
    SOON,
    Arrivals,
    Background,
    Signal,
    arrived,
    dial,
    dial_narrow,
    drop,
    ended,
    error_number,
    given_back,
    held,
    payload,
    read_exactly,
    read_to_end,
    refused,
    reset,
    says_back,
    wait_until,
    was_reset,
)

from rsock import Accept, Connection, Echo, Limits, Record, Server, StateError

# A drain that no test waits for: a test that reaches it hangs.
LONG = 30.0

Accepted = tuple[Connection, tuple[str, int]]


@pytest.fixture
def server() -> Iterator[Server]:
    """A started server whose clients wait to be accepted."""
    with Server(service=Accept()) as server:
        yield server


# --- one at a time -------------------------------------------------------------------------


def test_a_client_that_is_not_accepted_is_connected_and_in_no_ledger(server: Server) -> None:
    with dial(server.address) as peer:
        peer.sendall(b"the first bytes.")
        arrived(peer)
        peer.settimeout(0.1)
        with pytest.raises(TimeoutError):
            peer.recv(1)
        totals = server.ledger.totals
        assert (totals.accepted, totals.open, len(server.ledger)) == (0, 0, 0)
        conn, _ = server.accept(SOON)
        assert conn.recv(100) == b"the first bytes."
        assert (server.ledger.totals.accepted, server.ledger.totals.open) == (1, 1)
        assert [record.id for record in server.ledger.open] == [conn.id]
        conn.close()


def test_accept_returns_a_connection_and_the_clients_address(server: Server) -> None:
    with dial(server.address) as peer:
        accepted = server.accept(SOON)
        assert type(accepted) is tuple
        conn, (host, port) = accepted
        with conn:
            assert type(conn) is Connection
            assert (host, port) == peer.getsockname() == conn.getpeername()
            assert conn.server is server
            assert isinstance(conn.record, Record)
            assert (conn.id, conn.record.id, conn.draining) == (1, 1, False)
            assert conn.five_tuple == (conn.fileno(), *server.address, host, port)
            assert conn.gettimeout() is None
            assert os.get_blocking(conn.fileno())
            peer.sendall(b"hello")
            assert conn.recv_exactly(5) == b"hello"
            conn.sendall(b"bye")
        assert read_exactly(peer, 3) == b"bye"
        assert ended(peer)


@pytest.mark.parametrize(
    ("peer_does", "closed_by"),
    [
        (lambda peer: None, "local"),
        (lambda peer: peer.shutdown(socket.SHUT_WR), "peer"),
        (reset, "reset"),
    ],
    ids=["nothing", "finishes", "resets"],
)
def test_the_record_says_who_ended_it(
    server: Server, peer_does: Callable[[socket.socket], object], closed_by: str
) -> None:
    with dial(server.address) as peer:
        conn, _ = server.accept(SOON)
        peer_does(peer)
        if closed_by != "local":
            with contextlib.suppress(ConnectionResetError):
                conn.recv(1)
        conn.close()
        [record] = server.ledger.closed
        assert record.closed_by == closed_by


def test_clients_are_accepted_in_the_order_they_came(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(10)]
        taken = [server.accept(SOON) for _ in peers]
        assert [address for _, address in taken] == [peer.getsockname() for peer in peers]
        assert [conn.id for conn, _ in taken] == list(range(1, 11))
        for conn, _ in taken:
            conn.close()


def test_one_thread_may_be_client_and_server() -> None:
    with Server(service=Accept()) as server, server.client(timeout=SOON) as client:
        conn, address = server.accept(SOON)
        with conn:
            assert address == client.getsockname()
            client.sendall(b"question\n")
            assert conn.recv_line() == b"question\n"
            conn.sendall(b"answer\n")
            assert client.recv_line() == b"answer\n"


def test_a_client_that_left_is_accepted_and_its_address_known(server: Server) -> None:
    peer = dial(server.address)
    address = peer.getsockname()
    reset(peer)
    conn, theirs = server.accept(SOON)
    assert theirs == address
    with pytest.raises(ConnectionResetError):
        conn.recv(1)
    conn.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_address_is_a_pair_in_every_family(host: str) -> None:
    with Server("::", service=Accept()) as server, dial((host, server.port)) as peer:
        conn, address = server.accept(SOON)
        with conn:
            assert address == (host, peer.getsockname()[1])


# --- waiting -------------------------------------------------------------------------------


def test_accept_gives_up_at_its_timeout(server: Server) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="accept") as caught:
        server.accept(timeout=0.1)
    assert 0.09 < time.monotonic() - began < 0.1 + LATE
    assert str(server.port) in str(caught.value)
    with dial(server.address) as peer:
        conn, address = server.accept(timeout=0.1)
        assert address == peer.getsockname()
        conn.close()


def test_a_timeout_of_nothing_takes_who_is_there_and_does_not_wait(server: Server) -> None:
    began = time.monotonic()
    with pytest.raises((TimeoutError, BlockingIOError)):
        server.accept(0)
    assert time.monotonic() - began < LATE
    with dial(server.address):
        conn, _ = server.accept(0)
        conn.close()


@pytest.mark.parametrize("timeout", [None, LONG])
def test_accept_waits_for_the_next_client(server: Server, timeout: float | None) -> None:
    accepting = Background(server.accept, timeout)
    wait_until(accepting.asleep)
    with dial(server.address) as peer:
        conn, address = accepting.result()
        assert address == peer.getsockname()
        conn.close()


@pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), ("1", TypeError)])
def test_a_timeout_that_is_none_is_refused(
    server: Server, timeout: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="timeout"):
        server.accept(timeout)


# --- starting ------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [[], ["create"], ["bind"], ["listen"], ["start"]])
def test_accept_does_the_steps_that_are_missing(steps: list[str]) -> None:
    server = Server(service=Accept())
    for step in steps:
        getattr(server, step)()
    with pytest.raises(TimeoutError):
        server.accept(0.01)
    assert server.state == "serving"
    with dial(server.address):
        server.accept(SOON)[0].close()
    server.stop()


def test_threads_that_accept_at_once_start_the_server_once() -> None:
    for _ in range(20):
        # Its name is resolved on another thread, so that every start begins before the first ends.
        server = Server("localhost", service=Accept())
        together = threading.Barrier(4)

        def accept_one(server: Server = server, together: threading.Barrier = together) -> int:
            together.wait(SOON)
            conn, _ = server.accept(SOON)
            with conn:
                sent: int = conn.send(b"accepted")
                return sent

        accepting = [Background(accept_one) for _ in range(4)]
        wait_until(lambda s=server: s.state == "serving")  # type: ignore[misc]
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                peer = stack.enter_context(dial(server.address))
                assert read_to_end(peer) == b"accepted"
            assert [call.result() for call in accepting] == [8] * 4
        assert server.state == "serving"
        server.stop()


def test_one_that_accepts_too_late_to_start_the_server_leaves_it_running() -> None:
    for start in ("start", "accept"):
        server = Server("localhost", service=Accept())
        together = threading.Barrier(8)

        def begin(start: str = start, together: threading.Barrier = together) -> None:
            together.wait(SOON)
            with contextlib.suppress(TimeoutError):
                getattr(server, start)(*([0.0] if start == "accept" else []))  # noqa: B023

        for call in [Background(begin) for _ in range(8)]:
            call.result()
        assert server.state == "serving"
        server.stop()


def test_a_loop_does_the_steps_that_are_missing() -> None:
    server = Server(service=Accept()).listen()
    with dial(server.address) as peer:
        for conn, address in server:
            assert address == peer.getsockname()
            conn.close()
            break
        assert server.state == "serving"
        assert ended(peer)
    server.stop()


def test_what_start_raises_comes_out_of_accept() -> None:
    with Server() as holder:
        server = Server("127.0.0.1", holder.port, Accept())
        with pytest.raises(OSError, match="Address already in use") as caught:
            server.accept(0.1)
        assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(OSError, match="Address already in use"):
            for _ in server:
                pass


@pytest.mark.parametrize("service", [None, Echo(), lambda conn: None], ids=["", "Echo", "handler"])
def test_with_another_service_there_is_nothing_to_accept(service: Any) -> None:
    server = Server(service=service)
    for call in (server.accept, lambda: server.accept(0.1), lambda: iter(server)):
        with pytest.raises(TypeError, match=r"Accept\(\)"):
            call()
    # Neither call has started the server.
    assert server.state == "new"


# --- loops ---------------------------------------------------------------------------------


def test_the_loop_of_the_study_notes() -> None:
    messages = []

    def visit(server: Server) -> None:
        for number in range(5):
            with dial(server.address) as peer:
                peer.sendall(b"message %d" % number)
                assert ended(peer)
        server.stop()

    with Server(service=Accept()) as server:
        visiting = Background(visit, server)
        for conn, (host, port) in server:
            message = conn.recv(1024)
            messages.append((message, host, port > 0))
            conn.close()
        visiting.result()
    assert messages == [(b"message %d" % number, "127.0.0.1", True) for number in range(5)]
    totals = server.ledger.totals
    assert (totals.accepted, totals.open, totals.closed_by["local"]) == (5, 0, 5)


def test_a_loop_can_be_left_and_begun_again(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(3)]
        for peer in peers:
            for conn, address in server:
                assert address == peer.getsockname()
                conn.close()
                break
        assert [ended(peer) for peer in peers] == [True] * 3


def test_a_loop_that_waits_holds_no_connection(server: Server) -> None:
    turns = iter(server)
    with dial(server.address):
        conn, _ = next(turns)
        conn.close()
        gone = weakref.ref(conn)
        del conn
        waiting = Background(next, turns)
        wait_until(waiting.asleep)
        assert gone() is None
    with dial(server.address) as peer:
        conn, address = waiting.result()
        assert address == peer.getsockname()
        conn.close()


def test_the_body_of_a_loop_may_stop_the_server() -> None:
    server = Server(service=Accept()).start()
    count = 0
    with dial(server.address) as first, dial(server.address) as second:
        for conn, _ in server:
            count += 1
            conn.close()
            report = server.stop(LONG)
        assert count == 1
        assert ended(first)
        assert was_reset(second)
    assert report.forced == 1
    assert report.seconds < LATE


def test_several_threads_may_accept_at_once(server: Server) -> None:
    taken: list[tuple[int, tuple[str, int]]] = []
    lock = threading.Lock()

    def take() -> None:
        for conn, address in server:
            with lock:
                taken.append((conn.id, address))
            conn.sendall(conn.recv_line())
            conn.close()
            del conn

    takers = [Background(take) for _ in range(5)]
    for taker in takers:
        wait_until(taker.asleep)
    names = []

    def come(count: int) -> None:
        for _ in range(count):
            with dial(server.address) as peer:
                names.append(peer.getsockname())
                assert says_back(peer, b"hello\n")

    comers = [Background(come, 15) for _ in range(4)]
    for comer in comers:
        comer.result(20.0)
    server.ledger.wait(open=0, closed=60)
    server.stop()
    for taker in takers:
        taker.result()
    assert sorted(number for number, _ in taken) == list(range(1, 61))
    assert sorted(address for _, address in taken) == sorted(names)


# --- stopping ------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, LONG])
def test_a_stop_ends_a_waiting_accept(server: Server, timeout: float | None) -> None:
    waiting = [Background(server.accept, timeout) for _ in range(3)]
    for each in waiting:
        wait_until(each.asleep)
    began = time.monotonic()
    server.stop(LONG)
    assert time.monotonic() - began < LATE
    for each in waiting:
        with pytest.raises(StateError, match="draining|stopped"):
            each.result()


def test_a_stop_ends_a_waiting_loop(server: Server) -> None:
    def count() -> int:
        return sum(1 for _ in server)

    counting = Background(count)
    wait_until(counting.asleep)
    server.stop(LONG)
    assert counting.result() == 0


def test_a_stopped_server_accepts_nothing() -> None:
    server = Server(service=Accept()).start()
    server.stop()
    with pytest.raises(StateError, match="stopped"):
        server.accept()
    with pytest.raises(StateError, match="stopped"):
        server.accept(0.1)
    assert list(server) == []


def test_a_listener_that_is_none_any_more_stops_the_server(server: Server) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(null, server.fileno())
    finally:
        os.close(null)
    with pytest.raises(OSError, match="accept") as caught:
        server.accept(SOON)
    assert caught.value.errno == errno.ENOTSOCK
    assert server.wait(SOON).cause == "accept error"


@pytest.mark.parametrize("drain", [0, LONG])
def test_those_in_the_queue_are_reset_and_counted(server: Server, drain: float) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(7)]
        for peer in peers:
            peer.sendall(b"unasked")
            arrived(peer)
        server.accept(SOON)[0].close()
        report = server.stop(drain)
        assert report.seconds < LATE
        assert (report.drained, report.forced, report.abandoned) == (0, 6, 0)
        assert [was_reset(peer) for peer in peers[1:]] == [True] * 6
        totals = server.ledger.totals
        assert (totals.accepted, totals.open, totals.closed) == (1, 0, 1)
    assert refused(server.address)


def test_connections_handed_out_are_closed_at_once_where_unused(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(5)]
        conns = [server.accept(SOON)[0] for _ in peers]
        report = server.stop(LONG)
        assert report.seconds < LATE
        assert (report.drained, report.forced) == (5, 0)
        assert [ended(peer) for peer in peers] == [True] * 5
        for conn in conns:
            assert conn.closed
            assert conn.draining
            assert conn.record.closed_by == "stop"
            with pytest.raises(OSError, match="the server has stopped") as caught:
                conn.recv(1)
            assert caught.value.errno == errno.EBADF
            conn.close()
    assert {record.closed_by for record in server.ledger.closed} == {"stop"}


def test_what_its_owner_would_wait_for_in_a_close_holds_up_no_stop(server: Server) -> None:
    with dial_narrow(server.address) as peer:
        conn, _ = server.accept(SOON)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, int(LONG)))
        conn.setblocking(False)
        data = payload(8 << 20)
        sent = conn.send(data)
        report = server.stop(LONG)
        assert report.seconds < LATE
        # The kernel delivers it nevertheless.
        assert read_to_end(peer) == data[:sent]


def test_one_with_something_unread_is_reset(server: Server) -> None:
    with dial(server.address) as peer:
        conn, _ = server.accept(SOON)
        peer.sendall(b"unread")
        arrived(peer)
        report = server.stop(LONG)
        assert report.seconds < LATE
        assert (report.drained, report.forced) == (0, 1)
        assert was_reset(peer)
        assert conn.closed


def test_a_call_of_another_thread_that_reads_gets_the_end(server: Server) -> None:
    with dial(server.address) as peer:
        conn, _ = server.accept(SOON)
        reading = Background(conn.recv, 10)
        wait_until(reading.asleep)
        report = server.stop(LONG)
        assert reading.result() == b""
        assert ended(peer)
    assert report.seconds < LATE
    assert (report.drained, report.forced) == (1, 0)


def test_a_call_of_another_thread_that_sends_is_waited_for() -> None:
    data = payload(16 << 20)
    for _ in range(3):
        server = Server(service=Accept()).start()
        with dial(server.address) as peer:
            conn, _ = server.accept(SOON)
            sending = Background(conn.sendall, data)
            wait_until(sending.asleep)
            stopping = Background(server.stop, LONG)
            wait_until(lambda s=server: s.state == "draining")  # type: ignore[misc]
            assert stopping.running
            # The first part of it; other tests check what the system still holds at the end.
            assert read_exactly(peer, 2 << 20) == data[: 2 << 20]
            with contextlib.suppress(ConnectionResetError):
                while peer.recv(1 << 20):
                    pass
            sending.result()
            report = stopping.result()
        assert report.drained + report.forced == 1
        assert server.ledger.closed[0].bytes_out == len(data)


def test_what_was_sent_before_the_stop_is_delivered(server: Server) -> None:
    data = payload(150_000)
    with dial_narrow(server.address) as peer:
        conn, _ = server.accept(SOON)
        # Into the system's buffers; the peer has almost no room for it.
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        conn.sendall(data)
        stopping = Background(server.stop, LONG)
        wait_until(lambda: stopping.asleep() or not stopping.running)
        assert read_to_end(peer) == data
        report = stopping.result()
    assert (report.drained, report.forced) == (1, 0)


def test_a_call_that_does_not_end_is_reset_at_the_deadline(server: Server) -> None:
    with dial(server.address) as peer:
        conn, _ = server.accept(SOON)
        sending = Background(conn.sendall, bytes(64 << 20))
        wait_until(sending.asleep)
        report = server.stop(0.3)
        assert 0.28 < report.seconds < 0.3 + LATE
        assert (report.drained, report.forced) == (0, 1)
        with pytest.raises(OSError, match="sendall"):
            sending.result()
        with pytest.raises(ConnectionResetError):
            while peer.recv(1 << 20):
                pass
        assert server.ledger.totals.open == 0


def test_no_drain_resets_those_in_a_call(server: Server) -> None:
    with dial(server.address) as peer:
        conn, _ = server.accept(SOON)
        reading = Background(conn.recv, 10)
        wait_until(reading.asleep)
        report = server.stop(0)
        assert report.seconds < LATE
        assert report.forced == 1
        assert was_reset(peer)
        with contextlib.suppress(OSError):
            assert reading.result() == b""


def test_stops_from_several_threads_give_the_same_report(server: Server) -> None:
    waiting = Background(server.accept)
    wait_until(waiting.asleep)
    with dial(server.address):
        conn, _ = waiting.result()
        stops = [Background(server.stop, LONG) for _ in range(6)]
        reports = [stop.result() for stop in stops]
        assert reports == [server.wait()] * 6
        assert conn.closed


def test_nothing_is_left_after_a_stop_with_everything_under_way() -> None:
    before = held()
    server = Server(service=Accept()).start()
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(dial(server.address))
        idle, _ = server.accept(SOON)
        busy, _ = server.accept(SOON)
        reading = Background(busy.recv, 1)
        wait_until(reading.asleep)
        report = server.stop(LONG)
        assert reading.result() == b""
        assert (report.drained, report.forced) == (2, 4)
        totals = server.ledger.totals
        assert (totals.accepted, totals.open, totals.closed) == (2, 0, 2)
        assert idle.closed
    del idle, busy
    given_back(before)


def test_the_connection_of_a_detached_descriptor_outlives_the_stop(server: Server) -> None:
    with dial(server.address) as peer:
        conn, _ = server.accept(SOON)
        with socket.socket(fileno=conn.detach()) as own:
            server.stop(0)
            own.sendall(b"still here")
            assert read_exactly(peer, 10) == b"still here"
    assert server.ledger.closed[0].closed_by == "detached"


# --- signals -------------------------------------------------------------------------------

TIMES = 30


def interrupted(call: Callable[[], object]) -> None:
    """Interrupt `call` once it is blocked."""
    with pytest.raises(KeyboardInterrupt), Signal() as sent:
        call()
    assert sent.after < AT_ONCE


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(
    "wait",
    [lambda server: server.accept(), lambda server: server.accept(LONG), lambda server: [*server]],
    ids=["accept", "accept with a timeout", "loop"],
)
def test_an_interrupt_ends_accept_and_none_is_lost(
    server: Server, wait: Callable[[Server], object]
) -> None:
    for _ in range(TIMES):
        interrupted(lambda: wait(server))
    assert server.state == "serving"
    with dial(server.address) as peer:
        conn, address = server.accept(SOON)
        assert address == peer.getsockname()
        conn.close()
    assert server.ledger.totals.accepted == 1


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_ends_accept_at_the_limit_of_connections() -> None:
    with Server(service=Accept(), limits=Limits(connections=1)) as server:
        with dial(server.address), dial(server.address):
            conn, _ = server.accept(SOON)
            for _ in range(5):
                interrupted(server.accept)
            conn.close()
            server.accept(SOON)[0].close()


def test_a_signal_that_raises_nothing_lets_accept_go_on(server: Server) -> None:
    signals: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: signals.append(number))
    try:
        with Signal(times=3):

            def come() -> socket.socket:
                wait_until(lambda: len(signals) == 3)
                return dial(server.address)

            coming = Background(come)
            conn, _ = server.accept(SOON)
            conn.close()
            coming.result().close()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(signals) == 3


# --- garbage -------------------------------------------------------------------------------


def test_an_unclosed_connection_warns_and_is_closed(server: Server) -> None:
    with dial(server.address) as peer:
        taken: list[Any] = [server.accept(SOON)]
        with pytest.warns(ResourceWarning, match="unclosed") as warned:
            drop(taken)
        assert len(warned) == 1
        assert str(peer.getsockname()[1]) in str(warned[0].message)
        assert ended(peer)
        server.ledger.wait(open=0, closed=1)


def test_an_unclosed_connection_makes_room_for_the_next() -> None:
    with Server(service=Accept(), limits=Limits(connections=1)) as server:
        with dial(server.address), dial(server.address) as second:
            taken: list[Any] = [server.accept(SOON)]
            with pytest.warns(ResourceWarning):
                drop(taken)
            conn, address = server.accept(SOON)
            assert address == second.getsockname()
            conn.close()


def test_a_closed_connection_goes_in_silence(server: Server) -> None:
    with dial(server.address):
        taken: list[Any] = [server.accept(SOON)]
        taken[0][0].close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            drop(taken)


def test_a_connection_does_not_keep_its_server_alive() -> None:
    before = held()
    servers = [Server(service=Accept()).start()]
    with dial(servers[0].address) as peer:
        conn, _ = servers[0].accept(SOON)
        with pytest.warns(ResourceWarning, match="never stopped"):
            drop(servers)
        assert conn.server is None
        assert ended(peer)
        closed = functools.partial(getattr, conn, "closed")
        wait_until(closed)
    del conn, closed
    given_back(before)


def test_a_server_is_not_collected_while_a_thread_waits_in_accept() -> None:
    def accept_and_stop(servers: list[Server]) -> None:
        server = servers.pop()
        conn, _ = server.accept()
        conn.sendall(b"hello")
        conn.close()
        server.stop()

    servers = [Server(service=Accept()).start()]
    address = servers[0].address
    waiting = Background(accept_and_stop, servers)
    wait_until(waiting.asleep)
    gc.collect()
    with dial(address) as peer:
        assert read_exactly(peer, 5) == b"hello"
        waiting.result()


def test_a_connection_passed_to_a_thread_is_served_there(server: Server) -> None:
    at = Arrivals()

    def serve(conn: Connection) -> None:
        with conn:
            at.here()
            while line := conn.recv_line():
                conn.sendall(line)

    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(5)]
        serving = [Background(serve, server.accept(SOON)[0]) for _ in peers]
        at.until(5)
        assert {says_back(peer, b"hello\n") for peer in peers} == {True}
        server.stop(LONG)
        for each in serving:
            each.result()
    assert server.ledger.totals.closed_by["stop"] == 5


def test_a_used_up_connection_is_a_plain_bad_descriptor(server: Server) -> None:
    with dial(server.address):
        conn, _ = server.accept(SOON)
        conn.close()
        assert error_number(lambda: conn.recv(1)) == errno.EBADF
        assert conn.fileno() == -1

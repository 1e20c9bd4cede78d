"""How a server stops: it delivers what it owes until a deadline, and then it closes everything."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from support import (
    LATE,
    Background,
    all_say_back,
    arrived,
    dial,
    dial_narrow,
    given_back,
    held,
    payload,
    read_exactly,
    read_to_end,
    says_back,
    send_until_stuck,
    threads,
    wait_until,
)

from rsock import Limits, Server, SocketOptions


def peers_that_have_sent(
    server: Server, count: int, stack: contextlib.ExitStack
) -> list[socket.socket]:
    peers = [stack.enter_context(dial(server.address)) for _ in range(count)]
    assert all_say_back(peers)
    return peers


def until_draining(server: Server) -> None:
    wait_until(lambda: server.state == "draining")


# --- idle connections ----------------------------------------------------------------------


def test_stopping_an_idle_server_ends_every_connection_in_order_and_at_once(workers: int) -> None:
    server = Server(workers=workers).start()
    with contextlib.ExitStack() as stack:
        peers = peers_that_have_sent(server, 100, stack)
        began = time.monotonic()
        report = server.stop(10.0)
        assert time.monotonic() - began < LATE
        assert (report.drained, report.forced) == (100, 0)
        assert report.seconds < LATE
        assert [peer.recv(1) for peer in peers] == [b""] * 100
    assert {record.closed_by for record in server.ledger.closed} == {"stop"}


def test_stopping_a_server_without_clients_takes_no_time() -> None:
    for _ in range(20):
        server = Server().start()
        began = time.monotonic()
        server.stop(10.0)
        assert time.monotonic() - began < LATE


def test_a_connection_that_last_sent_long_ago_is_idle_too() -> None:
    server = Server().start()
    with dial(server.address) as peer:
        data = payload(300_000)
        sender = Background(peer.sendall, data)
        assert read_exactly(peer, len(data)) == data
        sender.result()
        report = server.stop(10.0)
        assert peer.recv(1) == b""
    assert (report.drained, report.forced) == (1, 0)
    assert report.seconds < LATE


# --- data in flight ------------------------------------------------------------------------


def test_what_was_sent_before_the_stop_is_echoed_before_the_end() -> None:
    for round_ in range(20):
        server = Server().start()
        with contextlib.ExitStack() as stack:
            peers = peers_that_have_sent(server, 10, stack)
            data = payload(10_000, seed=round_)
            for peer in peers:
                peer.sendall(data)
                arrived(peer)
            report = server.stop(5.0)
            assert [read_to_end(peer) == data for peer in peers] == [True] * 10
        assert (report.drained, report.forced) == (10, 0)


# A small send buffer, so that little fits into the system on the way to a peer that does not read;
# everything that a peer sends here fits into the server's receive buffer.
NARROW = SocketOptions(send_buffer=16 << 10)


@pytest.mark.parametrize("finished", [False, True], ids=["still open", "finished"])
def test_a_backlog_owed_is_delivered_to_one_who_reads_it_during_the_drain(finished: bool) -> None:
    data = payload(100_000)
    for _ in range(5):
        server = Server(drain=10.0, options=NARROW).start()
        with dial_narrow(server.address, 16 << 10) as peer:
            peer.sendall(data)
            arrived(peer)
            if finished:
                peer.shutdown(socket.SHUT_WR)
            stopping = Background(server.stop)
            until_draining(server)
            assert stopping.running
            assert read_to_end(peer) == data
            report = stopping.result()
        assert (report.drained, report.forced) == (1, 0)


def test_what_was_echoed_to_a_drained_connection_arrives() -> None:
    # More of the peer's bytes are in flight when the server closes. They may be lost, but must not
    # discard what the server has sent.
    for _ in range(20):
        server = Server(drain=10.0).start()
        with dial_narrow(server.address, 32 << 10) as peer:
            data = payload(16 << 20)
            sent = send_until_stuck(peer, data, 0.05)
            stopping = Background(server.stop)
            until_draining(server)
            got = bytearray()
            with contextlib.suppress(ConnectionResetError):
                while part := peer.recv(1 << 16):
                    got += part
            report = stopping.result()
        assert (report.drained, report.forced) == (1, 0)
        [record] = server.ledger.closed
        assert len(got) == record.bytes_out <= sent
        assert data.startswith(bytes(got))


def test_stop_while_clients_are_sending(workers: int) -> None:
    server = Server(workers=workers).start()
    data = payload(4 << 20)

    def talk(peer: socket.socket) -> bytes:
        """Send without end and read what comes back, until the other side closes."""
        over = threading.Event()

        def send() -> None:
            with contextlib.suppress(OSError):
                while not over.is_set():
                    peer.sendall(data)

        sender = Background(send)
        got = bytearray()
        try:
            while part := peer.recv(1 << 16):
                got += part
        except ConnectionResetError:
            pass
        finally:
            over.set()
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            sender.result()
        return bytes(got)

    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(5)]
        talks = [Background(talk, peer) for peer in peers]
        wait_until(lambda: server.ledger.totals.bytes_out > 1 << 20)
        report = server.stop(0.4)
        # Measured by the server's own clock: this thread shares the interpreter with ten others.
        assert report.seconds < 0.4 + LATE
        assert report.drained + report.forced == 5
        for talk_ in talks:
            got = talk_.result()
            assert got
            for start in range(0, len(got), len(data)):
                part = got[start : start + len(data)]
                assert data.startswith(part)
    wait_until(lambda: not threads())
    totals = server.ledger.totals
    assert (totals.accepted, totals.open, totals.closed) == (5, 0, 5)


# --- connections that have sent nothing ----------------------------------------------------


def test_a_connection_that_never_sent_has_a_quarter_of_a_second_for_its_first_byte() -> None:
    server = Server().start()
    with dial(server.address) as silent:
        server.ledger.wait(open=1)
        report = server.stop(10.0)
        assert 0.2 < report.seconds < 0.25 + LATE
        assert silent.recv(1) == b""
    assert (report.drained, report.forced) == (1, 0)


def test_a_first_byte_within_the_grace_is_answered() -> None:
    server = Server().start()
    with dial(server.address) as late:
        server.ledger.wait(open=1)
        stopping = Background(server.stop, 10.0)
        until_draining(server)
        late.sendall(b"just in time")
        assert read_to_end(late) == b"just in time"
        report = stopping.result()
    assert (report.drained, report.forced) == (1, 0)


def test_the_grace_is_never_longer_than_the_drain() -> None:
    server = Server().start()
    with dial(server.address):
        server.ledger.wait(open=1)
        report = server.stop(0.05)
    assert 0.04 < report.seconds < 0.05 + LATE
    assert report.drained + report.forced == 1


# --- connections still in the queue --------------------------------------------------------


def test_connections_queued_at_the_moment_of_the_stop_are_served(workers: int) -> None:
    for _ in range(10):
        server = Server(workers=workers).listen()
        with contextlib.ExitStack() as stack:
            queued = [stack.enter_context(dial(server.address)) for _ in range(20)]
            for peer in queued:
                peer.sendall(b"queued")
                arrived(peer)
            server.start()
            report = server.stop(5.0)
            assert [read_to_end(peer) for peer in queued] == [b"queued"] * 20
        assert (report.drained, report.forced) == (20, 0)
        assert server.ledger.totals.accepted == 20


def test_those_queued_behind_a_limit_do_not_keep_the_stop_waiting(workers: int) -> None:
    server = Server(workers=workers, limits=Limits(connections=1)).start()
    with dial(server.address) as first, dial(server.address) as second:
        assert says_back(first)
        second.sendall(b"hello")
        arrived(second)
        report = server.stop(2.0)
        assert report.seconds < 2.0 + LATE
        assert first.recv(1) == b""
        with contextlib.suppress(ConnectionResetError):
            assert second.recv(10) in (b"", b"hello")


def test_a_server_stopped_before_it_started_leaves_no_client_hanging(workers: int) -> None:
    server = Server(workers=workers).listen()
    with dial(server.address) as queued:
        server.stop()
        with contextlib.suppress(ConnectionResetError):
            assert queued.recv(1) == b""


# --- the deadline --------------------------------------------------------------------------


def test_no_drain_resets_every_connection() -> None:
    server = Server().start()
    with contextlib.ExitStack() as stack:
        peers = peers_that_have_sent(server, 20, stack)
        report = server.stop(0)
        assert report.seconds < LATE
        assert (report.drained, report.forced) == (0, 20)
        for peer in peers:
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
    assert {record.closed_by for record in server.ledger.closed} == {"stop"}


def test_no_drain_as_the_servers_own_default() -> None:
    server = Server(drain=0).start()
    with dial(server.address) as peer:
        assert says_back(peer)
        assert server.stop().forced == 1
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_one_that_never_reads_is_forced_at_the_deadline() -> None:
    server = Server(drain=0.3).start()
    with dial(server.address) as stuck, dial(server.address) as idle:
        assert says_back(idle)
        send_until_stuck(stuck, payload(16 << 20))
        report = server.stop()
        assert 0.28 < report.seconds < 0.3 + LATE
        assert (report.drained, report.forced) == (1, 1)
        assert idle.recv(1) == b""
        with pytest.raises(ConnectionResetError):
            read_to_end(stuck)
    assert server.ledger.totals.closed_by["stop"] == 2


def test_the_idle_are_not_kept_waiting_for_the_deadline_of_the_stuck() -> None:
    server = Server().start()
    with dial(server.address) as stuck, dial(server.address) as idle:
        assert says_back(idle)
        send_until_stuck(stuck, payload(16 << 20))
        stopping = Background(server.stop, 20.0)
        assert idle.recv(1) == b""
        assert stopping.running
        assert server.state == "draining"
        server.stop(0)
        stopping.result()


def test_a_second_stop_takes_the_earlier_deadline() -> None:
    server = Server().start()
    with dial(server.address) as stuck:
        send_until_stuck(stuck, payload(16 << 20))
        began = time.monotonic()
        first = Background(server.stop, 30.0)
        until_draining(server)
        report = server.stop(0.2)
        assert time.monotonic() - began < LATE
        assert first.result() == report
    assert report.forced == 1


def test_a_second_stop_never_moves_the_deadline_out() -> None:
    server = Server().start()
    with dial(server.address) as stuck:
        send_until_stuck(stuck, payload(16 << 20))
        first = Background(server.stop, 0.3)
        until_draining(server)
        report = server.stop(30.0)
        assert report.seconds < 0.3 + LATE
        assert first.result() == report


def test_a_drain_longer_than_any_life_is_no_overflow() -> None:
    server = Server().start()
    with dial(server.address) as peer:
        assert says_back(peer)
        assert server.stop(1e12).drained == 1


# --- afterwards ----------------------------------------------------------------------------


def test_nothing_is_left_after_a_stop(workers: int) -> None:
    server = Server(workers=workers)
    with socket.socket() as stuck:
        before = held()
        server.start()
        with contextlib.ExitStack() as stack:
            peers_that_have_sent(server, 10, stack)
            stuck.connect(server.address)
            send_until_stuck(stuck, payload(16 << 20))
            server.stop(0.1)
        # The server object still exists, and holds no resources.
        given_back(before)
        assert server.state == "stopped"


def test_the_ledger_is_complete_when_stop_returns() -> None:
    server = Server().start()
    with contextlib.ExitStack() as stack:
        peers_that_have_sent(server, 30, stack)
        server.stop(0.2)
        totals = server.ledger.totals
        assert (totals.accepted, totals.open, totals.closed) == (30, 0, 30)
        assert (totals.bytes_in, totals.bytes_out) == (150, 150)
        assert server.ledger.open == []
        assert len(server.ledger.closed) == 30


def test_a_client_outlives_its_server() -> None:
    server = Server().start()
    with server.client(timeout=5.0) as client:
        assert says_back(client)
        server.stop()
        assert client.recv(1) == b""
        assert client.recv(1) == b""

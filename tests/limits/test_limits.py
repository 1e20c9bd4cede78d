"""Limits hold for every kind of client."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from support import (
    LATE,
    Background,
    arrived,
    dial,
    dial_narrow,
    output_of,
    payload,
    read_to_end,
    reset,
    says_back,
    send_until_stuck,
)

from rsock import Limits, Server, SocketOptions


def test_one_more_than_the_limit_waits_until_another_leaves(workers: int) -> None:
    with Server(workers=workers, limits=Limits(connections=2, overflow="wait")) as server:
        with dial(server.address) as first, dial(server.address) as second:
            assert says_back(first)
            assert says_back(second)
            with dial(server.address) as third:
                third.sendall(b"let me in")
                arrived(third)
                assert says_back(first)
                totals = server.ledger.totals
                assert (totals.accepted, totals.open) == (2, 2)
                third.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    third.recv(1)
                third.settimeout(5.0)
                first.close()
                assert third.recv(100) == b"let me in"
                assert says_back(second)
        assert server.ledger.totals.refused == 0


def test_those_waiting_are_served_one_after_the_other(workers: int) -> None:
    with (
        Server(workers=workers, limits=Limits(connections=1)) as server,
        contextlib.ExitStack() as stack,
    ):
        peers = [stack.enter_context(dial(server.address)) for _ in range(10)]
        for number, peer in enumerate(peers):
            peer.sendall(b"%d" % number)
        for number, peer in enumerate(peers):
            assert peer.recv(10) == b"%d" % number
            assert len(server.ledger.open) == 1
            peer.close()
        server.ledger.wait(open=0, closed=10)


def test_one_more_than_the_limit_is_refused_at_once(workers: int) -> None:
    with Server(workers=workers, limits=Limits(connections=2, overflow="refuse")) as server:
        with dial(server.address) as first, dial(server.address) as second:
            assert says_back(first)
            assert says_back(second)
            for number in range(1, 6):
                with pytest.raises(ConnectionResetError), dial(server.address) as third:
                    third.recv(1)
                assert server.ledger.totals.refused == number
            assert says_back(first)
            assert says_back(second)
        server.ledger.wait(open=0)
        with dial(server.address) as fourth:
            assert says_back(fourth)
        totals = server.ledger.totals
        assert (totals.accepted, totals.refused) == (3, 5)


@pytest.mark.parametrize("overflow", ["wait", "refuse"])
def test_the_limit_is_never_exceeded(overflow: str, workers: int) -> None:
    limits = Limits(connections=4, overflow="wait" if overflow == "wait" else "refuse")
    with Server(workers=workers, limits=limits) as server:
        over = threading.Event()
        most = 0

        def come_and_go() -> None:
            for number in range(40):
                with contextlib.suppress(ConnectionError), dial(server.address) as peer:
                    says_back(peer)
                    if number % 3 == 0:
                        reset(peer)

        def watch() -> int:
            most = 0
            while not over.is_set():
                most = max(most, len(server.ledger.open), server.ledger.totals.open)
            return most

        watching = Background(watch)
        clients = [Background(come_and_go) for _ in range(8)]
        try:
            for client in clients:
                client.result(20.0)
        finally:
            over.set()
        most = watching.result()
        server.ledger.wait(open=0)
        totals = server.ledger.totals
        assert 1 <= most <= 4
        assert totals.accepted + totals.refused == 320
        if overflow == "wait":
            assert totals.refused == 0


def test_a_peer_that_finished_and_does_not_read_the_rest_is_given_up() -> None:
    # The system's buffers are small, so that most of what the server owes stays unsent.
    options = SocketOptions(send_buffer=4_608)
    with Server(limits=Limits(half_close=0.3), options=options) as server:
        with dial_narrow(server.address) as peer, dial(server.address) as other:
            assert says_back(other)
            peer.sendall(payload(40_000))
            peer.shutdown(socket.SHUT_WR)
            arrived(peer)
            server.ledger.wait(open=1, closed=1, timeout=5.0)
            [record] = server.ledger.closed
            assert (record.closed_by, record.limit) == ("limit", "half_close")
            assert record.bytes_in == 40_000
            assert record.bytes_out < 40_000
            assert 0.25 < record.seconds < LATE
            with pytest.raises(ConnectionResetError):
                read_to_end(peer)
            assert says_back(other)
        assert server.ledger.totals.closed_by["limit"] == 1


def test_a_peer_that_finished_and_reads_in_time_is_not_given_up() -> None:
    data = payload(40_000)
    options = SocketOptions(send_buffer=4_608)
    with Server(limits=Limits(half_close=5.0), options=options) as server:
        with dial_narrow(server.address, 16 << 10) as peer:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            assert read_to_end(peer) == data
        server.ledger.wait(open=0, closed=1)
        [record] = server.ledger.closed
        assert (record.closed_by, record.limit) == ("peer", None)


def test_the_write_buffer_bounds_what_is_held_for_one_who_does_not_read() -> None:
    options = SocketOptions(send_buffer=16 << 10, receive_buffer=16 << 10)
    with Server(limits=Limits(write_buffer=8 << 10), options=options) as server:
        with dial_narrow(server.address) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)
            assert send_until_stuck(peer, payload(1 << 20)) < 1 << 20
            [record] = server.ledger.open
            # One read beyond the mark is needed to notice it.
            assert 0 < record.bytes_in - record.bytes_out <= (8 << 10) + (64 << 10)
            reset(peer)
        server.ledger.wait(open=0)


def test_a_large_write_buffer_takes_no_more_memory_than_it_holds() -> None:
    code = """
import resource
from rsock import LineEcho, Limits, Server
limit = 1 << 30
resource.setrlimit(resource.RLIMIT_AS, (2 * limit, resource.RLIM_INFINITY))
with Server(service=LineEcho(), limits=Limits(write_buffer=limit), drain=0) as server:
    clients = [server.client(timeout=5) for _ in range(5)]
    for client in clients:
        client.settimeout(0)
        # More answers than the kernel holds.
        for _ in range(16 << 10):
            try:
                client.send(b"x" * 1023 + b"\\n")
            except BlockingIOError:
                break
    with server.client(timeout=5) as other:
        other.sendall(b"still here\\n")
        print(other.recv_line())
"""
    assert output_of(code) == "b'still here\\n'\n"

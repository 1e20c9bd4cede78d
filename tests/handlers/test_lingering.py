"""The end of a handler's connection whose client keeps sending: the reply arrives in full.

A plain close would send a reset, which discards bytes that are still in flight.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from support import (
    Background,
    dial,
    dial_narrow,
    ended,
    fds,
    given_back,
    held,
    payload,
    read_exactly,
    read_to_end,
    reset,
    says_back,
    threads,
    wait_until,
    was_reset,
)
from support.roles import handled

from rsock import Accept, Connection, Limits, Server, SocketOptions

REPLY = payload(400_000, seed=7)
# The server's system has room for all of it, so that the handler returns before it has arrived.
ROOM = SocketOptions(send_buffer=1 << 20)


def reply(conn: Connection) -> None:
    conn.sendall(REPLY)


def reply_unread(conn: Connection) -> None:
    """Reply as soon as the receive queue holds input that will not be read."""
    conn.recv(1, socket.MSG_PEEK)
    conn.sendall(REPLY)


def served(server: Server, count: int = 1) -> None:
    """Wait until that number of handlers has returned."""
    server.ledger.wait(open=0, closed=count, timeout=10.0)


def worker() -> list[str]:
    return [name for name in threads().values() if name.startswith("rsock-worker")]


def lingers(server: Server) -> None:
    """Wait until a handler has returned, and its connection lingers."""
    served(server)
    wait_until(lambda: worker() != [], 10.0)


@contextlib.contextmanager
def flooding(peer: socket.socket) -> Iterator[None]:
    """`peer` keeps sending inside the `with` block."""
    over = threading.Event()

    def flood() -> None:
        with contextlib.suppress(ConnectionError):
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    peer.sendall(bytes(1 << 16))

    flood_thread = Background(flood)
    try:
        yield
    finally:
        over.set()
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)
        flood_thread.result(10.0)


# --- the reply -----------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [reply, reply_unread])
def test_a_reply_arrives_whole_though_the_client_floods(
    handler: Callable[[Connection], None],
) -> None:
    with Server(service=handler, on_error="raise") as server:
        for _ in range(20):
            with dial(server.address) as peer, flooding(peer):
                assert read_to_end(peer) == REPLY
        served(server, 20)
        assert server.ledger.totals.closed_by["local"] == 20
        assert server.ledger.totals.bytes_in == 0


def test_a_reply_arrives_whole_though_something_was_never_read() -> None:
    with Server(service=reply_unread, options=ROOM) as server:
        with dial_narrow(server.address) as peer:
            peer.sendall(b"never read")
            served(server)
            peer.sendall(b"nor this")
            assert read_to_end(peer) == REPLY
        [record] = server.ledger.closed
        assert (record.closed_by, record.bytes_in, record.bytes_out) == ("local", 0, len(REPLY))


def test_a_reply_arrives_whole_though_the_client_speaks_after_the_handler_has_returned() -> None:
    with Server(service=reply, options=ROOM) as server, dial_narrow(server.address) as peer:
        served(server)
        peer.sendall(b"too late")
        assert read_to_end(peer) == REPLY


def fail(conn: Connection) -> None:
    reply_unread(conn)
    raise LookupError("the handler's own")


def close_itself(conn: Connection) -> None:
    with conn:
        reply_unread(conn)


def reply_by_duplicate(conn: Connection) -> None:
    conn.recv(1, socket.MSG_PEEK)
    with conn.to_socket() as duplicate:
        duplicate.sendall(REPLY)


@pytest.mark.parametrize(
    ("handler", "closed_by"),
    [(fail, "error"), (close_itself, "local"), (reply_by_duplicate, "local")],
)
def test_it_arrives_whole_however_the_handler_ended_it(
    handler: Callable[[Connection], None], closed_by: str
) -> None:
    with Server(service=handler, options=ROOM, on_error=lambda error: None) as server:
        with dial_narrow(server.address) as peer:
            peer.sendall(b"never read")
            served(server)
            peer.sendall(b"nor this")
            assert read_to_end(peer) == REPLY
        [record] = server.ledger.closed
        assert record.closed_by == closed_by
        report = server.stop()
        assert report.errors == (closed_by == "error")


def test_a_duplicate_that_the_handler_kept_ends_with_its_connection() -> None:
    kept: list[socket.socket] = []

    def keep(conn: Connection) -> None:
        reply_unread(conn)
        kept.append(conn.to_socket())

    with handled(keep) as server:
        with dial(server.address) as peer:
            peer.sendall(b"never read")
            assert read_to_end(peer) == REPLY
        with kept.pop() as duplicate:
            duplicate.settimeout(10.0)
            with contextlib.suppress(ConnectionResetError):
                read_to_end(duplicate)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                duplicate.sendall(b"x")


# --- what stays unchanged --------------------------------------------------------------------


def test_where_nothing_is_left_unread_there_is_no_worker() -> None:
    def echo(conn: Connection) -> None:
        conn.sendall(conn.recv(100))

    with handled(echo) as server:
        for number in range(20):
            with dial(server.address) as peer:
                assert says_back(peer)
                assert ended(peer)
            served(server, number + 1)
        assert worker() == []


def test_all_lingering_closes_of_a_server_share_one_worker() -> None:
    with handled(reply_unread) as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(20)]
        for peer in peers:
            peer.sendall(b"never read")
        for peer in peers:
            assert read_to_end(peer) == REPLY
        assert worker() == ["rsock-worker-0"]
    assert worker() == []


def test_an_abort_is_a_reset_whatever_is_unread() -> None:
    def abort(conn: Connection) -> None:
        conn.recv(1, socket.MSG_PEEK)
        conn.abort()

    with handled(abort) as server, dial(server.address) as peer:
        peer.sendall(b"never read")
        assert was_reset(peer)
        assert worker() == []


def test_a_connection_of_accept_is_closed_as_any_socket() -> None:
    with Server(service=Accept(), drain=0.0) as server, dial(server.address) as peer:
        conn, _ = server.accept(10.0)
        peer.sendall(b"never read")
        conn.recv(1, socket.MSG_PEEK)
        conn.close()
        assert was_reset(peer)
        assert worker() == []


# --- time limits ---------------------------------------------------------------------------


def take_one_byte(conn: Connection) -> None:
    conn.sendall(conn.recv(1))


def second_is_served(server: Server) -> Background[bytes]:
    """A client that waits for the only slot."""

    def ask() -> bytes:
        with dial(server.address, timeout=20.0) as second:
            second.sendall(b"2")
            return read_to_end(second)

    return Background(ask)


def sockets_since(before: Counter[str]) -> int:
    """How many sockets this process has that it did not have before."""
    return sum(count for link, count in (fds() - before).items() if link.startswith("socket:"))


def test_the_next_client_does_not_wait_for_one_that_lingers() -> None:
    with Server(service=take_one_byte, limits=Limits(connections=1)) as server:
        with dial(server.address) as first:
            first.sendall(b"1 and more")
            assert read_to_end(first) == b"1"
            assert second_is_served(server).result(20.0) == b"2"


def test_a_client_that_neither_sends_nor_finishes_is_not_waited_for_longer_than_two_seconds() -> (
    None
):
    with Server(service=take_one_byte) as server:
        before = fds()
        with dial(server.address) as first:
            first.sendall(b"1 and more")
            assert read_to_end(first) == b"1"
            began = time.monotonic()
            # The client's own is left.
            wait_until(lambda: sockets_since(before) == 1)
            assert time.monotonic() - began > 1.5


def test_a_client_that_sends_for_ever_is_not_waited_for_longer_than_half_close() -> None:
    with Server(service=take_one_byte, limits=Limits(half_close=0.3)) as server:
        before = fds()
        with dial(server.address) as first, flooding(first):
            assert read_exactly(first, 1) == b"\0"
            wait_until(lambda: sockets_since(before) == 1)


def test_a_client_that_resets_is_not_waited_for() -> None:
    with Server(service=take_one_byte) as server:
        before = fds()
        first = dial(server.address)
        first.sendall(b"1 and more")
        assert read_to_end(first) == b"1"
        reset(first)
        wait_until(lambda: sockets_since(before) == 0, 1.5)


# --- the end of the server -----------------------------------------------------------------


def test_a_stop_waits_only_until_the_reply_has_arrived() -> None:
    with Server(service=reply_unread) as server, dial(server.address) as peer:
        peer.sendall(b"never read")
        assert read_to_end(peer) == REPLY
        served(server)
        report = server.stop(10.0)
        assert report.seconds < 1.0
        assert (report.drained, report.forced, report.abandoned) == (1, 0, 0)


def test_a_stop_delivers_what_has_not_arrived_yet() -> None:
    with Server(service=reply_unread, options=ROOM) as server:
        with dial_narrow(server.address) as peer:
            peer.sendall(b"never read")
            served(server)
            stopping = Background(server.stop, 10.0)
            wait_until(lambda: server.state == "draining")
            assert read_to_end(peer) == REPLY
            report = stopping.result()
            assert (report.drained, report.forced) == (1, 0)


@pytest.mark.parametrize("drain", [0.0, 0.2])
def test_what_lingers_at_the_deadline_is_reset(drain: float) -> None:
    with Server(service=reply_unread, options=ROOM) as server:
        with dial_narrow(server.address) as peer:
            peer.sendall(b"never read")
            lingers(server)
            report = server.stop(drain)
            assert (report.drained, report.forced, report.abandoned) == (0, 1, 0)
            assert drain <= report.seconds < drain + 1.0
            with pytest.raises(ConnectionResetError):
                read_to_end(peer)
        [record] = server.ledger.closed
        assert record.closed_by == "local"


def test_a_sooner_deadline_holds_for_what_lingers() -> None:
    with Server(service=reply_unread, options=ROOM) as server:
        with dial_narrow(server.address) as peer:
            peer.sendall(b"never read")
            lingers(server)
            stopping = Background(server.stop, 60.0)
            wait_until(lambda: server.state == "draining")
            server.stop(0.1)
            assert stopping.result().forced == 1


def test_nothing_is_left_of_a_server_that_was_dropped_while_a_connection_lingered() -> None:
    before = held()
    server = Server(service=reply_unread, options=ROOM, drain=10.0).start()
    with dial_narrow(server.address) as peer:
        peer.sendall(b"never read")
        lingers(server)
        with pytest.warns(ResourceWarning):
            del server
        assert read_to_end(peer) == REPLY
    given_back(before, 10.0)


def test_without_a_descriptor_for_the_worker_it_is_closed_as_any_socket() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def handler(conn: Connection) -> None:
        if conn.recv(1, socket.MSG_PEEK) == b"1":
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        else:
            take_one_byte(conn)

    try:
        with Server(service=handler, limits=Limits(connections=1)) as server:
            with dial(server.address) as first:
                first.sendall(b"1 and more")
                with contextlib.suppress(ConnectionResetError):
                    assert ended(first)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                assert worker() == []
                assert second_is_served(server).result(10.0) == b"2"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

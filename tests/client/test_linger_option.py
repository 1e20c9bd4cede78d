"""SO_LINGER that was set by another way than the stream: by a duplicate, or on a listener.

A close waits for the peer only where the program calls `close`, and then without the interpreter.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import (
    SOON,
    Background,
    all_say_back,
    dial,
    dial_narrow,
    drop,
    listener,
    payload,
    read_to_end,
    says_back,
    wait_until,
    was_reset,
)
from support.roles import Pair

from rsock import Accept, Client, Connection, Echo, Server

# Longer than anything else that a test waits for.
LINGER = 4 * int(SOON)
# More than the narrow receive buffer of a peer takes.
DATA = payload(64 * 1024)


def linger(stream: Any, seconds: int) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))


def linger_by_duplicate(stream: Any, seconds: int = LINGER) -> None:
    with stream.to_socket() as duplicate:
        linger(duplicate, seconds)


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """What happens here takes less than half of the time that a close would wait."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < LINGER / 2


@contextlib.contextmanager
def listening(seconds: int = LINGER, **settings: Any) -> Iterator[Server]:
    """A server on a listener with SO_LINGER, which accepted sockets inherit."""
    with listener() as given:
        linger(given, seconds)
        with Server(fd=given.detach(), **settings) as server:
            yield server


@contextlib.contextmanager
def slow_peer() -> Iterator[tuple[list[Client], socket.socket]]:
    """A client that has sent what its peer, which reads nothing yet, has no room for.

    In a list, so that a test can drop the last reference.
    """
    with socket.socket() as given:
        given.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        given.bind(("127.0.0.1", 0))
        given.listen()
        clients = [Client(*given.getsockname())]
        peer, _ = given.accept()
        with peer:
            peer.settimeout(SOON)
            clients[0].sendall(DATA)
            yield clients, peer


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_waits_for_no_close(workers: int) -> None:
    with listening(service=Echo(), workers=workers) as server:
        with contextlib.ExitStack() as stack:
            others = [stack.enter_context(dial(server.address)) for _ in range(8)]
            assert all_say_back(others)
            slow = stack.enter_context(dial_narrow(server.address))
            slow.sendall(DATA)
            slow.shutdown(socket.SHUT_WR)
            server.ledger.wait(closed=1)
            with soon():
                assert all_say_back(others)
            assert read_to_end(slow) == DATA


def test_a_listener_that_gets_the_option_later_blocks_no_worker() -> None:
    with Server(workers=1) as server, dial(server.address) as other:
        assert says_back(other)
        with socket.fromfd(server.fileno(), socket.AF_INET, socket.SOCK_STREAM) as duplicate:
            linger(duplicate, LINGER)
        with dial_narrow(server.address) as slow:
            slow.sendall(DATA)
            slow.shutdown(socket.SHUT_WR)
            server.ledger.wait(closed=1)
            with soon():
                assert says_back(other)
            assert read_to_end(slow) == DATA


@pytest.mark.parametrize("unread", [b"", b"unread"])
def test_a_handler_that_returns_does_not_wait_for_its_peer(unread: bytes) -> None:
    def reply(connection: Connection) -> None:
        connection.recv_exactly(1)
        linger_by_duplicate(connection)
        connection.sendall(DATA)

    with Server(service=reply) as server, dial_narrow(server.address) as slow, soon():
        slow.sendall(b"x" + unread)
        server.ledger.wait(closed=1)
        with dial(server.address) as other:
            other.sendall(b"x")
            assert read_to_end(other) == DATA
        assert read_to_end(slow) == DATA


@pytest.mark.parametrize("inherited", [False, True])
@pytest.mark.parametrize("end", ["close", "stop", "drop"])
def test_an_accepted_connection_is_closed_at_once(end: str, inherited: bool) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            listening(service=Accept()) if inherited else Server(service=Accept())
        )
        slow = stack.enter_context(dial_narrow(server.address))
        connections = [server.accept(SOON)[0]]
        if not inherited:
            linger_by_duplicate(connections[0])
        connections[0].sendall(DATA)
        with soon():
            if end == "close":
                connections[0].close()
            elif end == "stop":
                assert server.stop(SOON).forced == 0
            else:
                with pytest.warns(ResourceWarning):
                    drop(connections)
            server.ledger.wait(open=0)
        assert read_to_end(slow) == DATA


def test_a_client_waits_without_the_interpreter() -> None:
    with slow_peer() as ([client], peer), soon():
        linger_by_duplicate(client)
        closing = Background(client.close)
        wait_until(closing.asleep, what="the close waits for the peer")
        assert client.fileno() == -1
        assert read_to_end(peer) == DATA
        closing.result()


@pytest.mark.parametrize("by", ["duplicate", "setsockopt"])
def test_a_client_that_is_garbage_is_closed_without_waiting(by: str) -> None:
    with slow_peer() as (clients, peer), soon():
        if by == "duplicate":
            linger_by_duplicate(clients[0])
        else:
            linger(clients[0], LINGER)
        with pytest.warns(ResourceWarning):
            drop(clients)
        assert read_to_end(peer) == DATA


def test_a_duplicate_of_a_client_keeps_its_option() -> None:
    with slow_peer() as (clients, peer):
        with clients[0].to_socket() as duplicate:
            linger(duplicate, LINGER)
            with pytest.warns(ResourceWarning):
                drop(clients)
            value = duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
            assert struct.unpack("ii", value) == (1, LINGER)
            sending = Background(read_to_end, peer)
            duplicate.shutdown(socket.SHUT_WR)
            assert sending.result() == DATA


def test_a_linger_time_of_zero_set_by_a_duplicate_resets(ours: Pair) -> None:
    stream, peer = ours
    linger_by_duplicate(stream, 0)
    stream.close()
    assert was_reset(peer)


@pytest.mark.parametrize("unread", [b"", b"unread"])
def test_a_linger_time_of_zero_resets_also_a_handlers_connection(unread: bytes) -> None:
    def reply(connection: Connection) -> None:
        connection.recv_exactly(1)
        linger_by_duplicate(connection, 0)

    with Server(service=reply) as server, dial(server.address) as peer:
        peer.sendall(b"x" + unread)
        assert was_reset(peer)


def test_a_linger_time_of_zero_is_inherited() -> None:
    with listening(0, service=Echo()) as server, dial(server.address) as peer:
        assert says_back(peer)
        peer.shutdown(socket.SHUT_WR)
        server.ledger.wait(closed=1)
        # The end of the echo may arrive before the reset of the close.
        wait_until(lambda: peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x07")

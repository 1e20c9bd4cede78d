"""A slot under `Limits.connections` or `per_host` is free as soon as the ledger shows the end."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import SOON, dial, payload, read_to_end, says_back

from rsock import Accept, Connection, Echo, Forward, Limits, Server

REPLY = payload(100_000, seed=3)


def send_back(conn: Connection) -> None:
    while data := conn.recv(100):
        conn.sendall(data)


def reply_unread(conn: Connection) -> None:
    """Leaves input unread, so that the close lingers."""
    conn.recv(1)
    conn.sendall(REPLY)


@contextlib.contextmanager
def serving(service: Any, limits: Limits, **options: Any) -> Iterator[Server]:
    """A server; with `Accept()` two threads accept and echo."""
    with Server(service=service, limits=limits, **options) as server:
        if isinstance(server.service, Accept):

            def accept() -> None:
                for conn, _ in server:
                    with conn, contextlib.suppress(ConnectionError):
                        send_back(conn)

            threads = [threading.Thread(target=accept) for _ in range(2)]
            for each in threads:
                each.start()
            yield server
            server.stop()
            for each in threads:
                each.join(SOON)
        else:
            yield server


def refuses(**limits: int) -> Limits:
    return Limits(overflow="refuse", **limits)


KINDS: dict[str, Callable[[Server], dict[str, Any]]] = {
    "one worker": lambda _: {"service": Echo(), "workers": 1},
    "two workers": lambda _: {"service": Echo(), "workers": 2},
    "forward": lambda target: {"service": Forward(target)},
    "handler": lambda _: {"service": send_back},
    "accept": lambda _: {"service": Accept()},
    "stages": lambda _: {"service": send_back, "_stages": "bytewise"},
}


@pytest.mark.parametrize(
    "limits", [refuses(connections=1), refuses(per_host=1)], ids=["all", "host"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_comes_after_the_last_has_ended_is_served(
    echo: Server, kind: str, limits: Limits
) -> None:
    with serving(limits=limits, **KINDS[kind](echo)) as server:
        for number in range(1, 251):
            with dial(server.address) as peer:
                assert says_back(peer, b"x"), number
            server.ledger.wait(open=0, closed=number)
        totals = server.ledger.totals
        assert (totals.accepted, totals.refused) == (250, 0)


def test_a_datagram_that_comes_after_the_last_record_has_closed_is_answered() -> None:
    limits = Limits(connections=1, overflow="refuse", idle=0.002)
    with Server(transport="udp", limits=limits) as server:
        for number in range(1, 51):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.settimeout(SOON)
                peer.connect(server.address)
                assert says_back(peer, b"x")
            server.ledger.wait(open=0, closed=number)
        assert server.ledger.totals.refused == 0


@pytest.mark.parametrize(
    "limits", [refuses(connections=1), refuses(per_host=1)], ids=["all", "host"]
)
def test_a_connection_that_lingers_takes_no_slot(limits: Limits) -> None:
    with Server(service=reply_unread, limits=limits) as server, contextlib.ExitStack() as stack:
        peers = []
        for number in range(1, 4):
            peer = stack.enter_context(dial(server.address))
            peers.append(peer)
            peer.sendall(b"1 and more")
            server.ledger.wait(open=0, closed=number)
        assert server.ledger.totals.refused == 0
        # The last one lingers, so its reply is delivered.
        assert read_to_end(peers[-1]) == REPLY


def test_no_more_connections_linger_than_the_limit_admits() -> None:
    with Server(service=reply_unread, limits=refuses(connections=2)) as server:
        with contextlib.ExitStack() as stack:
            peers = []
            for number in range(1, 6):
                peer = stack.enter_context(dial(server.address))
                peers.append(peer)
                peer.sendall(b"1 and more")
                server.ledger.wait(open=0, closed=number)
                assert read_to_end(peer) == REPLY
            # Those that lingered for longest are closed: what they send is refused by then.
            for peer in peers[:3]:
                with pytest.raises(ConnectionError):
                    while True:
                        peer.sendall(b"more")
            for peer in peers[3:]:
                peer.sendall(b"more")
                assert peer.recv(1) == b""


def test_a_limit_that_ends_a_handlers_connection_frees_its_slot() -> None:
    ended, let_go = threading.Event(), threading.Event()

    def handler(conn: Connection) -> None:
        try:
            send_back(conn)
        except TimeoutError:
            # The handler goes on, and keeps its connection.
            ended.set()
            let_go.wait(SOON)

    limits = Limits(connections=1, overflow="refuse", idle=0.2)
    with Server(service=handler, limits=limits) as server:
        try:
            with dial(server.address) as first:
                assert says_back(first)
                assert ended.wait(SOON)
                server.ledger.wait(open=0, closed=1)
                with dial(server.address) as second:
                    assert says_back(second)
        finally:
            let_go.set()
    assert server.ledger.totals.refused == 0

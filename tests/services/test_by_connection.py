"""`ByConnection` with handlers beside services in Rust."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
from support import (
    SOON,
    Background,
    dial,
    dial_path,
    ended,
    read_to_end,
    says_back,
    wait_until,
    was_reset,
)

from rsock import ByConnection, Connection, Echo, Forward, Greeting, Handler, Server


def reset_first(conn: Connection) -> None:
    conn.recv(1)
    conn.abort()


def shout(conn: Connection) -> None:
    while line := conn.recv_line():
        conn.sendall(line.upper())


@pytest.mark.parametrize("stages", [False, True], ids=["plain", "stages"])
def test_a_handler_serves_the_first_and_a_forwarder_the_others(echo: Server, stages: bool) -> None:
    options: dict[str, Any] = {"_stages": "bytewise"} if stages else {}
    service = ByConnection(reset_first, rest=Forward(echo))
    with Server(service=service, on_error="raise", **options) as server:
        with dial(server.address) as peer:
            peer.sendall(b"x")
            assert was_reset(peer)
        for _ in range(3):
            with dial(server.address) as peer:
                assert says_back(peer)
        server.ledger.wait(open=0, closed=4)
        assert [record.id for record in server.ledger] == [1, 2, 3, 4]
        assert server.ledger.totals.closed_by["peer"] == 3


def test_each_handler_serves_its_own_connection_and_the_last_repeats(path: str) -> None:
    service = ByConnection(Greeting("busy\n"), Handler(shout), Echo(), shout)
    with Server(path=path, service=service) as server:
        assert repr(server.service) == (
            "ByConnection(Greeting(b'busy\\n'), Handler(shout), Echo(), Handler(shout))"
        )
        with dial_path(path) as first:
            assert read_to_end(first) == b"busy\n"
        for expected in (b"WORD\n", b"word\n", b"WORD\n", b"WORD\n"):
            with dial_path(path) as peer:
                peer.sendall(b"word\n")
                assert peer.recv(10) == expected


def test_a_stop_drains_both_kinds() -> None:
    let_go = threading.Event()

    def slow(conn: Connection) -> None:
        conn.recv(1)
        assert let_go.wait(SOON)
        conn.sendall(b"done")

    with Server(service=ByConnection(slow, Echo())) as server:
        with dial(server.address) as first, dial(server.address) as second:
            first.sendall(b"x")
            assert says_back(second)
            wait_until(lambda: len(server.connections) == 1)
            stopping = Background(server.stop, 10.0)
            assert ended(second)
            let_go.set()
            assert read_to_end(first) == b"done"
            report = stopping.result()
    assert (report.drained, report.forced, report.abandoned) == (2, 0, 0)


def test_it_is_equal_by_its_handlers_too() -> None:
    assert ByConnection(shout, Echo()) == ByConnection(shout, Echo())
    assert ByConnection(shout, Echo()) != ByConnection(reset_first, Echo())


def test_a_handler_that_refers_to_its_server_is_collected_with_it() -> None:
    def made() -> weakref.ref[Server]:
        servers: list[Server] = []

        def handler(conn: Connection) -> None:
            assert servers[0] is conn.server

        servers.append(Server(service=ByConnection(handler, Echo())))
        return weakref.ref(servers[0])

    reference = made()
    gc.collect()
    assert reference() is None


def test_a_handler_is_checked_when_it_is_given() -> None:
    def of_datagrams(data: bytes, peer: object) -> None: ...

    with pytest.raises(TypeError, match="argument"):
        ByConnection(of_datagrams, Echo())
    with pytest.raises(TypeError, match="streams only"):
        Server(transport="udp", service=ByConnection(shout, Echo()))

"""`Limits.lifetime`: a connection ends at that age, whatever it does."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support import SOON, Background, dial, listener, read_to_end, says_back, wait_until

from rsock import (
    Accept,
    Chargen,
    Connection,
    Echo,
    Forward,
    Limits,
    Server,
)

LIFETIME = 0.4
LIMITS = Limits(lifetime=LIFETIME)


def ended_by_it(server: Server, count: int = 1) -> None:
    server.ledger.wait(open=0, closed=count)
    for record in server.ledger.closed:
        assert (record.closed_by, record.limit) == ("limit", "lifetime")
        assert record.seconds > LIFETIME * 0.9


def talk_to_the_end(peer: socket.socket) -> None:
    """Never idle: one byte after the other, until the connection has ended."""
    with contextlib.suppress(ConnectionError):
        while says_back(peer, b"x"):
            pass


@pytest.mark.parametrize("service", [Echo(), Chargen()], ids=repr)
def test_a_busy_connection_of_a_service_ends(service: Any, workers: int) -> None:
    with Server(service=service, workers=workers, limits=LIMITS) as server:
        with dial(server.address) as peer, dial(server.address) as silent:
            if isinstance(service, Echo):
                talk_to_the_end(peer)
                # It owes the silent one nothing.
                assert silent.recv(1) == b""
            else:
                for each in (peer, silent):
                    with contextlib.suppress(ConnectionError):
                        read_to_end(each)
            ended_by_it(server, 2)


def test_a_forwarded_connection_ends_on_both_sides() -> None:
    with listener() as target:
        service = Forward(*target.getsockname())
        with Server(service=service, limits=LIMITS) as server, dial(server.address) as near:
            far, _ = target.accept()
            with far:
                far.settimeout(SOON)
                assert (near.recv(1), far.recv(1)) == (b"", b"")
                ended_by_it(server)


def by_recv(conn: Connection) -> None:
    while data := conn.recv(100):
        conn.sendall(data)


def by_descriptor(conn: Connection) -> None:
    # What the system raises there is not an error of the connection.
    with contextlib.suppress(OSError):
        while data := os.read(conn.fileno(), 100):
            os.write(conn.fileno(), data)


def by_duplicate(conn: Connection) -> None:
    with conn.to_socket() as duplicate:
        while data := duplicate.recv(100):
            duplicate.sendall(data)


def by_sending(conn: Connection) -> None:
    while True:
        conn.sendall(bytes(1 << 16))


@pytest.mark.parametrize("handler", [by_recv, by_descriptor, by_duplicate, by_sending])
@pytest.mark.parametrize("stages", [False, True], ids=["plain", "stages"])
def test_a_handlers_connection_ends_however_it_waits(
    handler: Callable[[Connection], None], stages: bool
) -> None:
    options: dict[str, Any] = {"_stages": "bytewise"} if stages else {}
    with Server(service=handler, limits=LIMITS, on_error="raise", **options) as server:
        with dial(server.address) as peer, dial(server.address) as silent:
            if handler is not by_sending:
                talk_to_the_end(peer)
                with contextlib.suppress(ConnectionError):
                    assert silent.recv(1) == b""
            ended_by_it(server, 2)
        # The handlers return.
        assert server.stop(10.0).abandoned == 0


def test_a_call_after_the_end_says_which_limit_it_was() -> None:
    said: list[str] = []
    old = threading.Event()

    def handler(conn: Connection) -> None:
        # It computes meanwhile.
        assert old.wait(SOON)
        for call in (lambda: conn.recv(1), lambda: conn.sendall(b"x")):
            try:
                call()
            except TimeoutError as error:
                said.append(str(error))

    with Server(service=handler, limits=LIMITS, on_error="raise") as server:
        with dial(server.address):
            server.ledger.wait(open=0, closed=1)
            old.set()
            wait_until(lambda: len(said) == 2)
        ended_by_it(server)
    assert all("Limits.lifetime" in text for text in said), said


def test_a_connection_that_accept_returned_ends() -> None:
    with Server(service=Accept(), limits=LIMITS) as server:
        with dial(server.address) as peer, dial(server.address) as other:
            conn, _ = server.accept(SOON)
            late, _ = server.accept(SOON)
            with conn, late:
                reading = Background(conn.recv, 1)
                assert (peer.recv(1), other.recv(1)) == (b"", b"")
                with pytest.raises(TimeoutError, match=r"Limits\.lifetime"):
                    reading.result()
                with pytest.raises(TimeoutError, match=r"Limits\.lifetime"):
                    late.recv(1)
                ended_by_it(server, 2)


def test_each_connection_has_its_own_lifetime() -> None:
    with Server(service=by_recv, limits=LIMITS) as server:
        for number in range(1, 4):
            # Some end before, and the next check is theirs.
            with dial(server.address) as short:
                assert says_back(short)
            with dial(server.address) as peer:
                began = time.monotonic()
                talk_to_the_end(peer)
                assert time.monotonic() - began > LIFETIME * 0.9
            server.ledger.wait(open=0, closed=2 * number)
        assert server.ledger.totals.closed_by["limit"] == 3


def test_a_connection_that_waits_for_a_thread_ages_too() -> None:
    let_go = threading.Event()

    def handler(conn: Connection) -> None:
        let_go.wait(SOON)

    limits = Limits(lifetime=LIFETIME, handler_threads=1)
    with Server(service=handler, limits=limits) as server:
        with dial(server.address) as first, dial(server.address) as second:
            assert (first.recv(1), second.recv(1)) == (b"", b"")
            ended_by_it(server, 2)
            let_go.set()

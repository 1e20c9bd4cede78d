"""`idle` and `first_byte` hold while a call waits, with TLS and faults as on a plain connection."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import SOON, Background, dial, read_to_end

from rsock import (
    TLS,
    Accept,
    ByConnection,
    Client,
    Connection,
    Limits,
    Record,
    Server,
    SocketOptions,
    StopReport,
)

MADE = TLS.for_tests()
LIMIT = 0.5
# Longer than the limit.
WORK = 1.2
IDLE = Limits(idle=LIMIT)

Talk = Callable[[Connection], None]

# What is between the socket of a connection and its handler.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "faults": {"faults": []},
    "TLS": {"tls": MADE},
    "PROXY": {"proxy_protocol": ["127.0.0.1"]},
    "STARTTLS": {},
}


@contextlib.contextmanager
def serving(way: str, talk: Talk, limits: Limits = IDLE, kind: str = "handler") -> Iterator[Server]:
    """A server that has `talk` called for one connection."""

    def handler(conn: Connection) -> None:
        if way == "STARTTLS":
            conn.start_tls(MADE)
        talk(conn)

    def accept(server: Server) -> None:
        conn, _ = server.accept(SOON)
        with conn:
            handler(conn)

    services: dict[str, Any] = {
        "handler": handler,
        "accept": Accept(),
        "by connection": ByConnection(handler),
    }
    with Server(service=services[kind], limits=limits, on_error="raise", **WAYS[way]) as server:
        accepted = Background(accept, server) if kind == "accept" else None
        yield server
        if accepted is not None:
            accepted.result()


def connect(server: Server, way: str, **options: Any) -> Client:
    if way == "PROXY":
        options["proxy_protocol"] = "v2"
    client = server.client(timeout=SOON, **options)
    if way == "STARTTLS":
        client.start_tls(MADE)
    return client


def record_of(server: Server) -> Record:
    [record] = server.ledger.wait(open=0, closed=1, timeout=SOON)
    return record


def ended_by(limit: str, call: Callable[[], object]) -> float:
    """The seconds that a call takes until this limit ends it."""
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=rf"Limits\.{limit}"):
        call()
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("way", "kind"),
    [*((way, "handler") for way in WAYS), ("TLS", "accept"), ("TLS", "by connection")],
)
def test_a_handler_that_works_still_answers_and_one_that_waits_is_ended(
    way: str, kind: str
) -> None:
    waits: list[float] = []

    def talk(conn: Connection) -> None:
        assert conn.recv(1) == b"x"
        time.sleep(WORK)
        conn.sendall(b"answer")
        waits.append(ended_by("idle", lambda: conn.recv(1)))

    with serving(way, talk, kind=kind) as server, connect(server, way) as client:
        client.sendall(b"x")
        assert client.recv_exactly(6) == b"answer"
        assert client.recv(1) == b""
        record = record_of(server)
    assert (record.closed_by, record.limit) == ("limit", "idle")
    assert record.seconds >= WORK + LIMIT
    assert waits[0] >= LIMIT * 0.9


@pytest.fixture(params=["plain", "faults", "TLS"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_wait_that_begins_after_the_limit_is_ended_soon(way: str) -> None:
    waits: list[float] = []

    def talk(conn: Connection) -> None:
        assert conn.recv(1) == b"x"
        time.sleep(WORK)
        waits.append(ended_by("idle", lambda: conn.recv(1)))

    with serving(way, talk) as server, connect(server, way) as client:
        client.sendall(b"x")
        assert client.recv(1) == b""
        record = record_of(server)
    assert (record.closed_by, record.limit) == ("limit", "idle")
    assert record.seconds >= WORK


def test_short_time_outs_of_the_calls_do_not_put_the_limit_off(way: str) -> None:
    def talk(conn: Connection) -> None:
        conn.settimeout(0.02)
        deadline = time.monotonic() + SOON
        while time.monotonic() < deadline:
            try:
                conn.recv(1)
            except TimeoutError as error:
                if "Limits.idle" in str(error):
                    return

    with serving(way, talk) as server, connect(server, way) as client:
        assert client.recv(1) == b""
        record = record_of(server)
    assert (record.closed_by, record.limit) == ("limit", "idle")
    assert record.seconds >= LIMIT


def test_a_send_that_the_peer_does_not_take_is_ended(way: str) -> None:
    waits: list[float] = []

    def talk(conn: Connection) -> None:
        waits.append(ended_by("idle", lambda: conn.sendall(bytes(64 << 20))))

    options = SocketOptions(receive_buffer=4096)
    with serving(way, talk, Limits(idle=LIMIT, write=None)) as server:
        with connect(server, way, options=options):
            record = record_of(server)
    assert (record.closed_by, record.limit) == ("limit", "idle")
    assert waits[0] >= LIMIT * 0.9


@pytest.mark.parametrize("by", ["os.read", "to_socket"])
def test_a_read_by_other_means_is_no_call(way: str, by: str) -> None:
    def talk(conn: Connection) -> None:
        assert conn.recv(1) == b"x"
        if by == "os.read":
            assert os.read(conn.fileno(), 10) == b"late"
        else:
            with conn.to_socket() as stream:
                assert stream.recv(10) == b"late"
        conn.sendall(b"answer")

    with serving(way, talk) as server:
        with connect(server, way) as client:
            client.sendall(b"x")
            time.sleep(WORK)
            client.sendall(b"late")
            assert client.recv_exactly(6) == b"answer"
        assert record_of(server).closed_by == "local"


def test_a_peer_that_has_finished_may_wait_for_its_answer(way: str) -> None:
    def talk(conn: Connection) -> None:
        assert (conn.recv(10), conn.recv(10)) == (b"x", b"")
        time.sleep(WORK)
        conn.sendall(b"answer")

    with serving(way, talk) as server, connect(server, way) as client:
        client.sendall(b"x")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"answer"
        assert record_of(server).closed_by == "peer"


def test_a_stop_waits_for_work_that_is_longer_than_the_limit(way: str) -> None:
    def talk(conn: Connection) -> None:
        assert conn.recv(1) == b"x"
        conn.sendall(b"y")
        time.sleep(WORK)
        conn.sendall(b"answer")

    with serving(way, talk) as server, connect(server, way) as client:
        client.sendall(b"x")
        assert client.recv_exactly(1) == b"y"
        stopped: Background[StopReport] = Background(server.stop, SOON)
        assert read_to_end(client) == b"answer"
        assert stopped.result().forced == 0


def test_only_a_call_that_reads_waits_for_the_first_byte() -> None:
    def talk(conn: Connection) -> None:
        time.sleep(WORK)
        conn.sendall(b"hello")
        ended_by("first_byte", lambda: conn.recv(1))

    for way in ("plain", "faults"):
        with serving(way, talk, Limits(first_byte=LIMIT)) as server:
            with connect(server, way) as client:
                assert read_to_end(client) == b"hello"
                record = record_of(server)
        assert (record.closed_by, record.limit) == ("limit", "first_byte")


@pytest.mark.parametrize("way", ["TLS", "PROXY"])
def test_the_limit_holds_before_a_handler_has_the_connection(way: str) -> None:
    called: list[Connection] = []
    with serving(way, called.append) as server, dial(server.address) as silent:
        # With TLS, an alert comes first.
        read_to_end(silent)
        record = record_of(server)
    assert (record.closed_by, record.limit) == ("limit", "idle")
    assert called == []

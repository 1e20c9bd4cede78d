"""`drive`: a load on a server, and what it measures."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import SOON, wait_until

import rsock
from rsock import Chargen, Connection, Discard, Echo, Quote, Server, drive
from rsock.faults import Corrupt, Latency, Reset


def test_every_message_is_answered_and_counted_at_both_ends() -> None:
    with Server() as server:
        result = drive(server.address, connections=7, messages=1_000, size=100)
        server.ledger.wait(open=0, timeout=SOON)
        totals = server.ledger.totals
    assert (result.messages, result.missing, result.errors) == (1_000, 0, {})
    assert (result.bytes, totals.bytes_in, totals.accepted) == (100_000, 100_000, 7)
    latency = result.latency
    assert latency is not None
    assert 0 < latency.min <= latency.p50 <= latency.p90 <= latency.p99 <= latency.p999
    assert latency.p999 <= latency.max <= result.seconds * 1.01
    assert result.per_second == pytest.approx(1_000 / result.seconds)


def test_large_messages_and_unix_sockets_are_driven_too(tmp_path: Path) -> None:
    with Server(path=tmp_path / "x.sock") as server:
        result = drive(server.path or "", connections=3, messages=30, size=1 << 20)
    assert (result.messages, result.bytes) == (30, 30 << 20)


def test_a_latency_is_measured() -> None:
    with Server(faults=[Latency(0.05)]) as server:
        result = drive(server.address, connections=10, messages=50)
    assert result.latency is not None
    assert result.latency.min >= 0.05
    assert result.latency.p50 < 1


def test_a_rate_spreads_the_messages() -> None:
    with Server() as server:
        result = drive(server.address, connections=5, messages=100, rate=500)
    assert result.messages == 100
    # The last one is due after 99 / 500 s.
    assert result.seconds >= 0.19


def test_a_message_that_is_late_has_waited_since_it_was_due() -> None:
    # Ten messages are due at once, each answer takes 20 ms, and there is one connection.
    with Server(faults=[Latency(0.02)]) as server:
        result = drive(server.address, messages=10, rate=100_000)
    assert result.latency is not None
    assert result.latency.max >= 0.19


@pytest.mark.parametrize(
    ("options", "service", "errors"),
    [
        ({}, Discard(), {"TimeoutError": 2}),
        ({}, Quote("x"), {"EOFError": 2, "wrong bytes": 2}),
        ({}, Chargen(), {"wrong bytes": 2, "too much": 2}),
        ({"faults": [Reset(after_bytes=200)]}, Echo(), {"ConnectionResetError": 2}),
        ({"faults": [Corrupt(1.0)]}, Echo(), {"wrong bytes": 2}),
    ],
)
def test_connections_that_end_early_are_counted_by_their_cause(
    options: dict[str, Any], service: rsock.Service, errors: dict[str, int]
) -> None:
    with Server(service=service, **options) as server:
        result = drive(server.address, connections=2, messages=100, timeout=0.3)
    assert sum(result.errors.values()) == 2
    assert result.errors.keys() <= errors.keys()
    assert result.messages + result.missing == 100
    assert result.missing > 0
    text = str(result)
    assert "messages were not answered" in text
    assert all(f"{count} × {cause}" in text for cause, count in result.errors.items())
    assert result.to_dict()["errors"] == result.errors


def test_refused_connections_are_counted() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        result = drive(closed.getsockname(), connections=3, messages=5)
    assert result.errors == {"ConnectionRefusedError": 3}
    assert (result.messages, result.missing, result.latency) == (0, 5, None)


def test_an_answer_may_have_another_length() -> None:
    def answer(conn: Connection) -> None:
        while conn.recv_line():
            conn.sendall(b"+OK 12\r\n")

    with Server(service=answer) as server:
        result = drive(server.address, connections=3, messages=60, message=b"PING\r\n", answer=8)
    assert (result.messages, result.bytes, result.errors) == (60, 480, {})


def test_ctrl_c_ends_a_load_and_leaves_nothing() -> None:
    with Server(service=Discard()) as server:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            drive(server.address, connections=10, timeout=60)
        assert time.monotonic() - begin < SOON
        timer.join()
        server.ledger.wait(open=0, timeout=SOON)
    wait_until(lambda: "rsock-load" not in thread_names())


def thread_names() -> list[str]:
    tasks = Path("/proc/self/task")
    return [(task / "comm").read_text().strip() for task in tasks.iterdir()]


ANY: Any = object()


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda at: drive(at, connections=0), ValueError, "connections"),
        (lambda at: drive(at, messages=-1), ValueError, "messages"),
        (lambda at: drive(at, size=0), ValueError, "size"),
        (lambda at: drive(at, size=1, message=b"x"), ValueError, "size=1 and message="),
        (lambda at: drive(at, message=b""), ValueError, "message"),
        (lambda at: drive(at, answer=0), ValueError, "answer"),
        (lambda at: drive(at, rate=0), ValueError, "rate"),
        (lambda at: drive(at, rate=float("nan")), ValueError, "rate"),
        (lambda at: drive(at, rate=ANY), TypeError, "rate"),
        (lambda at: drive(at, timeout=-1), ValueError, "timeout"),
        (lambda at: drive(at, connections=ANY), TypeError, "connections"),
        (lambda at: drive(ANY), TypeError, "address"),
        (lambda at: drive(("127.0.0.1", 70_000)), OverflowError, "70000"),
    ],
)
def test_a_wrong_argument_is_named(
    call: Callable[[tuple[str, int]], object], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name):
        call(("127.0.0.1", 9))

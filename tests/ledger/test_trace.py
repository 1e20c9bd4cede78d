"""Traces: what a connection carried and when, within bounds."""

from __future__ import annotations

import random
import socket
import time
from typing import Any

import pytest
from support import SOON, dial, payload, read_exactly, rss, says_back, wait_until

from rsock import Accept, Client, Connection, Record, Server, Trace, TraceEvent


def seen(record: Record) -> list[tuple[str, bytes]]:
    """Direction and data of each event."""
    assert record.trace is not None
    return [(event.direction, event.data) for event in record.trace]


def test_without_a_trace_nothing_is_remembered(echo_pair: tuple[Server, Client]) -> None:
    server, client = echo_pair
    assert says_back(client)
    assert server.ledger.open[0].trace is None
    assert client.record is not None
    assert client.record.trace is None


def test_a_trace_tells_what_was_received_and_sent() -> None:
    with Server(trace=True) as server:
        with dial(server.address) as peer:
            assert says_back(peer, b"first")
            assert says_back(peer, b"second")
            [record] = server.ledger.open
            wait_until(lambda: record.messages_out == 2)
            expected = [("in", b"first"), ("out", b"first"), ("in", b"second"), ("out", b"second")]
            assert seen(record) == expected
        server.ledger.wait(open=0)
        # The trace stays with the record, also after the server has stopped.
        assert seen(record) == expected
    assert seen(server.ledger.closed[0]) == expected


def test_an_event_tells_when_it_was() -> None:
    with Server(trace=True) as server, dial(server.address) as peer:
        [record] = server.ledger.wait(open=1)
        time.sleep(0.05)
        before = time.time()
        assert says_back(peer)
        wait_until(lambda: record.messages_out == 1)
        after = time.time()
        events = record.trace
        assert events is not None
        assert all(isinstance(event, TraceEvent) for event in events)
        assert [event.number for event in events] == [1, 2]
        assert 0.05 <= events[0].seconds <= events[1].seconds <= record.seconds
        assert before - 0.02 <= record.opened_at + events[0].seconds <= after + 0.02


def test_every_message_is_an_event_and_all_of_it_fits() -> None:
    data = payload(300_000)
    with Server(trace=Trace(bytes=1_000_000, events=10_000)) as server:
        with server.client(timeout=SOON) as client:
            client.sendall(data[:200_000])
            assert client.recv_exactly(200_000) == data[:200_000]
            client.sendall(data[200_000:])
            assert client.recv_exactly(100_000) == data[200_000:]
        [record] = server.ledger.wait(open=0, closed=1)
        events = record.trace
        assert events is not None
        for direction, count in (("in", record.messages_in), ("out", record.messages_out)):
            parts = [event for event in events if event.direction == direction]
            assert len(parts) == count
            assert b"".join(part.data for part in parts) == data
            assert not any(part.truncated for part in parts)


def test_the_oldest_data_goes_first_and_the_sizes_stay() -> None:
    with Server(trace=Trace(bytes=10, events=6)) as server, dial(server.address) as peer:
        [record] = server.ledger.wait(open=1)
        for word in (b"one", b"three", b"eleven"):
            assert says_back(peer, word)
        wait_until(lambda: record.messages_out == 3)
        events = record.trace
        assert events is not None
        assert [event.size for event in events] == [3, 3, 5, 5, 6, 6]
        # Of the 10 bytes allowed, the last event uses 6; the one before it does not fit in the
        # rest.
        assert [event.data for event in events] == [b"", b"", b"", b"", b"", b"eleven"]
        assert [event.truncated for event in events] == [True] * 5 + [False]
        assert says_back(peer, payload(1_000))
        wait_until(lambda: record.messages_out == 4)
        events = record.trace
        assert events is not None
        assert [event.number for event in events] == [3, 4, 5, 6, 7, 8]
        assert (events[-1].size, events[-1].data) == (1_000, payload(1_000)[:10])


def test_bounds_hold_whatever_comes() -> None:
    sizes = random.Random(4)
    with Server(trace=Trace(bytes=500, events=20)) as server, dial(server.address) as peer:
        for _ in range(200):
            assert says_back(peer, payload(sizes.randint(1, 400)))
        [record] = server.ledger.open
        wait_until(lambda: record.bytes_in == record.bytes_out)
        events = record.trace
        assert events is not None
        assert len(events) == 20
        assert sum(len(event.data) for event in events) <= 500
        assert events[-1].number == record.messages_in + record.messages_out
        numbers = [event.number for event in events]
        assert numbers == list(range(numbers[0], numbers[0] + 20))


def test_a_trace_without_bytes_tells_sizes_and_times() -> None:
    with Server(trace=Trace(bytes=0)) as server, dial(server.address) as peer:
        assert says_back(peer)
        [record] = server.ledger.open
        wait_until(lambda: record.messages_out == 1)
        assert record.trace is not None
        assert [(e.size, e.data, e.truncated) for e in record.trace] == [(5, b"", True)] * 2


def test_a_flood_leaves_no_more_than_was_asked_for() -> None:
    with Server(trace=Trace(bytes=4_096, events=16)) as server, dial(server.address) as peer:
        chunk = payload(1 << 16)
        for _ in range(16):
            assert says_back(peer, chunk)
        before = rss()
        for _ in range(300):
            assert says_back(peer, chunk)
        assert rss() - before < 8 << 20


def test_a_handlers_calls_are_traced_whatever_they_are() -> None:
    def serve(connection: Connection) -> None:
        assert connection.recv(2) == b"ab"
        assert connection.recv(2, socket.MSG_PEEK) == b"cd"
        buffer = bytearray(10)
        assert connection.recv_into(buffer, 2) == 2
        assert connection.recv_line() == b"ef\n"
        assert connection.recv_exactly(2) == b"gh"
        first, second = bytearray(1), bytearray(5)
        assert connection.recvmsg_into([first, second])[0] == 3
        connection.send(b"one")
        connection.sendall(b"two")
        connection.sendmsg([b"th", b"", b"ree"])

    with Server(service=serve, trace=True, on_error="raise") as server:
        with dial(server.address) as peer:
            peer.sendall(b"abcdef\nghijk")
            assert read_exactly(peer, 11) == b"onetwothree"
        [record] = server.ledger.wait(open=0, closed=1)
    assert record.trace is not None
    received = [event.data for event in record.trace if event.direction == "in"]
    assert received == [b"ab", b"cd", b"ef\n", b"gh", b"ijk"]
    assert seen(record)[5:] == [("out", b"one"), ("out", b"two"), ("out", b"three")]


def test_what_a_handler_was_sent_before_it_failed_can_be_read() -> None:
    def fail(connection: Connection) -> None:
        raise ValueError(connection.recv_line())

    with Server(service=fail, trace=True, on_error=lambda error: None) as server:
        with dial(server.address) as peer:
            peer.sendall(b"the last words\n")
            server.ledger.wait(open=0, closed=1)
    [record] = server.ledger.closed
    assert record.closed_by == "error"
    assert seen(record) == [("in", b"the last words\n")]


def test_connections_that_were_asked_for_are_traced() -> None:
    with Server(service=Accept(), trace=True) as server, dial(server.address) as peer:
        connection, _ = server.accept(SOON)
        with connection:
            peer.sendall(b"question")
            assert connection.recv(100) == b"question"
            connection.sendall(b"answer")
            # Both ends of the connection are the same record.
            assert seen(connection.record) == [("in", b"question"), ("out", b"answer")]


def test_datagrams_are_traced_one_by_one() -> None:
    with Server(transport="udp", trace=True) as server:
        with server.client(timeout=SOON) as client:
            for word in (b"one", b"", b"three"):
                client.send(word)
                assert client.recv(100) == word
            [record] = server.ledger.open
            wait_until(lambda: record.messages_out == 3)
            both = [
                (direction, word) for word in (b"one", b"", b"three") for direction in ("in", "out")
            ]
            assert seen(record) == both


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"bytes": -1}, ValueError),
        ({"bytes": 2**30 + 1}, ValueError),
        ({"bytes": 1.5}, TypeError),
        ({"bytes": None}, TypeError),
        ({"events": 0}, ValueError),
        ({"events": True}, TypeError),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else value.__name__,
)
def test_bounds_that_are_none_are_refused(bad: dict[str, Any], error: type[Exception]) -> None:
    [name] = bad
    with pytest.raises(error, match=name):
        Trace(**bad)

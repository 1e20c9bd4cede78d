"""The trace of a forwarder: what happened on the leg to the target, beside the client's."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest
from support import SOON, closed_port, dial, dial_path, exchange, says_back, wait_until

from rsock import Client, Connection, Echo, Forward, LineEcho, Record, Server, Trace, TraceEvent
from rsock.faults import Latency


def events_of(record: Record) -> list[TraceEvent]:
    assert record.trace is not None
    return list(record.trace)


def steps(record: Record) -> list[tuple[str, bytes]]:
    return [(event.direction, event.data) for event in events_of(record)]


def ended(server: Server) -> Record:
    [record] = server.ledger.wait(open=0, closed=1)
    return record


def test_a_trace_has_connect_and_both_legs_in_their_order(echo: Server) -> None:
    with Server(service=Forward(echo), trace=True) as front, dial(front.address) as peer:
        # A connect begins with the connection; what the client sends may be read before it ends.
        [record] = front.ledger.wait(open=1)
        wait_until(lambda: record.far is not None)
        assert says_back(peer, b"hello")
        assert says_back(peer, b"again")
        peer.close()
        record = ended(front)
    assert steps(record) == [
        ("far connect", b""),
        ("far connected", b""),
        ("in", b"hello"),
        ("far out", b"hello"),
        ("far in", b"hello"),
        ("out", b"hello"),
        ("in", b"again"),
        ("far out", b"again"),
        ("far in", b"again"),
        ("out", b"again"),
    ]
    events = events_of(record)
    assert [event.number for event in events] == list(range(1, 11))
    times = [event.seconds for event in events]
    assert times == sorted(times)
    assert record.far is not None
    assert [event.detail for event in events if event.detail] == [
        str(record.far.remote),
        str(record.far.local),
    ]
    assert {event.direction for event in events if event.leg == "near"} == {"in", "out"}
    assert all(event.leg == "far" for event in events if event.direction.startswith("far"))


def test_the_far_leg_counts_what_its_trace_has(echo: Server) -> None:
    with Server(service=Forward(echo), trace=Trace(events=10_000)) as front:
        with dial(front.address) as peer:
            for _ in range(20):
                assert says_back(peer, bytes(3_000))
        record = ended(front)
    far = record.far
    assert far is not None
    for direction, messages, octets in (
        ("far out", far.messages_out, far.bytes_out),
        ("far in", far.messages_in, far.bytes_in),
        ("in", record.messages_in, record.bytes_in),
        ("out", record.messages_out, record.bytes_out),
    ):
        sizes = [event.size for event in events_of(record) if event.direction == direction]
        assert (len(sizes), sum(sizes)) == (messages, octets)
        assert octets == 60_000


def test_bulk_is_in_the_trace_and_arrives_whole(echo: Server) -> None:
    data = bytes(range(256)) * 8_000
    with Server(service=Forward(echo), trace=Trace(events=100_000, bytes=0)) as front:
        with Client(*front.address, timeout=SOON) as client:
            assert exchange(client, data) == data
        record = ended(front)
    sizes = [event.size for event in events_of(record) if event.direction == "far in"]
    assert sum(sizes) == len(data)


def test_without_a_trace_the_far_leg_is_counted_and_not_listed(echo: Server) -> None:
    with Server(service=Forward(echo)) as front, dial(front.address) as peer:
        assert says_back(peer, b"hello")
        peer.close()
        record = ended(front)
    assert record.trace is None
    assert record.far is not None
    assert (record.far.bytes_out, record.far.bytes_in) == (5, 5)


def test_a_connect_that_fails_says_where_and_why() -> None:
    with closed_port() as (host, port), Server(service=Forward(host, port), trace=True) as front:
        with contextlib.suppress(ConnectionResetError), dial(front.address) as peer:
            peer.recv(1)
        record = ended(front)
    assert record.far is None
    target = f"{host}:{port}"
    assert [(event.direction, event.detail) for event in events_of(record)] == [
        ("far connect", target),
        ("far failed", f"{target}: Connection refused"),
    ]
    event = events_of(record)[1]
    assert "direction='far failed'" in repr(event)
    assert "Connection refused" in event._repr_html_()


def test_each_address_that_is_tried_is_an_event() -> None:
    # A name with several addresses, of which the first refuses.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with Server(service=Forward("localhost", port), trace=True) as front:
            with dial(front.address) as peer:
                accepted, _ = listener.accept()
                with accepted:
                    peer.close()
                    assert accepted.recv(1) == b""
            record = ended(front)
    directions = [event.direction for event in events_of(record)]
    tried = directions.count("far connect")
    assert tried >= 1
    assert directions.count("far connected") == 1
    assert directions.count("far failed") <= tried - 1


def test_a_unix_target_is_connected_at_once(directory: Path) -> None:
    path = directory / "target"
    with (
        Server(path=path) as target,
        Server(path=directory / "front", service=Forward(target), trace=True) as front,
    ):
        with dial_path(str(directory / "front")) as peer:
            assert says_back(peer, b"hello")
        record = ended(front)
    found = steps(record)
    assert found.index(("far connect", b"")) < found.index(("far connected", b""))
    assert events_of(record)[0].detail == str(path)
    assert found[-4:] == [
        ("in", b"hello"),
        ("far out", b"hello"),
        ("far in", b"hello"),
        ("out", b"hello"),
    ]


def test_datagrams_have_two_legs_and_no_connect() -> None:
    with (
        Server(transport="udp") as target,
        Server(transport="udp", service=Forward(target), trace=True) as front,
        front.client(timeout=SOON) as client,
    ):
        client.send(b"hello")
        assert client.recv(100) == b"hello"
        [record] = front.ledger.open
        wait_until(lambda: record.messages_out == 1)
        assert steps(record) == [
            ("in", b"hello"),
            ("far out", b"hello"),
            ("far in", b"hello"),
            ("out", b"hello"),
        ]


@pytest.mark.parametrize("service", [Echo(), LineEcho()])
def test_a_connection_that_is_not_forwarded_has_no_far_events(service: Echo | LineEcho) -> None:
    def shout(conn: Connection) -> None:
        conn.sendall(conn.recv(100).upper())

    for each in (service, shout):
        # With a stage, the connection of a handler has a second leg of another kind.
        with Server(service=each, trace=True, faults=[Latency(0.001)]) as server:
            with dial(server.address) as peer:
                peer.sendall(b"hello\n")
                assert peer.recv(100).lower() == b"hello\n"
            record = ended(server)
        assert {event.leg for event in events_of(record)} == {"near"}


def test_events_of_both_legs_share_the_bounds(echo: Server) -> None:
    with Server(service=Forward(echo), trace=Trace(events=8, bytes=20)) as front:
        with dial(front.address) as peer:
            for _ in range(10):
                assert says_back(peer, b"hello")
        record = ended(front)
    events = events_of(record)
    assert len(events) == 8
    assert sum(len(event.data) for event in events) <= 20
    assert events[-1].number == 42

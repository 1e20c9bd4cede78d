"""Each kind of fault of streams over real sockets, on every service that it can act on.

What must not come early is checked exactly; what must not come late only loosely, for a busy
machine may be seconds late.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    LATE,
    SOON,
    Background,
    dial,
    dial_narrow,
    dial_path,
    ended,
    exchange,
    listener,
    payload,
    read_exactly,
    read_to_end,
    reset,
    says_back,
    send_until_stuck,
    wait_until,
    was_reset,
)

from rsock import (
    Accept,
    Chargen,
    Client,
    Connection,
    Forward,
    Greeting,
    Limits,
    Quote,
    Record,
    Server,
    SocketOptions,
)
from rsock.faults import (
    Bandwidth,
    Blackhole,
    CloseAfter,
    Corrupt,
    Fault,
    Garbage,
    Latency,
    Reset,
    Slice,
    SlowClose,
    SlowReader,
    Truncate,
)

SHAPES = ("echo", "forward", "handler", "accept")


def say_back(connection: Connection) -> None:
    """An echo in Python, which ends quietly however its peer ends."""
    with contextlib.suppress(OSError):
        while data := connection.recv(65_536):
            connection.sendall(data)


def accept_and_say_back(server: Server) -> None:
    """The same for `Accept`: one connection after another until the server stops."""
    with contextlib.suppress(OSError, RuntimeError):
        while True:
            connection, _ = server.accept()
            with connection:
                say_back(connection)


@contextlib.contextmanager
def serving(shape: str, *faults: Fault, **arguments: Any) -> Iterator[Server]:
    """A server that echoes, in one of the shapes, with these faults."""
    arguments = {"seed": 1, **arguments}
    with contextlib.ExitStack() as stack:
        if shape == "forward":
            arguments["service"] = Forward(stack.enter_context(Server()))
        elif shape == "handler":
            arguments["service"] = say_back
        elif shape == "accept":
            arguments["service"] = Accept()
        server = stack.enter_context(Server(faults=list(faults), **arguments))
        if shape == "accept":
            accepting = Background(accept_and_say_back, server)
            stack.callback(accepting.result)
            stack.callback(server.stop)
        yield server


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    """Each of the ways to serve."""
    name: str = request.param
    return name


def open_record(server: Server) -> Record:
    """The record of the one connection that is open."""
    server.ledger.wait(open=1)
    [record] = server.ledger.open
    return record


def record_of(server: Server) -> Record:
    """The record of the first connection, once that is closed."""
    record: Record = server.ledger.wait(open=0, closed=1)[-1]
    return record


def actions(record: Record) -> list[str]:
    return [event.action for event in record.faults]


def read_until_cut(peer: socket.socket | Client) -> bytes:
    """What comes before a reset."""
    parts = []
    with pytest.raises(ConnectionResetError):
        while part := peer.recv(65_536):
            parts.append(part)
    return b"".join(parts)


# --- latency ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("up", "down"), [(0.2, 0), (0, 0.2), (0.2, 0.2), (0.3, 0.1), (0.1, 0.3)])
def test_latency_delays_each_way_by_its_own_time(shape: str, up: float, down: float) -> None:
    data = payload(32_768)
    faults = Latency(up, direction="up"), Latency(down)
    with serving(shape, *faults) as server, dial(server.address) as peer:
        for _ in range(2):
            started = time.monotonic()
            peer.sendall(data)
            assert read_exactly(peer, len(data)) == data
            assert up + down <= time.monotonic() - started < up + down + LATE


def test_a_latency_of_no_time_changes_nothing(shape: str) -> None:
    data = payload(32_768)
    fault = Latency(0, direction="both")
    with serving(shape, fault) as server, dial(server.address) as peer:
        assert exchange(peer, data) == data


def test_two_latencies_add_up(shape: str) -> None:
    data = payload(32_768)
    faults = [Latency(0.2, direction="up")] * 2
    with serving(shape, *faults) as server, dial(server.address) as peer:
        started = time.monotonic()
        assert exchange(peer, data) == data
        assert 0.4 <= time.monotonic() - started < 0.4 + LATE


def test_a_latency_comes_and_goes_while_clients_connect_and_close(shape: str) -> None:
    with serving(shape) as server:
        for _ in range(50):
            with server.fault(Latency(0.01, direction="up")), dial(server.address) as peer:
                peer.sendall(b"hello")
        server.ledger.wait(open=0, closed=50)
        with dial(server.address) as peer:
            assert says_back(peer)


def test_a_latency_in_front_of_a_black_hole_can_be_removed() -> None:
    with Server() as server, dial(server.address) as peer:
        assert says_back(peer)
        with server.fault(Latency(0.05, direction="up")) as front:
            with server.fault(Blackhole(direction="up")):
                peer.sendall(b"held")
                record = open_record(server)
                wait_until(lambda: "held" in actions(record))
                started = time.monotonic()
                server.faults.remove(front)
                assert time.monotonic() - started < LATE
                server.faults.add(front)
            assert read_exactly(peer, 4) == b"held"


# --- bandwidth ----------------------------------------------------------------------------------


def test_bandwidth_is_not_exceeded_and_loses_nothing(shape: str) -> None:
    data = payload(60_000)
    with serving(shape, Bandwidth(100_000)) as server, dial(server.address) as peer:
        started = time.monotonic()
        assert exchange(peer, data) == data
        assert 0.6 <= time.monotonic() - started < 0.6 + LATE
        assert actions(record_of(server)) == ["slowed"]


def test_bandwidth_acts_each_way_by_itself(shape: str) -> None:
    data = payload(30_000)
    fault = Bandwidth(100_000, direction="both")
    with serving(shape, fault) as server, dial(server.address) as peer:
        started = time.monotonic()
        assert exchange(peer, data) == data
        # Both at once: what has come up goes down meanwhile.
        assert 0.3 <= time.monotonic() - started < 0.55 + LATE
        assert sorted(event.direction for event in record_of(server).faults) == ["down", "up"]


def test_a_high_bandwidth_is_kept_as_well() -> None:
    size, rate = 20_000_000, 20_000_000
    with Server(service=Chargen(), faults=[Bandwidth(rate)]) as server:
        with dial(server.address) as peer:
            started = time.monotonic()
            assert len(read_exactly(peer, size)) == size
            assert time.monotonic() - started >= size / rate
        record_of(server)


def test_a_shared_bandwidth_is_that_of_all_connections_together(workers: int) -> None:
    data = payload(30_000)
    fault = Bandwidth(100_000, shared=True)
    with Server(faults=[fault], workers=workers) as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(3)]
        started = time.monotonic()
        running = [Background(exchange, peer, data) for peer in peers]
        assert [each.result() for each in running] == [data] * 3
        assert 0.9 <= time.monotonic() - started < 0.9 + LATE


def test_a_slowed_sender_is_held_up_and_not_buffered() -> None:
    limits = Limits(write_buffer=8192)
    options = SocketOptions(receive_buffer=8192)
    fault = Bandwidth(10_000, direction="up")
    with Server(faults=[fault], limits=limits, options=options) as server:
        with dial(server.address) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            started = time.monotonic()
            sent = send_until_stuck(peer, bytes(2_000_000))
            assert sent < 1_000_000
            record = open_record(server)
            elapsed = time.monotonic() - started
            assert record.bytes_in <= 10_000 * elapsed + 8192 + 8192
            reset(peer)


# --- slow reader --------------------------------------------------------------------------------


def test_a_slow_reader_is_slow_and_loses_nothing(shape: str) -> None:
    data = payload(30_000)
    with serving(shape, SlowReader(60_000)) as server, dial(server.address) as peer:
        started = time.monotonic()
        assert exchange(peer, data) == data
        assert 0.5 <= time.monotonic() - started < 0.5 + LATE
        assert actions(record_of(server)) == ["slowed"]


def test_a_slow_reader_makes_the_peers_sends_block() -> None:
    options = SocketOptions(receive_buffer=8192)
    with Server(faults=[SlowReader(1000)], options=options) as server:
        with dial(server.address) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            started = time.monotonic()
            assert send_until_stuck(peer, bytes(2_000_000)) < 200_000
            record = open_record(server)
            # Not more than the rate, and one piece of 10 ms.
            assert record.bytes_in <= 1000 * (time.monotonic() - started) + 10
            reset(peer)


# --- slice --------------------------------------------------------------------------------------


def sizes_sent(record: Record) -> list[int]:
    """The bytes of each call that sent, as the trace has them."""
    assert record.trace is not None
    return [event.size for event in record.trace if event.direction == "out"]


def test_each_piece_of_a_slice_is_sent_by_a_call_of_its_own() -> None:
    message = payload(1000)
    fault = Slice(100, variation=20, delay=0.001)
    sizes = []
    for _ in range(2):
        with Server(service=Greeting(message), faults=[fault], seed=7, trace=True) as server:
            with dial(server.address) as peer:
                assert read_to_end(peer) == message
            record = record_of(server)
            sizes.append(sizes_sent(record))
            assert actions(record) == ["sliced"]
    assert sizes[0] == sizes[1], "the seed decides"
    assert sum(sizes[0]) == 1000
    assert all(80 <= size <= 120 for size in sizes[0][:-1])
    assert len(set(sizes[0])) > 3


def test_a_sliced_stream_arrives_whole(shape: str) -> None:
    data = payload(100_000)
    fault = Slice(1000, variation=900, direction="both")
    with serving(shape, fault) as server, dial(server.address) as peer:
        assert exchange(peer, data) == data


def test_the_pieces_of_a_slice_take_their_time(shape: str) -> None:
    data = payload(500)
    with serving(shape, Slice(50, delay=0.04)) as server, dial(server.address) as peer:
        started = time.monotonic()
        assert exchange(peer, data) == data
        assert 9 * 0.04 <= time.monotonic() - started < 9 * 0.04 + LATE


# --- close --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 100, 99_999])
def test_a_connection_is_closed_behind_exactly_the_bytes_asked(shape: str, count: int) -> None:
    data = payload(100_000)
    fault = CloseAfter(after_bytes=count, direction="down")
    with serving(shape, fault) as server:
        with dial(server.address) as peer:
            sender = Background(_send_what_goes, peer, data)
            assert read_to_end(peer) == data[:count]
            sender.result()
        record = record_of(server)
    assert (record.closed_by, record.fault, actions(record)) == ("fault", "close", ["closed"])
    assert record.bytes_out == count


def _send_what_goes(peer: socket.socket, data: bytes) -> bool:
    """Send to a peer that may close before it has read everything. False if it has reset."""
    try:
        peer.sendall(data)
    except (ConnectionResetError, BrokenPipeError):
        return False
    return True


def test_chargen_is_closed_and_reset_at_the_byte_asked() -> None:
    for fault, read in (
        (CloseAfter(after_bytes=1_000_001, direction="down"), read_to_end),
        (Reset(after_bytes=1_000_001, direction="down"), read_until_cut),
    ):
        with Server(service=Chargen(), faults=[fault]) as server:
            with dial(server.address) as peer:
                assert len(read(peer)) == 1_000_001
            assert record_of(server).bytes_out == 1_000_001


def test_an_idle_connection_is_closed_at_the_time_asked(shape: str) -> None:
    started = time.monotonic()
    with serving(shape, CloseAfter(after_seconds=0.3)) as server:
        with dial(server.address) as peer:
            assert ended(peer)
            assert 0.3 <= time.monotonic() - started < 0.3 + LATE
        record = record_of(server)
    assert (record.closed_by, actions(record)) == ("fault", ["closed"])


def seen_by_a_handler(fault: Fault, data: bytes, finish: bool = False) -> tuple[bytes, object]:
    """What a handler reads of the data, and the end or the error behind it."""
    seen: list[tuple[bytes, object]] = []

    def read(connection: Connection) -> None:
        parts = []
        try:
            while part := connection.recv(7):
                parts.append(part)
            seen.append((b"".join(parts), "end"))
        except OSError as error:
            seen.append((b"".join(parts), type(error)))

    with Server(service=read, faults=[fault]) as server, dial(server.address) as peer:
        peer.sendall(data)
        if finish:
            peer.shutdown(socket.SHUT_WR)
        wait_until(lambda: seen, what="the handler has seen the end")
    return seen[0]


def seen_by_a_target(fault: Fault, data: bytes) -> tuple[bytes, object]:
    """The same of the target of a forwarder."""
    with (
        listener() as listening,
        Server(service=Forward(*listening.getsockname()), faults=[fault]) as server,
        dial(server.address) as peer,
    ):
        peer.sendall(data)
        target, _ = listening.accept()
        with target:
            target.settimeout(SOON)
            parts = []
            try:
                while part := target.recv(7):
                    parts.append(part)
                return b"".join(parts), "end"
            except OSError as error:
                return b"".join(parts), type(error)


@pytest.mark.parametrize("seen", [seen_by_a_handler, seen_by_a_target])
def test_a_service_gets_exactly_the_bytes_that_came_before_the_end_of_its_connection(
    seen: Callable[[Fault, bytes], tuple[bytes, object]],
) -> None:
    data = payload(50_000)
    closed = CloseAfter(after_bytes=30_001, direction="up")
    assert seen(closed, data) == (data[:30_001], "end")
    cut = Reset(after_bytes=30_001, direction="up")
    assert seen(cut, data) == (data[:30_001], ConnectionResetError)


def test_other_faults_that_come_and_go_do_not_change_where_a_connection_is_closed() -> None:
    fault = CloseAfter(after_bytes=100, direction="down")
    with Server(faults=[fault]) as server, dial(server.address) as peer:
        assert says_back(peer, payload(90))
        with server.fault(Latency(0.01)):
            assert says_back(peer, b"12345")
        peer.sendall(payload(20))
        assert read_to_end(peer) == payload(20)[:5]


# --- reset --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 100, 99_999])
def test_a_connection_is_reset_behind_exactly_the_bytes_asked(shape: str, count: int) -> None:
    data = payload(100_000)
    fault = Reset(after_bytes=count, direction="down")
    with serving(shape, fault) as server:
        with dial(server.address) as peer:
            sender = Background(_send_what_goes, peer, data)
            # The error is told once: to the thread that sends or to this one.
            seen = False
            parts = []
            try:
                while part := peer.recv(65_536):
                    parts.append(part)
            except ConnectionResetError:
                seen = True
            assert b"".join(parts) == data[:count]
            assert not sender.result() or seen
        record = record_of(server)
    assert (record.closed_by, record.fault, actions(record)) == ("fault", "reset", ["reset"])


def test_a_reset_after_no_byte_comes_at_once(shape: str) -> None:
    with serving(shape, Reset(after_bytes=0)) as server:
        # It may be so fast that the connect sees it.
        with pytest.raises(ConnectionResetError), dial(server.address) as peer:
            read_to_end(peer)
        record = record_of(server)
    assert (record.closed_by, record.bytes_out, actions(record)) == ("fault", 0, ["reset"])


def test_a_reset_waits_for_a_peer_that_reads_late() -> None:
    # More than a socket that has nothing read takes, so that the rest waits in the server.
    count = 300_000
    options = SocketOptions(send_buffer=16_384)
    fault = Reset(after_bytes=count, direction="down")
    with Server(service=Chargen(), faults=[fault], options=options) as server:
        with dial_narrow(server.address) as peer:
            record = open_record(server)
            sent = -1

            def no_more() -> bool:
                nonlocal sent
                before, sent = sent, record.bytes_out
                return sent == before > 0

            wait_until(no_more, what="the peer's buffer is full")
            assert record.bytes_out < count
            assert len(read_until_cut(peer)) == count


def test_an_idle_connection_is_reset_at_the_time_asked(shape: str) -> None:
    started = time.monotonic()
    with serving(shape, Reset(after_seconds=0.3)) as server:
        with dial(server.address) as peer:
            assert was_reset(peer)
            assert 0.3 <= time.monotonic() - started < 0.3 + LATE
        record = record_of(server)
    assert (record.closed_by, actions(record)) == ("fault", ["reset"])


def test_a_reset_at_a_time_does_not_wait_for_a_peer_that_does_not_read() -> None:
    with Server(service=Chargen(), faults=[Reset(after_seconds=0.3)]) as server:
        with dial_narrow(server.address) as peer:
            started = time.monotonic()
            record = record_of(server)
            assert time.monotonic() - started < LATE
            assert 0.3 <= record.seconds < 0.3 + LATE
            assert len(read_until_cut(peer)) < 1_000_000


# --- truncate -----------------------------------------------------------------------------------


def test_a_truncated_answer_ends_cleanly_and_the_question_goes_on(shape: str) -> None:
    data = payload(100_000)
    with serving(shape, Truncate(40_000)) as server:
        with dial(server.address) as peer:
            assert exchange(peer, data) == data[:40_000]
        record = record_of(server)
    assert (record.bytes_in, record.bytes_out) == (100_000, 40_000)
    assert (record.closed_by, actions(record)) == ("peer", ["truncated"])


def test_what_comes_behind_a_truncated_question_is_thrown_away(shape: str) -> None:
    data = payload(3_000_000)
    with serving(shape, Truncate(40_000, direction="up")) as server:
        with dial(server.address) as peer:
            # The sends do not block, although nothing of it reaches the service.
            assert exchange(peer, data) == data[:40_000]
        record = record_of(server)
    assert (record.bytes_in, record.bytes_out) == (3_000_000, 40_000)
    assert actions(record) == ["truncated"]


@pytest.mark.parametrize("fault", [Truncate(100), Garbage(100)], ids=str)
def test_a_service_that_writes_without_end_leaves_others_their_turns(fault: Fault) -> None:
    # What it writes is thrown away, so that nothing stops it.
    fault = dataclasses.replace(fault, connections=1)
    with Server(service=Chargen(), faults=[fault], workers=1) as server:
        with dial(server.address) as cut, dial(server.address) as other:
            assert len(read_exactly(cut, 100)) == 100
            assert len(read_exactly(other, 1_000_000)) == 1_000_000
        server.ledger.wait(open=0, closed=2)


def test_a_truncated_question_ends_the_answer_although_the_peer_goes_on(shape: str) -> None:
    fault = Truncate(8, direction="up")
    with serving(shape, fault) as server, dial(server.address) as peer:
        assert says_back(peer)
        peer.sendall(b"abcdef")
        assert read_to_end(peer) == b"abc"
        server.faults.remove(fault)
        peer.sendall(bytes(1_000_000))
        record = open_record(server)
        wait_until(lambda: record.bytes_in == 1_000_011, what="the rest is still thrown away")


# --- black hole ---------------------------------------------------------------------------------


def test_a_black_hole_holds_bytes_and_ends_until_it_is_removed(shape: str) -> None:
    data = payload(20_000)
    with serving(shape) as server, dial(server.address) as peer:
        assert says_back(peer)
        with server.fault(Blackhole()):
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            record = open_record(server)
            wait_until(lambda: record.bytes_in == 20_005)
            peer.settimeout(0.1)
            with pytest.raises(TimeoutError):
                peer.recv(1)
            assert actions(record) == ["held"]
        peer.settimeout(SOON)
        assert read_to_end(peer) == data
        assert record_of(server).closed_by == "peer"


def test_a_black_hole_ends_by_itself_after_its_time(shape: str) -> None:
    data = payload(20_000)
    fault = Blackhole(for_seconds=0.4)
    started = time.monotonic()
    with serving(shape, fault) as server, dial(server.address) as peer:
        assert exchange(peer, data) == data
        assert 0.4 <= time.monotonic() - started < 0.4 + LATE


def test_a_black_hole_may_begin_later() -> None:
    started = time.monotonic()
    with Server(faults=[Blackhole(after_seconds=0.4)]) as server, dial(server.address) as peer:
        peer.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while says_back(peer):
                pass
        assert time.monotonic() - started >= 0.4


def test_a_stop_does_not_wait_for_what_a_black_hole_holds(shape: str) -> None:
    with serving(shape, Blackhole(direction="down")) as server, dial(server.address) as peer:
        peer.sendall(b"never answered")
        record = open_record(server)
        wait_until(lambda: actions(record) == ["held"])
        started = time.monotonic()
        report = server.stop(drain=60.0)
        assert time.monotonic() - started < LATE
        assert (report.drained, report.forced) == (0, 1)
        assert was_reset(peer), "what is lost does not look like an end"


def test_a_reset_by_the_peer_is_seen_through_a_black_hole() -> None:
    with Server(faults=[Blackhole()]) as server:
        with dial(server.address) as peer:
            peer.sendall(b"held")
            record = open_record(server)
            wait_until(lambda: record.bytes_in == 4)
            reset(peer)
        assert record_of(server).closed_by == "reset"


# --- corrupt and garbage ------------------------------------------------------------------------


def test_the_seed_decides_which_bytes_are_corrupted_and_not_the_chunks(shape: str) -> None:
    data = payload(20_000)
    answers = []
    for chunk in (20_000, 997):
        with serving(shape, Corrupt(0.01), seed=3) as server, dial(server.address) as peer:
            for start in range(0, len(data), chunk):
                peer.sendall(data[start : start + chunk])
            peer.shutdown(socket.SHUT_WR)
            answers.append(read_to_end(peer))
            events = record_of(server).faults
        places = [at for at, byte in enumerate(answers[-1]) if byte != data[at]]
        assert [event.offset for event in events] == places
    assert answers[0] == answers[1]
    assert 130 < len(places) < 270


def test_garbage_goes_in_place_of_the_answer(shape: str) -> None:
    with serving(shape, Garbage(b"<garbage>")) as server:
        with dial(server.address) as peer:
            assert exchange(peer, b"question") == b"<garbage>"
        record = record_of(server)
    assert (record.bytes_in, record.bytes_out) == (8, 9)
    assert actions(record) == ["garbled"]


@pytest.mark.parametrize("service", [Greeting("Welcome!"), Quote("Thus spoke")])
def test_garbage_goes_in_place_of_a_message(service: Greeting | Quote) -> None:
    answers = []
    for seed in (1, 1, 2):
        with Server(service=service, faults=[Garbage(1000)], seed=seed) as server:
            with dial(server.address) as peer:
                answers.append(read_to_end(peer))
    assert [len(answer) for answer in answers] == [1000] * 3
    assert answers[0] == answers[1] != answers[2]


def test_a_service_gets_garbage_in_place_of_the_question() -> None:
    fault = Garbage(b"<garbage>", direction="up")
    assert seen_by_a_handler(fault, b"question", finish=True) == (b"<garbage>", "end")


# --- slow close ---------------------------------------------------------------------------------


def test_a_slow_close_delays_the_end_and_no_byte(shape: str) -> None:
    with serving(shape, SlowClose(0.4)) as server:
        with dial(server.address) as peer:
            assert says_back(peer)
            started = time.monotonic()
            peer.shutdown(socket.SHUT_WR)
            assert ended(peer)
            assert 0.4 <= time.monotonic() - started < 0.4 + LATE
        assert actions(record_of(server)) == ["delayed"]


def test_the_close_of_a_service_is_slow_as_well() -> None:
    fault = SlowClose(0.4)
    with Server(service=Greeting("Bye"), faults=[fault]) as server, dial(server.address) as peer:
        started = time.monotonic()
        assert read_exactly(peer, 3) == b"Bye"
        assert ended(peer)
        assert 0.4 <= time.monotonic() - started < 0.4 + LATE


# --- limits and stops ---------------------------------------------------------------------------


def test_what_a_fault_holds_back_on_purpose_reaches_no_limit() -> None:
    limits = Limits(idle=0.2, write=0.2, half_close=0.2)
    for fault in (
        Latency(0.7),
        Latency(0.7, direction="up"),
        Blackhole(for_seconds=0.7),
        SlowClose(0.7),
    ):
        with Server(faults=[fault], limits=limits) as server:
            with dial(server.address) as peer:
                assert exchange(peer, b"late, and whole") == b"late, and whole"
            assert record_of(server).closed_by == "peer"


def test_the_idle_limit_holds_behind_a_cut_cable() -> None:
    with Server(faults=[Blackhole()], limits=Limits(idle=0.3)) as server:
        with dial(server.address) as peer:
            peer.sendall(b"held")
            record = record_of(server)
            assert (record.closed_by, record.limit) == ("limit", "idle")
            assert record.seconds >= 0.3


def test_the_idle_limit_counts_again_when_nothing_is_held() -> None:
    with Server(faults=[Latency(0.4)], limits=Limits(idle=0.3)) as server:
        with dial(server.address) as peer:
            assert says_back(peer)
            assert ended(peer)
        record = record_of(server)
        assert (record.closed_by, record.limit) == ("limit", "idle")
        assert record.seconds >= 0.7


@pytest.mark.parametrize("fault", [Latency(0.01), Bandwidth(50_000_000), Slice(10_000)], ids=str)
def test_the_write_limit_holds_for_a_peer_that_does_not_read(fault: Fault) -> None:
    limits = Limits(write=0.4)
    with Server(service=Chargen(), faults=[fault], limits=limits) as server:
        with dial_narrow(server.address):
            record = record_of(server)
            assert (record.closed_by, record.limit) == ("limit", "write")


@pytest.mark.parametrize(
    "fault", [Bandwidth(20_000), Slice(1000, delay=0.05), SlowClose(0.5), Latency(0.5)], ids=str
)
def test_a_stop_waits_for_what_a_fault_holds(shape: str, fault: Fault) -> None:
    data = payload(10_000)
    with serving(shape, fault) as server, dial(server.address) as peer:
        peer.sendall(data)
        record = open_record(server)
        wait_until(lambda: record.bytes_in == len(data))
        if isinstance(fault, SlowClose):
            # It delays no byte; the program has the connection when the answer begins.
            assert peer.recv(1, socket.MSG_PEEK) == data[:1]
        else:
            wait_until(lambda: record.faults)
        stopping = Background(server.stop, drain=60.0)
        assert read_to_end(peer) == data
        report = stopping.result()
        assert (report.drained, report.forced) == (1, 0)


def test_a_stop_waits_no_longer_than_asked() -> None:
    with Server(faults=[Bandwidth(1)]) as server, dial(server.address) as peer:
        peer.sendall(b"slow")
        record = open_record(server)
        wait_until(lambda: record.faults)
        started = time.monotonic()
        report = server.stop(drain=0.2)
        assert 0.2 <= time.monotonic() - started < 0.2 + LATE
        assert (report.drained, report.forced) == (0, 1)


# --- Unix sockets -------------------------------------------------------------------------------


def test_streams_of_unix_sockets_have_the_same_faults(tmp_path: Path) -> None:
    data = payload(20_000)
    cases: list[tuple[Fault, bytes, float]] = [
        (Latency(0.2), data, 0.2),
        (Bandwidth(100_000), data, 0.2),
        (SlowReader(100_000), data, 0.2),
        (Slice(5000, delay=0.05), data, 0.15),
        (Blackhole(for_seconds=0.2), data, 0.2),
        (SlowClose(0.2), data, 0.2),
        (CloseAfter(after_bytes=5, direction="down"), data[:5], 0.0),
        (Truncate(5), data[:5], 0.0),
        (Garbage(b"#!%"), b"#!%", 0.0),
    ]
    for number, (fault, answer, least) in enumerate(cases):
        path = tmp_path / f"{number}"
        with Server(path=path, faults=[fault]), dial_path(str(path)) as peer:
            started = time.monotonic()
            peer.sendall(data)
            if not isinstance(fault, CloseAfter):
                peer.shutdown(socket.SHUT_WR)
            assert read_to_end(peer) == answer, fault
            assert least <= time.monotonic() - started < least + LATE, fault


# --- together -----------------------------------------------------------------------------------


def test_kinds_act_one_behind_the_other(shape: str) -> None:
    data = payload(30_000)
    faults = (
        Latency(0.1, jitter=0.05),
        Slice(3000, variation=2000),
        Bandwidth(200_000, direction="both"),
        SlowClose(0.1),
        SlowReader(200_000),
        Truncate(25_000),
    )
    with serving(shape, *faults) as server:
        with dial(server.address) as peer:
            assert exchange(peer, data) == data[:25_000]
        record = record_of(server)
        assert record.bytes_out == 25_000

"""Every byte arrives, in order, while faults come and go."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support import SOON, Background, dial, ended, says_back, wait_until

from rsock import Accept, Client, Connection, Echo, Forward, Handler, Limits, Server, StopReport
from rsock.faults import Bandwidth, Fault, Latency, Slice

# 65 535 words of two bytes, each of which is its number.
WORDS = struct.pack(">65535H", *range(1, 65_536))
# How long a transfer may take on a busy machine.
PATIENCE = 90.0


def echo(conn: Connection) -> None:
    with contextlib.suppress(OSError):
        while data := conn.recv(65_536):
            conn.sendall(data)


def accept_all(server: Server) -> None:
    def serve(conn: Connection) -> None:
        with conn:
            echo(conn)

    calls = [Background(serve, conn) for conn, _ in server]
    for call in calls:
        call.result()


@contextlib.contextmanager
def echoing(shape: str, limits: Limits | None = None) -> Iterator[Server]:
    """A server that echoes, and lets faults be added at any time."""
    with contextlib.ExitStack() as stack:
        if shape == "accept":
            server = stack.enter_context(Server(service=Accept(), faults=[], limits=limits))
            accepting = Background(accept_all, server)
            stack.callback(accepting.result)
            stack.callback(server.stop)
        elif shape == "handler":
            server = stack.enter_context(Server(service=Handler(echo), faults=[], limits=limits))
        elif shape == "forward":
            target = stack.enter_context(Server())
            service = Forward(*target.address)
            server = stack.enter_context(Server(service=service, limits=limits))
        else:
            workers = int(shape.removeprefix("echo"))
            server = stack.enter_context(Server(workers=workers, limits=limits))
        yield server


SHAPES = ["echo1", "echo2", "forward", "handler", "accept"]
KINDS: dict[str, list[Fault]] = {
    "latency": [Latency(0.002, direction="both")],
    "jitter": [Latency(0.002, jitter=0.002, direction="both")],
    "slice": [Slice(700, 300, direction="both")],
    "slow slices": [Slice(2000, 1000, delay=0.0005)],
    "bandwidth": [Bandwidth(2_000_000, direction="both")],
    "all": [
        Latency(0.001, direction="up"),
        Slice(997, 500, direction="both"),
        Bandwidth(3_000_000),
    ],
}


@contextlib.contextmanager
def changing(end: Server | Client, faults: list[Fault]) -> Iterator[Callable[[], int]]:
    """Adds and removes faults in a loop; what it gives tells how many times."""
    over = threading.Event()
    rounds = 0

    def change() -> None:
        nonlocal rounds
        while not over.is_set():
            with contextlib.ExitStack() as stack:
                for fault in faults:
                    stack.enter_context(end.fault(fault))
                # The faults have something to hold.
                over.wait(0.002)
            rounds += 1

    thread = Background(change)
    try:
        yield lambda: rounds
    finally:
        over.set()
        thread.result(PATIENCE)


def received(client: socket.socket | Client, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        part = client.recv(65_536)
        assert part, f"the end after {len(got)} of {count} bytes"
        got += part
    return bytes(got)


def first_difference(got: bytes) -> str:
    at = next(i for i, (one, other) in enumerate(zip(got, WORDS, strict=True)) if one != other)
    return f"at byte {at}: {got[at - 4 : at + 8].hex()} for {WORDS[at - 4 : at + 8].hex()}"


def words_back(
    client: socket.socket | Client, faulty: Server | Client, kind: str, sizes: random.Random
) -> bytes:
    """Sends all words while the faults of one end change, and returns what comes back."""
    with changing(faulty, KINDS[kind]) as rounds:

        def has_changed(times: int) -> bool:
            return rounds() >= times

        def send() -> None:
            at = 0
            while at < len(WORDS):
                size = sizes.choice([1, 3, 64, 1000, 4096])
                client.sendall(WORDS[at : at + size])
                at += size
                # The transfer lasts for some changes.
                wait_until(functools.partial(has_changed, at * 40 // len(WORDS)), PATIENCE)

        sending = Background(send)
        got = received(client, len(WORDS))
        sending.result(PATIENCE)
        assert rounds() >= 40
        return got


@pytest.mark.parametrize("kind", KINDS)
def test_65_535_words_of_a_client_arrive_in_order(kind: str) -> None:
    with Server() as server, Client(*server.address, faults=[], timeout=PATIENCE) as client:
        got = words_back(client, client, kind, random.Random(kind))
        assert got == WORDS, first_difference(got)
        # The connection goes on as one that never had a fault.
        assert says_back(client)
        assert client.faults == []
    [record] = server.ledger.wait(open=0, closed=1, timeout=SOON)
    assert record.bytes_in == record.bytes_out == len(WORDS) + 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_65_535_words_arrive_in_order(shape: str, kind: str) -> None:
    with echoing(shape) as server, dial(server.address) as client:
        client.settimeout(PATIENCE)
        got = words_back(client, server, kind, random.Random(kind + shape))
        assert got == WORDS, first_difference(got)
        # The connection goes on as one that never had a fault.
        assert says_back(client)
        assert server.faults == []
    [record] = server.ledger
    assert record.bytes_in == record.bytes_out == len(WORDS) + 5


def noise(count: int) -> Iterator[bytes]:
    block = random.Random(1).randbytes(1 << 20)
    for number in range(count):
        yield number.to_bytes(8, "big") + block[8:]


@pytest.mark.parametrize("shape", ["echo1", "forward", "handler"])
def test_bulk_arrives_whole_while_it_is_spliced_and_not(shape: str) -> None:
    # Enough for pipes to be full at every change.
    count = 64 if shape == "echo1" else 24
    faults: list[Fault] = [Latency(0.001, direction="both"), Slice(30_000, 20_000)]
    with echoing(shape) as server, dial(server.address) as client:
        client.settimeout(PATIENCE)
        sent = hashlib.sha256()

        def send() -> None:
            for block in noise(count):
                sent.update(block)
                client.sendall(block)
            client.shutdown(socket.SHUT_WR)

        got, total = hashlib.sha256(), 0
        with changing(server, faults) as rounds:
            sending = Background(send)
            while part := client.recv(1 << 18):
                got.update(part)
                total += len(part)
            sending.result(PATIENCE)
            assert rounds() > 3
        assert total == count << 20
        assert got.digest() == sent.digest()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_peer_that_does_not_read_is_not_read_either(shape: str) -> None:
    limits = Limits(write_buffer=16_384, write=None)
    with echoing(shape, limits) as server, dial(server.address) as client:
        client.settimeout(0.05)
        faults: list[Fault] = [Slice(500), Bandwidth(10_000_000)]
        data = random.Random(2).randbytes(1 << 16)
        with changing(server, faults) as rounds:
            sent, refused = 0, 0
            while refused < 5:
                try:
                    sent += client.send(data[sent % len(data) :])
                    refused = 0
                except TimeoutError:
                    refused += 1
            assert rounds() > 3
            assert sent < 64 << 20
            client.settimeout(PATIENCE)
            got = received(client, sent)
        assert got == (data * (sent // len(data) + 1))[:sent]


@pytest.mark.parametrize("shape", SHAPES)
def test_half_closes_pass_behind_the_bytes(shape: str) -> None:
    with echoing(shape) as server, changing(server, KINDS["all"]) as rounds:
        while rounds() < 60:
            with dial(server.address) as client:
                client.settimeout(PATIENCE)
                client.sendall(WORDS[:5000])
                client.shutdown(socket.SHUT_WR)
                assert received(client, 5000) == WORDS[:5000]
                assert ended(client)
        server.ledger.wait(open=0, timeout=SOON)
        assert {record.closed_by for record in server.ledger} <= {"peer", "local"}


@pytest.mark.parametrize("shape", SHAPES)
def test_resets_by_the_peer_end_their_connections(shape: str) -> None:
    with echoing(shape) as server, changing(server, KINDS["all"]) as rounds:
        number = 0
        while rounds() < 60:
            client = dial(server.address)
            client.sendall(WORDS[: 100 * (number % 50)])
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            number += 1
            if number % 20 == 0:
                server.ledger.wait(open=0, timeout=SOON)
        server.ledger.wait(open=0, timeout=SOON)
    assert server.stop().errors == 0


@pytest.mark.parametrize("drain", [None, 0.0, 0.05])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_stop_while_faults_change_is_bounded_and_leaves_nothing(
    shape: str, drain: float | None
) -> None:
    def change(server: Server, fault: Fault) -> None:
        with contextlib.suppress(RuntimeError):
            while True:
                with server.fault(fault):
                    pass
                server.faults.add(fault)
                server.faults.remove(fault)

    with echoing(shape) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(server.address)) for _ in range(10)]
        for client in clients:
            assert says_back(client)
        faults = [Latency(0.005, direction="both"), Slice(3), Latency(0.001), Bandwidth(1e6)]
        changes = [Background(change, server, fault) for fault in faults]
        for client in clients:
            client.sendall(WORDS[:1000])
        report: StopReport = server.stop(drain)
        for thread in changes:
            thread.result()
        assert report.seconds < 5.0
        assert report.errors == report.abandoned == 0
        assert server.ledger.totals.open == 0
        if drain == 0.0:
            assert report.forced == len(clients)


def test_idle_and_half_close_limits_hold_while_faults_change() -> None:
    limits = Limits(idle=0.5)
    with echoing("echo1", limits) as server, dial(server.address) as client:
        with changing(server, [Latency(0.001), Slice(10)]):
            assert says_back(client)
            started = time.monotonic()
            assert ended(client)
            assert time.monotonic() - started > 0.3
        [record] = server.ledger.wait(open=0, closed=1, timeout=SOON)
        assert (record.closed_by, record.limit) == ("limit", "idle")


def test_the_write_limit_holds_while_faults_change() -> None:
    limits = Limits(write=0.5, write_buffer=16_384)
    with echoing("echo1", limits) as server, dial(server.address) as client:
        client.settimeout(0.2)
        with changing(server, [Latency(0.001), Slice(10_000)]):
            with contextlib.suppress(OSError):
                while True:
                    client.sendall(bytes(65_536))
            [record] = server.ledger.wait(open=0, closed=1, timeout=SOON)
        assert (record.closed_by, record.limit) == ("limit", "write")


def test_the_limit_of_connections_holds_while_faults_change() -> None:
    limits = Limits(connections=3)
    with echoing("handler", limits) as server, changing(server, KINDS["all"]) as rounds:

        def exchange() -> None:
            while rounds() < 50:
                with dial(server.address) as client:
                    client.settimeout(PATIENCE)
                    assert says_back(client)

        clients = [Background(exchange) for _ in range(6)]
        while rounds() < 50:
            assert server.ledger.totals.open <= 3
        for client in clients:
            client.result(PATIENCE)


def test_urgent_data_is_read_in_line_while_faults_change() -> None:
    with echoing("echo1") as server, dial(server.address) as client:
        client.settimeout(PATIENCE)
        sent = 0
        with changing(server, [Latency(0.001)]) as rounds:
            while rounds() < 30:
                client.sendall(b"abc")
                client.send(b"!", socket.MSG_OOB)
                client.sendall(b"def")
                sent += 6
                # The urgent byte is not part of the stream.
                assert received(client, 6) == b"abcdef"
        assert says_back(client)


def test_ten_thousand_changes_leave_nothing_behind() -> None:
    with Server() as server, dial(server.address) as client:
        for number in range(5_000):
            server.faults.add(Latency(0.0))
            if number % 100 == 0:
                assert says_back(client)
            server.faults.remove(Latency(0.0))
        assert says_back(client)
        assert server.faults == []


def test_echo_of_one_server_is_faulty_and_of_another_is_not() -> None:
    with Server(service=Echo()) as faulty, Server(service=Echo()) as other:
        with faulty.fault(Latency(0.25)), dial(faulty.address) as slow, dial(other.address) as fast:
            started = time.monotonic()
            assert says_back(fast)
            assert time.monotonic() - started < 0.25
            assert says_back(slow)
            assert time.monotonic() - started >= 0.25

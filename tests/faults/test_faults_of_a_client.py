"""`Client(faults=[…])`: a client whose connection has faults, and is in all else a client.

The other end is a plain socket where the test is about what the peer sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    SOON,
    Background,
    closed_port,
    drop,
    ended,
    exchange,
    given_back,
    held,
    listener,
    output_of,
    payload,
    read_exactly,
    read_to_end,
    reset,
    run_script,
    says_back,
    send_until_stuck,
    threads,
    wait_until,
    was_reset,
)

import rsock
from rsock import Client, IncompleteRead, Server, SocketOptions
from rsock.faults import (
    AcceptDelay,
    Bandwidth,
    Blackhole,
    Fault,
    Latency,
    Refuse,
    Reset,
    Slice,
)

# Long enough to be told from an answer at once, on a busy machine as well.
LATE = 0.25
HARMLESS: dict[str, list[Fault]] = {
    "none yet": [],
    "no latency": [Latency(0.0, direction="both")],
    "slices": [Slice(997, direction="both")],
}


@pytest.fixture(params=HARMLESS)
def harmless(request: pytest.FixtureRequest) -> list[Fault]:
    """Faults that a program can notice by the time only."""
    return HARMLESS[request.param]


@contextlib.contextmanager
def connected(faults: list[Fault], **options: Any) -> Iterator[tuple[Client, socket.socket]]:
    """A client with faults, and the plain socket at its other end."""
    with listener() as listening:
        options.setdefault("timeout", SOON)
        with Client(*listening.getsockname(), faults=faults, **options) as client:
            peer, _ = listening.accept()
            peer.settimeout(SOON)
            with peer:
                yield client, peer


def record_closed(client: Client) -> rsock.Record:
    """The record of a client whose connection has ended."""
    record = client.record
    assert record is not None
    wait_until(lambda: record.closed_by is not None, what="the record is closed")
    return record


# --- what the faults do --------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_latency_delays_its_direction_from_the_first_byte(direction: Any) -> None:
    with connected([Latency(LATE, direction=direction)]) as (client, peer):
        started = time.monotonic()
        client.sendall(b"hello")
        assert read_exactly(peer, 5) == b"hello"
        up = time.monotonic() - started
        started = time.monotonic()
        peer.sendall(b"HELLO")
        assert client.recv_exactly(5) == b"HELLO"
        down = time.monotonic() - started
        assert (up >= LATE, down >= LATE) == (direction == "up", direction == "down")


def test_a_reset_after_bytes_passes_them_and_resets_both_ends() -> None:
    with connected([Reset(after_bytes=3, direction="up")]) as (client, peer):
        client.sendall(b"hello")
        got = b""
        with pytest.raises(ConnectionResetError):
            while True:
                got += peer.recv(10)
        assert got in (b"", b"hel")
        with pytest.raises(ConnectionResetError):
            client.recv(10)
        record = record_closed(client)
        assert (record.closed_by, record.fault) == ("fault", "reset")


def test_a_reset_at_once_is_a_reset_and_no_end() -> None:
    with connected([Reset(after_seconds=0)]) as (client, peer):
        assert was_reset(peer)
        with pytest.raises(ConnectionResetError):
            client.recv(10)
        with pytest.raises(OSError, match="Bad file descriptor"):
            _ = client.tcp_info
        assert record_closed(client).closed_by == "fault"


def test_slices_arrive_one_by_one() -> None:
    with connected([Slice(3, direction="down", delay=0.05)]) as (client, peer):
        peer.sendall(b"abcdefgh")
        assert [client.recv(100) for _ in range(3)] == [b"abc", b"def", b"gh"]


def test_a_bandwidth_bounds_what_the_client_sends() -> None:
    data = bytes(30_000)
    with connected([Bandwidth(100_000, direction="up")]) as (client, peer):
        started = time.monotonic()
        sending = Background(client.sendall, data)
        assert len(read_exactly(peer, len(data))) == len(data)
        sending.result()
        # A first burst may go at once.
        assert time.monotonic() - started >= 0.15


def fates(seed: int) -> list[bool]:
    """Which of some faults a client has by chance."""
    faults: list[Fault] = [Latency(0.0, probability=0.5) for _ in range(20)]
    with Server() as server, server.client(faults=faults, seed=seed, timeout=SOON) as client:
        assert says_back(client)
        return [count.connections == 1 for count in client.faults.counts()]


def test_the_same_seed_gives_the_same_faults() -> None:
    first = fates(7)
    assert fates(7) == first
    assert set(first) == {True, False}
    assert any(fates(seed) != first for seed in range(8, 12))


def test_a_seed_that_was_drawn_can_be_read_and_used_again() -> None:
    with connected([]) as (client, _), connected([], seed=client.seed) as (other, _):
        assert isinstance(client.seed, int)
        assert other.seed == client.seed
    with Client() as plain:
        assert plain.seed is None


@pytest.mark.parametrize("connections", [1, {1}])
def test_a_client_is_the_first_and_only_connection(connections: Any) -> None:
    for _ in range(2):
        with connected([Latency(LATE, connections=connections)]) as (client, peer):
            started = time.monotonic()
            peer.sendall(b"x")
            assert client.recv(1) == b"x"
            assert time.monotonic() - started >= LATE


# --- changes -------------------------------------------------------------------------------


def test_a_fault_of_a_block_acts_in_the_block_only() -> None:
    with Server() as server, server.client(faults=[], timeout=SOON) as client:
        assert says_back(client)
        with client.fault(Latency(LATE)) as fault:
            assert client.faults == [fault]
            started = time.monotonic()
            assert says_back(client)
            assert time.monotonic() - started >= LATE
            assert client.faults.counts()[0].connections == 1
        assert client.faults == []
        started = time.monotonic()
        assert says_back(client)
        assert time.monotonic() - started < LATE


def test_words_arrive_in_order_while_faults_come_and_go() -> None:
    words = b"".join(number.to_bytes(2) for number in range(65_535))
    with Server() as server, server.client(faults=[], timeout=SOON) as client:
        both = Background(exchange, client, words)
        while both.running:
            with client.fault(Latency(0.001, jitter=0.001, direction="both")):
                with client.fault(Slice(101, direction="up")):
                    pass
        assert both.result() == words


def test_a_fault_that_is_removed_lets_go_what_it_holds_in_order() -> None:
    with connected([Latency(3600, direction="up")]) as (client, peer):
        client.sendall(b"first ")
        client.sendall(b"second")
        client.shutdown(socket.SHUT_WR)
        client.faults.clear()
        assert read_to_end(peer) == b"first second"


def test_a_fault_can_be_added_before_the_connect() -> None:
    with listener() as listening, Client(faults=[], timeout=SOON) as client:
        client.faults.add(Reset(after_seconds=0))
        client.connect(listening.getsockname())
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        listening.accept()[0].close()


def test_a_client_without_faults_says_how_to_have_some(echo_pair: tuple[Server, Client]) -> None:
    _, client = echo_pair
    assert client.faults == []
    text = r"without faults=\[…\], which may be empty"
    with pytest.raises(ValueError, match=text):
        client.faults.add(Latency(1))
    with pytest.raises(ValueError, match=text), client.fault(Latency(1)):
        pass


# --- a client like any other ---------------------------------------------------------------


def test_a_mebibyte_in_random_chunks_comes_back(harmless: list[Fault]) -> None:
    data = payload(1 << 20)
    chunks = random.Random(7)

    def send(client: Client) -> None:
        at = 0
        while at < len(data):
            size = chunks.choice([1, 7, 1000, 65_536])
            client.sendall(data[at : at + size])
            at += size
        client.shutdown(socket.SHUT_WR)

    with Server() as server, server.client(faults=harmless, timeout=SOON) as client:
        sending = Background(send, client)
        assert read_to_end(client) == data
        assert client.recv(1) == b""
        sending.result()
        record = record_closed(client)
        assert (record.bytes_out, record.bytes_in) == (len(data), len(data))
        assert record.closed_by in {"peer", "local"}


def test_addresses_options_and_tcp_info_are_those_of_the_connection(
    harmless: list[Fault],
) -> None:
    options = SocketOptions(keepalive=True, max_segment=1000, receive_buffer=20_000)
    with connected(harmless, options=options) as (client, peer):
        assert client.getpeername() == peer.getsockname()
        assert client.getsockname() == peer.getpeername()
        assert (client.family, client.type, client.proto) == (
            socket.AF_INET,
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
        )
        tuple_ = client.five_tuple
        assert (tuple_.fd, tuple_.remote_port) == (client.fileno(), peer.getsockname()[1])
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 40_000
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
        client.sendall(b"hello")
        assert read_exactly(peer, 5) == b"hello"
        wait_until(lambda: client.tcp_info.bytes_acked >= 5)
        record = client.record
        assert record is not None
        assert record.local.address == client.getsockname()
        # The worker counts what it has sent, after the peer may have it.
        wait_until(lambda: record.bytes_out == 5)
        assert (record.role, record.id) == ("client", client.id)


@pytest.mark.parametrize(
    "read",
    [
        lambda client: client.makefile("rb").readline(),
        lambda client: os.read(client.fileno(), 6),
        lambda client: client.recv_line(),
        lambda client: bytes(client.recvmsg(6)[0]),
    ],
    ids=["makefile", "os.read", "recv_line", "recvmsg"],
)
def test_every_way_of_reading_finds_the_bytes(harmless: list[Fault], read: Any) -> None:
    with connected(harmless) as (client, peer):
        peer.sendall(b"hello\n")
        # Whole, so that one call reads it.
        wait_until(lambda: client.recv(6, socket.MSG_PEEK) == b"hello\n")
        assert read(client) == b"hello\n"


def test_a_half_close_goes_both_ways(harmless: list[Fault]) -> None:
    with connected(harmless) as (client, peer):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(peer) == b"question"
        peer.sendall(b"answer")
        peer.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"answer"
        # The connection is over, in peace.
        record_closed(client)
        assert client.recv(1) == b""
        assert os.read(client.fileno(), 1) == b""


def test_the_end_of_the_peer_is_an_end_and_the_client_goes_on_sending(
    harmless: list[Fault],
) -> None:
    with connected(harmless) as (client, peer):
        peer.sendall(b"short")
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises(IncompleteRead) as short:
            client.recv_exactly(10)
        assert short.value.partial == b"short"
        client.sendall(b"late")
        assert read_exactly(peer, 4) == b"late"
        client.close()
        assert ended(peer)
        assert record_closed(client).closed_by == "peer"


@pytest.mark.parametrize("call", ["recv", "sendall", "os.read", "waiting"])
def test_a_reset_by_the_peer_is_an_error_of_the_call(harmless: list[Fault], call: str) -> None:
    with connected(harmless) as (client, peer):
        client.sendall(b"!")
        assert read_exactly(peer, 1) == b"!"
        if call == "waiting":
            reading = Background(client.recv, 1)
            wait_until(reading.asleep)
            reset(peer)
            with pytest.raises(ConnectionResetError):
                reading.result()
        else:
            reset(peer)
            record_closed(client)
            with pytest.raises(ConnectionError) as error:
                if call == "sendall":
                    client.sendall(b"x")
                elif call == "recv":
                    client.recv(1)
                else:
                    os.read(client.fileno(), 1)
            assert isinstance(error.value, ConnectionResetError)
        assert record_closed(client).closed_by == "reset"


def test_nothing_is_sent_once_the_record_has_a_reset() -> None:
    # Each time there is a moment between the close of the record and that of the socket pair.
    with listener() as listening:
        for _ in range(500):
            with Client(*listening.getsockname(), faults=[], timeout=SOON) as client:
                peer, _ = listening.accept()
                reset(peer)
                record = client.record
                while record is None or record.closed_by is None:
                    pass
                with pytest.raises(ConnectionResetError):
                    client.sendall(b"x")


def test_what_came_before_a_reset_is_read_first(harmless: list[Fault]) -> None:
    with connected(harmless) as (client, peer):
        peer.sendall(b"last words")
        wait_until(lambda: client.recv(10, socket.MSG_PEEK) == b"last words")
        reset(peer)
        record_closed(client)
        assert client.recv(100, socket.MSG_WAITALL) == b"last words"
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_an_abort_resets_the_connection(harmless: list[Fault]) -> None:
    with connected(harmless) as (client, peer):
        client.abort()
        assert was_reset(peer)
        assert record_closed(client).closed_by == "local"


def test_an_abort_after_a_half_close_resets_the_connection(harmless: list[Fault]) -> None:
    with connected(harmless) as (client, peer):
        client.shutdown(socket.SHUT_WR)
        assert ended(peer)
        client.abort()
        # The end is behind it; the next byte meets the reset.
        record_closed(client)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                peer.sendall(b"x")


def test_a_linger_time_of_zero_makes_the_close_a_reset(harmless: list[Fault]) -> None:
    with connected(harmless) as (client, peer):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert was_reset(peer)


def test_a_close_delivers_everything_that_was_sent(harmless: list[Fault]) -> None:
    data = payload(3 << 20)
    with connected([*harmless, Latency(0.05, direction="up")]) as (client, peer):
        sending = Background(client.sendall, data)
        reading = Background(read_to_end, peer)
        sending.result()
        client.close()
        assert reading.result() == data
        record = record_closed(client)
        assert (record.closed_by, record.bytes_out) == ("local", len(data))


def test_a_peer_that_goes_on_sending_after_the_close_is_reset(harmless: list[Fault]) -> None:
    with connected(harmless) as (client, peer):
        client.close()
        assert ended(peer)
        record_closed(client)

        def noticed() -> bool:
            try:
                peer.sendall(b"x")
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        wait_until(noticed, what="the peer learns that there is no client")


@pytest.mark.parametrize("size", [0, 1, 8 << 20])
def test_a_close_in_front_of_a_cut_cable_ends_with_a_reset(size: int) -> None:
    with connected([Blackhole()]) as (client, peer):
        before = threads()
        sending = Background(client.sendall, bytes(size))
        if size > 1 << 20:
            wait_until(sending.asleep)
        else:
            sending.result()
        client.close()
        assert was_reset(peer)
        record_closed(client)
        wait_until(lambda: not threads().keys() & before.keys(), what="the thread has ended")
        if size > 1 << 20:
            with pytest.raises(OSError, match="the client is closed"):
                sending.result()


def test_a_close_waits_for_the_end_of_an_outage() -> None:
    with connected([Blackhole(for_seconds=LATE)]) as (client, peer):
        started = time.monotonic()
        client.sendall(b"late")
        client.close()
        assert read_to_end(peer) == b"late"
        assert time.monotonic() - started >= LATE * 0.9


def test_an_abort_in_front_of_a_cut_cable_ends_the_connection() -> None:
    with connected([Blackhole()]) as (client, peer):
        client.sendall(b"never sent")
        client.abort()
        assert was_reset(peer)
        record_closed(client)


def test_back_pressure_reaches_the_peer(harmless: list[Fault]) -> None:
    with connected(harmless) as (client, peer):
        sent = send_until_stuck(peer, bytes(64 << 20))
        assert sent < 32 << 20
        peer.shutdown(socket.SHUT_WR)
        assert len(read_to_end(client)) == sent


def test_time_outs_and_waits_are_those_of_any_client(harmless: list[Fault]) -> None:
    with connected(harmless) as (client, peer):
        client.settimeout(0.01)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(0)
        assert not os.get_blocking(client.fileno())
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.setblocking(True)
        assert os.get_blocking(client.fileno())
        reading = Background(client.recv, 1)
        wait_until(reading.asleep)
        peer.sendall(b"x")
        assert reading.result() == b"x"


def test_a_close_by_another_thread_ends_the_call(harmless: list[Fault]) -> None:
    with connected(harmless) as (client, peer):
        reading = Background(client.recv, 1)
        wait_until(reading.asleep)
        client.close()
        with pytest.raises(OSError, match="the client is closed") as error:
            reading.result()
        assert error.value.errno == errno.EBADF
        assert ended(peer)


def test_a_duplicate_goes_on_when_the_client_is_closed(harmless: list[Fault]) -> None:
    with connected(harmless) as (client, peer), client.to_socket() as duplicate:
        duplicate.settimeout(SOON)
        client.close()
        duplicate.sendall(b"question")
        assert read_exactly(peer, 8) == b"question"
        peer.sendall(b"answer")
        assert read_exactly(duplicate, 6) == b"answer"
        duplicate.close()
        assert ended(peer)
        assert record_closed(client).closed_by == "local"


def test_a_detached_descriptor_goes_on(harmless: list[Fault]) -> None:
    with connected(harmless) as (client, peer):
        with socket.socket(fileno=client.detach()) as detached:
            assert client.fileno() == -1
            detached.sendall(b"x")
            assert read_exactly(peer, 1) == b"x"
        assert ended(peer)
        assert record_closed(client).closed_by == "detached"


def test_a_loop_waits_for_it(harmless: list[Fault]) -> None:
    async def ask(client: Client) -> bytes:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"hello")  # type: ignore[arg-type]
        return await loop.sock_recv(client, 100)  # type: ignore[arg-type]

    with Server() as server, server.client(faults=harmless, timeout=SOON) as client:
        assert asyncio.run(asyncio.wait_for(ask(client), SOON)) == b"hello"


# --- connecting ----------------------------------------------------------------------------


def test_a_connect_that_fails_can_be_repeated(harmless: list[Fault]) -> None:
    with Client(faults=harmless, timeout=SOON) as client, listener() as listening:
        with closed_port() as nowhere:
            assert client.connect_ex(nowhere) == errno.ECONNREFUSED
            with pytest.raises(ConnectionRefusedError):
                client.connect(nowhere)
        assert client.record is None
        assert client.connect_ex(listening.getsockname()) == 0
        peer, _ = listening.accept()
        with peer:
            peer.sendall(b"x")
            assert client.recv(1) == b"x"
            assert client.connect_ex(listening.getsockname()) == errno.EISCONN


def test_a_connect_tries_again_until_there_is_a_server() -> None:
    with Server() as server:
        address = server.address
        server.stop()
        connecting = Background(
            lambda: Client(*address, faults=[Latency(0)], retry=SOON, timeout=SOON)
        )
        with Server(*address), connecting.result() as client:
            assert says_back(client)


def test_a_name_with_several_addresses_is_raced(harmless: list[Fault]) -> None:
    with Server() as server:
        with Client("localhost", server.port, faults=harmless, timeout=SOON) as client:
            assert says_back(client)
            assert client.getpeername() == server.address


def test_a_source_address_is_that_of_the_connection() -> None:
    with listener() as listening:
        source = ("127.0.0.77", 0)
        options: Any = {"source_address": source, "timeout": SOON, "faults": []}
        with Client(*listening.getsockname(), **options) as client:
            assert client.getsockname()[0] == "127.0.0.77"
            peer, name = listening.accept()
            peer.close()
            assert name == client.getsockname()


def test_unix_sockets_have_faults_too(path: str, harmless: list[Fault]) -> None:
    with Server(path=path) as server:
        with server.client(faults=[*harmless, Latency(LATE)], timeout=SOON) as client:
            started = time.monotonic()
            assert says_back(client)
            assert time.monotonic() - started >= LATE
            assert client.getpeername() == path
            assert client.record is not None
            assert client.record.peer_credentials is not None
            assert client.record.peer_credentials.pid == os.getpid()


def test_a_connect_that_does_not_wait_says_how_to(harmless: list[Fault]) -> None:
    with listener() as listening:
        with pytest.raises(ValueError, match="faults=… and timeout=0"):
            Client(*listening.getsockname(), faults=harmless, timeout=0)
        with Client(faults=harmless, timeout=0) as client:
            for connect in (client.connect, client.connect_ex):
                with pytest.raises(ValueError, match="has to wait for its connection"):
                    connect(listening.getsockname())


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"faults": Latency(1)}, TypeError, "faults"),
        ({"faults": [Latency]}, TypeError, "Latency is a class"),
        ({"faults": ["latency"]}, TypeError, "faults"),
        ({"faults": "latency"}, TypeError, "faults"),
        ({"faults": [], "seed": -1}, ValueError, "seed -1"),
        ({"faults": [], "seed": 1.5}, TypeError, "seed"),
        ({"faults": [Refuse()]}, ValueError, "a client accepts nothing"),
        ({"faults": [Latency(1), AcceptDelay(1)]}, ValueError, "a client accepts nothing"),
        ({"seed": 1}, ValueError, "seed=… is that of faults"),
        ({"faults": [Latency(1)], "transport": "udp"}, ValueError, "faults"),
        ({"faults": [], "transport": "unix-datagram"}, ValueError, "faults"),
    ],
)
def test_bad_faults_are_refused_before_anything_is_opened(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with listener() as listening:
        opened = len(os.listdir("/proc/self/fd"))
        address = () if "transport" in arguments else listening.getsockname()
        with pytest.raises(error, match=text):
            Client(*address, **arguments)
        assert len(os.listdir("/proc/self/fd")) == opened


# --- the thread that serves them -----------------------------------------------------------


def client_threads(before: dict[int, str]) -> int:
    return len(threads().keys() - before.keys())


def test_all_clients_share_one_thread_that_ends_with_the_last() -> None:
    with listener(backlog=128) as listening:
        before = threads()
        clients = [Client(*listening.getsockname(), faults=[], timeout=SOON) for _ in range(100)]
        peers = [listening.accept()[0] for _ in clients]
        # A thread sets its own name, which may be later.
        wait_until(lambda: client_threads(before) == 1)
        for peer in peers:
            peer.sendall(b"x")
        assert [client.recv(1) for client in clients] == [b"x"] * 100
        for client in clients[1:]:
            client.close()
        peers[0].sendall(b"y")
        assert clients[0].recv(1) == b"y"
        assert client_threads(before) == 1
        clients[0].close()
        wait_until(lambda: client_threads(before) == 0, what="the thread has ended")
        for peer in peers:
            peer.close()


def test_a_thousand_clients_leave_nothing() -> None:
    with Server(workers=1) as server:
        with server.client(timeout=SOON) as plain:
            assert says_back(plain)
        server.ledger.wait(open=0, timeout=SOON)
        # A record closes before its descriptor does: that one may be counted here.
        before = held()
        for _ in range(1000):
            with server.client(faults=[Latency(0)], timeout=SOON) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
        server.ledger.wait(open=0, timeout=SOON)
        given_back(before)


def test_a_client_that_is_dropped_is_closed() -> None:
    with listener() as listening:
        with pytest.warns(ResourceWarning):
            held = [Client(*listening.getsockname(), faults=[], timeout=SOON)]
            peer, _ = listening.accept()
            drop(held)
        peer.settimeout(SOON)
        with peer:
            assert ended(peer)


def test_a_connect_without_descriptors_left_fails_and_connects_nothing() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listener() as listening, Client(faults=[], timeout=SOON) as client:
        held = [os.dup(0)]
        highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
        try:
            # One number is free, and the pair takes two.
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, hard))
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.dup(0))
            os.close(held.pop())
            with pytest.raises(OSError, match="Too many open files") as error:
                client.connect(listening.getsockname())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for number in held:
                os.close(number)
        assert error.value.errno == errno.EMFILE
        peer, _ = listening.accept()
        peer.settimeout(SOON)
        with peer:
            with contextlib.suppress(ConnectionResetError):
                assert ended(peer)
        assert client.record is None
        client.connect(listening.getsockname())
        peer, _ = listening.accept()
        with peer:
            peer.sendall(b"x")
            assert client.recv(1) == b"x"


# --- ends ----------------------------------------------------------------------------------


def test_stop_all_delivers_what_was_sent_and_ends_the_clients() -> None:
    with connected([Latency(LATE, direction="up")]) as (client, peer):
        before = threads()
        client.sendall(b"last words")
        assert rsock.stop_all() == []
        wait_until(lambda: not threads().keys() & before.keys())
        assert read_to_end(peer) == b"last words"
        assert client.recv(1) == b""
        assert record_closed(client).closed_by == "stop"
        with pytest.raises(OSError):  # noqa: PT011 - EPIPE, or ECONNRESET
            client.sendall(b"x")
    with connected([]) as (client, peer):
        peer.sendall(b"x")
        assert client.recv(1) == b"x"


def test_stop_all_without_drain_resets_the_clients() -> None:
    with connected([Latency(3600, direction="both")]) as (client, peer):
        client.sendall(b"never sent")
        started = time.monotonic()
        rsock.stop_all(0)
        assert time.monotonic() - started < SOON
        assert was_reset(peer)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.parametrize("how", ["closed", "open", "raise SystemExit(3)"])
def test_the_end_of_the_program_delivers_what_was_sent(how: str) -> None:
    code = """
import sys
from rsock import Client
from rsock.faults import Latency
client = Client("127.0.0.1", int(sys.argv[1]), faults=[Latency(0.2, direction="up")])
client.sendall(b"last words")
""" + {"closed": "client.close()", "open": ""}.get(how, how)
    with listener() as listening:
        running = Background(run_script, code, str(listening.getsockname()[1]))
        peer, _ = listening.accept()
        peer.settimeout(SOON)
        with peer:
            assert read_to_end(peer) == b"last words"
        done = running.result()
        assert done.returncode == (3 if "3" in how else 0)
        assert done.stderr == ""


def test_a_child_uses_an_inherited_client_through_its_parent() -> None:
    code = """
import os, sys, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from rsock import Client, Server
from rsock.faults import Latency
with Server() as server:
    client = Client(*server.address, faults=[Latency(0.01)], timeout=10)
    waiting = Client(faults=[], timeout=10)
    child = os.fork()
    if child == 0:
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"
        try:
            waiting.connect(client.getpeername())
        except RuntimeError as error:
            assert "forked child" in str(error), error
        else:
            raise AssertionError("connected")
        client.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    # The close of the child has not ended it.
    client.sendall(b"again")
    assert client.recv_exactly(5) == b"again"
    address = server.address
    child = os.fork()
    if child == 0:
        with Client(*address, faults=[Latency(0.01)], timeout=10) as own:
            own.sendall(b"own")
            assert own.recv_exactly(3) == b"own"
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    client.close()
    waiting.close()
print("done")
"""
    assert output_of(code) == "done\n"


def test_a_program_that_closes_what_is_not_its_own_gets_an_end() -> None:
    code = """
import os, sys
from rsock import Client
client = Client("127.0.0.1", int(sys.argv[1]), faults=[], timeout=10)
keep = client.fileno()
for number in range(3, 100):
    if number != keep:
        try:
            os.close(number)
        except OSError:
            pass
try:
    client.sendall(b"x")
    print(client.recv(1))
except OSError as error:
    print(type(error).__name__)
sys.stdout.flush()
"""
    with listener() as listening:
        done = Background(run_script, code, str(listening.getsockname()[1]))
        peer, _ = listening.accept()
        with peer:
            result = done.result()
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout in ("b''\n", "ConnectionResetError\n", "BrokenPipeError\n")


def test_the_module_of_faults_is_not_loaded_by_a_client(tmp_path: Path) -> None:
    code = "import rsock, sys; rsock.Client().close(); print('rsock.faults' in sys.modules)"
    assert output_of(code) == "False\n"

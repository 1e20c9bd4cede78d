"""What is sent to Echo comes back: every byte, in order, once."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import time

import pytest
from support import (
    Background,
    Stream,
    all_say_back,
    arrived,
    dial,
    dial_narrow,
    exchange,
    given_back,
    held,
    payload,
    read_exactly,
    read_to_end,
    rss,
    says_back,
    send_until_stuck,
)

from rsock import Client, Limits, Server, SocketOptions

KIB, MIB = 1 << 10, 1 << 20
SIZES = [0, 1, 2, 99, 1_460, 4_096, 65_535, 65_536, 65_537, 200_001, MIB]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["socket", "Client"])
def test_every_size_comes_back_byte_for_byte_and_then_the_end(
    echo: Server, kind: str, size: int
) -> None:
    data = payload(size, seed=size)
    with contextlib.ExitStack() as stack:
        stream: Stream
        if kind == "socket":
            stream = stack.enter_context(dial(echo.address))
        else:
            stream = stack.enter_context(echo.client(timeout=5.0))
        assert exchange(stream, data) == data


@pytest.mark.parametrize("write_buffer", [4 * KIB, 64 * KIB, MIB])
def test_eight_mebibytes_come_back_whatever_the_buffer(write_buffer: int) -> None:
    data = payload(8 * MIB)
    with Server(limits=Limits(write_buffer=write_buffer)) as server:
        with dial(server.address) as peer:
            assert exchange(peer, data) == data
        server.ledger.wait(open=0, closed=1)
        [record] = server.ledger.closed
        assert (record.bytes_in, record.bytes_out) == (8 * MIB, 8 * MIB)


def test_a_thousand_messages_on_one_connection(echo_pair: tuple[Server, Client]) -> None:
    _, client = echo_pair
    dice = random.Random(1)
    for number in range(1_000):
        message = payload(dice.randint(1, 3_000), seed=number)
        client.sendall(message)
        assert client.recv_exactly(len(message)) == message


def test_single_bytes_keep_their_order(echo: Server) -> None:
    data = payload(2_000)
    with dial(echo.address) as peer:
        for position in range(len(data)):
            peer.sendall(data[position : position + 1])
        peer.shutdown(socket.SHUT_WR)
        assert read_to_end(peer) == data


def test_uneven_chunks_and_pauses_change_nothing(echo: Server) -> None:
    dice = random.Random(7)
    data = payload(2 * MIB, seed=7)

    def send(peer: socket.socket) -> None:
        position = 0
        while position < len(data):
            size = dice.choice([1, 100, 5_000, 64 * KIB, 300 * KIB])
            peer.sendall(data[position : position + size])
            position += size
            if dice.random() < 0.2:
                time.sleep(0.001)
        peer.shutdown(socket.SHUT_WR)

    with dial(echo.address) as peer:
        sender = Background(send, peer)
        got = bytearray()
        while part := peer.recv(dice.choice([1, 700, 9_000, 128 * KIB])):
            got += part
        sender.result()
    assert got == data


def test_everything_owed_is_sent_after_the_peer_has_finished(echo: Server) -> None:
    data = payload(200 * KIB)
    with dial_narrow(echo.address) as peer:
        sender = Background(peer.sendall, data)
        head = read_exactly(peer, 100 * KIB)
        sender.result()
        peer.shutdown(socket.SHUT_WR)
        assert head + read_to_end(peer) == data


def test_data_and_end_that_come_at_once_are_both_seen(echo: Server) -> None:
    for number in range(100):
        data = payload(1 + number * 37, seed=number)
        with dial(echo.address) as peer:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            assert read_to_end(peer) == data


def test_nothing_but_an_end_is_answered_with_the_end(echo: Server) -> None:
    for _ in range(20):
        with dial(echo.address) as peer:
            peer.shutdown(socket.SHUT_WR)
            assert peer.recv(1) == b""


def test_a_peer_that_does_not_read_is_not_read_either() -> None:
    data = payload(8 * MIB)
    limits = Limits(write_buffer=64 * KIB)
    options = SocketOptions(send_buffer=64 * KIB, receive_buffer=64 * KIB)
    with Server(limits=limits, options=options) as server, dial_narrow(server.address) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
        memory = rss()
        sent = send_until_stuck(peer, data)
        assert sent < 2 * MIB
        [record] = server.ledger.open
        held = record.bytes_in - record.bytes_out
        # One read beyond the mark is needed to notice it.
        assert held <= 2 * 64 * KIB
        assert rss() - memory < 4 * MIB
        # Other connections are still served.
        with dial(server.address) as other:
            assert says_back(other)

        def send_the_rest() -> None:
            peer.sendall(data[sent:])
            peer.shutdown(socket.SHUT_WR)

        # With a window this narrow the transfer would take minutes.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
        sender = Background(send_the_rest)
        assert read_to_end(peer) == data
        sender.result()


def test_one_who_floods_does_not_starve_the_others(echo: Server) -> None:
    with contextlib.ExitStack() as stack:
        flooders = [stack.enter_context(dial(echo.address)) for _ in range(4)]
        data = payload(16 * MIB)
        floods = [Background(exchange, peer, data) for peer in flooders]
        with dial(echo.address) as peer:
            rounds = 0
            while any(flood.running for flood in floods):
                assert says_back(peer)
                rounds += 1
        assert all(flood.result() == data for flood in floods)
        assert rounds >= 10


def test_two_hundred_clients_at_once(echo: Server) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(echo.address)) for _ in range(200)]
        echo.ledger.wait(open=200)
        for number, peer in enumerate(peers):
            peer.sendall(f"I am number {number:3}".encode())
        for number, peer in enumerate(peers):
            assert read_exactly(peer, 15) == f"I am number {number:3}".encode()
    echo.ledger.wait(open=0, closed=200)


def test_more_clients_than_the_backlog_holds() -> None:
    with (
        Server(options=SocketOptions(backlog=1)) as server,
        contextlib.ExitStack() as stack,
    ):
        peers = []
        for _ in range(50):
            peer = stack.enter_context(socket.socket())
            peer.setblocking(False)
            assert peer.connect_ex(server.address) != 0
            peers.append(peer)
        for peer in peers:
            # The system retries a handshake that found the queue full after a second.
            assert select.select([], [peer], [], 15.0)[1]
            assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            peer.settimeout(5.0)
            assert says_back(peer)
        assert server.ledger.totals.accepted == 50


def test_urgent_data_does_not_hang_the_echo(echo: Server) -> None:
    with dial(echo.address) as peer:
        for _ in range(20):
            peer.sendall(b"a")
            peer.send(b"!", socket.MSG_OOB)
            arrived(peer)
            peer.sendall(b"b")
            assert read_exactly(peer, 2) == b"ab"


def test_urgent_data_before_the_end_does_not_hide_it(echo: Server) -> None:
    for _ in range(20):
        with dial(echo.address) as peer:
            peer.sendall(b"ab")
            peer.send(b"!", socket.MSG_OOB)
            peer.shutdown(socket.SHUT_WR)
            assert read_to_end(peer) == b"ab"


def test_several_workers_serve_alike() -> None:
    with Server(workers=3) as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(30)]
        for number, peer in enumerate(peers):
            peer.sendall(payload(5_000, seed=number))
        for number, peer in enumerate(peers):
            assert read_exactly(peer, 5_000) == payload(5_000, seed=number)


def test_echo_goes_on_while_python_is_busy(echo: Server) -> None:
    with dial(echo.address) as peer:
        spinning = True

        def spin() -> None:
            while spinning:
                pass

        spinner = Background(spin)
        try:
            assert exchange(peer, payload(MIB)) == payload(MIB)
        finally:
            spinning = False
            spinner.result()


def test_descriptors_return_when_connections_end() -> None:
    # Additional workers, which may start under load, would have their own descriptors.
    with Server(workers=1) as server:
        with dial(server.address) as peer:
            assert says_back(peer)
        server.ledger.wait(open=0)
        before = held()
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                peers = [stack.enter_context(dial(server.address)) for _ in range(20)]
                assert all_say_back(peers)
            server.ledger.wait(open=0)
        given_back(before)

"""The order in which a handler gets the datagrams of a peer."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from functools import partial

import pytest
from support import SOON, Background, wait_until

from rsock import Client, Handler, Limits, Server

Address = tuple[str, int]
# No more than this many datagrams are under way at a time: a receive buffer has room for them.
WINDOW = 50


def all_have(seen: dict[Address, list[int]], count: int) -> bool:
    return all(len(each) > count for each in seen.values())


def has_received(server: Server, count: int) -> bool:
    return server.ledger.totals.messages_in > count


def test_a_handler_gets_each_peers_datagrams_in_their_order() -> None:
    count, peers = 400, 5
    seen: dict[Address, list[int]] = {}
    dice = random.Random(40)
    naps = [dice.choice((0.0, 0.0, 0.0005)) for _ in range(count)]

    def handle(data: bytes, address: Address) -> None:
        time.sleep(naps[int(data)])
        seen[address].append(int(data))

    with Server(service=handle, transport="udp") as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(peers)]
        for client in clients:
            seen[client.getsockname()] = []
        for number in range(count):
            for client in clients:
                client.send(b"%d" % number)
            # Paced, so that the kernel drops none.
            wait_until(partial(all_have, seen, number - WINDOW // peers))
        wait_until(lambda: all(len(each) == count for each in seen.values()))
        assert all(each == list(range(count)) for each in seen.values())


def test_answers_to_a_peer_keep_the_order_of_its_datagrams() -> None:
    def handle(data: bytes, address: Address) -> bytes:
        if data == b"0":
            time.sleep(0.05)
        return data

    with Server(service=handle, transport="udp") as server, server.client(timeout=SOON) as client:
        for number in range(10):
            client.send(b"%d" % number)
        assert [client.recv(10) for _ in range(10)] == [b"%d" % number for number in range(10)]


def test_a_peer_that_does_not_care_has_its_datagrams_handled_at_the_same_time() -> None:
    both = threading.Barrier(2)
    service = Handler(lambda data, address: b"%d" % both.wait(SOON), ordered=False)
    assert not service.ordered
    with Server(service=service, transport="udp") as server, server.client(timeout=SOON) as client:
        client.send(b"x")
        client.send(b"x")
        assert {client.recv(10), client.recv(10)} == {b"0", b"1"}


def test_one_peers_datagrams_are_never_handled_at_the_same_time() -> None:
    inside: list[int] = []
    most: list[int] = []

    def handle(data: bytes, address: Address) -> bytes:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.001)
        inside.pop()
        return data

    with Server(service=handle, transport="udp") as server, server.client(timeout=SOON) as client:
        for _ in range(3):
            for _ in range(30):
                client.send(b"x")
            for _ in range(30):
                client.recv(10)
    assert max(most) == 1


def test_a_peer_whose_datagrams_wait_holds_up_no_other() -> None:
    """Many more wait than the pool's queue holds, and more than there are threads."""
    gate = threading.Event()
    got: list[int] = []
    count = 1000

    def handle(data: bytes, address: Address) -> bytes | None:
        if data == b"quick":
            return data
        gate.wait(SOON)
        got.append(int(data))
        return None

    limits = Limits(handler_threads=4)
    with Server(service=handle, transport="udp", limits=limits) as server, server.client() as slow:
        for number in range(count):
            slow.send(b"%d" % number)
            wait_until(partial(has_received, server, number - WINDOW))
        wait_until(lambda: server.ledger.totals.messages_in == count)
        with server.client(timeout=SOON) as quick:
            quick.send(b"quick")
            assert quick.recv(10) == b"quick"
        gate.set()
        wait_until(lambda: len(got) == count)
        assert got == list(range(count))
        assert server.ledger.totals.dropped == 0


def test_what_waits_for_one_peer_is_bounded() -> None:
    gate = threading.Event()
    got: list[int] = []
    count, size = 1200, 1000  # More than a mebibyte.

    def handle(data: bytes, address: Address) -> None:
        gate.wait(SOON)
        got.append(int(data))

    with Server(service=handle, transport="udp") as server, server.client() as slow:
        for number in range(count):
            slow.send(b"%d".ljust(size) % number)
            wait_until(partial(has_received, server, number - WINDOW))
        wait_until(lambda: server.ledger.totals.messages_in == count)
        dropped = server.ledger.totals.dropped
        assert 0 < dropped < count
        gate.set()
        wait_until(lambda: len(got) == count - dropped)
        # The newest are dropped, as by a full receive buffer.
        assert got == list(range(count - dropped))


def test_a_handler_that_raises_lets_the_next_datagram_of_its_peer_in() -> None:
    def handle(data: bytes, address: Address) -> bytes:
        return b"%d" % (1 // int(data))

    server = Server(service=handle, transport="udp", on_error=lambda error: None)
    with server, server.client(timeout=SOON) as client:
        for data in (b"0", b"0", b"1"):
            client.send(data)
        assert client.recv(10) == b"1"
    # Other threads may report them after the answer was sent, and before the stop has ended.
    assert len(server.errors) == 2


def test_a_handler_that_stops_its_server_does_not_hold_up_what_its_peer_sent_after() -> None:
    arrived = threading.Event()
    answered: list[bytes] = []

    def handle(data: bytes, address: Address) -> None:
        if data == b"stop":
            assert arrived.wait(SOON)
            server.stop(SOON)
        else:
            answered.append(data)

    server = Server(service=handle, transport="udp").start()
    with server.client() as client:
        client.send(b"stop")
        for _ in range(5):
            client.send(b"after")
        wait_until(lambda: server.ledger.totals.messages_in == 6)
        began = time.monotonic()
        arrived.set()
        assert Background(server.wait, SOON).result().abandoned == 0
        assert time.monotonic() - began < SOON
    assert answered == [b"after"] * 5


def test_ordered_is_true_or_false() -> None:
    assert Handler(lambda data, address: None).ordered
    with pytest.raises(TypeError, match="ordered must be True or False"):
        Handler(lambda conn: None, ordered=1)  # type: ignore[arg-type]
    with Server(service=Handler(lambda conn: conn.sendall(b"x"), ordered=False)) as server:
        with Client(*server.address, timeout=SOON) as client:
            assert client.recv_exactly(1) == b"x"

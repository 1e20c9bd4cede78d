"""The same process can serve a port again at once, as a notebook cell does that runs twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from support import LOOPBACK, Background, all_say_back, dial, drop, reserved_port, says_back

from rsock import Server


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


def test_start_again_on_the_same_port_at_once(port: int) -> None:
    for _ in range(30):
        with Server(LOOPBACK, port) as server, dial(server.address) as peer:
            assert says_back(peer)


def test_start_again_while_connections_of_the_last_one_linger(port: int) -> None:
    # The server closes first, so that its side of each connection stays in TIME-WAIT.
    for _ in range(10):
        server = Server(LOOPBACK, port).start()
        peers = [dial(server.address) for _ in range(5)]
        assert all_say_back(peers)
        server.stop()
        for peer in peers:
            assert peer.recv(1) == b""
            peer.close()


def test_start_again_under_load(port: int, workers: int) -> None:
    over = threading.Event()

    def load() -> int:
        served = 0
        while not over.is_set():
            try:
                with dial((LOOPBACK, port), timeout=2.0) as peer:
                    served += says_back(peer)
            except (ConnectionError, TimeoutError):
                pass
        return served

    clients = [Background(load) for _ in range(3)]
    try:
        for _ in range(30):
            server = Server(LOOPBACK, port, workers=workers, drain=0.2).start()
            server.ledger.wait(closed=3)
            server.stop()
    finally:
        over.set()
    assert sum([client.result() for client in clients]) >= 30 * 3


def test_start_again_after_a_stop_that_reset_everything(port: int) -> None:
    for _ in range(10):
        server = Server(LOOPBACK, port).start()
        with dial(server.address) as peer:
            assert says_back(peer)
            server.stop(0)


def test_a_cell_run_twice_gets_an_error_about_the_first_server() -> None:
    server = Server(name="cell").start()
    port = server.port
    with pytest.raises(OSError, match="cell"):
        server = Server(LOOPBACK, port).start()
    with dial(server.address) as peer:
        assert says_back(peer)
    server.stop()


def test_the_port_of_a_dropped_server_is_free_again(port: int) -> None:
    for _ in range(5):
        held = [Server(LOOPBACK, port).start()]
        with dial(held[0].address) as peer:
            assert says_back(peer)
        with pytest.warns(ResourceWarning):
            drop(held)

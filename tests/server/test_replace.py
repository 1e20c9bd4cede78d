"""`replace=True`: the cell that starts a server can be run again."""

from __future__ import annotations

import gc
import socket
from pathlib import Path

import pytest
from support import (
    AT_ONCE,
    LOOPBACK,
    Background,
    dial,
    listener,
    read_to_end,
    says_back,
    wait_until,
)

import rsock
from rsock import Accept, Connection, Echo, Greeting, Server


def test_a_cell_that_is_run_again_replaces_its_server() -> None:
    first = Server(replace=True).start()
    port = first.port
    servers = [first]
    for _ in range(50):
        servers.append(Server(LOOPBACK, port, replace=True).start())
        assert servers[-2].state == "stopped"
        assert servers[-2].wait(AT_ONCE).cause == "stop"
        with servers[-1].client(timeout=10) as client:
            assert says_back(client)
    assert rsock.servers() == servers[-1:]
    servers[-1].stop()


def test_a_server_that_is_replaced_delivers_what_it_owes() -> None:
    data = b"x" * 3_000_000
    with Server(service=Greeting(data), drain=10.0) as first:
        with dial(first.address) as peer:
            assert peer.recv(1) == b"x"
            # The bind waits until the reply has been delivered.
            second = Server(first.host, first.port, Echo(), replace=True)
            starting = Background(second.start)
            assert read_to_end(peer) == data[1:]
            starting.result()
        assert first.wait(AT_ONCE).forced == 0
        with second, second.client(timeout=10) as client:
            assert says_back(client)


def test_without_it_the_holder_is_named() -> None:
    with Server(name="mine") as first:
        with pytest.raises(OSError, match="'?\"?mine"):
            Server(*first.address).start()
        assert first.state == "serving"


def test_a_server_on_every_interface_is_replaced_too() -> None:
    first = Server("0.0.0.0").start()
    port = first.port
    with Server(LOOPBACK, port, replace=True) as second:
        assert first.state == "stopped"
        assert second.port == port


@pytest.mark.parametrize("state", ["bind", "listen"])
def test_one_that_has_not_started_is_replaced(state: str) -> None:
    first = Server()
    getattr(first, state)()
    port = first.port
    with Server(port=port, replace=True) as second, second.client(timeout=10) as client:
        assert says_back(client)
        assert first.state == "stopped"


def test_other_addresses_and_transports_are_left_alone(directory: Path) -> None:
    with Server() as tcp, Server(path=directory / "one.sock") as unix:
        with (
            Server(port=tcp.port, transport="udp", replace=True),
            Server(path=directory / "two.sock", replace=True),
            Server(replace=True),
        ):
            assert tcp.state == unix.state == "serving"
        again = Server(path=directory / "one.sock", replace=True).start()
        assert unix.state == "stopped"
        with again, again.client(timeout=10) as client:
            assert says_back(client)


def test_udp_is_replaced() -> None:
    first = Server(transport="udp").start()
    with Server(port=first.port, transport="udp", replace=True) as second:
        assert first.state == "stopped"
        with second.client(timeout=10) as client:
            client.send(b"hello")
            assert client.recv(10) == b"hello"


def test_one_that_shares_its_port_is_replaced() -> None:
    options = rsock.SocketOptions(reuse_port=True)
    first = Server(options=options).start()
    with Server(port=first.port, options=options, replace=True):
        assert first.state == "stopped"


def test_another_program_is_never_stopped() -> None:
    with listener() as taken:
        with pytest.raises(OSError, match="in use"):
            Server(*taken.getsockname(), replace=True).start()


def test_a_handler_can_replace_its_own_server() -> None:
    replaced: list[Server] = []

    def serve(conn: Connection) -> None:
        assert conn.server is not None
        replaced.append(Server(*conn.server.address, replace=True).start())
        conn.sendall(b"done")

    with Server(service=serve, drain=5.0) as first:
        with dial(first.address) as peer:
            peer.sendall(b"go")
            wait_until(lambda: bool(replaced))
            assert first.state in ("draining", "stopped")
    with replaced[0] as second, second.client(timeout=10) as client:
        assert says_back(client)


def test_an_accept_that_waits_ends() -> None:
    first = Server(service=Accept()).start()
    waiting = Background(lambda: list(first))
    with Server(port=first.port, replace=True):
        assert waiting.result() == []


def test_a_socket_of_its_own_and_replace_exclude_each_other() -> None:
    with socket.socket() as given, pytest.raises(TypeError, match="replace=True"):
        Server(fd=given.fileno(), replace=True)
    with pytest.raises(TypeError, match="replace"):
        Server(replace="yes")  # type: ignore[arg-type]
    gc.collect()

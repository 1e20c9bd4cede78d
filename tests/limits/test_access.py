"""Only peers of the allowed networks are served, and none of those that are denied."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import dial, says_back, wait_until

from rsock import Accept, Client, Echo, Forward, Limits, Server


def shout(conn: Any) -> None:
    while data := conn.recv(100):
        conn.sendall(data)


SERVICES: dict[str, Callable[[], Any]] = {"echo": Echo, "handler": lambda: shout}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> Any:
    return SERVICES[request.param]()


def is_reset(server: Server, host: str | None = None) -> bool:
    """Whether a new connection is reset at once."""
    source = None if host is None else (host, 0)
    try:
        with socket.create_connection(server.address, 10, source_address=source) as peer:
            peer.sendall(b"x")
            return peer.recv(1) == b""
    except ConnectionError:
        return True


def refused(server: Server, **expected: int) -> bool:
    """Whether exactly these were refused, by reason."""
    totals = server.ledger.totals
    found = {name: number for name, number in totals.refused_by.items() if number}
    return found == expected and totals.refused == sum(expected.values())


def test_a_peer_outside_the_allowed_networks_is_reset(service: Any) -> None:
    with Server(service=service, allow=["127.0.0.2", "10.0.0.0/8"]) as server:
        assert is_reset(server)
        assert refused(server, allow=1)
        with socket.create_connection(server.address, 10, source_address=("127.0.0.2", 0)) as peer:
            assert says_back(peer)
        assert server.ledger.totals.accepted == 1


def test_a_denied_peer_is_reset_although_its_network_is_allowed(service: Any) -> None:
    with Server(service=service, allow=["127.0.0.0/8"], deny=["127.0.0.2/32"]) as server:
        assert is_reset(server, "127.0.0.2")
        assert refused(server, deny=1)
        with dial(server.address) as peer:
            assert says_back(peer)


def test_a_forwarder_does_not_connect_for_a_denied_peer() -> None:
    with Server() as target, Server(service=Forward(target), deny=["127.0.0.0/8"]) as server:
        assert is_reset(server)
        assert refused(server, deny=1)
        assert target.ledger.totals.accepted == 0


def test_a_call_of_accept_returns_only_a_peer_that_is_served() -> None:
    with Server(service=Accept(), deny=["127.0.0.2"]) as server:
        denied = socket.create_connection(server.address, 10, source_address=("127.0.0.2", 0))
        with denied, dial(server.address) as peer:
            conn, address = server.accept(10)
            with conn:
                assert address == peer.getsockname()
        assert refused(server, deny=1)


def test_an_ipv4_peer_of_a_server_of_both_families_has_its_ipv4_address() -> None:
    with Server("::", deny=["127.0.0.0/8"]) as server:
        with pytest.raises(ConnectionError), dial(("127.0.0.1", server.port)) as peer:
            peer.sendall(b"x")
            peer.recv(1)
        assert refused(server, deny=1)
        with dial(("::1", server.port)) as peer:
            assert says_back(peer)


def test_unix_stands_for_every_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Server(path=path, allow=["unix"]) as server, server.client(timeout=10) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    with Server(path=path, allow=["127.0.0.0/8"]) as server:
        with pytest.raises(ConnectionError), server.client(timeout=10) as client:
            client.sendall(b"x")
            if client.recv(1) == b"":
                raise ConnectionError
        assert refused(server, allow=1)


@pytest.mark.parametrize("service", [Echo(), lambda data, _: data], ids=["echo", "handler"])
def test_datagrams_of_others_are_dropped_and_counted(service: Any) -> None:
    with Server(service=service, transport="udp", allow=["127.0.0.2"]) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            for _ in range(3):
                peer.sendto(b"x", server.address)
            wait_until(lambda: refused(server, allow=3))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.2", 0))
            peer.settimeout(10)
            peer.sendto(b"y", server.address)
            assert peer.recv(10) == b"y"
        assert server.ledger.totals.accepted == 1


@pytest.mark.parametrize("argument", ["allow", "deny"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("10.0.0.0/33", "from 0 to 32"),
        ("10.1.0.0/8", "did you mean 10.0.0.0/8"),
        ("localhost", "no network"),
        ("", "no network"),
        ("::/x", "no network"),
    ],
)
def test_what_is_no_network_is_named(argument: str, value: str, why: str) -> None:
    given: Any = {argument: ["127.0.0.1", value]}
    with pytest.raises(ValueError, match=rf"^{argument} {value!r}: .*{why}".replace("'", '"')):
        Server(**given)


def test_networks_of_the_wrong_type_are_named() -> None:
    wrong: Any = [10]
    with pytest.raises(TypeError, match="allow"):
        Server(allow=wrong)
    with pytest.raises(TypeError, match="deny"):
        Server(deny=wrong[0])


def test_no_more_connections_are_accepted_in_a_second_than_the_rate(service: Any) -> None:
    limits = Limits(accept_rate=4, overflow="refuse")
    with Server(service=service, limits=limits) as server:
        found = [is_reset(server) for _ in range(8)]
        assert found[:4] == [False] * 4
        # On a slow machine another one is accepted after 0.25 s.
        assert True in found[4:]
        assert refused(server, accept_rate=found.count(True))


def test_more_than_the_rate_wait_in_the_backlog(service: Any) -> None:
    with Server(service=service, limits=Limits(accept_rate=20)) as server:
        began = server.ledger.totals.accepted
        peers = [dial(server.address) for _ in range(30)]
        try:
            for number, peer in enumerate(peers):
                peer.sendall(b"%d" % number)
            for number, peer in enumerate(peers):
                assert peer.recv(10) == b"%d" % number
        finally:
            for peer in peers:
                peer.close()
        server.ledger.wait(closed=30)
        opened = sorted(record.opened_at for record in server.ledger.closed)
        # 20 at once, the other 10 in half a second.
        assert opened[-1] - opened[0] > 0.45
        assert began == 0
        assert server.ledger.totals.refused == 0


def test_a_call_of_accept_waits_for_the_rate() -> None:
    with Server(service=Accept(), limits=Limits(accept_rate=0.01)) as server:
        with dial(server.address), dial(server.address):
            server.accept(10)[0].close()
            with pytest.raises(TimeoutError):
                server.accept(0.2)
            assert server.waiting == 1


@pytest.mark.parametrize("value", [0, -1, float("nan"), 1e12, True, "1"])
def test_a_rate_that_makes_no_sense_is_named(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="accept_rate"):
        Limits(accept_rate=value)


def test_a_server_of_datagrams_has_no_rate() -> None:
    with pytest.raises(ValueError, match=r"accept_rate=5"):
        Server(transport="udp", limits=Limits(accept_rate=5))


def test_a_client_of_the_server_is_served_again_once_there_is_a_token() -> None:
    with Server(limits=Limits(accept_rate=2)) as server:
        for _ in range(4):
            with Client(*server.address, timeout=10) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"

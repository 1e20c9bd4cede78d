"""Several faults on one connection: what reaches the peer, and what the record says."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Literal

import pytest
from support import dial, payload, read_to_end

from rsock import Connection, Echo, Handler, Server, Service
from rsock.faults import CloseAfter, Fault, Reset

DATA = payload(100_000, seed=3)


def echo(connection: Connection) -> None:
    # A fault ends the connection in the middle.
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65_536):
            connection.sendall(data)


@pytest.fixture(params=["Echo", "a handler"])
def service(request: pytest.FixtureRequest) -> Service:
    return Echo() if request.param == "Echo" else Handler(echo)


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("outer", [CloseAfter, Reset])
def test_of_two_faults_that_end_a_connection_the_one_next_to_the_peer_decides(
    service: Service, outer: type[CloseAfter | Reset], direction: Literal["up", "down"]
) -> None:
    inner = Reset if outer is CloseAfter else CloseAfter
    # The first one is next to the socket. The bytes of one read strike both.
    inner_after = 2 if direction == "up" else 8
    faults = [
        outer(after_bytes=5, direction=direction),
        inner(after_bytes=inner_after, direction=direction),
    ]
    with Server(service=service, faults=faults) as server, dial(server.address) as peer:
        peer.sendall(DATA)
        if outer is CloseAfter:
            with contextlib.suppress(ConnectionResetError):
                # Unread input makes a reset of the close.
                assert len(read_to_end(peer)) <= 5
        else:
            with pytest.raises(ConnectionResetError):
                read_to_end(peer)
        [record] = server.ledger.wait(open=0, closed=1)
        assert (record.closed_by, record.fault) == ("fault", outer._name)


@pytest.mark.parametrize("seed", range(4))
def test_every_connection_with_several_faults_that_end_it_ends(service: Service, seed: int) -> None:
    dice = random.Random(seed)

    def drawn() -> Fault:
        kind = dice.choice((CloseAfter, Reset))
        return kind(
            after_bytes=int(2 ** dice.uniform(0, 17)),
            direction=dice.choice(("up", "down", "both")),
            probability=0.7,
        )

    with Server(service=service, faults=[drawn() for _ in range(5)], seed=seed) as server:
        for _ in range(40):
            with dial(server.address) as peer, contextlib.suppress(ConnectionError):
                peer.sendall(DATA[: dice.choice((1, 100, 5_000))])
                with contextlib.suppress(OSError):
                    # ENOTCONN after a reset.
                    peer.shutdown(socket.SHUT_WR)
                # Not a time-out, whatever else.
                read_to_end(peer)
        server.ledger.wait(open=0, closed=40)
        assert server.ledger.totals.closed_by["fault"] > 0

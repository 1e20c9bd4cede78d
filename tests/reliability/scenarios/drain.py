"""Scenario 10: a stop during echoes and with clients queued; then a restart."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from support import read_exactly, reserved_port

from reliability import load
from reliability.faults import faulty
from reliability.figures import Figure, at_most, equal
from reliability.process import Child, Served
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Server

SAID = bytes(range(256)) * 16


def server() -> "Server":
    from rsock import Server

    return Server(**faulty())


def restart(times: int) -> int:
    """How many times the same port could be opened again at once, with an echo each time."""
    from rsock import Server

    good = 0
    with reserved_port() as port:
        for _ in range(times):
            with (
                Server(port=port, **faulty()) as server,
                socket.create_connection(server.address, load.PATIENCE) as peer,
            ):
                peer.sendall(b"again")
                good += read_exactly(peer, 5) == b"again"
    return good


def run(size: Size) -> Iterator[Figure]:
    under_way, queued, rounds, again = size.of(
        brief=(50, 20, 1, 20), short=(500, 200, 3, 200), long=(500, 200, 20, 1_000)
    )
    slowest, answered, forced = 0.0, 0, 0
    for _ in range(rounds):
        with Served(server) as served, contextlib.ExitStack() as stack:
            peers = [stack.enter_context(load.dial(served.address)) for _ in range(under_way)]
            for peer in peers:
                peer.sendall(b"x")
                assert peer.recv(1) == b"x"
            report = _stop_behind_its_back(served, stack, peers, queued)
            answered += sum(_answered(peer) for peer in peers)
            slowest = max(slowest, report["seconds"])
            forced += report["forced"]
            end = list(served.afterwards())
    yield equal("answered in full, and the end", answered, rounds * (under_way + queued))
    yield equal("forced", forced, 0)
    yield at_most("slowest stop(drain=2)", slowest, 2.05, "s")
    yield from end
    with Child() as child:
        yield equal("the same port again", child.call(restart, again), again)


def _stop_behind_its_back(
    served: Served, stack: contextlib.ExitStack, peers: list[socket.socket], queued: int
) -> Any:
    """Everything is queued before the stopped process runs again and receives the stop."""
    os.kill(served.pid, signal.SIGSTOP)
    try:
        peers += [stack.enter_context(load.dial(served.address)) for _ in range(queued)]
        for peer in peers:
            peer.sendall(SAID)
        served.begin_stop(2.0)
    finally:
        os.kill(served.pid, signal.SIGCONT)
    return served.result()


def _answered(peer: socket.socket) -> bool:
    try:
        return read_exactly(peer, len(SAID)) == SAID and peer.recv(1) == b""
    except ConnectionResetError:
        return False


SCENARIO = Scenario(
    "10", "stop(drain=2) with echoes under way and clients queued", run, with_faults=True
)

"""Scenario 3: a large number of short connections, ended in three ways; nothing grows."""

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reliability import load
from reliability.faults import faulty
from reliability.figures import Figure, at_most, equal
from reliability.process import Child, Served, resident_bytes
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Server

MIB = 1 << 20


def server(history: int) -> "Server":
    from rsock import Server

    return Server(history=history, **faulty())


def visit(address: Any, count: int) -> int:
    """Connect, send one byte, end: a third each by FIN, by RST, by half-close."""
    complete = 0
    for number in range(count):
        peer = load.dial(address)
        peer.sendall(b"x")
        if number % 3 == 0:
            peer.close()
        elif number % 3 == 1:
            load.reset(peer)
        else:
            with peer:
                peer.shutdown(socket.SHUT_WR)
                complete += peer.recv(2) == b"x" and peer.recv(2) == b""
    return complete


def settle(server: "Server", count: int) -> None:
    server.ledger.wait(open=0, closed=count, timeout=60)


def run(size: Size) -> Iterator[Figure]:
    first, more = size.of(brief=(150, 300), short=(3_000, 9_000), long=(100_000, 900_000))
    with Served(server, min(first, 10_000)) as served, Child() as one, Child() as other:
        complete = 0
        memory = 0
        for part in (first, more):
            one.begin(visit, served.address, part // 2)
            other.begin(visit, served.address, part - part // 2)
            complete += one.result() + other.result()
            served.call_with_server(settle, first if part == first else first + more)
            grown = resident_bytes(served.pid) - memory
            memory = resident_bytes(served.pid)
        wanted = sum(
            _thirds(half) for part in (first, more) for half in (part // 2, part - part // 2)
        )
        yield equal("half-closed, answered and ended", complete, wanted)
        yield at_most(f"memory grown after the first {first:,}", grown, MIB, "B")
        totals = served.stop()["totals"]
        yield equal("accepted", totals["accepted"], first + more)
        yield equal("closed", totals["closed"], first + more)
        yield from served.afterwards()


def _thirds(count: int) -> int:
    return sum(number % 3 == 2 for number in range(count))


SCENARIO = Scenario("3", "connect, one byte, close: FIN, RST, half-close", run, with_faults=True)

"""Sequential connections to a handler: neither memory nor descriptors nor threads may grow.

Must never let two connections overlap: one at a time, there is no reason to grow.
"""

import gc
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from reliability.figures import Figure, at_most, equal
from reliability.process import Child, Served, held, resident_bytes
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Connection, Server

MIB = 1 << 20


def server(history: int) -> "Server":
    from rsock import Server

    return Server(service=answer, history=history)


def answer(conn: "Connection") -> None:
    conn.sendall(conn.recv_line())


def visit(address: list[object], count: int) -> int:
    """How many of `count` connections got their answer, and the end after it."""
    answered = 0
    for _ in range(count):
        with socket.create_connection(tuple(address), 30) as peer:  # type: ignore[arg-type]
            peer.sendall(b"hello\n")
            got = b""
            while part := peer.recv(100):
                got += part
            answered += got == b"hello\n"
    return answered


def collect(_: "Server") -> None:
    gc.collect()


def run(size: Size) -> Iterator[Figure]:
    first, more = size.of(brief=(100, 300), short=(2_000, 5_000), long=(10_000, 90_000))
    # The ledger's history is full before the first measurement.
    with Served(server, first) as served, Child() as load:
        answered = load.call(visit, served.address, first)
        served.call_with_server(collect)
        memory, things = resident_bytes(served.pid), held(served.pid)
        answered += load.call(visit, served.address, more)
        served.call_with_server(collect)
        grown, now = resident_bytes(served.pid) - memory, held(served.pid)
        yield equal("answered", answered, first + more)
        yield at_most(f"memory grown by {more:,} connections after {first:,}", grown, MIB, "B")
        yield at_most("descriptors grown", now.fds - things.fds, 0, measured=False)
        # The size of the pool may vary by a thread, but must not grow with each connection.
        yield at_most("threads grown", now.threads - things.threads, 2, measured=False)
        report = served.stop()
        yield equal("closed, in the ledger", report["totals"]["closed"], first + more)
        yield from served.afterwards()


SCENARIO = Scenario("sequential", "sequential connections to a handler: nothing grows", run)

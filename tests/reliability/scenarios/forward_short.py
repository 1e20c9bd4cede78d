"""A large number of short connections through Forward: each is answered, recorded and released."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from support import wait_until

from reliability.figures import Figure, at_most, equal
from reliability.paths import FORWARD, served, service
from reliability.process import Child, held, resident_bytes
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Server

MIB = 1 << 20
AT_ONCE = 8


def server(path: str, target: list[Any], history: int) -> "Server":
    from rsock import Server

    # All workers from the start: an additional worker, added under load, has two descriptors of its
    # own.
    return Server(service=service(path, target), workers=2, history=history)


def visit(address: list[Any], count: int) -> int:
    """How many of `count` connections, several in parallel, got their bytes back and the end."""
    answered = [0] * AT_ONCE

    def some(number: int) -> None:
        for each in range(number, count, AT_ONCE):
            with socket.create_connection(tuple(address), 30) as peer:
                peer.sendall(b"%d" % each)
                peer.shutdown(socket.SHUT_WR)
                got = b""
                while part := peer.recv(100):
                    got += part
                answered[number] += got == b"%d" % each

    threads = [threading.Thread(target=some, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(answered)


def legs(server: "Server") -> list[int]:
    """Of the closed connections: how many ended cleanly, and how many passed on everything."""
    server.ledger.wait(open=0, timeout=30.0)
    records = server.ledger.closed
    peaceful = sum(record.closed_by == "peer" for record in records)
    whole = sum(
        record.far is not None
        and (record.bytes_in, record.bytes_out) == (record.far.bytes_out, record.far.bytes_in)
        for record in records
    )
    return [peaceful, whole]


def run(size: Size) -> Iterator[Figure]:
    first, more = size.of(brief=(50, 250), short=(500, 2_000), long=(2_000, 10_000))
    with served(FORWARD, server, more) as child, Child() as load:
        answered = load.call(visit, child.address, first)
        child.call_with_server(legs)
        memory, things = resident_bytes(child.pid), held(child.pid)
        answered += load.call(visit, child.address, more)
        yield equal("answered", answered, first + more)
        yield equal(
            "of the last, ended by the peer; passed on whole",
            child.call_with_server(legs),
            [more, more],
        )
        # A record is closed before its descriptors are.
        with contextlib.suppress(AssertionError):
            wait_until(lambda: held(child.pid).fds <= things.fds, 30.0)
        now = held(child.pid)
        # The ledger was not full before, so part of the growth is records.
        grown = resident_bytes(child.pid) - memory
        yield at_most(f"memory grown by {more:,} connections", grown, 8 * MIB, "B")
        yield at_most("descriptors grown", now.fds - things.fds, 0, measured=False)
        report = child.stop()
        yield equal("closed, in the ledger", report["totals"]["closed"], first + more)
        yield from child.afterwards()


SCENARIO = Scenario("forward", "many short connections through Forward", run)

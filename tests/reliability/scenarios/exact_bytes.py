"""Scenario 1: odd chunks, pauses and buffers; no byte is lost, truncated or duplicated."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reliability import load
from reliability.faults import faulty
from reliability.figures import Figure, equal
from reliability.paths import ECHO, FORWARD, HANDLER, served, service
from reliability.process import Child
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Server

# Seeds in parallel, a process each. With more, the kernel's memory for TCP may be exhausted.
AT_ONCE = 4


def server(path: str, target: list[Any]) -> "Server":
    import rsock

    rsock.raise_fd_limit()
    limits = rsock.Limits(handler_threads=800)
    return rsock.Server(service=service(path, target), limits=limits, **faulty())


def run(size: Size) -> Iterator[Figure]:
    connections, length, seeds = size.of(
        brief=(20, 50_000, 1), short=(200, 500_000, 1), long=(200, 5_000_000, 20)
    )
    for path in (ECHO, HANDLER, FORWARD):
        with served(path, server) as child, contextlib.ExitStack() as stack:
            children = [stack.enter_context(Child()) for _ in range(min(seeds, AT_ONCE))]
            right = 0
            for first in range(0, seeds, AT_ONCE):
                for number, peers in enumerate(children):
                    peers.begin(load.exact, child.address, connections, length, first + number)
                right += sum(peers.result() for peers in children)
            wanted = connections * seeds
            yield equal(
                f"{path}: got {length:,} bytes back, SHA-256 equal, {seeds} seeds", right, wanted
            )
            totals = child.stop()["totals"]
            sums = f"{totals['bytes_in']}, {totals['bytes_out']}"
            yield equal(
                f"{path}: bytes in, bytes out", sums, f"{wanted * length}, {wanted * length}"
            )
            yield from child.afterwards()


SCENARIO = Scenario(
    "1", "odd chunks and pauses, half-close at the end: byte-exact", run, with_faults=True
)

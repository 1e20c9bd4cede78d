"""Scenario 4: a process with 64 descriptors and many more clients."""

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from support import says_back

from reliability import load
from reliability.figures import Figure, at_most, equal, only_shown
from reliability.process import Served
from reliability.scenario import Scenario, Size
from reliability.scenarios.idle import cpu_seconds

if TYPE_CHECKING:
    from rsock import Server


def server(workers: int | None) -> "Server":
    import resource

    from rsock import Limits, Server

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    # More than there are descriptors for: the default limit would not let the process run out.
    return Server(workers=workers, limits=Limits(connections=1_000))


def run(size: Size) -> Iterator[Figure]:
    # A single worker accepts by itself; with several, a separate thread does.
    for workers in (None, 1):
        yield only_shown("workers", "as many as asked for" if workers is None else str(workers))
        yield from _crowded(size, workers)


def _crowded(size: Size, workers: int | None) -> Iterator[Figure]:
    clients, seconds, times = size.of(brief=(80, 0.3, 3), short=(200, 3.0, 5), long=(200, 20.0, 20))
    with Served(server, workers) as served, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(load.dial(served.address)) for _ in range(clients)]
        for peer in peers:
            peer.sendall(b"let me in")
        established = [peer for peer in peers if _answers(peer, 0.2 if peer is peers[0] else 0)]
        # A connection that is accepted by now stays so: the process has no descriptor left.
        time.sleep(0.3)
        established += [peer for peer in peers if peer not in established and _answers(peer, 0)]
        waiting = [peer for peer in peers if peer not in established]
        yield only_shown("established, of all", f"{len(established)} of {clients}")
        cpu, end, bad, rounds = cpu_seconds(served.pid), time.monotonic() + seconds, 0, 0
        while time.monotonic() < end:
            bad += sum(not says_back(peer) for peer in established)
            rounds += 1
            time.sleep(seconds / 20)
        share = (cpu_seconds(served.pid) - cpu) / seconds
        yield equal(f"echoes lost by the established, of {rounds * len(established):,}", bad, 0)
        yield at_most("CPU, percent", 100 * share, 5.0)
        slowest = 0.0
        for _ in range(times):
            established.pop(0).close()
            began = time.monotonic()
            ready, _, _ = select.select(waiting, [], [], load.PATIENCE)
            slowest = max(slowest, time.monotonic() - began)
            served_now = [peer for peer in ready if peer.recv(9) == b"let me in"]
            assert served_now, "no waiting client was served after one had left"
            waiting = [peer for peer in waiting if peer not in served_now]
            established += served_now
        yield at_most("the next one served after", slowest, 0.1, "s")
        for peer in peers:
            peer.close()
        served.stop(0)
        yield from served.afterwards()


def _answers(peer: socket.socket, seconds: float) -> bool:
    ready, _, _ = select.select([peer], [], [], seconds)
    return bool(ready) and peer.recv(9) == b"let me in"


SCENARIO = Scenario("4", "64 descriptors and many more clients", run)

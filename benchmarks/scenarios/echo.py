"""The cost of one echoed message: CPU time of the whole server process, divided by messages.

The server has one core, the load generator another. CPU time counts, not elapsed time. Must never
sample a busy server: `load` has nothing in flight between windows.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.children import LOAD_CORE, Child, binary
from harness.contest import Contender, Scenario, Target, Turn
from harness.peers import BULK_PEERS, FLOOR, PEERS, RSOCK, UVLOOP, Peer
from harness.procfs import cpu_nanoseconds

WARM_UP = 0.1


@contextmanager
def echoing(
    server: Child,
    connections: int,
    threads: str = "",
    size: int = 64,
    spent_by: Callable[[int], int] | None = None,
    *,
    udp: bool = False,
) -> Iterator[Turn]:
    """Turns that give µs per message of `server`'s threads whose name begins with `threads`."""
    arguments = ["--port", server.greeting, "--connections", str(connections), "--size", str(size)]
    if udp:
        arguments += ["--udp", "1"]

    def account() -> int:
        return spent_by(server.pid) if spent_by else cpu_nanoseconds(server.pid, threads)

    with Child(binary("load", *arguments), LOAD_CORE) as load:

        def turn(seconds: float) -> float:
            before = account()
            window = json.loads(load.ask(str(seconds)))
            spent = account() - before
            return float(spent / 1e3 / window["messages"])

        turn(WARM_UP)
        yield turn


def _scenario(key: str, connections: int) -> Scenario:
    def contender(name: str, peer: Peer, target: Target | None = None) -> Contender:
        @contextmanager
        def start() -> Iterator[Turn]:
            with peer.start() as server, echoing(server, connections) as turn:
                yield turn

        against = None if name == FLOOR.name else FLOOR.name
        return Contender(name, start, against, target, peer.requires)

    target = Target("≤", 1.05, "≤ 1.05 × floor")
    entries = [contender(each.name, each, target if each is RSOCK else None) for each in PEERS]
    # A second floor against the first shows the noise of a ratio on this machine, at this time.
    entries.insert(1, contender("floor again", FLOOR))
    return Scenario(key, f"echo 64 B, {connections} connections", "CPU µs/message", tuple(entries))


ECHO_50 = _scenario("echo50", 50)
ECHO_500 = _scenario("echo500", 500)


def _bulk() -> Scenario:
    """A message of 1 MiB on each of ten connections measures the cost of bytes."""

    def contender(peer: Peer, name: str) -> Contender:
        @contextmanager
        def start() -> Iterator[Turn]:
            with peer.start() as server, echoing(server, 10, size=1 << 20) as turn:
                yield turn

        target = Target("≤", 1 / 1.1, "≤ uvloop / 1.1") if peer is RSOCK else None
        against = None if name == UVLOOP.name else UVLOOP.name
        return Contender(name, start, against, target, peer.requires)

    entries = [contender(peer, peer.name) for peer in BULK_PEERS]
    entries.append(contender(UVLOOP, "uvloop again"))
    return Scenario("bulk", "echo 1 MiB, 10 connections", "CPU µs/message", tuple(entries))


BULK = _bulk()

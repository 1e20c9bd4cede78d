"""The cost of forwarding one message and its echo: CPU time of the forwarder per message.

The forwarder has one core; the load and the target, which echoes by splice, share the other.
Processes that a forwarder starts are counted with it. Must never measure the target.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.children import LOAD_CORE, Child
from harness.contest import Contender, Scenario, Target, Turn
from harness.peers import FORWARDERS, HAPROXY, RSOCK_FORWARD, SPLICE, Peer
from harness.procfs import tree_cpu_nanoseconds

from scenarios.echo import echoing


def _scenario(key: str, title: str, size: int, connections: int, target: Target) -> Scenario:
    def contender(peer: Peer, name: str) -> Contender:
        @contextmanager
        def start() -> Iterator[Turn]:
            with (
                Child(SPLICE.command, LOAD_CORE) as echo,
                peer.start(echo.greeting) as server,
                echoing(server, connections, size=size, spent_by=tree_cpu_nanoseconds) as turn,
            ):
                yield turn

        against = None if name == HAPROXY.name else HAPROXY.name
        reach = target if peer is RSOCK_FORWARD else None
        return Contender(name, start, against, reach, peer.requires, peer.program)

    entries = [contender(peer, peer.name) for peer in FORWARDERS]
    entries.append(contender(HAPROXY, "haproxy again"))
    return Scenario(key, title, "CPU µs/message", tuple(entries))


FORWARD = _scenario(
    "forward",
    "forward 64 B, 50 connections",
    64,
    50,
    Target("≤", 1.0, "≤ haproxy"),
)
FORWARD_BULK = _scenario(
    "forward-bulk",
    "forward 1 MiB, 10 connections",
    1 << 20,
    10,
    Target("≤", 1 / 1.3, "≤ haproxy / 1.3"),
)

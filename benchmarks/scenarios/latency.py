"""The cost of one echoed message that a fault delays: CPU time of the server process.

The same load as in the echo scenarios, against the same server without a fault. Must never compare
the time that a message takes: that is the fault's purpose.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.children import script
from harness.contest import Contender, Scenario, Target, Turn
from harness.peers import RSOCK, Peer

from scenarios.echo import echoing

CONNECTIONS = 50
DELAYED = Peer("rsock, latency", script("servers.rsock_latency"), requires="rsock")


def _contender(peer: Peer, target: Target | None = None) -> Contender:
    @contextmanager
    def start() -> Iterator[Turn]:
        with peer.start() as server, echoing(server, CONNECTIONS) as turn:
            yield turn

    against = None if peer is RSOCK else RSOCK.name
    return Contender(peer.name, start, against, target, peer.requires)


LATENCY = Scenario(
    "latency",
    f"echo 64 B, {CONNECTIONS} connections, with a latency of 1 ms",
    "CPU µs/message",
    (_contender(RSOCK), _contender(DELAYED, Target("≤", 2.0, "≤ 2 × rsock"))),
)

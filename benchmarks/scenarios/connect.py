"""The cost of a connection that is accepted, echoes once and is reset: CPU of the server process.

Nothing is awaited after the echo, so the figure is the cost of accepting and releasing a
connection. Must never sample a busy server: between windows `churn` has no connection.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.contest import Contender, Scenario, Target, Turn
from harness.peers import FLOOR, PEERS, RSOCK, Peer

from scenarios.handler import churning

UNDER_WAY = 50


def _contender(peer: Peer, name: str | None = None, target: Target | None = None) -> Contender:
    @contextmanager
    def start() -> Iterator[Turn]:
        with peer.start() as server, churning(server, UNDER_WAY, reset=True) as turn:
            yield turn

    name = name or peer.name
    against = None if name == FLOOR.name else FLOOR.name
    return Contender(name, start, against, target, peer.requires)


_TARGET = Target("≤", 1.2, "≤ 1.2 × floor")

CONNECT = Scenario(
    "connect",
    f"connect, echo 64 B, reset; {UNDER_WAY} under way",
    "CPU µs/connection",
    (
        _contender(FLOOR),
        _contender(FLOOR, "floor again"),
        *(
            _contender(peer, target=_TARGET if peer is RSOCK else None)
            for peer in PEERS
            if peer is not FLOOR
        ),
    ),
)

"""The effect of a busy Python thread on rsock's own threads: their CPU time per message.

As in the echo scenarios, the server process has one core and the load generator another; in
addition a Python thread in the server process never sleeps. Worker and thread share a core, so
caches and context switches are part of the cost: the floor beside a busy process, on the same core,
shows how large that part is. Must never count the time of any thread but rsock's.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.children import SERVER_CORE, Child, script
from harness.contest import Contender, Scenario, Target, Turn
from harness.peers import FLOOR, RSOCK

from scenarios.echo import echoing

CONNECTIONS = 50
THREADS = "rsock-"


def _beside(spinner: Child, turn: Turn) -> Turn:
    """The same turns while `spinner` keeps a Python thread busy; it rests between them."""

    def spinning(seconds: float) -> float:
        spinner.ask("spin")
        try:
            return turn(seconds)
        finally:
            spinner.ask("rest")

    return spinning


@contextmanager
def _rsock_quiet() -> Iterator[Turn]:
    with RSOCK.start() as server, echoing(server, CONNECTIONS, THREADS) as turn:
        yield turn


@contextmanager
def _rsock_spinning() -> Iterator[Turn]:
    with RSOCK.start() as server, echoing(server, CONNECTIONS, THREADS) as turn:
        yield _beside(server, turn)


@contextmanager
def _floor_quiet() -> Iterator[Turn]:
    with FLOOR.start() as server, echoing(server, CONNECTIONS) as turn:
        yield turn


@contextmanager
def _floor_spinning() -> Iterator[Turn]:
    with (
        FLOOR.start() as server,
        echoing(server, CONNECTIONS) as turn,
        Child(script("inside.spinner"), SERVER_CORE) as spinner,
    ):
        yield _beside(spinner, turn)


SPINNING = Scenario(
    "spinning",
    f"echo 64 B, {CONNECTIONS} connections, beside a busy Python thread",
    "CPU µs/message",
    (
        Contender("floor, quiet", _floor_quiet),
        Contender("floor, busy process", _floor_spinning, "floor, quiet"),
        Contender("rsock, quiet", _rsock_quiet, requires="rsock"),
        Contender(
            "rsock, busy thread",
            _rsock_spinning,
            "rsock, quiet",
            Target("≤", 1.3, "≤ 1.3 × quiet"),
            "rsock",
        ),
    ),
)

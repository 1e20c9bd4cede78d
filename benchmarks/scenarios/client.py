"""The throughput of a blocking client: round trips of 64 bytes a second, one after the other.

The server is the floor, in another process, the same for all. It has one core and the client
process the other, because an unpinned pair is three times as fast whenever the scheduler happens to
put both on one core; that case is a separate scenario. Must never set an option on one client that
the other does not have.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.children import LOAD_CORE, SERVER_CORE, script
from harness.contest import Contender, Scenario, Target, Turn
from harness.peers import FLOOR

from scenarios.asked import asked


def _scenario(
    key: str,
    title: str,
    target: Target | None = None,
    core: int = LOAD_CORE,
    options: tuple[str, ...] = (),
) -> Scenario:
    def contender(
        name: str,
        against: str | None = None,
        target: Target | None = None,
        requires: str | None = None,
    ) -> Contender:
        @contextmanager
        def start() -> Iterator[Turn]:
            with FLOOR.start() as server:
                command = script("inside.round_trips", name, server.greeting, *options)
                with asked(command, core) as turn:
                    yield turn

        return Contender(name, start, against, target, requires)

    entries = (
        contender("socket.socket"),
        contender("rsock.Client", "socket.socket", target, requires="rsock"),
    )
    return Scenario(key, title, "round trips/s", entries)


CLIENT = _scenario(
    "client",
    "blocking client",
    Target("≥", 2.2, "≥ 2.2 × socket.socket"),
)
CLIENT_BUSY = _scenario(
    "client-busy",
    "blocking client beside a busy Python thread",
    Target("≥", 95, "≥ 95 × socket.socket"),
    options=("--busy",),
)
CLIENT_ONE_CORE = _scenario(
    "client-one-core",
    "blocking client on the server's core",
    Target("≥", 0.95, "≥ 0.95 × socket.socket"),
    core=SERVER_CORE,
)

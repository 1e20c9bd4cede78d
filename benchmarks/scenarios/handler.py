"""The cost of what a blocking handler in Python serves: CPU time of the server per connection, or
per message of connections that stay.

The handler is the same function for all (`servers/handler.py`); the servers differ in how they
accept, how they provide a thread or a greenlet, and in the `recv` and `sendall` that the handler
calls. The floor runs no Python and is a reference point. A server may end a thread with each
connection, so the time of ended threads must be included. Must never sample a busy server: between
windows `churn` has no connection.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from harness.children import LOAD_CORE, Child, binary, script
from harness.contest import Contender, Scenario, Target, Turn
from harness.peers import FLOOR, GEVENT, SOCKETSERVER, Peer
from harness.procfs import process_cpu_nanoseconds

from scenarios.echo import echoing

WARM_UP = 0.1
# Concurrent connections: as many as in the scenario echo50; and few, when threads go to sleep in
# between.
MANY = 50
FEW = 4

RSOCK = Peer("rsock", script("servers.rsock_handler"), requires="rsock")


@contextmanager
def churning(server: Child, connections: int, *, reset: bool = False) -> Iterator[Turn]:
    """Turns that give µs per connection of the whole process `server`."""
    arguments = ["--port", server.greeting, "--connections", str(connections)]
    arguments += ["--reset", str(int(reset))]
    with Child(binary("churn", *arguments), LOAD_CORE) as churn:

        def turn(seconds: float) -> float:
            before = process_cpu_nanoseconds(server.pid)
            window = json.loads(churn.ask(str(seconds)))
            spent = process_cpu_nanoseconds(server.pid) - before
            return float(spent / 1e3 / window["connections"])

        turn(WARM_UP)
        yield turn


def _scenario(key: str, connections: int, target: Target | None) -> Scenario:
    def contender(
        peer: Peer,
        against: Peer | None = None,
        target: Target | None = None,
        name: str | None = None,
    ) -> Contender:
        @contextmanager
        def start() -> Iterator[Turn]:
            with peer.start() as server, churning(server, connections) as turn:
                yield turn

        against_name = against.name if against else None
        return Contender(name or peer.name, start, against_name, target, peer.requires)

    return Scenario(
        key,
        f"Python handler: connect, echo 64 B, close; {connections} under way",
        "CPU µs/connection",
        (
            contender(FLOOR),
            contender(FLOOR, FLOOR, name="floor again"),
            contender(SOCKETSERVER, FLOOR),
            contender(GEVENT, SOCKETSERVER),
            contender(RSOCK, SOCKETSERVER, target),
        ),
    )


def _messages() -> Scenario:
    """A message on each of fifty connections that stay: one thread or greenlet for each."""

    def contender(peer: Peer, against: Peer | None, target: Target | None, name: str) -> Contender:
        @contextmanager
        def start() -> Iterator[Turn]:
            with peer.start() as server:
                spent = process_cpu_nanoseconds
                with echoing(server, MANY, spent_by=spent) as turn:
                    yield turn

        return Contender(name, start, against.name if against else None, target, peer.requires)

    target = Target("≤", 0.85, "≤ 0.85 × socketserver")
    return Scenario(
        "handler-messages",
        f"Python handler: echo 64 B, {MANY} connections",
        "CPU µs/message",
        (
            contender(FLOOR, SOCKETSERVER, None, FLOOR.name),
            contender(SOCKETSERVER, None, None, SOCKETSERVER.name),
            contender(SOCKETSERVER, SOCKETSERVER, None, f"{SOCKETSERVER.name} again"),
            contender(GEVENT, SOCKETSERVER, None, GEVENT.name),
            contender(RSOCK, SOCKETSERVER, target, RSOCK.name),
        ),
    )


HANDLER = _scenario("handler", MANY, Target("≤", 1 / 3, "≤ socketserver / 3"))
HANDLER_FEW = _scenario("handler-few", FEW, None)
HANDLER_MESSAGES = _messages()

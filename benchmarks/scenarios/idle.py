"""The cost of an idle connection: resident bytes of the server process, each.

Nothing is ever sent. The server has had connections before, so that its one-time allocations are
not counted. Must never count a connection that waits in the backlog: it is open when the server
holds a descriptor for it.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from harness.children import Child
from harness.contest import Contender, Scenario, Target, Turn
from harness.peers import PEERS, RSOCK, Peer
from harness.procfs import come_to_rest, open_files, resident_bytes, wait_until

WARM_UP = 100
CONNECTIONS = 5_000

# Ends with a reset, so that thousands of ports do not stay in TIME_WAIT.
_RESET = struct.pack("ii", 1, 0)


@contextmanager
def _held(server: Child, count: int) -> Iterator[None]:
    """This number of idle connections to `server`; waits at the end until it has closed them."""
    before = open_files(server.pid)
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.connect(("127.0.0.1", int(server.greeting)))
        wait_until(lambda: open_files(server.pid) >= before + count, "connections to be accepted")
        come_to_rest(server.pid)
        held = open_files(server.pid)
        yield
    wait_until(lambda: open_files(server.pid) <= held - count, "connections to be closed")
    come_to_rest(server.pid)


@contextmanager
def _start(peer: Peer) -> Iterator[Turn]:
    with peer.start() as server:
        with _held(server, WARM_UP):
            pass

        def turn(_: float) -> float:
            before = resident_bytes(server.pid)
            with _held(server, CONNECTIONS):
                return (resident_bytes(server.pid) - before) / CONNECTIONS

        yield turn


_TARGET = Target("≤", 400, "≤ 400 bytes")

IDLE = Scenario(
    "idle",
    f"idle connections, {CONNECTIONS:,} of them",
    "bytes/connection",
    tuple(
        Contender(
            peer.name,
            partial(_start, peer),
            target=_TARGET if peer is RSOCK else None,
            requires=peer.requires,
        )
        for peer in PEERS
    ),
    # A second turn would still find the memory of the first.
    turns=1,
)

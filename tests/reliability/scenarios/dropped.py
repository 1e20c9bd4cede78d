"""Scenario 15: servers that are dropped without a stop release everything.

The servers run in a child, their clients here. Must never hold a server beyond its drop, because
the figures are those of garbage collection alone.
"""

import contextlib
import gc
import logging
import threading
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from support import all_sleeping, wait_until

from reliability import load
from reliability.figures import Figure, at_most, equal
from reliability.process import Child, Held, held, warm_up
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Connection, Server

# What a server's service is doing when the server is dropped.
KINDS = {
    "echo": "each with a client",
    "handler knows its server": "a cycle",
    "handler raised": "a traceback with a cycle",
    "handler waits": "in recv, with a client",
    "accept": "a connection was handed out and let go",
}
# Far beyond the promise: a miss is a figure, not the end of the scenario.
PATIENCE = 30.0

_servers: "list[Server]" = []
_waiting: list[int] = []
_before = Held(0, 0)


# In the child.


def make(kind: str, count: int) -> list[tuple[str, int]]:
    """Start the servers; return their addresses."""
    global _before
    import rsock

    rsock.raise_fd_limit()
    logging.getLogger("rsock").disabled = True
    warm_up()
    gc.collect()
    _before = held()
    _servers.extend(_server(kind).start() for _ in range(count))
    return [server.address for server in _servers]


def _server(kind: str) -> "Server":
    from rsock import Accept, Server

    if kind == "echo":
        return Server()
    if kind == "accept":
        return Server(service=Accept())
    if kind == "handler waits":
        # Not a closure over its server, because the waiting frame would hold the server.
        return Server(service=_waits)

    def handler(conn: "Connection") -> None:
        if kind == "handler raised":
            _waiting.append(threading.get_native_id())
            raise LookupError(server.name)
        conn.sendall(conn.recv_exactly(1) + server.name.encode())

    server = Server(service=handler)
    return server


def _waits(conn: "Connection") -> None:
    conn.sendall(conn.recv_exactly(1))
    _waiting.append(threading.get_native_id())
    conn.recv(1)


def accept_all() -> None:
    for server in _servers:
        conn, _ = server.accept(PATIENCE)
        conn.sendall(conn.recv_exactly(1))
        conn.close()


def settle(kind: str) -> None:
    """Wait until every server has reached the state in which it is dropped."""
    count = len(_servers)
    if kind == "handler waits":
        wait_until(lambda: len(_waiting) == count, PATIENCE)
        wait_until(lambda: all_sleeping(_waiting), PATIENCE)
    elif kind != "echo":
        for server in _servers:
            server.ledger.wait(open=0, closed=1, timeout=PATIENCE)
        if kind == "handler raised":
            wait_until(lambda: all(server.errors for server in _servers), PATIENCE)
            # A thread holds the error, and with it the server, until it has been reported.
            wait_until(lambda: all_sleeping(_waiting), PATIENCE)


def let_go() -> dict[str, Any]:
    """Drop them all; return what is left, how long it took, and the warnings."""
    import rsock

    there = held()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        _servers.clear()
        gc.collect()
        began = time.monotonic()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: held() == _before, PATIENCE)
        seconds = time.monotonic() - began
        now = held()
        return {
            "seconds": seconds,
            "threads_before": there.threads - _before.threads,
            "left": [now.fds - _before.fds, now.threads - _before.threads],
            "warned": [each.category.__name__ for each in warned],
            "servers": len(rsock.servers()),
        }


# In this process.


def dropped(kind: str, count: int) -> dict[str, Any]:
    """Make, use and drop `count` servers of a kind; return what is left and what clients saw."""
    with Child() as child, contextlib.ExitStack() as stack:
        addresses = child.call(make, kind, count)
        peers = [stack.enter_context(load.dial(address)) for address in addresses]
        for peer in peers:
            with contextlib.suppress(ConnectionError):
                # A handler that raises does not wait for the byte.
                peer.sendall(b"x")
        if kind == "accept":
            child.call(accept_all)
        if kind != "handler raised":
            assert all([peer.recv(1) == b"x" for peer in peers])
        child.call(settle, kind)
        found: dict[str, Any] = child.call(let_go)
        ends = 0
        for peer in peers:
            with contextlib.suppress(ConnectionResetError):
                while peer.recv(1000):
                    pass
            # By FIN or by RST, not by a time-out.
            ends += 1
        found["ends"] = ends
        found["exit"] = child.end()
        found["said"] = child.said()
        return found


def run(size: Size) -> Iterator[Figure]:
    kinds = size.of(brief=["handler waits"], short=list(KINDS), long=list(KINDS))
    count = size.of(brief=20, short=100, long=1_000)
    for kind in kinds:
        found = dropped(kind, count)
        what = f"{count:,} servers, {kind}: "
        yield at_most(what + "all released after gc", found["seconds"], 1.0, "s")
        yield equal(what + "descriptors, threads left", found["left"], [0, 0])
        yield equal(what + "ResourceWarnings", found["warned"].count("ResourceWarning"), count)
        yield equal(what + "clients that saw an end", found["ends"], count)
        yield equal(what + "exit code, standard error", (found["exit"], found["said"]), (0, ""))


SCENARIO = Scenario("15", "servers dropped unstopped", run)

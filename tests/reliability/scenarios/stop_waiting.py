"""Handlers that have answered once and wait in `recv`: `stop()` ends them all at once, cleanly.

The time is that of the report. Must never begin to stop before all of them are blocked.
"""

import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from support import dial, says_back, sleeping, wait_until

from reliability.figures import Figure, at_most, equal
from reliability.process import Served
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Connection, Server

_waiting: list[int] = []


def server() -> "Server":
    from rsock import Server

    return Server(service=answer_once)


def answer_once(conn: "Connection") -> None:
    import threading

    conn.sendall(conn.recv_exactly(5))
    _waiting.append(threading.get_native_id())
    conn.recv(1)


def wait_for(_: "Server", count: int) -> None:
    wait_until(lambda: len(_waiting) >= count, 60.0, "all handlers have answered")
    for thread in _waiting:
        wait_until(lambda: sleeping(thread), 60.0, "all handlers wait")  # noqa: B023


def run(size: Size) -> Iterator[Figure]:
    count, rounds = size.of(brief=(64, 1), short=(256, 3), long=(256, 20))
    slowest, forced, clean, closed = 0.0, 0, 0, 0
    for _ in range(rounds):
        with Served(server) as served, contextlib.ExitStack() as stack:
            peers: list[socket.socket] = [
                stack.enter_context(dial(served.address)) for _ in range(count)
            ]
            assert all([says_back(peer) for peer in peers])
            served.call_with_server(wait_for, count)
            report = served.stop()
            slowest = max(slowest, report["seconds"])
            forced += report["forced"] + report["abandoned"]
            clean += sum(peer.recv(1) == b"" for peer in peers)
            closed += report["totals"]["closed"]
            end = list(served.afterwards())
    yield at_most(f"slowest stop() of {count} waiting handlers, {rounds} ×", slowest, 0.05, "s")
    yield equal("forced or abandoned", forced, 0)
    yield equal("saw a clean end", clean, count * rounds)
    yield equal("closed, in the ledger", closed, count * rounds)
    yield from end


SCENARIO = Scenario("stop-waiting", "handlers waiting in recv: stop() at once, none forced", run)

"""Scenario 9: a limit of 100 and more clients than that."""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from support import says_back

from reliability import load
from reliability.faults import faulty
from reliability.figures import Figure, at_most, equal, only_shown
from reliability.paths import ECHO, FORWARD, HANDLER, served, service
from reliability.process import Child
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Server

LIMIT = 100
_most = 0
_watching = threading.Event()
_watcher: list[threading.Thread] = []


def server(path: str, target: list[Any]) -> "Server":
    from rsock import Limits, Server

    limits = Limits(connections=LIMIT, overflow="refuse")
    return Server(service=service(path, target), limits=limits, **faulty())


def watch(server: "Server") -> None:
    """Sample the number of open connections continuously."""

    def look() -> None:
        global _most
        while not _watching.wait(0.001):
            _most = max(_most, server.ledger.totals.open)

    _watcher.append(threading.Thread(target=look))
    _watcher[0].start()


def watched(server: "Server") -> list[int]:
    _watching.set()
    _watcher[0].join()
    return [_most, server.ledger.totals.refused]


def run(size: Size) -> Iterator[Figure]:
    seconds, rate = size.of(brief=(0.5, 500.0), short=(3.0, 20_000.0), long=(10.0, 20_000.0))
    for path in (ECHO, HANDLER, FORWARD):
        yield from _one_path(path, seconds, rate)


def _one_path(path: str, seconds: float, rate: float) -> Iterator[Figure]:
    with served(path, server) as child, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(load.dial(child.address)) for _ in range(LIMIT)]
        assert all([says_back(peer) for peer in peers])
        child.call_with_server(watch)
        with Child() as one, Child() as other:
            for storm in (one, other):
                storm.begin(load.storm, child.address, seconds, rate / 2, "wait")
            storms = [storm.result() for storm in (one, other)]
        most, refused = child.call_with_server(watched)
        made = sum(storm["made"] for storm in storms)
        yield only_shown(
            f"{path}: connects a second, each waiting for its answer", round(made / seconds)
        )
        yield at_most(f"{path}: open at a time", most, LIMIT, measured=False)
        yield equal(f"{path}: of the 100 unharmed", sum(says_back(peer) for peer in peers), LIMIT)
        yield equal(f"{path}: refused, in the ledger", refused, made)
        yield at_most(
            f"{path}: slowest refusal", max(storm["slowest"] for storm in storms), 0.05, "s"
        )
        stack.close()
        child.stop()
        yield from child.afterwards()


SCENARIO = Scenario("9", "a limit of 100 and more clients", run, with_faults=True)

"""Matrix row 9: a limit of 100 and a crowd before the door."""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from support import says_back

from campaign import load
from campaign.figures import Figure, at_most, equal, only_shown
from campaign.process import Child
from campaign.row import Row, Size
from campaign.ways import ECHO, FORWARD, HANDLER, served, service

if TYPE_CHECKING:
    from rsock import Server

LIMIT = 100
_most = 0
_watching = threading.Event()
_watcher: list[threading.Thread] = []


def server(way: str, target: list[Any]) -> "Server":
    from rsock import Limits, Server

    limits = Limits(connections=LIMIT, overflow="refuse")
    return Server(service=service(way, target), limits=limits)


def watch(server: "Server") -> None:
    """Look at the number of the open all the while."""

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
    for way in (ECHO, HANDLER, FORWARD):
        yield from _one_way(way, seconds, rate)


def _one_way(way: str, seconds: float, rate: float) -> Iterator[Figure]:
    with served(way, server) as child, contextlib.ExitStack() as stack:
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
            f"{way}: connects a second, each waiting for its answer", round(made / seconds)
        )
        yield at_most(f"{way}: open at a time", most, LIMIT, measured=False)
        yield equal(f"{way}: of the 100 unharmed", sum(says_back(peer) for peer in peers), LIMIT)
        yield equal(f"{way}: refused, in the books", refused, made)
        yield at_most(
            f"{way}: slowest refusal", max(storm["slowest"] for storm in storms), 0.05, "s"
        )
        stack.close()
        child.stop()
        yield from child.afterwards()


ROW = Row("9", "a limit of 100 and a crowd", run)

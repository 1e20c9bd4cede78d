"""Scenario 12: clients that connect and send nothing."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from reliability import load
from reliability.figures import Figure, at_least, at_most, equal, only_shown
from reliability.process import Child, Served
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Server


def server(first_byte: float) -> "Server":
    import rsock

    rsock.raise_fd_limit()
    return rsock.Server(limits=rsock.Limits(first_byte=first_byte))


def lives(server: "Server") -> list[float]:
    return [record.seconds for record in server.ledger.closed if record.limit == "first_byte"]


def run(size: Size) -> Iterator[Figure]:
    count, limit = size.of(brief=(100, 0.5), short=(2_000, 2.0), long=(5_000, 5.0))
    with Served(server, limit) as served, Child() as silent, Child() as honest:
        before = honest.call(load.bystanders, served.address, 20, max(limit, 1.0))
        silent.call(load.keep, served.address, count)
        silent.begin(load.ends, limit + load.PATIENCE)
        during = honest.call(load.bystanders, served.address, 20, limit)
        yield equal("saw their end", len(silent.result()), count)
        times = served.call_with_server(lives)
        yield equal("ended by the limit", len(times), count)
        yield at_least("shortest life", min(times), limit, "s")
        yield at_most("longest life", max(times), limit + 0.5, "s")
        yield equal("echoes lost by other clients", during["lost"], 0)
        yield only_shown("p99 of other clients before", before["p99"], "s")
        yield at_most("the same meanwhile", during["p99"], 2 * before["p99"], "s")
        silent.call(load.leave)
        served.stop()
        yield from served.afterwards()


SCENARIO = Scenario("12", "clients that send nothing, under a first-byte limit", run)

"""Scenario 6: a flood of resets, which other connections must not notice."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reliability import load
from reliability.figures import Figure, at_least, at_most, equal
from reliability.paths import ECHO, FORWARD, served, service
from reliability.process import Child
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Server


def server(path: str, target: list[Any]) -> "Server":
    import logging

    import rsock

    rsock.raise_fd_limit()
    logging.basicConfig(level=logging.DEBUG)
    return rsock.Server(service=service(path, target))


def run(size: Size) -> Iterator[Figure]:
    seconds, full = size.of(brief=(0.5, 500.0), short=(5.0, 20_000.0), long=(30.0, 20_000.0))
    # Each forwarded connection takes four sockets of one machine. Two CPUs are saturated by some 11
    # 000 of them a second, and a bystander then measures the queue for a CPU.
    for path, rate in ((ECHO, full), (FORWARD, full / 4)):
        with served(path, server) as child, Child() as calm, Child() as one, Child() as other:
            calm.begin(load.bystanders, child.address, 50, seconds)
            for storm in (one, other):
                storm.begin(load.storm, child.address, seconds, rate / 2, "reset")
            made = sum(storm.result()["made"] for storm in (one, other))
            felt = calm.result()
            yield at_least(f"{path}: resets a second", round(made / seconds), round(rate * 0.9))
            yield equal(
                f"{path}: echoes lost by bystanders, of {felt['echoes']:,}", felt["lost"], 0
            )
            yield at_most(f"{path}: p99 of the bystanders", felt["p99"], 0.010, "s")
            totals = child.stop()["totals"]
            yield equal(f"{path}: accepted", totals["accepted"], 50 + made)
            lines = len(child.said().splitlines())
            yield at_most(f"{path}: lines logged, at level DEBUG", lines, 60, measured=False)
            yield from child.afterwards(silent=False)


SCENARIO = Scenario("6", "a flood of resets beside 50 bystanders", run)

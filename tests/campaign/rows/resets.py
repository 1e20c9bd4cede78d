"""Matrix row 6: a flood of resets, and bystanders who must not notice."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from campaign import load
from campaign.figures import Figure, at_least, at_most, equal
from campaign.process import Child, Served
from campaign.row import Row, Size

if TYPE_CHECKING:
    from rsock import Server


def server() -> "Server":
    import logging

    from rsock import Server

    logging.basicConfig(level=logging.DEBUG)
    return Server()


def run(size: Size) -> Iterator[Figure]:
    seconds, rate = size.of(brief=(0.5, 500.0), short=(5.0, 20_000.0), long=(30.0, 20_000.0))
    with Served(server) as served, Child() as calm, Child() as one, Child() as other:
        calm.begin(load.bystanders, served.address, 50, seconds)
        for child in (one, other):
            child.begin(load.storm, served.address, seconds, rate / 2, "reset")
        storms = [child.result() for child in (one, other)]
        felt = calm.result()
        reached = sum(storm["made"] for storm in storms) / seconds
        yield at_least("resets a second", round(reached), rate * 0.9)
        yield equal(f"echoes lost by bystanders, of {felt['echoes']:,}", felt["lost"], 0)
        yield at_most("p99 of the bystanders", felt["p99"], 0.010, "s")
        totals = served.stop()["totals"]
        yield equal("accepted", totals["accepted"], 50 + sum(storm["made"] for storm in storms))
        lines = len(served.said().splitlines())
        yield at_most("lines logged, at level DEBUG", lines, 60, measured=False)
        yield from served.afterwards(silent=False)


ROW = Row("6", "a flood of resets beside 50 bystanders", run)

"""The cost of a server for one echo: start it, make one exchange with it, stop it.

Each contender runs in a separate interpreter (`inside/start_stop.py`), unpinned. Must never give
one contender a client, or a step, that the others do not have.
"""

from functools import partial

from harness.children import script
from harness.contest import Contender, Scenario, Target

from scenarios.asked import asked


def _contender(
    name: str,
    against: str | None = None,
    target: Target | None = None,
    requires: str | None = None,
) -> Contender:
    command = script("inside.start_stop", name)
    return Contender(name, partial(asked, command), against, target, requires)


START_STOP = Scenario(
    "start-stop",
    "start, one echo, stop",
    "ms",
    (
        _contender("asyncio"),
        _contender("asyncio-one-loop", "asyncio"),
        _contender("bare-thread", "asyncio"),
        _contender("uvloop", "asyncio", requires="uvloop"),
        _contender("rsock", "asyncio", Target("≤", 1 / 7.8, "≤ asyncio / 7.8"), requires="rsock"),
    ),
)

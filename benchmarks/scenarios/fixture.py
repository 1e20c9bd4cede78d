"""The cost of the server of a test, by the fixture of each plugin for pytest.

Each contender runs in a separate interpreter (`inside/fixture.py`), unpinned. Must never compare a
plugin with one that it does more for: each has its own way of starting and stopping.
"""

from functools import partial

from harness.children import script
from harness.contest import Contender, Scenario, Target

from scenarios.asked import asked


def _contender(name: str, target: Target | None = None, requires: str | None = None) -> Contender:
    return Contender(
        name, partial(asked, script("inside.fixture", name)), target=target, requires=requires
    )


FIXTURE = Scenario(
    "fixture",
    "the server of a test: start, one exchange, stop",
    "ms",
    (
        _contender("socketserver"),
        _contender("pytest-localserver", requires="pytest_localserver"),
        _contender("pytest-httpserver", requires="pytest_httpserver"),
        _contender("rsock", Target("≤", 0.5, "≤ 0.5 ms"), requires="rsock"),
    ),
)

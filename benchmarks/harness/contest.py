"""The types of a benchmark (scenario, contender, target), and the order of its turns.

In each round every contender of a scenario is started afresh; then they take short turns, each time
in another order, so that disturbances of the machine affect all of them alike. Must never know what
is measured, nor judge it.
"""

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Literal

Turn = Callable[[float], float]
"""Works for about the given number of seconds and returns the measured figure."""


@dataclass(frozen=True)
class Target:
    """The target for the median: of the ratios where the contender has an `against`."""

    relation: Literal["≤", "≥"]
    bound: float
    text: str

    def reached(self, value: float) -> bool:
        return value <= self.bound if self.relation == "≤" else value >= self.bound


@dataclass(frozen=True)
class Contender:
    name: str
    start: Callable[[], AbstractContextManager[Turn]]
    """Starts everything that a turn needs, warmed up and idle; stops it at the end."""
    against: str | None = None
    """The contender of the same scenario that ratios are taken to."""
    target: Target | None = None
    requires: str | None = None
    """A module without which this contender is skipped."""
    program: str | None = None
    """The same for a system program."""


@dataclass(frozen=True)
class Scenario:
    key: str
    title: str
    unit: str
    contenders: tuple[Contender, ...]
    turns: int = 5
    seconds: float = 0.2
    """The length of one turn; a round gives each contender `turns` of them."""


def run_round(scenario: Scenario, number: int, *, quick: bool) -> dict[str, float]:
    """One round: the mean of each contender's turns, by its name."""
    turns, seconds = (1, 0.05) if quick else (scenario.turns, scenario.seconds)
    figures: dict[str, list[float]] = {contender.name: [] for contender in scenario.contenders}
    with ExitStack() as stack:
        entries = [(each.name, stack.enter_context(each.start())) for each in scenario.contenders]
        for nth in range(turns):
            first = (number * turns + nth) % len(entries)
            for name, turn in entries[first:] + entries[:first]:
                figures[name].append(turn(seconds))
    return {name: statistics.fmean(values) for name, values in figures.items()}

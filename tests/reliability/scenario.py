"""What a scenario is, and which scenarios there are. Must never run one.

A scenario is a file of `scenarios/` that defines `SCENARIO = Scenario(…)`; it needs no other
registration.
"""

import importlib
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from reliability.figures import Figure

T = TypeVar("T")
Form = Literal["brief", "short", "long"]


@dataclass(frozen=True)
class Size:
    """How large a run of a scenario is.

    `long` is the size of the matrix's figures; `short` takes some seconds a scenario and shows
    whether something has broken; `brief` is what the tests run, a second a scenario at most.
    """

    form: Form

    def of(self, *, brief: T, short: T, long: T) -> T:
        """The value for the form of this run."""
        return {"brief": brief, "short": short, "long": long}[self.form]


@dataclass(frozen=True)
class Scenario:
    """A scenario of the suite: its key (its number in the matrix, or a word), its title, its run.

    `run` yields figures as they are known. It ends what it starts, also when it raises.
    """

    key: str
    title: str
    run: Callable[[Size], Iterator[Figure]]
    # System programs that it requires.
    needs: tuple[str, ...] = ()
    # Whether its servers can have the faults of `--faults` (`reliability.faults`), and its targets
    # hold with faults that keep every byte.
    with_faults: bool = False

    def lacks(self) -> list[str]:
        """The required programs that are not installed."""
        return [program for program in self.needs if shutil.which(program) is None]


# The matrix of what rsock must survive: every number and its subject.
MATRIX = {
    "1": "200 connections, odd chunks and pauses, half-close: byte-exact",
    "2": "19 000 idle connections in one process",
    "3": "1 000 000 × connect, one byte, close",
    "4": "soft limit of 64 descriptors, 200 clients",
    "5": "errors injected into system calls",
    "6": "20 000 resets a second",
    "7": "a long reply and its close against a flooding client",
    "8": "200 clients that stopped reading",
    "9": "limit 100, 20 000 connects a second",
    "10": "stop(drain=2) with 500 echoes under way and 200 queued",
    "11": "fork under load",
    "12": "5 000 clients that send nothing",
    "13": "the end of the program",
    "14": "an interrupt in every blocking call",
    "15": "servers dropped unstopped",
    "16": "handlers that raise",
    "17": "UDP: sizes, spoofed addresses, loops",
    "18": "addresses from a fuzzer",
    "19": "soak with all faults drawn by seed",
    "20": "the notebook: a cell run 50 times, interrupts, restarts",
}
# Why a scenario that has no file cannot be run yet, where the reason is more than a missing file.
NOT_BEFORE: dict[str, str] = {}


def scenarios() -> list[Scenario]:
    """All scenarios, those of the matrix first and in its order."""
    package = importlib.import_module("reliability.scenarios")
    found = [
        importlib.import_module(f"reliability.scenarios.{module.name}").SCENARIO
        for module in pkgutil.iter_modules(package.__path__)
    ]
    order = list(MATRIX)
    return sorted(
        found,
        key=lambda scenario: order.index(scenario.key) if scenario.key in order else len(order),
    )


def missing(found: list[Scenario]) -> dict[str, str]:
    """The scenarios of the matrix that cannot be run yet, and why."""
    keys = {scenario.key for scenario in found}
    return {
        number: NOT_BEFORE.get(number, "it has no file in tests/reliability/scenarios")
        for number in MATRIX
        if number not in keys
    }

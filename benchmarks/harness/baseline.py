"""rsock of another checkout as a contender: the state before a change, beside the state after it.

Owns how a contender is run with another interpreter. Must never change what a contender does: both
states run the scripts of this checkout.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from harness import children
from harness.contest import Contender, Scenario, Turn

OURS = "rsock"


def beside_baseline(scenario: Scenario, python: str) -> Scenario:
    """The scenario with only rsock, what it is compared with, and rsock of the other interpreter.

    Both rsock contenders, and a second run of ours, are compared with ours: the second run shows
    the error of the ratio.
    """
    ours = [each for each in scenario.contenders if each.name.startswith(OURS)]
    bases = {each.against for each in ours} | {"floor", "floor again"}
    kept = [each for each in scenario.contenders if each.name in bases and each not in ours]
    for each in ours:
        kept.append(each)
        kept.append(replace(each, name=f"{each.name} again", against=each.name, target=None))
        kept.append(_with_python(each, python))
    return replace(scenario, contenders=tuple(kept))


def _with_python(contender: Contender, python: str) -> Contender:
    @contextmanager
    def start() -> Iterator[Turn]:
        with children.interpreter(python):
            running = contender.start()
            turn = running.__enter__()
        try:
            yield turn
        finally:
            running.__exit__(None, None, None)

    return replace(
        contender,
        name=f"{contender.name} baseline",
        start=start,
        against=contender.name,
        target=None,
    )

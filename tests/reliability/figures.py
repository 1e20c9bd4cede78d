"""Figures, their targets and the verdicts on them. Must never measure.

There are two kinds. What is counted (connections, errors, descriptors) holds in every form of a
scenario. What is measured (times, memory) is meaningful only in a form that runs long enough on an
otherwise idle machine: the brief form, which the tests run, shows it without a verdict.
"""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["met", "MISSED", "shown", "not judged"]


@dataclass(frozen=True)
class Figure:
    """One figure: a comparison of `value` with `target`, which is missed where it does not hold."""

    what: str
    value: object
    relation: Literal["=", "≤", "≥"] | None = None
    target: object = None
    unit: str = ""
    measured: bool = False

    def verdict(self, *, brief: bool) -> Verdict:
        if self.relation is None:
            return "shown"
        if self.measured and brief:
            return "not judged"
        return "met" if self._holds() else "MISSED"

    def _holds(self) -> bool:
        if self.relation == "=":
            return self.value == self.target
        value, target = self.value, self.target
        assert isinstance(value, int | float)
        assert isinstance(target, int | float)
        return value <= target if self.relation == "≤" else value >= target

    def shown_value(self) -> str:
        return _text(self.value, self.unit)

    def shown_target(self) -> str:
        return "" if self.relation is None else f"{self.relation} {_text(self.target, self.unit)}"


def equal(what: str, value: object, target: object, unit: str = "") -> Figure:
    """A count or a text that must be exactly this on every machine."""
    return Figure(what, value, "=", target, unit)


def at_most(
    what: str, value: float, target: float, unit: str = "", *, measured: bool = True
) -> Figure:
    """A time or an amount of memory; `measured=False` for a count that has an upper bound."""
    return Figure(what, value, "≤", target, unit, measured)


def at_least(
    what: str, value: float, target: float, unit: str = "", *, measured: bool = True
) -> Figure:
    """The same with a lower bound."""
    return Figure(what, value, "≥", target, unit, measured)


def only_shown(what: str, value: object, unit: str = "") -> Figure:
    """Without a target: shown for information."""
    return Figure(what, value, unit=unit)


def _text(value: object, unit: str) -> str:
    if unit == "B" and isinstance(value, int | float):
        return f"{value / 1024:,.0f} KiB"
    if unit == "s" and isinstance(value, int | float) and abs(value) < 0.1:
        return f"{value * 1000:.3g} ms"
    text = f"{value:,.3g}" if isinstance(value, float) else f"{value:,}" if _is_count(value) else ""
    return " ".join(filter(None, (text or str(value), unit)))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

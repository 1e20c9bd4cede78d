"""Turns figures into a table, a JSON file and a Markdown file, with the targets that were met.

Must never measure, nor fail because a target was missed.
"""

import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from harness.children import LOAD_CORE, SERVER_CORE
from harness.contest import Contender, Scenario

HEADINGS = ("", "median", "min … max", "ratio", "min … max", "target", "")

# The width where the output is not a terminal.
WIDTH = 132


@dataclass(frozen=True)
class Spread:
    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Line:
    """All that is known of one contender of one scenario."""

    row: str
    title: str
    contender: str
    unit: str
    figure: Spread
    against: str | None
    ratio: Spread | None
    target: str | None
    reached: bool | None
    rounds: list[float]

    def cells(self) -> tuple[str, ...]:
        median, span = _spread(self.figure)
        ratio, ratio_span = _spread(self.ratio)
        if self.against:
            ratio += f" × {self.against}"
        verdict = {True: "reached", False: "missed", None: ""}[self.reached]
        return (median, span, ratio, ratio_span, self.target or "", verdict)


def summarize(scenario: Scenario, rounds: list[dict[str, float]]) -> list[Line]:
    """The lines of one scenario. A ratio is taken within each round, then their median."""
    return [_line(scenario, contender, rounds) for contender in scenario.contenders]


def _line(scenario: Scenario, contender: Contender, rounds: list[dict[str, float]]) -> Line:
    figures = [figures[contender.name] for figures in rounds]
    against = contender.against
    if against not in rounds[0]:
        against = None  # no base of comparison, or a skipped one
    ratio = None
    if against:
        ratio = Spread.of([each[contender.name] / each[against] for each in rounds])
    figure, target = Spread.of(figures), contender.target
    judged = ratio if contender.against else figure
    return Line(
        row=scenario.key,
        title=scenario.title,
        contender=contender.name,
        unit=scenario.unit,
        figure=figure,
        against=against,
        ratio=ratio,
        target=target.text if target else None,
        reached=target.reached(judged.median) if target and judged else None,
        rounds=figures,
    )


def facts(rounds: int) -> dict[str, str]:
    """The circumstances in which the figures were taken."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
        "rounds": str(rounds),
        "machine": f"{os.cpu_count()} × {_processor()}, {platform.machine()}",
        "cores": f"server on {SERVER_CORE}, load on {LOAD_CORE}",
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: version for name in ("rsock", "uvloop", "gevent") if (version := _version(name))},
    }


def show(lines: list[Line]) -> None:
    """Prints the table."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in HEADINGS:
        justify: Literal["left", "right"] = "right" if heading == "median" else "left"
        table.add_column(heading, justify=justify, no_wrap=not heading)
    row = None
    for line in lines:
        if line.row != row:
            row = line.row
            table.add_section()
            table.add_row(f"[bold]{row}[/bold], {line.unit}")
        style = {True: "green", False: "red", None: None}[line.reached]
        table.add_row(f"  {line.contender}", *line.cells(), style=style)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def save(directory: Path, name: str, facts: dict[str, str], lines: list[Line]) -> None:
    directory.mkdir(exist_ok=True)
    whole = {"facts": facts, "lines": [asdict(line) for line in lines]}
    (directory / f"{name}.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    (directory / f"{name}.md").write_text(_markdown(facts, lines))


def _markdown(facts: dict[str, str], lines: list[Line]) -> str:
    text = ["# rsock beside its peers", ""]
    text += [f"- {name}: {value}" for name, value in facts.items()]
    headings = ("row", "unit", *HEADINGS)
    text += ["", _scenario(headings), _scenario(("---",) * len(headings))]
    text += [_scenario((line.title, line.unit, line.contender, *line.cells())) for line in lines]
    return "\n".join(text) + "\n"


def _scenario(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(spread: Spread | None) -> tuple[str, str]:
    if spread is None:
        return "", ""
    return _number(spread.median), f"{_number(spread.min)} … {_number(spread.max)}"


def _number(value: float) -> str:
    """Three to four significant digits."""
    decimals = 0 if value == 0 or abs(value) >= 100 else 1 if abs(value) >= 10 else 3
    return f"{value:,.{decimals}f}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

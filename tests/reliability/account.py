"""The account of the runs: a file of figures, and a page of the docs generated from it.

A run with `--record` replaces the scenarios that it ran, for the CPython that it ran on, and leaves
the others unchanged, because the long forms take an hour together. Must never judge or change a
figure.
"""

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from support.project import ROOT, TESTS

from reliability import faults
from reliability.figures import Figure
from reliability.scenario import Scenario, Size

FIGURES = TESTS / "reliability" / "results.json"
PAGE = ROOT / "docs" / "internals" / "reliability.md"

HEAD = """\
# What rsock survives

Each scenario is a fault or a load, with the server in a separate process. Each figure stands
beside its target. Where every server ended with exit code 0, printed nothing to standard error,
and released its descriptors and threads, a line says so.

`python -m tests.reliability` runs all scenarios in a form of some seconds each. `--long` runs the
form that the figures here come from, unless another command is given, and `--record` writes this
page. `--faults "latency:0.001"` gives the servers a fault besides. `--list` names all scenarios;
one that is not on this page was not recorded yet.
"""

# What `Served.afterwards` reports of every server.
USUAL = ("descriptors, threads left", "exit code", "written to standard error")


@dataclass(frozen=True)
class Line:
    what: str
    value: str
    target: str
    verdict: str

    @classmethod
    def of(cls, figure: Figure, size: Size) -> "Line":
        verdict = figure.verdict(brief=size.form == "brief")
        value, target = figure.shown_value(), figure.shown_target()
        return cls(figure.what, value, target, verdict)


@dataclass(frozen=True)
class Entry:
    """One run of a scenario."""

    key: str
    title: str
    command: str
    when: str
    where: str
    load: str
    lines: list[Line]


def entry(scenario: Scenario, size: Size, load: float, figures: Iterable[Figure]) -> Entry:
    form = "" if size.form == "short" else f" --{size.form}"
    given = faults.in_force()
    texts = "".join(f' --faults "{text}"' for text in given.split(faults.SEPARATOR) if text)
    system = platform.uname()
    return Entry(
        scenario.key,
        f"{scenario.title}, with {given}" if given else scenario.title,
        f"python -m tests.reliability{form} --scenario {scenario.key}{texts}",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{os.cpu_count()} CPUs, {system.system} {system.release.partition('-')[0]}",
        f"{load:.2f}",
        [Line.of(figure, size) for figure in figures],
    )


def write(entries: Iterable[Entry], order: list[str]) -> None:
    """Replaces the entries of the same scenarios and CPython, and generates the page again."""
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    version = ".".join(platform.python_version_tuple()[:2])
    for each in entries:
        given = f" with {faults.in_force()}" if faults.in_force() else ""
        kept[f"{each.key} on {version}{given}"] = asdict(each)
    kept = dict(sorted(kept.items(), key=lambda item: (order.index(item[1]["key"]), item[0])))
    FIGURES.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text("\n".join([HEAD, *(_section(each) for each in kept.values())]))


def _section(entry: dict[str, object]) -> str:
    lines = entry["lines"]
    assert isinstance(lines, list)
    usual = [line for line in lines if line["what"] in USUAL and line["verdict"] == "met"]
    others = [line for line in lines if line not in usual]
    said = [f"## {entry['key']}: {entry['title']}\n"]
    said.append(f"`{entry['command']}`, {entry['when']}, {entry['where']}, load {entry['load']}.")
    if usual:
        said.append("Nothing left open, exit code 0, nothing on standard error.")
    text = [*said, ""]
    if others:
        text += ["| | figure | target | |", "|---|---|---|---|"]
        text += [
            f"| {_cell(line['what'])} | {_cell(line['value'])} | {line['target']} | {_word(line)} |"
            for line in others
        ]
        text.append("")
    return "\n".join(text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _word(line: dict[str, str]) -> str:
    return "" if line["verdict"] == "shown" else line["verdict"]

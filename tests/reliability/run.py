"""The command line of the reliability suite.

Chooses scenarios, runs them, prints the table, returns the verdict. The table is the output;
progress goes to standard error. Must never measure.
"""

import argparse
import os
import platform
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from types import FrameType

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reliability import account, faults
from reliability.figures import Figure
from reliability.scenario import MATRIX, Scenario, Size, missing, scenarios

# The width where the output is not a terminal.
WIDTH = 132
HEADINGS = ("scenario", "what", "figure", "target", "verdict")
STYLES = {"met": "green", "MISSED": "bold red", "BROKE": "bold red"}


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every target met; 1: a target was missed or a scenario failed; 2: no such scenario."""
    found = scenarios()
    options = _parser(found).parse_args(arguments)
    if options.list:
        _list(found)
        return 0
    chosen = _chosen(found, options.scenario)
    if options.faults:
        chosen = _faulty(chosen, options)
    # SystemExit unwinds the `with` blocks, which end every child.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        not_yet = None if options.scenario or options.faults else missing(found)
        failed, entries = _run(chosen, Size(options.form), not_yet)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if options.record:
        account.write(entries, [scenario.key for scenario in found])
    return int(failed)


def _run(
    chosen: list[Scenario], size: Size, missing_: dict[str, str] | None
) -> tuple[bool, list[account.Entry]]:
    progress = Console(stderr=True)
    table = Table(*HEADINGS, box=box.SIMPLE_HEAD, title=_circumstances(size))
    failed, entries = False, []
    for scenario in chosen:
        if lacking := scenario.lacks():
            failed = True
            _add_cells(
                table, scenario.title, f"needs {', '.join(lacking)}", "", "BROKE", scenario.key
            )
            continue
        progress.print(escape(f"scenario {scenario.key}: {scenario.title}"), style="dim")
        began, load, figures = time.monotonic(), os.getloadavg()[0], []
        table.add_row(scenario.key, f"{escape(scenario.title)}", style="bold")
        try:
            for figure in scenario.run(size):
                figures.append(figure)
                failed |= _add(table, figure, size)
            entries.append(account.entry(scenario, size, load, figures))
        except Exception as error:
            failed = True
            traceback.print_exc()
            _add_cells(table, str(error).partition("\n")[0], type(error).__name__, "", "BROKE")
        progress.print(f"  {time.monotonic() - began:.1f} s", style="dim")
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    console.print(table)
    for number, why in (missing_ or {}).items():
        console.print(escape(f"not yet: scenario {number}, {MATRIX[number]}: {why}"))
    return failed, entries


def _add(table: Table, figure: Figure, size: Size) -> bool:
    verdict = figure.verdict(brief=size.form == "brief")
    _add_cells(table, figure.what, figure.shown_value(), figure.shown_target(), verdict)
    return verdict == "MISSED"


def _add_cells(
    table: Table, what: str, figure: str, target: str, verdict: str, key: str = ""
) -> None:
    table.add_row(
        key, escape(what), escape(figure), escape(target), verdict, style=STYLES.get(verdict)
    )


def _circumstances(size: Size) -> str:
    system = platform.uname()
    return (
        f"{size.form} form, {platform.python_implementation()} {platform.python_version()}, "
        f"{system.system} {system.release}"
    )


def _list(found: list[Scenario]) -> None:
    for scenario in found:
        print(f"{scenario.key:>12}  {scenario.title}")
    for number, why in missing(found).items():
        print(f"{number:>12}  {MATRIX[number]} (not yet: {why})")


def _parser(found: list[Scenario]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.reliability",
        description="What rsock must survive: figures beside their targets. "
        "Ends with 1 when a target is missed.",
    )
    keys = ", ".join(scenario.key for scenario in found)
    parser.add_argument(
        "--scenario",
        action="append",
        metavar="KEY",
        help=f"only this one, of {keys}; may be repeated",
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--long",
        dest="form",
        action="store_const",
        const="long",
        default="short",
        help="the sizes of the matrix; without it some seconds a scenario",
    )
    forms.add_argument(
        "--brief",
        dest="form",
        action="store_const",
        const="brief",
        help="what the tests run: does it work? Times and memory are shown without a verdict",
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="record the figures in tests/reliability/results.json, docs/internals/reliability.md",
    )
    parser.add_argument(
        "--faults",
        action="append",
        metavar="TEXT",
        help="give the servers this fault, such as latency:0.001; only the scenarios that allow "
        "for faults run; may be repeated",
    )
    parser.add_argument("--list", action="store_true", help="all scenarios; runs none")
    return parser


def _chosen(found: list[Scenario], keys: list[str] | None) -> list[Scenario]:
    if keys is None:
        return found
    by_key = {scenario.key: scenario for scenario in found}
    not_yet = missing(found)
    for key in keys:
        if key not in by_key:
            why = f"not yet: {not_yet[key]}" if key in not_yet else "no such scenario"
            print(f"reliability: scenario {key}: {why}", file=sys.stderr)
            raise SystemExit(2)
    return [by_key[key] for key in dict.fromkeys(keys)]


def _faulty(chosen: list[Scenario], options: argparse.Namespace) -> list[Scenario]:
    """The scenarios whose servers can have faults, which are put in force."""
    try:
        faults.put_in_force(options.faults)
    except ValueError as error:
        print(f"reliability: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if options.scenario and (others := [each.key for each in chosen if not each.with_faults]):
        print(f"reliability: scenario {others[0]}: not with --faults", file=sys.stderr)
        raise SystemExit(2)
    return [each for each in chosen if each.with_faults]


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)

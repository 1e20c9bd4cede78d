"""The benchmarks' command line: rsock beside its peers, in one run.

Chooses the scenarios and contenders, runs them round by round, prints one table and writes the
figures to `results/`. Must never judge: a missed target is a line in the table, not a failure.
"""

import argparse
import importlib.util
import resource
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType

from harness.baseline import beside_baseline
from harness.children import BENCHMARKS, BINARIES, LOAD_CORE, SERVER_CORE, BenchmarkError
from harness.contest import Contender, Scenario, run_round
from harness.overview import draw_overview
from harness.plot import draw
from harness.report import facts, save, show, summarize
from rich.console import Console
from scenarios import SCENARIOS

ROUNDS = 7


def main() -> int:
    arguments = _arguments()
    # SystemExit unwinds the `with` blocks, which end every child.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        _run(
            _scenarios(arguments.only or SCENARIOS, arguments.baseline),
            1 if arguments.quick else arguments.rounds,
            _name(arguments),
        )
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _name(arguments: argparse.Namespace) -> str:
    """Where the figures go. Only those of a whole run replace those that README shows."""
    if arguments.quick:
        return "quick"
    if arguments.baseline:
        return "baseline"
    return "selected" if arguments.only else "latest"


def _scenarios(scenarios: Sequence[Scenario], baseline: str | None) -> Sequence[Scenario]:
    return [beside_baseline(each, baseline) for each in scenarios] if baseline else scenarios


def _run(scenarios: Sequence[Scenario], rounds: int, name: str) -> None:
    console = Console(stderr=True)  # progress; only the table goes to standard output
    _prepare(console)
    circumstances = facts(rounds)
    scenarios = _installed(scenarios, console)
    results: dict[str, list[dict[str, float]]] = {scenario.key: [] for scenario in scenarios}
    for number in range(rounds):
        for scenario in scenarios:
            console.print(f"round {number + 1} of {rounds}: {scenario.title}", style="dim")
            results[scenario.key].append(run_round(scenario, number, quick=name == "quick"))
    lines = [line for scenario in scenarios for line in summarize(scenario, results[scenario.key])]
    show(lines)
    save(BENCHMARKS / "results", name, circumstances, lines)
    caption = ", ".join(circumstances[fact] for fact in ("date", "machine", "kernel", "Python"))
    draw(BENCHMARKS / "results" / f"{name}.svg", lines, caption)
    if name == "latest":
        draw_overview(BENCHMARKS / "results" / "overview.svg", lines, caption)


def _prepare(console: Console) -> None:
    """The preconditions of every scenario: programs are built, and descriptors suffice."""
    for name in ("floor", "splice", "tokio", "udp", "load", "churn", "tls_load"):
        if not (BINARIES / name).exists():
            raise BenchmarkError(f"{BINARIES / name} is missing: `make bench` builds it")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if SERVER_CORE == LOAD_CORE:
        console.print("one core only: server and load share it, which tells in every figure")


def _installed(scenarios: Sequence[Scenario], console: Console) -> list[Scenario]:
    """The scenarios without contenders whose module or program is missing; reports those."""
    contenders = [each for scenario in scenarios for each in scenario.contenders]
    missing = {
        *(
            e.requires
            for e in contenders
            if e.requires and not importlib.util.find_spec(e.requires)
        ),
        *(e.program for e in contenders if e.program and not shutil.which(e.program)),
    }
    for name in sorted(missing):
        console.print(f"skipped: {name} is not installed", style="yellow")

    def is_there(contender: Contender) -> bool:
        return not missing & {contender.requires, contender.program}

    def installed(scenario: Scenario) -> Scenario:
        there = tuple(filter(is_there, scenario.contenders))
        names = {each.name for each in there}
        # Without its base of comparison, a figure has no ratio.
        alone = (
            e if e.against in {None, *names} else replace(e, against=None, target=None)
            for e in there
        )
        return replace(scenario, contenders=tuple(alone))

    return [installed(scenario) for scenario in scenarios]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="rsock beside its peers.")
    parser.add_argument("--rounds", type=_rounds, default=ROUNDS, help=f"default {ROUNDS}")
    keys = ",".join(scenario.key for scenario in SCENARIOS)
    parser.add_argument("--only", type=_chosen, metavar="KEY,…", help=f"some of {keys}")
    parser.add_argument(
        "--baseline",
        metavar="PYTHON",
        help="compare with the rsock of this interpreter, such as ../before/.venv/bin/python",
    )
    parser.add_argument("--quick", action="store_true", help="one short round: does it work?")
    return parser.parse_args()


def _rounds(text: str) -> int:
    if (rounds := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least one round")
    return rounds


def _chosen(text: str) -> list[Scenario]:
    keys = text.split(",")
    if unknown := set(keys) - {scenario.key for scenario in SCENARIOS}:
        raise argparse.ArgumentTypeError(f"no such scenario: {', '.join(sorted(unknown))}")
    return [scenario for scenario in SCENARIOS if scenario.key in keys]


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())

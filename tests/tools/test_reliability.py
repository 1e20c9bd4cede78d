"""The reliability suite runs: every scenario, in its brief form, meets its counted targets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from reliability.figures import at_most, equal
from reliability.scenario import MATRIX, Scenario, missing, scenarios
from support.project import ROOT


def reliability(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.reliability", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.key)
def test_a_row_in_its_briefest_form_meets_what_can_be_counted(scenario: Scenario) -> None:
    if lacking := scenario.lacks():
        pytest.skip(f"needs {', '.join(lacking)}")
    key = scenario.key
    done = reliability("--brief", "--scenario", key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " met" in done.stdout


def test_every_row_of_the_matrix_is_there_or_named_with_the_reason() -> None:
    said = reliability("--list").stdout
    here = {scenario.key for scenario in scenarios()}
    assert len(here) == len(scenarios())
    assert set(missing(scenarios())) | here >= set(MATRIX)
    for number in MATRIX:
        (line,) = [line for line in said.splitlines() if line.split()[0] == number]
        assert ("not yet" in line) == (number not in here)


def test_a_row_that_is_not_there_is_no_success() -> None:
    done = reliability("--scenario", "no-such-scenario")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no such scenario" in done.stderr


def test_scenarios_that_allow_for_faults_run_with_them() -> None:
    done = reliability("--brief", "--scenario", "3", "--faults", "latency:0.001")
    assert done.returncode == 0, done.stdout + done.stderr
    for arguments in (("--scenario", "2", "--faults", "latency:0.001"), ("--faults", "latenzy:1")):
        done = reliability("--brief", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "reliability: " in done.stderr


def test_a_missed_target_is_no_success(tmp_path: Path) -> None:
    # Scenarios made here, so that no real one has to be broken for the test.
    code = """
import sys
from reliability import run
from reliability.figures import equal
from reliability.scenario import Scenario
run.scenarios = lambda: [
    Scenario("odd", "one that misses", lambda size: iter([equal("sum", 3, 4)])),
    Scenario("even", "one that breaks", lambda size: iter([1 // 0])),
]
sys.exit(run.main(["--brief", *sys.argv[1:]]))
"""
    for key, word in (("odd", "MISSED"), ("even", "BROKE")):
        done = subprocess.run(
            [sys.executable, "-c", code, "--scenario", key],
            cwd=ROOT / "tests",
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert word in done.stdout


def test_the_brief_form_judges_what_is_counted_and_not_what_is_measured() -> None:
    assert equal("count", 1, 2).verdict(brief=True) == "MISSED"
    assert equal("count", 2, 2).verdict(brief=True) == "met"
    slow = at_most("time", 2.0, 1.0, "s")
    assert (slow.verdict(brief=True), slow.verdict(brief=False)) == ("not judged", "MISSED")
    assert at_most("threads", 3, 2, measured=False).verdict(brief=True) == "MISSED"

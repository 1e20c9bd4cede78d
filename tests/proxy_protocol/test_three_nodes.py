"""Behind HAProxy, three commands are replaced without a failure, and one that dies is replaced."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.namespaces import alone

PROGRAM = Path(__file__).with_name("three_nodes.py")
IS_LONG = bool(os.environ.get("RSOCK_TEST_LONG"))
# The long form: RSOCK_TEST_LONG=1 makes 100 000 connections while all three are replaced five
# times, and kills each of them.
CONNECTIONS = 100_000 if IS_LONG else 2_000
ROLLS = 5 if IS_LONG else 1
KILLS = 3 if IS_LONG else 1
PATIENCE = 1_500 if IS_LONG else 110


def behind_haproxy(folder: Path) -> dict[str, Any]:
    """What `three_nodes.py` prints."""
    if shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("haproxy is not installed")
    arguments = [sys.executable, str(PROGRAM), str(folder)]
    arguments += ["--connections", str(CONNECTIONS)]
    arguments += ["--rolls", str(ROLLS), "--kills", str(KILLS)]
    # Addresses of the loopback where there are no namespaces.
    with contextlib.suppress(pytest.skip.Exception):
        arguments = [*alone(folder), *arguments, "--own-namespaces"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(found, indent=1))
    return found


@pytest.mark.timeout(PATIENCE + 10)
def test_three_commands_are_replaced_without_a_failure_and_a_death_costs_what_was_open(
    tmp_path: Path,
) -> None:
    found = behind_haproxy(tmp_path)
    rolling = found["rolling"]
    assert rolling["failed"] == []
    assert rolling["connections"] >= CONNECTIONS
    assert rolling["codes"] == [0, 0, 0] * ROLLS
    assert set(rolling["by_node"]) == {"a", "b", "c"}
    assert len(found["kills"]) == KILLS
    for kill in found["kills"]:
        assert kill["held_of_it"] > 0
        assert kill["held_of_it_that_work"] == 0
        assert kill["held_of_others_that_work"] == kill["held_of_others"] > 0
        assert kill["failed_that_began_later"] == 0
        assert kill["failed_of_others"] == 0
    assert found["last_codes"] == [0, 0, 0]

"""The examples of deployment: what a tool can check of them here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.command_line import run
from support.project import ROOT

from rsock._counts import FAMILIES

DEPLOY = ROOT / "examples" / "deploy"


def test_the_file_of_options_is_right() -> None:
    path = DEPLOY / "rsock.toml"
    code, out, err = run("config", "check", str(path))
    assert (code, err) == (0, "")
    assert out.endswith("nothing wrong\n")


def test_the_units_are_valid(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    for name in ("shout.socket", "shout.service"):
        text = (DEPLOY / name).read_text()
        # The program has to exist for the check.
        (tmp_path / name).write_text(text.replace("/opt/rsock/bin/rsock", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "shout" in line]
    assert (done.returncode, said) == (0, [])


def test_a_pod_has_more_time_to_end_than_it_takes() -> None:
    manifest = (DEPLOY / "kubernetes.yaml").read_text()
    options = tomllib.loads((DEPLOY / "rsock.toml").read_text())
    found = re.search(r"terminationGracePeriodSeconds: (\d+)", manifest)
    assert found is not None
    assert int(found[1]) > options["linger"] + options["drain"]
    assert "preStop:" not in manifest
    assert options["metrics"].endswith(":9100")
    assert "containerPort: 9100" in manifest


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    names = set(FAMILIES) | {"rsock_processes", "rsock_process_restarts"}
    kinds = {name: family.kind for name, family in FAMILIES.items()}
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"rsock_\w+", target["expr"])
    }
    assert len(asked) > 10
    for name in asked:
        base = re.sub(r"_(total|bucket|sum|count)$", "", name)
        assert base in names, name
        if kinds.get(base) == "counter":
            assert name == f"{base}_total"


def test_the_page_lists_every_metric() -> None:
    page = (ROOT / "docs" / "guide" / "production.md").read_text()
    for name, family in FAMILIES.items():
        full = f"{name}_total" if family.kind == "counter" else name
        short = "…" + full[full.rindex("_", 0, full.rindex("_total")) :] if "_total" in full else ""
        assert f"`{full}`" in page or f"`{short}`" in page, full

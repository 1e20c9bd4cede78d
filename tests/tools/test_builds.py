"""What the package promises to those who compile it, as far as its files can tell.

`make lint` runs the compilers (`tests/builds.py`).
"""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.project import ROOT, TESTS

# The first version without an entry at https://rustsec.org, of those that were in the range.
WITHOUT_ADVISORY = {
    "Cargo.toml": {"crossbeam-channel": (0, 5, 15), "slab": (0, 4, 11)},
    "benchmarks/peers/Cargo.toml": {"tokio": (1, 44, 2)},
}


def manifest(path: str) -> dict[str, object]:
    return tomllib.loads((ROOT / path).read_text())


def lower_bounds(path: str) -> dict[str, tuple[int, ...]]:
    found = {}
    dependencies = manifest(path)["dependencies"]
    assert isinstance(dependencies, dict)
    for name, entry in dependencies.items():
        version = entry if isinstance(entry, str) else entry["version"]
        found[name] = tuple(int(part) for part in version.split("."))
    return found


@pytest.mark.parametrize("path", WITHOUT_ADVISORY)
def test_no_dependency_may_be_older_than_its_last_advisory(path: str) -> None:
    bounds = lower_bounds(path)
    for name, version in WITHOUT_ADVISORY[path].items():
        assert bounds[name] >= version, name


def test_the_readme_names_the_oldest_rust() -> None:
    package = manifest("Cargo.toml")["package"]
    assert isinstance(package, dict)
    [version] = re.findall(r"Rust (\d+\.\d+)", (ROOT / "README.md").read_text())
    assert version == package["rust-version"]


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    """`tests/builds.py` with the programs in a directory only."""
    return subprocess.run(
        [sys.executable, TESTS / "builds.py"],
        env={"PATH": str(path), "HOME": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def program(path: Path, name: str, script: str) -> None:
    file = path / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_what_is_not_installed_is_named_and_skipped(tmp_path: Path) -> None:
    done = lint(tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    said = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in said] == ["lint"] * 3
    for word, line in zip(("Rust", "musl", "cargo-deny"), said, strict=True):
        assert word in line


def test_what_is_installed_is_run_and_its_failure_counts(tmp_path: Path) -> None:
    package = manifest("Cargo.toml")["package"]
    assert isinstance(package, dict)
    version = package["rust-version"]
    program(tmp_path, "rustup", f"echo {version}-x86_64-unknown-linux-gnu")
    program(tmp_path, "cargo", 'case "$1" in +*) exit 3;; deny) echo 1;; esac')
    failed = lint(tmp_path)
    assert failed.returncode == 3
    assert f"cargo +{version} check" in failed.stdout
    program(tmp_path, "rustup", "true")
    done = lint(tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("cargo deny --offline") == 2
    assert "advisories" in done.stderr
    (tmp_path / ".cargo/advisory-dbs/advisory-db-1").mkdir(parents=True)
    done = lint(tmp_path)
    assert done.stdout.count("sources advisories") == 2

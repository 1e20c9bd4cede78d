"""What `make` checks before it installs anything, with interpreters that only say their version."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import ROOT

# An interpreter of some version and place. As `-m venv` it makes an environment of itself, whose
# tools write down how they were called.
PYTHON = """#!/bin/sh
if [ "$1" = -m ]; then
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    for tool in pip maturin; do
        printf '#!/bin/sh\\necho "$(basename $0) PIP_QUIET=$PIP_QUIET" >>"%s/calls"\\n' "$PWD" \\
            >"$3/bin/$tool"
        chmod +x "$3/bin/$tool"
    done
    exit
fi
exec {real} -c 'import sys
sys.version_info, sys.base_prefix = {version}, "/opt/{name}"
exec(sys.argv[2])' "$@"
"""


class Clone:
    """A clone of the project as far as its Makefile needs it, with a PATH of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "src").mkdir()
        for name in ("Makefile", "Cargo.toml", "Cargo.lock", "build.rs", "pyproject.toml"):
            shutil.copy(ROOT / name, root / name)
        self.path = root / "bin"
        self.path.mkdir()
        tools = "sh make find sed cut sort head printf rm touch cp mkdir chmod basename"
        for tool in tools.split():
            found = shutil.which(tool)
            assert found is not None
            (self.path / tool).symlink_to(found)
        self.program("cargo", "#!/bin/sh\n")
        self.program("rustc", "#!/bin/sh\necho 'rustc 1.99.0 (of a test)'\n")

    def program(self, name: str, text: str) -> None:
        file = self.path / name
        file.write_text(text)
        file.chmod(0o755)

    def python(self, name: str, version: tuple[int, int, int]) -> None:
        self.program(name, PYTHON.format(real=sys.executable, version=version, name=name))

    def make(self, *args: str) -> tuple[int, str, str]:
        environment = {"PATH": str(self.path), "LC_ALL": "C"}
        done = subprocess.run(
            ["make", *args],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    @property
    def environment(self) -> str:
        """The interpreter that the environment is of."""
        text = (self.root / ".venv" / "bin" / "python").read_text()
        return text.partition('"/opt/')[2].partition('"')[0]

    def calls(self) -> list[str]:
        file = self.root / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A clone with an interpreter that can be used, as python3."""
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    clone = Clone(tmp_path)
    clone.python("python3", (3, 12, 1))
    return clone


@pytest.mark.parametrize("target", ["demo", "test", "build", "format"])
def test_an_interpreter_that_is_too_old_is_refused_before_anything_is_made(
    target: str, clone: Clone
) -> None:
    clone.python("python3", (3, 10, 13))
    code, _, err = clone.make("-k", target) if target == "test" else clone.make(target)
    assert code != 0
    assert "needs Python 3.11 or later, and python3 is 3.10.13" in err
    assert not (clone.root / ".venv").exists()
    assert clone.calls() == []


def test_an_interpreter_that_does_not_exist_is_named(clone: Clone) -> None:
    code, _, err = clone.make("build", "PYTHON=python9")
    assert code != 0
    assert "there is no python9" in err
    assert clone.calls() == []


def test_a_machine_without_rust_is_told_at_once(clone: Clone) -> None:
    (clone.path / "cargo").unlink()
    code, _, err = clone.make("demo")
    assert code != 0
    assert "https://rustup.rs" in err
    assert clone.calls() == []


def test_a_rust_that_is_too_old_is_told_at_once(clone: Clone) -> None:
    clone.program("rustc", "#!/bin/sh\necho 'rustc 1.60.0 (of a test)'\n")
    code, _, err = clone.make("demo")
    assert code != 0
    assert "rustc is 1.60.0" in err
    assert clone.calls() == []


def test_an_environment_of_another_interpreter_is_made_anew(clone: Clone) -> None:
    clone.python("other", (3, 13, 0))
    code, out, err = clone.make("build")
    assert (code, err) == (0, "")
    assert clone.environment == "python3"
    code, out, err = clone.make("build", "PYTHON=other")
    assert (code, err) == (0, "")
    assert ".venv is of another interpreter" in out
    assert clone.environment == "other"
    # It is kept as long as no other one is named.
    before = clone.calls()
    assert clone.make("build")[0] == 0
    assert clone.environment == "other"
    assert clone.calls() == before


def test_an_environment_that_is_too_old_is_made_anew(clone: Clone) -> None:
    """An earlier `make` of the project left such a one behind, and used it."""
    clone.python("old", (3, 10, 13))
    subprocess.run([str(clone.path / "old"), "-m", "venv", ".venv"], cwd=clone.root, check=True)
    for stamp in (".tools", ".built"):
        (clone.root / ".venv" / stamp).touch()
    assert clone.make("build")[0] == 0
    assert clone.environment == "python3"
    # An interpreter that is refused leaves it alone.
    assert clone.make("build", "PYTHON=old")[0] != 0
    assert clone.environment == "python3"


def test_what_takes_minutes_is_said_and_pip_says_nothing_else(clone: Clone) -> None:
    code, out, err = clone.make("build")
    assert (code, err) == (0, "")
    for said in ("Installing the tools", "Building rsock"):
        [line] = [line for line in out.splitlines() if said in line]
        assert "minutes" in line
    assert clone.calls()[-1] == "maturin PIP_QUIET=1"

"""The tests of the plugin for pytest, with other versions of pytest and with other plugins.

Makes an environment for each version, below `target`, and runs the tests there: those of the
plugin, and those of its use with other plugins, which the environment of the contributors does not
have because they change each run. Must never build rsock: it takes the build of that environment.

`.venv/bin/python tests/plugin_matrix.py [ARGUMENTS OF PYTEST]`
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The oldest that the plugin supports, and the newest.
VERSIONS = {"8.4": "pytest==8.4.*", "newest": "pytest"}
OTHERS = [
    "anyio",
    "hypothesis",
    "pytest-asyncio",
    "pytest-randomly",
    "pytest-socket",
    "pytest-timeout",
    "pytest-trio",
    "pytest-xdist",
    "trio",
    "urllib3",
]
TESTS = [
    "tests/tools/test_pytest_cause.py",
    "tests/tools/test_pytest_others.py",
    "tests/tools/test_pytest_plugin.py",
    "tests/tools/test_pytest_recordings.py",
    "tests/tools/test_pytest_section.py",
    "tests/tools/test_pytest_tls.py",
]


def environment(version: str) -> Path:
    """The interpreter of the environment of a version; it is made where it is missing."""
    folder = ROOT / "target" / f"pytest-{version}-{sys.version_info[0]}.{sys.version_info[1]}"
    python = folder / "bin" / "python"
    made = folder / ".made"
    wanted = [VERSIONS[version], *OTHERS]
    if not made.exists() or made.read_text() != "\n".join(wanted):
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted],
            check=True,
        )
        made.write_text("\n".join(wanted))
    [packages] = folder.glob("lib/*/site-packages")
    install(packages)
    return python


def install(packages: Path) -> None:
    """Install rsock as it is installed here: its folder, and its entry points."""
    (packages / "rsock.pth").write_text(f"{ROOT / 'python'}\n")
    info = importlib.metadata.distribution("rsock")
    target = packages / "rsock-0.dist-info"
    target.mkdir(exist_ok=True)
    for name in ("METADATA", "entry_points.txt"):
        (target / name).write_text(info.read_text(name) or "")


def main() -> int:
    failed = []
    for version in VERSIONS:
        python = environment(version)
        began = time.monotonic()
        command = [str(python), "-m", "pytest", "-q", "-n", "2", "-p", "no:randomly"]
        # Unset, it is a warning of pytest-asyncio, which is an error here.
        command += ["-o", "asyncio_default_fixture_loop_scope=function", *TESTS]
        done = subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, check=False)
        print(f"pytest {version}: {time.monotonic() - began:.0f} s, exit code {done.returncode}")
        failed += [version] * (done.returncode != 0)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())

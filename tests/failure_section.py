"""The failure sections in docs/guide/testing.md, which are the output of real runs.

Owns how the tests that fail are run, and which parts of their output differ from run to run: ports,
times, seeds. Must never change another word of the page.

Run as a program it runs the tests, and writes their sections into the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guide" / "testing.md"
# Two blocks of the page: a test, and its section.
BLOCK = re.compile(
    r"(?P<head><!-- tests/failure_section.py -->\n+```python no-run\n)(?P<code>.*?)"
    r"(?P<middle>^```\n.*?^```text\n)(?P<text>.*?)(?P<tail>^```$)",
    re.DOTALL | re.MULTILINE,
)
# What differs, and what stands for it in a comparison.
VARIES = [
    (re.compile(r"127\.0\.0\.1:\d+\s*"), "127.0.0.1:PORT "),
    (re.compile(r"\s+\d+(\.\d+)? (µs|ms|s)\b"), " TIME"),
    (re.compile(r"client +in +out +lasted"), "client in out lasted"),
    # The bytes of a handshake of TLS.
    (re.compile(r"\d+ \(\d{3} B\)"), "N (N B)"),
    (re.compile(r"\d{3} B (?=from the client|to it)"), "N B "),
    (re.compile(r"  +"), "  "),
]


def run(code: str) -> str:
    """Run the test; return its section."""
    name = re.findall(r"^def (test_\w+)", code, re.MULTILINE)[0] + ".py"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_text(code)
        options = ["-p", "rsock", "-p", "no:cacheprovider", "--rsock-seed=42"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, name],
            cwd=folder,
            # Other plugins that are installed change nothing here, and take most of the time.
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    found = re.search(r"^(-+ rsock -+\n.*?)^=+ short test", done.stdout, re.DOTALL | re.MULTILINE)
    if found is None:
        raise RuntimeError(f"no section:\n{done.stdout}\n{done.stderr}")
    return found[1]


def same(one: str, other: str) -> bool:
    """Whether two sections differ only in what differs from run to run."""
    for pattern, word in VARIES:
        one, other = pattern.sub(word, one), pattern.sub(word, other)
    return one == other


def parts(page: str) -> list[re.Match[str]]:
    found = list(BLOCK.finditer(page))
    if not found:
        raise RuntimeError(f"{PAGE}: no block of a failure section")
    return found


def main() -> None:
    page = PAGE.read_text()
    # From the end, so that the places before stay.
    for found in reversed(parts(page)):
        text = run(found["code"])
        if not same(text, found["text"]):
            page = page[: found.start("text")] + text + page[found.end("text") :]
    PAGE.write_text(page)


if __name__ == "__main__":
    main()

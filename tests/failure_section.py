"""The failure section in docs/guide/testing.md, which is the output of a real run.

Owns the test that fails, and which parts of its output differ from run to run: ports, times, seeds.
Must never change another word of the page.

Run as a program it runs the test, and writes its section into the page.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guide" / "testing.md"
NAME = "test_counter.py"
# The two blocks of the page: the test, and its section.
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
    (re.compile(r"  +"), "  "),
]


def run(code: str) -> str:
    """Run the test; return its section."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, NAME).write_text(code)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rsock-seed=42"]
        done = subprocess.run(
            [*command, NAME], cwd=folder, capture_output=True, text=True, timeout=100, check=False
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


def parts(page: str) -> re.Match[str]:
    found = BLOCK.search(page)
    if found is None:
        raise RuntimeError(f"{PAGE}: no block of the failure section")
    return found


def main() -> None:
    page = PAGE.read_text()
    found = parts(page)
    text = run(found["code"])
    if not same(text, found["text"]):
        PAGE.write_text(page[: found.start("text")] + text + page[found.end("text") :])


if __name__ == "__main__":
    main()

"""Counts words that the texts of this project do not use. Owns the list and its exceptions; must
never change a file.

`python tests/prose.py` prints each occurrence as `path:line: word`, then the total, and exits
with 1 if there are any. `--count` prints the number for each word and the total only.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Matched in any case. Plain technical English does without them: some hide the subject of a
# sentence, others are literary.
PHRASES = (
    "nobody",
    "somebody",
    "anybody",
    "whoever",
    "whomever",
    "so many",
    "so much",
    "is to be",
    "are to be",
    "was to be",
    "were to be",
    "in its place",
    "in their place",
    "mend",
    "mends",
    "mended",
    "mending",
    "sees to it",
    "see to it",
    "seen off",
    "thereby",
    "hence",
    "whence",
    "thither",
    "naught",
)
# Matched in exactly this case. Former names of parts of the engine and of its tests, for which the
# field has terms of its own.
NAMES = (
    "Ward",
    "Desk",
    "Guests",
    "Farewell",
    "Seat",
    "Ticket",
    "Passage",
    "Dial",
    "Strays",
    "troupe",
    "rehearsal",
    "campaign",
    "dawn",
    "hang_up",
    "hush",
    "WAY_HOME",
    "see_out",
)
# (path, word): the reason why that file may use the word, such as the quoted title of an RFC.
EXCEPTIONS: dict[tuple[str, str], str] = {}

SUFFIXES = {".rs", ".py", ".pyi", ".md", ".toml", ".ipynb", ".c", ".h", ".sh"}
OTHERS = {"Makefile", ".ci/run"}
# This file contains the words in its lists; programs write the results.
LEFT_OUT = re.compile(r"tests/prose\.py|(.*/)?results/.*|(.*/)?Cargo\.lock")

# What may separate the words of a phrase: white space, the marks of a comment that continues on the
# next line, and in the JSON of a notebook the end of one string and the start of the next.
GAP = r'(?:[\s#/*!]|\\n",\n\s*")+'


@dataclass(frozen=True)
class Occurrence:
    line: int
    word: str


def _pattern(words: Iterable[str], flags: re.RegexFlag) -> re.Pattern[str]:
    # In the JSON of a notebook a line ends with the letter n of "\n": a word may start after it.
    inner = "|".join(GAP.join(map(re.escape, word.split())) for word in words)
    return re.compile(rf"(?:(?<!\w)|(?<=\\n))({inner})(?!\w)", flags)


PATTERNS = (_pattern(PHRASES, re.IGNORECASE), _pattern(NAMES, re.NOFLAG))


def occurrences(text: str) -> list[Occurrence]:
    """Each listed word in a text, with the line on which it starts, in order."""
    found = [match for pattern in PATTERNS for match in pattern.finditer(text)]
    found.sort(key=lambda match: match.start())
    return [
        Occurrence(text.count("\n", 0, match.start()) + 1, _as_listed(match[1])) for match in found
    ]


def _as_listed(words: str) -> str:
    text = re.sub(GAP, " ", words)
    return text if text in NAMES else text.lower()


def is_checked(path: str) -> bool:
    """Whether a file, named relative to the project's root, is checked."""
    return LEFT_OUT.fullmatch(path) is None and (path in OTHERS or Path(path).suffix in SUFFIXES)


def tracked() -> Iterator[str]:
    """The paths of the files that git tracks and that exist."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for path in listed.stdout.split("\0"):
        if path and (ROOT / path).is_file():
            yield path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Count words that this project does not use.")
    parser.add_argument("--count", action="store_true", help="print only the counts")
    only_count = parser.parse_args(arguments).count
    counts: Counter[str] = Counter()
    for path in filter(is_checked, tracked()):
        for found in occurrences((ROOT / path).read_text()):
            if (path, found.word) in EXCEPTIONS:
                continue
            counts[found.word] += 1
            if not only_count:
                print(f"{path}:{found.line}: {found.word}")
    if only_count:
        for word, number in counts.most_common():
            print(f"{number:5} {word}")
    print(f"{counts.total():5} in total" if only_count else f"{counts.total()} in total")
    return 1 if counts else 0


if __name__ == "__main__":
    sys.exit(main())

"""The word counter `prose` finds each word of its lists, and does not find it inside other words.

The samples are made from the lists, so this file does not contain the words. Whether the files of
the project are free of them is checked by `make lint`, not here.
"""

from __future__ import annotations

import prose
import pytest
from prose import Occurrence, is_checked, occurrences
from support.project import ROOT

LISTED = [*prose.PHRASES, *prose.NAMES]


@pytest.mark.parametrize("word", LISTED)
def test_each_word_is_found_with_its_line(word: str) -> None:
    assert occurrences(f"one\ntwo ({word}), three\n") == [Occurrence(2, word)]


@pytest.mark.parametrize("word", LISTED)
def test_a_word_inside_another_is_not_found(word: str) -> None:
    assert occurrences(f"x{word} {word}x _{word} {word}_ 1{word} {word}2") == []


@pytest.mark.parametrize("word", prose.PHRASES)
def test_phrases_are_found_in_any_case(word: str) -> None:
    assert occurrences(f"{word.upper()} {word.capitalize()}") == [Occurrence(1, word)] * 2


@pytest.mark.parametrize("word", prose.NAMES)
def test_names_are_found_in_their_own_case_only(word: str) -> None:
    assert occurrences(word.swapcase()) == []


@pytest.mark.parametrize(
    "between", ["\n", "\n    # ", "\n    /// ", "\n//! ", "\n * ", '\\n",\n  "']
)
def test_a_phrase_may_go_on_in_the_next_line(between: str) -> None:
    phrase = next(each for each in prose.PHRASES if " " in each)
    assert occurrences(phrase.replace(" ", between)) == [Occurrence(1, phrase)]


def test_a_word_after_an_escaped_line_end_is_found() -> None:
    word = prose.PHRASES[0]
    assert occurrences(rf'"one\n{word}"') == [Occurrence(1, word)]


def test_several_words_are_found_in_their_order() -> None:
    first, second = prose.NAMES[0], prose.PHRASES[0]
    assert occurrences(f"{first} {second}\n{first}") == [
        Occurrence(1, first),
        Occurrence(1, second),
        Occurrence(2, first),
    ]


def test_sources_and_pages_are_checked_and_generated_files_are_not() -> None:
    written = ["README.md", "src/lib.rs", "Makefile", ".ci/run", "examples/c/listening.h"]
    assert [path for path in written if not is_checked(path)] == []
    assert all((ROOT / path).exists() for path in written)
    other = ["Cargo.lock", "benchmarks/results/latest.md", "docs/images/echo.svg", "tests/prose.py"]
    assert [path for path in other if is_checked(path)] == []


def test_the_exceptions_are_of_listed_words_and_have_a_reason() -> None:
    for (path, word), reason in prose.EXCEPTIONS.items():
        assert (ROOT / path).exists()
        assert word in LISTED
        assert reason

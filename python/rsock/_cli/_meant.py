"""What was meant by a word that is none: a name that is spelled like it, or a habit from elsewhere.

It only compares texts. It must never correct what was typed: a command that does something else
than it was told is worse than one that asks.
"""

import difflib
from collections.abc import Iterable
from typing import Final

__all__ = ["hint", "option"]

_PORT: Final = "the address is an argument of its own: [HOST:]PORT"
# Options of nc(1), socat(1) and of web servers.
_HABITS: Final = {
    "--port": _PORT,
    "-p": _PORT,
    "--host": _PORT,
    "--bind": _PORT,
    "-b": _PORT,
    "--listen": _PORT,
    "-l": _PORT,
    "--address": _PORT,
    "-u": "--udp",
    "-U": "--path",
    "--unix": "--path",
    "-w": "--timeout",
    "-W": "--timeout",
    "-q": "--plain",
    "--quiet": "--plain",
    "--no-shutdown": "--keep-open",
    "--wait": "--timeout",
    "--threads": "--workers",
    "--version": "it goes before the command: rsock --version",
}


def hint(word: str, among: Iterable[str]) -> str | None:
    """Return the name that `word` is most like, or that it begins; None if there is none."""
    names = list(among)
    plain = {_plain(name): name for name in names}
    close = difflib.get_close_matches(_plain(word), plain, n=1)
    if close:
        return plain[close[0]]
    begun = [name for name in names if len(word) > 1 and name.startswith(word)]
    return begun[0] if len(begun) == 1 else None


def option(name: str, known: Iterable[str]) -> str | None:
    """Return what to write instead of an option that a command does not have."""
    options = list(known)
    habit = _HABITS.get(name)
    if habit is not None:
        if not habit.startswith("-"):
            return habit
        if habit in options:
            return f"did you mean {habit}?"
    # A short option is like every other one.
    meant = hint(name, options) if name.startswith("--") else None
    return f"did you mean {meant}?" if meant else None


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").strip("-")

"""The parser: the table of the commands, and what their help and their errors look like.

Each `--help` has to fit a screen of 80 columns and 24 lines. This file must not load a command's
own module before `argv` names it, and must need no package besides the standard library.
"""

import argparse
import functools
import importlib
import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from .. import __version__
from . import _meant
from ._errors import UsageError
from ._namespace import Arguments

__all__ = ["COMMANDS", "parse"]

# The commands in the order of the help. `name` is in the module `_name`, which has a subclass of
# `Arguments` under that name, and two functions: `add_arguments(parser)` adds the options and sets
# the usage and the description, and `run(arguments)` returns an exit code.
COMMANDS: Final = {
    "echo": "send back all data",
    "serve": "serve with a service, or with your own function",
    "forward": "forward connections to another address",
    "connect": "talk to a server, from a terminal or in a pipe",
    "wait": "wait until a server accepts connections",
    "limits": "show the system's limits on a process",
    "demo": "open a thousand connections and check every byte",
}

# Words for `--help` and `--version` that other programs have.
_INSTEAD: Final = {"help": "--help", "version": "--version", "-V": "--version", "-v": "--version"}
# What argparse takes for a number, where an option could be.
_NEGATIVE: Final = re.compile(r"-\d+|-\d*\.\d+")


def parse(argv: Sequence[str]) -> Arguments:
    """Read the arguments. Raises UsageError for wrong ones, and SystemExit after `--help`."""
    if not argv or argv[0] not in COMMANDS:
        _without_command(argv)
    name, *rest = argv
    module: Any = importlib.import_module(f"._{name}", __package__)
    parser = _Parser(f"rsock {name}")
    module.add_arguments(parser)
    arguments: Arguments = module.Arguments()
    arguments.command = module.run
    arguments.words = list(argv)
    parser.check_options(rest)
    # Intermixed, so that an option may stand between two positional arguments.
    parser.parse_intermixed_args(rest, arguments)
    return arguments


def _without_command(argv: Sequence[str]) -> NoReturn:
    """Print the help or the version, or raise UsageError."""
    parser = _Parser("rsock")
    parser.usage = "rsock COMMAND [ARGUMENT ...]"
    parser.description = "Real sockets, run by Rust threads."
    width = max(map(len, COMMANDS)) + 2
    listed = "".join(f"    {name:{width}}{text}\n" for name, text in COMMANDS.items())
    parser.epilog = (
        f"commands:\n{listed}\n"
        f"rsock COMMAND --help explains a command. `python -m rsock` works the same."
    )
    parser.add_argument("--version", action="version", version=f"rsock {__version__}")
    word = argv[0] if argv else None
    if word in ("-h", "--help", "--version"):
        parser.parse_args([word])
    if word is None:
        parser.error(f"a COMMAND is missing: {', '.join(COMMANDS)}")
    if word in _INSTEAD:
        parser.error(f"no command {word!r}; did you mean rsock {_INSTEAD[word]}?")
    if word.startswith("-"):
        meant = _meant.hint(word, parser._option_string_actions)
        parser.error(
            f"no option {word!r}; did you mean {meant}?"
            if meant
            else f"option {word!r} comes before the COMMAND; it goes after it"
        )
    meant = _meant.hint(word, COMMANDS)
    parser.error(f"no command {word!r}; {f'did you mean {meant}?' if meant else _listed()}")


def _listed() -> str:
    return f"there are {', '.join(COMMANDS)}"


class _Parser(argparse.ArgumentParser):
    def __init__(self, prog: str) -> None:
        super().__init__(
            prog=prog,
            add_help=False,
            # An option that is added later must not change the meaning of `--li`.
            allow_abbrev=False,
            formatter_class=functools.partial(
                argparse.RawDescriptionHelpFormatter, max_help_position=22
            ),
        )
        self.add_argument("-h", "--help", action="help", help="show this")

    def check_options(self, argv: Sequence[str]) -> None:
        """Raise UsageError for an option that does not exist, with the one that was meant.

        It comes before all other errors, because argparse takes the value of an unknown option for
        a positional argument.
        """
        known = self._option_string_actions
        for word in argv:
            if word == "--":
                break
            name = word.partition("=")[0]
            # As argparse: a word with a space in it, or a negative number, is a value.
            if not name.startswith("-") or name == "-" or " " in word or name in known:
                continue
            if _NEGATIVE.fullmatch(word):
                continue
            instead = _meant.option(name, known)
            self.error(f"no option {name!r}{f'; {instead}' if instead else ''}")

    def error(self, message: str) -> NoReturn:
        """Raise, where argparse would print the usage and exit: `main` owns the exit code."""
        raise UsageError(f"{message}\nTry '{self.prog} --help'.")

"""The parser: the table of the commands, and what their help and their errors look like.

Each `--help` has to fit a screen of 80 columns and 24 lines. This file must not load a command's
own module before `argv` names it, and must need no package besides the standard library.
"""

import argparse
import functools
import importlib
import itertools
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from .. import __version__
from . import _meant
from ._errors import UsageError
from ._namespace import Arguments

if TYPE_CHECKING:
    from ._layers import Layers

__all__ = ["COMMANDS", "parse"]

# The commands in the order of the help. `name` is in the module `_name`, which has a subclass of
# `Arguments` under that name, and two functions: `add_arguments(parser)` adds the options and sets
# the usage and the description, and `run(arguments)` returns an exit code.
COMMANDS: Final = {
    "echo": "send back all data",
    "serve": "serve with a service, or with your own function",
    "forward": "forward connections to another address",
    "record": "forward connections, and record what crosses them",
    "recording": "show a recording",
    "replay": "play the server of a recording, or its client",
    "connect": "talk to a server, from a terminal or in a pipe",
    "wait": "wait until a server accepts connections",
    "limits": "show the system's limits on a process",
    "config": "check a file of options",
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
    if name != "config" and "--config" not in parser._option_string_actions:
        parser.add_argument("--config", metavar="FILE", help=argparse.SUPPRESS)
    parser.check_options(rest)
    layers = _layered(parser, name, rest)
    # What the command line leaves out comes from the layers below it.
    defaults = parser.take_defaults(layers)
    # Intermixed, so that an option may stand between two positional arguments.
    parser.parse_intermixed_args(rest, arguments)
    if layers is not None:
        layers.fill(arguments, defaults)
    return arguments


def _layered(parser: "_Parser", name: str, argv: Sequence[str]) -> "Layers | None":
    """What the environment and a file give; None if they give nothing."""
    path = _config_of(argv)
    if path is None:
        path = os.environ.get("RSOCK_CONFIG")
    if name == "config" or (path is None and not any(map(_is_ours, os.environ))):
        return None
    # A run with neither does not load this.
    from ._layers import File, Layers, all_options, environment, options

    layers = Layers(parser)
    problems = layers.add(environment(parser))
    known = options(parser)
    if path is not None:
        file = File(path, [each for each in COMMANDS if each != "config"])
        problems += layers.add(file.of(name, known))
        elsewhere = {name: known}
        if file.only_known_elsewhere(known) or set(file.owners()) - {name}:
            others = [each for each in COMMANDS if each not in (name, "config")]
            parsers = all_options(others, __package__)
            elsewhere |= {each: options(of) for each, of in parsers.items()}
        problems += file.unknown(elsewhere)
    if problems:
        raise UsageError(str(problems[0]))
    return layers


def _is_ours(variable: str) -> bool:
    return variable.startswith("RSOCK_")


def _config_of(argv: Sequence[str]) -> str | None:
    """The value of --config; the last one, as for other options."""
    found = None
    for word, following in itertools.zip_longest(argv, argv[1:]):
        if word == "--":
            break
        if word == "--config":
            found = following
        elif word.startswith("--config="):
            found = word.partition("=")[2]
    return found


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

    def take_defaults(self, layers: "Layers | None") -> dict[str, Any]:
        """Return the defaults by their destinations, and leave the parser without, for `layers`.

        An argument that the layers have can then be left out on the command line.
        """
        if layers is None:
            return {}
        defaults: dict[str, Any] = {}
        for action in self._actions:
            if action.default is not argparse.SUPPRESS:
                defaults.setdefault(action.dest, action.default)
                action.default = argparse.SUPPRESS
            if not action.option_strings and action.nargs is None and layers.given(action.dest):
                action.nargs, action.required = "?", False
        return defaults

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

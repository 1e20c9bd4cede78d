"""What several commands share of their arguments: options, types of values.

This file owns how a value is written. It must not know what a command does with it.
"""

import argparse
import functools
import math
import textwrap
from collections.abc import Callable
from typing import Any

from .._fault import Fault
from .._settings import Limits, SocketOptions
from . import _fields
from ._addresses import parsed
from ._errors import UsageError

__all__ = [
    "Addresses",
    "Print",
    "add_faults",
    "add_fields",
    "add_help_more",
    "add_more",
    "count",
    "descriptor",
    "seconds",
    "some_seconds",
]


def add_fields(parser: argparse.ArgumentParser, *kinds: type[Limits] | type[SocketOptions]) -> None:
    """Add an option for each field of these classes, and a line of help on all of them."""
    for kind in kinds:
        prefix = _fields.prefix(kind)
        _fields.add(parser, kind)
        parser.add_argument(
            f"--help-{prefix}",
            action=Print,
            text=functools.partial(_fields.explanation, kind),
            help=f"list the options --{prefix}-…, those of rsock.{kind.__name__}",
        )


def add_faults(parser: argparse.ArgumentParser) -> None:
    """Add the options of faults."""
    parser.add_argument(
        "--fault",
        dest="faults",
        type=_fault,
        action="extend",
        default=[],
        metavar="FAULT",
        help="disturb the traffic: latency:0.2 (see --help-fault)",
    )
    parser.add_argument(
        "--preset", dest="faults", type=_preset, action="extend", help=argparse.SUPPRESS
    )
    parser.add_argument("--seed", type=seed, metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--help-fault", action=Print, text=_explained, help=argparse.SUPPRESS)


# The options that `--help` has no room for, with what their help would be.
_MORE: dict[argparse.Action, str] = {}


def add_more(parser: argparse.ArgumentParser, *names: str, about: str, **settings: Any) -> None:
    """Add an option that `--help-more` lists, because `--help` has to fit a screen."""
    _MORE[parser.add_argument(*names, help=argparse.SUPPRESS, **settings)] = about


def add_help_more(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the option that lists those of `add_more`; `text` is its own help."""
    listed = functools.partial(_listed, parser)
    parser.add_argument("--help-more", action=Print, text=listed, help=text)


def _listed(parser: argparse.ArgumentParser) -> str:
    width = _fields.screen_width()
    lines = []
    for action in parser._actions:
        if action in _MORE:
            metavar = action.metavar
            if action.choices is not None:
                metavar = "|".join(action.choices)
            value = "" if action.nargs == 0 else f" {metavar}"
            if action.nargs == "?":
                value = f"[={metavar}]"
            lines.append(f"  {action.option_strings[0]}{value}")
            indent = " " * 6
            lines += textwrap.wrap(
                _MORE[action], width, initial_indent=indent, subsequent_indent=indent
            )
    return "\n".join(lines)


class Print(argparse.Action):
    """Print a text, which is made only now, and exit."""

    def __init__(
        self, option_strings: list[str], text: Callable[[], str], help: str | None, **_: object
    ) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)
        self._text = text

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(self._text())
        parser.exit()


class Addresses(argparse.Action):
    """Addresses, read together: a host and its port may have been typed as two words."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        _option: str | None = None,
    ) -> None:
        try:
            setattr(namespace, self.dest, parsed(values))
        except UsageError as error:
            parser.error(str(error))


# Types of values. Each raises ArgumentTypeError, which argparse turns into the error of a command.


def seconds(text: str) -> float:
    """Return a number of seconds, from 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    # Written this way because NaN compares as false with everything.
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0, not {text!r}")
    return number


def some_seconds(text: str) -> float:
    """Return a time-out of a socket, for which 0 would mean that calls do not wait."""
    number = seconds(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return number


def count(text: str) -> int:
    """Return a number from 1."""
    return _whole(text, 1)


def descriptor(text: str) -> int:
    """Return the number of a descriptor."""
    return _whole(text, 0)


def seed(text: str) -> int:
    """Return the seed of random numbers."""
    number = _whole(text, 0)
    if number >= 2**64:
        raise argparse.ArgumentTypeError(f"must be at most 2**64 - 1, not {text!r}")
    return number


# The module of faults is loaded for a command that names one.


def _fault(text: str) -> list[Fault]:
    from .. import faults

    try:
        return [faults.parse(text)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _preset(text: str) -> list[Fault]:
    from .. import faults

    try:
        return faults.preset(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _explained() -> str:
    from ._faults import explained

    return explained()


def _whole(text: str, lowest: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < lowest:
        raise argparse.ArgumentTypeError(f"must be a number from {lowest}, not {text!r}")
    return number

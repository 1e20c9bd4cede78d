"""Options for the fields of settings: `--limit-idle 30`, `--socket-nodelay off`.

This file owns the syntax of a field on the command line. Every field of `Limits` and
`SocketOptions` has an option, which its class's docstring explains; nothing here may name a field.
"""

import argparse
import contextlib
import inspect
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final, Literal

from .._settings import Limits, SocketOptions

__all__ = ["add", "explanation", "given", "prefix", "screen_width"]

_PREFIXES: Final[dict[type, str]] = {Limits: "limit", SocketOptions: "socket"}
_SWITCH: Final = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
_NONE: Final = "none"
# What each type is called. A type that is not here cannot be written on the command line.
_METAVARS: Final[dict[Any, str]] = {
    bool: "on|off",
    int: "N",
    float: "NUMBER",
    str: "TEXT",
    type(None): _NONE,
}


def screen_width() -> int:
    """Return the width of an explanation: the terminal's, within bounds that can be read."""
    return max(20, min(shutil.get_terminal_size().columns, 100) - 2)


def prefix(kind: type[Limits] | type[SocketOptions]) -> str:
    """Return the first word of the options of a class: `limit` or `socket`."""
    return _PREFIXES[kind]


def add(parser: argparse.ArgumentParser, kind: type[Limits] | type[SocketOptions]) -> None:
    """Add an option for each field. `--help` does not list them, because there are too many."""
    texts = _documented(kind)
    for name, hint in typing.get_type_hints(kind).items():
        metavar = _metavar(hint, texts[name])
        parser.add_argument(
            _option(kind, name),
            dest=_destination(kind, name),
            type=_reader(kind, name, hint, metavar),
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
            metavar=metavar,
        )


def given(arguments: argparse.Namespace, kind: type[Limits] | type[SocketOptions]) -> Any:
    """Return an object of the class with the given options. Raises what the class raises."""
    found = {each.name: _destination(kind, each.name) for each in fields(kind)}
    values = vars(arguments)
    return kind(**{name: values[key] for name, key in found.items() if key in values})


def explanation(kind: type[Limits] | type[SocketOptions]) -> str:
    """Return a text for the screen with the meaning and the default of each option."""
    hints = typing.get_type_hints(kind)
    defaults = {each.name: each.default for each in fields(kind)}
    width = screen_width()
    lines = []
    for name, text in _documented(kind).items():
        default = _spelled(defaults[name])
        lines.append(f"  {_option(kind, name)} {_metavar(hints[name], text)}  [{default}]")
        lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _option(kind: type, name: str) -> str:
    return f"--{_PREFIXES[kind]}-{name.replace('_', '-')}"


def _destination(kind: type, name: str) -> str:
    return f"{_PREFIXES[kind]}_{name}"


# `name: meaning`, over one line or more, as in the docstrings of the two classes.
_ENTRY: Final = re.compile(r"^(?P<name>\w+): (?P<text>.*(?:\n {4}.*)*)", re.M)
_START: Final = re.compile(r"\. ")
# Python's constants in these texts, which are replaced by the words of the command line.
_VALUES: Final = {"None": None, "True": True, "False": False}
_VALUE: Final = re.compile(r"\b(?:None|True|False)\b")


def _documented(kind: type) -> dict[str, str]:
    """The fields that the class explains, with the first sentence of each explanation."""
    texts = {
        entry["name"]: _START.split(" ".join(entry["text"].split()))[0].removesuffix(".")
        for entry in _ENTRY.finditer(inspect.getdoc(kind) or "")
    }
    return {
        each.name: _VALUE.sub(lambda word: _spelled(_VALUES[word[0]]), texts[each.name])
        for each in fields(kind)
        if each.name in texts
    }


# How a value is written.


def _reader(kind_of_field: Any, name: str, hint: Any, metavar: str) -> Callable[[str], object]:
    kinds = set(_kinds(hint))
    optional = type(None) in kinds
    # Of a field that takes several types, a text is what the command line has.
    accepted = [str] if str in kinds else [kind for kind in _kinds(hint) if kind is not type(None)]

    def checked(value: object) -> object:
        """The value, if the class takes it."""
        try:
            kind_of_field(**{name: value})
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return value

    def read(text: str) -> object:
        if optional and text == _NONE:
            return None
        for kind in accepted:
            with contextlib.suppress(KeyError, ValueError):
                return checked(_value(kind, text))
        raise argparse.ArgumentTypeError(f"must be {metavar}, not {text!r}")

    return read


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _is_numbers(kind: Any) -> bool:
    """Whether this is a tuple of ints."""
    return typing.get_origin(kind) is tuple and set(typing.get_args(kind)) == {int}


def _value(kind: Any, text: str) -> object:
    if _is_numbers(kind):
        # "60,10,5"
        parts = zip(typing.get_args(kind), text.split(","), strict=True)
        return tuple(_value(part, word) for part, word in parts)
    if kind is bool:
        return _SWITCH[text.lower()]
    if kind is int:
        # 0o600 and 0x10 as well as 65536 and 65_536; and 0600 as in chmod(1).
        return int(text, 8 if text.startswith("0") and text.isdigit() else 0)
    if kind is float:
        return float(text)
    # One of several words, which the class checks.
    return text


def _metavar(hint: Any, text: str) -> str:
    """What a value is called; `text` explains the field."""
    words: list[str] = []
    for kind in _kinds(hint):
        if typing.get_origin(kind) is Literal:
            words += typing.get_args(kind)
        elif _is_numbers(kind):
            words.append(",".join("N" for _ in typing.get_args(kind)))
        elif kind is float and "seconds" in text:
            words.append("SECONDS")
        elif kind in _METAVARS:
            words.append(_METAVARS[kind])
    return "|".join(words)


def _spelled(value: object) -> str:
    if value is None:
        return _NONE
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)

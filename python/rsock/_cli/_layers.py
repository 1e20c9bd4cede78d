"""Options that do not stand on the command line: those of the environment and of a TOML file.

The names come from the parser of a command: `--limit-idle` is RSOCK_LIMIT_IDLE and `limit-idle`.
Nothing here may name an option. A value is read as the command line reads it.
"""

import argparse
import importlib
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

from . import _meant
from ._errors import Failure, UsageError, message

__all__ = ["File", "Layers", "Problem", "all_options", "environment", "named", "options"]

_ON: Final = frozenset({"on", "yes", "true", "1"})
_OFF: Final = frozenset({"off", "no", "false", "0"})
_HEADER: Final = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?")
_KEY: Final = re.compile(r"\s*([\w.\"' -]+?)\s*=")
# Those that concern the other sources only.
_APART: Final = frozenset({"config"})


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a value: where it stands, as its author would find it, and the reason."""

    where: str
    reason: str = ""
    # Its line in a file, for sorting.
    line: int = 0

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the options and arguments of a command by their keys in a file: `limit-idle`."""
    found = {}
    for action in parser._actions:
        # Of those without a value, only switches mean something outside of the command line.
        if action.nargs == 0 and not isinstance(action, argparse._StoreConstAction):
            continue
        long = [word for word in action.option_strings if word.startswith("--")]
        key = long[0][2:] if long else action.dest
        if key not in _APART:
            found[key] = action
    return found


def named(key: str) -> str:
    """Return the environment variable of an option."""
    return f"RSOCK_{key.upper().replace('-', '_')}"


class Layers:
    """The values of a command from the environment and from a file, by their destinations."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        # The layers, the one that counts most first.
        self._layers: list[dict[str, Any]] = []

    def add(self, source: Mapping[str, tuple[Problem, Any]]) -> list[Problem]:
        """Add a layer, below the others; return what is wrong with its values.

        `source` has each key with its place, as a Problem without a reason, and its value.
        """
        scratch = argparse.Namespace()
        known = options(self._parser)
        problems = []
        places: dict[str, Problem] = {}
        for key, (place, value) in source.items():
            try:
                _read(self._parser, scratch, known[key], value)
            except (argparse.ArgumentError, argparse.ArgumentTypeError, UsageError) as error:
                text = getattr(error, "message", None) or str(error).partition("\nTry '")[0]
                problems.append(replace(place, reason=text))
            places[known[key].dest] = place
        layer = vars(scratch)
        for group in self._parser._mutually_exclusive_groups:
            members = [each.dest for each in group._group_actions if layer.get(each.dest)]
            if len(members) > 1:
                reason = f"not allowed with {members[0]}"
                problems.append(replace(places[members[1]], reason=reason))
        self._layers.append(layer)
        return problems

    def given(self, dest: str) -> bool:
        """Whether a layer has a value for a destination."""
        return any(dest in layer for layer in self._layers)

    def fill(self, arguments: argparse.Namespace, defaults: Mapping[str, Any]) -> None:
        """Give `arguments` what the command line left out, from the layers or the defaults."""
        values = vars(arguments)
        above = dict(values)
        for layer in self._layers:
            for dest, value in layer.items():
                if dest not in values and not self._is_excluded(dest, above):
                    values[dest] = value
            above = dict(values)
        for dest, value in defaults.items():
            values.setdefault(dest, value)

    def _is_excluded(self, dest: str, above: Mapping[str, Any]) -> bool:
        """Whether a layer above has another member of the group of a destination."""
        for group in self._parser._mutually_exclusive_groups:
            members = [each.dest for each in group._group_actions]
            if dest in members and any(above.get(each) for each in members if each != dest):
                return True
        return False


def environment(parser: argparse.ArgumentParser) -> dict[str, tuple[Problem, Any]]:
    """Return the values of a command that are in the environment.

    Other variables that begin with RSOCK_ are not looked at: Kubernetes sets RSOCK_PORT and others
    for a service of this name.
    """
    return {
        key: (Problem(named(key)), text)
        for key in options(parser)
        if (text := os.environ.get(named(key))) is not None
    }


class File:
    """The options of a TOML file. Raises Failure if it cannot be read, UsageError if it is none.

    A table that has the name of a command holds options of this command, which count more than
    those outside. Any other table is the beginning of a name: `idle` in `[limit]` is `limit-idle`.
    """

    def __init__(self, path: str, commands: Sequence[str]) -> None:
        self.path = path
        self._commands = commands
        try:
            with open(path, "rb") as file:
                self._text = file.read().decode()
            found = tomllib.loads(self._text)
        except OSError as error:
            raise Failure(message(error)) from None
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}: not UTF-8 at byte {error.start}") from None
        except tomllib.TOMLDecodeError as error:
            raise UsageError(_of_toml(path, error)) from None
        # Command (None for all), key, path of the key in the file, value.
        self._entries: list[tuple[str | None, str, tuple[str, ...], Any]] = []
        for name, value in found.items():
            if name in commands and isinstance(value, dict):
                self._entries += [(name, *each) for each in _flat(value, (name,), 1)]
            else:
                self._entries += [(None, *each) for each in _flat({name: value}, (), 0)]

    def __len__(self) -> int:
        return len(self._entries)

    def of(self, command: str, known: Mapping[str, object]) -> dict[str, tuple[Problem, Any]]:
        """Return the options of a command."""
        found = {}
        for own in (None, command):
            for owner, key, path, value in self._entries:
                if owner == own and key in known:
                    found[key] = self._place(path), value
        return found

    def unknown(self, known: Mapping[str, Mapping[str, object]]) -> list[Problem]:
        """Return the keys that their command does not have, or that no command has."""
        problems = []
        every = {key for keys in known.values() for key in keys}
        for owner, key, path, _ in self._entries:
            names = every if owner is None else known[owner]
            if key in names:
                continue
            meant = _meant.hint(key, names)
            what = f"no option {'of any command' if owner is None else f'of {owner}'}"
            hint = f"; did you mean {meant}?" if meant else ""
            problems.append(replace(self._place(path), reason=f"{what}{hint}"))
        return problems

    def owners(self) -> list[str]:
        """Return the commands that the file has a table for."""
        return [name for name in self._commands if any(name == each[0] for each in self._entries)]

    def only_known_elsewhere(self, known: Mapping[str, object]) -> bool:
        """Whether it has keys for all commands that are none of `known`."""
        return any(owner is None and key not in known for owner, key, _, _ in self._entries)

    def _place(self, path: tuple[str, ...]) -> Problem:
        line = _line(self._text, path)
        key = ".".join(path)
        if line is None:
            return Problem(f"{self.path}: {key}")
        return Problem(f"{self.path}:{line}: {key}", line=line)


def all_options(commands: Sequence[str], package: str) -> dict[str, argparse.ArgumentParser]:
    """Return a parser of each command that takes options."""
    parsers: dict[str, argparse.ArgumentParser] = {}
    for name in commands:
        module = importlib.import_module(f"._{name}", package)
        parsers[name] = _Parser(f"rsock {name}", add_help=False)
        module.add_arguments(parsers[name])
    return parsers


class _Parser(argparse.ArgumentParser):
    """A parser whose options are read one by one."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _flat(
    table: Mapping[str, Any], path: tuple[str, ...], skipped: int
) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """The values of a table with their keys and paths; nested tables are parts of the keys."""
    for name, value in table.items():
        here = (*path, name)
        if isinstance(value, dict):
            yield from _flat(value, here, skipped)
        else:
            yield "-".join(here[skipped:]).replace("_", "-"), here, value


def _read(
    parser: argparse.ArgumentParser,
    namespace: argparse.Namespace,
    action: argparse.Action,
    value: Any,
) -> None:
    """Set what an option means, as if it stood on the command line with this value."""
    if action.nargs == 0:
        on = value if isinstance(value, bool) else _switch(value)
        if on:
            action(parser, namespace, [], None)
        else:
            setattr(namespace, action.dest, False)
        return
    if action.nargs == "?" and action.option_strings and isinstance(value, bool):
        # An option that may stand alone.
        setattr(namespace, action.dest, action.const if value else None)
        return
    appends = isinstance(action, argparse._AppendAction)
    if appends or action.nargs == "*":
        texts = value if isinstance(value, list) else shlex.split(_text(value))
        values = [parser._get_value(action, _text(each)) for each in texts]
        for each in values if appends else [values]:
            action(parser, namespace, each, None)
        return
    read = parser._get_value(action, _text(value))
    parser._check_value(action, read)
    action(parser, namespace, read, None)


def _switch(value: object) -> bool:
    word = str(value).lower()
    if word not in _ON | _OFF:
        raise argparse.ArgumentTypeError(f"must be on or off, not {value!r}")
    return word in _ON


def _text(value: object) -> str:
    """A value as it would be typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str | int | float):
        return str(value)
    raise argparse.ArgumentTypeError(f"must be a text, a number or a boolean, not {value!r}")


def _line(text: str, path: tuple[str, ...]) -> int | None:
    """The line on which a key stands; None if it is written in a way that this does not know."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.fullmatch(line)
        if header is not None:
            table = _parts(header[1])
            continue
        key = _KEY.match(line)
        if key is not None:
            here = (*table, *_parts(key[1]))
            # Also the line of an inline table that has the key.
            if here == path or ("{" in line and here == path[: len(here)]):
                return number
    return None


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))


def _of_toml(path: str, error: tomllib.TOMLDecodeError) -> str:
    # Python says "Invalid value (at line 3, column 5)".
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error), re.DOTALL)
    return f"{path}:{found[2]}: {found[1]}" if found else f"{path}: {error}"

"""What `rsock serve` can serve: services by name, and functions from modules.

There is no list here: a service is known as soon as `rsock` exports it. The text that was typed
must never be evaluated; only literals and other services can be arguments of a service.
"""

import ast
import functools
import importlib
import inspect
import os
import re
import sys
import textwrap
import traceback
from types import ModuleType
from typing import Any, Final

import rsock

from . import _meant
from ._errors import Failure, UsageError
from ._fields import screen_width

__all__ = ["explained", "find", "known"]

# Services whose arguments are not literals, but functions or classes, and `Accept`, which needs a
# program that takes each connection.
_NEED_PYTHON: Final = frozenset({"Accept", "AsyncioProtocol", "Handler"})
# `line-echo`, `LineEcho(quit=b"bye")`
_CALL: Final = re.compile(r"(?P<name>[A-Za-z][\w-]*)\s*(?P<arguments>\(.*\))?", re.DOTALL)
_FUNCTION: Final = re.compile(r"(?P<module>[\w.]+):(?P<path>[\w.]+)")


@functools.cache
def known() -> dict[str, type[rsock.Service]]:
    """Return the services that can be named, in alphabetical order."""
    exported = ((name, getattr(rsock, name)) for name in sorted(rsock.__all__))
    return {
        name: value
        for name, value in exported
        if isinstance(value, type)
        and issubclass(value, rsock.Service)
        and value is not rsock.Service
        and name not in _NEED_PYTHON
    }


def explained() -> str:
    """Return a text that lists them as they are typed, each with the first sentence about it."""
    width = screen_width()
    lines = []
    for name, kind in known().items():
        lines.append(f"  {name}{_signature(kind)}")
        text = re.split(r"\.\s", f"{kind.__doc__ or ''} ", maxsplit=1)[0]
        lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _signature(kind: type[rsock.Service]) -> str:
    text = str(inspect.signature(kind))
    return "" if text == "()" else text


def find(text: str) -> Any:
    """Make the service that `text` names, or find the function.

    Raises UsageError if there is no such service or function, and Failure for a module that cannot
    be imported.
    """
    function = _FUNCTION.fullmatch(text)
    if function is not None:
        _check_module(text, function["module"])
        return _imported(function["module"], function["path"])
    call = _CALL.fullmatch(text)
    if call is None:
        raise UsageError(
            f"service {text!r}: neither a name, nor a call such as 'Greeting(\"hello\")', nor"
            f" MODULE:FUNCTION{_function_meant(text)}"
        )
    kind = _kind(call["name"])
    if call["arguments"] is None:
        return _made(kind, [], {})
    try:
        return _called(kind, _parsed(text, f"service{call['arguments']}"))
    except (MemoryError, RecursionError):
        # From the parser, or from the functions below, for deeply nested text.
        raise UsageError(f"service {text[:60]!r}…: too complicated") from None


def _parsed(text: str, call: str) -> ast.expr:
    try:
        return ast.parse(call, mode="eval").body
    except (SyntaxError, ValueError) as error:
        problem = error.msg if isinstance(error, SyntaxError) else error
        raise UsageError(f"service {text!r}: {problem}") from None


# Services in Rust.


def _kind(name: str) -> type[rsock.Service]:
    def plain(name: str) -> str:
        return re.sub("[-_]", "", name).lower()

    kinds = {plain(each): kind for each, kind in known().items()}
    kind = kinds.get(plain(name))
    if kind is None:
        raise UsageError(
            f"no service {name!r}; there {'is' if len(kinds) == 1 else 'are'}"
            f" {', '.join(known())}{_similar(name, list(known()))};"
            f" your own function is MODULE:FUNCTION{_function_meant(name)}"
        )
    return kind


def _called(kind: type[rsock.Service], node: ast.expr) -> rsock.Service:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise UsageError(f"{kind.__name__}: its arguments are followed by something else")
    values = [_value(each) for each in node.args]
    named = {each.arg: _value(each.value) for each in node.keywords if each.arg is not None}
    if len(named) < len(node.keywords):
        raise UsageError(f"{kind.__name__}: ** has no meaning here")
    return _made(kind, values, named)


def _value(node: ast.expr) -> Any:
    """A literal, or a service among the arguments of another."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _called(_kind(node.func.id), node)
    if isinstance(node, ast.Name):
        return _made(_kind(node.id), [], {})
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise UsageError(
            f'argument {ast.unparse(node)!r}: neither a literal, such as 5 or "text", nor a service'
        ) from None


def _made(kind: type[rsock.Service], values: list[Any], named: dict[str, Any]) -> rsock.Service:
    make: Any = kind
    try:
        made: rsock.Service = make(*values, **named)
    except (TypeError, ValueError, OverflowError) as error:
        # Python says `Greeting.__new__() missing 1 required positional argument: 'message'`.
        problem = str(error).removeprefix(f"{kind.__name__}.__new__() ")
        call = f"{kind.__name__}{_signature(kind) or '()'}"
        raise UsageError(f"service {kind.__name__}: {problem}; it is called {call}") from None
    return made


# Functions.


def _imported(module_name: str, path: str) -> Any:
    found: Any = _module(module_name)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            members = vars(found).items()
            public = [
                each
                for each, value in members
                if not each.startswith("_") and not isinstance(value, ModuleType)
            ]
            where = getattr(found, "__file__", None)
            raise UsageError(
                f"{module_name} has no {name!r}{_similar(name, public)}"
                f"{f' (it is {where})' if where else ''}"
            ) from None
    return found


def _module(name: str) -> ModuleType:
    # As with `python -m`: the directory of the script that started us is another one.
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"no module {error.name!r} in {here}, nor among the installed ones"
            ) from None
        raise _broken(name, error) from None
    except Exception as error:
        raise _broken(name, error) from None


def _check_module(text: str, module: str) -> None:
    """Raise UsageError for the name of a file, where a module is meant: `app.py:shout`."""
    meant = _function_meant(text) if module.endswith(".py") else ""
    if meant:
        raise UsageError(f"service {text!r}: {module} is a file, not a module{meant}")


def _function_meant(text: str) -> str:
    """What was meant by the name of a module without its function: `app`, `app.py`, `app.shout`.

    It looks at files of the current directory, and imports nothing.
    """
    where, _, function = text.partition(":")
    dotted = where.removeprefix("./").removesuffix(".py").replace("/", ".").strip(".")
    parent, _, last = dotted.rpartition(".")
    for module, name in ((dotted, function), (parent, last)):
        functions = _functions(module) if module else None
        if functions is None:
            continue
        names = [name] if name in functions else functions[:3] or ["FUNCTION"]
        return f"; did you mean {' or '.join(f'{module}:{each}' for each in names)}?"
    return ""


def _functions(module: str) -> list[str] | None:
    """The public functions of a module of the current directory; None if there is no such file."""
    path = os.path.join(*module.split("."))
    for file in (f"{path}.py", os.path.join(path, "__init__.py")):
        try:
            with open(file, "rb") as source:
                tree = ast.parse(source.read())
        except OSError:
            continue
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []
        return [
            each.name
            for each in tree.body
            if isinstance(each, ast.FunctionDef) and not each.name.startswith("_")
        ]
    return None


def _broken(name: str, error: Exception) -> Failure:
    """The error of a module, with only the frames of its author's code."""
    frames = error.__traceback__
    while frames is not None and _is_machinery(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    return Failure(f"module {name!r} cannot be imported:\n{text}")


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or filename in (__file__, importlib.__file__)


def _similar(name: str, among: list[str]) -> str:
    meant = _meant.hint(name, among)
    return f"; did you mean {meant}?" if meant else ""

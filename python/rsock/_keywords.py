"""The names of keyword arguments: what was meant by one that a call does not have.

It must load nothing before there is such an error.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, TypeVar

__all__ = ["explained", "unknown", "unknown_of"]

_Class = TypeVar("_Class", bound=type[Any])


def unknown(called: str, name: str, known: Iterable[str]) -> TypeError:
    """Return the error for a keyword that a call does not have, with the one that was meant."""
    import difflib

    names = [each for each in known if not each.startswith("_")]
    plain = {each.replace("_", ""): each for each in names}
    close = difflib.get_close_matches(name.replace("_", "").lower(), plain, n=1)
    if close:
        hint = f"; did you mean {plain[close[0]]!r}?"
    else:
        hint = f"; it has {', '.join(names)}" if names else "; it has none"
    return TypeError(f"{called}() got an unexpected keyword argument {name!r}{hint}")


def unknown_of(kind: type, name: str) -> TypeError:
    """Return the same error for the constructor of a class, by the signature that it shows."""
    import inspect

    return unknown(kind.__name__, name, inspect.signature(kind).parameters)


def explained(kind: _Class) -> _Class:
    """Let a dataclass say what was meant by a keyword that it does not have."""
    make: Callable[..., None] = kind.__init__
    given = {field.name: field.kw_only for field in fields(kind) if field.init}
    # The fields of the class itself come before those of its bases.
    own = [name for name in kind.__annotations__ if name in given]
    known = own + [name for name in given if name not in own]
    keywords_only = all(given.values())

    @functools.wraps(make)
    def __init__(self: object, /, *values: object, **named: Any) -> None:  # noqa: N807
        if values and keywords_only and known:
            raise TypeError(
                f"{kind.__name__}() takes keywords only, such as {known[0]}=…; it was called with"
                f" {values[0]!r:.80}"
            )
        for name in named:
            if name not in known:
                raise unknown(kind.__name__, name, known)
        make(self, *values, **named)

    kind.__init__ = __init__
    return kind

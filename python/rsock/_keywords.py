"""The names of keyword arguments: what was meant by one that a call does not have.

It must load nothing before there is such an error.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, Final, TypeVar

__all__ = ["explained", "unknown", "unknown_of"]

_Class = TypeVar("_Class", bound=type[Any])
# Names from elsewhere, and what to write instead where the call has that keyword.
_HABITS: Final = {
    "callback": "service=…",
    "function": "service=…",
    "handler": "service=…",
    "context": "tls=…",
    "ssl": "tls=…",
    "ssl_context": "tls=…",
    "connections": "limits=Limits(connections=…)",
    "handler_threads": "limits=Limits(handler_threads=…)",
    "idle": "limits=Limits(idle=…)",
    "idle_timeout": "limits=Limits(idle=…)",
    "max_connections": "limits=Limits(connections=…)",
    "max_threads": "limits=Limits(handler_threads=…)",
    "timeout": "limits=Limits(idle=…)",
    "backlog": "options=SocketOptions(backlog=…)",
    "keepalive": "options=SocketOptions(keepalive=…)",
    "nodelay": "options=SocketOptions(nodelay=…)",
}


def unknown(called: str, name: str, known: Iterable[str]) -> TypeError:
    """Return the error for a keyword that a call does not have, with the one that was meant."""
    names = [each for each in known if not each.startswith("_")]
    meant = _meant(name, names)
    if meant:
        hint = f"; did you mean {meant}?"
    else:
        hint = f"; it has {', '.join(names)}" if names else "; it has none"
    return TypeError(f"{called}() got an unexpected keyword argument {name!r}{hint}")


def _meant(name: str, names: list[str]) -> str | None:
    """The keyword that is almost spelled so, is meant by a habit, is part of it, or is like it."""
    import difflib

    plain = {each.replace("_", ""): each for each in names}
    word = name.replace("_", "").lower()
    close = difflib.get_close_matches(word, plain, n=1, cutoff=0.8)
    if not close:
        instead = _HABITS.get(name.lower(), "")
        if instead.partition("=")[0] in names:
            return instead
        # `write_timeout` is `write`, however many letters it has in common with `lifetime`.
        close = [part for part in name.lower().split("_") if part in plain]
    close = close or difflib.get_close_matches(word, plain, n=1)
    return repr(plain[close[0]]) if close else None


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

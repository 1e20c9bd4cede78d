"""Which objects can be a handler.

This file owns the rules and their messages: each names what was passed and what to pass instead.
A check must never call the function, nor import a module in order to recognize its classes.
"""

import functools
import inspect
import sys
from collections.abc import Callable

from ._rsock import Service

__all__ = ["check", "check_arity", "shown"]

# The transports of which each message is a call.
_DATAGRAMS = ("udp", "unix-datagram")


def check(function: object) -> None:
    """Raise TypeError for an object that cannot be a handler on any transport."""
    name = getattr(function, "__qualname__", None) or repr(function)
    if isinstance(function, type):
        raise TypeError(_class_refused(function, name))
    if not callable(function):
        raise TypeError(
            f"service is of type {type(function).__name__}, which is no service; give one such as "
            f"Echo(), a function of one connection, or None for Echo(): {shown(function)}"
        )
    if _is_async(function):
        raise TypeError(
            f"service is the coroutine function {name}; a handler is a plain function, "
            f"def {name.rpartition('.')[2]}(conn), which may block: it has a thread of its own"
        )
    if inspect.isgeneratorfunction(function):
        raise TypeError(
            f"service is the generator function {name}, whose call runs nothing of it; a handler "
            f"is a plain function of one connection"
        )
    refused = _refused(function, 1)
    if refused and _refused(function, 2):
        raise TypeError(_arity_refused(function, "tcp", refused))


def check_arity(function: Callable[..., object], transport: str) -> None:
    """Raise TypeError for a handler that cannot be called with the arguments of the transport."""
    refused = _refused(function, 2 if transport in _DATAGRAMS else 1)
    if refused:
        raise TypeError(_arity_refused(function, transport, refused))


def shown(value: object) -> str:
    """Return the repr of a value, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _refused(function: Callable[..., object], arguments: int) -> str | None:
    """Why a function cannot be called with this number of arguments; None if it can."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None  # Unknown, as for some functions in C: the first call will show it.
    try:
        signature.bind(*(None,) * arguments)
    except TypeError as error:
        return str(error)
    return None


def _arity_refused(function: Callable[..., object], transport: str, why: str) -> str:
    name = getattr(function, "__qualname__", None) or repr(function)
    called = "with one argument, the connection"
    if transport in _DATAGRAMS:
        called = "on UDP with two arguments, the data and the sender's address"
    return (
        f"service is the function {name}{inspect.signature(function)}; a handler is called "
        f"{called} ({why}); bind others with functools.partial or a lambda"
    )


def _class_refused(kind: type, name: str) -> str:
    if issubclass(kind, Service):
        return f"service is the class {name}; give an object of it: {name}()"
    # Looked up in `sys.modules`: a subclass of these cannot exist before the module is imported.
    for module, base, instead in (
        (
            "socketserver",
            "BaseRequestHandler",
            "write its handle() as a function of one connection, which has recv and sendall",
        ),
        (
            "asyncio",
            "BaseProtocol",
            "protocols of asyncio are not built yet; write a function of one connection",
        ),
    ):
        loaded = sys.modules.get(module)
        if loaded is not None and issubclass(kind, getattr(loaded, base, ())):
            return f"service is the class {name}, a {module}.{base}; {instead}"
    return (
        f"service is the class {name}, which is no service; give an object of one, such as Echo(), "
        f"or a function of one connection"
    )


def _is_async(function: Callable[..., object]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    call = getattr(function, "__call__", None)  # noqa: B004
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (function, call)
    )

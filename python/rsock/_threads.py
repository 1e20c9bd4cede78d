"""Threads that run Python code of this package, with the locks between them.

This file owns how such a thread is started: it is a thread of the system, also where a library has
replaced the functions of `_thread` by green ones, and no signal handler interrupts its start.
Nothing here may take a lock of `threading` on a thread where a signal handler may run: an exception
of the handler would leave the lock in doubt.
"""

import _thread
import contextlib
import os
import sys
import threading
from _queue import Empty, SimpleQueue
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any, Final

from ._exceptions import StateError

__all__ = [
    "get_ident",
    "log_turn",
    "on_main_thread",
    "reentrant_lock",
    "start_thread",
    "undisturbed",
]

# How often a call looks whether it runs in a forked child.
_LOOK: Final = 0.1

# As they are now: a library may replace them later.
_FOUND: Final[dict[str, Any]] = {
    "start_new_thread": _thread.start_new_thread,
    "get_ident": _thread.get_ident,
}


def start_thread(name: str, body: Callable[[], None]) -> None:
    """Start a daemon thread of the system. Raises RuntimeError if the system has none.

    Must run on a thread without signal handlers, which `undisturbed` provides.
    """
    if _is_patched():
        # `threading.Thread` would start a green thread, and waits by green locks.
        _original("start_new_thread")(body, ())
    else:
        threading.Thread(target=body, name=name, daemon=True).start()


def undisturbed(call: Callable[[], None]) -> None:
    """Run `call` on a thread that no signal handler runs on, and wait for its end.

    Raises what it raises. An exception of a signal handler ends the wait, and not the call.
    """
    outcome: SimpleQueue[BaseException | None] = SimpleQueue()

    def run() -> None:
        try:
            call()
        except BaseException as error:
            outcome.put(error)
        else:
            outcome.put(None)

    _original("start_new_thread")(run, ())
    process = os.getpid()
    while True:
        try:
            error = outcome.get(timeout=_LOOK)
            break
        except Empty:
            # A signal handler may have forked. The child has no thread that would answer.
            if os.getpid() != process:
                raise StateError(
                    f"process {os.getpid()} was forked from process {process} while a server "
                    f"started there; only that process can use the server"
                ) from None
    if error is not None:
        try:
            raise error
        finally:
            # Otherwise the traceback and this frame would keep each other alive.
            del error


def get_ident() -> int:
    """Return the number of the calling thread of the system."""
    ident: int = _original("get_ident")()
    return ident


def on_main_thread() -> bool:
    """Whether signal handlers run on the calling thread, also for a green thread on it."""
    # The thread that forks is the main thread of the child, where `main_thread()` may still have
    # the number of the parent's.
    return threading.get_native_id() in (os.getpid(), threading.main_thread().native_id)


def reentrant_lock() -> threading.RLock:
    """Return a new lock for threads of the system. Never raises."""
    # Not `threading.RLock`: a green lock wakes a thread through loops that may not run.
    return _thread.RLock()


def log_turn() -> contextlib.AbstractContextManager[object]:
    """Return what a thread enters while it logs. Never raises."""
    # The locks of `logging` are green then. Two threads of the system that wait for the same one
    # may wait for ever.
    return _log_lock if _is_patched() else contextlib.nullcontext()


def _renew_log_lock() -> None:
    global _log_lock
    _log_lock = reentrant_lock()


def _is_patched() -> bool:
    return not isinstance(_thread.start_new_thread, BuiltinFunctionType)


def _original(name: str) -> Callable[..., Any]:
    """A function of `_thread` as the interpreter has it."""
    found: Callable[..., Any] = getattr(_thread, name)
    if not isinstance(found, BuiltinFunctionType):
        found = _FOUND[name]
    if isinstance(found, BuiltinFunctionType):
        return found
    # The library was there before this package.
    gevent, eventlet = (sys.modules.get(each) for each in ("gevent.monkey", "eventlet.patcher"))
    originals: list[Any] = []
    if gevent is not None:
        originals.append(gevent.get_original("_thread", name))
    if eventlet is not None:
        originals.append(getattr(eventlet.original("_thread"), name))
    for original in originals:
        if isinstance(original, BuiltinFunctionType):
            return original
    raise StateError(
        f"_thread.{name} was replaced by {found.__module__}.{name}: handlers need threads of the "
        f"system; import rsock before the patch, or leave threads out of it"
    )


_log_lock = reentrant_lock()
# A thread that a forked child does not have may hold it.
os.register_at_fork(after_in_child=_renew_log_lock)

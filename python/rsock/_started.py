"""The servers of this process that were started, in order.

The references are weak: this list must never keep a server alive. A forked child starts with an
empty list.
"""

import os
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Final

from ._rsock import Server

__all__ = ["end_handlers", "enter", "entered"]

# How many seconds the exit of the interpreter waits for the last lines of the log.
_LAST_LINES: Final = 0.3

# By id(), in the order of a dict. Each operation on it is a single one of the interpreter's, so it
# needs no lock, which a fork could copy in its locked state.
_started: weakref.WeakValueDictionary[int, Server] = weakref.WeakValueDictionary()
# Called with each server before it starts, where its counters are read.
on_enter: Callable[[Server], None] | None = None


def enter(server: Server) -> None:
    """Add a server at the end of the list."""
    # An entry from an earlier start that failed would keep its old position.
    _started.pop(id(server), None)
    _started[id(server)] = server
    if on_enter is not None:
        on_enter(server)


def entered() -> Iterator[Server]:
    """Yield the servers that were entered and still exist, in whatever state."""
    for reference in _started.valuerefs():
        server = reference()
        if server is not None:
            yield server


def end_handlers() -> None:
    """End the handlers that did not return in time; called when the interpreter exits.

    A handler that runs Python code gets to its `finally`; one that is blocked in a system call
    does not. The last lines of the log "rsock.connections" get a moment as well.
    """
    servers = list(entered())
    for server in servers:
        handlers = server._handlers
        if handlers is not None:
            handlers.end_threads()
    end = time.monotonic() + _LAST_LINES
    for server in servers:
        progress = getattr(server, "_progress", None)
        if progress is not None:
            progress.join(max(0.0, end - time.monotonic()))


def _forget_parent() -> None:
    global _started
    _started = weakref.WeakValueDictionary()


os.register_at_fork(after_in_child=_forget_parent)

"""The threads that run handlers.

They are ordinary daemon threads of Python: a handler's stack has no frame of the engine. While a
thread waits for a connection it holds a weak reference to its server and no other, so that a server
without other references can be collected. Nothing here may touch a socket except through its
methods, and nothing may print.
"""

import contextvars
import functools
import itertools
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from . import _rsock
from ._handler_check import check as check  # Looked up here by the compiled module, as is the next.
from ._handler_check import check_arity as check_arity
from ._handler_check import shown
from ._handler_errors import HandlerErrors, report_broken_log, warn
from ._threads import get_ident, start_thread, undisturbed

__all__ = ["Handlers"]

# How long the exit of the interpreter waits for handlers after it has asked them to end.
_EXIT: Final = 0.1
# How often it looks whether they have ended.
_LOOK: Final = 0.002


class Handlers:
    """The handler threads of one server, with the errors that they reported.

    `on_error` is "log", "raise", or a function of one exception.

    There is no lock: a signal handler, a finalizer that the garbage collector runs, or a forked
    child may call any method while another call of the same thread is in the middle of one. Each
    change is a single operation of the interpreter.
    """

    def __init__(self, on_error: str | Callable[[BaseException], object]) -> None:
        self.errors: Final = HandlerErrors(on_error)
        # The threads that serve, by their numbers.
        self._threads: dict[int, None] = {}
        self._numbers = itertools.count()
        self._missing = False
        # Those that are being served, by their numbers.
        self.connections: Final[dict[int, Any]] = {}

    def start_first_thread(self, pool: _rsock.Pool, server: "weakref.ref[_rsock.Server]") -> None:
        """Start the first thread of the pool. Raises RuntimeError if the system has none."""
        undisturbed(lambda: self.start_thread(pool, server))

    def start_thread(self, pool: _rsock.Pool, server: "weakref.ref[_rsock.Server]") -> None:
        """Start a thread if the pool needs one. Raises RuntimeError if the system has none.

        Must run on a thread without signal handlers.
        """
        if not pool.wants_thread():
            return
        name = f"rsock-handler-{next(self._numbers)}"
        # Two may take the pool out of the list: the new thread, or this one if the start fails.
        # `list.pop` is one step of the interpreter, so exactly one of them gets it.
        offered = [pool]
        try:
            start_thread(name, lambda: _run(offered, server, name))
        except BaseException:
            # The thread may be running all the same; then it has the pool.
            if _taken(offered):
                pool.missing()
            raise
        self._missing = False

    def warn_of_missing(self, server: _rsock.Server, error: Exception) -> None:
        """Warn that the system refuses threads, once until it provides one again. Never raises."""
        # A program that ends gets no thread any more (from 3.12 on), which is no fault of it: the
        # stop at its exit follows.
        if self._missing or "interpreter shutdown" in str(error):
            return
        self._missing = True
        warn(
            "%r: no further handler thread can be started (%s); connections wait for the %d "
            "there are, and ledger.totals.waited counts them",
            server,
            error,
            len(self._threads),
        )

    def began(self) -> None:
        """Note that the calling thread serves."""
        self._threads[get_ident()] = None

    def ended(self) -> None:
        """Note that the calling thread no longer serves."""
        self._threads.pop(get_ident(), None)

    @property
    def thread_count(self) -> int:
        """How many threads serve, or wait for a connection."""
        return len(self._threads)

    def is_serving(self) -> bool:
        """Whether the calling thread serves a connection of this server."""
        return get_ident() in self._threads

    def wait_idle(self, deadline: float | None) -> bool:
        """Wait until no connection is being served; False after the deadline."""
        while self.connections:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        return True

    def end_threads(self) -> None:
        """Raise SystemExit in the threads that still serve, and wait for them briefly."""
        me = get_ident()
        for thread in list(self._threads):
            if thread != me:
                _rsock._end_thread(thread)
        end = time.monotonic() + _EXIT
        while any(thread != me for thread in list(self._threads)) and time.monotonic() < end:
            time.sleep(_LOOK)


def _taken(offered: list[_rsock.Pool]) -> _rsock.Pool | None:
    """The pool, for the first of two threads that take it; None for the second."""
    try:
        return offered.pop()
    except IndexError:
        return None


def _run(offered: list[_rsock.Pool], reference: "weakref.ref[_rsock.Server]", name: str) -> None:
    """The body of a handler thread."""
    pool = _taken(offered)
    if pool is None:
        # The thread that started this one has given it up.
        return
    # From here on the pool counts this thread, until the system has ended it.
    pool.enter(name)
    try:
        _note(reference, Handlers.began)
        while (conn := pool.next()) is not None:
            _serve(conn, pool, reference)
            # Otherwise it would stay alive until the next connection comes.
            del conn
    finally:
        _note(reference, Handlers.ended)
        pool.left()


def _note(reference: "weakref.ref[_rsock.Server]", change: Callable[[Handlers], None]) -> None:
    server = reference()
    if server is not None:
        handlers: Handlers | None = server._handlers
        if handlers is not None:
            change(handlers)


def _call(function: Callable[..., object], conn: _rsock.Connection | _rsock.Datagram) -> None:
    # In a context of its own: a call must not see the context variables that an earlier one set.
    context = contextvars.Context()
    if isinstance(conn, _rsock.Datagram):
        answer = context.run(function, conn.data, conn.address)
        if answer is not None:
            conn._reply(answer)
        return
    result = context.run(function, conn)
    if result is not None:
        raise TypeError(
            f"the handler returned {shown(result)}; what it sends goes through "
            f"conn.sendall, and it returns None"
        )


def _serve(
    conn: _rsock.Connection | _rsock.Datagram,
    pool: _rsock.Pool,
    reference: "weakref.ref[_rsock.Server]",
) -> None:
    """Serve one connection, or answer one datagram."""
    server = reference()
    handlers: Handlers | None = server._handlers if server is not None else None
    if server is None or handlers is None:
        # The server was dropped while this connection was on its way.
        conn._returned()
        return
    try:
        handlers.start_thread(pool, reference)
    except (RuntimeError, MemoryError) as error:
        # The existing threads have to do; the thread that takes the next connection retries.
        handlers.warn_of_missing(server, error)
    if pool.should_warn():
        warn(
            "%r: connections wait, because all %d handler threads are busy; "
            "Limits(handler_threads=…) allows more, and ledger.totals.waited counts them",
            server,
            server.limits.handler_threads,
        )
    service = server.service
    if isinstance(service, _rsock.ByConnection):
        function = service._function(conn.id or 0) if isinstance(conn, _rsock.Connection) else None
    else:
        function = getattr(service, "function", None)
    del service
    # A handler that waits for its client must not keep the server alive.
    del server
    number = None if isinstance(conn, _rsock.Datagram) else conn.id
    if number is not None:
        handlers.connections[number] = conn
    try:
        if function is not None:
            _call(function, conn)
    except BaseException as error:
        # Keep only the user's frames: ours would add nothing, and keep the server alive.
        traceback = sys.exc_info()[2]
        for _ in range(2):
            traceback = traceback.tb_next if traceback is not None else None
        # Not by assignment, which a frozen dataclass forbids.
        BaseException.with_traceback(error, traceback)
        # The traceback refers to this frame: without `del`, only the garbage collector would free
        # what is in it.
        del traceback
        try:
            fault = conn._raised(error, functools.partial(handlers.errors.keep, error, conn))
            if fault is not None:
                handlers.errors.report(error, conn, fault)
        except BaseException:
            # The log, or the exception itself, is broken: this thread has others to serve.
            report_broken_log()
    else:
        conn._returned()
    finally:
        if number is not None:
            handlers.connections.pop(number, None)

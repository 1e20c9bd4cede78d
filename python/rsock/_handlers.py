"""The threads that run handlers.

They are ordinary daemon threads of Python: a handler's stack has no frame of the engine. While a
thread waits for a connection it holds a weak reference to its server and no other, so that a server
without other references can be collected. Nothing here may touch a socket except through its
methods, and nothing may print.
"""

import contextvars
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from . import _rsock
from ._handler_check import check as check  # Looked up here by the compiled module, as is the next.
from ._handler_check import check_arity as check_arity
from ._handler_check import shown
from ._handler_errors import HandlerErrors, report_broken_log, warn

__all__ = ["Handlers"]

# How long a stop waits for threads that only have to end. Ending takes almost no time, but on a
# busy machine a thread may have to wait for the processor.
_END: Final = 5.0

# How long the exit of the interpreter waits for handlers after it has asked them to end.
_EXIT: Final = 0.1


class Handlers:
    """The handler threads of one server, with the errors that they reported.

    `on_error` is "log", "raise", or a function of one exception.
    """

    def __init__(self, on_error: str | Callable[[BaseException], object]) -> None:
        self.errors: Final = HandlerErrors(on_error)
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        # Threads that only have to end.
        self._ending: list[threading.Thread] = []
        self._number = 0
        self._missing = False

    def start_thread(self, pool: _rsock.Pool, server: "weakref.ref[_rsock.Server]") -> None:
        """Start the thread that the pool needs.

        Raises RuntimeError if the system has none.
        """
        with self._lock:
            name = f"rsock-handler-{self._number}"
            self._number += 1
        # Two may take the pool out of the list: the new thread, or this one if the start fails.
        # `list.pop` is one step of the interpreter, so exactly one of them gets it.
        offered = [pool]
        thread = threading.Thread(target=_run, args=(offered, server), name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            # After an interrupt the thread may be running all the same; then it has the pool.
            if _taken(offered):
                self.ended(thread)
                pool.missing()
            raise
        self._missing = False

    def warn_of_missing(self, server: _rsock.Server, error: Exception) -> None:
        """Warn that the system refuses threads, once until it provides one again. Never raises."""
        if self._missing:
            return
        self._missing = True
        warn(
            "%r: no further handler thread can be started (%s); connections wait for the %d "
            "there are, and ledger.totals.waited counts them",
            server,
            error,
            len(self._threads),
        )

    def ended(self, thread: threading.Thread) -> None:
        """Note that a thread no longer serves."""
        with self._lock:
            self._threads.discard(thread)
            self._ending = [each for each in self._ending if each.is_alive()]
            self._ending.append(thread)

    def join(self) -> None:
        """Wait for the threads of a stopped server that are ending, not for running handlers."""
        me = threading.current_thread()
        end = time.monotonic() + _END
        with self._lock:
            threads, self._ending = self._ending, []
        for thread in threads:
            # A thread that could not be started was never alive.
            if thread is not me and thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))

    def end_threads(self) -> None:
        """Raise SystemExit in the threads that are still alive, and wait for them briefly."""
        with self._lock:
            threads = [each for each in self._threads if each.is_alive()]
        for thread in threads:
            if thread.ident is not None and thread is not threading.current_thread():
                _rsock._end_thread(thread.ident)
        end = time.monotonic() + _EXIT
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))


def _taken(offered: list[_rsock.Pool]) -> _rsock.Pool | None:
    """The pool, for the first of two threads that take it; None for the second."""
    try:
        return offered.pop()
    except IndexError:
        return None


def _run(offered: list[_rsock.Pool], reference: "weakref.ref[_rsock.Server]") -> None:
    """The body of a handler thread."""
    pool = _taken(offered)
    if pool is None:
        # The thread that started this one has given it up.
        return
    pool.name_thread(threading.current_thread().name)
    try:
        while (conn := pool.next()) is not None:
            _serve(conn, pool, reference)
            # Otherwise it would stay alive until the next connection comes.
            del conn
    finally:
        server = reference()
        if server is not None:
            _forget(server)
        pool.left()


def _forget(server: _rsock.Server) -> None:
    handlers: Handlers | None = server._handlers
    if handlers is not None:
        handlers.ended(threading.current_thread())


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
        conn._returned(None)
        return
    if pool.wants_thread():
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
    function = getattr(server.service, "function", None)
    # A handler that waits for its client must not keep the server alive.
    del server
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
            if conn._returned(error):
                handlers.errors.report(error, conn)
        except BaseException:
            # The log, or the exception itself, is broken: this thread has others to serve.
            report_broken_log()
    else:
        conn._returned(None)

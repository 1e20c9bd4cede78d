"""Handlers: what may be one, the threads that run them, and what becomes of what they raise.

The threads are ordinary daemon threads of Python: no frame of the engine lies below a handler's.
While they wait for a connection they hold a weak reference to their server and nothing else of it,
so that a server nobody holds can go. Nothing here may touch a socket but through its methods, and
nothing may print.
"""

import contextlib
import contextvars
import functools
import inspect
import logging
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from . import _rsock

if TYPE_CHECKING:
    from ._connection import Connection
    from ._server import Server

__all__ = ["Handlers", "check"]

logger = logging.getLogger("rsock")

# As many errors of handlers as are kept, newest last: enough to see what goes wrong, and bounded.
_KEPT: Final = 100
# How a note of ours begins.
_WHERE: Final = "in the handler of "
# How long a stop waits for threads that have nothing left to do but to end: they take no time, but
# on a busy machine they may have to wait for it.
_END: Final = 5.0


# How long the end of the interpreter waits for handlers that it has told to end.
_EXIT: Final = 0.1


# What may be a handler.


def check(function: object) -> None:
    """Raise TypeError for what cannot be a handler on any transport, naming what would."""
    name = getattr(function, "__qualname__", None) or repr(function)
    if isinstance(function, type):
        raise TypeError(_class_refused(function, name))
    if not callable(function):
        raise TypeError(
            f"service is of type {type(function).__name__}, which is no service; give one such as "
            f"Echo(), a function of one connection, or None for Echo(): {_shown(function)}"
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
    """Raise TypeError for a handler that cannot be called as those of a transport are."""
    refused = _refused(function, 2 if transport == "udp" else 1)
    if refused:
        raise TypeError(_arity_refused(function, transport, refused))


def _refused(function: Callable[..., object], arguments: int) -> str | None:
    """Why a function cannot be called with so many arguments; None where it can."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None  # Not known, as for some functions in C: the first call will tell.
    try:
        signature.bind(*(None,) * arguments)
    except TypeError as error:
        return str(error)
    return None


def _arity_refused(function: Callable[..., object], transport: str, why: str) -> str:
    name = getattr(function, "__qualname__", None) or repr(function)
    called = "with one argument, the connection"
    if transport == "udp":
        called = "on UDP with two arguments, the data and the sender's address"
    return (
        f"service is the function {name}{inspect.signature(function)}; a handler is called "
        f"{called} ({why}); bind others with functools.partial or a lambda"
    )


def _class_refused(kind: type, name: str) -> str:
    if issubclass(kind, _rsock.Service):
        return f"service is the class {name}; give an object of it: {name}()"
    # Looked up among what is imported: a class of these cannot be without its module.
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


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


# The threads.


class Handlers:
    """One server's handlers: their threads, and what they raised.

    `on_error` is "log", "raise", or a function of one exception.
    """

    def __init__(self, on_error: str | Callable[[BaseException], object]) -> None:
        self._on_error = on_error
        self._lock = threading.Lock()
        self._errors: deque[BaseException] = deque(maxlen=_KEPT)
        self._to_raise: deque[BaseException] = deque(maxlen=_KEPT)
        self._not_raised = 0
        self._escaped: BaseException | None = None
        self._threads: set[threading.Thread] = set()
        # Those that have nothing left to do but to end.
        self._ending: list[threading.Thread] = []
        self._number = 0
        self._missing = False

    # Threads.

    def start_thread(self, pool: _rsock.Pool, server: "weakref.ref[Server]") -> None:
        """Start the thread that the pool asked for. RuntimeError where the system has none."""
        with self._lock:
            name = f"rsock-handler-{self._number}"
            self._number += 1
        # Taken by whoever comes first, in one step of the interpreter's.
        place = [pool]
        thread = threading.Thread(target=_run, args=(place, server), name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            # Interrupted, it may be running all the same: then it takes its place and keeps it.
            if _taken(place):
                self.ended(thread)
                pool.missing()
            raise
        self._missing = False

    def warn_of_missing(self, server: "Server", error: Exception) -> None:
        """Say that the system refuses threads, once until it gives one again. Never raises."""
        if self._missing:
            return
        self._missing = True
        _warn(
            "%r: no further handler thread can be started (%s); connections wait for the %d "
            "there are, and ledger.totals.waited counts them",
            server,
            error,
            len(self._threads),
        )

    def ended(self, thread: threading.Thread) -> None:
        """Note that a thread serves no more."""
        with self._lock:
            self._threads.discard(thread)
            self._ending = [each for each in self._ending if each.is_alive()]
            self._ending.append(thread)

    def join(self) -> None:
        """Wait for the threads of a stopped server that are ending, not for those at a handler."""
        me = threading.current_thread()
        end = time.monotonic() + _END
        with self._lock:
            threads, self._ending = self._ending, []
        for thread in threads:
            # One that could not be started was never alive.
            if thread is not me and thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))

    def end_threads(self) -> None:
        """Have SystemExit raised in the threads that are still there, and give them a moment."""
        with self._lock:
            threads = [each for each in self._threads if each.is_alive()]
        for thread in threads:
            if thread.ident is not None and thread is not threading.current_thread():
                _rsock._end_thread(thread.ident)
        end = time.monotonic() + _EXIT
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))

    # Errors.

    @property
    def errors(self) -> list[BaseException]:
        """What handlers raised, oldest first, as far as it is kept."""
        with self._lock:
            return list(self._errors)

    def report(self, error: BaseException, conn: "Connection | _rsock.Datagram") -> None:
        """Do with an error what `on_error` asks for. Never raises."""
        record = conn.record
        where = f"{_WHERE}connection {conn.id}"
        if isinstance(conn, _rsock.Datagram):
            where = f"{_WHERE}a datagram"
        if record is not None:
            where += f" from {record.remote}"
        self._keep(error)
        if not isinstance(error, Exception):
            self._escape(error, conn)
            return
        _note(error, where)
        if self._on_error == "raise":
            with self._lock:
                if len(self._to_raise) == _KEPT:
                    self._not_raised += 1
                self._to_raise.append(error)
        elif callable(self._on_error):
            try:
                self._on_error(error)
            except Exception:
                # The callback's traceback has the error's own before it.
                _log("on_error itself raised, %s", where, conn=conn)
            except BaseException as escaped:
                self._escape(escaped, conn)
        else:
            _log("an exception %s", where, conn=conn)

    def _escape(self, error: BaseException, conn: "Connection | _rsock.Datagram") -> None:
        """SystemExit, KeyboardInterrupt: the server ends, and whoever waits for it is told."""
        if self._escaped is None:
            self._escaped = error
        server = conn.server
        if server is not None:
            server._begin_stop("exception")

    def _keep(self, error: BaseException) -> None:
        with self._lock:
            self._errors.append(error)

    def raise_pending(self, name: str, body: BaseException | None = None) -> None:
        """Raise, once, what handlers left for whoever waits for the server.

        Where the body of a `with` raised, that goes on, and bears a note of the others.
        """
        with self._lock:
            escaped, self._escaped = self._escaped, None
            errors = list(self._to_raise)
            self._to_raise.clear()
            more, self._not_raised = self._not_raised, 0
        if body is not None:
            for error in [escaped, *errors] if escaped else errors:
                # One that cannot be told, or not told of, must not take the place of the body's.
                with contextlib.suppress(Exception):
                    note = "\n".join(getattr(error, "__notes__", ()))
                    body.add_note(f"{type(error).__name__} {note}: {_text(error)}")
            return
        if escaped is not None:
            raise escaped
        if errors:
            count = len(errors) + more
            text = f"{count} exception{'' if count == 1 else 's'} in handlers of {name}"
            if more:
                text += f", of which the last {len(errors)} are here"
            raise ExceptionGroup(text, [each for each in errors if isinstance(each, Exception)])


def _note(error: Exception, where: str) -> None:
    """Say where it was raised, in place of what we said of the same object before."""
    with contextlib.suppress(Exception):
        notes = getattr(error, "__notes__", None)
        if isinstance(notes, list):
            notes[:] = [each for each in notes if not str(each).startswith(_WHERE)]
        error.add_note(where)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<unprintable>"


def _log(text: str, *args: object, conn: "Connection | _rsock.Datagram") -> None:
    record = conn.record
    extra = {"connection": conn.id, "peer": str(record.remote) if record is not None else None}
    logger.exception(text, *args, extra=extra)


def _broken() -> None:
    """Tell whoever watches threads what the log, or a report, has raised."""
    with contextlib.suppress(Exception):
        threading.excepthook(
            threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread()))
        )


def _taken(place: list[_rsock.Pool]) -> _rsock.Pool | None:
    """The pool, for the first who asks."""
    try:
        return place.pop()
    except IndexError:
        return None


def _run(place: list[_rsock.Pool], reference: "weakref.ref[Server]") -> None:
    """Be one of the pool's threads."""
    pool = _taken(place)
    if pool is None:
        # Given up by whoever started this thread.
        return
    pool.name_thread(threading.current_thread().name)
    try:
        while (conn := pool.next()) is not None:
            _serve(conn, pool, reference)
            # Or it would live on until the next one comes.
            del conn
    finally:
        server = reference()
        if server is not None:
            _forget(server)
        pool.left()


def _forget(server: "Server") -> None:
    handlers = server._handlers
    if handlers is not None:
        handlers.ended(threading.current_thread())


def _warn(text: str, *args: object) -> None:
    try:
        logger.warning(text, *args)
    except Exception:
        # The log is broken: the connection is to be served all the same.
        _broken()


def _call(function: Callable[..., object], conn: "Connection | _rsock.Datagram") -> None:
    # In a context of its own: what one call sets the next one must not find.
    context = contextvars.Context()
    if isinstance(conn, _rsock.Datagram):
        answer = context.run(function, conn.data, conn.address)
        if answer is not None:
            conn._reply(answer)
        return
    result = context.run(function, conn)
    if result is not None:
        raise TypeError(
            f"the handler returned {_shown(result)}; what it sends goes through "
            f"conn.sendall, and it returns None"
        )


def _serve(
    conn: "Connection | _rsock.Datagram", pool: _rsock.Pool, reference: "weakref.ref[Server]"
) -> None:
    """Serve one connection, or answer one datagram."""
    server = reference()
    handlers: Handlers | None = server._handlers if server is not None else None
    if server is None or handlers is None:
        # Dropped while this one was on its way.
        conn._returned(None)
        return
    if pool.wants_thread():
        try:
            handlers.start_thread(pool, reference)
        except (RuntimeError, MemoryError) as error:
            # Those there are have to do; whoever takes the next connection tries again.
            handlers.warn_of_missing(server, error)
    if pool.should_warn():
        _warn(
            "%r: connections wait, because all %d handler threads are busy; "
            "Limits(handler_threads=…) allows more, and ledger.totals.waited counts them",
            server,
            server.limits.handler_threads,
        )
    function = getattr(server.service, "function", None)
    # Whoever waits for a client in a handler keeps no server alive that nobody else holds.
    del server
    try:
        if function is not None:
            _call(function, conn)
    except BaseException as error:
        # The user's frames only: ours would say nothing, and hold the server.
        traceback = sys.exc_info()[2]
        for _ in range(2):
            traceback = traceback.tb_next if traceback is not None else None
        # Not by assignment, which a frozen dataclass forbids.
        BaseException.with_traceback(error, traceback)
        # It refers to this very frame: left there, only the collector would free what is here.
        del traceback
        try:
            if conn._returned(error):
                handlers.report(error, conn)
        except BaseException:
            # The log, or the exception itself, is broken: this thread has others to serve.
            _broken()
    else:
        conn._returned(None)

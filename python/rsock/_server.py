"""`Server`, as far as it is best said in Python, and the functions that concern all servers.

Context managers, `run()` with its signals, the way to a client, displays, and the list of started
servers. The engine is in the compiled class, and handlers' threads are in `_handlers.py`: nothing
here may touch a socket, start a thread that outlives the call it was started for, or stand in the
way of traffic.
"""

import contextlib
import functools
import os
import re
import signal
import sys
import threading
import urllib.parse
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict, TypeVar, Unpack

from . import _display, _rsock
from ._client import Client
from ._connection import Function
from ._exceptions import StateError
from ._types import Limits, SocketOptions, SocketPath, StopReport, Trace

if TYPE_CHECKING:
    from ._progress import Progress

__all__ = ["Server", "run_server", "servers"]

_T = TypeVar("_T")

_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_RUNNING: Final = ("serving", "draining")
# RFC 3986, section 3.1.
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


class _ClientOptions(TypedDict, total=False):
    timeout: float | None
    options: SocketOptions | None
    source_address: tuple[str, int] | None
    spin: float


class _ServerOptions(TypedDict, total=False):
    transport: str
    path: SocketPath | None
    fd: int | None
    workers: int | None
    options: SocketOptions | None
    limits: Limits | None
    faults: tuple[()]
    seed: int | None
    trace: bool | Trace
    history: int
    drain: float
    on_error: Literal["log", "raise"] | Callable[[BaseException], object]
    allow_external: bool
    name: str | None


class Server(_rsock.Server):
    """A listening socket and what serves its connections: Rust threads, or functions of yours.

    `Server(host, port, service)` checks its arguments and opens nothing; `host` may be a
    `(host, port)` pair. The steps are `create()`, `bind()`, `listen()` and `start()`, the calls of
    `socket(7)`; each does what is missing before it and returns the server. From `start()` on it
    serves, whatever Python is doing meanwhile, until `stop()`; a stopped server is final.

    `with` starts it and stops it (at once when the body raises); `async with` does so without
    blocking the loop (at once, too, when it is cancelled); `run()` serves until Ctrl-C or SIGTERM.

    `port`: 0 lets the system choose; `address` tells which. A service name will do ("http").
    `service`: what is done with each connection; None is `Echo()`. A function means
    `Handler(function)`: it is called with each `Connection`, on a thread of a pool, and when it
    returns the connection is closed. `Accept()` leaves the connections to `accept()`, or to
    `for conn, (host, port) in server`.
    `workers`: Rust threads that serve; None is up to one per CPU, at most 8, as load asks for them.
    A single one is the server's only thread; beside several there is one that accepts.
    `options`, `limits`: a `SocketOptions` and a `Limits`.
    `history`: how many closed connections the ledger remembers.
    `drain`: seconds that `stop()` gives the open connections by default.
    `name`: what it is called in error messages.
    `path`: a Unix stream socket to listen on, in place of host and port: str, bytes or os.PathLike,
    or an abstract name with a NUL first. Its file is made with `SocketOptions(mode=…)`, replaces
    one that a killed process left there, and is removed at the stop. `address` is the path then.
    `fd`: the descriptor of a socket to listen on, in place of host and port; the server owns it
    from the first step on, and closes it. A Unix socket's file is left alone.
    `on_error`: what becomes of an exception of a handler: "log" writes it, with its traceback, to
    `logging.getLogger("rsock")`; "raise" raises all of them from `stop()` or the end of `with`, as
    an ExceptionGroup; a function is called with each. The last 100 are in `errors` in any case.
    An OSError of the connection itself that leaves a handler, such as the peer's reset or a
    time-out, is the peer's doing: it is in the record and goes nowhere else.
    The logger "rsock.connections", given a level of INFO before the start, has a line for each
    connection that ended.
    `trace`: True has each record remember what was received and sent, and when, within the bounds
    of `Trace()`; a `Trace` of yours sets other bounds.
    `transport`: "tcp", "udp" or "unix", where `path` or `fd` do not say it. On UDP `service`
    answers datagrams, a function with what it returns when it is called with the data and the
    sender's address; `Limits.connections` bounds the peers that are remembered, and `workers`
    None is one.
    `allow_external`: whether a UDP server may have an address outside the loopback, where senders
    can be forged. It concerns no other server.
    `faults` and `seed` are not built yet and take their defaults only.

    Raises ValueError, TypeError or, for a port out of range, OverflowError.
    """

    # What writes the lines of `logging.getLogger("rsock.connections")`, where they are wanted.
    _progress: "Progress | None" = None

    # Starting and stopping.

    def start(self) -> Self:
        """Serve from now on; return when the port is listening.

        Does the steps that are missing. Blocks, with the interpreter released, while the host is
        resolved and while another server that is just ending still holds the port (a second at
        most). Raises OSError with the step and the address, after closing what was opened, and
        StateError on a server that was stopped.
        """
        # Entered before, so that no exception can get between a start and its entry; `servers()`
        # asks each for its state, and does not show a start that failed.
        if self.state in _RUNNING:
            return super().start()
        _enter(self)
        # Who has not imported logging has not asked for lines of progress either.
        progress = None
        if "logging" in sys.modules:
            from . import _progress

            progress = _progress.asked(self)
        try:
            super().start()
            self._start_first_thread()
            if progress is not None:
                self._progress = _progress.Progress(self.name, progress)
            return self
        except _StoppedStarting:
            # A signal in `run()`, which stops the server itself.
            raise
        except BaseException:
            # Interrupted, or nobody would serve.
            _stop_at_once(self)
            raise

    def _start_first_thread(self) -> None:
        handlers = self._handlers
        if handlers is not None:
            pool = self._pool()
            if pool.wants_thread():
                handlers.start_thread(pool, weakref.ref(self))

    def stop(self, drain: float | None = None) -> StopReport:
        """Stop accepting, deliver what is owed for up to `drain` seconds, and return the report.

        `drain` None is the server's own; what is left at the end of it is reset, and 0 resets at
        once. Services in Rust and handlers still get those that wait in the queue, and what a
        connection has sent is read. A connection that has sent nothing yet is given 0.25 s for
        its first byte. A handler that waits in a read gets `b""`; one that has not returned at the
        deadline is abandoned, its connection reset, and counted. With `Accept()` the queue is
        reset, and connections that were handed out are closed, once no other thread is in one of
        their calls.

        Blocks, with the interpreter released, for at most `drain` and 50 ms. A second call, from
        any thread, takes the earlier deadline and returns the same report. From within a handler
        it does not wait for that one. Ctrl-C ends the wait, not the stop.

        With `on_error="raise"` it raises an ExceptionGroup of what handlers raised, once; and in
        any case the SystemExit or KeyboardInterrupt that left one.
        """
        return self._ended(super().stop(drain))

    def wait(self, timeout: float | None = None) -> StopReport:
        """Block until the server has stopped, whoever stops it, and return the report.

        Raises TimeoutError after `timeout` seconds (None waits for ever), StateError where it was
        never started, and what `stop` raises. Releases the interpreter. A SystemExit or
        KeyboardInterrupt that leaves a handler stops the server, and is raised here.
        """
        return self._ended(super().wait(timeout))

    def _stop(self, drain: float | None, cause: str) -> StopReport:
        report = super()._stop(drain, cause)
        self._join()
        return report

    def _join(self) -> None:
        handlers = self._handlers
        if handlers is not None:
            handlers.join()
        if self._progress is not None:
            self._progress.join()

    def _ended(self, report: StopReport) -> StopReport:
        self._join()
        handlers = self._handlers
        if handlers is not None:
            handlers.raise_pending(self.name)
        return report

    @property
    def errors(self) -> list[BaseException]:
        """What handlers raised, oldest first: the last 100 at most."""
        handlers = self._handlers
        return [] if handlers is None else handlers.errors

    # With Accept().

    def accept(self, timeout: float | None = None) -> tuple[Any, tuple[str, int] | Any]:
        """Wait for the next client; return the `Connection` and the client's address.

        That is `(host, port)`, or with a Unix socket the client's path, which mostly is "".

        Only with the service `Accept()`, which leaves clients in the kernel's queue until somebody
        asks for one. Starts the server where that was not done. While `Limits.connections` are
        open, it waits for one of them to be closed; out of descriptors, for one to come free.

        On UDP it waits for the next datagram, and returns its bytes and its sender's address;
        `sendto` answers it.

        Blocks, with the interpreter released, for `timeout` seconds at most (None: for ever).
        Raises TimeoutError; StateError when the server stops or has been stopped; TypeError with
        another service.
        """
        if not isinstance(self.service, _rsock.Accept):
            raise TypeError(
                f"accept: {self.service!r} takes the connections of this server; with "
                f"service=Accept() they are left to accept()"
            )
        if self.state not in _RUNNING:
            self.start()
        return self._accept(timeout)

    def __iter__(self) -> Iterator[tuple[Any, tuple[str, int] | Any]]:
        """Accept until the server stops: `for conn, (host, port) in server`.

        On UDP, `for data, (host, port) in server`.
        """
        # Here and not in the generator: what is wrong is said by `for`, not by its first turn.
        if not isinstance(self.service, _rsock.Accept):
            raise TypeError(
                f"{self.service!r} takes the connections of this server; only one with "
                f"service=Accept() can be iterated over"
            )
        return self._accept_all()

    def _accept_all(self) -> Iterator[tuple[Any, tuple[str, int] | Any]]:
        while True:
            try:
                accepted = self.accept()
            except StateError:
                if self.state in ("draining", "stopped"):
                    return
                raise
            yield accepted
            # The loop's body has it; this frame must not keep it open.
            del accepted

    def run(self) -> StopReport:
        """Start, serve until told to stop, drain, and return the report.

        On the main thread the first SIGINT (Ctrl-C) or SIGTERM drains, as `stop()` does, and the
        report names it in `cause`; a second one resets what is still open and raises
        KeyboardInterrupt. The handlers found are put back at the end. A signal that is ignored
        stays ignored, as for any background job of a shell, and a handler that was not installed
        from Python is left alone. On any other thread this only waits for `stop()`.

        Blocks with the interpreter released. Other signal handlers run meanwhile; when one raises,
        the server is stopped at once and the exception goes on. Raises what `start()` raises.
        """
        if threading.current_thread() is not threading.main_thread():
            self.start()
            return self.wait()
        signals = _Signals(self)
        try:
            report = signals.run()
        except BaseException:
            _stop_at_once(self)
            raise
        finally:
            signals.restore()
        if signals.forced:
            raise KeyboardInterrupt
        return report

    # `with` is in the compiled class: `start`, and this at its end.
    def _leave(self, exc: BaseException | None) -> None:
        if not _is_ours(self):
            # A forked child leaves the block of its parent, whose server goes on.
            return
        _leave(self, exc)

    async def __aenter__(self) -> Self:
        import asyncio  # Only here: whoever gets here has it, and others need not wait for it.

        try:
            return await _in_thread(self.start)
        except asyncio.CancelledError:
            # `start` may have come to its end all the same, and nobody would leave the block.
            await _in_thread(functools.partial(_stop_at_once, self))
            raise
        except GeneratorExit:
            # The loop was abandoned in the middle; nothing can be awaited any more.
            _stop_at_once(self)
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Cancelled, as by Ctrl-C, it drains no longer, like `with`.
        hurry = functools.partial(_stop_at_once, self)
        await _in_thread(functools.partial(self._leave, exc), hurry)

    # The way to it.

    def client(self, **options: Unpack[_ClientOptions]) -> Client:
        """Connect a new `Client` to this server; keywords are those of `Client`.

        A server on every interface ("0.0.0.0", "::") is reached by the loopback address of the
        same family, one on a Unix socket by its path. Blocks as `Client` does. Raises StateError
        before the server is bound, and the OSError of a connection that is not to be had.
        """
        address = self.address
        if isinstance(address, str):
            return Client(path=address, **options)
        host, port = address
        return Client(_LOOPBACK.get(host, host), port, transport=self.transport, **options)

    def url(self, scheme: str, path: str = "/") -> str:
        """The URL of this server: `url("http")` is "http://127.0.0.1:43211/".

        An IPv6 host is in brackets (RFC 3986) and its scope percent-encoded (RFC 6874); "every
        interface" becomes loopback, as in `client()`. A Unix socket's path is percent-encoded in
        the host's place, as clients with a scheme for it have it: `url("http+unix")` is
        "http+unix://%2Ftmp%2Fx.sock/". `path` is taken as it is. Never blocks.
        Raises StateError before the server is bound, ValueError for a scheme that cannot be one
        and for a path that would run into the port.
        """
        if not _SCHEME.fullmatch(scheme):
            raise ValueError(f"scheme {scheme!r} is none; say one such as 'http' or 'redis'")
        if not isinstance(path, str):
            raise TypeError(f"path must be a str, not {type(path).__name__}: {path!r}")
        if path and not path.startswith(("/", "?", "#")):
            raise ValueError(f"path {path!r} must begin with '/'")
        address = self.address
        if isinstance(address, str):
            return f"{scheme}://{urllib.parse.quote(os.fsencode(address), safe='')}{path}"
        host, port = address
        host = _LOOPBACK.get(host, host)
        if ":" in host:
            number, percent, scope = host.partition("%")
            host = f"[{number}{percent and '%25'}{urllib.parse.quote(scope, safe='')}]"
        return f"{scheme}://{host}:{port}{path}"

    # Displays, and the end.

    def __repr__(self) -> str:
        return _display.server_repr(self)

    def _repr_html_(self) -> str:
        return _display.server_html(self)

    # `warn` is bound here because the module's globals may be gone when the interpreter exits.
    # The compiled class signals its threads when it is freed, right after this.
    def __del__(self, _warn: Callable[..., Any] = warnings.warn) -> None:
        try:
            if self.state not in ("created", "bound", "listening", "serving"):
                return
            text = f"never stopped: {self!r}; use `with`, or call stop()"
        except Exception:
            # Not readable any more, or inherited through a fork: its threads are not here.
            return
        # A warning that is kept, or raised, keeps its source: the threads and the port must not
        # wait for that.
        try:
            _warn(text, ResourceWarning, source=self)
        finally:
            self._abandon()


def run_server(
    host: str | tuple[str, int | str] | None = None,
    port: int | str | None = None,
    service: _rsock.Service | Function | None = None,
    **options: Unpack[_ServerOptions],
) -> StopReport:
    """Serve until Ctrl-C or SIGTERM: `Server(host, port, service, **options).run()`.

    `options` are the keywords of `Server`: workers, limits, drain and so on. As there, `host` may
    be a `(host, port)` pair, and is "127.0.0.1" where neither it nor `fd` is given.
    """
    given: dict[str, Any] = {"host": host, "port": port}
    given = {name: value for name, value in given.items() if value is not None}
    return Server(service=service, **given, **options).run()


def servers() -> list[Server]:
    """The servers of this process that serve or drain now, in the order they were started.

    Never blocks. A forked child has none of its parent's.
    """
    entered = (reference() for reference in _started.valuerefs())
    return [server for server in entered if server is not None and server.state in _RUNNING]


def _end_handlers() -> None:
    """At the end of the interpreter: end the handlers that did not return in time.

    One that runs Python code gets to its `finally`; one that sleeps in the system just goes.
    """
    for reference in _started.valuerefs():
        server = reference()
        handlers = server._handlers if server is not None else None
        if handlers is not None:
            handlers.end_threads()


# The servers that were started, by id(): weak, so that it keeps nobody alive, and in order, as
# every dict is. Each operation on it is a single one of the interpreter's, so it needs no lock that
# a fork might find taken.
_started: weakref.WeakValueDictionary[int, Server] = weakref.WeakValueDictionary()


def _enter(server: Server) -> None:
    # An entry left by a start that failed would keep its place in the order.
    _started.pop(id(server), None)
    _started[id(server)] = server


def _forget_parent() -> None:
    global _started
    _started = weakref.WeakValueDictionary()


os.register_at_fork(after_in_child=_forget_parent)


def _is_ours(server: Server) -> bool:
    """Whether it was made in this process; in a forked child every attribute raises."""
    try:
        server.state  # noqa: B018
    except RuntimeError:
        return False
    return True


def _leave(server: Server, exc: BaseException | None) -> None:
    """The end of a `with` block."""
    if exc is not None:
        server._stop(0, "exception")
        handlers = server._handlers
        if handlers is not None:
            handlers.raise_pending(server.name, exc)
        return
    try:
        server.stop()
    except BaseException:
        # Ctrl-C while draining: nobody is left to wait, so nothing may be left to wait for.
        _stop_at_once(server)
        raise


def _stop_at_once(server: Server) -> None:
    if server.state in _RUNNING:
        server._stop(0, "exception")


class _StoppedStarting(BaseException):
    """A signal came while `start()` was under way. Never leaves this file."""


class _Signals:
    """What SIGINT and SIGTERM do during one `run()`.

    The handler stops the server itself, in the middle of the `wait()` that let it run. So there is
    no moment at which a signal is noted and not acted upon, and a second signal, arriving in the
    first one's drain, is a handler inside a handler. Only `start()` is left by an exception:
    stopping a server halfway into its start, from the same thread, would wait for itself.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._found = contextlib.ExitStack()
        self._starting = True
        self._cause: str | None = None
        self.forced = False

    def run(self) -> StopReport:
        try:
            # Both before the port listens: whoever finds it open may send a signal at once.
            self._install(signal.SIGINT)
            self._install(signal.SIGTERM)
            self._server.start()
            self._starting = False
        except _StoppedStarting:
            # More signals do nothing until this line, since one has been noted already.
            self._starting = False
        if self._cause is not None:
            self._stop(self._cause)
        return self._server.wait()

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        cause = signal.Signals(number).name
        if self._cause is None:
            self._cause = cause
            if self._starting:
                raise _StoppedStarting
        else:
            self.forced = True
        if not self._starting:
            self._stop(cause)

    def _stop(self, cause: str) -> None:
        self._server._stop(0 if self.forced else None, cause)

    def _install(self, number: signal.Signals) -> None:
        found = signal.getsignal(number)
        # None: not installed from Python, so that it could not be put back from here.
        if found is not None and found is not signal.SIG_IGN:
            # Noted first: a signal between these two lines must not lose what was found.
            self._found.callback(signal.signal, number, found)
            signal.signal(number, self)

    def restore(self) -> None:
        # All of them, even when one that is back already raises before the next is.
        self._found.close()


async def _in_thread(function: Callable[[], _T], hurry: Callable[[], None] | None = None) -> _T:
    """Run `function` in a thread of its own, to its end, even if the caller is cancelled meanwhile.

    Then `hurry` is called once, in another, which may bring that end nearer.

    Not in the loop's default executor: its few threads may all be busy with calls that end only
    when this one has run, such as a `recv` from the server that is to be stopped.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(2, thread_name_prefix="rsock-async")
    cancelled: asyncio.CancelledError | None = None
    try:
        ended = asyncio.get_running_loop().run_in_executor(pool, function)
        while not ended.done():
            try:
                # Unlike awaiting `ended`, this leaves it running when the caller is cancelled.
                await asyncio.wait([ended])
            except asyncio.CancelledError as error:
                if cancelled is None and hurry is not None:
                    pool.submit(hurry)
                cancelled = error
    finally:
        # Takes no time, the thread having done its work; unless the loop was abandoned and this
        # coroutine closed, when nothing is left to be blocked by waiting here.
        pool.shutdown()
    if cancelled is not None:
        # Looked at, lest the loop complain that nobody did.
        ended.exception()
        raise cancelled
    return ended.result()

"""The Python part of `Server`.

It adds context managers, `run()`, clients, URLs and displays to the compiled class, which is the
server itself. Nothing here may touch a socket, start a thread that outlives the call that starts
it, or delay traffic.
"""

import contextlib
import functools
import os
import re
import sys
import time
import urllib.parse
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict, Unpack

from . import _display, _rsock, _started
from ._client import Client
from ._exceptions import StateError
from ._fault import Fault
from ._fault_view import FaultBlock, FaultView
from ._in_thread import in_thread
from ._printable import printable
from ._proxy import ProxyHeader
from ._script import report_mismatches, scripts_of
from ._settings import Limits, SocketOptions, Trace
from ._signals import Signals

# The compiled module calls this one by the name it has here, when the interpreter exits.
from ._started import end_handlers as _end_handlers  # noqa: F401
from ._threads import log_turn, on_main_thread
from ._types import Drawing, Function, Listing, ScriptResult, SocketPath, StopReport

if TYPE_CHECKING:
    from ._handlers import Handlers
    from ._progress import Progress
    from ._rsock import Follower

__all__ = ["Server", "ServerOptions", "run_server", "servers"]

_RUNNING: Final = ("serving", "draining")
# A longer time is most likely a mistake in the unit.
_MAX_LINGER: Final = 86_400
# RFC 3986, section 3.1.
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


class _ClientOptions(TypedDict, total=False):
    timeout: float | None
    options: SocketOptions | None
    source_address: tuple[str, int | str] | None
    spin: float
    retry: float | None
    faults: Iterable[Fault]
    seed: int | None
    tls: bool | _rsock.TLS | None
    proxy_protocol: Literal["v1", "v2"] | ProxyHeader


class _PlainOptions(TypedDict, total=False):
    # Those that the fixtures for pytest take as they are.
    transport: str
    path: SocketPath | None
    fd: int | str | None
    workers: int | None
    options: SocketOptions | None
    limits: Limits | None
    faults: Iterable[Fault]
    seed: int | None
    trace: bool | Trace
    history: int
    drain: float
    on_error: Literal["log", "raise"] | Callable[[BaseException], object]
    allow_external: bool
    name: str | None
    allow: Iterable[str]
    deny: Iterable[str]
    replace: bool
    proxy_protocol: Iterable[str]


class ServerOptions(_PlainOptions, total=False):
    """The keyword-only arguments of `Server`, for annotations."""

    tls: _rsock.TLS | None


class Server(_rsock.Server):
    """A listening socket and what serves its connections: Rust threads, or your own functions.

    `Server(host, port, service)` checks its arguments and opens nothing; `host` may be a
    `(host, port)` pair. The steps are `create()`, `bind()`, `listen()` and `start()`, the calls of
    `socket(7)`; each does what is missing before it and returns the server. From `start()` on it
    serves, whatever Python is doing meanwhile, until `stop()`; a stopped server is final.

    `with` starts it and stops it (at once when the body raises); `async with` does so without
    blocking the loop (also at once when it is cancelled); `run()` serves until Ctrl-C or SIGTERM.

    `host`: an address, or a name, of which the first address that can be bound is used: "localhost"
    is one family only. "::" serves both on one port, "0.0.0.0" is every interface of IPv4.
    `port`: 0 lets the system choose one, which `address` then shows. The name of a port works too
    ("http").
    `service`: what the server does with each connection; None is `Echo()`. A function means
    `Handler(function)`: it is called with each `Connection`, on a thread of a pool, and when it
    returns the connection is closed. `Accept()` leaves the connections to `accept()`, or to
    `for conn, (host, port) in server`.
    `workers`: Rust threads that serve; None is up to one per CPU, at most 8, started as the load
    requires. A single worker is the server's only thread; with several, one more thread accepts.
    `options`, `limits`: a `SocketOptions` and a `Limits`.
    `history`: how many closed connections the ledger keeps.
    `drain`: seconds that `stop()` gives the open connections by default.
    `name`: the server's name in error messages.
    `path`: a Unix stream socket to listen on, instead of host and port: str, bytes or os.PathLike,
    or an abstract name with a leading NUL. Its file is created with `SocketOptions(mode=…)`,
    replaces one that a killed process left there, and is removed by the stop. `address` is then the
    path.
    `fd`: the descriptor of a socket to listen on, instead of host and port; the server owns it
    from the first step on, and closes it. The file of a Unix socket is not removed. "systemd" is
    the next socket that a service manager passed to this process (sd_listen_fds(3)), and
    "systemd:NAME" the next one of this name; without one, the constructor raises ValueError.
    `on_error`: what happens to an exception that a handler raises: "log" writes it, with its
    traceback, to `logging.getLogger("rsock")`; "raise" raises all of them from `stop()` or the end
    of `with`, as an ExceptionGroup; a function is called with each. The last 100 are in `errors` in
    any case. An OSError of the connection itself that leaves a handler, such as a reset by the peer
    or a time-out, is caused by the peer: it is in the record and is not reported. A certificate of
    `tls` that is not valid, because of its dates or of its name in `sni`, is reported at the start
    and when it is assigned: "log" and "raise" log it, a function is called with an ssl.SSLError.
    The logger "rsock.connections", if it is given the level INFO before the start, logs a line for
    each connection that ended.
    `trace`: True makes each record keep what was received and sent, and when, within the bounds
    of `Trace()`; a `Trace` of your own sets other bounds.
    `transport`: "tcp", "udp" or "unix", if `path` or `fd` do not imply it; or "unix-datagram", with
    a `path`. On the two transports of datagrams `service` answers datagrams; a function is called
    with the data and the sender's address, and what it returns is the answer. `Limits.connections`
    then bounds the peers that are remembered, and `workers` None is one.
    `allow_external`: whether a UDP server may have an address outside the loopback, where the
    addresses of senders can be forged. It concerns no other server.
    `replace`: whether `bind` first stops the server of this process that holds the address, with
    its own `drain`: the cell of a notebook that starts a server on a port can then be run again.
    `allow`, `deny`: networks such as `"10.0.0.0/8"`, single addresses, and `"unix"` for every Unix
    socket. Connections of other networks than those of `allow`, if it has any, and of those in
    `deny` are reset before anything else happens to them; datagrams are dropped. Both are counted
    in `ledger.totals.refused_by`. An IPv4 client of a "::" server has its IPv4 address.
    `proxy_protocol`: the networks of proxies, as in `allow`. Each of their connections must begin
    with a header of the PROXY protocol, version 1 or 2, that names the client: its address is then
    that of `record.remote`, `getpeername()` and the handler's peer, and `record.proxy` the proxy's.
    A handler is called when the header has come; without a valid one the connection is reset.
    Peers of other networks are never believed: what they send is the service's. `allow` and `deny`
    concern the proxy, `Limits(per_host=…)` the client. Not with datagrams.
    `faults`: a list of faults of `rsock.faults`, in force before the first connection. Given, even
    empty, the connections of handlers and of `Accept()` stay with Rust threads, so that faults can
    be added to them later.
    `seed`: the seed of the random numbers of faults; None draws one, which `seed` then shows.
    `tls`: a `TLS` with a certificate: connections are in TLS, for every service; handlers and
    `Accept()` get clear text. Another one can be assigned to `tls` while the server serves.

    Raises ValueError, TypeError or, for a port out of range, OverflowError.
    """

    # Whether the clients that diverged from a script or a recording are still to be reported.
    _reports_scripts: bool = True
    # Whether a signal has begun the end of `run`, so that clients should go elsewhere.
    _leaving: bool = False
    # Writes the lines of `logging.getLogger("rsock.connections")`, if they are enabled.
    _progress: "Progress | None" = None

    if TYPE_CHECKING:
        # Handlers lie above the stub, which says Any.
        @property
        def _handlers(self) -> Handlers | None: ...

    # Starting and stopping.

    # `start` is in the compiled class, which calls this before it starts the threads in Rust,
    def _before_start(self) -> "Follower | None":
        # Entered first, so that no exception can come between a start and its entry; `servers()`
        # checks the state of each entry, and does not list a start that failed.
        _started.enter(self)
        # A program that has not imported logging cannot have enabled the progress lines.
        if "logging" not in sys.modules:
            return None
        from . import _progress

        return _progress.follower(self)

    # and this after it, in the call that started them. It stops the server if this raises.
    def _after_start(self, follower: "Follower | None") -> None:
        handlers = self._handlers
        if handlers is not None:
            handlers.start_first_thread(self._pool(), weakref.ref(self))
        if follower is not None:
            from . import _progress

            self._progress = _progress.Progress(self.name, follower)
        self._report_certificate()

    # Called after each start, and each time that `tls` is assigned.
    def _report_certificate(self) -> None:
        """Report own certificates that clients refuse, to `on_error` or to the log."""
        faults = [] if self.tls is None else self.tls._faults()
        if faults:
            from . import _certificates

            _certificates.report(self.name, faults, self._on_error)

    def stop(self, drain: float | None = None) -> StopReport:
        """Stop accepting, deliver pending data for up to `drain` seconds, and return the report.

        `drain` None is the server's own; connections still open after it are reset, and 0 resets at
        once. Services in Rust and handlers still get the connections that wait in the queue, and
        what a connection has sent is read. A connection that has sent nothing yet has 0.25 s for
        its first byte. A handler that waits in a read gets `b""`; one that has not returned at the
        deadline is abandoned and counted, and its connection reset. With `Accept()` the queue is
        reset, and connections that were handed out are closed, once no other thread is in one of
        their calls.

        Blocks, with the interpreter released, for at most `drain` plus 50 ms. A second call, from
        any thread, takes the earlier deadline and returns the same report. A call from within a
        handler does not wait for that handler. Ctrl-C ends the wait, not the stop.

        With `on_error="raise"` it raises, once, an ExceptionGroup of what handlers raised, or of
        the clients that diverged from a script; and in any case a SystemExit or KeyboardInterrupt
        that left a handler, and the OSError of a recording that could not be written.
        """
        return self._ended(super().stop(drain))

    def wait(self, timeout: float | None = None) -> StopReport:
        """Block until the server has stopped for any reason, and return the report.

        Raises TimeoutError after `timeout` seconds (None waits forever), StateError if it was
        never started, and what `stop` raises. Releases the interpreter. A SystemExit or
        KeyboardInterrupt that leaves a handler stops the server, and is raised here.
        """
        return self._ended(super().wait(timeout))

    def reset(self, *, timeout: float | None = 10.0) -> Self:
        """End all connections and forget what they did, so that the server is as it was started.

        For a server that many examples of one test share. Connections that are open are reset, and
        so are those that wait in the queue, unless a fault keeps them there. Then the ledger is
        empty and its totals are 0, `errors` and `script_results` are empty, and the counts of the
        faults are 0. The next connection is number 1: a ByConnection begins with its first service,
        and faults draw what they drew at the start, from the same seed. The faults themselves stay
        as they are, and so do records that a caller has kept. The socket listens all the time.

        Errors of handlers that were not reported yet are not reported at the end of the server.
        What a fault shares among connections, such as a bandwidth, goes on.

        Blocks, with the interpreter released, until all connections have ended and their handlers
        have returned; connections that others make meanwhile are ended too. Returns the server.
        Raises TimeoutError after `timeout` seconds (None waits forever), as when a handler does not
        return; StateError unless the server serves; RuntimeError within one of its handlers.
        """
        began = time.monotonic()
        handlers = self._handlers
        if handlers is not None and handlers.is_serving():
            raise RuntimeError(f"{self.name}: reset() within a handler would wait for that handler")
        self._reset(timeout)
        deadline = None if timeout is None else began + timeout
        if handlers is not None and not handlers.wait_idle(deadline):
            raise TimeoutError("reset: a handler has not returned")
        for script in scripts_of(self.service):
            script._clear_of(self._number)
        if handlers is not None:
            handlers.errors.clear()
        return self

    def _stop(self, drain: float | None, cause: str) -> StopReport:
        report = super()._stop(drain, cause)
        self._join()
        return report

    def _join(self) -> None:
        # The engine has waited for the threads of handlers.
        if self._progress is not None:
            self._progress.join(self._left)

    @property
    def script_results(self) -> list[ScriptResult]:
        """How the dialogues of a Script or a Replay went, in the order of their connections.

        Those that go on are there too: `done` is False, and `position` says where they are. Those
        of all scripts and replays of a ByConnection together; empty with other services. Dialogues
        of datagrams are there once they have ended. Never blocks.
        """
        results = [
            each for script in scripts_of(self.service) for each in script._results_of(self._number)
        ]
        return Listing(sorted(results, key=lambda result: result.connection))

    def _report_scripts(self, body: BaseException | None = None) -> None:
        """Report, once, the clients that diverged from a script or a recording.

        If the body of a `with` raised `body`, those that its end has cut off are left out.
        """
        if not self._reports_scripts:
            return
        self._reports_scripts = False
        scripts = scripts_of(self.service)
        replays = [each for each in scripts if isinstance(each, _rsock.Replay)]
        diverged = [each for each in self.script_results if each.error is not None]
        for replay in replays:
            replay._end(self._number)
        if body is None:
            diverged = [each for each in self.script_results if each.error is not None]
        elif diverged:
            cut_off = {record.id for record in self.ledger if record.closed_by == "stop"}
            diverged = [each for each in diverged if each.connection not in cut_off]
        if diverged:
            noun = "recording" if len(replays) == len(scripts) else "script"
            report_mismatches(self.name, diverged, self._on_error, noun=noun, body=body)

    def _ended(self, report: StopReport) -> StopReport:
        self._join()
        self._report_scripts()
        handlers = self._handlers
        if handlers is not None:
            handlers.errors.raise_pending(self.name)
        for error in self._take_recording_errors():
            raise error
        return report

    @property
    def errors(self) -> list[BaseException]:
        """What handlers raised, oldest first: at most the last 100. Never blocks.

        An error is there before its connection is closed, unless the handler closed it.
        """
        # Raises in a forked child, as every use of a server there.
        self.state  # noqa: B018
        handlers = self._handlers
        return [] if handlers is None else handlers.errors.kept

    @property
    def connections(self) -> list[Any]:
        """Each `Connection` that a handler serves now, oldest call first: a snapshot. Never blocks.

        Empty with other services. A connection whose handler closed it is not among them. Any
        thread may send on one, also its reset by `abort()`; while its handler sends too, each takes
        `conn.lock`. It may end at any time: calls then raise OSError.
        """
        # Raises in a forked child, as every use of a server there.
        self.state  # noqa: B018
        handlers = self._handlers
        if handlers is None:
            return []
        return [conn for conn in list(handlers.connections.values()) if not conn.closed]

    # Faults.

    @property
    def faults(self) -> FaultView:
        """The faults that are in force: a sequence, with `add`, `remove`, `clear` and `counts`.

        `server.faults.add(Latency(0.2))` adds a fault while data flows. After a stop it shows those
        that were there at the end.
        """
        # Raises in a forked child, as every use of a server there.
        self.state  # noqa: B018
        return FaultView(self)

    def fault(self, fault: Fault) -> FaultBlock:
        """Have a fault in force for a block: `with server.fault(Latency(0.2)):`.

        Every open connection that it concerns has it once the block begins, and none once it has
        ended, also by an exception; the end has no effect if the server has stopped meanwhile.
        `async with` does so without blocking the loop. Before the start of the server, it is in
        force from the first connection on.

        The block begins and ends as `faults.add` and `faults.remove` do, and raises what they
        raise. Ctrl-C in its beginning leaves the fault out, and in its end removes it.
        """
        return FaultBlock(self, fault)

    # With Accept().

    def accept(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Wait for the next client; return the `Connection` and the client's address.

        The address is `(host, port)`, or on a Unix socket the client's path, which is usually "".

        Only with the service `Accept()`, which leaves clients in the kernel's queue until this
        method is called. Starts the server if it was not started. While `Limits.connections` are
        open, it waits until one of them is closed; without a free descriptor, until there is one.

        On UDP it waits for the next datagram, and returns its bytes and its sender's address;
        `sendto` answers it.

        Blocks, with the interpreter released, for at most `timeout` seconds (None: forever).
        Raises TimeoutError; StateError when the server stops or has been stopped; OSError when its
        listening socket has failed, as when another process that shares it has shut it down;
        TypeError with another service.
        """
        if not isinstance(self.service, _rsock.Accept):
            raise TypeError(
                f"accept: {self.service!r} takes the connections of this server; with "
                f"service=Accept() they are left to accept()"
            )
        if self.state not in (*_RUNNING, "stopped"):
            self.start()
        return self._accept(timeout)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Accept until the server stops: `for conn, (host, port) in server`.

        On UDP, `for data, (host, port) in server`.
        """
        # Checked here and not in the generator, so that `iter()` raises, not the first `next()`.
        if not isinstance(self.service, _rsock.Accept):
            raise TypeError(
                f"{self.service!r} takes the connections of this server; only one with "
                f"service=Accept() can be iterated over"
            )
        return self._accept_all()

    def _accept_all(self) -> Iterator[tuple[Any, Any]]:
        while True:
            try:
                accepted = self.accept()
            except StateError:
                if self.state in ("draining", "stopped"):
                    return
                raise
            yield accepted
            # The loop's body has the connection; this frame must not keep it open.
            del accepted

    @property
    def ready(self) -> bool:
        """Whether clients should be sent here: it serves, and no signal has begun its end.

        While `run(linger=…)` lingers it serves, and is not ready. Never blocks.
        """
        return self.state == "serving" and not self._leaving

    def run(self, *, announce: bool | None = None, linger: float = 0.0) -> StopReport:
        """Start, serve until a signal or `stop()`, drain, and return the report.

        Once the port is listening, a line with the address is written to `sys.stderr` if that is a
        terminal; `announce` True writes it in any case, and False never.

        On the main thread the first SIGINT (Ctrl-C) or SIGTERM drains, as `stop()` does, and the
        report names it in `cause`; a second one resets the connections still open and raises
        KeyboardInterrupt. After a SIGTERM it first accepts for `linger` seconds more, while `ready`
        is False: a load balancer such as Kubernetes sends clients here until it has noticed. The
        signal handlers found are put back at the end. A signal that is ignored stays ignored, as
        for any background job of a shell, and a handler that was not set from Python is left alone.
        On any other thread this only waits for `stop()`.

        If NOTIFY_SOCKET is set, the service manager is told of the start, of the stop and, if it
        has set WATCHDOG_USEC, that the process is alive: sd_notify(3).

        Blocks with the interpreter released. Other signal handlers run meanwhile; when one raises,
        the server is stopped at once and the exception goes on. Raises what `start()` raises, and
        TypeError or ValueError for a `linger` that is no number of seconds.
        """
        linger = _checked_linger(linger)
        notifier = None
        if os.environ.get("NOTIFY_SOCKET"):
            # Loaded by a service only.
            from ._notify import Notifier

            notifier = Notifier()

        def started() -> None:
            self._announce(announce)
            if notifier is not None:
                notifier.ready(f"serving {self.service!r} on {_display.server_address(self)}")

        def leaving() -> None:
            self._leaving = True
            if notifier is not None:
                notifier.stopping()

        try:
            if not on_main_thread():
                self.start()
                started()
                return self.wait()
            return self._run(Signals(self, started, leaving, linger))
        finally:
            if notifier is not None:
                notifier.close()

    def _announce(self, wanted: bool | None) -> None:
        """Write to `sys.stderr` where the server listens, if that is wanted. Never raises."""
        # None: a program without a console. OSError, ValueError: it is closed.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            if wanted or (wanted is None and sys.stderr.isatty()):
                text = f"{self.name}: serving {self.service!r} on {_display.server_address(self)}"
                sys.stderr.write(f"{printable(text)}; Ctrl-C stops it\n")
                sys.stderr.flush()

    def _run(self, signals: Signals) -> StopReport:
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
            # A forked child leaves its copy of the block; the parent's server goes on.
            return
        _leave(self, exc)

    async def __aenter__(self) -> Self:
        import asyncio  # Imported here, so that `import rsock` does not load it.

        try:
            return await in_thread(self.start)
        except asyncio.CancelledError:
            # `start` may have completed all the same, and `__aexit__` will not be called.
            await in_thread(functools.partial(_stop_at_once, self))
            raise
        except GeneratorExit:
            # The loop was abandoned meanwhile; nothing can be awaited any more.
            _stop_at_once(self)
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # When cancelled, as by Ctrl-C, it stops draining, as `with` does.
        hurry = functools.partial(_stop_at_once, self)
        await in_thread(functools.partial(self._leave, exc), hurry)

    # Clients and URLs.

    def client(self, **options: Unpack[_ClientOptions]) -> Client:
        """Connect a new `Client` to this server; keywords are those of `Client`.

        A server on every interface ("0.0.0.0", "::") is reached by the loopback address of the
        same family, or by 127.0.0.1 where the machine has no ::1; one on a Unix socket by its
        path. Of a server with TLS the client uses TLS too: with `TLS.for_tests()` it trusts the
        authority of that, and otherwise those of the system, unless `tls=` says more. Blocks as
        `Client` does. Raises StateError before the server is bound, and the OSError of a
        connection that fails.
        """
        address = self._reachable
        tls = self.tls
        if tls is not None:
            options.setdefault("tls", tls if tls._for_tests else True)
        if isinstance(address, str):
            return Client(path=address, transport=self.transport, **options)
        host, port = address
        return Client(host, port, transport=self.transport, **options)

    def url(self, scheme: str, path: str = "/") -> str:
        """The URL of this server: `url("http")` is "http://127.0.0.1:43211/".

        An IPv6 host is in brackets (RFC 3986) and its scope percent-encoded (RFC 6874); "every
        interface" becomes loopback, as in `client()`. The path of a Unix socket is percent-encoded
        and stands for the host, as clients that support this expect it: `url("http+unix")` is
        "http+unix://%2Ftmp%2Fx.sock/". `path` is used as it is. Never blocks.
        Raises StateError before the server is bound, ValueError for an invalid scheme and for a
        path that would run into the port.
        """
        if not _SCHEME.fullmatch(scheme):
            raise ValueError(f"scheme {scheme!r} is none; say one such as 'http' or 'redis'")
        if not isinstance(path, str):
            raise TypeError(f"path must be a str, not {type(path).__name__}: {path!r}")
        if path and not path.startswith(("/", "?", "#")):
            raise ValueError(f"path {path!r} must begin with '/'")
        address = self._reachable
        if isinstance(address, str):
            return f"{scheme}://{urllib.parse.quote(os.fsencode(address), safe='')}{path}"
        host, port = address
        if ":" in host:
            number, percent, scope = host.partition("%")
            host = f"[{number}{percent and '%25'}{urllib.parse.quote(scope, safe='')}]"
        return f"{scheme}://{host}:{port}{path}"

    # Displays, drawings and finalization.

    def queue(self) -> Drawing:
        """Draw where the connections are: in the kernel's queue, open, or ended.

        It shows the moment of the call. Never blocks. Raises ValueError on UDP, where no
        connections wait.
        """
        from ._display import _drawings

        return _drawings.queue(self)

    def map(self) -> Drawing:
        """Draw who talks to whom: the clients, the server, and the targets of a Forward.

        It has the connections of the ledger, open ones first. Never blocks.
        """
        from ._display import _drawings

        return _drawings.server_map(self)

    def watch(self) -> Any:
        """Return a live view of the server, for the end of a notebook's cell.

        It shows the open connections, rates and round trips, and has buttons that add and remove a
        fault, close a connection, and drain the server. The view in the browser asks twice a second
        while it can be seen; an error of a button is shown in it. Needs the package anywidget
        (`pip install anywidget`); without it, or in a page that cannot run it, the view is
        the server's table. Never blocks.
        """
        from ._display import _watch

        return _watch.watch(self)

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
            # Not readable any more, or inherited through a fork, whose child lacks its threads.
            return
        # A warning that is stored or raised keeps its source alive: the threads and the port must
        # not depend on that.
        try:
            _log_abandoned(self)
            _warn(text, ResourceWarning, source=self)
        finally:
            self._abandon()


def run_server(
    host: str | tuple[str, int | str] | None = None,
    port: int | str | None = None,
    service: _rsock.Service | Function | None = None,
    *,
    announce: bool | None = None,
    linger: float = 0.0,
    **options: Unpack[ServerOptions],
) -> StopReport:
    """Serve until Ctrl-C or SIGTERM: `Server(host, port, service, **options).run()`.

    `announce` and `linger` are those of `Server.run`. `options` are the keywords of `Server`:
    workers, limits, drain and so on. As there, `host` may be a `(host, port)` pair, and is
    "127.0.0.1" if neither it nor `fd` is given. Blocks, and raises, as `Server` and `Server.run`
    do.
    """
    given: dict[str, Any] = {"host": host, "port": port}
    given = {name: value for name, value in given.items() if value is not None}
    return Server(service=service, **given, **options).run(announce=announce, linger=linger)


def servers() -> list[Server]:
    """Return the servers of this process that serve or drain now, in the order of their start.

    Never blocks. A forked child has none of its parent's.
    """
    return Listing(
        server
        for server in _started.entered()
        if isinstance(server, Server) and server.state in _RUNNING
    )


def _is_ours(server: Server) -> bool:
    """Whether `server` was made in this process; in a forked child every attribute raises."""
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
            handlers.errors.raise_pending(server.name, exc)
        server._report_scripts(exc)
        for error in server._take_recording_errors():
            exc.add_note(f"{type(error).__name__}: {printable(str(error))}")
        return
    try:
        server.stop()
    except BaseException:
        # Ctrl-C during the drain: no caller waits for the rest of it, so it ends here.
        _stop_at_once(server)
        raise


def _checked_linger(linger: float) -> float:
    if isinstance(linger, bool) or not isinstance(linger, int | float):
        raise TypeError(f"linger must be a number of seconds, not {type(linger).__name__}")
    # NaN compares as false with everything, and infinity would never drain.
    if not 0 <= linger <= _MAX_LINGER:
        raise ValueError(f"linger {linger!r}: must be between 0 and {_MAX_LINGER:,} seconds")
    return float(linger)


def _log_abandoned(server: Server) -> None:
    """Log that a server is collected that was never stopped. Never raises."""
    # Python hides a ResourceWarning by default, and shows a warning of a logger.
    with contextlib.suppress(Exception):
        import logging  # Imported here, because many programs do not use it.

        with log_turn():
            logging.getLogger("rsock").warning(
                "%s on %s was never stopped, and nothing refers to it any more: it ends now. Keep "
                "a reference to it, use it in a `with` statement, or call run()",
                printable(server.name),
                _display.server_address(server),
            )


def _stop_at_once(server: Server) -> None:
    if server.state in _RUNNING:
        server._stop(0, "exception")

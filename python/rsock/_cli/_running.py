"""The run of a command that serves: its servers, from their start to their account.

It must never delay traffic: a thread for each server follows its ledger, and the output shows what
is in the ledgers.
"""

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from typing import Any, Final, TextIO

from .._exceptions import StateError
from .._ledger import json_line
from .._rsock import TLS, Echo, Record
from .._server import Server
from .._settings import Limits, SocketOptions
from .._types import StopReport
from . import _child, _fields
from ._addresses import Address
from ._endpoint import endpoint
from ._errors import Failure, UsageError, message
from ._forms import Form, chosen, of_child
from ._hangup import hangup, hangup_ignored
from ._logs import set_up
from ._pid_file import pid_file
from ._privileges import Identity
from ._serving import Serving
from ._threads import signals_blocked

__all__ = ["serve"]

# The exit code after a second signal, which reset the connections that were still open.
_FORCED: Final = {"SIGINT": 130, "SIGTERM": 143}

# How many closed connections may wait to be written, in a burst.
_HISTORY: Final = 100_000


def serve(arguments: Serving, listen: Sequence[Address], service: Callable[[], Any]) -> int:
    """Serve what `service` returns, until a signal; drain, and show the account.

    Each address has a server of its own, and so has each descriptor that was given. Without any of
    them it is a free port of 127.0.0.1.
    """
    child = _child.Child.here() if _child.VARIABLE in os.environ else None
    identity = Identity(arguments.user, arguments.group)
    set_up(arguments)
    with contextlib.ExitStack() as stack:
        if child is not None:
            return _serve_as_child(arguments, child, service, stack)
        stack.enter_context(pid_file(arguments.pid_file))
        places = _places(arguments, listen)
        if arguments.processes is not None or arguments.reload:
            return _serve_by_children(arguments, places, identity, stack)
        output = _output(arguments, stack)
        servers = _made(arguments, places, service)
        servers[0].bound = identity.take
        ledger = _ledger(arguments, stack)
        form = stack.enter_context(chosen(arguments, servers, output))
        run = _Run(servers, form, ledger, arguments.linger)
        stack.enter_context(hangup(servers, _reader(arguments)))
        ready = functools.partial(all, _Ready(servers))
        stack.enter_context(endpoint(arguments.metrics, _registry, ready, form.metrics))
        return run.run()


def _output(arguments: Serving, stack: contextlib.ExitStack) -> TextIO:
    """Where the output goes."""
    output = sys.stdout
    if arguments.json:
        # Modules and handlers may print; standard output must have only the JSON lines.
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
    return output


def _ledger(arguments: Serving, stack: contextlib.ExitStack) -> FileIO | None:
    if arguments.ledger is None:
        return None
    # In append mode, because the file may have an earlier account; and unbuffered, so that each
    # line is one write and several servers can share a file.
    return stack.enter_context(open(arguments.ledger, "ab", buffering=0))


class _Ready:
    """Whether each server is ready, each time this is iterated over."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers

    def __iter__(self) -> Iterator[bool]:
        return (server.ready for server in self._servers)


def _registry() -> Any:
    """The registry of the process, which handlers may have metrics of their own in."""
    import prometheus_client

    from .. import metrics

    metrics.register()
    return prometheus_client.REGISTRY


def _serve_by_children(
    arguments: Serving,
    places: list[dict[str, Any]],
    identity: Identity,
    stack: contextlib.ExitStack,
) -> int:
    """Bind, and leave the rest to children."""
    from ._forms import of_parent
    from ._processes import Parent, same_command

    if arguments.udp:
        raise UsageError("--processes: the datagrams of one peer would reach several processes")
    servers = _made(arguments, places, Echo, holder=True)
    for server in servers:
        # They listen, and never serve.
        stack.callback(server.stop, 0)
    for server in servers:
        server.listen()
    identity.take()
    notifier = None
    if os.environ.get("NOTIFY_SOCKET"):
        from .._notify import Notifier

        notifier = Notifier()
        stack.callback(notifier.close)
    form = of_parent(arguments, servers)
    release = _Held(servers, [place["path"] for place in places if "path" in place]).release
    command = same_command(arguments.words)
    parent = Parent(arguments, servers, command, notifier, form.listening, release)

    def registry() -> Any:
        from ._process_metrics import registry_of

        return registry_of(parent)

    stack.enter_context(endpoint(arguments.metrics, registry, lambda: parent.ready, form.metrics))
    return parent.run()


class _Held:
    """The listeners that a parent holds for its children, with the files of Unix sockets."""

    def __init__(self, servers: Sequence[Server], paths: Sequence[str]) -> None:
        self._servers = servers
        self._files = {path: os.stat(path) for path in paths if not path.startswith("\0")}

    def release(self) -> None:
        """Close them. Those that children still have go on, until they drain."""
        for path, made in self._files.items():
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(path), made):
                    os.unlink(path)
        self._files = {}
        for server in self._servers:
            with contextlib.suppress(StateError):
                # Otherwise its end would shut the listener down, for the children too.
                os.close(server.hand_over())
            server.stop(0)


def _serve_as_child(
    arguments: Serving,
    child: _child.Child,
    service: Callable[[], Any],
    stack: contextlib.ExitStack,
) -> int:
    """Serve on the sockets of a parent, until it says otherwise."""
    output = _output(arguments, stack)
    servers = _made(arguments, [{"fd": number} for number in child.sockets], service)
    ledger = _ledger(arguments, stack)
    form = stack.enter_context(of_child(arguments, servers, output))
    run = _Run(servers, form, ledger, 0.0)
    run.started = child.serving
    hangup_ignored()
    child.attend(servers)
    try:
        return run.run()
    finally:
        child.ended()


def _places(arguments: Serving, listen: Sequence[Address]) -> list[dict[str, Any]]:
    """Where to listen, as arguments of `Server`."""
    places: list[dict[str, Any]] = [{"fd": number} for number in arguments.fd]
    if arguments.systemd is not None:
        places += [{"fd": number} for number in _passed(arguments.systemd)]
    for host, port, path in listen:
        places.append({"host": host, "port": port} if path is None else {"path": path})
    return places or [{"host": "127.0.0.1", "port": 0}]


def _passed(name: str) -> list[int]:
    """The sockets that a service manager passed; with a name, only those of this name."""
    from .. import _systemd

    try:
        found = _systemd.passed()
    except ValueError as error:
        raise UsageError(f"--systemd: {error}") from None
    numbers = [each.number for each in found if name in ("", each.name)]
    if not numbers:
        names = ", ".join(dict.fromkeys(repr(each.name) for each in found))
        raise UsageError(f"--systemd {name!r}: no socket has this name; there are {names}")
    return numbers


def _made(
    arguments: Serving,
    places: list[dict[str, Any]],
    service: Callable[[], Any],
    *,
    holder: bool = False,
) -> list["_Served"]:
    """The servers; as a `holder` they only listen, for others."""
    servers: list[_Served] = []
    faults: dict[str, Any] = {}
    if arguments.faults and not holder:
        faults = {"faults": arguments.faults, "seed": arguments.seed}
    tls = _tls(arguments)
    for number, place in enumerate(places, 1):
        name = arguments.name
        if name is not None and len(places) > 1:
            name = f"{name}-{number}"
        if arguments.udp:
            place["transport"] = "udp"
        try:
            server = _Served(
                **place,
                service=service(),
                allow_external=arguments.allow_external,
                allow=arguments.allow,
                deny=arguments.deny,
                proxy_protocol=arguments.proxy_protocol,
                workers=arguments.workers,
                drain=arguments.drain,
                history=_HISTORY,
                name=name,
                limits=_fields.given(arguments, Limits),
                options=_fields.given(arguments, SocketOptions),
                tls=tls,
                **faults,
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(str(error)) from None
        servers.append(server)
        if faults:
            # One seed for all, because the command line takes one.
            faults["seed"] = server.seed
    return servers


def _reader(arguments: Serving) -> Callable[[], TLS] | None:
    """What reads the certificate and its key; None without TLS."""
    if arguments.tls_cert is None:
        return None
    return functools.partial(TLS, arguments.tls_cert, arguments.tls_key)


def _tls(arguments: Serving) -> TLS | None:
    read = _reader(arguments)
    if read is None:
        if arguments.tls_key is not None:
            raise UsageError("--tls-key needs --tls-cert, the certificate that it belongs to")
        return None
    try:
        return read()
    except OSError as error:
        raise UsageError(message(error)) from None
    except ValueError as error:
        raise UsageError(str(error)) from None


class _Served(Server):
    """A server of a run; the first one starts and stops the others with it.

    It announces that all of them listen once all of them serve.
    """

    announce: Callable[[], None] | None = None
    others: Sequence["_Served"] = ()
    # Called once all of them are bound.
    bound: Callable[[], None] | None = None

    def start(self) -> "_Served":
        if self.bound is not None:
            for each in (*self.others, self):
                each.listen()
            self.bound()
        for other in self.others:
            other.start()
        super().start()
        return self

    def _announce(self, wanted: bool | None) -> None:
        super()._announce(wanted)
        if self.announce is not None:
            self.announce()

    def _stop(self, drain: float | None, cause: str) -> StopReport:
        # All drain at the same time.
        for other in self.others:
            other._begin_stop(cause)
        report = super()._stop(drain, cause)
        for other in self.others:
            other._stop(drain, cause)
        return report


class _Run:
    """One run of some servers, with the output about them in the right order."""

    def __init__(
        self, servers: Sequence[_Served], form: Form, ledger: FileIO | None, linger: float
    ) -> None:
        self._servers = servers
        self._first, *self._others = servers
        self._form = form
        self._ledger = ledger
        self._linger = linger
        # Called once all servers serve.
        self.started: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._ended: BaseException | None = None
        self._follows = form.follows or ledger is not None
        # Made before the first connection, so that no record is missed.
        self._ends = [server.ledger.follow() for server in servers]
        self._threads = [
            threading.Thread(target=self._follow, args=(i,), name="rsock-account", daemon=True)
            for i in range(len(servers))
        ]
        self._threads += [
            threading.Thread(target=self._watch, args=(other,), name="rsock-watch", daemon=True)
            for other in self._others
        ]
        self._first.others = self._others
        self._first.announce = self._announce

    def run(self) -> int:
        cause = "exception"
        try:
            cause = self._first.run(announce=False, linger=self._linger).cause
        except (KeyboardInterrupt, SystemExit) as error:
            # A second signal, or raised by a handler.
            if self._first.state != "stopped":
                raise
            self._ended = error
        except (StateError, ValueError) as error:
            # An error that only the start can detect, such as a forwarder to itself.
            text = str(error).replace("allow_external=True", "--allow-external")
            raise Failure(text) from None
        finally:
            # They are still open if only the first has ended, or could not start.
            for other in self._others:
                other._begin_stop(cause)
            for other in self._others:
                other._stop(0 if cause == "exception" else None, cause)
            for thread in self._threads:
                if thread.is_alive():
                    thread.join()
            for server in self._servers:
                # The last lines of the log; the stop of the server waits for a moment only.
                if server._progress is not None:
                    server._progress.join(None)
        return self._account()

    def _account(self) -> int:
        """Show the end of each server, and return the exit code."""
        for i in range(len(self._servers)):
            # A signal may have come before its thread was started.
            if self._threads[i].ident is None and self._follows:
                self._follow(i)
        if self._error is not None:
            raise self._error
        reports = [server._stop(0, "stop") for server in self._servers]
        for server, report in zip(self._servers, reports, strict=True):
            self._form.stopped(server, report)
        self._form.ended()
        missed = sum(ends.missed for ends in self._ends)
        if missed:
            text = f"rsock: {missed:,} connections ended faster than they were written"
            sys.stderr.write(f"{text}; the totals include them\n")
        if isinstance(self._ended, SystemExit):
            raise self._ended
        if self._ended is not None:
            return _FORCED.get(reports[0].cause, _FORCED["SIGINT"])
        if any(report.cause == "accept error" for report in reports):
            raise Failure("the listening socket failed, and the server has stopped")
        return 0

    def _announce(self) -> None:
        self._form.listening()
        if self.started is not None:
            self.started()
        with signals_blocked():
            for thread in self._threads[0 if self._follows else len(self._servers) :]:
                thread.start()

    def _follow(self, number: int) -> None:
        """Write what ends at one server."""
        try:
            for record in self._ends[number]:
                if self._form.follows:
                    self._form.closed(self._servers[number], record)
                if self._ledger is not None:
                    _append(self._ledger, record)
        except Exception as error:
            # The output cannot be written any more. `run` raises the error.
            self._error = error
            self._first._begin_stop("exception")

    def _watch(self, other: _Served) -> None:
        """Stop all servers when one of them has ended."""
        cause = "exception"
        try:
            cause = other.wait().cause
        except BaseException as error:
            # A SystemExit that a handler of this server raised.
            self._ended = error
        self._first._begin_stop(cause)


def _append(ledger: FileIO, record: Record) -> None:
    try:
        ledger.write(json_line(record.to_dict()).encode())
    except OSError as error:
        raise Failure(f"{ledger.name}: {message(error)}") from None

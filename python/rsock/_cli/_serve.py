"""`rsock echo`, `serve`, `forward`: one server, from its start to its account.

Must never stand in the way of traffic: the account is followed on a thread of its own, and what is
shown is read from the ledger.
"""

import contextlib
import functools
import sys
import threading
from collections.abc import Callable
from io import FileIO
from typing import Any, Final

from .._exceptions import StateError
from .._ledger import json_line
from .._rsock import Forward, Record
from .._server import Server
from .._types import Limits, SocketOptions
from . import _fields, _services
from ._arguments import Arguments
from ._errors import Failure, UsageError, told
from ._forms import Form, chosen
from ._threads import signals_blocked

__all__ = ["forward", "serve"]

# The exit code of a server that was told twice to stop, and reset what was still open.
_FORCED: Final = {"SIGINT": 130, "SIGTERM": 143}

# How many ends may wait to be written down, in a burst of them.
_HISTORY: Final = 100_000


def serve(arguments: Arguments) -> int:
    """Serve by a service or a function, until a signal; drain, and show the account."""
    return _run(arguments, lambda: _services.find(arguments.service))


def forward(arguments: Arguments) -> int:
    """Pass connections on, until a signal; drain, and show the account."""
    target = arguments.target
    if target.path is not None:
        made = functools.partial(Forward, path=target.path)
    else:
        made = functools.partial(Forward, target.host, target.port)
    if arguments.timeout is not None:
        made = functools.partial(made, connect_timeout=arguments.timeout)
    return _run(arguments, made)


def _run(arguments: Arguments, service: Callable[[], Any]) -> int:
    with contextlib.ExitStack() as stack:
        output = sys.stdout
        if arguments.json:
            # Modules and handlers print as they like; a program reads what is ours.
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        server = _made(arguments, service)
        ledger = None
        if arguments.ledger is not None:
            # Appended to, for an account that is there is not ours to throw away; and each line in
            # one write, so that several servers can share a file.
            ledger = stack.enter_context(open(arguments.ledger, "ab", buffering=0))
        form = stack.enter_context(chosen(arguments, server, output))
        return _Run(server, form, ledger).run()


def _made(arguments: Arguments, service: Callable[[], Any]) -> "_Announced":
    listen = arguments.listen
    place: dict[str, Any] = {"host": listen.host, "port": listen.port}
    if listen.path is not None:
        place = {"path": listen.path}
    if arguments.udp:
        place["transport"] = "udp"
    try:
        return _Announced(
            **place,
            service=service(),
            allow_external=arguments.allow_external,
            workers=arguments.workers,
            drain=arguments.drain,
            history=_HISTORY,
            name=arguments.name,
            limits=_fields.given(arguments, Limits),
            options=_fields.given(arguments, SocketOptions),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(str(error)) from None


class _Announced(Server):
    """A server that says when it listens, at a moment when a signal already drains it."""

    announce: Callable[[], None]

    def start(self) -> "_Announced":
        super().start()
        self.announce()
        return self


class _Run:
    """One run of a server: what is told of it, and in which order."""

    def __init__(self, server: _Announced, form: Form, ledger: FileIO | None) -> None:
        self._server = server
        self._form = form
        self._ledger = ledger
        self._error: BaseException | None = None
        # From before the first connection on.
        self._ends = server.ledger.follow()
        self._follower = threading.Thread(target=self._follow, name="rsock-account", daemon=True)
        server.announce = self._announce

    def run(self) -> int:
        ended: BaseException | None = None
        try:
            report = self._server.run()
        except (KeyboardInterrupt, SystemExit) as error:
            # Told twice to stop, or told by a handler.
            if self._server.state != "stopped":
                raise
            ended, report = error, self._server.stop()
        except (StateError, ValueError) as error:
            # Found out by the start: a forwarder to itself, for example.
            text = str(error).replace("allow_external=True", "--allow-external")
            raise Failure(text) from None
        finally:
            if self._follower.is_alive():
                self._follower.join()
        if self._error is not None:
            raise self._error
        self._form.stopped(report)
        if self._ends.missed:
            missed = f"rsock: {self._ends.missed:,} connections ended faster than they were told of"
            sys.stderr.write(f"{missed}; the totals have them\n")
        if isinstance(ended, SystemExit):
            raise ended
        if ended is not None:
            return _FORCED.get(report.cause, _FORCED["SIGINT"])
        if report.cause == "accept error":
            raise Failure("the listening socket failed, and the server has stopped")
        return 0

    def _announce(self) -> None:
        self._form.listening()
        if self._form.follows or self._ledger is not None:
            with signals_blocked():
                self._follower.start()

    def _follow(self) -> None:
        try:
            for record in self._ends:
                if self._form.follows:
                    self._form.closed(record)
                if self._ledger is not None:
                    _append(self._ledger, record)
        except Exception as error:
            # There is nowhere to write to any more. Raised where the run is waited for.
            self._error = error
            self._server.stop()


def _append(ledger: FileIO, record: Record) -> None:
    try:
        ledger.write(json_line(record.to_dict()).encode())
    except OSError as error:
        raise Failure(f"{ledger.name}: {told(error)}") from None

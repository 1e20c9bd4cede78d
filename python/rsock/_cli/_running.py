"""The run of a command that serves: one server, from its start to its account.

It must never delay traffic: a thread of its own follows the ledger, and the output shows what is in
the ledger.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Sequence
from io import FileIO
from typing import Any, Final

from .._exceptions import StateError
from .._ledger import json_line
from .._rsock import Record
from .._server import Server
from .._settings import Limits, SocketOptions
from . import _fields
from ._addresses import Address
from ._errors import Failure, UsageError, message
from ._forms import Form, chosen
from ._serving import Serving
from ._threads import signals_blocked

__all__ = ["serve"]

# The exit code after a second signal, which reset the connections that were still open.
_FORCED: Final = {"SIGINT": 130, "SIGTERM": 143}

_ANYWHERE: Final = Address("127.0.0.1", 0)

# How many closed connections may wait to be written, in a burst.
_HISTORY: Final = 100_000


def serve(arguments: Serving, listen: Sequence[Address], service: Callable[[], Any]) -> int:
    """Serve what `service` returns, until a signal; drain, and show the account.

    Without an address it is a free port of 127.0.0.1.
    """
    if len(listen) > 1:
        raise UsageError(f"one LISTEN is enough; {len(listen)} are given")
    with contextlib.ExitStack() as stack:
        output = sys.stdout
        if arguments.json:
            # Modules and handlers may print; standard output must have only the JSON lines.
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        server = _made(arguments, listen[0] if listen else _ANYWHERE, service)
        ledger = None
        if arguments.ledger is not None:
            # In append mode, because the file may have an earlier account; and unbuffered, so that
            # each line is one write and several servers can share a file.
            ledger = stack.enter_context(open(arguments.ledger, "ab", buffering=0))
        form = stack.enter_context(chosen(arguments, server, output))
        return _Run(server, form, ledger).run()


def _made(arguments: Serving, listen: Address, service: Callable[[], Any]) -> "_Announced":
    address: dict[str, Any] = {"host": listen.host, "port": listen.port}
    if listen.path is not None:
        address = {"path": listen.path}
    if arguments.udp:
        address["transport"] = "udp"
    try:
        return _Announced(
            **address,
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
    """A server that announces that it listens, at a time when a signal already drains it."""

    announce: Callable[[], None]

    def start(self) -> "_Announced":
        super().start()
        self.announce()
        return self


class _Run:
    """One run of a server, with the output about it in the right order."""

    def __init__(self, server: _Announced, form: Form, ledger: FileIO | None) -> None:
        self._server = server
        self._form = form
        self._ledger = ledger
        self._error: BaseException | None = None
        # Made before the first connection, so that no record is missed.
        self._ends = server.ledger.follow()
        self._follower = threading.Thread(target=self._follow, name="rsock-account", daemon=True)
        server.announce = self._announce

    def run(self) -> int:
        ended: BaseException | None = None
        try:
            report = self._server.run()
        except (KeyboardInterrupt, SystemExit) as error:
            # A second signal, or raised by a handler.
            if self._server.state != "stopped":
                raise
            ended, report = error, self._server.stop()
        except (StateError, ValueError) as error:
            # An error that only the start can detect, such as a forwarder to itself.
            text = str(error).replace("allow_external=True", "--allow-external")
            raise Failure(text) from None
        finally:
            if self._follower.is_alive():
                self._follower.join()
        if self._error is not None:
            raise self._error
        self._form.stopped(report)
        if self._ends.missed:
            missed = f"rsock: {self._ends.missed:,} connections ended faster than they were written"
            sys.stderr.write(f"{missed}; the totals include them\n")
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
            # The output cannot be written any more. `run` raises the error.
            self._error = error
            self._server.stop()


def _append(ledger: FileIO, record: Record) -> None:
    try:
        ledger.write(json_line(record.to_dict()).encode())
    except OSError as error:
        raise Failure(f"{ledger.name}: {message(error)}") from None

"""The signals of `Server.run()`: SIGINT and SIGTERM.

This file owns the two signal handlers from the start of a run to its end. It must put back the
handlers that it found, however the run ends, and leave alone those that were not set from Python.
"""

import contextlib
import signal
from collections.abc import Callable
from types import FrameType

from ._exceptions import StoppedStarting
from ._rsock import Server
from ._types import StopReport

__all__ = ["Signals"]


class Signals:
    """What SIGINT and SIGTERM do during one `run()`.

    The signal handler itself stops the server, inside the `wait()` that let it run, and a second
    signal, which arrives during the drain of the first, is a handler call inside a handler call.
    `start()` is left by an exception: stopping a server in the middle of its start, from the same
    thread, would deadlock. It may have completed all the same: the server then serves, and lingers.
    A signal after which the server lingers is only noted while the server is announced, because
    the announcement must not wait for the end of that time.
    """

    def __init__(
        self,
        server: Server,
        started: Callable[[], None],
        leaving: Callable[[], None],
        linger: float,
    ) -> None:
        self._server = server
        self._started = started
        # Called at the first signal, before the server stops.
        self._leaving = leaving
        # Seconds between a SIGTERM and the stop.
        self._linger = linger
        self._found = contextlib.ExitStack()
        self._starting = True
        self._announcing = False
        self._left = False
        self._cause: str | None = None
        self.forced = False

    def run(self) -> StopReport:
        """Start the server, and wait until it has stopped."""
        try:
            # Both before the port listens: a client that can connect may send a signal at once.
            self._install(signal.SIGINT)
            self._install(signal.SIGTERM)
            self._server.start()
            self._starting = False
        except StoppedStarting:
            # Until this line further signals do nothing, because one has been noted already.
            self._starting = False
        if self._cause is None or self._server.state == "serving":
            self._announcing = True
            self._started()
            self._announcing = False
        if self._cause is not None:
            self._end(self._cause)
        return self._server.wait()

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        cause = signal.Signals(number).name
        if self._cause is None:
            self._cause = cause
            if self._starting:
                raise StoppedStarting
            if self._announcing and self._lingers(cause):
                # `run` lingers, once it has said that the server serves.
                return
        else:
            self.forced = True
        if not self._starting:
            self._end(cause)

    def _end(self, cause: str) -> None:
        """Stop the server, after a SIGTERM at the end of the time that it lingers."""
        if not self._left:
            self._left = True
            self._leaving()
        if self._lingers(cause):
            self._wait_a_while()
        # A second signal that came meanwhile has stopped it, which this does not change.
        self._stop(cause)

    def _lingers(self, cause: str) -> bool:
        if cause != "SIGTERM" or self._linger == 0.0 or self.forced:
            return False
        return self._server.state == "serving"

    def _wait_a_while(self) -> None:
        """Let the server serve on, for as long as it lingers or until it has stopped."""
        with contextlib.suppress(TimeoutError):
            # Not that of a subclass, which raises what handlers raised; `run` does so.
            Server.wait(self._server, self._linger)

    def _stop(self, cause: str) -> None:
        self._server._stop(0 if self.forced else None, cause)

    def _install(self, number: signal.Signals) -> None:
        found = signal.getsignal(number)
        # None: the handler was not set from Python, so Python code could not put it back.
        if found is not None and found is not signal.SIG_IGN:
            # Noted first: a signal between these two lines must not lose the handler found.
            self._found.callback(signal.signal, number, found)
            signal.signal(number, self)

    def restore(self) -> None:
        """Put back the handlers that were found."""
        # ExitStack runs all callbacks, even if the first handler put back raises before the next.
        self._found.close()

"""What happens to the exceptions that handlers raise.

They are kept, and logged, raised or passed to a function, as `on_error` says. Nothing here may
print, and reporting must never raise: the thread that reports has further connections to serve.
"""

import contextlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from ._printable import printable_lines, tame
from ._rsock import Connection, Datagram

__all__ = ["HandlerErrors", "report_broken_log", "warn"]

logger = logging.getLogger("rsock")
# The texts of exceptions may have what peers sent.
logger.addFilter(tame)

# How many errors of handlers are kept, newest last: enough to find a problem, and bounded.
_KEPT: Final = 100
# How a note of ours begins.
_WHERE: Final = "in the handler of "


class HandlerErrors:
    """The exceptions that the handlers of one server raised.

    `on_error` is "log", "raise", or a function of one exception.
    """

    def __init__(self, on_error: str | Callable[[BaseException], object]) -> None:
        self._on_error = on_error
        self._lock = threading.Lock()
        self._kept: deque[BaseException] = deque(maxlen=_KEPT)
        self._to_raise: deque[BaseException] = deque(maxlen=_KEPT)
        self._not_raised = 0
        self._escaped: BaseException | None = None

    @property
    def kept(self) -> list[BaseException]:
        """What handlers raised, oldest first, as far as it is kept."""
        with self._lock:
            return list(self._kept)

    def report(self, error: BaseException, conn: Connection | Datagram) -> None:
        """Treat an error as `on_error` says. Never raises."""
        record = conn.record
        where = f"{_WHERE}connection {conn.id}"
        if isinstance(conn, Datagram):
            where = f"{_WHERE}a datagram"
        if record is not None:
            where += f" from {record.remote}"
        with self._lock:
            self._kept.append(error)
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
                # The traceback of the callback's exception includes the error's own.
                _log("on_error itself raised, %s", where, conn=conn)
            except BaseException as escaped:
                self._escape(escaped, conn)
        else:
            _log("an exception %s", where, conn=conn)

    def _escape(self, error: BaseException, conn: Connection | Datagram) -> None:
        """SystemExit, KeyboardInterrupt: stop the server; the call that waits for it raises it."""
        if self._escaped is None:
            self._escaped = error
        server = conn.server
        if server is not None:
            server._begin_stop("exception")

    def raise_pending(self, name: str, body: BaseException | None = None) -> None:
        """Raise, once, what handlers left for the call that waits for the server's end.

        If the body of a `with` raised `body`, that exception goes on, with a note of the others.
        """
        with self._lock:
            escaped, self._escaped = self._escaped, None
            errors = list(self._to_raise)
            self._to_raise.clear()
            more, self._not_raised = self._not_raised, 0
        if body is not None:
            for error in [escaped, *errors] if escaped else errors:
                # An error that cannot be shown, or noted, must not replace the body's.
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
    """Note where an error was raised; this replaces our earlier notes on the same object."""
    with contextlib.suppress(Exception):
        notes = getattr(error, "__notes__", None)
        if isinstance(notes, list):
            notes[:] = [each for each in notes if not str(each).startswith(_WHERE)]
        error.add_note(where)


def _text(error: BaseException) -> str:
    try:
        return printable_lines(str(error))
    except Exception:
        return "<unprintable>"


def _log(text: str, *args: object, conn: Connection | Datagram) -> None:
    record = conn.record
    extra = {"connection": conn.id, "peer": str(record.remote) if record is not None else None}
    logger.exception(text, *args, extra=extra)


def warn(text: str, *args: object) -> None:
    """Log a warning. Never raises."""
    try:
        logger.warning(text, *args)
    except Exception:
        # The log is broken: the connection has to be served all the same.
        report_broken_log()


def report_broken_log() -> None:
    """Pass the current exception, of the log or of a report, to `threading.excepthook`."""
    with contextlib.suppress(Exception):
        threading.excepthook(
            threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread()))
        )

"""What happens to the exceptions that handlers raise.

They are kept, and logged, raised or passed to a function, as `on_error` says. Nothing here may
print, and reporting must never raise: the thread that reports has further connections to serve.
"""

import contextlib
import itertools
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from opcode import opmap
from types import FrameType
from typing import Any, Final, TypeGuard

from ._printable import printable_lines, tame
from ._rsock import Connection, Datagram
from ._threads import log_turn

__all__ = ["HandlerErrors", "report_broken_log", "warn"]

logger = logging.getLogger("rsock")
# The texts of exceptions may have what peers sent.
logger.addFilter(tame)

# How many errors of handlers are kept, newest last: enough to find a problem, and bounded.
_KEPT: Final = 100
# How many exceptions of reads that ended in the middle of a message are kept.
_WAITED: Final = 10
# The frames of functions that can be suspended.
_SUSPENDABLE: Final = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
# How a note of ours begins.
_WHERE: Final = "in the handler of "


class HandlerErrors:
    """The exceptions that the handlers of one server raised.

    `on_error` is "log", "raise", or a function of one exception.
    """

    def __init__(self, on_error: str | Callable[[BaseException], object]) -> None:
        self._on_error = on_error
        # No lock, as in `Handlers`: each change is a single operation of the interpreter.
        self._kept: deque[BaseException] = deque(maxlen=_KEPT)
        self._to_raise: deque[BaseException] = deque(maxlen=_KEPT)
        # Of reads that ended in the middle of a message.
        self._waited: deque[Exception] = deque(maxlen=_WAITED)
        # Counts what was added to `_to_raise`, and each look at the count itself.
        self._added = itertools.count()
        self._raised = 0
        self._escaped: BaseException | None = None

    @property
    def kept(self) -> list[BaseException]:
        """What handlers raised, oldest first, as far as it is kept."""
        return list(self._kept)

    @property
    def waited(self) -> list[Exception]:
        """What reads raised that the peer or a stop ended in the middle of a message."""
        return list(self._waited)

    def clear(self) -> None:
        """Forget all that was kept or is still to be raised; not what stops the server."""
        for errors in (self._kept, self._to_raise, self._waited):
            errors.clear()
        self._raised = next(self._added) + 1

    def keep(self, error: BaseException, conn: Connection | Datagram, fault: str) -> None:
        """Keep an error before its connection ends: a record that is closed has its error here.

        `fault`: "handler"; or "stop" or "peer", which ended a read in the middle of a message. That
        is no error of the handler. It is told only where the body of a `with`, or a test, raised:
        what the handler waited for may be the reason.
        """
        where = _where(conn)
        if _is_of_others(error, fault):
            ended = "the server was stopped" if fault == "stop" else "the peer left"
            had = f"{len(getattr(error, 'partial', b''))} bytes of a message"
            _note(error, f"{where}, which had {had} and waited for the rest when {ended}")
            self._waited.append(error)
            return
        if isinstance(error, Exception):
            _note(error, where)
        self._kept.append(error)

    def report(self, error: BaseException, conn: Connection | Datagram, fault: str) -> None:
        """Treat an error that was kept as `on_error` says. Never raises.

        Its traceback keeps what is needed to print it; the values of local variables are freed.
        """
        try:
            if not _is_of_others(error, fault):
                self._report(error, conn)
        finally:
            _free_locals(error)

    def _report(self, error: BaseException, conn: Connection | Datagram) -> None:
        if not isinstance(error, Exception):
            self._escape(error, conn)
            return
        if self._on_error == "raise":
            self._to_raise.append(error)
            next(self._added)
        elif callable(self._on_error):
            try:
                self._on_error(error)
            except Exception:
                # The traceback of the callback's exception includes the error's own.
                _log("on_error itself raised, %s", conn, error)
            except BaseException as escaped:
                self._escape(escaped, conn)
        else:
            _log("an exception %s", conn, error)

    def _escape(self, error: BaseException, conn: Connection | Datagram) -> None:
        """SystemExit, KeyboardInterrupt: stop the server; the call that waits for it raises it."""
        if self._escaped is None:
            self._escaped = error
        server = conn.server
        if server is not None:
            server._begin_stop("exception")

    def raise_pending(self, name: str, body: BaseException | None = None) -> None:
        """Raise, once, what handlers left for the call that waits for the server's end.

        If the body of a `with` raised `body`, that exception goes on, with a note of the others and
        of the messages that handlers waited for.
        """
        escaped, self._escaped = self._escaped, None
        errors = self._take_errors()
        if body is not None:
            errors += [each for each in self.waited if each not in errors]
            for error in [escaped, *errors] if escaped else errors:
                # An error that cannot be shown, or noted, must not replace the body's.
                with contextlib.suppress(Exception, SystemExit):
                    note = "\n".join(getattr(error, "__notes__", ()))
                    body.add_note(f"{type(error).__name__} {note}: {_text(error)}")
            return
        if escaped is not None:
            raise escaped
        if errors:
            added = next(self._added)
            count = max(len(errors), added - self._raised)
            self._raised = added + 1
            text = f"{count} exception{'' if count == 1 else 's'} in handlers of {name}"
            if count > len(errors):
                text += f", of which the last {len(errors)} are here"
            raise ExceptionGroup(text, [each for each in errors if isinstance(each, Exception)])

    def _take_errors(self) -> list[BaseException]:
        errors: list[BaseException] = []
        # Other threads may add some meanwhile; each is taken once.
        while self._to_raise:
            with contextlib.suppress(IndexError):
                errors.append(self._to_raise.popleft())
        return errors


def _where(conn: Connection | Datagram) -> str:
    """Which handler, for a note and the log."""
    record = conn.record
    what = "a datagram" if isinstance(conn, Datagram) else f"connection {conn.id}"
    return f"{_WHERE}{what}" + (f" from {record.remote}" if record is not None else "")


def _is_of_others(error: BaseException, fault: str) -> TypeGuard[Exception]:
    """Whether a stop or the peer ended a read, which is no error of the handler."""
    return fault != "handler" and isinstance(error, Exception)


def _free_locals(error: BaseException) -> None:
    """Free the local variables of all frames that an error refers to. Never raises.

    A handler's variables may be large, and the errors are kept for as long as the server.
    """
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        each = errors.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        errors += (_own(each, "__cause__"), _own(each, "__context__"))
        if isinstance(each, BaseExceptionGroup):
            errors += BaseExceptionGroup.exceptions.__get__(each)
        traceback = _own(each, "__traceback__")
        while traceback is not None:
            if not _is_suspended(traceback.tb_frame):
                # RuntimeError: it is running, as that of an error from another thread may be.
                with contextlib.suppress(RuntimeError):
                    traceback.tb_frame.clear()
            traceback = traceback.tb_next


def _own(error: BaseException, name: str) -> Any:
    """An attribute of BaseException, whose name the error's class may use for another."""
    return getattr(BaseException, name).__get__(error)


def _is_suspended(frame: FrameType) -> bool:
    """Whether a frame may be that of a suspended generator, which `clear` would close."""
    code = frame.f_code
    if not code.co_flags & _SUSPENDABLE:
        return False
    if sys.version_info >= (3, 12):
        return frame.f_back is None
    return frame.f_lasti >= 0 and code.co_code[frame.f_lasti] == opmap["YIELD_VALUE"]


def _note(error: Exception, where: str) -> None:
    """Note where an error was raised; this replaces our earlier notes on the same object."""
    # Whatever its attributes raise.
    with contextlib.suppress(BaseException):
        notes = getattr(error, "__notes__", None)
        if isinstance(notes, list):
            notes[:] = [each for each in notes if not str(each).startswith(_WHERE)]
        error.add_note(where)


def _text(error: BaseException) -> str:
    try:
        return printable_lines(str(error))
    except (Exception, SystemExit):
        return "<unprintable>"


def _log(text: str, conn: Connection | Datagram, error: BaseException) -> None:
    """Log an error by `text`, which has a place for where it was raised."""
    where = _where(conn)
    record = conn.record
    extra = {"connection": conn.id, "peer": str(record.remote) if record is not None else None}
    with log_turn():
        try:
            logger.exception(text, where, extra=extra)
        except BaseException:
            # One of its attributes raises, or the log is broken, and raises again.
            text += ": %s, which cannot be shown"
            logger.error(text, where, type(error).__name__, extra=extra)


def warn(text: str, *args: object) -> None:
    """Log a warning. Never raises."""
    try:
        with log_turn():
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

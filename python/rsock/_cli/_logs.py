"""The log of a command that serves: what is written, in which form, and where.

It sets up the loggers of the process, which is the command's own. A line is written before the call
that logs it returns, so that none is lost at the end. It must never log by itself.
"""

import datetime
import logging
import os
import sys
import traceback
from typing import Any, Final

from .._ledger import json_line
from .._printable import printable_lines
from .._rsock import Record
from ._errors import OutputGone
from ._serving import Serving
from ._streams import write

__all__ = ["set_up"]

_STANDARD_ERROR: Final = 2


def set_up(arguments: Serving) -> None:
    """Write the log as the arguments say; without any of them it stays as Python has it."""
    given = (arguments.log_format, arguments.log_level, arguments.access_log or None)
    if given == (None, None, None):
        return
    handler = _StandardError()
    handler.setFormatter(_Json() if arguments.log_format == "json" else _Text())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel((arguments.log_level or "warning").upper())
    if arguments.access_log:
        # A level of its own, by which a server writes these lines: they follow its ledger.
        logging.getLogger("rsock.connections").setLevel(logging.INFO)


class _StandardError(logging.Handler):
    """Writes whole lines to standard error, also where it is a pipe that is full."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            stream = sys.stderr
            if stream.isatty():
                # Above a live table, if there is one.
                stream.write(line)
                stream.flush()
            else:
                write(_STANDARD_ERROR, line.encode(errors="backslashreplace"))
        except (OutputGone, OSError):
            # The reader is gone, and there is no other place.
            pass
        except Exception:
            self.handleError(record)


class _Text(logging.Formatter):
    """A line, with the traceback below it where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        text = f"{_time(record)} {level} {record.name}[{os.getpid()}]: {record.getMessage()}"
        error = _error(record)
        return printable_lines(text if error is None else f"{text}\n{error}")


class _Json(logging.Formatter):
    """An object on one line; `account` has the columns of the record of a connection."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": os.getpid(),
            "message": record.getMessage(),
        }
        error = _error(record)
        if error is not None:
            fields["error"] = error
        for name in ("server", "connection"):
            value = getattr(record, name, None)
            if isinstance(value, str | int):
                fields[name] = value
        account = getattr(record, "account", None)
        if isinstance(account, Record):
            fields["account"] = account.to_dict()
        return json_line(fields).rstrip("\n")


def _time(record: logging.LogRecord) -> str:
    """The time in UTC, as in RFC 3339."""
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _error(record: logging.LogRecord) -> str | None:
    if record.exc_text:
        return record.exc_text
    if not record.exc_info or record.exc_info[1] is None:
        return None
    return "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")

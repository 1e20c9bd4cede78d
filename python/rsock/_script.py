"""Script: the building of a dialogue, step by step.

A step is a line of the text form, which the compiled half reads. Nothing here may touch a socket.
"""

import contextlib
import numbers
import operator
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

from . import _rsock
from ._checks import check_path, wrong_type
from ._exceptions import RsockError
from ._printable import printable_lines
from ._types import ScriptResult, SocketPath

__all__ = ["Captured", "Script", "ScriptMismatch", "report_mismatches", "scripts_of"]

# Divergences that the end of a server logs.
_MOST_LOGGED: Final = 10
_HEADING: Final = "# rsock script 1"
# The place where a step was written, at the end of its line.
_PLACE: Final = re.compile(r" # at [^\"']*$")


class ScriptMismatch(RsockError):
    """A client diverged from the script, or from the recording of a Replay.

    The message names the step with its source line, or the line of the recording; what was
    expected; and what was received. `result` is the ScriptResult.
    """

    __module__ = "rsock"

    result: ScriptResult

    def __init__(self, message: str, result: ScriptResult) -> None:
        super().__init__(message)
        self.result = result

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.result)


@dataclass(frozen=True, slots=True)
class Captured:
    """A part of what the client has sent, for `Script.send`.

    name: the `name` of the step that has captured it, or of a group of a pattern.
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise wrong_type(self, "name", "a str")
        _name(self.name)


Captured.__module__ = "rsock"


def _place(depth: int) -> str:
    """Where the caller's caller was written: a comment for the end of a step's line."""
    frame = sys._getframe(depth)
    name = frame.f_code.co_filename
    try:
        shorter = os.path.relpath(name)
    except (OSError, ValueError):
        shorter = name
    if not shorter.startswith(".."):
        name = shorter
    return f" # at {name}:{frame.f_lineno}" if name.isprintable() else ""


def _bytes(value: object, name: str) -> str:
    if isinstance(value, str):
        return _literal(value.encode())
    try:
        return _literal(bytes(memoryview(value)))  # type: ignore[arg-type]
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name} must be bytes or a str, not {kind}: {value!r}") from None


def _literal(data: bytes) -> str:
    return repr(data)


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"name must be a str, not {type(value).__name__}: {value!r}")
    if not (value.isascii() and value.isidentifier()):
        raise ValueError(f"name must be an ASCII identifier, not {value!r}")
    return value


def _number(value: object, name: str) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name} must be an int, not {kind}: {value!r}") from None


def _seconds(value: object, name: str) -> str:
    # Real: Fraction and the scalars of numpy too.
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}: {value!r}")
    return repr(float(value)).removesuffix(".0")


def _header(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"header must be a str, not {type(value).__name__}: {value!r}")
    if not re.fullmatch(r"[!-~]+", value) or {"#", "{", "}", '"'} & set(value):
        raise ValueError(f"header must be a format with one unsigned number, not {value!r}")
    return value


# How the value of each option is written.
_WRITTEN: Final[dict[str, Callable[[object, str], object]]] = {
    "name": lambda value, _: _name(value),
    "limit": _number,
    "adjust": _number,
    "size": _number,
    "delay": _seconds,
    "timeout": _seconds,
}


def _options(*flags: str, **options: object) -> str:
    words = [f" {flag}" for flag in flags if flag]
    words += [
        f" {name}={_WRITTEN[name](value, name)}"
        for name, value in options.items()
        if value is not None
    ]
    return "".join(words)


class Script(_rsock.Script):
    """A service that plays one side of a dialogue, and tells where the client diverges from it.

    Each method adds a step and returns a new Script; each client gets the whole script, from the
    first step on. After the last step the connection is closed with FIN.

    An expectation has `timeout` seconds, or those of the script. A client that diverges is reset:
    its record is closed by "error", with the report, and `results` has a ScriptResult whose `error`
    is the report. Steps take exactly the bytes that they name from what was received, however it
    was cut.

    `text` is the text form, as `save` writes it. `tls` has the certificate of the `start_tls`
    steps, which no text has. Rust threads play the script; it never needs the interpreter.

    Raises ValueError, naming the line, for a step that is wrong, and TypeError for an argument of
    the wrong type.
    """

    __module__ = "rsock"

    _tls: "_rsock.TLS | None"

    def __new__(
        cls, text: str = "", *, timeout: float | None = None, tls: "_rsock.TLS | None" = None
    ) -> Self:
        """Begin a script: an empty one, or one in its text form."""
        if timeout is not None:
            if not isinstance(text, str):
                raise TypeError(f"text must be a str, not {type(text).__name__}: {text!r}")
            text = f"timeout {_seconds(timeout, 'timeout')}\n{text}"
        made = super().__new__(cls, text, (), tls)
        made._tls = tls
        return made

    def _longer(
        self, lines: str, parts: Iterable["Script"] = (), tls: "_rsock.TLS | None" = None
    ) -> Self:
        text = self.text
        if text and not text.endswith("\n"):
            text += "\n"
        parts = [self, *parts]
        given = [one for one in (*(part._tls for part in parts), tls) if one is not None]
        if any(one is not given[0] for one in given):
            raise ValueError("tls: a script has one certificate, and these steps have several")
        own = given[0] if given else None
        made = _rsock.Script.__new__(type(self), f"{text}{lines}\n", parts, own)
        made._tls = own
        return made

    def _with(self, line: str, tls: "_rsock.TLS | None" = None) -> Self:
        return self._longer(f"{line}{_place(3)}", tls=tls)

    def expect(
        self, data: bytes | str, *, ignore_case: bool = False, timeout: float | None = None
    ) -> Self:
        """Expect exactly `data` next. A str is encoded as UTF-8.

        With `ignore_case` ASCII letters of either case are the same.
        """
        options = _options("ignore_case" if ignore_case else "", timeout=timeout)
        return self._with(f"expect {_bytes(data, 'data')}{options}")

    def until(
        self,
        delimiter: bytes | str,
        *,
        name: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Self:
        """Take everything up to `delimiter`, which is taken too.

        What was before it is captured as `name`. `limit` is the most bytes, the delimiter included;
        65 536 by default.
        """
        options = _options(name=name, limit=limit, timeout=timeout)
        return self._with(f"until {_bytes(delimiter, 'delimiter')}{options}")

    def expect_pattern(
        self, pattern: bytes | str, *, limit: int | None = None, timeout: float | None = None
    ) -> Self:
        """Expect a match of a regular expression, from the next byte on, as soon as there is one.

        Named groups are captured; one that takes no part in the match is empty. The syntax is that
        of the `regex` crate, on bytes. As little as matches is taken: end the pattern with what
        ends the message, such as a line ending. A pattern that ends with `$` or `\\b` is a
        ValueError: more bytes may follow.
        """
        options = _options(limit=limit, timeout=timeout)
        return self._with(f"pattern {_bytes(pattern, 'pattern')}{options}")

    def expect_length(
        self, count: int, *, name: str | None = None, timeout: float | None = None
    ) -> Self:
        """Take `count` bytes, and capture them as `name`."""
        options = _options(name=name, timeout=timeout)
        return self._with(f"length {_number(count, 'count')}{options}")

    def expect_frame(
        self,
        header: str = ">I",
        *,
        name: str | None = None,
        limit: int | None = None,
        adjust: int | None = None,
        timeout: float | None = None,
    ) -> Self:
        """Take a frame: a header with a length, and that many bytes, which are captured as `name`.

        `header` is a format of the module `struct` with one unsigned number, such as ">I", or
        ">xI" where another byte is before it. "T" is a number of three bytes. `adjust` is added to
        the number: -4 where the four bytes of the length count themselves. `limit` is the most
        bytes behind the header; 65 536 by default.
        """
        options = _options(name=name, limit=limit, adjust=adjust, timeout=timeout)
        return self._with(f"frame {_header(header)}{options}")

    def expect_end(self, *, or_reset: bool = False, timeout: float | None = None) -> Self:
        """Expect that the client finishes (FIN), without another byte.

        A client that closes before it has read everything resets the connection: `or_reset` accepts
        that too. It has to be the last step then.
        """
        options = _options("or_reset" if or_reset else "", timeout=timeout)
        return self._with(f"end{options}")

    def expect_silence(self, seconds: float) -> Self:
        """Expect that nothing is received for `seconds`. The client may finish (FIN)."""
        return self._with(f"silence {_seconds(seconds, 'seconds')}")

    def send(
        self,
        *parts: "bytes | str | Captured",
        size: int | None = None,
        delay: float | None = None,
        timeout: float | None = None,
    ) -> Self:
        """Send `parts`, one behind the other. A str is encoded as UTF-8.

        A `Captured` stands for what a step before has captured. With `size` the bytes are sent in
        slices of that many bytes, with `delay` seconds between them. `timeout` is for a client that
        does not read; with `size` it is for each slice.
        """
        if not parts:
            raise TypeError("send() needs bytes")
        words = " ".join(
            f"{{{part.name}}}" if isinstance(part, Captured) else _bytes(part, "part")
            for part in parts
        )
        return self._with(f"send {words}{_options(size=size, delay=delay, timeout=timeout)}")

    def wait(self, seconds: float) -> Self:
        """Do nothing for `seconds`."""
        return self._with(f"wait {_seconds(seconds, 'seconds')}")

    def repeat(self, count: int | None, script: "Script") -> Self:
        """Play `script` `count` times; with None again and again, until the client finishes.

        With None the first step of `script` has to be an expectation. FIN or a reset before it is
        what ends the repetition.
        """
        times = "until end" if count is None else str(_number(count, "count"))
        return self._with_blocks(f"repeat {times}", "", [script])

    def either(self, *scripts: "Script", timeout: float | None = None) -> Self:
        """Play the first of `scripts` whose first step, an expectation, is met.

        A later one is played when those before it cannot be met any more. One that begins with
        `expect_silence` is played if nothing is received for that time. Without `timeout`, the
        longest of the times of their first steps holds.
        """
        return self._with_blocks(f"either{_options(timeout=timeout)}", "or", scripts)

    def any_order(self, *scripts: "Script", timeout: float | None = None) -> Self:
        """Play all of `scripts`, in the order in which their first steps, expectations, are met.

        Without `timeout`, the longest of the times of these steps holds for each of them.
        """
        return self._with_blocks(f"any order{_options(timeout=timeout)}", "and", scripts)

    def _with_blocks(self, word: str, between: str, scripts: Iterable["Script"]) -> Self:
        scripts = list(scripts)
        blocks = []
        for script in scripts:
            if not isinstance(script, Script):
                raise TypeError(f"{word} needs a Script, not {type(script).__name__}: {script!r}")
            # Its own `timeout` line comes along: it holds for the steps of the block.
            lines = script.text.strip("\n").split("\n")
            blocks.append("".join(f"    {line}\n" for line in lines if line))
        if not blocks:
            raise TypeError(f"{word} needs a Script")
        head = f"{word} {{{_place(3)}\n"
        body = f"}} {between} {{\n".join(blocks)
        return self._longer(f"{head}{body}}}", scripts)

    def start_tls(self, tls: "_rsock.TLS | None" = None, *, timeout: float | None = None) -> Self:
        """Begin TLS, behind what was sent, and go on when the handshake is complete.

        `tls` has the certificate; None takes that of the script. What the client has sent in clear
        text behind its request, and no step has taken, makes the handshake fail.
        """
        return self._with(f"start_tls{_options(timeout=timeout)}", tls)

    def shutdown_write(self) -> Self:
        """Send FIN: this side finishes, and goes on to receive."""
        return self._with("shutdown write")

    def close(self) -> Self:
        """Close the connection with FIN, after everything was sent. The last step."""
        return self._with("close")

    def reset(self) -> Self:
        """Reset the connection (RST). The last step."""
        return self._with("reset")

    def pause_reading(self) -> Self:
        """Read no more, so that the client's sends block once the buffers are full."""
        return self._with("pause reading")

    def resume_reading(self) -> Self:
        """Read again."""
        return self._with("resume reading")

    def save(self, path: SocketPath) -> None:
        """Write the text form to a file. Raises OSError."""
        check_path(path)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"{_HEADING}\n{self.text}")

    @classmethod
    def load(cls, path: SocketPath, *, tls: "_rsock.TLS | None" = None) -> Self:
        """Read a script from a file. Raises OSError, and ValueError, naming the line."""
        check_path(path)
        with open(path, encoding="utf-8") as file:
            return cls(file.read(), tls=tls)

    def check(self) -> None:
        """Raise ScriptMismatch for the first client that diverged; do nothing if none did."""
        for result in self.results:
            if result.error is not None:
                raise ScriptMismatch(result.error, result)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Script):
            return NotImplemented
        return _plain(self) == _plain(other)

    def __hash__(self) -> int:
        return hash(_plain(self))


def scripts_of(service: object) -> "list[_rsock.Script | _rsock.Replay]":
    """Return the scripts and replays of a service: itself, or those of a ByConnection."""
    if isinstance(service, _rsock.ByConnection):
        found = [script for each in service._services() for script in scripts_of(each)]
        # An object that is there twice has one list of results.
        return list({id(script): script for script in found}.values())
    return [service] if isinstance(service, _rsock.Script | _rsock.Replay) else []


def report_mismatches(
    name: str,
    diverged: list[ScriptResult],
    on_error: Any,
    *,
    noun: str = "script",
    body: BaseException | None = None,
) -> None:
    """Report the clients that diverged from a script or a recording, as `on_error` says.

    What would be raised is noted on `body`, if that is an exception that goes on.
    """
    errors = [ScriptMismatch(str(result.error), result) for result in diverged]
    if on_error == "raise" and body is not None:
        _note(name, errors, body)
        return
    if on_error == "raise":
        count = f"{len(errors)} client{'' if len(errors) == 1 else 's'}"
        raise ExceptionGroup(f"{count} diverged from the {noun} of {name}", errors)
    if on_error != "log":
        for error in errors:
            on_error(error)
        return
    import logging

    # Clients cause these lines, so that their number is bounded.
    log = logging.getLogger("rsock")
    for error in errors[:_MOST_LOGGED]:
        log.error(
            "connection %d of %s diverged from its %s: %s",
            error.result.connection,
            name,
            noun,
            error,
        )
    if len(errors) > _MOST_LOGGED:
        more = len(errors) - _MOST_LOGGED
        log.error("%d more connections of %s diverged: see script_results", more, name)


def _note(name: str, errors: list[ScriptMismatch], body: BaseException) -> None:
    notes = []
    for error in errors[:_MOST_LOGGED]:
        number = error.result.connection
        # The report of a recording begins with the connection.
        text = printable_lines(str(error)).removeprefix(f"connection {number}: ")
        notes.append(f"ScriptMismatch in connection {number} of {name}: {text}")
    if len(errors) > _MOST_LOGGED:
        notes.append(f"{len(errors) - _MOST_LOGGED} more of {name}: see script_results")
    # An exception that cannot be noted goes on all the same.
    with contextlib.suppress(Exception, SystemExit):
        for note in notes:
            body.add_note(note)


def _plain(script: Script) -> str:
    """The steps without comments and the places where they were written."""
    lines = (_PLACE.sub("", line.strip()) for line in script.text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))

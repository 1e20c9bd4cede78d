"""The servers of one test, from their start to their stop. Owns what their ends report; must never
leave one running.
"""

import os
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any, Final

import pytest

from .._printable import printable
from .._rsock import Record
from .._server import Server
from . import _marks
from ._recordings import TestRecording, command, rules_of
from ._session import tls_of
from ._targets import forward_to
from ._warning import LeftOpenWarning

__all__ = ["ServersOfTest"]

# How long it takes at most until a server has noticed that a client has closed its connection.
_NOTICE: Final = 0.25
_LOOK: Final = 0.002
# The states of a connection whose client has closed it (RFC 9293).
_LEFT: Final = ("CLOSE-WAIT", "LAST-ACK", "CLOSED", "TIME-WAIT", "CLOSING")
_SHOWN: Final = 5


class ServersOfTest:
    """The servers of one test."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._options = _marks.options_of(item)
        self._running: list[Server] = []
        # All of them, for reports.
        self._servers: list[Server] = []
        self._recordings: list[TestRecording] = []
        self._redact = self._options.pop("redact", ())
        strict = self._options.pop("strict", None)
        if strict is None:
            strict = item.config.getoption("rsock_strict")
        self._is_strict: bool = item.config.getini("rsock_strict") if strict is None else strict
        seed = item.config.getoption("rsock_seed")
        if seed is None:
            # Not from `random`, whose seed other plugins set.
            seed = self._options.get("seed", int.from_bytes(os.urandom(4), "big"))
        self._seed: int = seed
        self._has_failed = False
        self._has_shown = False

    def __repr__(self) -> str:
        """Return what the fixtures, which are its methods, show in the report of a failed test."""
        names = [printable(server.name) for server in self._servers]
        return f"<{', '.join(names) or 'no server'}>"

    # Making.

    def make(self, service: Any = None, **options: Any) -> Server:
        """Return a started server."""
        __tracebackhide__ = True
        if isinstance(options.get("tls"), bool):
            options["tls"] = tls_of(self._item.config) if options["tls"] else None
        options.setdefault("on_error", "raise")
        options.setdefault("trace", True)
        # Servers of one test draw differently, and each the same again from the same seed.
        options.setdefault("seed", (self._seed + len(self._servers)) % 2**64)
        server = Server(service=service, **options)
        # Before it starts, so that it is stopped even if a signal raises an exception now.
        self._running.append(server)
        self._servers.append(server)
        return server.start()

    def marked(self, **options: Any) -> Server:
        """Return a started server with the options of the marker."""
        __tracebackhide__ = True
        wanted = {name: value for name, value in self._options.items() if name != "seed"}
        return self.make(**{**wanted, **options})

    def proxy(self, target: Any, **options: Any) -> Server:
        """Return a started server that forwards to `target`."""
        __tracebackhide__ = True
        return self.make(forward_to(target), **options)

    def recording(
        self,
        target: Any,
        *,
        redact: Any = (),
        target_tls: Any = None,
        connections: Any = "in order",
        chunks: Any = "lenient",
        speed: float | None = None,
        timeout: float = 10.0,
        carry: Any = (),
        ignore: Any = (),
        **options: Any,
    ) -> Server:
        """Return a started server that plays what `target` has said, or records it."""
        __tracebackhide__ = True
        wanted = [line.encode() for line in self._item.config.getini("rsock_redact")]
        for given in (self._redact, redact):
            wanted += rules_of(given)
        playing = {
            "connections": connections,
            "chunks": chunks,
            "speed": speed,
            "timeout": timeout,
            "carry": carry,
            "ignore": ignore,
        }
        recording = TestRecording(self._item, len(self._recordings) + 1, wanted, playing)
        self._recordings.append(recording)
        if recording.is_made:
            return self.make(recording.made_from(target, target_tls), **options)
        return self.make(recording.played(), **options)

    # Stopping.

    def stop(self) -> None:
        """Stop all servers, the last one first, whatever one of them raises; then raise that."""
        __tracebackhide__ = True
        errors: list[BaseException] = []
        left: list[str] = []
        interrupt: KeyboardInterrupt | None = None
        while self._running:
            server = self._running.pop()
            if interrupt is None and not self._has_failed:
                left += _left_open(server)
            try:
                # As at the end of a `with`: with a drain, or at once after an exception, as Ctrl-C
                # is; in a forked child it does nothing to the parent's server.
                server.__exit__(type(interrupt) if interrupt else None, interrupt, None)
            except KeyboardInterrupt as error:
                interrupt = error
            except BaseExceptionGroup as error:
                # What handlers raised. Each has its own traceback; the group's has only our frames.
                errors.append(error.with_traceback(None))
            except BaseException as error:
                errors.append(error)
        if interrupt is not None:
            list(self._end_recordings(is_good=False))
            # Not in a group, where it would not end the run.
            raise interrupt
        if left and self._is_strict:
            errors.append(pytest.fail.Exception("\n".join(left), pytrace=False))
        elif left:
            text = "\n".join(left)
            try:
                warnings.warn_explicit(text, LeftOpenWarning, *_location(self._item))
            except LeftOpenWarning as warning:
                errors.append(warning.with_traceback(None))
        errors += self._end_recordings(is_good=not (errors or self._has_failed))
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup(f"{len(errors)} servers ended with errors", errors)

    def _end_recordings(self, is_good: bool) -> Iterator[BaseException]:
        made = [recording for recording in self._recordings if recording.is_made]
        try:
            # All of them, or none: they belong together.
            if is_good:
                for recording in made:
                    recording.check()
                for recording in made:
                    recording.keep()
        except Exception as error:
            yield error.with_traceback(None)
        finally:
            # Nothing, where it was kept.
            for recording in made:
                recording.discard()

    # Reporting.

    def hide_frames(self) -> None:
        """Hide the frames of rsock in tracebacks; `--full-trace` shows them."""
        for name, module in list(sys.modules.items()):
            if name == "rsock" or name.startswith("rsock."):
                vars(module).setdefault("__tracebackhide__", True)

    def section(self, call: pytest.CallInfo[None], report: pytest.TestReport) -> str:
        """Return the section of a report; "" if it has none."""
        if call.when != "teardown" and call.excinfo is not None:
            self._has_failed = True
        if not self._servers or self._has_shown:
            return ""
        shows = self._item.config.getoption("rsock_show") and call.when == "teardown"
        if not report.failed and not shows:
            return ""
        from . import _section

        self._has_shown = True
        error = call.excinfo.value if call.excinfo is not None else None
        again = self._again()
        try:
            text = _section.section(self._servers, error, call.when, self._seed, again)
        except Exception as broken:
            # Such as that of a forked child; a report must not fail the run.
            return f"rsock cannot show its servers: {printable(str(broken))}"
        return "\n".join([text, *map(_told, self._recordings)])

    def _again(self) -> str:
        return f"{command(self._item)} --rsock-seed={self._seed}"


def _told(recording: TestRecording) -> str:
    """What a report says of a recording."""
    if recording.is_kept:
        return f"recorded {printable(str(recording))}"
    if recording.is_made:
        return f"{printable(str(recording))} was not recorded, because the test failed"
    return f"replayed {printable(str(recording))}; to record it again: {printable(recording.again)}"


def _location(item: pytest.Item) -> tuple[str, int]:
    """The file and the line of a test."""
    file, line, _ = item.reportinfo()
    return os.fspath(file), (line or 0) + 1


def _left_open(server: Server) -> list[str]:
    """A line for a server whose clients have left connections open; none otherwise."""
    try:
        if server.state != "serving" or server.transport in ("udp", "unix-datagram"):
            return []
    except RuntimeError:
        # In a forked child.
        return []
    end = time.monotonic() + _NOTICE
    while True:
        records = [record for record in server.ledger.open if _is_left_open(record)]
        if not records:
            return []
        # The end of a client that has closed may be on its way, and that of a Unix socket cannot be
        # seen before the server has read it.
        if time.monotonic() >= end:
            break
        time.sleep(_LOOK)
    lines = [
        f"connection {record.id} from {printable(str(record.remote))}"
        for record in records[:_SHOWN]
    ]
    if len(records) > _SHOWN:
        lines.append(f"{len(records) - _SHOWN:,} more")
    count = f"{len(records):,} connection{'' if len(records) == 1 else 's'}"
    return [f"the test has left {count} of {printable(server.name)} open: {', '.join(lines)}"]


def _is_left_open(record: Record) -> bool:
    info = record.tcp_info
    return record.closed_by is None and (info is None or info.state not in _LEFT)

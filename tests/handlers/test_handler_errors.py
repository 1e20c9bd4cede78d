"""What happens to exceptions that a handler raises.

A handler's own exception is reported once; one that the peer caused is in the record.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from support import (
    SOON,
    Arrivals,
    Background,
    dial,
    ended,
    listener,
    output_of,
    payload,
    read_to_end,
    reset,
    run_script,
    says_back,
    wait_until,
)

from rsock import Client, Connection, IncompleteRead, Limits, Record, Server, StateError

ONE = Limits(handler_threads=1)
# How many errors a server keeps.
KEPT = 100

Log = pytest.LogCaptureFixture


@pytest.fixture
def log(caplog: Log) -> Iterator[Log]:
    """What rsock logs."""
    with caplog.at_level(logging.DEBUG, logger="rsock"):
        yield caplog


def said(log: Log) -> list[logging.LogRecord]:
    return [record for record in log.records if record.name == "rsock"]


def fail(conn: Connection) -> None:
    raise LookupError(f"by connection {conn.id}")


def visit(server: Server, times: int = 1) -> None:
    """Connect and stay until the handler has returned and its error has been reported."""
    for _ in range(times):
        # A handler that aborts may be faster than `connect` returns.
        with contextlib.suppress(ConnectionResetError), dial(server.address) as peer:
            assert ended(peer)


def settled(server: Server, count: int = 1) -> Record:
    """The last record, once that number of connections has closed."""
    return server.ledger.wait(open=0, closed=count)[-1]


def texts(errors: Any) -> list[str]:
    return [str(error) for error in errors]


# --- on_error="log" ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"on_error": "log"}], ids=["by default", "as asked"])
def test_an_error_is_logged_with_its_traceback(options: dict[str, Any], log: Log) -> None:
    with Server(service=fail, **options) as server:
        with dial(server.address) as peer:
            host, port = peer.getsockname()
            assert ended(peer)
        wait_until(lambda: said(log))
        [error] = server.errors
    [record] = said(log)
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert (record.connection, record.peer) == (1, f"{host}:{port}")  # type: ignore[attr-defined]
    assert record.threadName == "rsock-handler-0"
    where = f"in the handler of connection 1 from {host}:{port}"
    assert where in record.getMessage()
    assert error.__notes__ == [where]
    written = "".join(traceback.format_exception(error))
    assert "LookupError: by connection 1" in written
    # The user's frames, and none of rsock's above them.
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["fail"]


def test_each_error_is_logged_once_and_the_server_goes_on(log: Log) -> None:
    with Server(service=fail) as server:
        visit(server, 30)
        wait_until(lambda: len(said(log)) >= 30)
        assert server.state == "serving"
    assert len(said(log)) == 30
    numbers = sorted(record.connection for record in said(log))  # type: ignore[attr-defined]
    assert numbers == list(range(1, 31))


def test_an_error_is_recorded() -> None:
    with Server(service=fail, on_error=lambda error: None) as server:
        visit(server)
        record = settled(server)
        assert server.ledger.totals.closed_by["error"] == 1
    assert (record.closed_by, record.limit) == ("error", None)
    assert record.error == "LookupError: by connection 1"


def test_words_without_end_are_cut_in_the_record() -> None:
    def rant(conn: Connection) -> None:
        raise ValueError("é" * 10_000)

    with Server(service=rant, on_error=lambda error: None) as server:
        visit(server)
        text = settled(server).error
    assert text is not None
    assert text.startswith("ValueError: éé")
    assert len(text) <= 500


def test_a_program_that_did_not_set_up_logging_sees_the_traceback() -> None:
    code = """
import socket
from rsock import Server
def fail(conn):
    raise LookupError("on purpose")
with Server(service=fail) as server:
    socket.create_connection(server.address, 5).recv(1)
    server.ledger.wait(open=0, closed=1)
"""
    done = run_script(code)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("an exception in the handler of connection 1 from 127.0.0.1:")
    assert "Traceback (most recent call last):" in done.stderr
    assert "LookupError: on purpose" in done.stderr
    assert done.stderr.count("Traceback") == 1


# --- on_error="raise" ----------------------------------------------------------------------


def failed(count: int = 3, **options: Any) -> Server:
    """A server whose handlers have raised that number of times."""
    server = Server(service=fail, on_error="raise", limits=ONE, name="shop", **options).start()
    visit(server, count)
    wait_until(lambda: len(server.errors) == min(count, KEPT))
    return server


def test_stop_raises_what_handlers_raised_once(log: Log) -> None:
    server = failed()
    with pytest.raises(ExceptionGroup, match="3 exceptions in handlers of shop") as caught:
        server.stop()
    assert texts(caught.value.exceptions) == [f"by connection {number}" for number in (1, 2, 3)]
    assert list(caught.value.exceptions) == server.errors
    assert server.state == "stopped"
    report = server.stop()
    assert (report.errors, report.cause) == (3, "stop")
    assert server.wait() == report
    assert not said(log)


def test_one_exception_is_a_group_of_one() -> None:
    with pytest.raises(ExceptionGroup, match="1 exception in handlers of shop"):
        failed(1).stop()


def test_wait_raises_what_handlers_raised() -> None:
    server = failed()
    waiting = Background(server.wait)
    wait_until(waiting.asleep)
    stopping = Background(server.stop)
    raised = []
    for call in (waiting, stopping):
        try:
            call.result()
        except ExceptionGroup as error:
            raised.append(error)
    # One of them, whichever was first.
    [group] = raised
    assert len(group.exceptions) == 3


def test_the_end_of_with_raises_what_handlers_raised() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with Server(service=fail, on_error="raise") as server:
            visit(server, 2)
    assert len(caught.value.exceptions) == 2
    assert server.stop().errors == 2


def test_a_with_whose_body_raised_keeps_its_exception_and_notes_the_others() -> None:
    body = ZeroDivisionError("of the body")
    with pytest.raises(ZeroDivisionError) as caught:
        with Server(service=fail, on_error="raise") as server:
            visit(server, 2)
            settled(server, 2)
            raise body
    assert caught.value is body
    assert len(body.__notes__) == 2
    for number, note in enumerate(sorted(body.__notes__), 1):
        assert note.startswith(f"LookupError in the handler of connection {number} from 127.0.0.1:")
        assert note.endswith(f"by connection {number}")
    assert server.stop().cause == "exception"


@pytest.mark.parametrize("wrong", ["of the body", "of the handler"])
def test_the_bodys_exception_goes_on_though_nothing_can_be_noted(wrong: str) -> None:
    body = Frozen() if wrong == "of the body" else ZeroDivisionError()

    def handler(conn: Connection) -> None:
        raise LookupError if wrong == "of the body" else Wordless

    with pytest.raises(type(body)) as caught:
        with Server(service=handler, on_error="raise") as server:
            visit(server)
            settled(server, 1)
            raise body
    assert caught.value is body
    assert len(server.errors) == 1


def test_an_exception_raised_again_and_again_has_one_note_of_ours() -> None:
    kept = LookupError("of a future")
    kept.add_note("by its owner")

    def handler(conn: Connection) -> None:
        raise kept

    server = Server(service=handler, on_error=lambda error: None).start()
    visit(server, 3)
    settled(server, 3)
    server.stop()
    first, second = kept.__notes__
    assert first == "by its owner"
    assert second.startswith("in the handler of connection 3 ")


def test_a_group_has_the_last_hundred_and_says_how_many_there_were() -> None:
    server = failed(KEPT + 7)
    with pytest.raises(ExceptionGroup) as caught:
        server.stop()
    assert str(KEPT + 7) in str(caught.value)
    assert f"the last {KEPT} are here" in str(caught.value)
    assert texts(caught.value.exceptions) == [
        f"by connection {number}" for number in range(8, KEPT + 8)
    ]


def test_a_server_without_errors_raises_nothing() -> None:
    with Server(service=lambda conn: None, on_error="raise") as server:
        visit(server, 3)
    assert server.stop().errors == 0


# --- on_error=function ---------------------------------------------------------------------


def test_a_function_is_called_with_each_exception(log: Log) -> None:
    got: list[BaseException] = []
    with Server(service=fail, on_error=got.append, limits=ONE) as server:
        visit(server, 5)
        settled(server, 5)
        wait_until(lambda: len(got) == 5)
    assert got == server.errors
    assert texts(got) == [f"by connection {number}" for number in range(1, 6)]
    assert got[0].__notes__[0].startswith("in the handler of connection 1 from 127.0.0.1:")
    assert not said(log)


def test_a_function_that_raises_itself_is_logged_and_the_server_goes_on(log: Log) -> None:
    def note(error: BaseException) -> None:
        raise ZeroDivisionError("of the callback")

    with Server(service=fail, on_error=note, limits=ONE) as server:
        visit(server, 3)
        settled(server, 3)
        wait_until(lambda: len(server.errors) == 3)
    assert texts(server.errors) == [f"by connection {number}" for number in (1, 2, 3)]
    assert server.stop().errors == 3
    # The log may also say that a connection had to wait for the only thread.
    [*records] = [record for record in said(log) if record.exc_info]
    assert len(records) == 3
    for record in records:
        assert "on_error itself raised" in record.getMessage()
        assert record.exc_info is not None
        error = record.exc_info[1]
        assert isinstance(error, ZeroDivisionError)
        # The exception that on_error was called with comes first in the traceback, as its context.
        assert isinstance(error.__context__, LookupError)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_function_that_exits_stops_the_server(kind: type[BaseException]) -> None:
    def leave(error: BaseException) -> None:
        raise kind("of the callback")

    server = Server(service=fail, on_error=leave).start()
    visit(server)
    with pytest.raises(kind, match="of the callback"):
        server.wait(SOON)
    assert texts(server.errors) == ["by connection 1"]
    assert server.stop().cause == "exception"


# --- errors kept and counted ---------------------------------------------------------------


def test_the_last_hundred_errors_are_kept_and_all_are_counted() -> None:
    with Server(service=fail, on_error=lambda error: None, limits=ONE) as server:
        visit(server, KEPT + 20)
        settled(server, KEPT + 20)
        wait_until(lambda: str(server.errors[-1]).endswith(str(KEPT + 20)))
        assert texts(server.errors) == [
            f"by connection {number}" for number in range(21, KEPT + 21)
        ]
    assert server.stop().errors == KEPT + 20
    assert server.ledger.totals.closed_by["error"] == KEPT + 20


def use_after_close(conn: Connection) -> None:
    conn.close()
    conn.recv(1)


def fail_after_abort(conn: Connection) -> None:
    conn.abort()
    fail(conn)


def fail_after_detach(conn: Connection) -> None:
    os.close(conn.detach())
    fail(conn)


@pytest.mark.parametrize("handler", [fail, use_after_close, fail_after_abort, fail_after_detach])
def test_the_report_counts_each_error_there_is(handler: Callable[[Connection], None]) -> None:
    with Server(service=handler, on_error=lambda error: None) as server:
        visit(server, 3)
        settled(server, 3)
        wait_until(lambda: len(server.errors) == 3)
    assert server.stop().errors == 3


def test_the_list_of_errors_is_a_copy() -> None:
    with Server(service=fail, on_error=lambda error: None) as server:
        visit(server)
        wait_until(lambda: server.errors)
        server.errors.clear()
        assert len(server.errors) == 1


def test_a_server_without_handlers_has_no_errors() -> None:
    assert Server().errors == []


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unnotable(Exception):
    def add_note(self, note: str) -> None:
        raise RuntimeError("no notes")


@dataclass(frozen=True)
class Frozen(Exception):
    what: str = "cold"


class OddNumber(OSError):
    def __init__(self) -> None:
        super().__init__("text", object())


class LargeNumber(OSError):
    def __init__(self) -> None:
        super().__init__(1 << 40, "text")


class NumberFails(OSError):
    @property
    def errno(self) -> int:  # type: ignore[override]
        raise LookupError("no number")


class ExitsWhenShown(OSError):
    def __str__(self) -> str:
        raise SystemExit(3)


class Unexaminable(OSError):
    def __getattribute__(self, name: str) -> Any:
        if name in ("_stream", "errno", "add_note"):
            raise SystemExit(3)
        return super().__getattribute__(name)


class NoText(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]


class OddNotes(Exception):
    __notes__ = 3  # type: ignore[assignment]


class NoTraceback(Exception):
    __traceback__ = property(lambda self: 1 / 0)
    __context__ = property(lambda self: 1 / 0)
    __cause__ = property(lambda self: 1 / 0)


# A failure while a failure is reported may end in threading.excepthook; here only the pool matters.
anything_unraisable = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
)


@anything_unraisable
@pytest.mark.parametrize(
    "kind",
    [
        Wordless,
        Unnotable,
        Frozen,
        OddNumber,
        LargeNumber,
        NumberFails,
        ExitsWhenShown,
        Unexaminable,
        NoText,
        OddNotes,
        NoTraceback,
    ],
)
@pytest.mark.parametrize("on_error", ["log", "raise"])
def test_an_exception_that_is_broken_itself_is_reported_and_costs_no_thread(
    on_error: Literal["log", "raise"], kind: type[Exception], log: Log
) -> None:
    def break_first(conn: Connection) -> None:
        if conn.id == 1:
            raise kind
        conn.sendall(b"served")

    server = Server(service=break_first, limits=ONE, on_error=on_error).start()
    visit(server)
    try:
        with dial(server.address, timeout=SOON) as peer:
            assert read_to_end(peer) == b"served"
        assert [type(error) for error in server.errors] == [kind]
        # Closed by the report, not by the collector.
        assert server.ledger.wait(closed=2)[0].closed_by == "error"
    finally:
        if on_error == "log":
            server.stop(0)
            assert said(log) or kind is Wordless
        else:
            with pytest.raises(ExceptionGroup) as caught:
                server.stop(0)
            assert [type(error) for error in caught.value.exceptions] == [kind]


@anything_unraisable
@pytest.mark.parametrize("kind", [OddNumber, NumberFails, Unexaminable, NoTraceback])
def test_an_exception_on_a_stream_that_was_handed_to_tls_is_examined_without_harm(
    kind: type[Exception], log: Log
) -> None:
    def handler(conn: Connection) -> None:
        with conn.to_socket():
            raise kind

    with Server(service=handler) as server:
        visit(server)
        # The socket that the handler was given ends before its error is known.
        assert settled(server).closed_by == "error"
        assert [type(error) for error in server.errors] == [kind]


class Large:
    """Stands for what a handler needs much memory for."""


@pytest.mark.parametrize("on_error", ["log", "raise", "call"])
def test_an_error_that_is_kept_keeps_no_variable_of_the_handler(on_error: Any, log: Log) -> None:
    alive: weakref.WeakSet[Large] = weakref.WeakSet()
    seen: list[BaseException] = []

    def large() -> Large:
        made = Large()
        alive.add(made)
        return made

    def parse() -> None:
        body = large()
        raise KeyError("deep", len(str(body)))

    def produce() -> Iterator[int]:
        part = large()
        yield 1
        raise LookupError("in a generator", len(str(part)))

    def handler(conn: Connection) -> None:
        request = large()
        try:
            parse()
        except KeyError as error:
            try:
                list(produce())
            except LookupError as other:
                several = ExceptionGroup("several", [error, other])
                raise ValueError("at the end", len(str(request))) from several

    server = Server(service=handler, on_error=seen.append if on_error == "call" else on_error)
    server.start()
    visit(server, 3)
    server.ledger.wait(open=0, closed=3)
    # The last one may still be in the hands of its thread.
    wait_until(lambda: len(server.errors) == 3 and not alive)
    with contextlib.suppress(ExceptionGroup):
        server.stop()
    text = "".join(traceback.format_exception(server.errors[0]))
    for line in ("raise KeyError(", "raise LookupError(", "from several", "in parse", "at the end"):
        assert line in text


def test_freeing_the_variables_of_an_error_closes_no_generator_that_is_suspended(log: Log) -> None:
    suspended: list[Iterator[BaseException | None]] = []

    def remember() -> Iterator[BaseException | None]:
        try:
            yield None
        except ValueError as error:
            yield error
        yield None

    def handler(conn: Connection) -> None:
        generator = remember()
        suspended.append(generator)
        next(generator)
        error = generator.throw(ValueError("kept by a generator"))  # type: ignore[attr-defined]
        raise error

    with Server(service=handler) as server:
        visit(server)
        wait_until(lambda: server.errors)
        server.stop()
        assert next(suspended[0]) is None


@contextlib.contextmanager
def broken_log() -> Iterator[None]:
    """A log whose every call raises."""

    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("of the filter")

    broken = Broken()
    logger = logging.getLogger("rsock")
    logger.addFilter(broken)
    try:
        yield
    finally:
        logger.removeFilter(broken)


def thread_errors(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What threading.excepthook receives from here on."""
    reported: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_value))
    return reported


def test_a_log_that_raises_costs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_first(conn: Connection) -> None:
        if conn.id == 1:
            fail(conn)
        conn.sendall(b"served")

    reported = thread_errors(monkeypatch)
    with broken_log(), Server(service=fail_first, limits=ONE) as server:
        visit(server)
        with dial(server.address) as peer:
            assert read_to_end(peer) == b"served"
    # The second connection may have waited for the first one's thread, which is a warning.
    waited = server.ledger.totals.waited
    assert texts(reported) == ["of the filter"] * (1 + waited)
    assert server.stop().errors == 1


def test_a_thread_that_the_system_refuses_is_reported_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    at = Arrivals()
    over = threading.Event()
    start = threading.Thread.start

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)
        conn.sendall(b"served")

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("rsock-handler"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with Server(service=handler) as server, contextlib.ExitStack() as stack:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            peers = [stack.enter_context(dial(server.address))]
            at.until()
            peers.append(stack.enter_context(dial(server.address)))
            wait_until(lambda: server.ledger.totals.waited == 1)
        over.set()
        assert [read_to_end(peer) for peer in peers] == [b"served"] * 2
        # The waiting connection has requested another thread, and the thread was started.
        wait_until(lambda: sum(each.is_alive() for each in handler_threads()) == 2)
    (entry,) = said(log)
    assert "can't start new thread" in entry.getMessage()


def handler_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("rsock-handler")]


def test_a_warning_of_waiting_that_cannot_be_logged_costs_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = Arrivals()
    over = threading.Event()

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)
        conn.sendall(b"served")

    reported = thread_errors(monkeypatch)
    with broken_log(), Server(service=handler, limits=ONE, on_error="raise") as server:
        with dial(server.address) as first:
            at.until()
            with dial(server.address) as second, dial(server.address) as third:
                wait_until(lambda: server.ledger.totals.waited == 2)
                over.set()
                for peer in (first, second, third):
                    assert read_to_end(peer) == b"served"
    # Reported once, as the warning itself.
    assert texts(reported) == ["of the filter"]


# --- errors that the peer causes -----------------------------------------------------------


class TheirDoing:
    """A handler that ends because of the peer, and what the record says of it."""

    def __init__(
        self,
        handler: Callable[[Connection], object],
        peer: Callable[[socket.socket], object],
        closed_by: str,
        limit: str | None,
        words: str,
    ) -> None:
        self.handler, self.peer = handler, peer
        self.expected = (closed_by, limit)
        self.words = words


def recv_line_in_time(conn: Connection) -> None:
    conn.settimeout(0.05)
    conn.recv_line()


def send_in_time(conn: Connection) -> None:
    conn.settimeout(0.05)
    conn.sendall(bytes(64 << 20))


def send_for_ever(conn: Connection) -> None:
    while True:
        conn.sendall(bytes(10_000))


def read_file_line(conn: Connection) -> None:
    with conn.makefile("rb") as file:
        file.readline()


def read_by_duplicate(conn: Connection) -> None:
    with conn.to_socket() as duplicate:
        duplicate.recv(1)


def read_by_duplicate_in_time(conn: Connection) -> None:
    conn.settimeout(0.05)
    read_by_duplicate(conn)


def half_a_message(peer: socket.socket) -> None:
    peer.sendall(b"half")
    peer.shutdown(socket.SHUT_WR)


def stay(peer: socket.socket) -> None:
    pass


THEIRS = {
    "reset, in recv": TheirDoing(
        lambda conn: conn.recv(1), reset, "reset", None, "ConnectionResetError"
    ),
    "reset, in recv_exactly": TheirDoing(
        lambda conn: conn.recv_exactly(10), reset, "reset", None, "ConnectionResetError"
    ),
    "reset, in recv_into": TheirDoing(
        lambda conn: conn.recv_into(bytearray(4)), reset, "reset", None, "ConnectionResetError"
    ),
    "reset, in sendall": TheirDoing(send_for_ever, reset, "reset", None, "Error"),
    "reset, in a file": TheirDoing(read_file_line, reset, "reset", None, "ConnectionResetError"),
    "finished within recv_exactly": TheirDoing(
        lambda conn: conn.recv_exactly(10), half_a_message, "peer", None, "IncompleteRead"
    ),
    "finished within recv_line": TheirDoing(
        lambda conn: conn.recv_line(), half_a_message, "peer", None, "IncompleteRead"
    ),
    "a line too long": TheirDoing(
        lambda conn: conn.recv_line(8),
        lambda peer: peer.sendall(bytes(8)),
        "limit",
        "line",
        "ValueError",
    ),
    "no delimiter": TheirDoing(
        lambda conn: conn.recv_until(b"--", 8),
        lambda peer: peer.sendall(bytes(8)),
        "limit",
        "line",
        "ValueError",
    ),
    "silent": TheirDoing(recv_line_in_time, stay, "error", None, "TimeoutError"),
    "not reading": TheirDoing(send_in_time, stay, "error", None, "TimeoutError"),
    "reset, in a duplicate": TheirDoing(
        read_by_duplicate, reset, "reset", None, "ConnectionResetError"
    ),
    "silent, to a duplicate": TheirDoing(
        read_by_duplicate_in_time, stay, "error", None, "TimeoutError"
    ),
}


@pytest.mark.parametrize("case", THEIRS.values(), ids=THEIRS.keys())
def test_what_the_peer_caused_is_recorded_and_goes_nowhere_else(case: TheirDoing, log: Log) -> None:
    reported: list[BaseException] = []
    for on_error in ("log", "raise", reported.append):
        here = threading.Event()

        def handler(conn: Connection, here: threading.Event = here) -> None:
            here.set()
            case.handler(conn)

        with Server(service=handler, on_error=on_error) as server:
            with dial(server.address) as peer:
                assert here.wait(SOON)
                case.peer(peer)
                record = settled(server)
            assert (record.closed_by, record.limit) == case.expected
            assert record.error is not None
            assert case.words in record.error
            assert server.ledger.totals.closed_by[record.closed_by or ""] == 1
        # `stop`, at the end of `with`, raises nothing either.
        assert server.errors == []
        assert server.stop().errors == 0
    assert not said(log)
    assert not reported


@pytest.mark.parametrize("on_error", ["log", "raise"])
@pytest.mark.parametrize("closes", [False, True], ids=["stays", "closes"])
def test_a_body_that_raised_is_told_what_its_handlers_waited_for(
    on_error: Any, closes: bool, log: Log
) -> None:
    reading = threading.Event()

    def read(conn: Connection) -> None:
        reading.set()
        conn.recv_exactly(10)

    with (
        pytest.raises(LookupError) as caught,
        contextlib.ExitStack() as stack,
        Server(service=read, on_error=on_error) as server,
    ):
        peer = stack.enter_context(dial(server.address))
        peer.sendall(b"half")
        assert reading.wait(SOON)
        wait_until(lambda: server.ledger.totals.bytes_in == 4)
        if closes:
            peer.shutdown(socket.SHUT_WR)
            settled(server)
        raise LookupError
    [note] = caught.value.__notes__
    assert "in the handler of connection 1 from 127.0.0.1:" in note
    if closes:
        assert note.endswith("when the peer left: the stream ended after 4 bytes of 10")
    else:
        assert "which had 4 bytes of a message and waited for the rest when the server" in note
    assert server.errors == []
    assert not said(log)


def test_the_end_of_a_message_is_no_error_where_the_handler_deals_with_it() -> None:
    caught: list[bytes] = []

    def read(conn: Connection) -> None:
        try:
            conn.recv_exactly(10)
        except IncompleteRead as error:
            caught.append(error.partial)

    with Server(service=read, on_error="raise") as server, dial(server.address) as peer:
        half_a_message(peer)
        record = settled(server)
    assert caught == [b"half"]
    assert (record.closed_by, record.error) == ("peer", None)


# --- errors of the handler -----------------------------------------------------------------


def open_missing(conn: Connection) -> None:
    open("/nonexistent/file")  # noqa: SIM115


def meet_a_reset_elsewhere(conn: Connection, make: Callable[[tuple[str, int]], Any]) -> None:
    with listener() as listening, make(listening.getsockname()) as other:
        reset(listening.accept()[0])
        other.recv(1)


def time_out_elsewhere(conn: Connection) -> None:
    with listener() as listening, dial(listening.getsockname(), timeout=0.01) as other:
        other.recv(1)


def use_without_waiting(conn: Connection) -> None:
    conn.settimeout(0)
    conn.recv(1)


def ask_for_no_option(conn: Connection) -> None:
    conn.getsockopt(socket.SOL_SOCKET, 9_999)


def wrap(conn: Connection) -> None:
    try:
        conn.settimeout(0.01)
        conn.recv(1)
    except TimeoutError as error:
        raise LookupError("the peer was too slow") from error


def ask_wrongly(conn: Connection) -> None:
    conn.recv(-1)


def parse(conn: Connection) -> None:
    int("x")


def use_no_server(conn: Connection) -> None:
    Server(service=fail).wait()


def incomplete_by_hand(conn: Connection) -> None:
    raise IncompleteRead("of the handler's own", b"")


def connect_to_a_closed_port(conn: Connection) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        Client(holder.getsockname())


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (open_missing, FileNotFoundError),
        (functools.partial(meet_a_reset_elsewhere, make=dial), ConnectionResetError),
        (functools.partial(meet_a_reset_elsewhere, make=Client), ConnectionResetError),
        (time_out_elsewhere, TimeoutError),
        (use_after_close, OSError),
        (use_without_waiting, BlockingIOError),
        (ask_for_no_option, OSError),
        (wrap, LookupError),
        (ask_wrongly, ValueError),
        (parse, ValueError),
        (use_no_server, StateError),
        (incomplete_by_hand, IncompleteRead),
        (connect_to_a_closed_port, ConnectionRefusedError),
    ],
    ids=[
        "a missing file",
        "another socket's reset",
        "a Client's reset",
        "another socket's time-out",
        "its connection closed by itself",
        "forbidden to wait",
        "no such option",
        "an exception of its own, of a time-out",
        "a wrong argument",
        "a ValueError",
        "a StateError",
        "an IncompleteRead of its own",
        "a refused connect elsewhere",
    ],
)
def test_what_the_handler_caused_is_reported(
    handler: Callable[[Connection], None], kind: type[Exception], log: Log
) -> None:
    with Server(service=handler) as server, dial(server.address) as peer:
        record = settled(server)
        wait_until(lambda: said(log))
        assert [type(error) for error in server.errors] == [kind]
        if handler is use_after_close:
            assert (record.closed_by, record.error) == ("local", None)
        else:
            assert record.closed_by == "error"
            assert str(record.error).startswith(f"{kind.__name__}: ")
        del peer
    assert len(said(log)) == 1


def test_the_reset_of_another_connection_of_the_server_is_reported() -> None:
    others: list[Connection] = []
    there = threading.Event()

    def handler(conn: Connection) -> None:
        if conn.id == 1:
            others.append(conn)
            assert there.wait(SOON)
        else:
            try:
                others.pop().recv(1)
            finally:
                there.set()

    with Server(service=handler, on_error=lambda error: None) as server:
        with dial(server.address) as first:
            wait_until(lambda: others)
            reset(first)
            with dial(server.address) as second:
                assert ended(second)
                settled(server, 2)
        wait_until(lambda: server.errors)
        [error] = server.errors
        by = {record.id: record.closed_by for record in server.ledger.closed}
    assert isinstance(error, ConnectionResetError)
    assert "in the handler of connection 2" in error.__notes__[0]
    assert by == {1: "reset", 2: "error"}


# --- exceptions that end a program ---------------------------------------------------------


def leave(conn: Connection, kind: type[BaseException]) -> None:
    raise kind(7)


leaves = pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])


@leaves
@pytest.mark.parametrize("on_error", ["log", "raise"])
def test_an_exit_in_a_handler_stops_the_server_and_is_raised_by_wait(
    kind: type[BaseException], on_error: Literal["log", "raise"], log: Log
) -> None:
    server = Server(service=functools.partial(leave, kind=kind), on_error=on_error).start()
    waiting = Background(server.wait)
    wait_until(waiting.asleep)
    visit(server)
    with pytest.raises(kind) as caught:
        waiting.result()
    assert caught.value.args == (7,)
    assert server.errors == [caught.value]
    assert server.state == "stopped"
    # Raised once.
    assert server.stop().cause == "exception"
    assert not said(log)


@leaves
def test_an_exit_in_a_handler_is_raised_by_stop(kind: type[BaseException]) -> None:
    server = Server(service=functools.partial(leave, kind=kind)).start()
    visit(server)
    wait_until(lambda: server.state == "stopped")
    with pytest.raises(kind):
        server.stop()
    assert server.stop().cause == "exception"


def test_an_exit_in_a_handler_drains_the_others() -> None:
    at = Arrivals()

    def handler(conn: Connection) -> None:
        if conn.recv_line() == b"exit\n":
            sys.exit(3)
        at.here()
        conn.recv_line()
        conn.sendall(b"bye")

    server = Server(service=handler).start()
    with dial(server.address) as other, dial(server.address) as leaver:
        other.sendall(b"stay\n")
        at.until()
        leaver.sendall(b"exit\n")
        assert ended(leaver)
        assert read_to_end(other) == b"bye"
    with pytest.raises(SystemExit):
        server.wait(SOON)


def test_the_end_of_with_raises_an_exit_of_a_handler() -> None:
    with pytest.raises(SystemExit), Server(service=functools.partial(leave, kind=SystemExit)) as s:
        visit(s)
        s.ledger.wait(open=0, closed=1)


def test_a_with_whose_body_raised_notes_an_exit_of_a_handler() -> None:
    body = ZeroDivisionError("of the body")
    with pytest.raises(ZeroDivisionError) as caught:
        with Server(service=functools.partial(leave, kind=SystemExit)) as server:
            visit(server)
            wait_until(lambda: server.errors)
            raise body
    assert caught.value is body
    assert any("SystemExit" in note for note in body.__notes__)


@pytest.mark.parametrize("wait", ["run()", "wait()", "stop()"])
def test_sys_exit_in_a_handler_is_the_exit_code_of_the_program(wait: str) -> None:
    code = f"""
import socket, sys
from rsock import Server
server = Server(service=lambda conn: sys.exit(3)).listen()
peer = socket.create_connection(server.address, 5)
if "{wait}" != "run()":
    server.start()
if "{wait}" == "stop()":
    peer.recv(1)
server.{wait}
print("never printed")
"""
    done = run_script(code)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


# --- while others run ----------------------------------------------------------------------


def test_an_error_while_the_peer_sends_ends_its_connection() -> None:
    with Server(service=fail, on_error=lambda error: None) as server:
        for _ in range(10):
            with dial(server.address) as peer, contextlib.suppress(OSError):
                peer.sendall(payload(1 << 20))
                assert ended(peer)
        settled(server, 10)
        assert server.state == "serving"
        assert len(server.errors) == 10


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_an_error_is_kept_before_its_connection_ends(transport: Literal["tcp", "udp"]) -> None:
    noting, go_on = threading.Event(), threading.Event()

    class Slow(Exception):
        def add_note(self, note: str) -> None:
            noting.set()
            assert go_on.wait(SOON)
            super().add_note(note)

    def handler(conn: Connection) -> None:
        raise Slow

    def handle(data: bytes, address: object) -> None:
        raise Slow

    service = handler if transport == "tcp" else handle
    options: dict[str, Any] = {"on_error": lambda error: None, "transport": transport}
    with Server(service=service, **options) as server, server.client(timeout=SOON) as client:
        client.sendall(b"x")
        assert noting.wait(SOON)
        [record] = server.ledger
        found = (record.error, server.ledger.totals.closed, server.errors)
        go_on.set()
        assert found == (None, 0, [])
        if transport == "tcp":
            assert settled(server).closed_by == "error"
        else:
            wait_until(lambda: record.error is not None)
        assert [type(error) for error in server.errors] == [Slow]


def test_what_was_sent_before_an_error_arrives() -> None:
    data = payload(200_000)

    def speak_and_fail(conn: Connection) -> None:
        conn.sendall(data)
        fail(conn)

    with Server(service=speak_and_fail, on_error=lambda error: None) as server:
        with dial(server.address) as peer:
            assert read_to_end(peer) == data
        assert settled(server).closed_by == "error"


def test_an_error_in_one_handler_harms_no_other() -> None:
    def handler(conn: Connection) -> None:
        while line := conn.recv_line():
            if line == b"fail\n":
                fail(conn)
            conn.sendall(line)

    with Server(service=handler, on_error=lambda error: None) as server:
        with dial(server.address) as bystander:
            for count in range(1, 21):
                with dial(server.address) as peer:
                    peer.sendall(b"fail\n")
                    assert ended(peer)
                assert says_back(bystander, b"still here\n")
                server.ledger.wait(open=1, closed=count)
    assert len(server.errors) == 20


def test_a_warning_made_an_error_is_the_handlers() -> None:
    code = """
import logging, socket, warnings
from rsock import Server
logging.getLogger("rsock").disabled = True
def warn(conn):
    warnings.warn("on purpose")
with Server(service=warn) as server:
    socket.create_connection(server.address, 5).recv(1)
    server.ledger.wait(open=0, closed=1)
    print([type(error).__name__ for error in server.errors])
"""
    options = ("-W", "error::UserWarning")
    assert output_of(code, options=options) == "['UserWarning']\n"

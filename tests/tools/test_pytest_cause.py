"""The line of cause in the report of a test, for each kind of failure, over real sockets."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support import LOOPBACK, closed_port, dial, reset, wait_until
from support.errors import raised

import rsock
from rsock import Accept, Connection, Forward, Limits, Replay, Script, Server
from rsock._pytest._cause import cause
from rsock._pytest._failure import compared, kind_of, target_of
from rsock._pytest._scene import look, settle
from rsock._pytest._section import section
from rsock.faults import (
    Blackhole,
    CloseAfter,
    Corrupt,
    Full,
    NeverAccept,
    Refuse,
    Reset,
    Slice,
    Truncate,
)


def line(*servers: Server, error: BaseException | None = None) -> str:
    settle(servers)
    return cause(error, [look(server) for server in servers])


def says(server: Server, *talk: bytes, expects: bytes | None = None) -> BaseException:
    """What a client fails with that receives once for each message, and compares the last."""

    def action() -> None:
        with socket.create_connection(server.address, timeout=0.3) as client:
            for message in talk:
                client.sendall(message)
                received = client.recv(100)
            if expects is not None:
                assert received == expects

    return raised(action)


def traced(service: Any = None, **options: Any) -> Server:
    return Server(service=service, **{"trace": True, "on_error": lambda error: None, **options})


def wants_ten(conn: Connection) -> None:
    conn.sendall(conn.recv_exactly(10))


# --- time-outs -----------------------------------------------------------------------------


def test_a_handler_that_waited_for_more() -> None:
    with traced(wants_ten) as server:
        error = says(server, b"hello")
        found = line(server, error=error)
    assert found.startswith(
        "time-out, connection 1: the handler waited for 10 bytes and had 5, then the client closed"
    )
    assert "in `conn.recv_exactly(10)` (tests/tools/test_pytest_cause.py:" in found


def test_a_handler_that_waits_for_more() -> None:
    with traced(wants_ten) as server, socket.create_connection(server.address, 0.2) as client:
        client.sendall(b"hello")
        found = line(server, error=raised(lambda: client.recv(10)))
    assert found.startswith(
        "time-out, connection 1: the client sent b'hello', and the server sent nothing back: "
        "the handler is in `conn.recv_exactly(10)` ("
    )


def test_a_handler_that_waited_for_a_line() -> None:
    with traced(lambda conn: conn.sendall(conn.recv_line())) as server:
        found = line(server, error=says(server, b"hello"))
    assert "the handler waited for the end of a line and had 5, then the client closed" in found


def test_a_client_that_waits_for_more_than_was_sent() -> None:
    with traced() as server, socket.create_connection(server.address, 0.2) as client:
        client.sendall(b"hello")
        assert client.recv(10) == b"hello"
        found = line(server, error=raised(lambda: client.recv(10)))
    assert found == (
        "time-out, connection 1: the server sent b'hello' last (5 bytes in all), and the client "
        "waited for more"
    )


def test_a_test_that_waits_for_a_connection_that_does_not_come() -> None:
    with traced() as server:
        with socket.create_connection(server.address, 5.0) as client:
            client.sendall(b"hello")
            assert client.recv(10) == b"hello"
        server.ledger.wait(open=0, closed=1)
        found = line(server, error=raised(lambda: server.ledger.wait(closed=2, timeout=0.01)))
    assert found == (
        "time-out: the test waited for closed=2, and 1 connection came; connection 1: 5 bytes "
        "from the client, 5 bytes to it, and the client closed it"
    )


def test_a_test_that_waits_for_a_connection_that_stays() -> None:
    with traced() as server, server.client():
        server.ledger.wait(open=1)
        found = line(server, error=raised(lambda: server.ledger.wait(open=0, timeout=0.01)))
    assert found == (
        "time-out: the test waited for open=0, and 1 connection came; connection 1: 0 bytes "
        "from the client, 0 bytes to it, and it is still open"
    )


def test_a_test_that_waits_for_a_first_connection() -> None:
    with traced() as server:
        waits = raised(lambda: server.ledger.wait(open=0, closed=1, timeout=0.01))
        follows = raised(lambda: next(server.ledger.follow(timeout=0.01)))
        found = [line(server, error=error) for error in (waits, follows)]
        nothing = f"no client has connected to {server.name} (127.0.0.1:{server.port})"
    assert found == [
        f"time-out: the test waited for open=0, closed=1, and {nothing}",
        f"time-out: the test waited for a connection to end, and {nothing}",
    ]


def test_a_test_that_accepts_one_connection_more() -> None:
    with traced(Accept()) as server:
        with server.client(), server.accept(timeout=5.0)[0]:
            found = line(server, error=raised(lambda: server.accept(timeout=0.01)))
    assert found.startswith(
        "time-out: the test waited for accept() to return, and 1 connection came; "
        "connection 1: 0 bytes"
    )


def test_neither_side_sends() -> None:
    def quiet(conn: Connection) -> None:
        conn.recv_line()

    with traced(quiet) as server, socket.create_connection(server.address, 0.2) as client:
        found = line(server, error=raised(lambda: client.recv(10)))
    assert "connection 1: neither side sent a byte" in found
    assert "the handler is in `conn.recv_line()`" in found


def test_no_accept_was_called() -> None:
    with traced(Accept()) as server, socket.create_connection(server.address, 0.2) as client:
        wait_until(lambda: server.waiting == 1)
        found = line(server, error=raised(lambda: client.recv(10)))
    assert found == (
        "time-out: 1 client connected and waited in the queue: no accept() took the connection"
    )


def test_no_client_has_connected() -> None:
    with traced() as server:
        found = line(server, error=TimeoutError("timed out"))
        assert found == (
            f"time-out: the client timed out, and no client has connected to {server.name} "
            f"({server.address[0]}:{server.address[1]})"
        )


def test_a_blackhole() -> None:
    with traced(faults=[Blackhole()]) as server:
        found = line(server, error=says(server, b"hello"))
    assert found.startswith("time-out, connection 1: the fault blackhole held back what was sent")


@pytest.mark.parametrize("fault", [Full(), NeverAccept()])
def test_a_fault_of_accepting(fault: rsock.faults.Fault) -> None:
    with traced(faults=[fault]) as server:
        found = line(server, error=TimeoutError("timed out"))
    assert found == f"time-out: the fault {fault} keeps clients from being accepted"


# --- scripts -------------------------------------------------------------------------------


def test_a_client_that_says_something_else() -> None:
    with traced(Script().expect("QUIT\r\n").send("bye")) as server:
        found = line(server, error=says(server, b"QUIET\r\n"))
    assert found.startswith(
        'reset, connection 1: the script expected b"QUIT\\r\\n" and received b"QUIET\\r\\n", at '
        "step 1 of 2 (tests/tools/test_pytest_cause.py:"
    )


def test_a_client_that_says_less() -> None:
    with traced(Script().expect("QUIT\r\n").send("bye")) as server:
        found = line(server, error=says(server, b"QUI"))
    assert found.startswith(
        'time-out, connection 1: the script expected b"QUIT\\r\\n" and received only b"QUI", then '
        "the client finished (FIN), at step 1 of 2 ("
    )


def test_a_step_that_takes_a_line() -> None:
    with traced(Script().until("\r\n").send("bye")) as server:
        found = line(server, error=says(server, b"QUI"))
    assert "connection 1: the script was at `until b'\\r\\n'` and had b\"QUI\"" in found
    assert "then the client finished (FIN), at step 1 of 2 (" in found


def test_a_step_that_is_not_met_in_time() -> None:
    with traced(Script(timeout=0.1).expect("QUIT\r\n")) as server:
        found = line(server, error=says(server, b"QUI"))
    assert 'received only b"QUI", not met within 0.1 s, at step 1 of 1' in found


def test_a_script_that_resets_at_its_end() -> None:
    with traced(Script().until("\n").reset()) as server:
        found = line(server, error=says(server, b"hello\n"))
    assert found == (
        "reset, connection 1: the script reset it at its end, step 2 of 2, after 0 bytes to the "
        "client"
    )


def test_a_script_that_waits_for_a_client_that_stays() -> None:
    with traced(Script().until("\r\n").send("bye")) as server:
        with socket.create_connection(server.address, 0.2) as client:
            client.sendall(b"QUI")
            found = line(server, error=raised(lambda: client.recv(10)))
    head = (
        "time-out, connection 1: the client sent b'QUI', and the server sent nothing back: the "
        "script waits at step 1 of 2 (tests/tools/test_pytest_cause.py:"
    )
    assert found.startswith(head)
    assert found.endswith(r"): until b'\r\n', 3 bytes so far")


# --- recordings ----------------------------------------------------------------------------


def recorded(tmp_path: Path) -> Replay:
    path = tmp_path / "quit.rec"
    path.write_text(
        "rsock recording 1\ntransport tcp\nstarted 2026-11-28T09:05:00.000000Z\n"
        'target mail.example:25\n1 0.0 open 127.0.0.1:5\n1 0.1 > b"QUIT\\r\\n"\n'
        '1 0.2 < b"bye"\nstop 1.0\n'
    )
    return Replay(path)


def test_a_client_that_differs_from_its_recording(tmp_path: Path) -> None:
    with traced(recorded(tmp_path)) as server:
        found = line(server, error=says(server, b"QUIET\r\n"))
    assert found == (
        'reset, connection 1: the client sends something else: recorded is b"QUIT\\r\\n", and '
        f'received was b"QUIET\\r\\n", at {tmp_path}/quit.rec, line 6'
    )


def test_a_client_that_says_less_than_its_recording(tmp_path: Path) -> None:
    with traced(recorded(tmp_path)) as server:
        found = line(server, error=says(server, b"QU"))
    assert found.startswith("time-out, connection 1: the client finishes (FIN) too early: 4 bytes")


def test_a_client_for_which_nothing_was_recorded(tmp_path: Path) -> None:
    with traced(recorded(tmp_path)) as server:
        with dial(server.address) as client:
            client.sendall(b"QUIT\r\n")
            assert client.recv(10) == b"bye"
        found = line(server, error=says(server, b"QUIT\r\n", expects=b"bye"))
    assert found == f"short read, connection 2: {tmp_path}/quit.rec has 1 connection and no more"


def test_the_first_of_several_attempts_differs_from_its_recording(tmp_path: Path) -> None:
    with traced(recorded(tmp_path)) as server:
        errors = [says(server, b"QUIET\r\n", expects=b"bye") for _ in range(3)]
        found = line(server, error=errors[-1])
        report = section([server], errors[-1], "call", 1, "pytest")
    assert "connection 1: the client sends something else: recorded is" in found
    # Those for which nothing was recorded come behind it.
    assert "\nconnection 1, from the client: 7 B\n" in report
    assert "\nconnection 2, from the client" not in report


def test_a_recording_that_waits_for_a_client_that_stays(tmp_path: Path) -> None:
    with traced(recorded(tmp_path)) as server:
        with socket.create_connection(server.address, 0.2) as client:
            client.sendall(b"QUI")
            found = line(server, error=raised(lambda: client.recv(10)))
    assert found.endswith(
        f"the recording waits at {tmp_path}/quit.rec, line 6 (its connection 1): expects "
        r'b"QUIT\r\n", 3 bytes so far'
    )


# --- handlers that raise -------------------------------------------------------------------


def test_what_a_handler_raises_comes_first() -> None:
    def strict(conn: Connection) -> None:
        if conn.recv_line() != b"hello\n":
            raise LookupError("not polite\nat all")

    with traced(strict) as server:
        found = line(server, error=says(server, b"bye\n", expects=b"hello\n"))
    head = "short read, connection 1: the handler raised LookupError: not polite, in `raise"
    assert found.startswith(head)


# --- resets --------------------------------------------------------------------------------


def test_a_handler_that_aborts() -> None:
    def aborts(conn: Connection) -> None:
        conn.recv_line()
        conn.sendall(b"he")
        conn.abort()

    with traced(aborts) as server:
        found = line(server, error=says(server, b"hello\n", b"again\n"))
    assert found == (
        "reset, connection 1: the handler reset it (abort), after 2 bytes to the client (b'he')"
    )


def test_a_fault_that_resets() -> None:
    with traced(faults=[Reset(after_bytes=3, direction="down")]) as server:
        found = line(server, error=says(server, b"hello\n", b"again\n"))
    assert found == (
        "reset, connection 1: the fault reset:after=3B,down reset it after 3 bytes from the server"
    )


def test_a_limit_of_connections() -> None:
    with traced(limits=Limits(connections=1, overflow="refuse")) as server:
        with dial(server.address):
            server.ledger.wait(open=1)
            error = says(server, b"hello")
            wait_until(lambda: server.ledger.totals.refused == 1)
            found = line(server, error=error)
    assert found == "reset: the server reset 1 connection at its Limits(connections=1)"


def test_a_limit_that_ends_a_connection() -> None:
    with traced(limits=Limits(idle=0.05)) as server:
        with dial(server.address) as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
            assert client.recv(5) == b""
        server.ledger.wait(closed=1)
        found = line(server, error=EOFError("no answer"))
    assert found == "short read, connection 1: the server's Limits(idle=0.05) ended it"


def test_a_limit_of_a_call_of_the_handler() -> None:
    with traced(lambda conn: conn.recv_frame(limit=3)) as server:
        with dial(server.address) as client:
            client.sendall(b"\0\0\0\5hello")
            assert client.recv(5) == b""
        server.ledger.wait(closed=1)
        found = line(server, error=EOFError("no answer"))
    assert found == (
        "short read, connection 1: a limit of the handler's read ended it: "
        "recv_frame: a frame of 5 bytes, where the limit is 3"
    )


def test_a_client_that_resets() -> None:
    with traced() as server:
        client = dial(server.address)
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        reset(client)
        server.ledger.wait(closed=1)
        found = line(server, error=ConnectionResetError("by myself"))
    assert found == "reset, connection 1: the client itself reset it, after 5 bytes"


def test_a_target_that_is_not_there() -> None:
    with closed_port() as (_, port), traced(Forward(LOOPBACK, port)) as server:
        found = line(server, error=says(server, b"hello"))
    assert found.startswith("reset, connection 1: the server's side failed: ")
    assert f"{LOOPBACK}:{port}" in found
    assert "refused" in found


# --- refused -------------------------------------------------------------------------------


def test_a_server_that_was_stopped() -> None:
    server = traced().start()
    server.stop()
    found = line(server, error=says(server, b"hello"))
    host, port = server.address
    assert (
        found == f"refused: the connect was refused: {server.name} ({host}:{port}) had been stopped"
    )


def test_another_address() -> None:
    with closed_port() as (_, port), traced() as server:
        error = raised(lambda: socket.create_connection((LOOPBACK, port), 1.0))
        found = line(server, error=error)
        assert found == (
            f"refused: the connect was refused: nothing listens on {LOOPBACK}:{port}; "
            f"{server.name} listens on {LOOPBACK}:{server.port}"
        )


def test_a_client_of_another_library_that_was_refused() -> None:
    server = traced().start()
    server.stop()
    url = server.url("http")
    pool = urllib3.PoolManager(retries=1)
    found = line(server, error=raised(lambda: pool.request("GET", url)))
    assert f"refused: the connect was refused: {server.name}" in found


def test_a_fault_that_refuses() -> None:
    with traced(faults=[Refuse()]) as server:
        error = raised(lambda: socket.create_connection(server.address, 1.0))
        found = line(server, error=error)
        host, port = server.address
    assert found == f"refused: the fault refuse refused the connect to {host}:{port}"


# --- short reads ---------------------------------------------------------------------------


def test_an_answer_that_is_cut_short() -> None:
    def cut(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")

    with traced(cut) as server:
        client = http.client.HTTPConnection(server.host or "", server.port, timeout=5.0)
        client.request("GET", "/")
        answer = client.getresponse()
        found = line(server, error=raised(answer.read))
        client.close()
    assert found.startswith("short read, connection 1: the server sent 41 bytes (b'HTTP/1.1 200 OK")
    assert found.endswith(", then the handler returned or closed it")


def test_no_answer_at_all() -> None:
    with traced(lambda conn: conn.recv_until(b"\r\n\r\n") and None) as server:
        client = http.client.HTTPConnection(server.host or "", server.port, timeout=5.0)
        client.request("GET", "/")
        found = line(server, error=raised(client.getresponse))
        client.close()
    assert found == (
        "short read, connection 1: the server sent 0 bytes, then the handler returned or closed it"
    )


def test_one_receive_of_several_parts() -> None:
    def parts(conn: Connection) -> None:
        conn.recv_line()
        conn.sendall(b"hel")
        conn.recv_line()
        conn.sendall(b"lo\n")

    with traced(parts) as server:
        found = line(server, error=says(server, b"hello\n", expects=b"hello\n"))
    assert found.startswith(
        "short read, connection 1: the client has 3 of the 6 bytes that the test expects: "
    )
    # The handler may have seen the end of its client before it sent the rest.
    assert "in 2 parts, and one recv() returns" in found or "sent only 3: b'hel'" in found


def test_a_fault_that_closes() -> None:
    with traced(faults=[CloseAfter(after_bytes=3, direction="down")]) as server:
        found = line(server, error=says(server, b"hello\n", expects=b"hello\n"))
    assert found.startswith("short read, connection 1: the fault close:after=3B,down closed it")


# --- wrong bytes ---------------------------------------------------------------------------


def test_a_server_that_says_something_else() -> None:
    def wrong(conn: Connection) -> None:
        conn.recv_line()
        conn.sendall(b"jello\n")

    with traced(wrong) as server:
        found = line(server, error=says(server, b"hello\n", expects=b"hello\n"))
    assert found == (
        "wrong bytes, connection 1: the server sent b'jello\\n', and the test expects b'hello\\n': "
        "they differ at byte 0"
    )


def test_a_client_that_changes_what_was_sent() -> None:
    def action() -> None:
        with dial(server.address) as client:
            client.sendall(b"hello")
            assert client.recv(10).upper() == b"hello"

    with traced() as server:
        found = line(server, error=raised(action))
    assert found == (
        "wrong bytes, connection 1: the server sent b'hello', as the test expects; the client made "
        "b'HELLO' of it"
    )


def test_a_fault_that_corrupts() -> None:
    with traced(faults=[Corrupt(1.0, direction="down")], seed=1) as server:
        found = line(server, error=says(server, b"hello\n", expects=b"hello\n"))
    assert found.startswith("wrong bytes, connection 1: the fault corrupt:1 changed bytes of it")


# --- several, and none ---------------------------------------------------------------------


def test_the_server_is_named_where_there_are_several() -> None:
    with traced(name="calm") as calm, traced(wants_ten, name="greedy") as greedy:
        with dial(calm.address) as client:
            client.sendall(b"x")
            client.recv(1)
        error = says(greedy, b"hello")
        found = line(calm, greedy, error=error)
    assert found.startswith("time-out, greedy, connection 1: the handler waited for 10 bytes")


def test_a_connection_that_went_well_is_described_as_it_was() -> None:
    with traced() as server:
        with dial(server.address) as client:
            client.sendall(b"hello")
            client.recv(5)
        server.ledger.wait(closed=1)
        found = line(server, error=ZeroDivisionError("division by zero"))
    assert found == (
        "connection 1: 5 bytes from the client, 5 bytes to it, and the client closed it"
    )


@pytest.mark.parametrize(
    ("fault", "done"),
    [
        (Truncate(3), "the fault truncate:3 cut it off after 3 bytes from the server"),
        (Corrupt(1.0, direction="down"), "changed bytes of it from the server"),
        (Slice(2), "cut what was sent into parts from the server"),
    ],
    ids=lambda value: "",
)
def test_a_fault_is_named_where_a_client_has_an_error_of_its_own(
    fault: rsock.faults.Fault, done: str
) -> None:
    with traced(faults=[fault]) as server:
        with dial(server.address) as client:
            client.sendall(b"hello")
            client.recv(5)
        server.ledger.wait(closed=1)
        found = line(server, error=ZeroDivisionError("division by zero"))
    assert found.startswith("connection 1: 5 bytes from the client, ")
    assert f"; the fault {fault!s} " in found
    assert found.endswith(done)


def test_what_peers_sent_is_escaped() -> None:
    with traced(Script().expect("x")) as server:
        found = line(server, error=says(server, b"\x1b[31m\r\n\xff"))
    assert "\x1b" not in found
    assert "\\x1b[31m" in found
    assert found.isprintable()


# --- the reading of exceptions -------------------------------------------------------------


class ReadTimeout(Exception):
    """As that of a library whose exceptions do not inherit from the built-in ones."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError(111, "refused"), "refused"),
        (OSError(111, "refused"), "refused"),
        (ConnectionResetError(104, "reset"), "reset"),
        (BrokenPipeError(32, "pipe"), "reset"),
        (TimeoutError("timed out"), "timeout"),
        (ReadTimeout(), "timeout"),
        (http.client.RemoteDisconnected("gone"), "ended"),
        (rsock.IncompleteRead("short", b""), "ended"),
        (EOFError(), "ended"),
        (AssertionError("assert 1 == 2"), "wrong"),
        (ssl.SSLCertVerificationError(1, "unknown"), "tls"),
        (ssl.SSLEOFError(8, "EOF"), "ended"),
        (ZeroDivisionError(), "other"),
        (None, "other"),
        (ExceptionGroup("several", [ValueError(), ConnectionResetError(104, "reset")]), "reset"),
    ],
)
def test_the_kind_of_an_exception(error: BaseException | None, kind: str) -> None:
    assert kind_of(error) == kind


def test_the_kind_of_an_exception_behind_another() -> None:
    def connect() -> None:
        try:
            raise ConnectionRefusedError(111, "refused")
        except ConnectionRefusedError as inner:
            raise RuntimeError("no connection") from inner

    assert kind_of(raised(connect)) == "refused"


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("assert b'a' == b'b'\n  more", (b"a", b"b")),
        ("assert b\"it's\" == b'\\x00'", (b"it's", b"\x00")),
        ("assert 'ä' == 'b'", ("ä".encode(), b"b")),
        ("b'a' != b'b'", (b"a", b"b")),
    ],
)
def test_what_an_assertion_compares(text: str, sides: tuple[bytes, bytes]) -> None:
    found = compared(AssertionError(text))
    assert found is not None
    assert (found.left, found.right) == sides


@pytest.mark.parametrize("text", ["", "assert 1 == 2", "assert b'a...", "not polite"])
def test_an_assertion_on_something_else(text: str) -> None:
    assert compared(AssertionError(text)) is None


def test_the_address_of_a_connect_is_found_in_its_frames() -> None:
    with closed_port() as (_, port):
        error = raised(lambda: http.client.HTTPConnection(LOOPBACK, port).connect())
    assert target_of(error) == (LOOPBACK, port)
    assert target_of(ValueError()) is None
    assert target_of(None) is None

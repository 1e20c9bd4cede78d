"""Talking to a server from the shell: what is printed, and when our side ends."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from support import (
    LOOPBACK,
    closed_port,
    listener,
    payload,
    read_exactly,
    read_to_end,
    reserved_port,
    sleeping,
    wait_until,
)
from support.command_line import PATIENCE, Running, Terminal, run

from rsock import Server


def test_an_answer_after_our_end_is_printed() -> None:
    with listener() as server:
        host, port = server.getsockname()
        with Running("connect", host, str(port)) as command:
            command.last_input(b"question")
            conn, _ = server.accept()
            with conn:
                conn.settimeout(PATIENCE)
                # To our FIN.
                assert read_to_end(conn) == b"question"
                conn.sendall(b"first ")
                conn.sendall(payload(1 << 20).hex().encode())
            code, out, err = command.end()
    assert (code, err) == (0, "")
    assert out == "first " + payload(1 << 20).hex()


def test_an_answer_before_a_reset_is_printed() -> None:
    with listener() as server:
        host, port = server.getsockname()
        with Running("connect", host, str(port)) as command:
            assert command.process.stdin is not None
            command.process.stdin.write(b"what is not read")
            command.process.stdin.flush()
            conn, _ = server.accept()
            conn.settimeout(PATIENCE)
            # A close with unread data is a reset.
            assert conn.recv(1, socket.MSG_PEEK) == b"w"
            conn.sendall(b"the answer")
            conn.close()
            code, out, err = command.end()
    assert (code, out) == (1, "the answer")
    assert err.endswith("Connection reset by peer\n")


def test_our_side_stays_open_on_request() -> None:
    with listener() as server:
        host, port = server.getsockname()
        with Running("connect", "--keep-open", host, str(port)) as command:
            command.last_input(b"question")
            conn, _ = server.accept()
            with conn:
                conn.settimeout(PATIENCE)
                assert read_exactly(conn, 8) == b"question"
                # The input has ended, and no FIN comes: the command waits for what we send.
                conn.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    conn.recv(1)
                conn.settimeout(PATIENCE)
                conn.sendall(b"answer")
            code, out, err = command.end()
    assert (code, out, err) == (0, "answer", "")


def test_ctrl_d_does_not_end_a_side_that_stays_open(echo: Server) -> None:
    with Terminal("connect", "--keep-open", echo.host, str(echo.port)) as terminal:
        terminal.until(r"connected to .*; Ctrl-C ends it")
        terminal.type("hello\n\x04")
        terminal.until(r"hello\nhello\n")
        [record] = echo.ledger.open
        terminal.type("\x03")
        assert terminal.end() == 130
    echo.ledger.wait(open=0, closed=1)
    assert record.bytes_in == 6


def test_a_late_answer_by_datagram_is_waited_for() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((LOOPBACK, 0))
        server.settimeout(PATIENCE)
        host, port = server.getsockname()
        options = ("--udp", "--timeout", str(PATIENCE))
        with Running("connect", *options, host, str(port)) as command:
            command.last_input(b"question")
            data, peer = server.recvfrom(100)
            assert data == b"question"
            # Longer than the second that is waited without the option.
            time.sleep(1.5)
            server.sendto(b"answer\n", peer)
            assert command.line() == "answer"


def test_a_target_by_datagram_that_is_silent_ends_it() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((LOOPBACK, 0))
        host, port = server.getsockname()
        assert run("connect", "--udp", "--timeout", "0.2", host, str(port), data=b"x") == (
            0,
            "",
            "",
        )


# --- waiting -------------------------------------------------------------------------------


def waits(pid: int) -> None:
    """Wait until a command has loaded the engine and sleeps."""
    maps = Path(f"/proc/{pid}/maps")
    wait_until(lambda: "_rsock" in maps.read_text())
    wait_until(lambda: sleeping(pid, pid))


def test_waiting_ends_when_a_server_accepts() -> None:
    options = ("--timeout", str(PATIENCE))
    with reserved_port() as port, Running("wait", f"{LOOPBACK}:{port}", *options) as command:
        # It has been refused at least once.
        waits(command.process.pid)
        assert command.process.poll() is None
        with Server(LOOPBACK, port) as server:
            assert command.end() == (0, "", "")
            [record] = server.ledger.wait(open=0, closed=1)
            assert record.bytes_in == 0


def test_waiting_for_a_server_that_is_there_takes_every_form(echo: Server, directory: Path) -> None:
    path = str(directory / "socket")
    with Server(path=path):
        assert run("wait", path) == (0, "", "")
        assert run("wait", "--path", path) == (0, "", "")
    assert run("wait", f"{echo.host}:{echo.port}") == (0, "", "")
    assert run("wait", echo.host, str(echo.port), "--timeout", "5") == (0, "", "")


def test_waiting_in_vain_is_a_failure_that_says_why() -> None:
    with closed_port() as (host, port):
        for timeout in ("0.2", "0"):
            code, out, err = run("wait", f"{host}:{port}", "--timeout", timeout)
            assert (code, out) == (1, "")
            assert err == (
                f"rsock: nothing accepts connections at {host}:{port} after {timeout} s"
                f" (connect {host}:{port}: Connection refused)\n"
            )


def test_ctrl_c_ends_waiting() -> None:
    with closed_port() as (host, port), Terminal("wait", f"{host}:{port}") as terminal:
        # An interrupt while Python starts would be Python's own.
        waits(terminal.pid)
        terminal.type("\x03")
        assert terminal.end() == 130
        assert "Traceback" not in terminal.seen

"""Script: a dialogue step by step, over real sockets."""

from __future__ import annotations

import contextlib
import logging
import pickle
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import SOON
from support.dialogues import played, result

from rsock import (
    ByConnection,
    Captured,
    Client,
    Echo,
    Script,
    ScriptMismatch,
    ScriptResult,
    Server,
)


def in_pieces(client: Client, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        client.sendall(data[start : start + size])


SMTP = (
    Script()
    .send(b"220 ready\r\n")
    .expect(b"HELO ")
    .until(b"\r\n", name="who")
    .send(b"250 hello ", Captured("who"), b"\r\n")
    .expect_pattern(rb"MAIL FROM:<(?P<from>[^>]*)>\r\n")
    .send(b"250 ok\r\n")
    .expect_frame(">H", name="body")
    .expect_length(3, name="tail")
    .expect_end()
    .send(b"221 ", Captured("from"), b" ", Captured("body"), Captured("tail"))
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_script_is_played_however_its_client_cuts_the_bytes(size: int) -> None:
    with played(SMTP) as (server, client):
        said = b"HELO me\r\nMAIL FROM:<a@b>\r\n\0\4body123"
        in_pieces(client, said, size)
        client.shutdown(socket.SHUT_WR)
        expected = b"220 ready\r\n250 hello me\r\n250 ok\r\n221 a@b body123"
        assert client.recv_exactly(len(expected)) == expected
        assert client.recv(1) == b""
        found = result(server)
    captures = {"who": b"me", "from": b"a@b", "body": b"body", "tail": b"123"}
    assert found == ScriptResult(1, True, 10, 10, None, captures, b"")


def test_bytes_behind_the_script_are_told() -> None:
    with played(Script().expect(b"a")) as (server, client):
        client.sendall(b"abc")
        assert client.recv(1) == b""
        assert (result(server).done, result(server).unused) == (True, b"bc")


def test_a_divergence_is_told_with_its_step_its_line_and_the_bytes() -> None:
    script = Script().expect(b"ab").send(b"ok").expect(b"QUIT\r\n")
    with played(script) as (server, client):
        client.sendall(b"abQUIET\r\n")
        with pytest.raises(ConnectionResetError):
            while client.recv(10):
                pass
        found = result(server)
        [record] = server.ledger.wait(closed=1, timeout=SOON)
    assert (found.done, found.step, found.steps) == (False, 3, 3)
    error = found.error or ""
    first, *lines = error.splitlines()
    assert first.startswith("step 3 of 3 (")
    assert "test_script.py:" in first
    assert r"expect b'QUIT\r\n'" in first
    assert lines[0] == r'  expected b"QUIT\r\n"'
    assert lines[1].split() == [f"{byte:02x}" for byte in b"QUIT\r\n"]
    assert lines[2] == r'  received b"QUIET\r\n"'
    assert "first difference at byte 3" in error
    assert lines[-1] == '  before it: received b"ab", sent b"ok"'
    assert (record.closed_by, record.error) == ("error", error)


@pytest.mark.parametrize(
    ("script", "said", "why"),
    [
        (Script().until(b"\n", limit=5), b"123456", "more than 5 bytes"),
        (Script().expect_pattern(rb"a+b", limit=5), b"aaaaaa", "more than 5 bytes"),
        (Script().expect_frame(">I", limit=5), b"\0\0\0\6", "announces 6 bytes"),
        (Script().expect_end(), b"x", "bytes came"),
        (Script().expect_silence(SOON), b"x", "bytes came"),
        (Script().either(Script().expect(b"a"), Script().expect(b"b")), b"c", "none of: "),
        (Script().any_order(Script().expect(b"a"), Script().expect(b"b")), b"aa", "none of: "),
    ],
)
def test_what_cannot_be_met_any_more_ends_the_dialogue_at_once(
    script: Script, said: bytes, why: str
) -> None:
    with played(script) as (server, client):
        client.sendall(said)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert why in (result(server).error or "")


def test_an_early_end_is_a_divergence() -> None:
    with played(Script().expect(b"abc")) as (server, client):
        client.sendall(b"ab")
        client.shutdown(socket.SHUT_WR)
        error = result(server).error or ""
    assert "the peer finished (FIN)" in error
    assert 'received b"ab"' in error


def test_each_step_has_a_deadline() -> None:
    with played(Script(timeout=30).expect(b"abc", timeout=0.05)) as (server, client):
        begin = time.monotonic()
        client.sendall(b"ab")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert time.monotonic() - begin >= 0.04
        error = result(server).error or ""
    assert "not met within 0.05 s" in error
    assert 'received b"ab"' in error


def test_a_client_that_does_not_read_is_a_divergence() -> None:
    script = Script(timeout=0.1).send(b"x" * (1 << 24))
    with played(script) as (server, _):
        assert "the peer has not read it" in (result(server).error or "")


def test_a_wait_delays_what_follows_and_takes_no_input() -> None:
    with played(Script().wait(0.1).send(b"late").expect(b"early")) as (server, client):
        begin = time.monotonic()
        client.sendall(b"early")
        assert client.recv_exactly(4) == b"late"
        assert time.monotonic() - begin >= 0.09
        assert client.recv(1) == b""
        assert result(server).done


def test_silence_is_met_by_nothing() -> None:
    with played(Script().expect_silence(0.05).send(b"quiet")) as (server, client):
        assert client.recv_exactly(5) == b"quiet"
        assert result(server).done


def test_steps_repeat_and_nest() -> None:
    inner = Script().expect(b"a").send(b"1")
    script = Script().repeat(3, Script().repeat(2, inner).send(b"-")).send(b".")
    with played(script) as (_, client):
        client.sendall(b"a" * 6)
        assert client.recv_until(b".") == b"11-11-11-."


def test_a_choice_goes_on_behind_what_was_met() -> None:
    script = Script().repeat(
        3,
        Script().either(
            Script().expect(b"PING").send(b"pong"),
            Script().expect(b"GET ").until(b"\n", name="key").send(Captured("key"), b"!"),
        ),
    )
    with played(script) as (server, client):
        client.sendall(b"GET a\nPINGGET b\n")
        assert client.recv_exactly(8) == b"a!pongb!"
        assert result(server).done


def test_blocks_of_any_order_are_each_played_once() -> None:
    blocks = [Script().expect(each).send(each.upper()) for each in (b"a", b"b", b"c")]
    script = Script().any_order(*blocks).expect(b"end")
    for said in (b"abc", b"cba", b"bac"):
        with played(script) as (server, client):
            in_pieces(client, said + b"end", 1)
            assert client.recv_exactly(3) == said.upper()
            assert result(server).done


def test_a_script_can_finish_reset_and_stop_reading() -> None:
    with played(Script().shutdown_write().expect(b"still")) as (server, client):
        assert client.recv(1) == b""
        client.sendall(b"still")
        assert result(server).done
    with played(Script().expect(b"x").reset()) as (server, client):
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert result(server).done
    held = Script().pause_reading().expect_silence(0.05).resume_reading().expect(b"x" * 10)
    with played(held) as (server, client):
        client.sendall(b"x" * 10)
        assert client.recv(1) == b""
        assert result(server).done


def test_each_connection_may_have_a_script_of_its_own() -> None:
    service = ByConnection(Script().reset(), Script().send(b"second"), rest=Echo())
    with Server(service=service) as server:
        # The reset may come before the connect has returned.
        with pytest.raises(ConnectionResetError), server.client(timeout=SOON) as client:
            client.recv(1)
        with server.client(timeout=SOON) as client:
            assert client.recv_exactly(6) == b"second"
        server.ledger.wait(closed=2, timeout=SOON)
        assert [each.connection for each in server.script_results] == [1, 2]
        assert all(each.done for each in server.script_results)


def test_the_results_of_two_servers_stay_apart() -> None:
    script = Script().expect(b"a")
    with played(script) as (first, client):
        client.sendall(b"b")
        assert result(first).error
        with played(script, on_error="raise") as (second, other):
            other.sendall(b"a")
            assert result(second).done
            assert len(second.script_results) == len(first.script_results) == 1
    assert len(script.results) == 2
    script.clear()
    assert script.results == []


def test_a_divergence_is_raised_by_the_stop_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    script = Script().expect(b"a")

    def diverge(on_error: Any) -> None:
        with played(script, on_error=on_error) as (server, client):
            client.sendall(b"b")
            assert result(server).error
            server.stop()

    with pytest.raises(ExceptionGroup, match="1 client diverged from the script of") as caught:
        diverge("raise")
    [error] = caught.value.exceptions
    assert isinstance(error, ScriptMismatch)
    assert error.result.connection == 1
    with caplog.at_level(logging.ERROR, "rsock"):
        diverge("log")
    assert "connection 1 of" in caplog.text
    assert "diverged from its script: step 1 of 1" in caplog.text
    told: list[BaseException] = []
    diverge(told.append)
    assert [type(each) for each in told] == [ScriptMismatch]
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.result) == (str(error), error.result)
    with pytest.raises(ScriptMismatch, match="step 1 of 1"):
        script.check()


def test_many_divergences_are_a_few_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with Server(service=Script().expect(b"a")) as server:
        for _ in range(30):
            with server.client(timeout=SOON) as client, contextlib.suppress(ConnectionResetError):
                client.sendall(b"b")
                client.recv(1)
        server.ledger.wait(closed=30, timeout=SOON)
        with caplog.at_level(logging.ERROR, "rsock"):
            server.stop()
    assert len(caplog.records) == 11
    assert "20 more connections of" in caplog.text


def test_a_script_can_be_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "smtp.script"
    SMTP.save(path)
    assert path.read_text().startswith("# rsock script 1\n")
    loaded = Script.load(path)
    assert loaded == SMTP
    assert hash(loaded) == hash(SMTP)
    assert loaded != SMTP.close()
    with played(loaded) as (_, client):
        assert client.recv_line() == b"220 ready\r\n"


def test_the_number_of_a_descriptor_is_no_path(tmp_path: Path) -> None:
    path = tmp_path / "smtp.script"
    SMTP.save(path)
    with path.open("r+b") as file:
        number: Any = file.fileno()
        for call in (SMTP.save, Script.load):
            with pytest.raises(TypeError, match=f"path must be a path: .*, not int: {number}"):
                call(number)
        # Not closed.
        assert file.read(8) == b"# rsock "
    assert Script.load(path) == SMTP


@given(st.binary(min_size=1, max_size=200))
def test_bytes_of_any_value_are_steps(data: bytes) -> None:
    script = Script().expect(data).send(data)
    assert len(script) == 2
    assert Script(script.text) == script


NUMBER: Any = 5
ECHO: Any = Echo()


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: Script().expect(b""), ValueError, "at least one byte"),
        (lambda: Script().expect(NUMBER), TypeError, "data must be bytes or a str"),
        (lambda: Script().expect(b"a", timeout=-1), ValueError, "seconds"),
        (lambda: Script().expect(b"a", timeout=float("nan")), ValueError, "seconds"),
        (lambda: Script().until(b"a", limit=0), ValueError, "bytes"),
        (lambda: Script().until(b"a", name="a b"), ValueError, "ASCII identifier, not 'a b'"),
        (lambda: Script().expect_length(0), ValueError, "bytes"),
        (lambda: Script().expect_frame(">i"), ValueError, "no header"),
        (lambda: Script().expect_pattern(b"("), ValueError, "pattern"),
        (lambda: Script().send(), TypeError, "needs bytes"),
        (lambda: Script().send(Captured("who")), ValueError, "who}: no step captures"),
        (lambda: Script().repeat(0, Script().expect(b"a")), ValueError, "rounds"),
        (lambda: Script().repeat(2, Script()), ValueError, "needs a step"),
        (lambda: Script().repeat(2, ECHO), TypeError, "needs a Script"),
        (lambda: Script().either(), TypeError, "needs a Script"),
        (lambda: Script().either(Script().send(b"a")), ValueError, "begins with an expectation"),
        (lambda: Script("expct b'a'"), ValueError, "line 1: .expct.: no such step"),
        (lambda: Script(NUMBER), TypeError, "text"),
        (lambda: Captured(NUMBER), TypeError, "name must be a str"),
    ],
)
def test_a_step_that_is_wrong_is_named(build: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        build()


def test_a_script_is_for_streams() -> None:
    with pytest.raises(TypeError, match="serves streams only"):
        Server(transport="udp", service=Script().send(b"x"))


def test_steps_that_never_wait_leave_the_thread_to_others() -> None:
    script = ByConnection(Script().repeat(2**40, Script().shutdown_write()), rest=Echo())
    with Server(service=script, workers=1, drain=0) as server:
        with server.client(timeout=SOON) as first:
            assert first.recv(1) == b""
            with server.client(timeout=SOON) as second:
                second.sendall(b"x")
                assert second.recv_exactly(1) == b"x"

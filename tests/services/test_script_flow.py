"""Script: clients faster or slower than it, ends in the middle, and scripts that are wrong."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from support import SOON, wait_until
from support.dialogues import played, result

from rsock import ByConnection, Captured, Client, Echo, Script, Server
from rsock.faults import Latency, Slice

MIB = 1 << 20


def received(client: Client) -> bytes:
    """Everything up to the end, also if that is a reset."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := client.recv(65_536):
            data += more
    return data


A, B = Script().expect(b"a", timeout=0.05), Script().expect(b"b", timeout=0.02)
SLOW = Script().expect(b"c")


@pytest.mark.parametrize(
    ("script", "seconds"),
    [
        (Script().repeat(None, A), 0.05),
        (Script().repeat(None, Script(timeout=0.05).expect(b"a")), 0.05),
        (Script().repeat(None, Script().either(A, B)), 0.05),
        (Script().repeat(None, Script().either(SLOW, B, timeout=0.03)), 0.03),
        (Script().either(A, B), 0.05),
        (Script().either(A, Script().expect_silence(30.0)), 0.05),
        (Script().either(SLOW, B, timeout=0.03), 0.03),
        (Script(timeout=0.07).either(SLOW, B), 0.07),
        (Script().any_order(A, B), 0.05),
        (Script().any_order(SLOW, B, timeout=0.03), 0.03),
        (Script(timeout=30).repeat(1, Script(timeout=0.05).either(SLOW, SLOW)), 0.05),
        (Script("repeat until end timeout=0.04 {\nexpect b'a'\n}\n"), 0.04),
    ],
)
def test_a_choice_waits_as_long_as_its_parts(script: Script, seconds: float) -> None:
    with played(script) as (server, client):
        assert received(client) == b""
        assert f"not met within {seconds} s" in (result(server).error or "")


def test_a_client_that_is_far_ahead_of_its_script_waits() -> None:
    script = Script().wait(0.2).repeat(100, Script().expect_length(MIB // 100)).send(b"ok")
    with played(script) as (server, client):
        client.sendall(bytes(MIB // 100 * 100))
        assert client.recv_exactly(2) == b"ok"
        assert result(server).done


def test_a_client_that_sends_while_the_script_sends_waits() -> None:
    script = Script().send(bytes(8 * MIB)).repeat(64, Script().expect_length(MIB // 64)).send(b"!")
    with played(script) as (server, client):
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(32 * MIB))
        client.settimeout(SOON)
        sent = 8 * MIB
        while sent:
            sent -= len(client.recv(sent))
        assert client.recv_exactly(1) == b"!"
        assert result(server).done


def test_input_that_has_arrived_waits_while_reading_is_paused() -> None:
    script = Script().expect(b"a").pause_reading().expect_silence(0.05).resume_reading()
    for said in (b"ab", b"a"):
        with played(script.send(b"1").expect(b"b")) as (server, client):
            client.sendall(said)
            assert client.recv_exactly(1) == b"1"
            client.sendall(b"b"[len(said) - 1 :])
            assert client.recv(1) == b""
            assert result(server).error is None


def test_an_expectation_while_reading_is_paused_is_not_met() -> None:
    with played(Script(timeout=0.05).expect(b"a").pause_reading().expect(b"b")) as (server, client):
        client.sendall(b"ab")
        assert received(client) == b""
        assert "not met within 0.05 s, reading is paused" in (result(server).error or "")


@pytest.mark.parametrize("size", [1, 100])
def test_a_choice_does_not_depend_on_how_the_bytes_are_cut(size: int) -> None:
    script = Script().either(
        Script().expect(b"HELPER").send(b"1"),
        Script().expect_pattern(b"HELPED|HELP m").send(b"2"),
        Script().expect(b"HELPED").send(b"3"),
        Script().until(b" ").send(b"4"),
    )
    cases = ((b"HELPER ", b"1"), (b"HELPED ", b"2"), (b"HELP me ", b"4"), (b"HEAL ", b"4"))
    for said, answer in cases:
        with played(script) as (_, client):
            for start in range(0, len(said), size):
                client.sendall(said[start : start + size])
            assert received(client) == answer


def test_a_choice_may_be_silence() -> None:
    script = Script().either(
        Script().expect(b"hello").send(b"heard"), Script().expect_silence(0.1).send(b"quiet")
    )
    with played(script) as (_, client):
        assert received(client) == b"quiet"
    with played(script) as (_, client):
        client.sendall(b"hello")
        assert received(client) == b"heard"
    with played(script) as (server, client):
        client.sendall(b"hel")
        wait_until(lambda: [each.bytes_in for each in server.ledger.open] == [3])
        client.sendall(b"lo")
        assert received(client) == b"heard"


def test_a_choice_has_a_deadline_of_its_own_and_names_its_parts() -> None:
    script = Script().either(Script().expect(b"a"), Script().until(b"b"), timeout=0.05)
    with played(script) as (server, client):
        assert received(client) == b""
        error = result(server).error or ""
    assert "not met within 0.05 s: expect b'a'; until b'b'" in error


def test_rounds_go_on_until_the_client_finishes_or_resets() -> None:
    script = Script().repeat(None, Script().until(b"\n", name="x").send(Captured("x"), b"."))
    with played(script) as (server, client):
        client.sendall(b"one\ntwo\n")
        client.shutdown(socket.SHUT_WR)
        assert received(client) == b"one.two."
        assert result(server).done
    with played(script) as (server, client):
        client.sendall(b"one\n")
        assert client.recv_exactly(4) == b"one."
        client.abort()
        assert result(server).done
    with played(script) as (server, client):
        client.sendall(b"on")
        client.shutdown(socket.SHUT_WR)
        assert received(client) == b""
        assert "none of: until" in (result(server).error or "")


def test_rounds_may_begin_with_a_choice() -> None:
    choice = Script().either(Script().expect(b"a").send(b"1"), Script().expect(b"b").send(b"2"))
    with played(Script().repeat(None, choice)) as (server, client):
        client.sendall(b"abba")
        client.shutdown(socket.SHUT_WR)
        assert received(client) == b"1221"
        assert result(server).done


def test_an_end_may_be_a_reset() -> None:
    for or_reset in (False, True):
        with played(Script().send(b"unread").expect_end(or_reset=or_reset)) as (server, client):
            assert client.recv_exactly(1) == b"u"
            # A close with unread bytes resets as well, but a FIN goes ahead and may be seen.
            client.abort()
            assert result(server).done == or_reset
    error = "the connection ended before (closed by reset)"
    with played(Script().expect_end(or_reset=True).send(b"x")) as (server, client):
        client.abort()
        assert error in (result(server).error or "")


def test_a_send_is_cut_into_slices() -> None:
    script = Script().send(b"abcdefg", size=3, delay=0.05)
    with played(script, trace=True) as (server, client):
        begin = time.monotonic()
        assert received(client) == b"abcdefg"
        assert time.monotonic() - begin >= 0.08
        assert result(server).done
    with played(Script().send(bytes(MIB), size=1000)) as (server, client):
        assert len(received(client)) == MIB


def test_letters_of_either_case_are_the_same_if_wanted() -> None:
    with played(Script().expect("QUIT\r\n", ignore_case=True)) as (server, client):
        client.sendall(b"qUit\r\n")
        assert received(client) == b""
        assert result(server).done
    with played(Script().expect("QUIT\r\n", ignore_case=True)) as (server, client):
        client.sendall(b"qUik\r\n")
        assert received(client) == b""
        assert 'first difference at byte 3: expected b"T"' in (result(server).error or "")


def test_frames_may_have_other_bytes_in_their_header_and_count_themselves() -> None:
    for header, adjust, frame in (
        (">xI", -4, b"Q" + struct.pack(">I", 7) + b"abc"),
        ("<Tx", None, b"\3\0\0\1abc"),
        ("<2xH", 2, b"..\1\0abc"),
    ):
        script = Script().expect_frame(header, name="body", adjust=adjust)
        with played(script) as (server, client):
            client.sendall(frame)
            assert received(client) == b""
            assert result(server).captures == {"body": b"abc"}


def test_a_group_that_takes_no_part_is_empty() -> None:
    step = Script().expect_pattern(rb"GET(?P<what> \w)?;").send(b"<", Captured("what"), b">")
    with played(step.repeat(1, step)) as (_, client):
        client.sendall(b"GET a;GET;")
        assert received(client) == b"< a><>"


def test_a_name_that_was_not_captured_is_not_sent_as_nothing() -> None:
    choice = Script().either(Script().expect(b"a"), Script().until(b"b", name="x"))
    with played(choice.send(Captured("x"))) as (server, client):
        client.sendall(b"a")
        assert received(client) == b""
        assert "send {x}: no step before it has captured x" in (result(server).error or "")


def test_bytes_that_were_used_late_are_not_told_as_unused() -> None:
    with played(Script().expect(b"abc")) as (server, client):
        client.sendall(b"ab")
        wait_until(lambda: [each.bytes_in for each in server.ledger.open] == [2])
        client.sendall(b"cd")
        assert received(client) == b""
        assert result(server).unused in (b"d", b"")
        assert result(server).done


@pytest.mark.parametrize(
    "end",
    [
        Script().send(b"bye"),
        Script().send(b"bye").close(),
        Script().send(b"bye", size=2).shutdown_write(),
        Script().repeat(1, Script().send(b"bye").shutdown_write()).close(),
    ],
)
def test_a_result_is_there_before_the_last_bytes(end: Script) -> None:
    with Server(service=Script().expect(b"a").repeat(1, end)) as server:
        for count in range(1, 30):
            with server.client(timeout=SOON) as client:
                client.sendall(b"a")
                assert client.recv_exactly(3) == b"bye"
                assert len(server.script_results) == count
                assert server.script_results[-1].step == len(server.service)  # type: ignore


def test_the_result_of_a_last_send_that_is_not_read_is_its_time_out() -> None:
    with played(Script(timeout=0.05).send(bytes(32 * MIB))) as (server, client):
        assert "has not read it" in (result(server).error or "")


def test_the_deadline_of_an_inner_script_is_its_own() -> None:
    inner = Script(timeout=0.05).expect(b"b").repeat(1, Script().expect(b"c"))
    assert "timeout 0.05" in Script(timeout=30).repeat(1, inner).text
    with played(Script(timeout=30).expect(b"a").repeat(1, inner)) as (server, client):
        client.sendall(b"ab")
        assert received(client) == b""
        assert "not met within 0.05 s" in (result(server).error or "")
    assert Script(inner.repeat(2, inner).text) == inner.repeat(2, inner)


def test_a_difference_far_behind_is_shown() -> None:
    with played(Script().expect(b"x" * 5_000 + b"end")) as (server, client):
        client.sendall(b"x" * 5_000 + b"and")
        assert received(client) == b""
        error = result(server).error or ""
    assert len(error) < 2_000
    assert '…b"xxxxxxxxxxxxxxxxend" (from byte 4984 of 5003)' in error
    assert '…b"xxxxxxxxxxxxxxxxand" (from byte 4984 of 5003)' in error


def test_a_report_is_short_whatever_the_step_is() -> None:
    with played(Script(timeout=0.05).send(b"x" * (16 * MIB))) as (server, _):
        assert len(result(server).error or "") < 2_000


def test_a_report_has_the_step_as_it_is_written() -> None:
    with played(Script().expect(b"look # at me {")) as (server, client):
        client.sendall(b"look away")
        assert received(client) == b""
        assert "expect b'look # at me {'\n" in (result(server).error or "")


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize(
    "step",
    [
        Script().expect(b"abc"),
        Script().until(b"c"),
        Script().expect_pattern(b"a.c"),
        Script().expect_length(3),
        Script().expect_frame("B"),
        Script().either(Script().expect(b"x"), Script().expect(b"y")),
        Script().any_order(Script().expect(b"x"), Script().expect(b"y")),
        Script().repeat(3, Script().expect(b"x")),
        Script().send(bytes(32 * MIB)),
        Script().send(b"ab", size=1, delay=30),
        Script().wait(30),
        Script().expect_silence(30),
        Script().pause_reading().wait(30),
    ],
)
def test_a_client_that_vanishes_in_any_step_leaves_a_result(step: Script, how: str) -> None:
    with Server(service=step, on_error=lambda error: None, drain=0) as server:
        with server.client(timeout=SOON) as client:
            server.ledger.wait(open=1, timeout=SOON)
            if how == "reset":
                client.abort()
        if how == "end" and not any(each.error for each in server.script_results):
            # A wait does not hear the end of its client.
            server.stop()
        found = result(server)
        assert not found.done
        assert found.error


def test_a_stop_in_the_middle_is_told() -> None:
    with played(Script().expect(b"a"), drain=0) as (server, client):
        server.ledger.wait(open=1, timeout=SOON)
        server.stop()
        assert "closed by stop" in (result(server).error or "")


def test_a_stop_between_two_rounds_ends_the_script_at_once() -> None:
    rounds = Script().repeat(None, Script().expect(b"a").send(b"1"))
    for drain in (0, 30):
        with played(rounds, drain=drain, on_error="raise") as (server, client):
            client.sendall(b"a")
            assert client.recv_exactly(1) == b"1"
            begin = time.monotonic()
            server.stop()
            assert time.monotonic() - begin < 15
            assert result(server).done


@pytest.mark.parametrize("faults", [(), (Slice(1),), (Latency(0.01),)])
def test_scripts_are_played_on_unix_sockets_and_behind_faults(
    tmp_path: Path, faults: tuple[Any, ...]
) -> None:
    script = Script().until(b"\n", name="x").send(Captured("x"), size=2).expect_end().send(b"!")
    shapes: list[dict[str, Any]] = [{}, {"path": str(tmp_path / "socket")}, {"workers": 3}]
    for options in shapes:
        with played(script, faults=faults, **options) as (server, client):
            client.sendall(b"hello\n")
            client.shutdown(socket.SHUT_WR)
            assert received(client) == b"hello!"
            assert result(server).done


def test_many_clients_each_play_the_whole_script() -> None:
    script = Script().repeat(20, Script().until(b"\n", name="x").send(Captured("x"), b"\n"))
    with Server(service=script, workers=3) as server:
        clients = [server.client(timeout=SOON) for _ in range(50)]
        for number, client in enumerate(clients):
            client.sendall(b"%d\n" % number * 20)
        for number, client in enumerate(clients):
            assert received(client) == b"%d\n" % number * 20
            client.close()
        assert all(each.done for each in server.script_results)
        assert len(server.script_results) == 50


def test_deadlines_of_zero_use_what_is_there() -> None:
    script = Script().expect(b"a").expect(b"b", timeout=0).wait(0).expect_silence(0).send(b"ok")
    with played(script) as (server, client):
        client.sendall(b"ab")
        assert received(client) == b"ok"
    with played(Script().expect(b"a").expect(b"b", timeout=0)) as (server, client):
        client.sendall(b"a")
        assert received(client) == b""
        assert "not met within 0 s" in (result(server).error or "")


def test_a_long_script_is_built_in_a_short_time() -> None:
    begin = time.monotonic()
    script = Script()
    for _ in range(100):
        script = script.expect_pattern(rb"(?i:ehlo|helo) (?P<name>[^\r\n]+)\r\n").send(b"250\r\n")
    assert len(script) == 200
    assert time.monotonic() - begin < 10


def test_blocks_that_are_nested_deep_are_checked_in_a_short_time() -> None:
    text = "repeat 2 {\n" * 32 + "shutdown write\n" + "}\n" * 32
    begin = time.monotonic()
    assert len(Script(text)) == 33
    assert time.monotonic() - begin < 5


def wrong(value: object) -> Any:
    return value


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: Script().close().send(b"a"), ValueError, "no step follows close"),
        (lambda: Script().repeat(2, Script().reset().wait(1)), ValueError, "no step follows reset"),
        (lambda: Script().shutdown_write().send(b"a"), ValueError, "nothing can be sent"),
        (lambda: Script().until(b"a", name="x\nclose"), ValueError, "ASCII identifier"),
        (lambda: Script().until(b"a", name="x limit=3"), ValueError, "ASCII identifier"),
        (lambda: Script().until(b"a", name="é"), ValueError, "ASCII identifier"),
        (lambda: Script().until(b"a", name=wrong(5)), TypeError, "name must be a str"),
        (lambda: Script().until(b"a", limit=wrong("5")), TypeError, "limit must be an int"),
        (lambda: Script().expect_length(wrong(5.0)), TypeError, "count must be an int"),
        (lambda: Script().expect_frame(">I\nclose"), ValueError, "header must be a format"),
        (lambda: Script().expect_frame(">I limit=3"), ValueError, "header must be a format"),
        (lambda: Script().expect_frame(wrong(5)), TypeError, "header must be a str"),
        (lambda: Script().expect_frame(">II"), ValueError, "no header"),
        (lambda: Script().expect_frame("I", adjust=1 << 40), ValueError, "bytes"),
        (lambda: Script().expect_pattern(rb"a$"), ValueError, "must not end with"),
        (lambda: Script().expect_pattern(rb"(a|b\b)c?"), ValueError, "must not end with"),
        (lambda: Script().wait(wrong("1\nclose")), TypeError, "seconds must be a number"),
        (lambda: Script().wait(float("inf")), ValueError, "seconds"),
        (lambda: Script().expect(b"a", timeout=wrong("5")), TypeError, "timeout must be a number"),
        (lambda: Script(timeout=wrong("5")), TypeError, "timeout must be a number"),
        (lambda: Script().send(b"a", delay=1), ValueError, "delay= needs size="),
        (lambda: Script().send(b"a", size=0), ValueError, "bytes"),
        (lambda: Script().send(Captured("x} {y")), ValueError, "ASCII identifier"),
        (lambda: Script().repeat(wrong(1.5), Script().wait(1)), TypeError, "count must be an int"),
        (lambda: Script().repeat(1 << 64, Script().wait(1)), ValueError, "rounds"),
        (lambda: Script().repeat(None, Script().send(b"a")), ValueError, "begins with expected"),
        (lambda: Script().repeat(None, Script().expect_end()), ValueError, "begins with expected"),
        (lambda: Script().expect_pattern(b".*"), ValueError, "must not match nothing"),
        (lambda: Script("repeat 2 # x {\nwait 1\n}"), ValueError, "needs a {"),
        (lambda: Script("expect b'a' or_reset"), ValueError, "one word too many"),
    ],
)
def test_what_is_wrong_adds_no_other_step(build: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        build()


def test_scripts_by_connection_may_be_nested_and_shared() -> None:
    shared = Script().send(b"shared")
    service = ByConnection(shared, ByConnection(Echo(), shared), rest=shared)
    with Server(service=service) as server:
        for _ in range(3):
            with server.client(timeout=SOON) as client:
                assert received(client) == b"shared"
        assert [each.connection for each in server.script_results] == [1, 2, 3]

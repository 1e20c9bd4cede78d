"""Where a dialogue is while it goes on: `ScriptResult.position` of scripts and recordings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import SOON, wait_until
from support.dialogues import played, result
from support.markup import checked, html_of

from rsock import ByConnection, Captured, Replay, Script, ScriptResult, Server

MIB = 1024 * 1024
# Its steps have time enough, however loaded the machine is.
PATIENT = Script(timeout=60)


def at(server: Server) -> str:
    """The position of the only dialogue, without the place where its step was written.

    It is "" before the dialogue begins.
    """
    if not server.script_results:
        return ""
    [only] = server.script_results
    assert not only.done
    assert only.error is None
    return re.sub(r" \([^()]*\.py:\d+\)", "", only.position or "")


def reaches(server: Server, position: str) -> bool:
    wait_until(lambda: at(server) == position, what=position)
    return True


def test_a_script_tells_its_step_and_how_many_bytes_it_has() -> None:
    script = PATIENT.until(b"\r\n", name="line").send(b"ok").expect_length(10)
    with played(script) as (server, client):
        assert reaches(server, r"step 1 of 3: until b'\r\n' name=line, 0 bytes so far")
        client.sendall(b"h")
        assert reaches(server, r"step 1 of 3: until b'\r\n' name=line, 1 byte so far")
        client.sendall(b"el")
        assert reaches(server, r"step 1 of 3: until b'\r\n' name=line, 3 bytes so far")
        [going] = server.script_results
        assert (going.step, going.steps, going.unused, going.captures) == (1, 3, b"hel", {})
        assert f"(tests/services/{Path(__file__).name}:" in (going.position or "")
        client.sendall(b"lo\r\nmore")
        assert client.recv_exactly(2) == b"ok"
        assert reaches(server, "step 3 of 3: length 10, 4 bytes so far")
        [going] = server.script_results
        assert (going.unused, going.captures) == (b"more", {"line": b"hello"})
        client.sendall(b" bytes")
        ended = result(server)
        assert (ended.done, ended.position) == (True, None)
        assert server.script_results == [ended]


def test_a_result_that_is_no_end_is_not_among_those_of_the_script() -> None:
    script = PATIENT.expect(b"hello")
    with played(script) as (server, client):
        assert reaches(server, "step 1 of 1: expect b'hello', 0 bytes so far")
        assert script.results == []
        script.check()
        client.sendall(b"hello")
        assert result(server).done
        assert len(script.results) == 1


@pytest.mark.parametrize(
    ("script", "position"),
    [
        (PATIENT.wait(30), "step 1 of 1: wait 30"),
        (PATIENT.send(b"ab", size=1, delay=30), "step 1 of 1: send b'ab' size=1 delay=30"),
        (PATIENT.expect_silence(30), "step 1 of 1: silence 30, 0 bytes so far"),
        (
            PATIENT.pause_reading().expect(b"x"),
            "step 2 of 2: expect b'x', 0 bytes so far, reading is paused",
        ),
        (
            PATIENT.repeat(2, Script().either(Script().expect(b"a"), Script().expect(b"b"))),
            "step 2 of 4: either, 0 bytes so far",
        ),
        (
            PATIENT.repeat(None, Script().expect(b"a").send(b"b")),
            "step 1 of 3: repeat until end, 0 bytes so far",
        ),
    ],
)
def test_every_kind_of_step_has_a_position(script: Script, position: str) -> None:
    with played(script, drain=0) as (server, _):
        assert reaches(server, position)


def test_a_peer_that_does_not_read_is_told() -> None:
    with played(PATIENT.send(bytes(32 * MIB)), drain=0) as (server, _):
        wait_until(lambda: ", the peer has not read " in at(server))


def test_a_step_in_a_choice_is_the_position() -> None:
    more = Script().send(b"?").expect(b"end")
    script = PATIENT.any_order(Script().expect(b"a"), more_of(Script().expect(b"b"), more))
    with played(script) as (server, client):
        client.sendall(b"b")
        assert client.recv_exactly(1) == b"?"
        assert reaches(server, "step 5 of 5: expect b'end', 0 bytes so far")


def more_of(first: Script, rest: Script) -> Script:
    return Script(first.text + rest.text)


def test_each_client_has_its_own_position() -> None:
    script = PATIENT.until(b"\n", name="n").send(Captured("n")).expect(b"end")
    service = ByConnection(script, PATIENT.expect(b"other"))
    with Server(service=service, drain=0) as server:
        with server.client(timeout=SOON) as first, server.client(timeout=SOON):
            first.sendall(b"1\n")
            assert first.recv_exactly(1) == b"1"

            def positions() -> list[int]:
                return [each.step for each in server.script_results]

            wait_until(lambda: positions() == [3, 1])
            assert [each.connection for each in server.script_results] == [1, 2]


def test_a_reset_of_the_server_forgets_the_dialogues_that_go_on() -> None:
    with Server(service=PATIENT.expect(b"hello")) as server:
        for _ in range(20):
            with server.client(timeout=SOON):
                wait_until(lambda: len(server.script_results) == 1)
                assert server.script_results[0].connection == 1
                server.reset()
                assert server.script_results == []


def test_a_stop_leaves_no_dialogue_that_goes_on() -> None:
    with played(PATIENT.expect(b"hello"), drain=0) as (server, _):
        wait_until(lambda: len(server.script_results) == 1)
        server.stop()
        [ended] = server.script_results
        assert ended.position is None
        assert "the connection ended before (closed by stop)" in (ended.error or "")


def test_a_replay_tells_its_line_and_how_many_bytes_it_has(tmp_path: Path) -> None:
    path = tmp_path / "shop.rec"
    path.write_text(
        r"""rsock recording 1
transport tcp
started 2026-11-28T09:05:00.000000Z
target shop.example:7
1 0.000000 open 127.0.0.1:50000
1 0.000100 < b"hi\r\n"
1 0.000200 > b"price tea\r\n"
1 0.150000 < b"4.20\r\n"
1 0.150100 > any b"[redacted]" b"bye"
1 0.150200 < b"bye"
stop 1.000000
"""
    )
    with played(Replay(path)) as (server, client):
        assert client.recv_line() == b"hi\r\n"
        line = f"{path}, line {{}} (its connection 1): expects "
        assert reaches(server, line.format(7) + r'b"price tea\r\n", 0 bytes so far')
        client.sendall(b"price")
        assert reaches(server, line.format(7) + r'b"price tea\r\n", 5 bytes so far')
        [going] = server.script_results
        assert (going.step, going.steps) == (2, 5)
        client.sendall(b" tea\r\n")
        assert client.recv_line() == b"4.20\r\n"
        assert reaches(server, line.format(9) + 'b"bye"…, 0 bytes so far')
        client.sendall(b"good bye")
        assert client.recv_exactly(3) == b"bye"
        assert server.script_results == [ScriptResult(1, True, 5, 5, None, {}, b"")]
    with played(Replay(path, speed=0.0001), drain=0) as (server, client):
        wait_until(lambda: at(server) == rf'{path}, line 6 (its connection 1): sends b"hi\r\n"')


def test_a_position_is_shown() -> None:
    with played(PATIENT.expect(b"<b>"), drain=0) as (server, client):
        client.sendall(b"<")
        assert reaches(server, "step 1 of 1: expect b'<b>', 1 byte so far")
        assert "expect b'<b>', 1 byte so far" in checked(server.script_results[0]).text
        # A table of several is cut.
        assert "expect b'<b" in checked(server.script_results).text
        for thing in (server.script_results[0], server.script_results):
            assert "<b>" not in html_of(thing)

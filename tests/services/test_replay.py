"""Replay: the server's side of a recording, played to clients over real sockets."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import SOON, wait_until
from support.dialogues import played, result

from rsock import (
    TLS,
    ByConnection,
    Client,
    Connection,
    Forward,
    Replay,
    ReplayClient,
    Script,
    ScriptMismatch,
    ScriptResult,
    Server,
)

HEADER = """\
rsock recording 1
transport {transport}
started 2026-11-28T09:05:00.000001Z
target peer.test:7
"""

GREETING = r"""
1 0.000000 open 127.0.0.1:50001
1 0.000001 < b"hi\r\n"
1 0.000100 > b"name tea\r\n"
1 0.000200 > b"get\r\n"
1 0.200000 < b"tea\r\n"
1 0.200100 > b"QUIT\r\n"
1 0.200200 < b"bye\r\n"
1 0.200200 < end
1 0.200300 > end
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dialogue.rec"


def recorded(path: Path, events: str, *, transport: str = "tcp", stop: str = "stop 9\n") -> Path:
    lines = [line.strip() for line in events.strip().splitlines()]
    path.write_text(HEADER.format(transport=transport) + "".join(f"{x}\n" for x in lines) + stop)
    return path


def until_the_end(client: Client) -> bytes:
    """What the client gets until it is reset or the server finishes."""
    told = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65_536):
            told.append(part)
    return b"".join(told)


# --- a client that does the same -----------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_client_gets_the_recorded_answers_however_it_cuts_its_bytes(
    path: Path, size: int
) -> None:
    with played(Replay(recorded(path, GREETING))) as (server, client):
        assert client.recv_line() == b"hi\r\n"
        said = b"name tea\r\nget\r\n"
        for start in range(0, len(said), size):
            client.sendall(said[start : start + size])
        assert client.recv_line() == b"tea\r\n"
        client.sendall(b"QUIT\r\n")
        assert until_the_end(client) == b"bye\r\n"
        assert server.script_results == [ScriptResult(1, True, 8, 8, None, {}, b"")]


def test_a_client_may_send_ahead_and_gets_the_answers_in_order(path: Path) -> None:
    with played(Replay(recorded(path, GREETING))) as (server, client):
        client.sendall(b"name tea\r\nget\r\nQUIT\r\n")
        assert until_the_end(client) == b"hi\r\ntea\r\nbye\r\n"
        assert result(server).done


def test_a_result_is_there_before_the_client_has_the_last_bytes(path: Path) -> None:
    replay = Replay(recorded(path, GREETING), connections="repeat")
    with Server(service=replay) as server:
        for number in range(1, 30):
            with server.client(timeout=SOON) as client:
                client.sendall(b"name tea\r\nget\r\nQUIT\r\n")
                client.recv_exactly(len(b"hi\r\ntea\r\nbye\r\n"))
                assert len(server.script_results) == number


def test_a_large_dialogue_both_ways_is_played_by_a_client_that_reads_last(path: Path) -> None:
    piece = "".join(chr(97 + at % 26) for at in range(50_000))
    events = ["1 0.0 open 127.0.0.1:5"]
    for _ in range(40):
        events += [f'1 0.1 > b"{piece}"', f'1 0.1 < b"{piece}{piece}"']
    events += ["1 0.2 > end", "1 0.2 < end"]
    with played(Replay(recorded(path, "\n".join(events)))) as (server, client):
        # Before it reads a byte: the answers wait, and what it sends is compared meanwhile.
        client.sendall(piece.encode() * 40)
        client.shutdown(socket.SHUT_WR)
        assert until_the_end(client) == piece.encode() * 80
        assert result(server).done


def test_recorded_ends_are_played(path: Path) -> None:
    events = '1 0 open 127.0.0.1:5\n1 0 > b"a"\n1 0 < b"b"\n1 0 < reset'
    with played(Replay(recorded(path, events))) as (server, client):
        client.sendall(b"a")
        with pytest.raises(ConnectionResetError):
            while client.recv(1):
                pass
        assert result(server).done
    # The server finishes, and goes on to receive.
    events = '1 0 open 127.0.0.1:5\n1 0 < b"b"\n1 0 < end\n1 0 > b"a"\n1 0 > end'
    with played(Replay(recorded(path, events))) as (server, client):
        assert until_the_end(client) == b"b"
        client.sendall(b"a")
        client.shutdown(socket.SHUT_WR)
        server.ledger.wait(open=0, closed=1, timeout=SOON)
        assert result(server).done
    # The server answers behind the client's end.
    events = '1 0 open 127.0.0.1:5\n1 0 > b"a"\n1 0 > end\n1 0 < b"b"\n1 0 < end'
    with played(Replay(recorded(path, events))) as (server, client):
        client.sendall(b"a")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(SOON)
        client.shutdown(socket.SHUT_WR)
        assert until_the_end(client) == b"b"
        assert result(server).done


def test_a_client_that_resets_in_the_recording_may_reset(path: Path) -> None:
    events = '1 0 open 127.0.0.1:5\n1 0 > b"a"\n1 0 < b"b"\n1 0 > reset\n1 0 < reset'
    with played(Replay(recorded(path, events))) as (server, client):
        client.sendall(b"a")
        assert client.recv(1) == b"b"
        client.abort()
        server.ledger.wait(open=0, closed=1, timeout=SOON)
        assert result(server).error is None


def test_answers_come_at_the_recorded_speed(path: Path) -> None:
    recorded(path, GREETING)
    for speed, seconds in ((1.0, 0.19), (4.0, 0.04)):
        with played(Replay(path, speed=speed)) as (server, client):
            client.recv_line()
            before = time.monotonic()
            client.sendall(b"name tea\r\nget\r\n")
            client.recv_line()
            assert time.monotonic() - before >= seconds


def test_each_client_gets_the_connection_of_its_number(path: Path) -> None:
    events = "\n".join(f'{n} 0.{n} open 127.0.0.1:5\n{n} 0.{n} < b"{n}"' for n in (1, 2, 5))
    recorded(path, events)

    def told(replay: Replay, clients: int) -> list[bytes]:
        with Server(service=replay, on_error=lambda error: None) as server:
            found = []
            for _ in range(clients):
                with server.client(timeout=SOON) as client:
                    found.append(until_the_end(client))
        return found

    assert len(Replay(path)) == 3
    assert told(Replay(path), 3) == [b"1", b"2", b"5"]
    assert told(Replay(path, connections="repeat"), 5) == [b"1", b"2", b"5", b"1", b"2"]
    assert told(Replay(path, connections=5), 2) == [b"5", b"5"]
    replay = Replay(path)
    assert told(replay, 4) == [b"1", b"2", b"5", b""]
    assert replay.results[3].error == f"connection 4: {path} has 3 connections and no more"
    with pytest.raises(ScriptMismatch, match="connection 4: ") as caught:
        replay.check()
    assert caught.value.result == replay.results[3]
    replay.clear()
    assert replay.results == []


def test_the_report_counts_each_client_that_diverged(path: Path) -> None:
    recorded(path, '1 0.1 open 127.0.0.1:5\n1 0.1 > b"a"\n1 0.1 < b"b"')
    with Server(service=Replay(path), on_error=lambda error: None) as server:
        for _ in range(3):
            with server.client(timeout=SOON) as client, contextlib.suppress(ConnectionResetError):
                client.sendall(b"c")
                until_the_end(client)
        server.ledger.wait(open=0, closed=3)
    # One that said something else, and two for which there is no connection.
    assert (server.stop().errors, server.ledger.totals.closed_by["error"]) == (3, 3)


def test_a_replay_may_be_one_of_several_services(path: Path) -> None:
    both = ByConnection(Script().send(b"hello"), Replay(recorded(path, GREETING), connections=1))
    with Server(service=both, on_error=lambda error: None) as server:
        with server.client(timeout=SOON) as client:
            assert until_the_end(client) == b"hello"
        with server.client(timeout=SOON) as client:
            client.sendall(b"name tea\r\nget\r\nQUIT\r\n")
            assert until_the_end(client).startswith(b"hi\r\n")
        assert [each.connection for each in server.script_results if each.done] == [1, 2]


# --- a client that diverges ----------------------------------------------------------------


def diverged(path: Path, said: bytes, *, finish: bool = False, **options: Any) -> ScriptResult:
    with played(Replay(path, **options)) as (server, client):
        client.recv_line()
        client.sendall(said)
        if finish:
            client.shutdown(socket.SHUT_WR)
        until_the_end(client)
        server.ledger.wait(open=0, closed=1, timeout=SOON)
        found = result(server)
        [record] = server.ledger
        assert (record.closed_by, record.error) == ("error", found.error)
    assert not found.done
    return found


def test_a_divergence_is_told_with_its_line_and_both_sides(path: Path) -> None:
    found = diverged(recorded(path, GREETING), b"name tea\r\nset\r\n")
    assert found.error is not None
    assert found.error.splitlines() == [
        f"connection 1: {path}, line 8 (its connection 1): the client sends something else",
        r'  expected b"get\r\n"',
        "    67 65 74 0d 0a",
        r'  received b"set\r\n"',
        "    73 65 74 0d 0a",
        '  first difference at byte 0: expected b"g", received b"s"',
        r'  before it: received b"name tea\r\n", sent b"hi\r\n"',
    ]
    assert (found.step, found.steps, found.unused) == (3, 8, b"set\r\n")


def test_a_difference_deep_in_a_piece_is_shown_with_what_is_around_it(path: Path) -> None:
    long = "x" * 1000
    recorded(path, f'1 0 open 127.0.0.1:5\n1 0 < b"\\n"\n1 0 > b"{long}yz"')
    found = diverged(path, long.encode() + b"yq")
    assert found.error is not None
    assert f'expected b"{"x" * 15}yz"' in found.error
    assert f'received b"{"x" * 15}yq"' in found.error
    assert "(shown from byte 985 on)" in found.error


@pytest.mark.parametrize(
    ("said", "finish", "why"),
    [
        (
            b"na",
            True,
            "finishes (FIN) too early: 19 bytes of the client did not come, and 10 bytes",
        ),
        (b"name tea\r\nget\r\nQUIT\r\nmore", False, "the client sends more than was recorded"),
    ],
)
def test_an_end_and_bytes_that_were_not_recorded_are_divergences(
    path: Path, said: bytes, finish: bool, why: str
) -> None:
    assert why in (diverged(recorded(path, GREETING), said, finish=finish).error or "")


def test_a_client_that_resets_early_is_told_what_it_never_asked_for(path: Path) -> None:
    with played(Replay(recorded(path, GREETING))) as (server, client):
        client.recv_line()
        client.sendall(b"name")
        wait_until(lambda: server.ledger.totals.bytes_in == 4)
        client.abort()
        error = result(server).error or ""
    assert "ended too early (closed by reset): 17 bytes of the client did not come" in error
    assert "and 10 bytes for it were not sent" in error


def test_a_client_that_does_not_go_on_is_a_divergence(path: Path) -> None:
    found = diverged(recorded(path, GREETING), b"name", timeout=0.1)
    assert "the client did not go on within 0.1 s" in (found.error or "")


def test_a_client_that_does_not_read_is_a_divergence(path: Path) -> None:
    data = "x" * 100_000
    events = ["1 0.0 open 127.0.0.1:5", *[f'1 0.1 < b"{data}"'] * 200]
    with played(Replay(recorded(path, "\n".join(events)), timeout=0.2)) as (server, client):
        assert "has not read it within 0.2 s" in (result(server).error or "")


def test_pieces_matter_if_they_are_to_be_exact(path: Path) -> None:
    recorded(path, GREETING)

    def dialogue(*pieces: bytes) -> str | None:
        with played(Replay(path, chunks="exact")) as (server, client):
            client.recv_line()
            with contextlib.suppress(OSError):
                for piece in pieces:
                    client.sendall(piece)
                    if piece.endswith(b"get\r\n"):
                        client.recv_line()
            until_the_end(client)
            return result(server).error

    assert dialogue(b"name tea\r\n", b"get\r\n", b"QUIT\r\n") is None
    # TCP may join what was sent at once.
    assert dialogue(b"name tea\r\nget\r\n", b"QUIT\r\n") is None
    assert "sends 4 bytes at once, and in the recording 10" in (dialogue(b"name") or "")
    told = dialogue(b"name tea\r\nget\r\nQUIT\r\n")
    assert "sends this before it was sent what precedes it in the recording" in (told or "")


def test_what_was_redacted_and_what_is_ignored_may_be_anything(path: Path) -> None:
    recorded(
        path,
        r"""
        1 0 open 127.0.0.1:5
        1 0 > b"pass " any b"[redacted]" b"\r\ndate 9:05\r\n"
        1 0 < b"welcome " any b"[redacted]" b"\r\n"
        """,
    )
    replay = Replay(path, ignore=rb"\d+:\d+", connections=1)
    for password in (b"", b"x", b"a longer one"):
        with played(replay) as (server, client):
            client.sendall(b"pass " + password + b"\r\ndate 12:30:00\r\n")
            assert until_the_end(client) == b"welcome [redacted]\r\n"
            assert result(server).done
    # What ends a redacted part did not come in time.
    with played(Replay(path, ignore=rb"\d+:\d+", timeout=0.1)) as (server, client):
        client.sendall(b"pass x\r\nname")
        until_the_end(client)
        assert r'expected b"\r\ndate "' in (result(server).error or "")


def test_a_torn_recording_is_played_up_to_the_tear(path: Path) -> None:
    recorded(path, GREETING, stop='2 0.3 open 127.0.0.1:6\n2 0.4 < b"ho"\n2 0.5 > b"x')
    replay = Replay(path)
    with Server(service=replay, on_error=lambda error: None) as server:
        with server.client(timeout=SOON) as client:
            client.sendall(b"name tea\r\nget\r\nQUIT\r\n")
            until_the_end(client)
        with server.client(timeout=SOON) as client:
            assert until_the_end(client) == b"ho"
        server.ledger.wait(open=0, closed=2, timeout=SOON)
        first, second = server.script_results
    assert first.done
    assert "the recording is torn: at line 16, byte " in (second.error or "")


def test_divergences_are_raised_or_logged_at_the_end(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorded(path, GREETING)
    with pytest.raises(ExceptionGroup, match="1 client diverged from the recording of") as caught:
        with Server(service=Replay(path), on_error="raise") as server:
            with server.client(timeout=SOON) as client:
                client.sendall(b"other")
                until_the_end(client)
                result(server)
    [error] = caught.value.exceptions
    assert isinstance(error, ScriptMismatch)
    with caplog.at_level(logging.ERROR, "rsock"):
        with Server(service=Replay(path)) as server, server.client(timeout=SOON) as client:
            client.sendall(b"other")
            until_the_end(client)
            result(server)
    assert "diverged from its recording: connection 1: " in caplog.text


def test_a_stop_does_not_wait_for_a_client_that_has_said_everything(path: Path) -> None:
    with Server(service=Replay(recorded(path, GREETING)), drain=SOON) as server:
        with server.client(timeout=SOON) as client:
            client.sendall(b"name tea\r\nget\r\nQUIT\r\n")
            client.recv_exactly(len(b"hi\r\ntea\r\nbye\r\n"))
            # It has not finished, and still is open.
            before = time.monotonic()
            server.stop()
            assert time.monotonic() - before < SOON / 2
    assert [each.done for each in server.script_results] == [True]


# --- datagrams -----------------------------------------------------------------------------

LOOKUPS = r"""
1 0.0 open 127.0.0.1:5
1 0.0 > b"\x11\x22one"
1 0.1 < b"\x11\x22ONE"
1 0.2 > b"\x33\x44two"
1 0.2 < b"\x33\x44TWO"
1 0.2 < b"\x33\x44and"
2 0.3 open 127.0.0.1:6
2 0.3 > b"\x55\x66six"
2 0.3 < b"\x55\x66SIX"
"""


@contextlib.contextmanager
def datagrams(path: Path, **options: Any) -> Iterator[tuple[Server, list[Client]]]:
    recorded(path, LOOKUPS, transport="udp")
    server = Server(service=Replay(path, **options), transport="udp", on_error=lambda error: None)
    with server, server.client(timeout=SOON) as one, server.client(timeout=SOON) as other:
        yield server, [one, other]


def test_datagrams_are_answered_in_the_order_of_each_peer(path: Path) -> None:
    with datagrams(path) as (server, [one, other]):
        one.send(b"\x11\x22one")
        assert one.recv(100) == b"\x11\x22ONE"
        other.send(b"\x55\x66six")
        assert other.recv(100) == b"\x55\x66SIX"
        one.send(b"\x33\x44two")
        assert [one.recv(100), one.recv(100)] == [b"\x33\x44TWO", b"\x33\x44and"]
        assert sorted(each.connection for each in server.script_results if each.done) == [1, 2]


def test_carried_bytes_are_not_compared_and_come_back_in_the_answers(path: Path) -> None:
    with datagrams(path, carry=[(0, 2)]) as (server, [one, other]):
        one.send(b"abone")
        assert one.recv(100) == b"abONE"
        one.send(b"cdtwo")
        assert [one.recv(100), one.recv(100)] == [b"cdTWO", b"cdand"]
        # The answer was lost: it is sent again.
        one.send(b"eftwo")
        assert [one.recv(100), one.recv(100)] == [b"efTWO", b"efand"]
        assert result(server).done


def test_a_datagram_that_was_not_recorded_is_a_divergence(path: Path) -> None:
    with datagrams(path, carry=[(0, 2)]) as (server, [one, other]):
        one.send(b"abone")
        one.recv(100)
        one.send(b"abten")
        error = result(server).error or ""
    assert error.startswith(f"connection 1: {path}, line 8 (its connection 1): the client sends")
    assert r'expected b"3Dtwo"' in error
    assert r'received b"abten"' in error
    # The other peer was not heard of.
    assert len(server.script_results) == 1


def test_the_end_of_the_server_tells_what_datagrams_did_not_come(path: Path) -> None:
    with datagrams(path) as (server, [one, other]):
        one.send(b"\x11\x22one")
        one.recv(100)
        assert server.script_results == []
    [found] = server.script_results
    assert "the server stopped before the end of the recording" in (found.error or "")
    assert "5 bytes of the client did not come, and 10 bytes for it were not sent" in str(found)


def test_a_port_that_another_client_has_again_gets_the_next_connection(path: Path) -> None:
    with datagrams(path) as (server, [one, other]):
        one.send(b"\x11\x22one")
        one.recv(100)
        one.send(b"\x33\x44two")
        one.recv(100)
        one.recv(100)
        one.send(b"\x55\x66six")
        assert one.recv(100) == b"\x55\x66SIX"
        one.send(b"more")
        wait_until(lambda: any(each.error for each in server.script_results))
        [error] = [each.error for each in server.script_results if each.error]
        assert "the client sends more than was recorded" in error


# --- the client's side ---------------------------------------------------------------------


def test_the_sides_of_a_recording_play_with_each_other(path: Path) -> None:
    recorded(path, GREETING)
    chunks: Any
    for chunks in ("lenient", "exact"):
        with Server(service=Replay(path, chunks=chunks), on_error="raise") as server:
            told = ReplayClient(path, chunks=chunks).run(server.address, timeout=SOON)
        assert told == ScriptResult(1, True, 8, 8, None, {}, b"")
    recorded(path, LOOKUPS, transport="udp")
    with Server(service=Replay(path), transport="udp", on_error="raise") as server:
        assert ReplayClient(path, 1).run(server.address).done
        assert ReplayClient(path, 2).run(server.address).done


def test_the_client_says_where_the_server_diverges(path: Path) -> None:
    client = ReplayClient(recorded(path, GREETING), timeout=0.2)
    with Server(service=Script().send(b"hi\r\n").until(b"get\r\n").send(b"cup\r\n")) as server:
        told = client.run(server.address)
    assert (told.done, told.connection) == (False, 1)
    assert (told.error or "").splitlines()[0] == (
        f"{path}, line 9 (its connection 1): the server sends something else"
    )
    assert r'expected b"tea\r\n"' in (told.error or "")
    assert r'received b"cup\r\n"' in (told.error or "")
    with Server(service=Script().send(b"hi").expect_length(30)) as server:
        assert "did not go on within 0.2 s" in (client.run(server.address).error or "")
    with Server(service=Script().send(b"hi").close()) as server:
        assert "finishes (FIN) too early" in (client.run(server.address).error or "")
    with Server(service=Script().send(b"hi\r\n").expect(b"name").reset()) as server:
        assert "closed by reset" in (client.run(server.address).error or "")


def test_the_client_keeps_the_recorded_speed(path: Path) -> None:
    events = '1 0 open 127.0.0.1:5\n1 0 > b"a"\n1 0.3 > b"b"\n1 0.3 > end\n1 0.4 < end'
    recorded(path, events)
    with Server(service=Replay(path), on_error="raise") as server:
        before = time.monotonic()
        assert ReplayClient(path, speed=1.0).run(server.address).done
        assert time.monotonic() - before >= 0.3


def test_the_client_raises_what_a_connect_raises(path: Path, unused: int) -> None:
    client = ReplayClient(recorded(path, GREETING))
    with pytest.raises(ConnectionRefusedError, match=f"connect 127.0.0.1:{unused}"):
        client.run(("127.0.0.1", unused))
    with pytest.raises(FileNotFoundError):
        client.run(str(path.parent / "no.sock"))


@pytest.fixture
def unused() -> Iterator[int]:
    """A port on which no socket listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def test_a_client_plays_to_a_unix_socket(path: Path, tmp_path: Path) -> None:
    recorded(path, GREETING)
    with Server(service=Replay(path), path=str(tmp_path / "x.sock"), on_error="raise") as server:
        assert ReplayClient(path).run(server.path or "").done


# --- wrong arguments -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"connections": 3}, ValueError, "connections 3: not in .*, which has connection 1 only"),
        ({"connections": 0}, ValueError, "connections 0"),
        ({"connections": "all"}, ValueError, "connections 'all'"),
        ({"connections": 1.5}, TypeError, "connections must be"),
        ({"chunks": "some"}, ValueError, "chunks 'some'"),
        ({"speed": 0}, ValueError, "speed 0"),
        ({"speed": float("nan")}, ValueError, "speed NaN"),
        ({"speed": "fast"}, TypeError, "speed must be a number"),
        ({"timeout": -1}, ValueError, "timeout -1"),
        ({"carry": [(0, 2)]}, ValueError, "carry: .* is of streams"),
        ({"carry": [(2, 2)]}, ValueError, "carry 2"),
        ({"carry": [2]}, TypeError, "carry must be a list of"),
        ({"ignore": "("}, ValueError, r"ignore '\('"),
        ({"ignore": [1]}, TypeError, "ignore must be bytes"),
        ({"other": 1}, TypeError, "other"),
    ],
)
def test_a_wrong_argument_is_named(
    path: Path, options: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Replay(recorded(path, GREETING), **options)


@pytest.mark.parametrize(
    ("path", "why"),
    [("", "no path"), ("a\0b", "no NUL"), (b"\0", "no NUL"), ("\ud800", "not valid")],
)
def test_what_is_no_path_is_an_error_of_value(path: Any, why: str) -> None:
    for play in (Replay, lambda path: ReplayClient(path, 1)):
        with pytest.raises(ValueError, match=f"path .*: {why}"):
            play(path)


def test_a_file_that_cannot_be_read_is_named(path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        Replay(path)
    assert missing.value.filename == str(path)
    with pytest.raises(IsADirectoryError):
        ReplayClient(path.parent)
    path.write_text("something else\n")
    with pytest.raises(ValueError, match=f"{path}, line 1: "):
        Replay(path)
    with pytest.raises(TypeError, match="path must be a path"):
        Replay(3)  # type: ignore[arg-type]


def test_a_recording_fits_the_transport_of_the_server(path: Path) -> None:
    with pytest.raises(
        ValueError, match="a recording of streams, and the server's transport is udp"
    ):
        Server(service=Replay(recorded(path, GREETING)), transport="udp").start()
    with pytest.raises(ValueError, match="a recording of datagrams"):
        Server(service=Replay(recorded(path, LOOKUPS, transport="udp"))).start()
    with pytest.raises(ValueError, match="speed: .* datagrams"):
        Replay(path, speed=1.0)
    with pytest.raises(ValueError, match="connection 7: not in .*, which has those from 1 to 2"):
        ReplayClient(path, 7)


def test_a_linger_of_zero_is_a_reset_where_an_end_was_recorded(path: Path) -> None:
    recorded(path, GREETING)
    chunks: Any
    for chunks, is_well in (("lenient", True), ("exact", False)):
        with played(Replay(path, chunks=chunks)) as (server, client):
            client.recv_line()
            for piece in (b"name tea\r\n", b"get\r\n"):
                client.sendall(piece)
            client.recv_line()
            client.sendall(b"QUIT\r\n")
            assert until_the_end(client) == b"bye\r\n"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            server.ledger.wait(open=0, closed=1, timeout=SOON)
            assert (result(server).error is None) is is_well


# --- Dialogues that begin TLS ---------------------------------------------------------------


def recorded_upgrade(path: Path) -> None:
    """A dialogue that is upgraded, then one in clear text, each through a Forward that records."""
    tls = TLS.for_tests()

    def serve(conn: Connection) -> None:
        if conn.recv_line() == b"STARTTLS\r\n":
            conn.sendall(b"go\r\n")
            conn.start_tls(tls)
        else:
            conn.sendall(b"no\r\n")

    with (
        Server(service=serve, on_error="raise") as target,
        Server(service=Forward(target, recording=path)) as proxy,
    ):
        with proxy.client(timeout=SOON) as client:
            client.sendall(b"STARTTLS\r\n")
            assert client.recv_line() == b"go\r\n"
            client.start_tls(tls)
        proxy.ledger.wait(closed=1, timeout=SOON)
        with proxy.client(timeout=SOON) as client:
            client.sendall(b"HELP\r\n")
            assert client.recv_line() == b"no\r\n"
        proxy.ledger.wait(closed=2, timeout=SOON)


def test_a_dialogue_that_begins_tls_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mail.rec"
    recorded_upgrade(path)
    lines = path.read_text().splitlines()
    hello = next(at for at, line in enumerate(lines, 1) if ' > b"\\x16' in line)
    told = re.escape(f"{path}, line {hello}: connection 1 begins TLS here")
    for play in (
        lambda: Replay(path),
        lambda: Replay(path, connections="repeat"),
        lambda: Replay(path, connections=1),
        lambda: ReplayClient(path),
        lambda: ReplayClient(path, 1),
    ):
        with pytest.raises(ValueError, match=f"{told}.*Script has the step start_tls"):
            play()
    # The other one is played as ever.
    with Server(service=Replay(path, connections=2)) as server:
        assert ReplayClient(path, 2).run(server.address).done
        assert server.script_results[0].done


def test_a_connection_that_is_tls_from_its_first_byte_is_refused(tmp_path: Path) -> None:
    path, tls = tmp_path / "https.rec", TLS.for_tests()
    with (
        Server(tls=tls) as target,
        Server(service=Forward(target, recording=path)) as proxy,
        Client(*proxy.address, tls=tls, timeout=SOON) as client,
    ):
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"
    with pytest.raises(ValueError, match=r"begins TLS here.*Forward\(…, tls=…, recording=…\)"):
        Replay(path)
    # The clear text of the same dialogue is played with TLS.
    with (
        Server(tls=tls) as target,
        Server(service=Forward(target, tls=tls, recording=path), tls=tls) as proxy,
        Client(*proxy.address, tls=tls, timeout=SOON) as client,
    ):
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"
    with (
        Server(service=Replay(path), tls=tls) as server,
        Client(*server.address, tls=tls, timeout=SOON) as client,
    ):
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"


@pytest.mark.parametrize(
    "dialogue",
    [
        # A hello that a server in clear text does not understand.
        r"""
1 0.000000 > b"\x16\x03\x01\x00\xd4\x01"
1 0.000000 < b"400 what?"
""",
        # A server that refuses the hello, in clear text.
        r"""
1 0.000000 > b"\x16\x03\x01\x00\xd4\x01"
1 0.000000 < b"\x15\x03\x03\x00\x02\x02\x28"
""",
        # Bytes of which only some are those of a record.
        r"""
1 0.000000 > b"x\x16\x03\x01\x00\xd4\x01"
1 0.000000 < b"\x16\x03\x03\x00\x5a\x02"
""",
    ],
    ids=["clear answer", "alert", "other bytes"],
)
def test_bytes_that_only_look_like_tls_are_played(tmp_path: Path, dialogue: str) -> None:
    path = tmp_path / "odd.rec"
    head = HEADER.format(transport="tcp")
    path.write_text(f"{head}1 0.000000 open 127.0.0.1:50001{dialogue}stop 1.000000\n")
    with Server(service=Replay(path)) as server:
        assert ReplayClient(path).run(server.address).done

"""`rsock replay`: both sides of a recording, from the shell."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest
from support import SOON, dial, read_to_end
from support.command_here import called
from support.command_line import Running, run

from rsock import Replay, Server

GREETING = r"""rsock recording 1
transport tcp
started 2026-11-28T09:05:00.000001Z
target peer.test:7
1 0.000000 open 127.0.0.1:50001
1 0.000100 > b"name tea\r\n"
1 0.000200 < b"tea\r\n"
1 0.000300 > end
1 0.000300 < end
stop 2.000000
"""
# A passage of a mail server, recorded by a Forward in clear text.
UPGRADED = r"""rsock recording 1
transport tcp
started 2026-11-28T09:05:00.000001Z
target peer.test:25
1 0.000000 open 127.0.0.1:50001
1 0.000100 > b"STARTTLS\r\n"
1 0.000200 < b"220 go ahead\r\n"
1 0.000300 > b"\x16\x03\x01\x00\xd4\x01\x00\x00\xd0\x03\x03"
1 0.000400 < b"\x16\x03\x03\x00\x5a\x02\x00\x00\x56\x03\x03"
1 0.000500 > end
1 0.000500 < end
stop 2.000000
"""
LOOKUP = r"""rsock recording 1
transport udp
started 2026-11-28T09:05:00.000001Z
target peer.test:53
1 0.000000 open 127.0.0.1:50001
1 0.000000 > b"\x11\x22one"
1 0.000000 < b"\x11\x22ONE"
stop 2.000000
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "dialogue.rec"
    path.write_text(GREETING)
    return path


def test_a_recording_is_served_until_a_signal(path: Path) -> None:
    with Running("replay", str(path), "0", "--plain", "--repeat") as command:
        address = command.address()
        for _ in range(2):
            with dial(address) as peer:
                peer.sendall(b"name tea\r\n")
                peer.shutdown(socket.SHUT_WR)
                assert read_to_end(peer) == b"tea\r\n"
        command.signal(signal.SIGINT)
        code, _, err = command.end()
    assert (code, err) == (0, "")


def test_a_client_that_diverges_is_told_and_the_exit_code_is_1(path: Path) -> None:
    with Running("replay", str(path), "0", "--plain") as command:
        with dial(command.address()) as peer:
            peer.sendall(b"name cup\r\n")
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        command.signal(signal.SIGINT)
        code, _, err = command.end()
    assert code == 1
    assert f"connection 1: {path}, line 6 (its connection 1): the client sends something" in err
    assert r'expected b"name tea\r\n"' in err
    assert r'received b"name cup\r\n"' in err


def test_datagrams_are_served_without_an_option(path: Path) -> None:
    path.write_text(LOOKUP)
    with Running("replay", str(path), "0", "--plain", "--carry", "0:2") as command:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(SOON)
            sock.connect(command.address())
            sock.send(b"abone")
            assert sock.recv(100) == b"abONE"
        command.signal(signal.SIGINT)
        assert command.end()[0] == 0


def test_the_client_of_a_recording_is_played_to_a_server(path: Path) -> None:
    with Server(service=Replay(path, connections="repeat"), on_error="raise") as server:
        address = f"127.0.0.1:{server.port}"
        told = run("replay", str(path), "--client", address)
        assert told == (0, "connection 1: 4 events played\n", "")
        code, out, _ = run("replay", str(path), "--client", address, "--json")
        assert code == 0
        assert json.loads(out) == {"connection": 1, "done": True, "steps": 4}
    with Server() as server:
        code, out, err = run("replay", str(path), "--client", f"127.0.0.1:{server.port}")
    assert (code, out) == (1, "")
    assert err.startswith(f"rsock: {path}, line 7 (its connection 1): the server sends something")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--client 1 2", "takes no LISTEN"),
        ("--client 1 --carry 0:2", "for the server's side"),
        ("--connection 1 --repeat", "--repeat plays all in turn"),
        ("--connection 2", "connections 2: not in"),
        ("--carry 2", "must be START:STOP"),
        ("--carry 0:2", "is of streams"),
        ("--speed fast", "must be a number, not 'fast'"),
        ("--speed 0", "must be a number above 0"),
        ("--ignore (", "ignore"),
    ],
)
def test_what_is_wrong_is_said(
    path: Path, words: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = called(capsys, "replay", str(path), *words.split())
    assert (code, out) == (2, "")
    assert text in err


def test_a_file_that_is_no_recording_is_named(path: Path) -> None:
    path.write_text("something\n")
    code, _, err = run("replay", str(path))
    assert (code, f"{path}, line 1" in err) == (2, True)
    code, _, err = run("replay", str(path.parent / "none"))
    assert (code, err) == (1, f"rsock: {path.parent / 'none'}: open: No such file or directory\n")


@pytest.mark.parametrize("side", [["0"], ["--client", "127.0.0.1:9"]], ids=["server", "client"])
def test_a_dialogue_that_begins_tls_is_refused(tmp_path: Path, side: list[str]) -> None:
    path = tmp_path / "mail.rec"
    path.write_text(UPGRADED)
    code, _, err = run("replay", str(path), *side)
    assert code == 2
    assert f"{path}, line 8: connection 1 begins TLS here" in err
    assert "start_tls" in err

"""`rsock record` writes a recording, `rsock recording show` shows it."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
from pathlib import Path

from support import dial, says_back
from support.command_line import COMMAND, PATIENCE, Running, run

from rsock import Recording, Server


def test_a_dialogue_is_recorded_without_its_secrets_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "dialogue.rec"
    with Server() as target:
        to = f"{target.host}:{target.port}"
        words = ("record", "0", to, str(path), "--plain", "--redact", "key=([a-z]+)")
        with Running(*words) as command:
            with dial(command.address()) as peer:
                peer.sendall(b"key=abc")
                assert peer.recv(100) == b"key=abc"
                assert says_back(peer)
            target.ledger.wait(open=0, closed=1)
            command.signal(signal.SIGINT)
            code, _, err = command.end()
    assert (code, err) == (0, "")
    assert b"abc" not in path.read_bytes()
    [connection] = Recording.read(path).connections
    assert connection.up.startswith(b"key=[redacted]")

    code, out, _ = run("recording", "show", str(path))
    assert code == 0
    assert "> key=[redacted]" in out
    _, digits, _ = run("recording", "show", str(path), "--hex", "--connection", "1")
    assert "6b 65 79 3d" in digits


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    path = tmp_path / "dialogue.rec"
    code, _, err = run("record", "0", "127.0.0.1:9", str(path), "--redact", "(")
    assert (code, path.exists()) == (2, False)
    assert "redact" in err
    code, _, err = run("recording", "play", str(path))
    assert (code, err.splitlines()[0]) == (
        2,
        "rsock: recording 'play': must be show; did you mean show?",
    )
    code, _, err = run("recording", "a.rec")
    assert (code, err.splitlines()[0]) == (
        2,
        "rsock: recording 'a.rec': must be show; did you mean rsock recording show a.rec?",
    )
    code, _, err = run("recording", "show")
    assert (code, err.splitlines()[0]) == (2, "rsock: the following arguments are required: FILE")
    path.write_text("rsock recording 1\ntransport tcp\nstarted 2026-11-28T09:05:00.00")
    code, _, err = run("recording", "show", str(path))
    assert code == 1
    assert "line 3" in err
    code, _, err = run("recording", "show", str(tmp_path / "none"))
    assert code == 1
    assert "none" in err


RECORDING = """\
rsock recording 1
transport tcp
started 2026-11-28T09:05:00.000001Z
target 127.0.0.1:7
1 0.100000 open 127.0.0.1:50001 127.0.0.1:7
2 0.200000 open 127.0.0.1:50002 127.0.0.1:7
2 0.250000 < b"2"
1 0.300000 > b"1"
2 0.210000 > b"late"
stop 2.000000
"""


def test_packets_are_written_as_by_python(tmp_path: Path) -> None:
    path, out, expected = tmp_path / "x.rec", tmp_path / "x.pcapng", tmp_path / "y.pcapng"
    path.write_text(RECORDING)
    recording = Recording.read(path)
    recording.write_pcapng(expected)
    assert run("recording", "show", str(path), "--pcapng", str(out)) == (0, "", "")
    assert out.read_bytes() == expected.read_bytes()
    # One connection of them, and from a pipe, which can be read only once.
    dataclasses.replace(recording, connections=recording.connections[1:]).write_pcapng(expected)
    with path.open("rb") as file:
        piped = subprocess.run(
            [*COMMAND, "recording", "show", "/dev/stdin", "--connection", "2", "--pcapng", "-"],
            input=file.read(),
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
    assert (piped.stdout, piped.stderr) == (expected.read_bytes(), b"")


def test_what_cannot_be_written_as_packets_is_told(tmp_path: Path) -> None:
    path, out = tmp_path / "x.rec", tmp_path / "x.pcapng"
    path.write_text(RECORDING)
    words = ("recording", "show", str(path), "--pcapng")
    # The file itself, which is another kind than a capture.
    code, _, err = run(*words, str(path))
    assert (code, path.read_text()) == (1, RECORDING)
    assert "another kind" in err
    assert str(path) in err
    code, _, err = run(*words, str(out), "--connection", "3")
    assert (code, out.exists()) == (1, False)
    assert "no connection 3" in err
    code, _, err = run(*words, str(out), "--hex")
    assert (code, out.exists()) == (2, False)
    assert "--hex" in err
    path.write_text(RECORDING.partition("stop")[0])
    code, _, err = run(*words, str(out))
    assert (code, out.exists()) == (1, True)
    assert "cut at line 10" in err

"""`rsock record` writes a recording, `rsock recording show` shows it."""

from __future__ import annotations

import signal
from pathlib import Path

from support import dial, says_back
from support.command_line import Running, run

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
    assert run("recording", "play", str(path))[0] == 2
    path.write_text("rsock recording 1\ntransport tcp\nstarted 2026-11-28T09:05:00.00")
    code, _, err = run("recording", "show", str(path))
    assert code == 1
    assert "line 3" in err
    code, _, err = run("recording", "show", str(tmp_path / "none"))
    assert code == 1
    assert "none" in err

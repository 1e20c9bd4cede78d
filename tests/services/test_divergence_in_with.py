"""What the end of `with` tells of clients that diverged when its body raises something else."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from support import SOON, wait_until
from support.dialogues import result

from rsock import Replay, Script, Server

QUIT = Script().expect(b"QUIT\r\n").send(b"bye")


def diverges(server: Server) -> None:
    with server.client(timeout=SOON) as client:
        client.sendall(b"QUIET\r\n")
        client.recv(1)


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def test_the_bodys_exception_goes_on_and_notes_the_mismatch() -> None:
    with pytest.raises(ConnectionResetError) as caught:
        with Server(service=QUIT, on_error="raise", name="mail") as server:
            diverges(server)
    [note] = notes(caught.value)
    assert note.startswith("ScriptMismatch in connection 1 of mail: step 1 of 2 (")
    assert "\n  first difference at byte 3: expected" in note
    # Once is enough.
    assert server.stop().cause == "exception"


def test_async_with_does_the_same() -> None:
    async def main() -> None:
        async with Server(service=QUIT, on_error="raise") as server:
            diverges(server)

    with pytest.raises(ConnectionResetError) as caught:
        asyncio.run(main())
    assert len(notes(caught.value)) == 1


def test_a_client_that_the_end_of_the_body_cuts_off_has_not_diverged() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        with Server(service=QUIT, on_error="raise") as server:
            client = server.client(timeout=SOON)
            wait_until(lambda: len(server.script_results) == 1)
            raise ZeroDivisionError
    client.close()
    assert notes(caught.value) == []
    assert "closed by stop" in (result(server).error or "")


def test_a_recording_is_noted_too(tmp_path: Path) -> None:
    path = tmp_path / "quit.rec"
    path.write_text(
        "rsock recording 1\ntransport tcp\nstarted 2026-11-28T09:05:00.000000Z\n"
        'target mail.example:25\n1 0.0 open 127.0.0.1:5\n1 0.1 > b"QUIT\\r\\n"\n'
        '1 0.2 < b"bye"\nstop 1.0\n'
    )
    with pytest.raises(ConnectionResetError) as caught:
        with Server(service=Replay(path), on_error="raise", name="mail") as server:
            diverges(server)
    [note] = notes(caught.value)
    assert note.startswith(f"ScriptMismatch in connection 1 of mail: {path}, line 6 (")


def test_many_are_bounded() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        with Server(service=QUIT, on_error="raise", name="mail") as server:
            for _ in range(14):
                with pytest.raises(ConnectionResetError):
                    diverges(server)
            raise ZeroDivisionError
    assert len(notes(caught.value)) == 11
    assert notes(caught.value)[-1] == "4 more of mail: see script_results"


def test_a_function_and_the_log_are_told_as_at_any_other_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Any] = []
    for on_error in (told.append, "log"):
        with pytest.raises(ConnectionResetError) as caught, caplog.at_level(logging.ERROR, "rsock"):
            with Server(service=QUIT, on_error=on_error) as server:
                diverges(server)
        assert notes(caught.value) == []
    [mismatch] = told
    assert "step 1 of 2" in str(mismatch)
    [record] = caplog.records
    assert "diverged from its script" in record.getMessage()


class Frozen(Exception):
    def add_note(self, note: str) -> None:
        raise AttributeError("frozen")


def test_an_exception_that_cannot_be_noted_goes_on() -> None:
    body = Frozen()
    with pytest.raises(Frozen) as caught:
        with Server(service=QUIT, on_error="raise") as server:
            with pytest.raises(ConnectionResetError):
                diverges(server)
            raise body
    assert caught.value is body

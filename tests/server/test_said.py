"""What a server says of itself without being asked: where it runs, and that it was not kept."""

from __future__ import annotations

import gc
import io
import logging
import os
import pty
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from support import SOON, Script, wait_until

import rsock
from rsock import Accept, Echo, Server, Service

RUN = """
import rsock, sys
rsock.Server(service={service}, name="mine").run({arguments})
"""


def run_until_stopped(server: Server, announce: bool | None) -> None:
    """Run the server, with a signal that arrives before it starts to wait."""
    start = server.start

    def start_and_signal() -> Server:
        start()
        server._begin_stop("stop")
        return server

    server.start = start_and_signal  # type: ignore[method-assign]
    server.run(announce=announce)


def test_run_says_on_a_terminal_where_it_serves() -> None:
    ours, theirs = pty.openpty()
    try:
        code = "import rsock; rsock.Server(name='mine').run()"
        with subprocess.Popen([sys.executable, "-c", code], stderr=theirs) as process:
            try:
                line = os.read(ours, 1000).decode()
                process.send_signal(signal.SIGINT)
                assert process.wait(SOON) == 0
            finally:
                process.kill()
    finally:
        os.close(ours)
        os.close(theirs)
    assert line.startswith("mine: serving Echo() on 127.0.0.1:")
    assert "Ctrl-C" in line


@pytest.mark.parametrize("announce", [True, None, False])
def test_run_says_elsewhere_where_it_serves_if_asked(
    announce: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    server = Server(name="mine")
    run_until_stopped(server, announce)
    expected = f"mine: serving Echo() on 127.0.0.1:{server.port}; Ctrl-C stops it\n"
    assert said.getvalue() == (expected if announce else "")


def test_run_says_the_path_of_a_unix_socket_on_one_line(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, shown in (
        (f"{directory}/a\nb", f"{directory}/a\\nb"),
        ("\0rsock-said", "@rsock-said"),
    ):
        said = io.StringIO()
        monkeypatch.setattr(sys, "stderr", said)
        run_until_stopped(Server(path=path), True)
        assert f" on {shown};" in said.getvalue()
        assert said.getvalue().count("\n") == 1


@pytest.mark.parametrize("broken", [None, "closed"])
def test_run_goes_on_where_nothing_can_be_said(
    broken: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed if broken else None)
    server = Server()
    run_until_stopped(server, True)
    assert server.state == "stopped"


def test_run_server_passes_it_on() -> None:
    code = "import rsock; rsock.run_server(port=0, announce=True)"
    with Script(code) as script:
        wait_until(script.asleep)
        script.signal(signal.SIGTERM)
        code_, out, err = script.end()
    assert (code_, out) == (0, "")
    assert "serving Echo() on 127.0.0.1:" in err


@pytest.mark.parametrize("step", ["bind", "listen", "start"])
@pytest.mark.parametrize("service", [Echo(), Accept(), print], ids=["echo", "accept", "handler"])
def test_a_server_that_is_not_kept_is_logged_with_what_to_do(
    service: Service, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    server: Server | None = Server(service=service, name="lost")
    getattr(server, step)()
    assert server is not None
    port = server.port
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "rsock"):
        warnings.simplefilter("ignore", ResourceWarning)
        del server
        gc.collect()
    (record,) = [each for each in caplog.records if each.name == "rsock"]
    assert record.levelno == logging.WARNING
    text = record.getMessage()
    for part in ("lost", f"127.0.0.1:{port}", "never stopped", "reference", "with", "run()"):
        assert part in text


def test_a_program_without_logging_sees_it() -> None:
    code = "import rsock\nrsock.Server(name='lost').start()\nprint('next line')"
    with Script(code) as script:
        code_, out, err = script.end()
    assert (code_, out) == (0, "next line\n")
    assert err.startswith("lost on 127.0.0.1:")
    assert err.count("\n") == 1


def test_a_stopped_server_and_one_that_was_never_opened_are_collected_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Server():
        pass
    Server()
    gc.collect()
    assert not caplog.records
    assert rsock.servers() == []

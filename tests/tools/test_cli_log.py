"""The log of a command that serves: its forms, its levels, and that no line is lost."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from support import dial, read_to_end, says_back
from support.command_line import Running

APP = """
import logging
def fail(conn):
    raise ValueError("not today")
def tell(conn):
    logging.getLogger("app").info("heard %s", conn.recv(100))
    logging.getLogger("app").debug("details")
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def log_of(command: Running) -> list[str]:
    """The log of a command, after its end by a signal."""
    command.signal(signal.SIGTERM)
    code, _, err = command.end()
    assert code == 0
    return err.splitlines()


def test_access_lines_are_written_for_each_connection_and_none_is_lost() -> None:
    number = 500
    with Running("echo", "--access-log", "--log-format", "json") as command:
        address = command.address()
        for _ in range(number):
            with dial(address) as peer:
                assert says_back(peer)
        # Most lines are still to be written.
        lines = [json.loads(line) for line in log_of(command)]
    ids = [line["connection"] for line in lines]
    assert sorted(ids) == list(range(1, number + 1))
    first = lines[0]
    assert first["logger"] == "rsock.connections"
    assert first["level"] == "info"
    assert first["process"] == command.process.pid
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert first["account"]["id"] == first["connection"]
    assert first["account"]["bytes_in"] == 5
    assert first["server"] == "server-1"
    assert "connection 1 from 127.0.0.1:" in lines[ids.index(1)]["message"]


def test_the_text_form_has_time_level_logger_and_process() -> None:
    with Running("echo", "--access-log") as command:
        with dial(command.address()) as peer:
            assert says_back(peer)
        [line] = log_of(command)
    assert re.fullmatch(
        r"\S+Z info rsock\.connections\[\d+\]: server-1: connection 1 from 127\.0\.0\.1:\d+ .*",
        line,
    )


def test_an_error_of_a_handler_is_one_line_of_json(app: Path) -> None:
    with Running("serve", "app:fail", "--log-format", "json", cwd=app) as command:
        with dial(command.address()) as peer:
            read_to_end(peer)
        [line] = map(json.loads, log_of(command))
    assert (line["level"], line["logger"]) == ("error", "rsock")
    assert "\nValueError: not today\n" in line["error"]
    assert "in fail" in line["error"]
    assert line["connection"] == 1


@pytest.mark.parametrize(
    ("level", "messages"),
    [("warning", []), ("info", ["heard b'x'"]), ("debug", ["heard b'x'", "details"])],
)
def test_the_level_concerns_the_loggers_of_the_program_too(
    level: str, messages: list[str], app: Path
) -> None:
    with Running(
        "serve", "app:tell", "--log-level", level, "--log-format", "json", cwd=app
    ) as command:
        with dial(command.address()) as peer:
            peer.sendall(b"x")
            read_to_end(peer)
        lines = [json.loads(line) for line in log_of(command)]
    assert [line["message"] for line in lines if line["logger"] == "app"] == messages


def test_without_an_option_the_log_stays_as_python_has_it(app: Path) -> None:
    with Running("serve", "app:fail", cwd=app) as command:
        with dial(command.address()) as peer:
            read_to_end(peer)
        lines = log_of(command)
    assert lines[0].startswith("an exception in the handler of connection 1 from 127.0.0.1:")
    assert "ValueError: not today" in lines

"""Words that a peer chose: no way out of rsock passes on what a terminal or a table acts on."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import dial, read_to_end, wait_until
from support.command_line import Running, Terminal, run

import rsock
from rsock import Server

# A title for the terminal, a line over the last one, a line of its own, a change of direction.
HOSTILE = "\x1b]0;owned\x07 over\r2026-01-01 INFO forged\nline \u202e\x9b2J"
# What must be in no text that leaves rsock, apart from ends of lines.
FORBIDDEN = ("\x1b", "\x07", "\r", "\u202e", "\x9b")


def repeat(conn: rsock.Connection) -> None:
    """A handler whose error has what the peer sent, as that of most parsers."""
    raise ValueError(f"bad request: {conn.recv(1024).decode()}")


def provoke(server: Server) -> rsock.Record:
    """Let the handler of a server fail on hostile words, and return the record."""
    with dial(server.address) as peer:
        peer.sendall(HOSTILE.encode())
        with contextlib.suppress(ConnectionResetError):
            read_to_end(peer)
    return server.ledger.wait(open=0, closed=1)[0]


def harmless(text: str) -> bool:
    return not any(char in text for char in FORBIDDEN)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the loggers of rsock write, as a plain handler of a program shows it."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("rsock", "rsock.connections")]
    loggers[1].setLevel(logging.INFO)
    loggers[0].addHandler(handler)
    loggers[0].propagate = False
    yield text
    loggers[0].propagate = True
    loggers[0].removeHandler(handler)
    loggers[1].setLevel(logging.NOTSET)


def test_a_line_about_a_connection_has_no_words_that_a_terminal_acts_on(log: io.StringIO) -> None:
    with Server(service=repeat, name="shop") as server:
        provoke(server)
        wait_until(lambda: "rsock.connections" in log.getvalue())
    [line] = [each for each in log.getvalue().split("\n") if "rsock.connections" in each]
    assert harmless(line)
    assert "ended by an error: ValueError: bad request: \\x1b]0;owned" in line
    assert " after " in line


def test_a_traceback_in_the_log_has_none_either_and_forges_no_line(log: io.StringIO) -> None:
    with Server(service=repeat) as server:
        provoke(server)
    said = log.getvalue()
    assert harmless(said)
    assert "ValueError: bad request: \\x1b]0;owned" in said
    # The frames are there as always.
    assert "in repeat\n    raise ValueError(" in said
    lines = said.split("\n")
    assert not [each for each in lines if each.startswith(("line ", "2026"))]
    assert [each for each in lines if each.startswith("    line ")]


def test_a_cause_and_a_group_in_the_log_have_none(log: io.StringIO) -> None:
    def nested(conn: rsock.Connection) -> None:
        try:
            repeat(conn)
        except ValueError as error:
            raise ExceptionGroup("several", [error, KeyError(HOSTILE)]) from LookupError(HOSTILE)

    with Server(service=nested) as server:
        provoke(server)
    said = log.getvalue()
    assert harmless(said)
    assert "direct cause of the following exception" in said
    assert not [each for each in said.split("\n") if each.startswith(("line ", "2026"))]


def test_a_traceback_of_plain_words_is_as_python_writes_it(log: io.StringIO) -> None:
    def fail(conn: rsock.Connection) -> None:
        raise LookupError("grüße: 100 % plain")

    with Server(service=fail) as server:
        provoke(server)
    assert "LookupError: grüße: 100 % plain" in log.getvalue()
    assert "in the handler of connection 1" in log.getvalue()


def test_the_note_on_the_error_of_a_body_has_none() -> None:
    with pytest.raises(RuntimeError) as caught, Server(service=repeat, on_error="raise") as server:
        provoke(server)
        raise RuntimeError
    [note] = caught.value.__notes__
    assert "bad request: \\x1b]0;owned" in note
    assert harmless(note)


def test_a_display_has_none() -> None:
    with Server(service=repeat, on_error=lambda _: None) as server:
        record = provoke(server)
        for thing in (record, server.ledger, server):
            assert harmless(repr(thing))
            page = getattr(thing, "_repr_html_")()  # noqa: B009
            assert harmless(html.unescape(page))
        assert "\n" not in repr(record)


def test_a_display_that_fails_has_none() -> None:
    class Odd(Server):
        @property
        def state(self) -> str:
            raise RuntimeError(HOSTILE)

    server = Odd()
    assert harmless(repr(server))
    assert harmless(html.unescape(server._repr_html_()))


def test_csv_has_no_formula(directory: Path) -> None:
    path = str(directory / "socket")
    names = [b"\0=HYPERLINK(1)", b"\0\x1b[2J\r\n+1", b"=cmd"]
    with Server(path=path) as server:
        for name in names[:2]:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.bind(name + os.urandom(4).hex().encode())
                peer.connect(path)
        server.ledger.wait(open=0, closed=2)
        # A relative path, as the client named it.
        before = Path.cwd()
        os.chdir(directory)
        try:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.bind(names[2])
                peer.connect(path)
            Path("=cmd").unlink()
        finally:
            os.chdir(before)
        server.ledger.wait(open=0, closed=3)
        text = server.ledger.to_csv()
        rows = server.ledger.to_dicts()
    assert text is not None
    assert harmless(text.replace("\r\n", "\n"))
    table = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [each["remote"][:2] for each in table] == ["'@", "'@", "'="]
    for row in table:
        for column, value in row.items():
            assert not value.startswith(("=", "+", "-", "@", "\t")), (column, value)
    # The other forms have the words as they are shown everywhere.
    assert [str(each["remote"])[0] for each in rows] == ["@", "@", "="]


def test_csv_and_json_have_the_error_escaped() -> None:
    with Server(service=repeat, on_error=lambda _: None) as server:
        record = provoke(server)
        text = server.ledger.to_csv()
        lines = server.ledger.to_jsonl()
    assert text is not None
    assert lines is not None
    assert harmless(text.replace("\r\n", "\n"))
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    # An end of a line is quoted, as RFC 4180 has it.
    assert row["error"].startswith("ValueError: bad request: \\x1b]0;owned")
    assert "forged\nline" in row["error"]
    assert harmless(lines)
    # JSON escapes by its own rules, and nothing is lost.
    assert json.loads(lines)["error"] == record.error
    assert record.error is not None
    assert HOSTILE in record.error


REPEAT = """
def repeat(conn):
    raise ValueError(f"bad request: {conn.recv(1024).decode()}")
"""


def test_the_lines_of_the_command_have_none(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(REPEAT)
    with Running("serve", "app:repeat", "--plain", cwd=tmp_path) as command:
        with dial(command.address()) as peer, contextlib.suppress(ConnectionResetError):
            peer.sendall(HOSTILE.encode())
            read_to_end(peer)
        assert "bad request: \\x1b]0;owned" in command.line()
        command.signal(signal.SIGINT)
        code, out, err = command.end()
    assert code == 0
    assert harmless(out)
    assert harmless(err)
    assert "ValueError: bad request: \\x1b]0;owned" in err


def test_the_terminal_of_the_command_has_none(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(REPEAT)
    with Terminal("serve", "app:repeat", cwd=tmp_path) as terminal:
        found = terminal.until(r"127\.0\.0\.1:(\d+) ")
        with dial(("127.0.0.1", int(found[1]))) as peer, contextlib.suppress(ConnectionResetError):
            peer.sendall(HOSTILE.encode())
            read_to_end(peer)
        # Once above the table, and once in it.
        terminal.until(r"ValueError: bad request: \\x1b\]0;owned")
        terminal.until(r"error \(ValueError: bad")
        terminal.type("\x03")
        assert terminal.end() == 0
    assert "\x1b]0;" not in terminal.seen
    assert "\x07" not in terminal.seen


def test_an_error_of_the_command_has_none(tmp_path: Path) -> None:
    code, _, err = run("serve", f"{HOSTILE}:f", cwd=tmp_path)
    assert code == 2
    assert harmless(err)

"""Progress lines, as the study notes' C server prints them: a client left or asked to close."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from support import dial, output_of, read_to_end, reset, says_back, wait_until

from rsock import Limits, LineEcho, Server


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.INFO, "rsock.connections")
    yield caplog
    logging.getLogger("rsock.connections").setLevel(logging.NOTSET)


def test_each_end_of_a_client_is_a_line_of_its_own(lines: pytest.LogCaptureFixture) -> None:
    limits = Limits(first_byte=0.3)
    with Server(service=LineEcho(quit=b"exit"), name="notes", limits=limits) as server:
        with dial(server.address) as peer:
            peer.sendall(b"hi\n")
            assert peer.recv(3) == b"hi\n"
        server.ledger.wait(open=0, closed=1)
        with dial(server.address) as peer:
            peer.sendall(b"exit\n")
            assert read_to_end(peer) == b""
        server.ledger.wait(open=0, closed=2)
        peer = dial(server.address)
        assert says_back(peer, b"x\n")
        reset(peer)
        server.ledger.wait(open=0, closed=3)
        with dial(server.address) as peer:
            assert peer.recv(1) == b""
        server.ledger.wait(open=0, closed=4)
    said = [record.getMessage() for record in lines.records]
    for text, end in zip(
        said,
        ("left", "was closed by the service", "was reset", "reached the limit first_byte"),
        strict=True,
    ):
        assert text.startswith("notes: connection ")
        assert f" {end} after " in text
    assert "3 bytes in, 3 out" in said[0]


def test_without_a_level_of_its_own_the_logger_writes_no_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A level set on the root logger, or on "rsock", is only inherited.
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "rsock")
    with Server() as server:
        with dial(server.address) as peer:
            assert says_back(peer)
        server.ledger.wait(open=0, closed=1)
        assert "rsock-log" not in {thread.name for thread in threading.enumerate()}
    assert not caplog.records


def test_the_last_lines_are_out_when_the_server_has_stopped(
    lines: pytest.LogCaptureFixture,
) -> None:
    with Server() as server:
        peers = [dial(server.address) for _ in range(50)]
        assert all([says_back(peer) for peer in peers])
    assert len(lines.records) == 50
    assert all("was closed by the stop" in record.getMessage() for record in lines.records)
    # The last line is out a moment before its thread has ended.
    wait_until(lambda: "rsock-log" not in {thread.name for thread in threading.enumerate()})
    for peer in peers:
        peer.close()


def test_a_filter_that_raises_loses_its_own_line_only(lines: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def pick(record: logging.LogRecord) -> bool:
        seen.append(record.getMessage())
        if len(seen) == 1:
            raise RuntimeError("a broken filter")
        return True

    logger = logging.getLogger("rsock.connections")
    logger.addFilter(pick)
    try:
        with Server() as server:
            for number in range(3):
                with dial(server.address) as peer:
                    assert says_back(peer)
                server.ledger.wait(open=0, closed=number + 1)
            wait_until(lambda: len(seen) == 3)
    finally:
        logger.removeFilter(pick)
    assert len(lines.records) == 2


def test_a_program_that_does_not_log_does_not_import_logging() -> None:
    code = """
import sys
from rsock import Server
with Server() as server, server.client(timeout=5) as client:
    client.sendall(b"x")
    client.recv(1)
print("logging" in sys.modules)
"""
    assert output_of(code) == "False\n"

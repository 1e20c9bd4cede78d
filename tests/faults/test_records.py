"""What faults did is in the records: in their lists and tables, on the trace and in displays."""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from support import SOON, dial, output_of, read_exactly, read_to_end, says_back, wait_until

import rsock
from rsock import Accept, Connection, FaultEvent, Forward, Record, Server
from rsock.faults import CloseAfter, Corrupt, Fault, Latency, Reset

# A title for the terminal, a line of its own, a change of direction, an element of a page.
HOSTILE = "\x1b]0;owned\x07\rforged\n\u202e<b>"
FORBIDDEN = ("\x1b", "\x07", "\r", "\n", "\u202e")


@dataclass(frozen=True, slots=True)
class Named(Reset):
    """A fault whose text form is not one of ours."""

    def __str__(self) -> str:
        return HOSTILE


def was_cut(server: Server, data: bytes = b"hello") -> Record:
    """The record of a connection that sent the data and was then ended by a fault."""
    before = server.ledger.totals.closed
    with dial(server.address) as peer:
        peer.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            read_to_end(peer)
    record: Record = server.ledger.wait(open=0, closed=before + 1)[-1]
    return record


def as_a_handler(connection: Connection) -> None:
    while data := connection.recv(1024):
        connection.sendall(data)


# --- the end of a connection ---------------------------------------------------------------


def test_a_fault_that_ends_a_connection_is_named() -> None:
    with Server(faults=[Reset(after_bytes=3, direction="down")]) as server:
        record = was_cut(server)
    assert (record.closed_by, record.fault, record.limit) == ("fault", "reset", None)
    assert record.error == str(Reset(after_bytes=3, direction="down"))
    assert record.bytes_out == 3
    totals = server.ledger.totals
    assert (totals.closed_by["fault"], totals.accepted, totals.closed) == (1, 1, 1)
    assert sum(totals.closed_by.values()) == totals.closed


@pytest.mark.parametrize("kind", [Reset, CloseAfter])
@pytest.mark.parametrize("shape", ["a handler", "Accept", "Forward"])
def test_so_it_is_with_every_service(shape: str, kind: type[Reset | CloseAfter]) -> None:
    fault = kind(after_bytes=3, direction="down")
    if shape == "Forward":
        with Server() as target, Server(service=Forward(target), faults=[fault]) as server:
            record = was_cut(server)
    elif shape == "Accept":
        with Server(service=Accept(), faults=[fault]) as server, dial(server.address) as peer:
            connection, _ = server.accept(SOON)
            with connection:
                connection.sendall(b"hello")
                with contextlib.suppress(ConnectionResetError):
                    read_to_end(peer)
                peer.close()
            [record] = server.ledger.wait(open=0, closed=1)
    else:
        with Server(service=as_a_handler, faults=[fault], on_error="raise") as server:
            record = was_cut(server)
    assert (record.closed_by, record.fault) == ("fault", fault._name)
    assert [event.action for event in record.faults] == ["reset" if kind is Reset else "closed"]


def test_another_end_names_no_fault() -> None:
    with Server(faults=[Latency(0.0)]) as server:
        with dial(server.address) as peer:
            [record] = server.ledger.wait(open=1)
            assert says_back(peer)
            assert (record.closed_by, record.fault) == (None, None)
        [record] = server.ledger.wait(open=0, closed=1)
    assert (record.closed_by, record.fault) == ("peer", None)


# --- what faults did -----------------------------------------------------------------------


def test_a_record_tells_what_each_fault_did_and_where() -> None:
    delay, cut = Latency(0.01, direction="up"), Reset(after_bytes=8, direction="down")
    with Server(faults=[delay, cut]) as server, dial(server.address) as peer:
        assert says_back(peer, b"hello")
        [record] = server.ledger.open
        wait_until(lambda: record.bytes_out == 5)
        [delayed] = record.faults
        assert delayed == FaultEvent(str(delay), "delayed", "up", delayed.seconds, 0, 0)
        assert 0 <= delayed.seconds <= record.seconds
        peer.sendall(b"world")
        with pytest.raises(ConnectionResetError):
            read_to_end(peer)
        [record] = server.ledger.wait(open=0, closed=1)
    first, last = record.faults
    assert first == delayed
    assert last == FaultEvent(str(cut), "reset", "down", last.seconds, 8, 0)
    # The second message was delayed before the fault that cuts saw its echo.
    assert delayed.seconds + 0.01 <= last.seconds <= record.seconds
    assert record.faults.more == 0


def test_without_faults_the_list_is_empty(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        [record] = echo.ledger.open
        assert record.faults == []
        assert record.faults.more == 0
        assert record.fault is None


def test_more_events_than_a_record_keeps_are_counted() -> None:
    with Server(faults=[Corrupt(1.0)]) as server, dial(server.address) as peer:
        peer.sendall(bytes(300))
        assert 0 not in read_exactly(peer, 300)
        [record] = server.ledger.open
        wait_until(lambda: record.to_dict()["fault_events"] == 300)
        assert [event.offset for event in record.faults] == list(range(256))
        assert record.faults.more == 44
        assert "44 later events not kept" in html_of(record)
        assert "300 fault events" in repr(record)


def events_of(count: int, more: int = 0) -> rsock._types.FaultEvents:
    event = FaultEvent("latency:0.2", "delayed", "down", 0.5, 0, 5)
    return rsock._types.FaultEvents([event] * count, more)


def test_the_repr_of_the_list_is_short_and_tells_what_is_missing() -> None:
    assert repr(events_of(0)) == "[]"
    one = "FaultEvent(fault='latency:0.2', action='delayed', direction='down', seconds=0.5,"
    assert repr(events_of(1)) == f"[{one} offset=0, size=5)]"
    many = repr(events_of(256, 7))
    assert "250 more" in many
    assert "7 later ones are not kept" in many
    assert many.count("FaultEvent(") == 6


def test_the_list_is_an_ordinary_list_that_can_be_stored() -> None:
    events = events_of(2, 3)
    assert events == [events[0]] * 2
    for other in (copy.copy(events), copy.deepcopy(events), pickle.loads(pickle.dumps(events))):
        assert (other, other.more, type(other)) == (events, 3, type(events))


def test_a_forked_child_is_told_that_it_cannot_read_them() -> None:
    code = """
import os, rsock
from rsock.faults import Latency
with rsock.Server(faults=[Latency(0.0)]) as server, server.client(timeout=5.0) as client:
    client.sendall(b"x")
    client.recv_exactly(1)
    [record] = server.ledger.open
    if os.fork() == 0:
        try:
            record.faults
        except RuntimeError as error:
            # The display needs no lock.
            print("process" in str(error), "1 fault event" in repr(record), flush=True)
        os._exit(0)
    os.wait()
"""
    # From 3.12 on, a fork beside other threads is a warning.
    assert output_of(code, options=("-W", "ignore")) == "True True\n"


# --- the trace -----------------------------------------------------------------------------


def test_faults_are_on_the_trace_between_what_was_received_and_sent() -> None:
    with Server(faults=[Reset(after_bytes=3, direction="down")], trace=True) as server:
        record = was_cut(server)
    events = record.trace
    assert events is not None
    told = [(event.direction, event.data, event.size) for event in events]
    assert told == [("in", b"hello", 5), ("fault", b"", 0), ("out", b"hel", 3)]
    assert [event.fault for event in events] == [None, record.faults[0], None]
    assert [event.number for event in events] == [1, 2, 3]
    times = [event.seconds for event in events]
    assert times == sorted(times)
    assert not events[1].truncated


def test_a_reader_of_a_trace_that_knows_no_faults_reads_what_was_moved() -> None:
    def moved(faults: list[Fault]) -> list[tuple[str, bytes]]:
        with Server(faults=faults, trace=True) as server:
            with dial(server.address) as peer:
                assert says_back(peer, b"one")
                assert says_back(peer, b"two")
            [record] = server.ledger.wait(open=0, closed=1)
        assert record.trace is not None
        assert len(record.trace) == 4 + len(faults)
        return [(event.direction, event.data) for event in record.trace if event.size]

    assert moved([Latency(0.001)]) == moved([])


# --- tables --------------------------------------------------------------------------------


def test_tables_have_the_fault_and_the_number_of_events() -> None:
    with Server(faults=[Latency(0.0), Reset(after_bytes=3, direction="down")]) as server:
        record = was_cut(server)
        ledger = server.ledger
        row = record.to_dict()
        assert (row["closed_by"], row["fault"], row["fault_events"]) == ("fault", "reset", 2)
        assert ledger.to_dicts() == [row]
        [line] = csv.DictReader(io.StringIO(ledger.to_csv()))
        assert (line["fault"], line["fault_events"]) == ("reset", "2")
        assert json.loads(ledger.to_jsonl() or "")["fault_events"] == 2


def test_in_a_table_a_connection_without_faults_has_none(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        [row] = echo.ledger.to_dicts()
    assert (row["fault"], row["fault_events"]) == (None, 0)


# --- displays ------------------------------------------------------------------------------


def html_of(thing: object) -> str:
    text: str = thing._repr_html_()  # type: ignore[attr-defined]
    return text


def test_a_server_shows_the_faults_in_force_with_their_counts() -> None:
    delay, cut = Latency(0.0), Reset(after_bytes=30, direction="down")
    with Server(faults=[delay, cut]) as server:
        assert "(0 connections, 0 events)" in repr(server)
        with dial(server.address) as peer:
            assert says_back(peer)
            wait_until(lambda: repr(server).count("(1 connection, ") == 2)
            assert repr(server).count("(1 connection, 1 event)") == 1
            assert html_of(server).count("1 connection, ") == 2
        was_cut(server, b"x" * 100)
        assert repr(server).count("(2 connections, ") == 2
        assert "\n" not in repr(server)
        assert len(repr(server)) < 300
    assert "(2 connections, 1 event)" in repr(server)


def test_a_server_with_many_faults_still_has_a_short_line() -> None:
    server = Server(faults=[Latency(0.1 * number) for number in range(40)])
    assert "38 more" in repr(server)
    assert len(repr(server)) < 300
    assert "32 more" in html_of(server)
    server.stop()


def test_without_faults_displays_do_not_speak_of_them(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        [record] = echo.ledger.open
        for thing in (echo, echo.ledger, record):
            assert "fault" not in repr(thing) + html_of(thing)


def test_a_record_shows_what_faults_did() -> None:
    with Server(faults=[Latency(0.0), Reset(after_bytes=3, direction="down")]) as server:
        record = was_cut(server)
        assert "closed by fault (" in repr(record)
        assert "2 fault events" in repr(record)
        for action in ("delayed", "reset"):
            assert f": {action}" in html_of(record)
        table = repr(server.ledger).splitlines()
        assert "faults  closed by" in table[1]
        assert "ended by fault (" in table[-1]
        assert "faults" in html_of(server.ledger)


def test_a_text_form_is_escaped_wherever_it_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rsock.connections")
    with Server(faults=[Named(after_bytes=3, direction="down")]) as server:
        record = was_cut(server)
        assert record.error == record.faults[0].fault == HOSTILE
        text = io.StringIO()
        server.ledger.to_csv(text)
        shown = [repr(server), repr(record), html_of(server), html_of(record)]
        shown += [html_of(server.ledger), *repr(server.ledger).splitlines()]
    logging.getLogger("rsock.connections").setLevel(logging.NOTSET)
    shown += [line.getMessage() for line in caplog.records]
    assert len(caplog.records) == 1
    assert not any(char in line for line in shown for char in FORBIDDEN)
    assert not any("<b>" in line for line in shown if line.startswith("<table"))
    assert "\x1b" not in text.getvalue()


def test_the_line_of_a_connection_names_the_fault(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rsock.connections")
    with Server(faults=[Reset(after_bytes=3, direction="down")], name="notes") as server:
        was_cut(server)
    logging.getLogger("rsock.connections").setLevel(logging.NOTSET)
    [line] = caplog.records
    assert (
        f"was ended by the fault {Reset(after_bytes=3, direction='down')} after "
        in line.getMessage()
    )


# --- the report of pytest ------------------------------------------------------------------

pytest_plugins = ["pytester"]


@pytest.fixture
def outcome(pytester: pytest.Pytester) -> Callable[[str], pytest.RunResult]:
    """Run the body of a test in a separate pytest."""

    def run(body: str) -> pytest.RunResult:
        pytester.makeini("[pytest]\nfilterwarnings = error\n")
        pytester.makepyfile(
            test_inner=(
                "import socket\nfrom rsock.faults import Latency, Reset\n"
                f"def test_client(make_rsock_server):\n{body}"
            )
        )
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=40)

    return run


BODY = """
    server = make_rsock_server(faults=[Reset(after_bytes=3, direction="down")], seed=4711)
    with socket.create_connection(server.address, 5.0) as peer:
        peer.sendall(b"hello")
        while peer.recv(10):
            pass
"""


def test_the_report_of_a_failed_test_tells_what_faults_did(
    outcome: Callable[[str], pytest.RunResult],
) -> None:
    done = outcome(BODY)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "*- rsock -*",
            "reset, connection 1: the fault reset:after=3B,down reset it after 3 bytes from the *",
            "*seed=4711 *",
            "*: 1 connection, 1 event",
            "connection 1 from 127.0.0.1:*",
            "*: reset at 3, down, by *",
        ]
    )


def test_a_test_that_passes_and_servers_without_faults_have_no_report(
    outcome: Callable[[str], pytest.RunResult],
) -> None:
    for body in (
        "    make_rsock_server(faults=[Latency(0.0)])\n",
        "    make_rsock_server()\n    raise AssertionError('as it should')\n",
    ):
        assert "has the same faults again" not in outcome(body).stdout.str()

"""Notebook tables of plain values and of lists: right, bounded, escaped, and never an exception."""

from __future__ import annotations

import html
import subprocess
import sys
from pathlib import Path

import pytest
from support import LOOPBACK, dial, read_exactly, says_back
from support.markup import checked, html_of

import rsock
from rsock import (
    TLS,
    Endpoint,
    Forward,
    Limits,
    Recording,
    Script,
    Server,
    SocketOptions,
    Trace,
    TraceEvent,
    drive,
    process_limits,
)
from rsock.faults import Latency, Reset

# Markup, a title for the terminal, a change of direction, broken UTF-8.
HOSTILE = b"<script>alert(1)</script>\x1b]0;owned\x07\xff\xfe \xe2\x80\xae&amp;"
FORBIDDEN = ("<script", "\x1b", "\x07", "\u202e", "\udcff")


def harmless(page: str) -> bool:
    return "<script" not in page and not any(char in html.unescape(page) for char in FORBIDDEN[1:])


def test_values_of_a_connection_are_tables(echo: Server) -> None:
    with echo.client(timeout=10) as client:
        assert says_back(client)
        [record] = echo.ledger.open
        info = record.tcp_info
        assert info is not None
        shown = checked(info).text
        assert "ESTABLISHED" in shown
        assert "none until the first loss" in shown
        assert "µs" in shown
        assert f"{LOOPBACK}:{echo.port}" in checked(client.five_tuple).text
        assert str(client.fileno()) in checked(client.five_tuple).text
        assert f"{LOOPBACK}:{echo.port}" in checked(record.local).text
    echo.ledger.wait(open=0, closed=1)
    totals = checked(echo.ledger.totals).text
    assert "1 accepted = 0 open + 1 closed" in totals
    assert "closed by peer1" in totals
    # Reasons that did not occur have no row.
    assert "reset" not in totals
    assert "refused" not in totals


def test_the_report_of_a_stop_is_a_table() -> None:
    with Server() as server, server.client(timeout=10) as client:
        assert says_back(client)
        report = server.stop()
    shown = checked(report).text
    assert "StopReport: stop, in " in shown
    assert "drained" in shown


def test_settings_say_what_was_set() -> None:
    shown = checked(Limits(idle=0.25, per_host=4)).text
    assert "250.0 ms  (set)" in shown
    assert "4  (set)" in shown
    assert shown.count("(set)") == 2
    assert "no limit" in shown
    assert "1,460 B  (set)" in checked(SocketOptions(max_segment=1460)).text
    assert "0o600" in checked(SocketOptions(mode=0o600)).text
    assert "(set)" not in checked(Trace()).text
    assert "descriptor" not in checked(process_limits()).tags


def test_faults_and_what_they_did_are_tables(echo: Server) -> None:
    fault = Latency(0.001, jitter=0.0005)
    shown = checked(fault).text
    assert "Latency" in shown
    assert "500 µs" in shown
    with echo.fault(fault), echo.fault(Reset(after_bytes=5)), dial(echo.address) as peer:
        with pytest.raises(ConnectionResetError):
            peer.sendall(b"hello, world")
            read_exactly(peer, 12)
        assert "2 faults" in checked(echo.faults).text
        counts = echo.faults.counts()
        assert "latency" in checked(counts[0]).text
    [record] = echo.ledger.wait(open=0, closed=1)
    events = record.faults
    assert f"{len(events)} fault event" in checked(events).text
    assert events[0].action in checked(events[0]).text
    assert "reset" in checked(record).text


def test_results_are_tables() -> None:
    with Server() as server:
        result = drive(server.address, connections=2, messages=10)
        shown = checked(result).text
        assert "latency p99" in shown
        assert "10" in shown
    with Server(service=Script().expect(b"hello").send(b"bye"), on_error=lambda _: None) as server:
        with dial(server.address) as peer:
            peer.sendall(HOSTILE)
            peer.settimeout(10)
            with pytest.raises(ConnectionResetError):
                while peer.recv(100):
                    pass
        server.ledger.wait(open=0, closed=1)
        [told] = server.script_results
        assert told.error is not None
        for thing in (told, server.script_results):
            assert harmless(html_of(thing))
            checked(thing)
        assert "diverged at step 1" in checked(told).text
        assert "before it: received nothing, sent nothing" in checked(told).text


def test_a_list_of_records_is_the_table_of_a_ledger(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        for _ in range(40):
            with dial(echo.address) as other:
                other.sendall(b"x")
        records = echo.ledger.wait(open=1, closed=40)
        shown = checked(records)
        assert "41 records" in shown.text
        assert "still open" in shown.text
        assert "… and 21 more: 21 closed" in shown.text
        assert html_of(records).count("<tr") <= 30
    assert "nothing" in checked(echo.ledger[:0]).text


def test_a_long_trace_is_cut_and_the_rest_is_folded() -> None:
    with Server(trace=Trace(events=3_000)) as server, dial(server.address) as peer:
        for _ in range(600):
            peer.sendall(HOSTILE)
            read_exactly(peer, len(HOSTILE))
        [record] = server.ledger.open
        trace = record.trace
        assert trace is not None
        page = html_of(trace)
        shown = checked(trace)
    assert f"{len(trace):,} events" in shown.text
    assert f"{len(trace) - 20:,} more" in shown.text
    assert "details" in shown.tags
    # At least 1,200 events; 520 of them are in the page.
    assert page.count("<tr") < 540
    assert harmless(page)
    assert "alert(1)" in shown.text
    assert r"\x1b]0;owned\x07\xff\xfe" in shown.text


def test_lines_of_a_mebibyte_stay_small() -> None:
    line = HOSTILE * (1_048_576 // len(HOSTILE))

    def fail(conn: rsock.Connection) -> None:
        conn.sendall(conn.recv_exactly(len(line)))
        raise ValueError(line.decode("latin-1"))

    keep = Trace(bytes=4 << 20)
    with Server(service=fail, trace=keep, on_error=lambda _: None) as server:
        with dial(server.address) as peer:
            peer.sendall(line)
            read_exactly(peer, len(line))
        [record] = server.ledger.wait(open=0, closed=1)
        for thing in (record, server, server.ledger, record.trace, server.ledger.closed):
            page = html_of(thing)
            assert len(page) < 60_000
            assert harmless(page)
            checked(thing)
            assert len(repr(thing)) < 60_000
        assert "error" in checked(record).text
        assert "ValueError: " in checked(server).text


def test_a_forwarded_connection_shows_its_far_leg(echo: Server) -> None:
    with Server(service=Forward(echo)) as relay, dial(relay.address) as peer:
        assert says_back(peer)
        [record] = relay.ledger.open
        assert record.far is not None
        assert f"{LOOPBACK}:{echo.port}" in checked(record.far).text
        assert "forwarded to" in checked(record).text


def test_an_event_whose_data_was_not_kept_says_so() -> None:
    assert "5 B, not kept" in checked(TraceEvent(1, 0.5, "in", 5, b"")).text
    assert "b''" in checked(TraceEvent(1, 0.5, "in", 0, b"")).text


def test_a_certificate_is_shown_by_its_owner() -> None:
    with Server(tls=TLS.for_tests()) as server, server.client(timeout=10) as client:
        assert says_back(client)
        assert client.record
        tls = client.record.tls
        assert tls
        assert tls.peer
        assert "CN=localhost (localhost, 127.0.0.1)" in checked(tls).text
        shown = checked(tls.peer).text
    assert "localhost, 127.0.0.1" in shown
    assert shown.index("subject") < shown.index("der")


def test_a_recording_is_tables_of_its_connections_and_their_events(tmp_path: Path) -> None:
    file = tmp_path / "recording"
    with Server() as target, Server(service=Forward(target, recording=file)) as relay:
        for said in (b"hello", HOSTILE):
            with relay.client(timeout=10) as client:
                client.sendall(said)
                assert client.recv_exactly(len(said)) == said
    recording = Recording.read(file)
    first, second = recording.connections
    shown = checked(recording).text
    assert "2 connections" in shown
    assert f"5 B5 B{first.client}client" in shown
    shown = checked(first).text
    assert "opened at" in shown
    assert "up (from the client)5b'hello'" in shown
    assert "down (from the server)5b'hello'" in shown
    assert "up (from the client)end" in shown
    assert "RecordedEvent(" not in shown
    assert "b'hello'" in checked(first.events[0]).text
    for thing in (recording, second, *second.events):
        assert harmless(html_of(thing))
        checked(thing)


def test_an_endpoint_with_a_hostile_path_is_escaped() -> None:
    page = html_of(Endpoint("unix", "/tmp/<script>\x1b\udcff"))
    assert harmless(page)
    assert "&lt;script&gt;" in page


def test_tables_are_loaded_only_when_a_notebook_asks_for_one() -> None:
    code = (
        "import rsock, sys\n"
        "rsock.Limits(); repr(rsock.Server())\n"
        "assert 'rsock._display._values' not in sys.modules\n"
        "assert '<table' in rsock.Limits()._repr_html_()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")

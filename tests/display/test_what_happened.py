"""Tables answer what happened on a connection, at first sight."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest
from support import dial, dial_path, read_exactly, reset, says_back, wait_until
from support.markup import checked, html_of

from rsock import TLS, Connection, Forward, Limits, Script, Server
from rsock._display._views import short_end
from rsock._types import Listing
from rsock.faults import Reset


def shown(thing: object) -> str:
    return checked(thing).text


def test_a_server_says_how_many_connections_were_refused_and_why() -> None:
    with Server(limits=Limits(per_host=1)) as server, dial(server.address) as peer:
        assert says_back(peer)
        for _ in range(2):
            # The reset may come before the connect has returned.
            with pytest.raises(ConnectionResetError), dial(server.address) as other:
                other.recv(1)
        wait_until(lambda: server.ledger.totals.refused == 2)
        said = "2 refused (Limits.per_host)"
        for text in (shown(server), shown(server.ledger), repr(server.ledger)):
            assert said in text
        assert "Refused: 2 connections (Limits.per_host)." in server.queue().text
    with Server(deny=["127.0.0.0/8"]) as server:
        with contextlib.suppress(ConnectionResetError), dial(server.address) as other:
            other.recv(1)
        wait_until(lambda: server.ledger.totals.refused == 1)
        assert "0 open, 0 closed, 1 refused (deny)" in shown(server)


def test_clients_that_wait_for_a_server_to_start_are_shown() -> None:
    server = Server().listen()
    try:
        with dial(server.address), dial(server.address):
            wait_until(lambda: server.waiting == 2)
            assert "2 to be accepted" in shown(server)
    finally:
        server.stop()


def test_an_open_connection_tells_which_end_has_finished() -> None:
    def answer(conn: Connection) -> None:
        conn.sendall(conn.recv_exactly(5))

    with Server(service=answer) as server, server.client(timeout=10) as client:
        assert "finished" not in shown(client)
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"
        assert client.recv(1) == b""
        assert "connected; the peer has finished" in shown(client)
        assert "closed" not in shown(client)

    with Server(faults=[]) as server, dial(server.address) as peer:
        peer.sendall(b"hello")
        assert read_exactly(peer, 5) == b"hello"
        [record] = server.ledger.open
        assert "still open; " not in shown(record) + shown(server.ledger)
    with Server(service=lambda conn: conn.shutdown(socket.SHUT_WR) or conn.recv(1)) as server:
        with dial(server.address) as peer:
            assert peer.recv(1) == b""
            [record] = server.ledger.open
            for thing in (record, server.ledger):
                assert "still open; this end has finished" in shown(thing)
            assert "still open; this end has finished" in repr(server.ledger)


def test_a_closed_client_still_tells_whom_it_was_connected_to() -> None:
    with Server() as server:
        client = server.client(timeout=10)
        assert says_back(client)
        host, port = client.getsockname()
        client.close()
        for text in (f"{host}:{port}", f"{host}:{server.port}", "closed"):
            assert text in shown(client)
        assert client.record is not None
        assert f"Record {client.record.id} of a client" in shown(client.record)
        [record] = server.ledger.wait(open=0, closed=1)
        assert f"Record {record.id}transport" in shown(record)


def test_an_end_is_told_once_and_says_whose_it_was() -> None:
    def read(conn: Connection) -> None:
        conn.recv_line()
        conn.recv_line()

    with Server(service=read) as server:
        with server.client(timeout=10) as client:
            client.sendall(b"one\n")
            [record] = server.ledger.wait(open=1, closed=0)
            wait_until(lambda: record.bytes_in == 4)
            client.abort()
        [record] = server.ledger.wait(open=0, closed=1)
        assert "closed byreset (by the peer)error" in shown(record)
        assert shown(record).count("ConnectionResetError") == 1
        # The call that met the reset is in the record, and not in each row and title.
        assert repr(server.ledger).endswith(" reset")
        assert "closed by reset (by the peer) after " in record.ladder().text
        assert "closed by reset (by the peer); " in record.states().text

    def leave(conn: Connection) -> None:
        conn.recv_line()

    with Server(service=leave) as server:
        with dial(server.address) as peer:
            peer.sendall(b"\n")
            assert peer.recv(1) == b""
        [record] = server.ledger.wait(open=0, closed=1)
        assert "closed bylocal (this end)" in shown(record)

    def fail(conn: Connection) -> None:
        raise ValueError("no")

    with Server(service=fail, on_error=lambda _: None) as server:
        with contextlib.suppress(ConnectionResetError), dial(server.address) as peer:
            peer.recv(1)
        [record] = server.ledger.wait(open=0, closed=1)
        assert "closed byerrorerrorValueError: no" in shown(record)

    with Server(faults=[Reset(after_bytes=0)]) as server:
        with contextlib.suppress(ConnectionResetError), dial(server.address) as peer:
            peer.sendall(b"x")
            peer.recv(1)
        [record] = server.ledger.wait(open=0, closed=1)
        assert shown(record).endswith(f"closed byfault ({record.error})")


def test_an_error_of_a_target_is_told_apart_from_one_of_the_client() -> None:
    def leave(conn: Connection) -> None:
        conn.recv_exactly(5)
        conn.abort()

    with Server(service=leave) as target, Server(service=Forward(target)) as front:
        with dial(front.address) as peer:
            peer.sendall(b"hello")
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        [record] = front.ledger.wait(open=0, closed=1)
        said = f"recv target 127.0.0.1:{target.port}: Connection reset by peer"
        assert record.far is not None
        for text in (shown(record), repr(front.ledger), shown(front), record.ladder().text):
            assert said in text
        # The record has the text of the error unchanged.
        assert record.error == said.replace("target ", "")
        assert short_end(record) == "error (target: Connection reset by peer)"


def test_results_tell_a_script_that_waits_from_one_that_diverged() -> None:
    script = Script().expect(b"one\n").expect(b"two\n")
    with Server(service=script, on_error=lambda _: None) as server:
        with dial(server.address) as first, dial(server.address) as second:
            second.sendall(b"one\nTWO\n")
            with pytest.raises(ConnectionResetError):
                second.recv(1)
            server.ledger.wait(open=1, closed=1)
            waits, diverged = sorted(server.script_results, key=lambda result: result.step)
            assert (waits.step, diverged.step) == (1, 2)
            text = shown(server.script_results)
            assert r"waits: expect b'one\n'" in text
            assert r"diverged: expect b'two\n'; received b" in text
            assert "test_what_happened" not in text
            first.sendall(b"one\ntwo\n")
            assert first.recv(1) == b""
        server.ledger.wait(open=0, closed=2)
        assert "2 of 2done" in shown(server.script_results)


def test_the_report_of_a_script_keeps_its_lines() -> None:
    with Server(service=Script().expect(b"hello\n"), on_error=lambda _: None) as server:
        with dial(server.address) as peer:
            peer.sendall(b"<b>\n\n\n")
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        [record] = server.ledger.wait(open=0, closed=1)
        [result] = server.script_results
    assert result.error is not None
    for thing in (record, result):
        page = html_of(thing)
        # As many as the report has, and none of the peer's.
        assert page.count("<br>") == result.error.count("\n")
        assert "<b>" not in page
        assert "&lt;b&gt;" in page


def test_an_error_of_many_lines_stays_small() -> None:
    def fail(conn: Connection) -> None:
        raise ValueError("\n".join("line" for _ in range(100_000)))

    with Server(service=fail, on_error=lambda _: None) as server:
        with contextlib.suppress(ConnectionResetError), dial(server.address) as peer:
            peer.recv(1)
        [record] = server.ledger.wait(open=0, closed=1)
        for thing in (record, server):
            page = html_of(thing)
            assert page.count("<br>") <= 12
            assert len(page) < 20_000


def test_tls_is_named() -> None:
    tls = TLS.for_tests()
    with Server(tls=tls, trace=True) as server:
        assert "transporttcp, TLS" in shown(server)
        with server.client(timeout=10) as client:
            assert says_back(client)
            assert client.record is not None
            assert "transporttcp, TLSv1.3" in shown(client.record)
        [record] = server.ledger.wait(open=0, closed=1)
        assert "transporttcp, TLSv1.3" in shown(record)
        assert "tcp, TLSv1.3, closed by" in record.ladder().text
        assert "TLS encrypts" in record.ladder().svg
    with Server(trace=True) as server:
        assert "TLS" not in shown(server)


def test_a_report_says_what_it_counts() -> None:
    with Server() as server, dial(server.address) as peer:
        assert says_back(peer)
        report = server.stop(0)
    assert report.forced == 1
    assert "forced1 connection, reset at the deadline" in shown(report)
    assert "drained0 connections, ended in order" in shown(report)
    assert "abandoned0 handler threads" in shown(report)


def test_a_trace_without_events_is_not_the_lack_of_a_trace() -> None:
    with Server(trace=True) as server, dial(server.address):
        [record] = server.ledger.wait(open=1, closed=0)
        assert record.trace is not None
        assert shown(record.trace) == "0 events"
        assert shown(record.faults) == "0 fault events"


def test_a_reset_by_the_peer_is_told_apart_from_one_by_this_end() -> None:
    with Server() as server:
        with dial(server.address) as peer:
            assert says_back(peer)
            reset(peer)
        [record] = server.ledger.wait(open=0, closed=1)
        assert "RST in" in record.states().text
    with Server(faults=[Reset(after_bytes=0)]) as server:
        with contextlib.suppress(ConnectionResetError), dial(server.address) as peer:
            peer.sendall(b"x")
            peer.recv(1)
        [record] = server.ledger.wait(open=0, closed=1)
        assert "send RST" in record.states().text


def test_reads_of_a_stream_are_not_called_messages(directory: Path) -> None:
    with Server(trace=True) as server, server.client(timeout=10) as client:
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"
        [record] = server.ledger.open
        wait_until(lambda: record.bytes_out == 5)
        for thing in (server, record, client):
            assert "in1 read, 5 Bout1 write, 5 B" in shown(thing)
        assert "1 read (5 B), 1 write (5 B)" in record.ladder().text
        head = repr(server.ledger).splitlines()[1].split()
        assert head[-4:] == ["reads", "writes", "closed", "by"]
    with Server(transport="udp", trace=True) as server, server.client(timeout=10) as client:
        client.send(b"hello")
        assert client.recv(10) == b"hello"
        [record] = server.ledger.open
        wait_until(lambda: record.bytes_out == 5)
        assert "in1 datagram, 5 Bout1 datagram, 5 B" in shown(record)
        assert "1 datagram in (5 B), 1 datagram out (5 B)" in record.ladder().text
        assert "datagrams in  datagrams out  closed by" in repr(server.ledger)
        both = Listing([record])
        path = str(directory / "socket")
        with Server(path=path) as other, dial_path(path) as peer:
            assert says_back(peer)
            both += other.ledger.open
            assert "lasted" + "in" + "out" + "closed by" in shown(both)

"""How a record says that its end was closed: by FIN or by RST, as the peer's kernel has seen it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from support import SOON, dial, dial_narrow, read_exactly, says_back, wait_until

from rsock import (
    Accept,
    Client,
    Connection,
    Echo,
    Forward,
    Greeting,
    Limits,
    Record,
    Server,
    SocketOptions,
)
from rsock.faults import CloseAfter, Reset

RESET_AT_CLOSE = struct.pack("ii", 1, 0)


def seen_by(peer: socket.socket) -> str:
    """What the peer's kernel has received as the end: "FIN" or "RST"."""
    peer.settimeout(SOON)
    try:
        while peer.recv(65_536):
            pass
    except ConnectionResetError:
        return "RST"
    return "FIN"


def told(record: Record) -> str:
    return "RST" if record.reset_sent else "FIN"


def ended(server: Server) -> Record:
    [record] = server.ledger.wait(open=0, closed=1)
    return record


def test_an_open_connection_has_sent_no_reset(echo_pair: tuple[Server, Client]) -> None:
    server, client = echo_pair
    assert says_back(client)
    assert server.ledger.open[0].reset_sent is False
    assert client.record is not None
    assert client.record.reset_sent is False


def test_a_peer_that_finishes_is_answered_with_a_fin(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        peer.shutdown(socket.SHUT_WR)
        assert seen_by(peer) == "FIN"
    record = ended(echo)
    assert (record.closed_by, told(record)) == ("peer", "FIN")


def close(conn: Connection) -> None:
    conn.close()


def abort(conn: Connection) -> None:
    conn.abort()


def close_with_linger(conn: Connection) -> None:
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    conn.close()


def close_with_linger_of_a_duplicate(conn: Connection) -> None:
    with conn.to_socket() as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        conn.close()


def finish_and_close(conn: Connection) -> None:
    conn.shutdown(socket.SHUT_WR)
    conn.close()


def read_by_os_and_close(conn: Connection) -> None:
    while conn.tcp_info is not None and os.read(conn.fileno(), 100) != b"!":
        pass
    conn.close()


@pytest.mark.parametrize(
    ("sent", "read", "end", "expected"),
    [
        (b"", 0, close, "FIN"),
        (b"hello", 5, close, "FIN"),
        (b"hello, and more", 5, close, "RST"),
        (b"x", 0, close, "RST"),
        (b"hello", 5, abort, "RST"),
        (b"hello, and more", 5, abort, "RST"),
        (b"hello", 5, close_with_linger, "RST"),
        (b"hello", 5, close_with_linger_of_a_duplicate, "RST"),
        (b"hello", 5, finish_and_close, "FIN"),
    ],
)
def test_a_record_says_what_the_peer_has_got(
    sent: bytes, read: int, end: Callable[[Connection], None], expected: str
) -> None:
    with Server(service=Accept()) as server, dial(server.address) as peer:
        conn, _ = server.accept(timeout=SOON)
        peer.sendall(sent)
        wait_until(lambda: arrived(conn) == len(sent))
        assert conn.recv_exactly(read) == sent[:read]
        end(conn)
        assert seen_by(peer) == expected
        record = ended(server)
    assert (record.closed_by, told(record)) == ("local", expected)


def arrived(stream: Connection | Client) -> int:
    info = stream.tcp_info
    assert info is not None
    return info.bytes_received


def test_what_was_read_by_other_calls_is_not_unread() -> None:
    with Server(service=Accept()) as server, dial(server.address) as peer:
        conn, _ = server.accept(timeout=SOON)
        peer.sendall(b"hello")
        wait_until(lambda: arrived(conn) == 5)
        # The record does not count it.
        assert os.read(conn.fileno(), 100) == b"hello"
        conn.close()
        assert seen_by(peer) == "FIN"
        record = ended(server)
    assert (record.bytes_in, told(record)) == (0, "FIN")


def test_data_left_unread_behind_the_peers_end_is_a_reset() -> None:
    with Server(service=Accept()) as server, dial(server.address) as peer:
        conn, _ = server.accept(timeout=SOON)
        peer.sendall(b"x")
        peer.shutdown(socket.SHUT_WR)
        # The kernel counts the FIN.
        wait_until(lambda: arrived(conn) == 2)
        conn.close()
        assert seen_by(peer) == "RST"
        assert told(ended(server)) == "RST"


def test_a_handler_that_leaves_input_unread_ends_with_a_fin() -> None:
    def serve(conn: Connection) -> None:
        assert conn.recv_exactly(5) == b"hello"
        conn.sendall(b"bye")

    with Server(service=serve) as server, dial(server.address) as peer:
        peer.sendall(b"hello, and more")
        assert read_exactly(peer, 3) == b"bye"
        assert seen_by(peer) == "FIN"
        record = ended(server)
    assert (record.closed_by, told(record)) == ("local", "FIN")


def test_a_socket_option_of_the_server_makes_each_close_a_reset() -> None:
    with Server(options=SocketOptions(linger=0)) as server, dial(server.address) as peer:
        assert says_back(peer)
        peer.shutdown(socket.SHUT_WR)
        assert seen_by(peer) == "RST"
        record = ended(server)
    assert (record.closed_by, told(record)) == ("peer", "RST")


@pytest.mark.parametrize("service", [Echo(), Accept()])
def test_so_does_the_option_of_a_listener_that_was_given(service: Echo | Accept) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        with Server(fd=listener.detach(), service=service) as server:
            with dial(server.address) as peer:
                if isinstance(service, Accept):
                    server.accept(timeout=SOON)[0].close()
                else:
                    peer.shutdown(socket.SHUT_WR)
                assert seen_by(peer) == "RST"
            assert told(ended(server)) == "RST"


@pytest.mark.parametrize(("drain", "expected"), [(0, "RST"), (SOON, "FIN")])
def test_a_stop_ends_by_fin_and_at_its_deadline_by_reset(drain: float, expected: str) -> None:
    with Server() as server, dial(server.address) as peer:
        assert says_back(peer)
        server.stop(drain)
        assert seen_by(peer) == expected
    [record] = server.ledger.closed
    assert (record.closed_by, told(record)) == ("stop", expected)


def wait_for_more(conn: Connection) -> None:
    conn.recv_exactly(1_000)


def stay(conn: Connection) -> None:
    while not conn.draining:
        conn.sendall(bytes(65_536))


@pytest.mark.parametrize("service", [wait_for_more, stay])
def test_so_it_does_with_handlers(service: Callable[[Connection], None]) -> None:
    with Server(service=service, on_error=lambda _: None) as server, dial(server.address) as peer:
        peer.sendall(b"hello")
        [record] = server.ledger.wait(open=1)
        wait_until(lambda: record.bytes_in + record.bytes_out > 0)
        server.stop(0)
        assert seen_by(peer) == "RST"
    [record] = server.ledger.closed
    assert (record.closed_by, told(record)) == ("stop", "RST")


def test_a_service_that_has_said_all_ends_by_fin() -> None:
    with Server(service=Greeting(b"bye")) as server, dial(server.address) as peer:
        peer.sendall(b"this is not read")
        assert seen_by(peer) == "FIN"
        peer.close()
        record = ended(server)
    assert (record.closed_by, told(record)) == ("service", "FIN")


def test_a_reset_by_the_peer_is_not_answered_with_one(echo: Server) -> None:
    peer = dial(echo.address)
    assert says_back(peer)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    peer.close()
    record = ended(echo)
    assert (record.closed_by, told(record)) == ("reset", "FIN")


@pytest.mark.parametrize(
    ("fault", "expected"), [(Reset(after_bytes=5), "RST"), (CloseAfter(after_bytes=5), "FIN")]
)
@pytest.mark.parametrize("service", [Echo(), None])
def test_faults_end_by_what_they_are_called(
    fault: Reset | CloseAfter, expected: str, service: Echo | None
) -> None:
    def serve(conn: Connection) -> None:
        try:
            while data := conn.recv(100):
                conn.sendall(data)
        except ConnectionError:
            pass

    with Server(service=service or serve, faults=[fault]) as server, dial(server.address) as peer:
        peer.sendall(b"hello")
        assert seen_by(peer) == expected
        peer.close()
        record = ended(server)
    assert (record.closed_by, told(record)) == ("fault", expected)


def test_an_idle_limit_ends_by_fin_and_a_write_limit_by_reset() -> None:
    with Server(limits=Limits(idle=0.05)) as server, dial(server.address) as peer:
        assert seen_by(peer) == "FIN"
        record = ended(server)
    assert (record.limit, told(record)) == ("idle", "FIN")
    limits = Limits(write=0.05)
    with Server(limits=limits) as server, dial_narrow(server.address) as peer:
        peer.setblocking(False)
        try:
            while True:
                peer.send(bytes(65_536))
        except BlockingIOError:
            pass
        record = ended(server)
        assert seen_by(peer) == "RST"
    assert (record.limit, told(record)) == ("write", "RST")


def test_the_client_of_a_forward_is_reset_where_its_target_was() -> None:
    with (
        Server(service=Accept()) as target,
        Server(service=Forward(target)) as front,
        dial(front.address) as peer,
    ):
        peer.sendall(b"hello")
        conn, _ = target.accept(timeout=SOON)
        assert conn.recv_exactly(5) == b"hello"
        conn.abort()
        assert seen_by(peer) == "RST"
        record = ended(front)
    assert (record.closed_by, told(record)) == ("error", "RST")


@pytest.mark.parametrize(
    ("answer", "end", "faults", "expected"),
    [
        (b"", Client.close, False, "FIN"),
        (b"", Client.abort, False, "RST"),
        (b"unread", Client.close, False, "RST"),
        (b"", Client.close, True, "FIN"),
        (b"", Client.abort, True, "RST"),
        # A worker reads and discards it.
        (b"unread", Client.close, True, "FIN"),
    ],
)
def test_a_client_says_the_same_of_its_own_end(
    answer: bytes, end: Callable[[Client], None], faults: bool, expected: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(*listener.getsockname(), timeout=SOON, faults=[] if faults else None)
        peer, _ = listener.accept()
        with client, peer:
            if answer:
                peer.sendall(answer)
                wait_until(lambda: arrived(client) == len(answer))
            record = client.record
            assert record is not None
            end(client)
            assert seen_by(peer) == expected
        wait_until(lambda: record.closed_by is not None)
    assert told(record) == expected


def test_a_descriptor_that_was_given_away_is_not_closed() -> None:
    with Server(service=Accept()) as server, dial(server.address) as peer:
        conn, _ = server.accept(timeout=SOON)
        peer.sendall(b"unread")
        wait_until(lambda: arrived(conn) == 6)
        with socket.socket(fileno=conn.detach()):
            record = ended(server)
            assert (record.closed_by, told(record)) == ("detached", "FIN")


@pytest.mark.parametrize(
    ("sent", "end", "expected"),
    [(b"", close, "FIN"), (b"unread", close, "RST"), (b"", abort, "FIN"), (b"x", abort, "RST")],
)
def test_a_unix_peer_gets_a_reset_for_unread_data_only(
    sent: bytes, end: Callable[[Connection], None], expected: str, directory: Path
) -> None:
    path = directory / "socket"
    with (
        Server(path=path, service=Accept()) as server,
        socket.socket(socket.AF_UNIX) as peer,
    ):
        peer.connect(str(path))
        peer.sendall(sent)
        conn, _ = server.accept(timeout=SOON)
        end(conn)
        assert seen_by(peer) == expected
        assert told(ended(server)) == expected


def test_a_table_and_a_display_have_it() -> None:
    with Server(service=Accept()) as server, dial(server.address) as peer:
        server.accept(timeout=SOON)[0].abort()
        assert seen_by(peer) == "RST"
        record = ended(server)
    assert record.to_dict()["reset_sent"] is True
    assert "closed by local (RST)" in repr(record)
    assert "reset sent" in record._repr_html_()
    header, line = str(server.ledger.to_csv()).splitlines()
    assert dict(zip(header.split(","), line.split(","), strict=True))["reset_sent"] == "True"

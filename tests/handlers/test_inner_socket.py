"""Handlers and `Accept` behind stages: what the inner socket is to its caller.

Every test runs through both stages that only tests have, and without a stage on a server that can
be given faults; what a handler sees must be what it sees without an inner socket.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import (
    SOON,
    Background,
    dial,
    dial_narrow,
    ended,
    payload,
    read_exactly,
    read_to_end,
    reset,
    says_back,
    send_until_stuck,
    wait_until,
    was_reset,
)

from rsock import (
    Accept,
    Connection,
    Handler,
    IncompleteRead,
    Limits,
    Server,
    SocketOptions,
    StopReport,
)
from rsock.faults import Reset


@pytest.fixture(params=["bytewise", "delayed", "no stage"])
def stages(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The argument that makes inner sockets: with a stage for each connection, or without one."""
    return {"faults": []} if request.param == "no stage" else {"_stages": request.param}


def echo(conn: Connection) -> None:
    while data := conn.recv(65_536):
        conn.sendall(data)


@pytest.fixture
def seen() -> list[object]:
    """What a handler has seen."""
    return []


# --- bytes and ends ------------------------------------------------------------------------


def test_a_mebibyte_in_random_chunks_comes_back(stages: dict[str, Any]) -> None:
    # Byte by byte each of them is a call.
    data = payload(1 << (20 if stages.get("_stages") != "bytewise" else 16))
    chunks = random.Random(7)

    def send(client: socket.socket) -> None:
        at = 0
        while at < len(data):
            size = chunks.choice([1, 7, 1000, 65_536])
            client.sendall(data[at : at + size])
            at += size
        client.shutdown(socket.SHUT_WR)

    with Server(service=echo, **stages) as server:
        with dial(server.address) as client:
            sending = Background(send, client)
            assert read_to_end(client) == data
            sending.result()
        [record] = server.ledger.wait(open=0, closed=1)
        assert (record.bytes_in, record.bytes_out) == (len(data), len(data))
        assert record.closed_by == "peer"


@pytest.mark.parametrize("stages", ["delayed", "no stage"], indirect=True)
def test_an_echo_goes_on_when_a_client_that_did_not_read_reads_again(
    stages: dict[str, Any],
) -> None:
    # More than everything on the way holds: the handler sends, and reads nothing meanwhile.
    data = payload(4 << 20)
    narrow = SocketOptions(send_buffer=1 << 16, receive_buffer=1 << 16)
    with (
        Server(service=echo, options=narrow, **stages) as server,
        dial_narrow(server.address, 1 << 15) as client,
    ):
        sent = send_until_stuck(client, data)
        assert 0 < sent < len(data)
        assert read_exactly(client, sent) == data[:sent]
        client.shutdown(socket.SHUT_WR)
        assert ended(client)


def test_a_half_close_passes_both_ways(stages: dict[str, Any], seen: list[object]) -> None:
    def answer_at_the_end(conn: Connection) -> None:
        seen.append(conn.recv_exactly(5))
        seen.append(conn.recv(1))
        conn.sendall(b"answer")
        conn.shutdown(socket.SHUT_WR)

    with Server(service=answer_at_the_end, **stages) as server, dial(server.address) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"answer"
        assert seen == [b"hello", b""]


def test_the_handler_finishes_first_and_still_reads(
    stages: dict[str, Any], seen: list[object]
) -> None:
    def finish_then_read(conn: Connection) -> None:
        conn.sendall(b"bye")
        conn.shutdown(socket.SHUT_WR)
        seen.append(conn.recv_exactly(4))

    with Server(service=finish_then_read, **stages) as server, dial(server.address) as client:
        assert read_to_end(client) == b"bye"
        client.sendall(b"more")
        wait_until(lambda: seen == [b"more"])


def test_an_inner_socket_whose_connection_is_over_reads_the_end(
    stages: dict[str, Any], seen: list[object]
) -> None:
    def until_the_end(conn: Connection) -> None:
        conn.shutdown(socket.SHUT_WR)
        wait_until(lambda: conn.record.closed_by is not None)
        seen.extend([conn.recv(1), os.read(conn.fileno(), 1)])

    with Server(service=until_the_end, **stages) as server:
        with dial(server.address) as client:
            assert ended(client)
            client.close()
        server.ledger.wait(open=0, closed=1)
        wait_until(lambda: seen == [b"", b""])


def test_what_was_sent_arrives_though_the_peer_goes_on_sending(stages: dict[str, Any]) -> None:
    answer = payload(20_000)

    with Server(service=lambda conn: conn.sendall(answer), **stages) as server:
        with dial(server.address) as client:
            client.sendall(bytes(10_000))
            assert read_to_end(client) == answer


def test_a_short_message_raises_incomplete_read(stages: dict[str, Any], seen: list[object]) -> None:
    def want_ten(conn: Connection) -> None:
        try:
            conn.recv_exactly(10)
        except IncompleteRead as short:
            seen.append(short.partial)

    with Server(service=want_ten, **stages) as server, dial(server.address) as client:
        client.sendall(b"short")
        client.shutdown(socket.SHUT_WR)
        assert ended(client)
    assert seen == [b"short"]


# --- resets --------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["recv", "sendall", "os.read"])
def test_a_reset_by_the_peer_is_an_error_of_the_call(
    stages: dict[str, Any], seen: list[object], call: str
) -> None:
    def until_reset(conn: Connection) -> None:
        conn.sendall(b"!")
        try:
            while True:
                if call == "sendall":
                    conn.sendall(bytes(4096))
                elif call == "recv":
                    conn.recv(100)
                else:
                    os.read(conn.fileno(), 100)
        except OSError as error:
            seen.append(error)
            raise

    with Server(service=until_reset, **stages) as server:
        client = dial(server.address)
        assert read_exactly(client, 1) == b"!"
        reset(client)
        [record] = server.ledger.wait(open=0, closed=1)
        assert record.closed_by == "reset"
    [error] = seen
    assert isinstance(error, ConnectionError)
    assert call == "sendall" or isinstance(error, ConnectionResetError)


def test_a_connection_that_a_stage_resets_at_once_is_no_end_to_its_handler(
    seen: list[object],
) -> None:
    def read(conn: Connection) -> None:
        try:
            seen.append(conn.recv(1))
        except ConnectionResetError:
            seen.append("reset")
            raise

    with Server(service=read, faults=[Reset(after_seconds=0)]) as server:
        # It may be so fast that the connect sees it.
        with pytest.raises(ConnectionResetError), dial(server.address) as client:
            read_to_end(client)
        [record] = server.ledger.wait(open=0, closed=1)
        assert record.closed_by == "fault"
        wait_until(lambda: seen == ["reset"])


def test_abort_resets_the_outer_connection(stages: dict[str, Any]) -> None:
    with Server(service=Connection.abort, **stages) as server:
        # It may be so fast that the connect sees it.
        with pytest.raises(ConnectionResetError), dial(server.address) as client:
            client.recv(1)
        [record] = server.ledger.wait(open=0, closed=1)
        assert record.closed_by == "local"


def test_a_handler_that_raises_resets_nothing_and_is_recorded(stages: dict[str, Any]) -> None:
    def fail(conn: Connection) -> None:
        conn.recv(1)
        raise KeyError("wrong")

    reported: list[BaseException] = []
    with Server(service=fail, on_error=reported.append, **stages) as server:
        with dial(server.address) as client:
            client.sendall(b"x")
            assert ended(client)
        [record] = server.ledger.wait(open=0, closed=1)
        assert record.closed_by == "error"
        assert "wrong" in (record.error or "")
    assert [type(error) for error in reported] == [KeyError]
    assert server.ledger.totals.closed == 1


# --- what belongs to the outer connection --------------------------------------------------


def test_addresses_record_and_tcp_info_are_those_of_the_outer_connection(
    stages: dict[str, Any], seen: list[object]
) -> None:
    def look(conn: Connection) -> None:
        conn.recv_exactly(5)
        assert conn.record is not None
        seen.append((conn.getpeername(), conn.getsockname(), conn.family))
        seen.append((conn.tcp_info.bytes_received, conn.record.bytes_in, conn.id))
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
        seen.append(conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))

    with Server(service=look, **stages) as server, dial(server.address) as client:
        client.sendall(b"hello")
        assert ended(client)
        assert seen == [
            (client.getsockname(), server.address, socket.AF_INET),
            (5, 5, 1),
            77,
        ]


def by_duplicate(conn: Connection) -> bytes:
    with conn.to_socket() as duplicate:
        return duplicate.recv(6)


@pytest.mark.parametrize(
    "read",
    [
        lambda conn: conn.makefile("rb").readline(),
        lambda conn: os.read(conn.fileno(), 6),
        by_duplicate,
        lambda conn: conn.recv_line(),
    ],
    ids=["makefile", "os.read", "to_socket", "recv_line"],
)
def test_the_inner_socket_is_a_socket_in_the_clear(
    stages: dict[str, Any], seen: list[object], read: Callable[[Connection], bytes]
) -> None:
    def once(conn: Connection) -> None:
        # Whole, so that one call reads it.
        wait_until(lambda: conn.recv(6, socket.MSG_PEEK) == b"hello\n")
        seen.append(read(conn))

    with Server(service=once, **stages) as server, dial(server.address) as client:
        client.sendall(b"hello\n")
        assert ended(client)
    assert seen == [b"hello\n"]


# --- limits --------------------------------------------------------------------------------


def test_the_descriptors_of_the_pair_count(stages: dict[str, Any]) -> None:
    """Three for each connection: the limit that is computed is a third."""
    plain, staged = Server(service=echo), Server(service=echo, **stages)
    held: list[socket.socket] = []
    with plain, staged:
        for server in (plain, staged):
            held.append(dial(server.address))
            assert says_back(held[-1])
    for client in held:
        client.close()


def test_the_idle_limit_ends_the_call(stages: dict[str, Any], seen: list[object]) -> None:
    def wait(conn: Connection) -> None:
        conn.recv(1)
        try:
            conn.recv(1)
        except TimeoutError as error:
            seen.append(error.errno)
            raise

    with Server(service=wait, limits=Limits(idle=0.1), **stages) as server:
        with dial(server.address) as client:
            client.sendall(b"x")
            assert ended(client)
        [record] = server.ledger.wait(open=0, closed=1)
        assert (record.closed_by, record.limit) == ("limit", "idle")
    assert seen == [errno.ETIMEDOUT]


def test_the_first_byte_limit_holds(stages: dict[str, Any]) -> None:
    with Server(service=echo, limits=Limits(first_byte=0.1), **stages) as server:
        with dial(server.address) as client:
            assert ended(client)
        [record] = server.ledger.wait(open=0, closed=1)
        assert (record.closed_by, record.limit) == ("limit", "first_byte")


def test_a_full_server_admits_the_next_when_one_has_left(stages: dict[str, Any]) -> None:
    with Server(service=echo, limits=Limits(connections=1), **stages) as server:
        with dial(server.address) as first, dial(server.address) as second:
            assert says_back(first)
            second.sendall(b"x")
            assert server.ledger.totals.open == 1
            first.close()
            assert read_exactly(second, 1) == b"x"


def test_back_pressure_reaches_the_peer(stages: dict[str, Any]) -> None:
    """A handler that does not read bounds what is held for it."""
    go = threading.Event()

    def late(conn: Connection) -> None:
        go.wait(SOON)
        while conn.recv(65_536):
            pass

    with Server(service=late, **stages) as server, dial_narrow(server.address) as client:
        sent = send_until_stuck(client, bytes(8 << 20))
        [record] = server.ledger.open
        assert record.bytes_in <= sent
        assert record.bytes_in < 1 << 20
        go.set()
        client.shutdown(socket.SHUT_WR)
        assert ended(client)
        assert record.bytes_in == sent


def test_a_peer_that_does_not_read_stops_the_handler(stages: dict[str, Any]) -> None:
    sent: list[int] = []

    def endless(conn: Connection) -> None:
        conn.settimeout(0.5)
        try:
            while True:
                sent.append(conn.send(bytes(65_536)))
        except TimeoutError:
            pass

    with Server(service=endless, drain=0, **stages) as server, dial_narrow(server.address):
        server.ledger.wait(open=1)
        wait_until(lambda: len(sent) > 0)
    assert sum(sent) < 16 << 20


# --- the end of the server -----------------------------------------------------------------


def test_a_stop_ends_reads_behind_what_has_come(stages: dict[str, Any]) -> None:
    with Server(service=echo, drain=SOON, **stages) as server:
        clients = [dial(server.address) for _ in range(5)]
        assert all(says_back(client) for client in clients)
        for client in clients:
            client.sendall(b"last words")
        wait_until(lambda: server.ledger.totals.bytes_in == 5 * 15)
        report = server.stop()
        assert [read_to_end(client) for client in clients] == [b"last words"] * 5
        assert (report.drained, report.forced, report.abandoned) == (5, 0, 0)
        for client in clients:
            client.close()


def test_a_stop_while_a_handler_sends_delivers_what_was_sent(stages: dict[str, Any]) -> None:
    begun = threading.Event()
    data = payload(30_000)

    def send(conn: Connection) -> None:
        conn.recv(1)
        conn.sendall(data[:10_000])
        begun.set()
        conn.sendall(data[10_000:])

    with Server(service=send, drain=SOON, **stages) as server, dial(server.address) as client:
        client.sendall(b"x")
        assert begun.wait(SOON)
        stopping = Background(server.stop)
        assert read_to_end(client) == data
        assert stopping.result().forced == 0


def test_a_stop_without_drain_resets(stages: dict[str, Any]) -> None:
    with Server(service=echo, **stages) as server, dial(server.address) as client:
        assert says_back(client)
        report: StopReport = server.stop(0)
        assert report.forced == 1
        assert was_reset(client)


# --- Accept --------------------------------------------------------------------------------


def test_accept_hands_out_inner_sockets(stages: dict[str, Any]) -> None:
    with Server(service=Accept(), **stages) as server, dial(server.address) as client:
        conn, address = server.accept(SOON)
        assert address == client.getsockname()
        client.sendall(b"hello")
        assert conn.recv_exactly(5) == b"hello"
        conn.sendall(b"HELLO")
        conn.close()
        assert read_to_end(client) == b"HELLO"
        client.close()
        [record] = server.ledger.wait(open=0, closed=1)
        assert (record.closed_by, record.bytes_in, record.bytes_out) == ("local", 5, 5)


def test_a_loop_of_accept_ends_with_the_server(stages: dict[str, Any]) -> None:
    def loop(server: Server) -> Iterator[bytes]:
        for conn, _address in server:
            with conn:
                yield conn.recv_exactly(1)

    with Server(service=Accept(), **stages) as server:
        got = Background(lambda: list(loop(server)))
        for byte in b"abc":
            with dial(server.address) as client:
                client.sendall(bytes([byte]))
                assert ended(client)
        server.stop()
        assert got.result() == [b"a", b"b", b"c"]


def test_the_private_argument_names_its_values() -> None:
    with pytest.raises(ValueError, match="no such stage"):
        Server(service=Handler(echo), _stages="sideways")  # type: ignore[call-arg]

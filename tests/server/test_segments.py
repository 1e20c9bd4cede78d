"""TCP underneath: segments, retransmission, queues, and addresses."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import socket
from collections.abc import Iterator

import pytest
from support import (
    LOOPBACK,
    SOON,
    Background,
    dial,
    dial_narrow,
    payload,
    read_exactly,
    says_back,
    wait_until,
)

from rsock import Accept, Client, Connection, Limits, Server, SocketOptions, TcpInfo


def counts(info: TcpInfo | None) -> TcpInfo:
    assert info is not None
    return info


# --- segments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_segment", "payload_of_one", "rest"), [(1472, 1460, 620), (1460, 1448, 656)]
)
def test_5000_bytes_leave_as_four_segments(
    max_segment: int, payload_of_one: int, rest: int
) -> None:
    options = SocketOptions(max_segment=max_segment)
    data = payload(5_000)
    with Server(service=Accept()) as server:
        with server.client(options=options, timeout=SOON) as client:
            connection, _ = server.accept(SOON)
            with connection:
                client.sendall(data)
                assert connection.recv_exactly(5_000) == data
                sent, received = client.tcp_info, connection.tcp_info
                # The timestamp option takes 12 bytes of every segment (RFC 7323).
                assert sent.send_mss == payload_of_one == max_segment - 12
                assert 3 * sent.send_mss + rest == 5_000
                assert (sent.data_segments_out, received.data_segments_in) == (4, 4)
                assert (sent.bytes_sent, received.bytes_received) == (5_000, 5_000)
    # The counters are read for the last time just before the close.
    last = counts(server.ledger.closed[0].tcp_info)
    assert (last.data_segments_in, last.data_segments_out) == (4, 0)


def test_a_server_cuts_its_segments_as_configured() -> None:
    options = SocketOptions(max_segment=1472)
    with Server(options=options) as server, server.client(timeout=SOON) as client:
        assert says_back(client, payload(5_000))
        [record] = server.ledger.open
        wait_until(lambda: counts(record.tcp_info).bytes_acked == 5_000)
        info = counts(record.tcp_info)
        assert info.send_mss == 1460
        # The server's own limit is announced too, so that incoming data was divided in the same
        # way.
        assert info.data_segments_in == 4
        # An answer may leave in parts, because the request arrived in parts; each part ends in a
        # short segment.
        assert info.data_segments_out >= 4


def test_a_record_shows_what_the_kernel_knows_while_it_is_open_and_at_last() -> None:
    with Server() as server:
        with server.client(timeout=SOON) as client:
            assert says_back(client)
            [record] = server.ledger.open
            live = counts(record.tcp_info)
            assert live.state == "ESTABLISHED"
            assert live.data_segments_in == 1
            assert says_back(client)
            assert counts(record.tcp_info).data_segments_in == 2
            algorithm = live.congestion_algorithm
        server.ledger.wait(open=0, closed=1)
        last = counts(record.tcp_info)
        assert last.state == "CLOSE-WAIT"
        assert (last.data_segments_in, last.data_segments_out) == (2, 2)
        assert last.congestion_algorithm == algorithm != ""
        # The record is closed: its values do not change any more.
        assert record.tcp_info == last


def test_a_client_has_its_last_look_too(echo: Server) -> None:
    client = Client()
    assert client.record is None
    client.connect(echo.address)
    assert says_back(client)
    record = client.record
    assert record is not None
    client.close()
    assert counts(record.tcp_info).data_segments_out == 1


def test_a_handler_may_choose_how_congestion_is_avoided() -> None:
    def choose(connection: Connection) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        connection.sendall(b"done")

    with Server(service=choose, on_error="raise") as server:
        with dial(server.address) as peer:
            assert read_exactly(peer, 4) == b"done"
        [record] = server.ledger.wait(open=0, closed=1)
    assert counts(record.tcp_info).congestion_algorithm == "reno"


def test_a_connection_that_was_reset_has_its_last_look(echo: Server) -> None:
    with echo.client() as client:
        assert says_back(client)
        client.abort()
    [record] = echo.ledger.wait(open=0, closed=1)
    assert record.closed_by == "reset"
    info = counts(record.tcp_info)
    assert (info.state, info.data_segments_in) == ("CLOSED", 1)


def test_a_connection_given_away_is_not_asked_any_more() -> None:
    with Server(service=Accept()) as server, dial(server.address) as peer:
        connection, _ = server.accept(SOON)
        record = connection.record
        with socket.socket(fileno=connection.detach()) as taken:
            last = record.tcp_info
            taken.sendall(b"more")
            assert read_exactly(peer, 4) == b"more"
            assert record.tcp_info == last


# --- losses and flow control ---------------------------------------------------------------

SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


@contextlib.contextmanager
def deaf(peer: socket.socket) -> Iterator[None]:
    """Simulates a cut cable: every segment that arrives for this socket is dropped."""
    # One instruction of BPF: BPF_RET | BPF_K, which lets 0 bytes through.
    drop_all = (ctypes.c_uint64 * 1)(0x06)
    program = _Program(1, ctypes.addressof(drop_all))
    peer.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(program))
    yield
    peer.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def test_a_lost_segment_is_seen_to_be_sent_again() -> None:
    with Server(service=Accept()) as server, dial(server.address) as peer:
        connection, _ = server.accept(SOON)
        with connection:
            record = connection.record
            before = counts(record.tcp_info)
            assert (before.retransmits, before.congestion_state) == (0, "open")
            with deaf(peer):
                connection.sendall(b"into the void")
                wait_until(lambda: counts(record.tcp_info).retransmits >= 2, 10.0)
                lost = counts(record.tcp_info)
                assert lost.congestion_state == "loss"
                assert lost.congestion_window < before.congestion_window
                assert (lost.unacknowledged, lost.lost) == (1, 1)
                assert lost.bytes_retransmitted >= 2 * 13
                assert lost.retransmit_timeout > before.retransmit_timeout
            # TCP does not give up: once the filter is removed, all bytes arrive, once.
            assert read_exactly(peer, 13) == b"into the void"
            wait_until(lambda: counts(record.tcp_info).unacknowledged == 0)


def test_the_window_of_a_peer_that_does_not_read_closes() -> None:
    with Server(service=Accept()) as server, dial_narrow(server.address) as peer:
        connection, _ = server.accept(SOON)
        with connection:
            first = connection.tcp_info.send_window
            assert first is not None
            assert first > 0
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                while True:
                    connection.sendall(payload(65_536))
            # Flow control: less than one segment fits, and the rest has to wait.
            info = connection.tcp_info
            assert info.send_window is not None
            assert info.send_window < first
            peer.settimeout(SOON)
            assert len(read_exactly(peer, 60_000)) == 60_000
            wait_until(lambda: connection.tcp_info.bytes_acked > info.bytes_acked)


# --- queues ----------------------------------------------------------------------------------


def test_who_has_not_been_accepted_waits_in_the_queue() -> None:
    server = Server(service=Accept())
    assert server.waiting == 0
    server.listen()
    with contextlib.ExitStack() as stack:
        for number in range(1, 4):
            peer = stack.enter_context(dial(server.address))
            # The kernel has finished the handshake: for the client the connection is established.
            assert peer.getpeername() == server.address
            wait_until(functools.partial(has_waiting, server, number))
        server.start()
        assert (server.waiting, server.ledger.totals.accepted) == (3, 0)
        for left in (2, 1, 0):
            connection, _ = server.accept(SOON)
            connection.close()
            assert server.waiting == left
        server.stop()
    assert server.waiting == 0


def test_a_backlog_is_not_the_number_of_clients() -> None:
    with Server(options=SocketOptions(backlog=5)) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(server.address)) for _ in range(40)]
        assert all([says_back(client) for client in clients])
        assert server.ledger.totals.open == 40
        assert server.waiting == 0


def test_a_full_queue_takes_no_more() -> None:
    with Server(service=Accept(), options=SocketOptions(backlog=2)) as server:
        with contextlib.ExitStack() as stack:
            # listen(2): the queue holds one more than the backlog.
            for _ in range(3):
                stack.enter_context(dial(server.address))
            wait_until(lambda: server.waiting == 3)
            with pytest.raises(TimeoutError):
                dial_soon(server.address)
            assert server.waiting == 3
            connection, _ = server.accept(SOON)
            connection.close()
            stack.enter_context(dial(server.address))
            wait_until(lambda: server.waiting == 3)
            stack.pop_all().close()


def has_waiting(server: Server, number: int) -> bool:
    return server.waiting == number


def dial_soon(address: tuple[str, int]) -> None:
    socket.create_connection(address, timeout=0.3).close()


def test_one_client_at_a_time() -> None:
    with Server(limits=Limits(connections=1)) as server:
        with dial(server.address) as first:
            assert says_back(first)
            with dial(server.address) as second:
                second.sendall(b"and me?")
                wait_until(lambda: server.waiting == 1)
                assert says_back(first)
                assert server.ledger.totals.accepted == 1
                first.close()
                assert read_exactly(second, 7) == b"and me?"
                assert server.waiting == 0


def test_several_clients_at_once_are_the_default(echo: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(echo.address)) for _ in range(5)]
        assert all([says_back(client) for client in clients])
        assert len(echo.ledger.open) == 5


def test_the_queue_is_counted_while_others_stop_the_server() -> None:
    server = Server(service=Accept()).start()
    with dial(server.address):
        wait_until(lambda: server.waiting == 1)
        stopping = Background(server.stop)
        while stopping.running:
            assert server.waiting in (0, 1)
        assert server.waiting == 0
        stopping.result()


# --- addresses -----------------------------------------------------------------------------


def test_a_socket_is_five_things_and_each_end_has_them_the_other_way_round() -> None:
    with Server(service=Accept()) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(3)]
        connections = [stack.enter_context(server.accept(SOON)[0]) for _ in clients]
        for client, connection in zip(clients, connections, strict=True):
            mine, theirs = client.five_tuple, connection.five_tuple
            assert (mine.fd, theirs.fd) == (client.fileno(), connection.fileno())
            assert mine[1:3] == theirs[3:5]
            assert mine[3:5] == theirs[1:3] == server.address
        # Clients of one address differ in their port and in nothing else.
        assert {client.five_tuple.local_host for client in clients} == {LOOPBACK}
        assert len({client.five_tuple.local_port for client in clients}) == 3
        # The listening socket carries no data and is not one of them.
        assert server.fileno() not in {connection.fileno() for connection in connections}
        # The ledger matches ports to connections.
        by_port = {record.remote.port: record.id for record in server.ledger.open}
        for connection in connections:
            assert by_port[connection.five_tuple.remote_port] == connection.id


# --- ports by service name -----------------------------------------------------------------


def test_well_known_ports_have_names() -> None:
    assert Server(port="http-alt").port == socket.getservbyname("http-alt", "tcp") == 8080
    assert Server(port="http").port == 80
    # A name that the system knows for UDP only.
    assert Server(port="tftp", transport="udp").port == socket.getservbyname("tftp", "udp") == 69
    with Client(timeout=SOON) as client:
        if client.connect_ex((LOOPBACK, "http")) == 0:
            # A program on this machine listens there.
            assert client.getpeername()[1] == 80
        else:
            with pytest.raises(OSError, match=r"127\.0\.0\.1:80"):
                client.connect((LOOPBACK, "http"))

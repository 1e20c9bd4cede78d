"""`Client`: its additions to `socket.socket`, and the plain socket underneath."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import fcntl
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import (
    LATE,
    LOOPBACK,
    Background,
    Stream,
    arrived,
    closed_port,
    drop,
    error_number,
    fds,
    has_ipv6,
    listener,
    partial,
    payload,
    read_exactly,
    read_to_end,
    reset,
    says_back,
    threads,
    wait_until,
)

import rsock
from rsock import Accept, Client, IncompleteRead, Server, SocketOptions

Pair = tuple[Client, socket.socket]


@contextlib.contextmanager
def connected(timeout: float = 5.0) -> Iterator[Pair]:
    """A client and the plain socket at its other end."""
    with listener() as listening:
        client = Client(listening.getsockname(), timeout=timeout)
        peer, _ = listening.accept()
    peer.settimeout(5.0)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client, peer:
        yield client, peer


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected() as both:
        yield both


# --- exact reads ---------------------------------------------------------------------------


def test_recv_exactly_waits_for_all_of_it(pair: Pair) -> None:
    client, peer = pair
    reading = Background(client.recv_exactly, 10)
    for position in range(10):
        peer.sendall(b"0123456789"[position : position + 1])
        arrived(peer)
    assert reading.result() == b"0123456789"


@pytest.mark.parametrize("size", [1, 4_096, 65_537, 1 << 20])
def test_recv_exactly_returns_that_number_and_leaves_the_rest(pair: Pair, size: int) -> None:
    client, peer = pair
    data = payload(size + 3)
    sending = Background(peer.sendall, data)
    assert client.recv_exactly(size) == data[:size]
    assert client.recv(10) == data[size:]
    sending.result()


def test_recv_exactly_of_nothing_returns_at_once(pair: Pair) -> None:
    client, _ = pair
    assert client.recv_exactly(0) == b""


@pytest.mark.parametrize("split", range(1, 8))
@pytest.mark.parametrize("delimiter", [b"\r\n\r\n", b"\r\n"])
def test_recv_until_sees_a_delimiter_that_arrives_in_pieces(
    pair: Pair, split: int, delimiter: bytes
) -> None:
    client, peer = pair
    message = b"abcd" + delimiter + b"rest"
    reading = Background(client.recv_until, delimiter)
    peer.sendall(message[:split])
    arrived(peer)
    wait_until(lambda: reading.asleep() or not reading.running)
    peer.sendall(message[split:])
    arrived(peer)
    assert reading.result() == b"abcd" + delimiter
    assert client.recv(100) == b"rest"


def test_recv_until_is_not_fooled_by_half_a_delimiter(pair: Pair) -> None:
    client, peer = pair
    peer.sendall(b"aab" + b"aaab" + b"aaaab!")
    assert client.recv_until(b"aaaab") == b"aabaaabaaaab"
    assert client.recv_until(b"!") == b"!"


def test_recv_until_takes_any_bytes_as_delimiter(pair: Pair) -> None:
    client, peer = pair
    peer.sendall(b"a\0b\xff\xfec")
    assert client.recv_until(bytearray(b"\0")) == b"a\0"
    assert client.recv_until(memoryview(b"\xff\xfe")) == b"b\xff\xfe"
    assert client.recv(10) == b"c"


def test_recv_until_refuses_an_empty_delimiter(pair: Pair) -> None:
    client, _ = pair
    with pytest.raises(ValueError, match="delimiter"):
        client.recv_until(b"")


def test_recv_line_returns_line_after_line_with_their_ends(pair: Pair) -> None:
    client, peer = pair
    peer.sendall(b"one\ntwo\r\n\nfour")
    assert [client.recv_line() for _ in range(3)] == [b"one\n", b"two\r\n", b"\n"]
    assert client.recv(100) == b"four"


def test_a_line_as_long_as_the_limit_is_returned(pair: Pair) -> None:
    client, peer = pair
    peer.sendall(b"123456789\nrest")
    assert client.recv_line(limit=10) == b"123456789\n"
    assert client.recv(100) == b"rest"


def test_a_line_over_the_limit_is_a_value_error(pair: Pair) -> None:
    client, peer = pair
    peer.sendall(b"x" * 100)
    with pytest.raises(ValueError, match="10"):
        client.recv_line(limit=10)
    with pytest.raises(ValueError, match="10"):
        client.recv_until(b"\r\n", limit=10)


def test_a_long_line_within_the_limit_is_returned(pair: Pair) -> None:
    client, peer = pair
    line = b"x" * 500_000 + b"\n"
    sending = Background(peer.sendall, line + b"rest")
    assert client.recv_line(limit=1 << 20) == line
    assert client.recv(10) == b"rest"
    sending.result()


def test_the_limit_of_a_line_is_65536_unless_asked_otherwise(pair: Pair) -> None:
    client, peer = pair
    line = b"x" * 65_535 + b"\n"
    sending = Background(peer.sendall, line + line + b"xx")
    assert client.recv_line() == line
    assert client.recv_until(b"\n") == line
    sending.result()
    sending = Background(peer.sendall, line + line)
    with pytest.raises(ValueError, match="65"):
        client.recv_line()
    client.close()
    with contextlib.suppress(ConnectionError):
        sending.result()


@pytest.mark.parametrize(
    "read",
    [
        lambda c: c.recv_exactly(3),
        lambda c: c.recv_until(b"-"),
        lambda c: c.recv_line(),
    ],
    ids=["recv_exactly", "recv_until", "recv_line"],
)
def test_nothing_is_taken_beyond_what_is_returned(
    pair: Pair, read: Callable[[Client], bytes]
) -> None:
    client, peer = pair
    peer.sendall(b"ab-cd\nrest")
    arrived(peer)
    got = read(client)
    with socket.socket(fileno=os.dup(client.fileno())) as raw:
        raw.settimeout(5.0)
        assert got + raw.recv(100) == b"ab-cd\nrest"


# --- the end of a stream -------------------------------------------------------------------


READS = pytest.mark.parametrize(
    "read",
    [
        lambda c: c.recv(10),
        lambda c: c.recv_exactly(10),
        lambda c: c.recv_until(b"--"),
        lambda c: c.recv_line(),
    ],
    ids=["recv", "recv_exactly", "recv_until", "recv_line"],
)
EXACT_READS = pytest.mark.parametrize(
    "read",
    [
        lambda c: c.recv_exactly(10),
        lambda c: c.recv_until(b"--"),
        lambda c: c.recv_line(),
    ],
    ids=["recv_exactly", "recv_until", "recv_line"],
)
Read = Callable[[Client], bytes]


@READS
def test_a_clean_end_is_empty_bytes_again_and_again(pair: Pair, read: Read) -> None:
    client, peer = pair
    peer.shutdown(socket.SHUT_WR)
    assert [read(client) for _ in range(3)] == [b""] * 3


@EXACT_READS
def test_a_message_cut_short_is_an_incomplete_read_with_what_came(pair: Pair, read: Read) -> None:
    client, peer = pair
    peer.sendall(b"half")
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(IncompleteRead) as caught:
        read(client)
    assert caught.value.partial == b"half"
    assert isinstance(caught.value, EOFError)
    assert isinstance(caught.value, rsock.RsockError)
    assert read(client) == b""


@EXACT_READS
def test_a_message_cut_short_while_waiting_is_one_too(pair: Pair, read: Read) -> None:
    client, peer = pair
    reading = Background(read, client)
    peer.sendall(b"half")
    wait_until(reading.asleep)
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(IncompleteRead) as caught:
        reading.result()
    assert caught.value.partial == b"half"


@READS
def test_a_reset_is_a_connection_reset_error(pair: Pair, read: Read) -> None:
    client, peer = pair
    reading = Background(read, client)
    wait_until(reading.asleep)
    reset(peer)
    with pytest.raises(ConnectionResetError) as caught:
        reading.result()
    assert caught.value.errno == errno.ECONNRESET


@EXACT_READS
def test_a_time_out_keeps_what_was_taken(pair: Pair, read: Read) -> None:
    client, peer = pair
    peer.sendall(b"so f")
    client.settimeout(0.05)
    with pytest.raises(TimeoutError) as caught:
        read(client)
    assert str(caught.value).endswith(": timed out after 4 bytes")
    taken = partial(caught.value)
    client.settimeout(5.0)
    peer.sendall(b"ar\n")
    arrived(peer)
    assert taken + client.recv(100) == b"so far\n"


@EXACT_READS
def test_a_reset_in_the_middle_of_a_message_is_still_a_reset(pair: Pair, read: Read) -> None:
    client, peer = pair
    reading = Background(read, client)
    peer.sendall(b"half")
    wait_until(reading.asleep)
    reset(peer)
    with pytest.raises(ConnectionResetError):
        reading.result()


@EXACT_READS
def test_an_error_before_the_first_byte_has_an_empty_partial(pair: Pair, read: Read) -> None:
    client, peer = pair
    client.settimeout(0.02)
    with pytest.raises(TimeoutError, match="timed out$") as late:
        read(client)
    client.settimeout(5.0)
    reading = Background(read, client)
    wait_until(reading.asleep)
    reset(peer)
    with pytest.raises(ConnectionResetError) as broken:
        reading.result()
    assert [partial(each.value) for each in (late, broken)] == [b"", b""]


def test_a_frame_that_does_not_come_has_an_empty_partial(pair: Pair) -> None:
    client, peer = pair
    client.settimeout(0.02)
    with pytest.raises(TimeoutError, match="timed out$") as none:
        client.recv_frame()
    peer.sendall(b"\0")
    arrived(peer)
    with pytest.raises(TimeoutError, match="timed out after 1 byte$") as begun:
        client.recv_frame()
    assert [partial(each.value) for each in (none, begun)] == [b"", b"\0"]


def test_a_line_that_is_cut_is_called_a_line(pair: Pair) -> None:
    client, peer = pair
    peer.sendall(b"half")
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(IncompleteRead, match="ended after 4 bytes of a line$"):
        client.recv_line()


def test_a_deadline_holds_for_the_whole_call(pair: Pair) -> None:
    client, peer = pair
    client.settimeout(0.2)
    over = threading.Event()
    began = time.monotonic()

    def drip() -> None:
        # Far longer than the time-out, and than the test's own limit.
        for _ in range(900):
            if over.wait(0.02):
                return
            peer.sendall(b"x")

    dripping = Background(drip)
    with pytest.raises(TimeoutError) as caught:
        client.recv_exactly(1_000)
    over.set()
    assert 0.15 < time.monotonic() - began < LATE
    assert partial(caught.value).startswith(b"x")
    dripping.result()


# --- connecting ----------------------------------------------------------------------------


def test_the_steps_of_the_study_notes_client(echo: Server) -> None:
    """The study notes' client: create, connect, send and receive, close.

    Each step is visible in the client's state.
    """
    client = Client(timeout=5.0)
    assert client.fileno() > 2
    assert client.record is None
    assert "created" in repr(client)
    assert error_number(client.getpeername) == errno.ENOTCONN
    assert client.tcp_info.state == "CLOSED"

    client.connect(echo.address)
    assert client.getpeername() == echo.address
    assert client.record is not None
    assert "connected" in repr(client)
    assert client.tcp_info.state == "ESTABLISHED"

    assert client.send(b"message") == 7
    assert client.recv_exactly(7) == b"message"
    assert (client.record.bytes_out, client.record.bytes_in) == (7, 7)

    client.close()
    assert (client.closed, client.fileno()) == (True, -1)
    assert "closed" in repr(client)
    assert error_number(lambda: client.send(b"more")) == errno.EBADF
    assert client.record.closed_by == "local"
    [served] = echo.ledger.wait(open=0, closed=1, timeout=10.0)
    assert served.closed_by == "peer"


def test_a_client_is_only_created_where_no_address_is_given() -> None:
    with Client() as client:
        assert not client.closed
        assert error_number(lambda: client.recv(1)) == errno.ENOTCONN


def test_connect_is_a_step_of_its_own(echo: Server) -> None:
    with Client(timeout=5.0) as client:
        client.connect(echo.address)
        assert says_back(client)


def test_a_client_takes_a_pair(echo: Server) -> None:
    with Client(echo.address, timeout=5.0) as client:
        assert says_back(client)


def test_a_client_needs_a_whole_address() -> None:
    with pytest.raises((TypeError, ValueError)):
        Client(LOOPBACK)
    with pytest.raises((TypeError, ValueError)):
        Client(port=80)


def test_a_port_can_be_a_service_name() -> None:
    # Port 8080 may or may not be in use on this machine.
    refused = pytest.raises(ConnectionRefusedError, match=rf"connect {LOOPBACK}:8080: ")
    with socket.socket() as plain:
        listens = plain.connect_ex((LOOPBACK, 8080)) == 0

    def connect() -> None:
        with Client(LOOPBACK, "http-alt", timeout=2.0) as client:
            assert client.getpeername()[1] == 8080

    with contextlib.nullcontext() if listens else refused:
        connect()


def test_a_refused_connect_leaves_the_client_usable(echo: Server) -> None:
    with Client(timeout=5.0) as client:
        with closed_port() as address, pytest.raises(ConnectionRefusedError):
            client.connect(address)
        client.connect(echo.address)
        assert says_back(client)


def begun(address: tuple[str, int]) -> Client:
    """A client with a connect in progress that it does not wait for."""
    client = Client(timeout=0)
    with pytest.raises(BlockingIOError) as caught:
        client.connect(address)
    assert caught.value.errno == errno.EINPROGRESS
    return client


def is_there(client: Client) -> bool:
    return bool(select.select([], [client], [], 10.0)[1])


def test_a_client_that_did_not_wait_has_its_account_once_it_is_connected() -> None:
    with listener() as listening, begun(listening.getsockname()) as client:
        assert is_there(client)
        peer, address = listening.accept()
        with peer:
            record = client.record
            assert record is not None
            assert (record.role, record.id, record.closed_by) == ("client", client.id, None)
            assert record.local.address == address == client.getsockname()
            assert record.remote.address == listening.getsockname()
            assert client.five_tuple[1:] == (*address, *listening.getsockname())
            assert f"{address[0]}:{address[1]}" in repr(client)
            assert client.send(b"counted") == 7
            assert client.record == record
            assert record.bytes_out == 7
            # A second connect that reports success late refers to the same connection.
            assert client.connect_ex(listening.getsockname()) == 0
            assert client.record == record
            client.close()
            assert record.closed_by == "local"


def test_a_record_begins_with_the_first_byte_though_it_was_never_read() -> None:
    with listener() as listening, begun(listening.getsockname()) as client:
        peer, _ = listening.accept()
        with peer:
            peer.sendall(b"hello")
            arrived(peer)
            assert client.recv(10) == b"hello"
            reset(peer)
            with pytest.raises(ConnectionResetError, match=f":{listening.getsockname()[1]}: "):
                is_there(client)
                client.recv(1)
        assert client.record is not None
        assert client.record.bytes_in == 5
        client.close()
        assert client.record.closed_by == "reset"


@pytest.mark.parametrize("end", [Client.close, Client.abort, Client.detach])
def test_a_client_that_was_never_asked_before_its_end_has_a_record(
    end: Callable[[Client], int | None],
) -> None:
    with listener() as listening, begun(listening.getsockname()) as client:
        assert is_there(client)
        number = end(client)
        if number is not None:
            os.close(number)
        assert client.record is not None
        assert client.record.closed_by == ("local" if number is None else "detached")


def test_a_client_has_no_account_of_a_connection_that_did_not_come_about(
    echo: Server, full_listener: tuple[str, int]
) -> None:
    with begun(full_listener) as client:
        assert client.record is None
        assert client.id is None
        assert error_number(lambda: client.five_tuple) == errno.ENOTCONN
        client.close()
        assert client.record is None
    with closed_port() as address, begun(address) as client:
        assert is_there(client)
        assert client.record is None
        assert client.connect_ex(address) == errno.ECONNREFUSED
        client.settimeout(5.0)
        client.connect(echo.address)
        assert client.record is not None
        assert client.record.remote.address == echo.address
        assert says_back(client)


def test_connect_leaves_from_the_source_address() -> None:
    with listener() as listening:
        with Client(listening.getsockname(), source_address=("127.0.0.9", 0)) as client:
            peer, address = listening.accept()
            peer.close()
        assert address[0] == "127.0.0.9"
        assert client.closed


def test_localhost_is_resolved(echo: Server) -> None:
    with Client("localhost", echo.port, timeout=5.0) as client:
        assert says_back(client)


def test_a_connect_that_takes_too_long_is_a_timeout_error(full_listener: tuple[str, int]) -> None:
    host, port = full_listener
    before = fds()
    began = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        Client(host, port, timeout=0.2)
    assert 0.15 < time.monotonic() - began < LATE
    assert f"connect {host}:{port}" in str(caught.value)
    caught.value.__traceback__ = None
    assert fds() == before


def test_a_connect_that_takes_too_long_is_an_error_number_of_connect_ex(
    full_listener: tuple[str, int],
) -> None:
    with Client(timeout=0.2) as client, socket.socket() as plain:
        plain.settimeout(0.2)
        assert client.connect_ex(full_listener) == plain.connect_ex(full_listener)


# --- closing -------------------------------------------------------------------------------


def test_close_ends_the_stream_for_the_peer(pair: Pair) -> None:
    client, peer = pair
    client.close()
    assert client.closed
    assert client.fileno() == -1
    assert peer.recv(1) == b""
    client.close()


def test_with_closes(echo: Server) -> None:
    with echo.client() as client:
        assert not client.closed
    assert client.closed


def test_abort_is_a_reset_for_the_peer(pair: Pair) -> None:
    client, peer = pair
    client.abort()
    assert client.closed
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    client.abort()


def test_abort_throws_away_what_was_not_sent() -> None:
    with connected(timeout=0.1) as (client, peer):
        with pytest.raises(TimeoutError):
            client.sendall(payload(32 << 20))
        client.abort()
        with pytest.raises(ConnectionResetError):
            read_to_end(peer)


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
def test_shutdown_ends_the_directions_it_names(pair: Pair, how: int) -> None:
    client, peer = pair
    client.shutdown(how)
    if how != socket.SHUT_RD:
        assert peer.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            client.sendall(b"x")
    if how != socket.SHUT_WR:
        assert client.recv(1) == b""
    if how == socket.SHUT_RD:
        client.sendall(b"x")
        assert peer.recv(1) == b"x"
    if how == socket.SHUT_WR:
        peer.sendall(b"y")
        assert client.recv(1) == b"y"


def test_detach_hands_the_descriptor_over(pair: Pair) -> None:
    client, peer = pair
    number = client.fileno()
    assert client.detach() == number
    assert client.fileno() == -1
    assert error_number(lambda: client.recv(1)) == errno.EBADF
    with socket.socket(fileno=number) as plain:
        plain.settimeout(5.0)
        plain.sendall(b"over")
        assert read_exactly(peer, 4) == b"over"
        peer.sendall(b"there")
        assert read_exactly(plain, 5) == b"there"


WAITING_CALLS = pytest.mark.parametrize(
    "call",
    [
        lambda c: c.recv(1),
        lambda c: c.recv_into(bytearray(1)),
        lambda c: c.recv_exactly(10),
        lambda c: c.recv_line(),
        lambda c: c.sendall(payload(32 << 20)),
    ],
    ids=["recv", "recv_into", "recv_exactly", "recv_line", "sendall"],
)


@pytest.mark.parametrize("timeout", [None, 30.0])
@WAITING_CALLS
def test_close_from_another_thread_wakes_a_call(
    pair: Pair, call: Callable[[Client], object], timeout: float | None
) -> None:
    client, peer = pair
    client.settimeout(timeout)
    waiting = Background(call, client)
    wait_until(waiting.asleep)
    began = time.monotonic()
    client.close()
    assert error_number(waiting.result) == errno.EBADF
    assert time.monotonic() - began < LATE
    with contextlib.suppress(ConnectionResetError):
        read_to_end(peer)


def test_two_threads_use_one_client_in_both_directions(echo_pair: tuple[Server, Client]) -> None:
    _, client = echo_pair
    data = payload(4 << 20)
    sending = Background(client.sendall, data)
    assert client.recv_exactly(len(data)) == data
    sending.result()


# --- the socket underneath -----------------------------------------------------------------


def blocking(client: Client) -> bool:
    return not fcntl.fcntl(client.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK


def test_the_descriptor_blocks_unless_asked_otherwise(pair: Pair) -> None:
    client, _ = pair
    assert blocking(client)
    for value, expected in [(None, True), (0.5, True), (0, False), (2.0, True), (0.0, False)]:
        client.settimeout(value)
        assert blocking(client) is expected
    client.setblocking(True)
    assert blocking(client)
    client.setblocking(False)
    assert not blocking(client)


def test_a_connect_with_a_timeout_leaves_the_descriptor_blocking(echo: Server) -> None:
    with echo.client(timeout=5.0) as client:
        assert blocking(client)


def test_file_functions_work_on_the_descriptor(pair: Pair) -> None:
    client, peer = pair
    assert os.write(client.fileno(), b"as a file") == 9
    assert read_exactly(peer, 9) == b"as a file"
    reading = Background(os.read, client.fileno(), 100)
    wait_until(reading.asleep)
    peer.sendall(b"and back")
    assert reading.result() == b"and back"


def test_the_descriptor_can_be_selected(pair: Pair) -> None:
    client, peer = pair
    assert select.select([client], [client], [], 0) == ([], [client], [])
    peer.sendall(b"x")
    assert select.select([client], [], [], 5.0)[0] == [client]


def test_the_descriptor_is_not_inherited(pair: Pair) -> None:
    client, _ = pair
    assert not os.get_inheritable(client.fileno())


def test_the_five_tuple_is_descriptor_and_both_addresses(echo_pair: tuple[Server, Client]) -> None:
    server, client = echo_pair
    assert client.five_tuple == (client.fileno(), *client.getsockname(), *server.address)
    assert client.five_tuple.remote_port == server.port


def test_tcp_info_tells_what_the_kernel_knows(echo_pair: tuple[Server, Client]) -> None:
    _, client = echo_pair
    assert says_back(client, payload(1_000))
    info = client.tcp_info
    assert info.state == "ESTABLISHED"
    assert info.bytes_received == 1_000
    # The handshake's SYN counts as a byte.
    assert info.bytes_acked in (1_000, 1_001)
    assert info.segments_in >= 2
    assert info.segments_out >= 3
    assert 0.0 < info.rtt < 1.0
    assert info.send_mss > 500
    assert info.congestion_window > 0
    algorithm = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    assert isinstance(algorithm, bytes)
    assert info.congestion_algorithm == algorithm.rstrip(b"\0").decode()


def test_tcp_info_follows_the_state(pair: Pair) -> None:
    client, peer = pair
    peer.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    assert client.tcp_info.state == "CLOSE-WAIT"


def test_socket_options_are_set_before_connecting() -> None:
    options = SocketOptions(
        nodelay=False, keepalive=True, max_segment=1_000, receive_buffer=20_000, linger=3
    )
    with listener() as listening, Client(listening.getsockname(), options=options) as client:
        tcp, base = socket.IPPROTO_TCP, socket.SOL_SOCKET
        assert client.getsockopt(tcp, socket.TCP_NODELAY) == 0
        assert client.getsockopt(base, socket.SO_KEEPALIVE) == 1
        assert client.getsockopt(base, socket.SO_RCVBUF) == 40_000
        assert client.tcp_info.send_mss <= 1_000
        assert client.getsockopt(base, socket.SO_LINGER, 8) == b"\1\0\0\0\3\0\0\0"


KEEPALIVE = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)


def probes(stream: Any) -> tuple[int, ...]:
    """The keepalive of a stream, with its times, and its user time-out in milliseconds."""
    tcp = socket.IPPROTO_TCP
    on = stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    times = (stream.getsockopt(tcp, name) for name in (*KEEPALIVE, socket.TCP_USER_TIMEOUT))
    return (on, *times)


def test_keepalive_and_the_user_time_out_have_times_of_their_own() -> None:
    with listener() as listening, Client(listening.getsockname()) as client:
        system = probes(client)
        assert (system[0], system[4]) == (0, 0)
        for options, expected in (
            (SocketOptions(keepalive=True), (1, *system[1:])),
            (SocketOptions(keepalive=(60, 10, 5)), (1, 60, 10, 5, 0)),
            (SocketOptions(keepalive=(32_767, 32_767, 127)), (1, 32_767, 32_767, 127, 0)),
            (SocketOptions(user_timeout=12.5), (0, *system[1:4], 12_500)),
            (SocketOptions(keepalive=(9, 8, 7), user_timeout=0.001), (1, 9, 8, 7, 1)),
        ):
            with Client(listening.getsockname(), options=options) as other:
                assert probes(other) == expected


@pytest.mark.parametrize("stages", [None, "bytewise"])
def test_the_connections_of_a_server_have_its_keepalive(stages: str | None) -> None:
    options = SocketOptions(keepalive=(60, 10, 5), user_timeout=30.0)
    server = Server(service=Accept(), options=options, _stages=stages)  # type: ignore[call-arg]
    with server, server.client(timeout=5.0) as client:
        conn, _ = server.accept(5.0)
        with conn:
            assert probes(conn) == (1, 60, 10, 5, 30_000)
        assert probes(client)[0] == 0


@pytest.mark.parametrize("staged", [{}, {"faults": []}], ids=["plain", "with faults"])
def test_a_silent_peer_is_noticed_within_the_user_time_out(staged: dict[str, Any]) -> None:
    """A peer that is frozen keeps its window closed; one that is gone acknowledges nothing."""
    options = SocketOptions(user_timeout=0.2)
    with listener() as listening:
        client = Client(listening.getsockname(), options=options, **staged)
        peer, _ = listening.accept()
        with client, peer:
            # From here on the peer's system drops everything (linux/filter.h: "ret 0").
            program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
            filter_ = struct.pack("HL", 1, ctypes.addressof(program))
            peer.setsockopt(socket.SOL_SOCKET, 26, filter_)
            client.sendall(b"into the void")
            client.settimeout(15.0)
            with pytest.raises(TimeoutError, match="recv") as caught:
                client.recv(1)
            assert caught.value.errno == errno.ETIMEDOUT


def test_nodelay_is_on_unless_asked_otherwise(pair: Pair) -> None:
    client, _ = pair
    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_enumeration_members_are_taken_for_numbers(pair: Pair) -> None:
    client, peer = pair

    class Flag(enum.IntEnum):
        PEEK = socket.MSG_PEEK
        NONE = 0

    peer.sendall(b"abc")
    assert client.recv(3, Flag.PEEK) == b"abc"
    assert client.recv(3, socket.MSG_PEEK) == b"abc"
    assert client.recv(3, Flag.NONE) == b"abc"
    client.send(b"x", Flag.NONE)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, Flag.PEEK)
    client.shutdown(Flag.NONE)


@pytest.mark.parametrize("spin", [0, 0.0, 0.001])
def test_a_client_works_with_any_spin(spin: float) -> None:
    with Server() as server, Client(server.address, timeout=5.0, spin=spin) as client:
        for number in range(100):
            assert says_back(client, b"%d" % number)


def test_a_client_starts_no_thread(echo_pair: tuple[Server, Client]) -> None:
    _, client = echo_pair
    assert says_back(client)
    assert set(threads().values()) <= {"rsock-accept", "rsock-worker-0"}


def test_a_dropped_client_closes_its_socket_and_warns_as_any_socket_does() -> None:
    with listener() as listening:
        clients = [Client(listening.getsockname())]
        peer, _ = listening.accept()
        with peer:
            peer.settimeout(5.0)
            with pytest.warns(ResourceWarning, match="unclosed"):
                drop(clients)
            assert peer.recv(1) == b""


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_client_over_ipv6_has_the_addresses_of_socket() -> None:
    with listener("::1") as listening:
        address = listening.getsockname()
        with Client(*address[:2], timeout=5.0) as client:
            peer, came_from = listening.accept()
            with peer:
                assert client.family == socket.AF_INET6
                assert client.getpeername() == address
                assert client.getsockname() == came_from
                stream: Stream = client
                peer.sendall(b"six")
                assert read_exactly(stream, 3) == b"six"
                assert client.five_tuple.remote_host == "::1"


def test_a_client_of_every_address_knows_which_it_reached(echo: Server) -> None:
    with Client("0.0.0.0", echo.port, timeout=10.0) as client:
        assert says_back(client)
        assert client.record is not None
        assert client.record.remote.address == client.getpeername() == echo.address


def test_a_time_out_is_that_of_the_descriptor_again_after_a_duplicates(echo: Server) -> None:
    with echo.client(timeout=10.0) as client:
        with client.to_socket() as duplicate:
            duplicate.settimeout(10.0)
        client.settimeout(10.0)
        assert os.get_blocking(client.fileno())

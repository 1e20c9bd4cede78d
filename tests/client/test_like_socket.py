"""Where a method of Client has the name of one of `socket.socket`, it does the same.

Every test here runs twice: with the standard library's socket, which shows that the test expects
the right thing, and with Client.
"""

from __future__ import annotations

import array
import contextlib
import errno
import math
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
    SOON,
    Background,
    arrived,
    closed_port,
    error_number,
    has_ipv6,
    listener,
    payload,
    read_exactly,
    read_to_end,
    reset,
    wait_until,
)
from support.roles import outcome

from rsock import Client

# Either of the two; `Any`, because wrong arguments are given on purpose.
Stream = Any
Pair = tuple[Stream, socket.socket]

MAKERS: dict[str, Callable[[], Stream]] = {"socket": socket.socket, "Client": Client}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[], Stream]:
    """Makes an unconnected stream of the kind under test."""
    return MAKERS[request.param]


@pytest.fixture
def pair(make: Callable[[], Stream]) -> Iterator[Pair]:
    """A stream of the kind under test, connected to a plain socket."""
    with listener() as listening, make() as stream:
        stream.connect(listening.getsockname())
        peer, _ = listening.accept()
        with peer:
            peer.settimeout(5.0)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield stream, peer


# --- time-outs -----------------------------------------------------------------------------


def test_there_is_no_timeout_at_first(pair: Pair) -> None:
    stream, _ = pair
    assert stream.gettimeout() is None
    assert stream.getblocking() is True
    assert stream.timeout is None


@pytest.mark.parametrize(
    ("value", "timeout", "blocks"),
    [(None, None, True), (1.5, 1.5, True), (2, 2.0, True), (0, 0.0, False), (0.0, 0.0, False)],
)
def test_a_timeout_is_reported_as_it_was_set(
    pair: Pair, value: float | None, timeout: float | None, blocks: bool
) -> None:
    stream, _ = pair
    stream.settimeout(value)
    assert stream.gettimeout() == timeout
    assert type(stream.gettimeout()) is type(timeout)
    assert stream.getblocking() is blocks


@pytest.mark.parametrize(("flag", "timeout"), [(True, None), (False, 0.0), (1, None), (0, 0.0)])
def test_setblocking_is_a_timeout_of_none_or_nothing(
    pair: Pair, flag: Any, timeout: float | None
) -> None:
    stream, _ = pair
    stream.settimeout(3.0)
    stream.setblocking(flag)
    assert stream.gettimeout() == timeout


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, ValueError),
        (-0.001, ValueError),
        (math.nan, ValueError),
        ("1", TypeError),
        (b"1", TypeError),
        (1j, TypeError),
        (1e30, OverflowError),
    ],
)
def test_a_timeout_that_is_none_is_refused_and_changes_nothing(
    pair: Pair, value: Any, error: type[Exception]
) -> None:
    stream, _ = pair
    stream.settimeout(3.0)
    with pytest.raises(error):
        stream.settimeout(value)
    assert stream.gettimeout() == 3.0


@pytest.mark.parametrize("value", [True, False, 0, 1, 2])
def test_numbers_are_those_of_a_socket(pair: Pair, value: Any) -> None:
    def described(stream: Stream) -> list[object]:
        calls = [stream.setblocking]
        if isinstance(value, bool):
            calls.append(stream.settimeout)
        return [(outcome(lambda: call(value)), stream.gettimeout()) for call in calls]  # noqa: B023

    with socket.socket() as plain:
        assert described(pair[0]) == described(plain)


def test_a_read_out_of_time_is_a_timeout_error(pair: Pair) -> None:
    stream, _ = pair
    stream.settimeout(0.1)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        stream.recv(1)
    assert 0.09 <= time.monotonic() - began < LATE


def test_a_read_without_blocking_is_a_blocking_io_error(pair: Pair) -> None:
    stream, peer = pair
    for method, value in ((stream.settimeout, 0), (stream.setblocking, False)):
        method(value)
        with pytest.raises(BlockingIOError) as caught:
            stream.recv(1)
        assert caught.value.errno == errno.EAGAIN
        with pytest.raises(BlockingIOError):
            stream.recv_into(bytearray(1))
        stream.settimeout(None)
    stream.setblocking(False)
    peer.sendall(b"x")
    arrived(peer)
    assert stream.recv(10) == b"x"


def test_a_send_out_of_time_is_a_timeout_error(pair: Pair) -> None:
    stream, _ = pair
    stream.settimeout(0.1)
    data = payload(32 << 20)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        stream.sendall(data)
    assert 0.09 <= time.monotonic() - began < LATE


def test_sends_without_blocking_end_in_a_blocking_io_error(pair: Pair) -> None:
    stream, peer = pair
    stream.setblocking(False)
    data = payload(1 << 20)
    sent = 0

    def send() -> None:
        nonlocal sent
        while True:
            sent += stream.send(data)

    with pytest.raises(BlockingIOError):
        send()
    assert sent > 0
    stream.close()
    assert len(read_to_end(peer)) == sent


def test_a_timeout_can_be_set_while_nothing_is_connected(make: Callable[[], Stream]) -> None:
    with make() as stream, listener() as listening:
        stream.settimeout(2.5)
        assert stream.gettimeout() == 2.5
        stream.connect(listening.getsockname())
        assert stream.gettimeout() == 2.5


def test_data_there_already_beats_any_timeout(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"abc")
    arrived(peer)
    stream.settimeout(1e-6)
    assert stream.recv(10) == b"abc"


# --- receiving -----------------------------------------------------------------------------


def test_recv_returns_what_is_there_up_to_the_size(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"abcdef")
    arrived(peer)
    assert stream.recv(4) == b"abcd"
    assert stream.recv(100) == b"ef"
    assert type(stream.recv(0)) is bytes


def test_recv_waits_for_the_first_byte(pair: Pair) -> None:
    stream, peer = pair
    reading = Background(stream.recv, 100)
    wait_until(reading.asleep)
    peer.sendall(b"late")
    assert reading.result() == b"late"


@pytest.mark.parametrize(
    ("size", "error"), [(-1, ValueError), ("1", TypeError), (1.0, TypeError), (None, TypeError)]
)
def test_recv_refuses_a_size_that_is_none(pair: Pair, size: Any, error: type[Exception]) -> None:
    stream, _ = pair
    with pytest.raises(error):
        stream.recv(size)


def test_recv_takes_anything_with_an_index(pair: Pair) -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    stream, peer = pair
    peer.sendall(b"abcdef")
    arrived(peer)
    assert stream.recv(Three()) == b"abc"
    assert stream.recv(True) == b"d"


@pytest.mark.parametrize(
    "buffer",
    [bytearray(8), memoryview(bytearray(8)), array.array("B", bytes(8)), array.array("i", [0, 0])],
    ids=["bytearray", "memoryview", "array", "array of ints"],
)
def test_recv_into_fills_any_buffer(pair: Pair, buffer: Any) -> None:
    stream, peer = pair
    peer.sendall(b"abcdefghij")
    arrived(peer)
    assert stream.recv_into(buffer) == 8
    assert bytes(memoryview(buffer).cast("B")) == b"abcdefgh"
    assert stream.recv_into(buffer) == 2
    assert bytes(memoryview(buffer).cast("B")) == b"ijcdefgh"


def test_recv_into_takes_no_more_than_asked_for(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"abcdef")
    arrived(peer)
    buffer = bytearray(8)
    assert stream.recv_into(buffer, 2) == 2
    assert stream.recv_into(memoryview(buffer)[2:], 0) == 4
    assert buffer == b"abcdef\0\0"


@pytest.mark.parametrize(
    ("buffer", "size", "error"),
    [
        (bytearray(4), 5, ValueError),
        (bytearray(4), -1, ValueError),
        (b"read-only", 0, TypeError),
        (memoryview(b"read-only"), 0, TypeError),
        ("text", 0, TypeError),
        (5, 0, TypeError),
        (memoryview(bytearray(8))[::2], 0, TypeError),
    ],
)
def test_recv_into_refuses_what_cannot_be_filled(
    pair: Pair, buffer: Any, size: int, error: type[Exception]
) -> None:
    stream, _ = pair
    with pytest.raises(error):
        stream.recv_into(buffer, size)


def test_recv_into_a_buffer_of_nothing_returns_nothing(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"x")
    arrived(peer)
    assert stream.recv_into(bytearray()) == 0
    assert stream.recv(1) == b"x"


def test_receiving_nothing_reaches_the_system_only_by_recvfrom_and_recvmsg(
    pair: Pair, make: Callable[[], Stream]
) -> None:
    stream, _ = pair
    stream.setblocking(False)
    assert stream.recv(0) == b""
    assert stream.recv_into(bytearray()) == 0
    asking: list[Callable[[Stream], object]] = [
        lambda stream: stream.recvfrom(0),
        lambda stream: stream.recvfrom_into(bytearray()),
        lambda stream: stream.recvmsg(0),
        lambda stream: stream.recvmsg_into([]),
    ]
    with make() as unconnected:
        for ask in asking:
            with pytest.raises(BlockingIOError):
                ask(stream)
            assert error_number(lambda: ask(unconnected)) == errno.ENOTCONN  # noqa: B023


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_a_receive_waits_for_as_much_as_the_option_says(pair: Pair, timeout: float | None) -> None:
    stream, peer = pair
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4)
    stream.settimeout(timeout)
    for receive in (
        lambda: stream.recv(10),
        lambda: stream.recvmsg(10)[0],
    ):
        peer.sendall(b"ab")
        arrived(peer)
        reading = Background(receive)
        wait_until(lambda: reading.asleep() or not reading.running)  # noqa: B023
        assert reading.running
        # Linux wakes a receiver that already has a part only when as many bytes again arrive.
        peer.sendall(b"cdef")
        assert reading.result() == b"abcdef"
    late = threading.Timer(0.05, peer.sendall, [b"cdef"])
    peer.sendall(b"ab")
    arrived(peer)
    late.start()
    # The same on the main thread, which waits in a different way.
    assert stream.recv(10) == b"abcdef"
    late.join()
    peer.sendall(b"the end")
    peer.close()
    assert read_to_end(stream) == b"the end"


def test_room_for_control_messages_may_be_as_large_as_one_likes(pair: Pair) -> None:
    stream, peer = pair
    for size in (1 << 16, (1 << 16) + 1, (1 << 31) - 1):
        peer.sendall(b"x")
        assert stream.recvmsg(1, size) == (b"x", [], 0, None)
    for size in (-1, 1 << 31):
        with pytest.raises((ValueError, OverflowError)):
            stream.recvmsg(1, size)


def test_recv_into_keeps_the_buffer_as_long_as_it_waits(pair: Pair) -> None:
    stream, peer = pair
    buffer = bytearray(4)
    reading = Background(stream.recv_into, buffer)
    wait_until(reading.asleep)
    with pytest.raises(BufferError):
        buffer.extend(b"more")
    peer.sendall(b"abcd")
    assert reading.result() == 4
    buffer.extend(b"more")
    assert buffer == b"abcdmore"


def test_flags_are_those_of_the_system(pair: Pair) -> None:
    stream, peer = pair
    with pytest.raises(BlockingIOError):
        stream.recv(1, socket.MSG_DONTWAIT)
    peer.sendall(b"abc")
    arrived(peer)
    assert stream.recv(10, socket.MSG_PEEK) == b"abc"
    buffer = bytearray(3)
    assert stream.recv_into(buffer, 0, socket.MSG_PEEK) == 3
    assert stream.recv(10) == b"abc"
    reading = Background(stream.recv, 4, socket.MSG_WAITALL)
    peer.sendall(b"ab")
    arrived(peer)
    peer.sendall(b"cd")
    assert reading.result() == b"abcd"


def test_urgent_data_goes_both_ways(pair: Pair) -> None:
    stream, peer = pair
    stream.send(b"!", socket.MSG_OOB)
    # With a time-out the standard library would first wait for ordinary data.
    peer.settimeout(None)
    assert select.select([], [], [peer], 5.0)[2]
    assert peer.recv(1, socket.MSG_OOB) == b"!"
    peer.send(b"?", socket.MSG_OOB)
    assert select.select([], [], [stream], 5.0)[2]
    assert stream.recv(1, socket.MSG_OOB) == b"?"


# --- sending -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"abcd",
        bytearray(b"abcd"),
        memoryview(b"abcd"),
        memoryview(b"xxabcdxx")[2:6],
        array.array("B", b"abcd"),
        array.array("i", [int.from_bytes(b"abcd", "little")]),
    ],
)
def test_any_buffer_can_be_sent(pair: Pair, data: Any) -> None:
    stream, peer = pair
    assert stream.send(data) == 4
    assert stream.sendall(data) is None
    assert read_exactly(peer, 8) == b"abcdabcd"


@pytest.mark.parametrize("data", ["text", 5, None, [1], memoryview(b"abcdef")[::2]])
def test_what_is_no_buffer_cannot_be_sent(pair: Pair, data: Any) -> None:
    stream, _ = pair
    with pytest.raises((TypeError, BufferError)):
        stream.send(data)
    with pytest.raises((TypeError, BufferError)):
        stream.sendall(data)


def test_nothing_can_be_sent(pair: Pair) -> None:
    stream, peer = pair
    assert stream.send(b"") == 0
    assert stream.sendall(b"") is None
    stream.sendall(b"x")
    assert peer.recv(10) == b"x"


def test_sendall_sends_everything(pair: Pair) -> None:
    stream, peer = pair
    data = payload(16 << 20)
    sending = Background(stream.sendall, data)
    assert read_exactly(peer, len(data)) == data
    assert sending.result() is None


def test_sending_to_one_who_has_gone_is_a_broken_pipe_or_a_reset(pair: Pair) -> None:
    stream, peer = pair
    peer.close()

    def send() -> None:
        for _ in range(1_000):
            stream.sendall(b"x" * 1_000)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        send()


# --- options and addresses -----------------------------------------------------------------


def test_options_are_numbers_or_bytes(pair: Pair) -> None:
    stream, _ = pair
    level, name = socket.SOL_SOCKET, socket.SO_KEEPALIVE
    assert stream.getsockopt(level, name) == 0
    assert stream.setsockopt(level, name, 1) is None
    assert stream.getsockopt(level, name) == 1
    stream.setsockopt(level, name, struct.pack("i", 0))
    assert stream.getsockopt(level, name, 4) == b"\0\0\0\0"
    stream.setsockopt(level, socket.SO_LINGER, struct.pack("ii", 1, 7))
    assert stream.getsockopt(level, socket.SO_LINGER, 8) == struct.pack("ii", 1, 7)
    stream.setsockopt(level, name, bytearray(struct.pack("i", 1)))
    assert stream.getsockopt(level, name) == 1


def test_options_the_system_does_not_know_are_its_error(pair: Pair) -> None:
    stream, _ = pair
    assert error_number(lambda: stream.getsockopt(socket.SOL_SOCKET, 9_999)) == errno.ENOPROTOOPT
    assert error_number(lambda: stream.setsockopt(socket.SOL_SOCKET, 9_999, 1)) == (
        errno.ENOPROTOOPT
    )
    assert error_number(lambda: stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"")) == (
        errno.EINVAL
    )


@pytest.mark.parametrize("size", [-1, 1_025])
def test_the_size_of_an_option_is_checked(pair: Pair, size: int) -> None:
    stream, _ = pair
    with pytest.raises(OSError, match="buflen"):
        stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, size)


@pytest.mark.parametrize(
    "arguments", [("text",), (1.5,), (None,), (b"\0", 4), ()], ids=["str", "float", "None", "", "-"]
)
def test_an_option_of_another_type_is_a_type_error(pair: Pair, arguments: tuple[Any, ...]) -> None:
    stream, _ = pair
    with pytest.raises(TypeError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, *arguments)


def test_an_option_without_a_value_has_a_length(pair: Pair) -> None:
    stream, _ = pair
    call = lambda: stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, None, 4)  # noqa: E731
    assert error_number(call) == errno.EFAULT


def test_addresses_are_pairs(pair: Pair) -> None:
    stream, peer = pair
    assert stream.getsockname() == peer.getpeername()
    assert stream.getpeername() == peer.getsockname()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_addresses_of_ipv6_have_four_parts() -> None:
    with listener("::1") as listening:
        address = listening.getsockname()
        with socket.create_connection(address[:2]) as plain, Client(*address[:2]) as client:
            assert client.getpeername() == plain.getpeername() == address
            assert len(client.getsockname()) == len(plain.getsockname()) == 4


def test_family_type_and_protocol_are_those_of_a_stream(pair: Pair) -> None:
    stream, _ = pair
    assert stream.family == socket.AF_INET
    assert stream.type == socket.SOCK_STREAM
    assert stream.proto in (0, socket.IPPROTO_TCP)


def test_the_descriptor_is_a_small_number(pair: Pair) -> None:
    stream, _ = pair
    with socket.socket(fileno=socket.dup(stream.fileno())) as same:
        assert same.getsockname() == stream.getsockname()


# --- connecting ----------------------------------------------------------------------------


def test_connect_ex_returns_error_numbers(make: Callable[[], Stream]) -> None:
    with closed_port() as address, make() as stream:
        assert stream.connect_ex(address) == errno.ECONNREFUSED
        assert stream.connect_ex(address) == errno.ECONNREFUSED
    with listener() as listening, make() as stream:
        assert stream.connect_ex(listening.getsockname()) == 0


def test_a_refused_connection_has_its_class(make: Callable[[], Stream]) -> None:
    with closed_port() as address, make() as stream:
        with pytest.raises(ConnectionRefusedError) as caught:
            stream.connect(address)
        assert caught.value.errno == errno.ECONNREFUSED


def test_connecting_twice_is_an_error(pair: Pair) -> None:
    stream, peer = pair
    address = peer.getsockname()
    assert error_number(lambda: stream.connect(address)) == errno.EISCONN
    assert stream.connect_ex(address) == errno.EISCONN
    stream.sendall(b"unharmed")
    assert read_exactly(peer, 8) == b"unharmed"


def test_connecting_without_blocking_is_under_way(make: Callable[[], Stream]) -> None:
    with listener() as listening, make() as stream:
        stream.setblocking(False)
        assert error_number(lambda: stream.connect(listening.getsockname())) == errno.EINPROGRESS
        peer, _ = listening.accept()
        with peer:
            stream.settimeout(5.0)
            peer.sendall(b"done")
            assert read_exactly(stream, 4) == b"done"


def test_connecting_again_without_blocking_tells_how_it_goes(
    make: Callable[[], Stream], full_listener: tuple[str, int]
) -> None:
    with make() as stream:
        stream.setblocking(False)
        assert stream.connect_ex(full_listener) == errno.EINPROGRESS
        assert stream.connect_ex(full_listener) == errno.EALREADY
        # Also with a time-out: the handshake in progress was started by an earlier call.
        stream.settimeout(SOON)
        assert error_number(lambda: stream.connect(full_listener)) == errno.EALREADY
        assert error_number(stream.getpeername) == errno.ENOTCONN
    with listener() as listening, make() as stream:
        address = listening.getsockname()
        stream.setblocking(False)
        assert stream.connect_ex(address) == errno.EINPROGRESS
        assert select.select([], [stream], [], SOON)[1]
        # The first `connect_ex` after the handshake reports success, even if SO_ERROR was read
        # before.
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert [stream.connect_ex(address) for _ in range(3)] == [0, errno.EISCONN, errno.EISCONN]
    with closed_port() as address, make() as stream:
        stream.setblocking(False)
        for _ in range(2):
            assert stream.connect_ex(address) == errno.EINPROGRESS
            assert select.select([], [stream], [], SOON)[1]
            assert stream.connect_ex(address) == errno.ECONNREFUSED
        assert stream.connect_ex(address) == errno.EINPROGRESS
        assert select.select([], [stream], [], SOON)[1]
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        assert stream.connect_ex(address) == errno.ECONNABORTED


def test_a_blocking_connect_waits_for_the_handshake_under_way(
    make: Callable[[], Stream],
) -> None:
    with listener(backlog=0) as listening, contextlib.ExitStack() as stack, make() as stream:
        address = listening.getsockname()
        waiting = [stack.enter_context(socket.socket()) for _ in range(3)]
        for peer in waiting:
            peer.setblocking(False)
            peer.connect_ex(address)
        stream.setblocking(False)
        stream.connect_ex(address)
        stream.setblocking(True)
        connecting = Background(stream.connect, address)
        wait_until(lambda: connecting.asleep() or not connecting.running)
        listening.setblocking(False)

        def connected() -> bool:
            # Each connection that is accepted makes room for another handshake.
            with contextlib.suppress(BlockingIOError):
                listening.accept()[0].close()
            return not connecting.running

        wait_until(connected, SOON * 2)
        connecting.result()
        assert stream.getpeername() == address


@pytest.mark.parametrize(
    "address", [5, None, ("127.0.0.1",), ("127.0.0.1", "x", 1, 2, 3), (5, 80), ("127.0.0.1", 1.5)]
)
def test_connecting_to_what_is_no_address_is_a_type_error(
    make: Callable[[], Stream], address: Any
) -> None:
    with make() as stream, pytest.raises(TypeError):
        stream.connect(address)


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.recv(1),
        lambda s: s.getpeername(),
        lambda s: s.shutdown(socket.SHUT_RDWR),
    ],
    ids=["recv", "getpeername", "shutdown"],
)
def test_use_before_connecting_is_not_connected(
    make: Callable[[], Stream], use: Callable[[Stream], object]
) -> None:
    with make() as stream:
        assert error_number(lambda: use(stream)) == errno.ENOTCONN


def test_sending_before_connecting_is_a_broken_pipe(make: Callable[[], Stream]) -> None:
    with make() as stream:
        assert error_number(lambda: stream.send(b"x")) == errno.EPIPE


# --- ending --------------------------------------------------------------------------------


def test_the_end_is_empty_bytes(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"last")
    peer.close()
    assert read_to_end(stream) == b"last"
    assert stream.recv(1) == b""
    assert stream.recv_into(bytearray(4)) == 0


def test_a_reset_is_a_connection_reset_error(pair: Pair) -> None:
    stream, peer = pair
    reset(peer)
    with pytest.raises(ConnectionResetError) as caught:
        stream.recv(1)
    assert caught.value.errno == errno.ECONNRESET


def test_shutdown_takes_no_other_number(pair: Pair) -> None:
    stream, _ = pair
    assert error_number(lambda: stream.shutdown(99)) == errno.EINVAL
    with pytest.raises(TypeError):
        stream.shutdown("all")


def test_a_closed_stream_has_no_descriptor(pair: Pair) -> None:
    stream, peer = pair
    stream.close()
    stream.close()
    assert stream.fileno() == -1
    assert peer.recv(1) == b""
    for use in (
        lambda: stream.recv(1),
        lambda: stream.send(b"x"),
        lambda: stream.getpeername(),
        lambda: stream.getsockname(),
        lambda: stream.shutdown(socket.SHUT_WR),
        lambda: stream.connect(("127.0.0.1", 80)),
    ):
        assert error_number(use) == errno.EBADF


def test_a_detached_stream_is_closed_and_its_descriptor_is_not(pair: Pair) -> None:
    stream, peer = pair
    number = stream.detach()
    assert stream.fileno() == -1
    assert error_number(lambda: stream.recv(1)) == errno.EBADF
    assert stream.detach() == -1
    stream.close()
    with socket.socket(fileno=number) as plain:
        peer.sendall(b"open")
        assert read_exactly(plain, 4) == b"open"


def test_with_closes(make: Callable[[], Stream]) -> None:
    with listener() as listening, make() as stream:
        with stream as same:
            assert same is stream
            stream.connect(listening.getsockname())
        assert stream.fileno() == -1


def test_with_closes_when_the_body_raises(make: Callable[[], Stream]) -> None:
    stream = make()
    with contextlib.suppress(ZeroDivisionError), stream:
        _ = 1 / 0
    assert stream.fileno() == -1

"""Receiving into buffers, and the message and datagram calls of a stream, with their flags."""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import (
    Arrivals,
    Background,
    Signal,
    arrived,
    error_number,
    partial,
    payload,
    read_exactly,
    read_to_end,
    reset,
    wait_until,
)
from support.roles import OURS, Pair, Stream, connected, handled, outcome

from rsock import Connection

TEN_MIB = payload(10 << 20, seed=11)
IOV_MAX = os.sysconf("SC_IOV_MAX")
# linux/tcp.h; Python has no name for them. With the first one set, each recvmsg reports how many
# bytes are left to be read, in a control message of this number.
TCP_INQ = TCP_CM_INQ = 36
# asm-generic/socket.h: as a control message it takes 32 bits of flags.
SO_TIMESTAMPING = 37


@pytest.fixture(params=OURS)
def beside(request: pytest.FixtureRequest) -> Iterator[tuple[Pair, Pair]]:
    """A plain socket and a stream, each with its peer: the stream must behave like the socket."""
    with connected("socket") as plain, connected(request.param) as ours:
        yield plain, ours


# --- into buffers --------------------------------------------------------------------------

# Every call that fills a buffer; it returns how many bytes arrived.
Fill = Callable[..., int]
FILLS: dict[str, Fill] = {
    "recv_into": lambda stream, buffer, flags=0: stream.recv_into(buffer, 0, flags),
    "recvfrom_into": lambda stream, buffer, flags=0: stream.recvfrom_into(buffer, 0, flags)[0],
    "recvmsg_into": lambda stream, buffer, flags=0: stream.recvmsg_into([buffer], 0, flags)[0],
}
every_fill = pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)

# Eight writable bytes of every kind.
BUFFERS: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(8),
    "slice": lambda: memoryview(bytearray(24))[8:16],
    "table": lambda: memoryview(bytearray(8)).cast("B", (2, 2, 2)),
    "array": lambda: array.array("h", [0] * 4),
    "floats": lambda: array.array("d", [0.0]),
    "ctypes array": lambda: (ctypes.c_uint16 * 4)(),
    "ctypes structure": lambda: ctypes.c_uint64(),
    "mapped memory": lambda: memoryview(mmap.mmap(-1, 4096))[:8],
}
# Objects that cannot be filled.
READ_ONLY: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"12345678",
    "view of bytes": lambda: memoryview(b"12345678"),
    "view made read-only": lambda: memoryview(bytearray(8)).toreadonly(),
    "mapped read-only": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ),
    "str": lambda: "12345678",
    "int": lambda: 8,
    "None": lambda: None,
    "list": lambda: [0] * 8,
}
WITH_GAPS: dict[str, Callable[[], Any]] = {
    "every other byte": lambda: memoryview(bytearray(16))[::2],
    "backwards": lambda: memoryview(bytearray(8))[::-1],
    "released": lambda: released(),
}


def released() -> memoryview:
    view = memoryview(bytearray(8))
    view.release()
    return view


def content(buffer: Any) -> bytes:
    return memoryview(buffer).tobytes()


@every_fill
@pytest.mark.parametrize("make", BUFFERS.values(), ids=BUFFERS)
def test_any_writable_buffer_is_filled(pair: Pair, fill: Fill, make: Callable[[], Any]) -> None:
    stream, peer = pair
    buffer = make()
    peer.sendall(b"abcdefghij")
    arrived(peer)
    assert fill(stream, buffer) == 8
    assert content(buffer) == b"abcdefgh"
    assert fill(stream, buffer) == 2
    assert content(buffer) == b"ijcdefgh"


@every_fill
def test_only_the_slice_is_filled(pair: Pair, fill: Fill) -> None:
    stream, peer = pair
    whole = bytearray(b"." * 9)
    peer.sendall(b"abc")
    arrived(peer)
    assert fill(stream, memoryview(whole)[3:6]) == 3
    assert whole == b"...abc..."


@every_fill
@pytest.mark.parametrize("make", READ_ONLY.values(), ids=READ_ONLY)
def test_what_cannot_be_written_to_is_refused(
    pair: Pair, fill: Fill, make: Callable[[], Any]
) -> None:
    stream, peer = pair
    peer.sendall(b"abc")
    arrived(peer)
    with pytest.raises(TypeError):
        fill(stream, make())
    # Nothing that was received is lost.
    assert stream.recv(10) == b"abc"


@every_fill
@pytest.mark.parametrize("make", WITH_GAPS.values(), ids=WITH_GAPS)
def test_a_buffer_with_gaps_is_refused(pair: Pair, fill: Fill, make: Callable[[], Any]) -> None:
    stream, peer = pair
    peer.sendall(b"abc")
    arrived(peer)
    with pytest.raises(TypeError):
        fill(stream, make())
    assert stream.recv(10) == b"abc"


@every_fill
def test_a_buffer_cannot_be_resized_while_it_is_waited_for(pair: Pair, fill: Fill) -> None:
    stream, peer = pair
    buffer = bytearray(4)
    reading = Background(fill, stream, buffer)
    wait_until(reading.asleep)
    with pytest.raises(BufferError):
        buffer.clear()
    peer.sendall(b"abcd")
    assert reading.result() == 4
    buffer.clear()


@every_fill
def test_the_end_fills_nothing(pair: Pair, fill: Fill) -> None:
    stream, peer = pair
    peer.close()
    buffer = bytearray(b"kept")
    assert fill(stream, buffer) == 0
    assert buffer == b"kept"


@pytest.mark.parametrize("name", ["recv_into", "recvfrom_into"])
@pytest.mark.parametrize("arguments", [(5,), (-1,), ("1",), (1.0,), (None,), (1, 1 << 40)], ids=str)
def test_a_length_that_is_none_is_refused(
    beside: tuple[Pair, Pair], name: str, arguments: tuple[Any, ...]
) -> None:
    (plain, _), (stream, _) = beside
    refused = outcome(lambda: getattr(stream, name)(bytearray(4), *arguments))
    assert refused == outcome(lambda: getattr(plain, name)(bytearray(4), *arguments))
    assert isinstance(refused, tuple)


def test_lengths_and_flags_may_be_named(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"abcdef")
    arrived(peer)
    buffer = bytearray(6)
    assert stream.recv_into(buffer=buffer, nbytes=2, flags=0) == 2
    assert stream.recvfrom_into(buffer=memoryview(buffer)[2:], nbytes=3, flags=0) == (3, None)
    assert buffer == b"abcde\0"


# --- recvfrom and sendto -------------------------------------------------------------------


def test_a_stream_has_no_sender_to_tell(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"abcdef")
    arrived(peer)
    assert stream.recvfrom(2) == (b"ab", None)
    assert stream.recvfrom(100, socket.MSG_PEEK) == (b"cdef", None)
    assert stream.recvfrom_into(bytearray(2)) == (2, None)
    assert stream.recvfrom(100) == (b"ef", None)
    peer.close()
    assert stream.recvfrom(100) == (b"", None)


def test_a_stream_sends_to_its_peer_whatever_address_is_given(pair: Pair) -> None:
    stream, peer = pair
    assert stream.sendto(b"one", ("127.0.0.1", 9)) == 3
    assert stream.sendto(b"two", 0, peer.getsockname()) == 3
    assert stream.sendmsg([b"three"], [], 0, ("127.0.0.1", 9)) == 5
    assert stream.sendmsg([b"four"], [], 0, None) == 4
    assert read_exactly(peer, 15) == b"onetwothreefour"


@pytest.mark.parametrize(
    "arguments",
    [
        (b"x",),
        (b"x", None),
        (b"x", 0, None),
        (b"x", 5),
        (b"x", ["127.0.0.1", 9]),
        (b"x", ("127.0.0.1",)),
        (b"x", ("127.0.0.1", 70_000)),
        (b"x", ("127.0.0.1", -1)),
        (b"x", ("127.0.0.1", 1.5)),
        (b"x", (5, 9)),
        (b"x", "flags", ("127.0.0.1", 9)),
        (b"x", 0, ("127.0.0.1", 9), 4),
        ("text", ("127.0.0.1", 9)),
        (5, ("127.0.0.1", 9)),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_an_address_that_is_none_is_refused(
    beside: tuple[Pair, Pair], arguments: tuple[Any, ...]
) -> None:
    (plain, _), (stream, peer) = beside
    refused = outcome(lambda: stream.sendto(*arguments))
    assert refused == outcome(lambda: plain.sendto(*arguments))
    assert isinstance(refused, tuple)
    stream.shutdown(socket.SHUT_WR)
    assert read_to_end(peer) == b""


def test_no_name_is_looked_up_for_an_address_that_is_not_used(ours: Pair) -> None:
    # A plain socket resolves the name first and raises gaierror.
    stream, peer = ours
    assert stream.sendto(b"x", ("absent.invalid", 9)) == 1
    assert stream.sendto(b"y", ("::1", 9)) == 1
    assert read_exactly(peer, 2) == b"xy"


# --- sendmsg -------------------------------------------------------------------------------


def test_buffers_of_a_message_are_sent_one_after_the_other(pair: Pair) -> None:
    stream, peer = pair
    parts = [
        b"bytes,",
        bytearray(b"bytearray,"),
        b"",
        memoryview(b"..slice,..")[2:8],
        array.array("B", b"array,"),
        (ctypes.c_uint8 * 6)(*b"ctypes"),
    ]
    for buffers in (parts, tuple(parts), (part for part in parts), iter(parts)):
        assert stream.sendmsg(buffers) == 34
        assert read_exactly(peer, 34) == b"bytes,bytearray,slice,array,ctypes"


def test_a_message_may_be_empty(pair: Pair) -> None:
    stream, peer = pair
    assert stream.sendmsg([]) == 0
    assert stream.sendmsg([b"", bytearray()]) == 0
    stream.sendall(b"x")
    assert peer.recv(10) == b"x"


@pytest.mark.parametrize(
    "buffers",
    [5, None, b"iterated gives ints", "text", ["text"], [5], [None], [memoryview(b"abcd")[::2]]],
    ids=lambda value: "strided" if "memory" in str(value) else str(value),
)
def test_what_is_no_message_is_refused(beside: tuple[Pair, Pair], buffers: Any) -> None:
    (plain, _), (stream, peer) = beside
    refused = outcome(lambda: stream.sendmsg(buffers))
    assert refused == outcome(lambda: plain.sendmsg(buffers))
    assert isinstance(refused, tuple)
    stream.shutdown(socket.SHUT_WR)
    assert read_to_end(peer) == b""


def test_an_error_among_the_buffers_is_raised_and_nothing_is_sent(pair: Pair) -> None:
    def buffers() -> Iterator[bytes]:
        yield b"never sent"
        raise ZeroDivisionError

    stream, peer = pair
    with pytest.raises(ZeroDivisionError):
        stream.sendmsg(buffers())
    stream.shutdown(socket.SHUT_WR)
    assert read_to_end(peer) == b""


def test_a_message_has_as_many_buffers_as_the_system_allows(pair: Pair) -> None:
    stream, peer = pair
    assert stream.sendmsg([b"x"] * IOV_MAX) == IOV_MAX
    assert read_exactly(peer, IOV_MAX) == b"x" * IOV_MAX
    assert error_number(lambda: stream.sendmsg([b"x"] * (IOV_MAX + 1))) == errno.EMSGSIZE
    peer.sendall(b"y" * IOV_MAX)
    arrived(peer)
    many = [bytearray(1) for _ in range(IOV_MAX + 1)]
    assert error_number(lambda: stream.recvmsg_into(many)) == errno.EMSGSIZE
    assert stream.recvmsg_into(many[:-1])[0] == IOV_MAX
    assert b"".join(many) == b"y" * IOV_MAX + b"\0"


def test_buffers_of_a_message_cannot_be_resized_while_it_waits(pair: Pair) -> None:
    stream, peer = pair
    data = bytearray(TEN_MIB)
    enough = threading.Event()

    def send() -> None:
        while not enough.is_set():
            stream.sendmsg([data])

    sending = Background(send)
    wait_until(sending.asleep)
    with pytest.raises(BufferError):
        data.clear()
    enough.set()
    reading = Background(read_to_end, peer)
    sending.result()
    data.clear()
    stream.close()
    assert reading.result()


# Every call that sends as much as there is room for.
SENDS: dict[str, Callable[[Stream, bytes], int]] = {
    "send": lambda stream, data: stream.send(data),
    "sendmsg": lambda stream, data: stream.sendmsg([data[:5], data[5:]]),
    "sendto": lambda stream, data: stream.sendto(data, ("127.0.0.1", 9)),
}


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
def test_a_large_message_is_sent_as_far_as_there_is_room(
    ours: Pair, send: Callable[[Stream, bytes], int]
) -> None:
    # A plain socket without a time-out waits here until the kernel has taken all of it.
    stream, peer = ours
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    sent = send(stream, TEN_MIB)
    assert 0 < sent < len(TEN_MIB)
    assert read_exactly(peer, sent) == TEN_MIB[:sent]


def test_a_message_to_one_who_has_gone_is_a_broken_pipe_or_a_reset(pair: Pair) -> None:
    stream, peer = pair
    peer.close()

    def send() -> None:
        for _ in range(1_000):
            stream.sendmsg([b"x" * 500] * 2)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        send()


# --- recvmsg -------------------------------------------------------------------------------


def test_a_message_is_data_control_messages_flags_and_no_address(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"abcdefghij")
    arrived(peer)
    assert stream.recvmsg(2) == (b"ab", [], 0, None)
    assert stream.recvmsg(2, 100) == (b"cd", [], 0, None)
    assert stream.recvmsg(2, 0, socket.MSG_PEEK) == (b"ef", [], 0, None)
    first, empty, second = bytearray(3), bytearray(), bytearray(4)
    assert stream.recvmsg_into([first, empty, second]) == (6, [], 0, None)
    assert bytes(first + second) == b"efghij\0"
    peer.close()
    assert stream.recvmsg(100) == (b"", [], 0, None)
    assert stream.recvmsg_into([first]) == (0, [], 0, None)


def test_buffers_to_fill_may_come_from_a_generator(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"abcdef")
    arrived(peer)
    whole = bytearray(6)
    views = (memoryview(whole)[at : at + 2] for at in (4, 2, 0))
    assert stream.recvmsg_into(views)[0] == 6
    assert whole == b"efcdab"


@pytest.mark.parametrize(
    "arguments",
    [(-1,), (1, -1), ("1",), (1, "1"), (1, 0, "1"), (1, 0, 1 << 40), (), (1, 0, 0, 0)],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_sizes_of_a_message_that_are_none_are_refused(
    beside: tuple[Pair, Pair], arguments: tuple[Any, ...]
) -> None:
    (plain, _), (stream, _) = beside
    refused = outcome(lambda: stream.recvmsg(*arguments))
    assert refused == outcome(lambda: plain.recvmsg(*arguments))
    assert isinstance(refused, tuple)


@pytest.mark.parametrize(
    "buffers",
    [5, None, bytearray(4), [b"bytes"], ["text"], [None], [memoryview(bytearray(4))[::2]]],
    ids=lambda value: "strided" if "memory" in str(value) else str(value),
)
def test_what_is_no_list_of_buffers_is_refused(beside: tuple[Pair, Pair], buffers: Any) -> None:
    (plain, _), (stream, _) = beside
    refused = outcome(lambda: stream.recvmsg_into(buffers))
    assert refused == outcome(lambda: plain.recvmsg_into(buffers))
    assert isinstance(refused, tuple)


def test_a_reset_reaches_a_receive_of_a_message(pair: Pair) -> None:
    stream, peer = pair
    reset(peer)
    with pytest.raises(ConnectionResetError):
        stream.recvmsg(1)


# --- control messages ----------------------------------------------------------------------


def test_control_messages_are_received(pair: Pair) -> None:
    stream, peer = pair
    stream.setsockopt(socket.IPPROTO_TCP, TCP_INQ, 1)
    peer.sendall(b"abcdef")
    arrived(peer)
    left = [(socket.IPPROTO_TCP, TCP_CM_INQ, struct.pack("i", 4))]
    assert stream.recvmsg(2, socket.CMSG_SPACE(4)) == (b"ab", left, 0, None)
    left = [(socket.IPPROTO_TCP, TCP_CM_INQ, struct.pack("i", 2))]
    buffers = [bytearray(1), bytearray(1)]
    assert stream.recvmsg_into(buffers, 1_000) == (2, left, 0, None)


def test_a_control_message_without_room_is_cut(beside: tuple[Pair, Pair]) -> None:
    def received(pair: Pair) -> list[object]:
        stream, peer = pair
        stream.setsockopt(socket.IPPROTO_TCP, TCP_INQ, 1)
        peer.sendall(b"abcdef")
        arrived(peer)
        sizes = (0, 1, socket.CMSG_LEN(0), socket.CMSG_LEN(2), socket.CMSG_LEN(4))
        return [stream.recvmsg(1, size) for size in sizes]

    plain, ours = map(received, beside)
    assert ours == plain
    assert plain[0] == (b"a", [], socket.MSG_CTRUNC, None)


SOL_SOCKET, IPPROTO_IP = socket.SOL_SOCKET, socket.IPPROTO_IP


def test_control_messages_may_come_from_a_generator(pair: Pair) -> None:
    stream, peer = pair
    assert stream.sendmsg([b"x"], ((IPPROTO_IP, number, b"") for number in range(3))) == 1
    assert peer.recv(10) == b"x"


# Control messages to pass to `sendmsg`.
CONTROL: dict[str, Any] = {
    "none": [],
    # TCP accepts these...
    "flags": [(SOL_SOCKET, SO_TIMESTAMPING, struct.pack("I", 0))],
    "flags twice": ((SOL_SOCKET, SO_TIMESTAMPING, bytearray(4)),) * 2,
    # ...ignores these as meant for other protocols...
    "descriptors": [(SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))],
    "of IP": [(IPPROTO_IP, 9_999, b"anything")],
    "of odd sizes": [(IPPROTO_IP, 1, b""), (IPPROTO_IP, 2, b"1"), (IPPROTO_IP, 3, b"12345")],
    # ...and rejects these.
    "unknown": [(SOL_SOCKET, 9_999, b"1234")],
    "short": [(SOL_SOCKET, SO_TIMESTAMPING, b"short")],
    "unknown behind others": [(IPPROTO_IP, 1, b""), (SOL_SOCKET, 9_999, b"1234")],
    "too large": [(IPPROTO_IP, 1, bytes(10 << 20))],
    # No control messages at all.
    "a number": 5,
    "numbers": [5],
    "bytes": b"ab",
    "text within": [(1, 2, "text")],
    "None within": [(1, 2, None)],
    "text as level": [("1", 2, b"")],
    "text as type": [(1, "2", b"")],
    "a float as level": [(1.0, 2, b"")],
    "a level beyond 32 bits": [(1 << 40, 2, b"")],
    "a list within": [[IPPROTO_IP, 1, b""]],
    "two parts": [(1, 2)],
    "four parts": [(1, 2, b"", 4)],
}


@pytest.mark.parametrize("control", CONTROL.values(), ids=CONTROL)
def test_control_messages_are_taken_and_refused_as_by_a_socket(
    beside: tuple[Pair, Pair], control: Any
) -> None:
    def sent(pair: Pair) -> tuple[object, bytes]:
        stream, peer = pair
        result = outcome(lambda: stream.sendmsg([b"x"], control))
        stream.shutdown(socket.SHUT_WR)
        return result, read_to_end(peer)

    plain, ours = map(sent, beside)
    assert ours == plain
    # Sent as a whole or refused as a whole.
    assert ours == (1, b"x") or ours[1] == b""


@pytest.mark.parametrize("item", [(), (1,), (1, 2), (1, 2, b"", 4)], ids=str)
def test_a_control_message_has_three_parts(pair: Pair, item: Any) -> None:
    stream, peer = pair
    with pytest.raises((TypeError, ValueError)):
        stream.sendmsg([b"x"], [item])
    stream.shutdown(socket.SHUT_WR)
    assert read_to_end(peer) == b""


# --- flags ---------------------------------------------------------------------------------

# Every call that receives, as one that returns the bytes that arrived.
Receive = Callable[[Stream, int, int], bytes]


def into(name: str) -> Receive:
    def receive(stream: Stream, size: int, flags: int) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: FILLS[name](stream, buffer, flags)])

    return receive


def into_halves(stream: Stream, size: int, flags: int) -> bytes:
    buffers = [bytearray(size // 2), bytearray(size - size // 2)]
    count: int = stream.recvmsg_into(buffers, 0, flags)[0]
    return b"".join(buffers)[:count]


RECEIVES: dict[str, Receive] = {
    "recv": lambda stream, size, flags: stream.recv(size, flags),
    "recv_into": into("recv_into"),
    "recvfrom": lambda stream, size, flags: stream.recvfrom(size, flags)[0],
    "recvfrom_into": into("recvfrom_into"),
    "recvmsg": lambda stream, size, flags: stream.recvmsg(size, 0, flags)[0],
    "recvmsg_into": into_halves,
}
every_receive = pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)


@every_receive
def test_a_peek_takes_nothing(pair: Pair, receive: Receive) -> None:
    stream, peer = pair
    peer.sendall(b"abcdef")
    arrived(peer)
    for _ in range(2):
        assert receive(stream, 4, socket.MSG_PEEK) == b"abcd"
    assert receive(stream, 10, 0) == b"abcdef"


@every_receive
def test_dontwait_does_not_wait(pair: Pair, receive: Receive) -> None:
    stream, peer = pair
    with pytest.raises(BlockingIOError):
        receive(stream, 4, socket.MSG_DONTWAIT)
    peer.sendall(b"ab")
    arrived(peer)
    assert receive(stream, 4, socket.MSG_DONTWAIT) == b"ab"
    # MSG_DONTWAIT applied to that call only.
    reading = Background(receive, stream, 4, 0)
    wait_until(reading.asleep)
    peer.sendall(b"cd")
    assert reading.result() == b"cd"


@every_receive
def test_dontwait_does_not_wait_for_the_timeout_either(ours: Pair, receive: Receive) -> None:
    # A plain socket waits until its time-out first.
    stream, _ = ours
    stream.settimeout(30.0)
    with pytest.raises(BlockingIOError):
        receive(stream, 4, socket.MSG_DONTWAIT)


def waiting(receive: Receive, stream: Stream, size: int, flags: int) -> Background[bytes]:
    """A receive with fewer bytes available than it must wait for."""
    reading = Background(receive, stream, size, flags | socket.MSG_WAITALL)
    wait_until(lambda: reading.asleep() or not reading.running)
    return reading


waits = pytest.mark.parametrize("flags", [0, socket.MSG_PEEK], ids=["taking", "peeking"])


@every_receive
@waits
def test_waitall_waits_for_all(pair: Pair, receive: Receive, flags: int) -> None:
    stream, peer = pair
    peer.sendall(b"a")
    arrived(peer)
    reading = waiting(receive, stream, 4, flags)
    for part in (b"b", b"cde"):
        assert reading.running
        peer.sendall(part)
        arrived(peer)
    assert reading.result() == b"abcd"
    assert stream.recv(10) == (b"abcde" if flags else b"e")


@pytest.mark.parametrize("name", ["recv", "recvmsg", "recv_into"])
def test_waitall_waits_for_more_than_a_socket_holds(pair: Pair, name: str) -> None:
    stream, peer = pair
    reading = Background(RECEIVES[name], stream, len(TEN_MIB), socket.MSG_WAITALL)
    peer.sendall(TEN_MIB)
    assert reading.result() == TEN_MIB


@pytest.mark.usefixtures("interrupts")
@every_receive
@waits
def test_waitall_on_the_main_thread_lets_signals_in(
    pair: Pair, receive: Receive, flags: int
) -> None:
    # The main thread waits in a different way than the others, because it has to handle signals.
    stream, peer = pair
    with pytest.raises(KeyboardInterrupt), Signal() as sent:
        receive(stream, 4, socket.MSG_WAITALL | flags)
    assert sent.after < 0.5
    late = threading.Timer(0.05, peer.sendall, [b"cd"])
    peer.sendall(b"ab")
    arrived(peer)
    late.start()
    assert receive(stream, 4, socket.MSG_WAITALL | flags) == b"abcd"
    late.join()


@every_receive
@pytest.mark.parametrize("how", ["by flag", "by timeout"])
def test_waitall_that_may_not_wait_gives_what_is_there(
    pair: Pair, receive: Receive, how: str
) -> None:
    stream, peer = pair
    peer.sendall(b"ab")
    arrived(peer)
    flags = socket.MSG_WAITALL
    if how == "by flag":
        flags |= socket.MSG_DONTWAIT
    else:
        stream.setblocking(False)
    assert receive(stream, 4, flags | socket.MSG_PEEK) == b"ab"
    assert receive(stream, 4, flags) == b"ab"
    with pytest.raises(BlockingIOError):
        receive(stream, 4, flags)


@every_receive
def test_waitall_meets_a_reset_only_in_the_next_call(pair: Pair, receive: Receive) -> None:
    stream, peer = pair
    peer.sendall(b"ab")
    arrived(peer)
    reading = waiting(receive, stream, 4, 0)
    reset(peer)
    assert reading.result() == b"ab"
    with pytest.raises(ConnectionResetError):
        receive(stream, 4, socket.MSG_WAITALL)


@every_receive
def test_waitall_ends_at_urgent_data(pair: Pair, receive: Receive) -> None:
    stream, peer = pair
    peer.sendall(b"ab")
    arrived(peer)
    reading = waiting(receive, stream, 4, 0)
    peer.send(b"!", socket.MSG_OOB)
    assert reading.result() == b"ab"
    peer.sendall(b"cdef")
    arrived(peer)
    assert receive(stream, 4, socket.MSG_WAITALL) == b"cdef"


@every_receive
def test_waitall_to_look_looks_at_what_there_is_at_the_end(pair: Pair, receive: Receive) -> None:
    stream, peer = pair
    peer.sendall(b"ab")
    arrived(peer)
    reading = waiting(receive, stream, 4, socket.MSG_PEEK)
    peer.close()
    assert reading.result() == b"ab"
    assert receive(stream, 4, socket.MSG_WAITALL) == b"ab"
    assert receive(stream, 4, socket.MSG_WAITALL | socket.MSG_PEEK) == b""


def test_control_messages_of_waitall_are_those_of_its_end(beside: tuple[Pair, Pair]) -> None:
    def received(pair: Pair) -> object:
        stream, peer = pair
        stream.setsockopt(socket.IPPROTO_TCP, TCP_INQ, 1)
        peer.sendall(b"ab")
        arrived(peer)
        room = socket.CMSG_SPACE(4)
        reading = Background(stream.recvmsg, 4, room, socket.MSG_WAITALL)
        wait_until(lambda: reading.asleep() or not reading.running)
        peer.sendall(b"cdefg")
        return reading.result()

    plain, ours = map(received, beside)
    assert ours == plain
    left = [(socket.IPPROTO_TCP, TCP_CM_INQ, struct.pack("i", 3))]
    assert plain == (b"abcd", left, 0, None)


@every_receive
def test_waitall_to_look_runs_out_of_time_and_takes_nothing(ours: Pair, receive: Receive) -> None:
    # A plain socket with a time-out ignores MSG_WAITALL and returns what is there.
    stream, peer = ours
    peer.sendall(b"ab")
    arrived(peer)
    stream.settimeout(0.05)
    with pytest.raises(TimeoutError):
        receive(stream, 4, socket.MSG_WAITALL | socket.MSG_PEEK)
    assert receive(stream, 2, 0) == b"ab"


@every_receive
@waits
def test_closing_ends_a_waitall_of_another_thread(ours: Pair, receive: Receive, flags: int) -> None:
    stream, peer = ours
    peer.sendall(b"ab")
    arrived(peer)
    reading = waiting(receive, stream, 4, flags)
    stream.close()
    assert error_number(reading.result) == errno.EBADF


def test_a_stop_ends_a_waitall_with_what_is_there() -> None:
    looked: list[bytes] = []
    arrivals = Arrivals()

    def look(conn: Connection) -> None:
        arrivals.here()
        for flag in (socket.MSG_PEEK, 0):
            looked.append(conn.recv(4, socket.MSG_WAITALL | flag))

    with handled(look) as server, server.client(timeout=5.0) as client:
        client.sendall(b"ab")
        arrivals.until()
        report = server.stop(10.0)
        assert (report.forced, report.abandoned) == (0, 0)
    assert looked == [b"ab", b"ab"]


@every_receive
def test_waitall_waits_no_longer_than_for_the_end(pair: Pair, receive: Receive) -> None:
    stream, peer = pair
    peer.sendall(b"ab")
    peer.close()
    assert receive(stream, 4, socket.MSG_WAITALL) == b"ab"
    assert receive(stream, 4, socket.MSG_WAITALL) == b""


@every_receive
def test_waitall_out_of_time_keeps_what_came(ours: Pair, receive: Receive) -> None:
    # A plain socket with a time-out ignores MSG_WAITALL and returns what is there.
    stream, peer = ours
    peer.sendall(b"ab")
    arrived(peer)
    stream.settimeout(0.05)
    with pytest.raises(TimeoutError) as caught:
        receive(stream, 4, socket.MSG_WAITALL)
    assert partial(caught.value) == b"ab"


@every_receive
def test_the_error_queue_is_not_waited_for(pair: Pair, receive: Receive) -> None:
    stream, peer = pair
    peer.sendall(b"input, and no error")
    arrived(peer)
    with pytest.raises(BlockingIOError):
        receive(stream, 4, socket.MSG_ERRQUEUE)


@pytest.mark.parametrize("name", ["recv", "recvfrom", "recvmsg"])
def test_what_is_skipped_is_not_what_another_had_received(ours: Pair, name: str) -> None:
    with connected("Client") as (another, its_peer):
        its_peer.sendall(b"a secret")
        assert RECEIVES[name](another, 8, 0) == b"a secret"
    stream, peer = ours
    peer.sendall(b"skipped!")
    arrived(peer)
    assert RECEIVES[name](stream, 8, socket.MSG_TRUNC) == bytes(8)


def test_truncated_data_is_skipped(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"skipped, kept")
    arrived(peer)
    assert len(stream.recv(9, socket.MSG_TRUNC)) == 9
    assert stream.recv(10) == b"kept"


def test_more_to_come_is_sent_together(pair: Pair) -> None:
    stream, peer = pair
    assert stream.send(b"a", socket.MSG_MORE) == 1
    assert stream.sendmsg([b"b"], [], socket.MSG_MORE) == 1
    assert stream.sendall(b"c", 0) is None
    assert peer.recv(10) == b"abc"


def test_a_flag_sends_without_waiting(pair: Pair) -> None:
    stream, _ = pair
    for send in (
        lambda: stream.send(TEN_MIB, socket.MSG_DONTWAIT),
        lambda: stream.sendmsg([TEN_MIB], [], socket.MSG_DONTWAIT),
        lambda: stream.sendto(TEN_MIB, socket.MSG_DONTWAIT, ("127.0.0.1", 9)),
    ):

        def fill(send: Callable[[], int] = send) -> None:
            while True:
                send()

        with pytest.raises(BlockingIOError):
            fill()


# --- time-outs, interrupts, ends -----------------------------------------------------------


@every_receive
def test_a_receive_out_of_time_is_a_timeout_error(pair: Pair, receive: Receive) -> None:
    stream, peer = pair
    stream.settimeout(0.05)
    with pytest.raises(TimeoutError):
        receive(stream, 4, 0)
    peer.sendall(b"late")
    assert receive(stream, 4, 0) == b"late"


def test_a_message_out_of_time_is_a_timeout_error(pair: Pair) -> None:
    stream, _ = pair
    stream.settimeout(0.05)

    def fill() -> None:
        while True:
            stream.sendmsg([TEN_MIB])

    with pytest.raises(TimeoutError):
        fill()


@pytest.mark.usefixtures("interrupts")
@every_receive
def test_ctrl_c_ends_every_receive(pair: Pair, receive: Receive) -> None:
    stream, peer = pair
    with pytest.raises(KeyboardInterrupt), Signal() as sent:
        receive(stream, 4, 0)
    assert sent.after < 0.5
    peer.sendall(b"here")
    assert receive(stream, 4, 0) == b"here"


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_ends_a_message_that_waits(pair: Pair) -> None:
    stream, peer = pair

    def fill() -> None:
        while True:
            stream.sendmsg([TEN_MIB])

    with pytest.raises(KeyboardInterrupt), Signal() as sent:
        fill()
    assert sent.after < 0.5
    reading = Background(read_to_end, peer)
    stream.sendall(b"still here")
    stream.close()
    assert reading.result().endswith(b"still here")


@every_receive
def test_closing_ends_every_receive_of_another_thread(ours: Pair, receive: Receive) -> None:
    # On a plain socket the receive would continue.
    stream, _ = ours
    reading = Background(receive, stream, 4, 0)
    wait_until(reading.asleep)
    stream.close()
    assert error_number(reading.result) == errno.EBADF


@every_receive
def test_a_closed_stream_receives_nothing(pair: Pair, receive: Receive) -> None:
    stream, _ = pair
    stream.close()
    assert error_number(lambda: receive(stream, 4, 0)) == errno.EBADF


def test_a_closed_stream_sends_no_message(pair: Pair) -> None:
    stream, _ = pair
    stream.close()
    assert error_number(lambda: stream.sendmsg([b"x"])) == errno.EBADF
    assert error_number(lambda: stream.sendto(b"x", ("127.0.0.1", 9))) == errno.EBADF


def test_every_call_is_counted_once(ours: Pair) -> None:
    stream, peer = ours
    peer.sendall(b"x" * 60)
    arrived(peer)
    for receive in RECEIVES.values():
        receive(stream, 10, socket.MSG_PEEK)
        receive(stream, 10, 0)
    assert (stream.record.messages_in, stream.record.bytes_in) == (6, 60)
    stream.send(b"12")
    stream.sendmsg([b"34", b"56"])
    stream.sendto(b"789", ("127.0.0.1", 9))
    assert (stream.record.messages_out, stream.record.bytes_out) == (3, 9)

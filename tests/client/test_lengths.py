"""Lengths that cross the border: options, control messages, buffers, as `socket.socket` takes them.

`RSOCK_FUZZ_SEED=7` repeats a sequence of calls, `RSOCK_FUZZ_ROUNDS=100000` makes it longer.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import itertools
import mmap
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import (
    SOON,
    Background,
    arrived,
    dial,
    error_number,
    output_of,
    read_exactly,
    unread,
    wait_until,
)
from support.roles import OURS, Pair, connected, outcome

from rsock import Accept, Client, IncompleteRead, Server

Stream = Any
SEED = int(os.environ.get("RSOCK_FUZZ_SEED", "13"))
ROUNDS = int(os.environ.get("RSOCK_FUZZ_ROUNDS", "1500"))
# asm-generic/socket.h; for getsockopt(2) it is SO_GET_FILTER.
SO_ATTACH_FILTER = 26
# Enough for any option or control message, and more than a 32-bit length holds.
BEYOND = (1 << 32) + 8


@pytest.fixture
def huge() -> Iterator[memoryview]:
    """A readable buffer of more than 4 GiB that occupies no memory."""
    no_reserve = 0x4000
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
    try:
        memory = mmap.mmap(-1, BEYOND, flags=flags, prot=mmap.PROT_READ)
    except OSError as error:
        pytest.skip(f"no address space: {error}")
    with memory, memoryview(memory) as view:
        yield view


@pytest.fixture(params=OURS)
def beside(request: pytest.FixtureRequest) -> Iterator[tuple[Pair, Pair]]:
    """A plain socket and a stream, each with its peer: the stream must behave like the socket."""
    with connected("socket") as plain, connected(request.param) as ours:
        yield plain, ours


# --- beyond 32 bits ------------------------------------------------------------------------


def test_a_control_message_of_gigabytes_is_an_error(
    beside: tuple[Pair, Pair], huge: memoryview
) -> None:
    (plain, _), (stream, peer) = beside
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    for size in (len(huge), 1 << 32, 1 << 31, 1 << 24, 1 << 20):
        for ancdata in (
            [(*rights, huge[:size])],
            [(*rights, b"1234")] * 3 + [(*rights, huge[:size])],
        ):
            refused = outcome(lambda: plain.sendmsg([b"x"], ancdata))  # noqa: B023
            assert refused in ((OSError, None), (OSError, errno.ENOBUFS))
            assert error_number(lambda: stream.sendmsg([b"x"], ancdata)) == errno.ENOBUFS  # noqa: B023
    stream.sendall(b"unharmed")
    assert read_exactly(peer, 8) == b"unharmed"


def test_the_value_of_an_option_is_not_cut_to_32_bits(
    beside: tuple[Pair, Pair], huge: memoryview
) -> None:
    # The system would see a value of 8 bytes, and set the option.
    _, (stream, _) = beside
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for size in (len(huge), 1 << 31):
        name = socket.SO_KEEPALIVE
        call = lambda: stream.setsockopt(socket.SOL_SOCKET, name, huge[:size])  # noqa: B023, E731
        assert error_number(call) == errno.EINVAL
    assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_data_of_gigabytes_is_sent_from_its_start(huge: memoryview) -> None:
    with connected("Client") as (client, peer):
        client.settimeout(0.0)
        for send in (client.send, lambda data: client.sendmsg([data, data])):
            sent = send(huge)
            assert 0 < sent < 1 << 31
            assert read_exactly(peer, sent) == bytes(sent)


# --- the filter of a socket ----------------------------------------------------------------

# Accepts all packets, in as many instructions as needed: struct sock_filter of linux/filter.h.
ACCEPT_ALL = struct.pack("HBBI", 6, 0, 0, 0xFFFF)


def attach(stream: Stream, count: int) -> bytes:
    program = b"".join(struct.pack("HBBI", 6, 0, 0, 0xFFFF - at) for at in range(count))
    memory = ctypes.create_string_buffer(program, len(program))
    value = struct.pack("HP", count, ctypes.addressof(memory))
    stream.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, value)
    # The system has its own copy from here on.
    ctypes.memset(memory, 0xFF, len(program))
    return program


@pytest.mark.parametrize("count", [1, 3, 128])
def test_a_filter_is_read_with_its_length(ours: Pair, count: int) -> None:
    stream, _ = ours
    program = attach(stream, count)
    level, name = socket.SOL_SOCKET, SO_ATTACH_FILTER
    assert stream.getsockopt(level, name, 1024) == program
    assert stream.getsockopt(level, name, len(program)) == program
    assert stream.getsockopt(level, name) == count


def test_a_filter_that_does_not_fit_is_an_error_and_overwrites_nothing() -> None:
    # In a process of its own, because memory would be overwritten.
    code = """
import ctypes, struct
from rsock import Client
program = struct.pack("HBBI", 6, 0, 0, 0xFFFF) * 1000
memory = ctypes.create_string_buffer(program, len(program))
with Client() as client:
    client.setsockopt(1, 26, struct.pack("HP", 1000, ctypes.addressof(memory)))
    assert client.getsockopt(1, 26) == 1000
    for size in [1, 2, 4, 7, 8, 9, 80, 1024] * 50:
        try:
            got = client.getsockopt(1, 26, size)
        except OSError as error:
            assert error.errno == 22
        else:
            print(size, len(got))
print("ended")
"""
    assert output_of(code).split() == ["ended"]


def test_a_stream_without_a_filter_says_so(ours: Pair) -> None:
    stream, _ = ours
    for size in (1, 4, 8, 1024):
        assert stream.getsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, size) == b""
    assert stream.getsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER) == 0


def test_a_filter_outlives_the_memory_that_it_came_from() -> None:
    # A connect over IPv6 replaces the socket, and sets its options again.
    with Client() as client:
        program = attach(client, 5)
        with contextlib.suppress(OSError):
            client.connect(("::1", 1))
        assert client.family == socket.AF_INET6
        assert client.getsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, 1024) == program


# --- random options ------------------------------------------------------------------------

LEVELS = (
    socket.SOL_SOCKET,
    socket.IPPROTO_IP,
    socket.IPPROTO_IPV6,
    socket.IPPROTO_TCP,
    socket.IPPROTO_UDP,
    282,  # SOL_TLS
    77,
)
# Not set: those that make the system load a module by name, that change how the test ends, or that
# need the privileges of a test that runs as root.
UNSET = {
    (socket.IPPROTO_TCP, socket.TCP_CONGESTION),
    (socket.IPPROTO_TCP, 19),  # TCP_REPAIR
    (socket.IPPROTO_TCP, 31),  # TCP_ULP
    (socket.SOL_SOCKET, socket.SO_LINGER),
}
# Not read: they take arguments from the memory of their value, which a socket does not clear.
UNREAD = {(socket.IPPROTO_IP, 41), (socket.IPPROTO_IP, 48), (socket.IPPROTO_TCP, 35)}


def shape(result: object) -> object:
    """What two sockets have in common: some options have other values on each."""
    if isinstance(result, bytes):
        return bytes, len(result)
    return int if isinstance(result, int) else result


def test_random_options_are_as_a_sockets(beside: tuple[Pair, Pair]) -> None:
    (plain, _), (stream, _) = beside
    chance = random.Random(SEED)
    for _ in range(ROUNDS):
        level, name = (
            chance.choice(LEVELS),
            chance.choice([chance.randrange(80), chance.getrandbits(31)]),
        )
        size = chance.choice([0, 0, 1, 3, 4, 5, 8, 16, 64, 256, 1023, 1024])
        value: Any = chance.choice(
            [
                chance.randrange(3),
                chance.getrandbits(31) - (1 << 30),
                bytes(chance.randrange(40)),
                chance.randbytes(chance.choice([0, 1, 3, 4, 8, 12, 16, 40, 136, 1024])),
            ]
        )
        arguments: tuple[Any, ...] = chance.choice(
            [(value,), (value,), (None, chance.randrange(64))]
        )
        calls: list[tuple[str, tuple[Any, ...]]] = []
        if (level, name) not in UNREAD:
            calls.append(("getsockopt", (level, name, size)))
        if (level, name) not in UNSET:
            calls.insert(0, ("setsockopt", (level, name, *arguments)))
        for call, given in calls:
            expected = shape(outcome(lambda: getattr(plain, call)(*given)))  # noqa: B023
            got = shape(outcome(lambda: getattr(stream, call)(*given)))  # noqa: B023
            assert got == expected, (call, given)


# --- random messages -----------------------------------------------------------------------


def unix_pair(role: str, stack: contextlib.ExitStack) -> tuple[Stream, socket.socket]:
    name = "\0" + os.urandom(8).hex()
    peer = stack.enter_context(socket.socket(socket.AF_UNIX))
    if role == "Connection":
        server = stack.enter_context(Server(path=name, service=Accept(), drain=0.0))
        peer.connect(name)
        return stack.enter_context(server.accept(SOON)[0]), peer
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)
        listening.listen()
        stream: Stream = Client(path=name) if role == "Client" else socket.socket(socket.AF_UNIX)
        stack.enter_context(stream)
        if role == "socket":
            stream.connect(name)
        return stream, stack.enter_context(listening.accept()[0])


def random_message(chance: random.Random, number: int) -> tuple[Any, ...]:
    """Arguments of sendmsg."""
    buffers: list[Any] = [
        chance.choice([bytes, bytearray])(chance.randbytes(chance.choice([0, 1, 7, 300])))
        for _ in range(chance.choice([0, 1, 1, 2, 5]))
    ]
    ancdata = []
    for _ in range(chance.choice([0, 0, 1, 1, 2])):
        level = chance.choice([socket.SOL_SOCKET, socket.SOL_SOCKET, socket.IPPROTO_IP, 77])
        kind = chance.choice([socket.SCM_RIGHTS, socket.SCM_RIGHTS, socket.SCM_CREDENTIALS, 9, 37])
        data = chance.choice(
            [
                number.to_bytes(4, "little") * chance.choice([1, 1, 2, 5]),
                chance.randbytes(chance.choice([0, 1, 3, 4, 8, 12, 200])),
                struct.pack("3i", os.getpid(), os.getuid(), os.getgid()),
            ]
        )
        ancdata.append((level, kind, data))
    flags = chance.choice([0, 0, socket.MSG_EOR, socket.MSG_OOB, socket.MSG_NOSIGNAL])
    return buffers, ancdata, flags | socket.MSG_DONTWAIT


def random_receive(chance: random.Random) -> tuple[Any, ...]:
    """Arguments of recvmsg."""
    room = chance.choice([0, 0, 1, 15, 16, 19, 20, 24, 40, socket.CMSG_SPACE(20), 1 << 17])
    flags = 0
    for flag in (socket.MSG_PEEK, socket.MSG_TRUNC, socket.MSG_WAITALL, socket.MSG_CMSG_CLOEXEC):
        flags |= chance.choice([0, 0, 0, flag])
    return chance.choice([0, 1, 5, 300, 70_000, 300_000]), room, flags | socket.MSG_DONTWAIT


def received(stream: Stream, arguments: tuple[Any, ...]) -> object:
    result = outcome(lambda: stream.recvmsg(*arguments))
    if not isinstance(result, tuple) or len(result) != 4:
        return result
    data, control, flags, _ = result
    for level, kind, passed in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i", passed[: len(passed) // 4 * 4])
            for number in numbers:
                os.close(number)
    if arguments[2] & socket.MSG_TRUNC:
        # What is in the buffer then is not defined.
        data = len(data)
    return data, [(level, kind, len(passed)) for level, kind, passed in control], flags


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("role", OURS)
def test_random_messages_are_as_a_sockets(role: str, family: str) -> None:
    chance = random.Random(SEED)
    with contextlib.ExitStack() as stack:
        pairs = [
            unix_pair(each, stack) if family == "unix" else stack.enter_context(connected(each))
            for each in ("socket", role)
        ]
        for each in itertools.chain.from_iterable(pairs):
            # With a time-out, a socket of Python's waits in spite of MSG_DONTWAIT.
            each.settimeout(None)
            if family == "tcp":
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = os.dup(0)
        stack.callback(os.close, number)
        if family == "unix":
            for stream, _ in pairs:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, chance.randrange(2))
        # On TCP each round waits for an acknowledgement, which may be delayed.
        for _ in range(ROUNDS if family == "unix" else ROUNDS // 20):
            message, receive = random_message(chance, number), random_receive(chance)
            outward = chance.random() < 0.5
            sent = [
                outcome(lambda: (stream if outward else peer).sendmsg(*message))  # noqa: B023
                for stream, peer in pairs
            ]
            assert sent[0] == sent[1], message
            (plain, first), (stream, second) = pairs
            if family == "tcp":
                for each in (plain, first, stream, second):
                    arrived(each)
            # The peers read with calls of a socket.
            for taker in ((plain, stream), (first, second)):
                got = [received(each, receive) for each in taker]
                assert got[0] == got[1], receive


# --- a long message in short pieces --------------------------------------------------------

LARGE = 64 << 20
FIRST = 32 << 20
AFTER = 400
# Calls for one message of `LARGE` bytes.
WHOLE: dict[str, Callable[[Stream], object]] = {
    "recv_exactly": lambda stream: stream.recv_exactly(LARGE),
    "recv": lambda stream: stream.recv(LARGE, socket.MSG_WAITALL),
    "recvmsg": lambda stream: stream.recvmsg(LARGE, 0, socket.MSG_WAITALL),
}


@pytest.mark.parametrize("receive", WHOLE.values(), ids=WHOLE)
def test_a_byte_costs_the_same_however_many_came_before(
    receive: Callable[[Stream], object],
) -> None:
    with Server(service=Accept(), drain=0.0) as server, dial(server.address) as peer:
        conn, _ = server.accept(SOON)

        def read() -> None:
            # The peer ends it before it is complete.
            with contextlib.suppress(IncompleteRead):
                receive(conn)

        with conn:
            reading = Background(read)
            peer.sendall(bytes(FIRST))
            wait_until(lambda: unread(peer) == 0 and reading.asleep())
            ran = time.clock_gettime(time.pthread_getcpuclockid(reading.ident))
            for _ in range(AFTER):
                peer.sendall(b"x")
                wait_until(lambda: unread(peer) == 0)
            wait_until(reading.asleep)
            used = time.clock_gettime(time.pthread_getcpuclockid(reading.ident)) - ran
            peer.close()
            reading.result()
    # It was 2 ms and more, because the room for the rest was cleared each time.
    assert used / AFTER < 0.0005, f"{used / AFTER * 1e6:.0f} us a byte"

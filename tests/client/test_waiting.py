"""Calls wait where the kernel's own would, and nowhere else; a wait uses no CPU time."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import LATE, SOON, Background, arrived, error_number, wait_until
from support.roles import OURS, Pair, connected, outcome

from rsock import Accept, Client, Greeting, Server

Stream = Any
TIMEVAL = struct.Struct("ll")
# asm-generic/socket.h; Python has no names for them.
SO_RCVTIMEO, SO_SNDTIMEO, SO_PEEK_OFF = 20, 21, 42


@contextlib.contextmanager
def unix(role: str) -> Iterator[Pair]:
    """A Unix stream in this role, and a plain socket at its other end."""
    name = b"\0" + os.urandom(8).hex().encode()
    with contextlib.ExitStack() as stack:
        stream: Stream
        if role == "Connection":
            server = stack.enter_context(Server(path=name, service=Accept(), drain=0.0))
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.connect(name)
            stream = stack.enter_context(server.accept(SOON)[0])
        else:
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(name)
            listening.listen()
            made = Client(path=name) if role == "Client" else socket.socket(socket.AF_UNIX)
            stream = stack.enter_context(made)
            if role == "socket":
                stream.connect(name)
            peer = stack.enter_context(listening.accept()[0])
        peer.settimeout(SOON)
        yield stream, peer


FAMILIES = {"tcp": connected, "unix": unix}
every_family = pytest.mark.parametrize("pairs", FAMILIES.values(), ids=FAMILIES)
every_role = pytest.mark.parametrize("role", ["socket", *OURS])
# Every call that receives at most two bytes.
RECEIVES: dict[str, Callable[[Stream, int], object]] = {
    "recv": lambda stream, flags: stream.recv(2, flags),
    "recv_into": lambda stream, flags: stream.recv_into(bytearray(2), 2, flags),
    "recvfrom": lambda stream, flags: stream.recvfrom(2, flags),
    "recvmsg": lambda stream, flags: stream.recvmsg(2, 0, flags),
    "recvmsg_into": lambda stream, flags: stream.recvmsg_into([bytearray(2)], 0, flags),
}
every_receive = pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)


@contextlib.contextmanager
def announced(role: str) -> Iterator[Stream]:
    """A stream whose peer has announced an urgent byte that cannot arrive: the buffer is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(service=Accept(), drain=0.0))
        peer = stack.enter_context(socket.socket())
        stream: Stream
        if role == "Connection":
            peer.connect(server.address)
            stream, _ = server.accept(SOON)
        else:
            stream = Client() if role == "Client" else socket.socket()
            listening = stack.enter_context(socket.socket())
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream.connect(listening.getsockname())
            peer = stack.enter_context(listening.accept()[0])
        stack.enter_context(stream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        peer.settimeout(SOON)
        peer.sendall(bytes(1 << 18))
        peer.send(b"!", socket.MSG_OOB)
        with socket.socket(fileno=os.dup(stream.fileno())) as plain:
            plain.setblocking(False)
            # EINVAL means that nothing has been announced.
            wait_until(lambda: error_number(lambda: read_urgent(plain)) == errno.EAGAIN)
            os.set_blocking(stream.fileno(), True)
        yield stream


def read_urgent(plain: socket.socket) -> None:
    # Makes room: only segments within 64 KiB of the urgent byte can announce it.
    with contextlib.suppress(BlockingIOError):
        plain.recv(1 << 12)
    plain.recv(1, socket.MSG_OOB)


@every_receive
@pytest.mark.parametrize("role", OURS)
def test_urgent_data_that_has_not_arrived_is_not_waited_for(
    role: str, receive: Callable[[Stream, int], object]
) -> None:
    with announced(role) as stream:
        for timeout in (None, 2 * SOON):
            stream.settimeout(timeout)
            asking = Background(receive, stream, socket.MSG_OOB)
            with pytest.raises(BlockingIOError):
                asking.result()


@every_receive
@every_family
@every_role
def test_a_receive_waits_for_no_more_than_it_has_room_for(
    role: str, pairs: Callable[[str], Any], receive: Callable[[Stream, int], object]
) -> None:
    with pairs(role) as (stream, peer):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4)
        for sent in (b"ab", b"abc"):
            peer.sendall(sent)
            if pairs is connected:
                arrived(peer)
            assert Background(receive, stream, socket.MSG_PEEK).result()
            assert Background(receive, stream, 0).result()
        assert stream.recv(1) == b"c"


@every_role
def test_a_receive_from_a_unix_socket_waits_for_as_much_as_the_option_says(role: str) -> None:
    with unix(role) as (stream, peer):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4)
        for size in (10, 1 << 20):
            peer.sendall(b"ab")
            reading = Background(stream.recv, size)
            wait_until(reading.asleep)
            peer.sendall(b"cdef")
            assert reading.result() == b"abcdef"
        peer.sendall(b"ab")
        peer.shutdown(socket.SHUT_WR)
        assert Background(stream.recv, 10).result() == b"ab"


@every_role
@pytest.mark.parametrize("size", [10, 1 << 20], ids=["short", "long"])
def test_a_peek_at_a_unix_socket_does_not_wait_for_all(role: str, size: int) -> None:
    with unix(role) as (stream, peer):
        flags = socket.MSG_PEEK | socket.MSG_WAITALL
        reading = Background(stream.recv, size, flags)
        wait_until(reading.asleep)
        peer.sendall(b"ab")
        assert reading.result() == b"ab"
        assert Background(stream.recvmsg, size, 0, flags).result()[0] == b"ab"
        assert stream.recv(10) == b"ab"


@pytest.mark.parametrize("way", ["itself", "duplicate"])
@every_family
@every_role
def test_a_receive_ends_at_the_time_out_of_the_socket(
    role: str, pairs: Callable[[str], Any], way: str
) -> None:
    with pairs(role) as (stream, _), contextlib.ExitStack() as stack:
        target = stream
        if way == "duplicate" and role != "socket":
            target = stack.enter_context(stream.to_socket())
        target.setsockopt(socket.SOL_SOCKET, SO_RCVTIMEO, TIMEVAL.pack(0, 50_000))
        # In a thread and on the main thread, which wait in different ways.
        assert error_number(Background(stream.recv, 10).result) == errno.EAGAIN
        begun = time.monotonic()
        assert error_number(lambda: stream.recv(10)) == errno.EAGAIN
        assert 0.04 < time.monotonic() - begun < LATE
        # A time-out of the caller's own is used instead.
        stream.settimeout(0.05)
        with pytest.raises(TimeoutError):
            stream.recv(10)


@every_family
@every_role
def test_a_send_ends_at_the_time_out_of_the_socket(role: str, pairs: Callable[[str], Any]) -> None:
    with pairs(role) as (stream, _):
        stream.setsockopt(socket.SOL_SOCKET, SO_SNDTIMEO, TIMEVAL.pack(0, 50_000))

        def send() -> None:
            while True:
                stream.send(bytes(1 << 16))

        assert error_number(Background(send).result) == errno.EAGAIN
        assert error_number(send) == errno.EAGAIN


@pytest.mark.parametrize("role", OURS)
def test_a_wait_that_urgent_data_disturbs_uses_no_cpu_time(role: str) -> None:
    with unix(role) as (stream, peer):
        if outcome(lambda: peer.send(b"!", socket.MSG_OOB)) == (OSError, errno.EOPNOTSUPP):
            pytest.skip("no urgent data on Unix sockets here")
        # poll(2) reports it as input, and a peek passes over it.
        stream.settimeout(0.5)
        used = time.thread_time()
        with pytest.raises(TimeoutError):
            stream.recv_line()
        assert time.thread_time() - used < 0.25


@pytest.mark.parametrize("offset", [0, 1, 5])
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_an_offset_of_peeks_moves_no_line(transport: str, offset: int, path: str) -> None:
    """SO_PEEK_OFF of socket(7): a peek begins there, and what finds a line peeks."""
    where: dict[str, Any] = {"path": path} if transport == "unix" else {}
    with (
        Server(service=Greeting(b"one\ntwo\nthree\n"), **where) as server,
        server.client(timeout=LATE) as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, offset)
        assert [client.recv_line(), *client.lines()] == [b"one\n", b"two\n", b"three\n"]

"""Datagrams over Unix sockets: servers and clients, against plain sockets on the other side."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import SOON, Background, leave_stale, wait_until

from rsock import (
    Accept,
    Client,
    Discard,
    Forward,
    Handler,
    Limits,
    LineEcho,
    Quote,
    Server,
    SocketOptions,
)

UNIX: Any = "unix-datagram"
SO_SNDTIMEO = 21


@contextlib.contextmanager
def plain(to: str | bytes | None = None, name: str | bytes | None = "") -> Iterator[socket.socket]:
    """A plain socket with a name of the system's choosing, connected where an address is given."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        peer.settimeout(SOON)
        if name is not None:
            peer.bind(name)
        if to is not None:
            peer.connect(to)
        yield peer


def serving(path: str, service: Any = None, **settings: Any) -> Server:
    return Server(path=path, transport=UNIX, service=service, **settings)


def has_received(server: Server, count: int) -> bool:
    return server.ledger.totals.messages_in == count


# --- the server ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1472, 60_000])
def test_a_datagram_comes_back_as_it_was(path: str, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    with serving(path) as server, plain(path) as peer:
        assert (server.address, server.path, server.transport) == (path, path, "unix-datagram")
        peer.send(data)
        assert peer.recv(70_000) == data


# Longer than any datagram of UDP.
LONG = bytes(range(256)) * 600
# What a socket can send with a send buffer of the default size.
LONGEST = 212_960


@pytest.fixture
def usual_send_buffer() -> None:
    if int(Path("/proc/sys/net/core/wmem_default").read_text()) != LONGEST + 32:
        pytest.skip("this system has another size of send buffers")


@pytest.mark.parametrize("size", [65_527, 65_528, 65_535, 65_536, LONGEST])
@pytest.mark.usefixtures("usual_send_buffer")
def test_a_server_takes_what_a_socket_sends(path: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    with serving(path) as server, plain(path) as peer:
        peer.send(data)
        wait_until(lambda: has_received(server, 1))
        assert peer.recv(1 << 20) == data
        assert (server.ledger.totals.truncated, server.ledger.totals.dropped) == (0, 0)


@pytest.mark.parametrize("kind", ["accept", "handler"])
def test_a_callers_code_gets_the_whole_of_a_long_datagram(path: str, kind: str) -> None:
    service = Accept() if kind == "accept" else Handler(lambda data, address: data)
    with serving(path, service) as server, plain(path) as peer:
        peer.send(LONG)
        if kind == "accept":
            data, address = server.accept(SOON)
            assert data == LONG
            server.sendto(data, address)
        assert peer.recv(1 << 20) == LONG


@pytest.mark.parametrize("kind", ["echo", "accept", "handler"])
@pytest.mark.usefixtures("usual_send_buffer")
def test_a_limit_makes_room_for_more(path: str, kind: str) -> None:
    size = 400_000
    data = random.Random(size).randbytes(size)
    # The kernel doubles it.
    options = SocketOptions(send_buffer=LONGEST + 32)
    services = {"accept": Accept(), "handler": Handler(lambda data, address: data)}
    limits = Limits(datagram=size)
    server = serving(path, services.get(kind), limits=limits, options=options)
    with server, plain(path) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST + 32)
        peer.send(data)
        if kind == "accept":
            received, address = server.accept(SOON)
            assert received == data
            server.sendto(received, address)
        assert peer.recv(1 << 20) == data
        assert (server.ledger.totals.truncated, server.ledger.totals.dropped) == (0, 0)


RECEIVING: dict[str, Callable[[Client], bytes]] = {
    "recv": lambda client: client.recv(1 << 20),
    "recvfrom": lambda client: client.recvfrom(1 << 20)[0],
    "recvfrom (kept buffer)": lambda client: client.recvfrom(len(LONG))[0],
    "recvmsg": lambda client: client.recvmsg(1 << 20)[0],
    "peek": lambda client: client.recv(1 << 20, socket.MSG_PEEK),
}


@pytest.mark.parametrize("waits", [False, True], ids=["arrived", "waiting"])
@pytest.mark.parametrize("timeout", [None, SOON])
@pytest.mark.parametrize("receive", RECEIVING.values(), ids=RECEIVING)
def test_a_client_receives_the_whole_of_a_long_datagram(
    receive: Callable[[Client], bytes], timeout: float | None, waits: bool
) -> None:
    with (
        plain() as peer,
        Client(path=peer.getsockname(), transport=UNIX, timeout=timeout) as client,
    ):
        name = client.getsockname()
        if not waits:
            peer.sendto(LONG, name)
        # On a thread: there a call without a time-out waits in the receive itself.
        reading = Background(lambda: receive(client))
        if waits:
            wait_until(reading.asleep)
            peer.sendto(LONG, name)
        assert reading.result() == LONG


SENDING: dict[str, Callable[[Any, Any], object]] = {
    "send": lambda stream, to: stream.send(b"x"),
    "sendto": lambda stream, to: stream.sendto(b"x", to),
    "sendmsg": lambda stream, to: stream.sendmsg([b"x"], [], 0, to),
}


@pytest.mark.parametrize("send", SENDING.values(), ids=SENDING)
def test_a_send_time_out_of_the_socket_ends_a_send_as_of_any_socket(
    send: Callable[[Any, Any], object],
) -> None:
    with plain() as full, Client(path=full.getsockname(), transport=UNIX) as client:
        client.settimeout(0)
        with pytest.raises(BlockingIOError):
            while True:
                client.send(b"x")
        client.settimeout(None)
        client.setsockopt(socket.SOL_SOCKET, SO_SNDTIMEO, struct.pack("@ll", 0, 50_000))
        with pytest.raises(BlockingIOError):
            send(client, full.getsockname())


def test_an_abstract_name_serves_too() -> None:
    name = f"\0rsock-test-{os.getpid()}"
    with serving(name) as server, plain(name) as peer:
        peer.send(b"hello")
        assert peer.recv(10) == b"hello"
        assert server.address == name


def test_a_handler_hears_the_senders_name_and_answers(directory: Path, path: str) -> None:
    seen: list[tuple[bytes, object]] = []

    def handle(data: bytes, address: object) -> bytes:
        seen.append((data, address))
        return data.upper()

    named = str(directory / "peer.sock")
    with serving(path, handle), plain(path, named) as peer:
        peer.send(b"hello")
        assert peer.recv(10) == b"HELLO"
        assert seen == [(b"hello", named)]
    os.unlink(named)


def test_a_sender_without_a_name_is_heard_and_not_answered(path: str) -> None:
    heard: list[tuple[bytes, object]] = []

    def log(data: bytes, address: object) -> bytes:
        heard.append((data, address))
        return b"thanks"

    with serving(path, log) as server, plain(path, None) as syslog:
        syslog.send(b"<13>a line")
        syslog.send(b"")
        wait_until(lambda: heard == [(b"<13>a line", ""), (b"", "")])
        wait_until(lambda: server.ledger.totals.dropped == 2)
        assert server.errors == []
        (record,) = server.ledger.open
        assert (record.remote.address, record.messages_in) == ("", 2)


def test_the_end_is_told_from_an_empty_datagram_of_a_sender_without_a_name(path: str) -> None:
    for service in (None, lambda data, address: None):
        server = serving(path, service).start()
        with plain(path, None) as peer:
            for _ in range(3):
                peer.send(b"")
            wait_until(partial(has_received, server, 3))
        server.stop(5.0)
        assert server.ledger.totals.messages_in == 3


def test_accept_and_sendto(path: str) -> None:
    with serving(path, Accept()) as server, plain(path) as peer:
        peer.send(b"hello")
        data, address = server.accept(SOON)
        assert (data, os.fsencode(address)) == (b"hello", peer.getsockname())
        assert server.sendto(b"answer", address) == 6
        assert peer.recv(10) == b"answer"
        with pytest.raises(TimeoutError):
            server.accept(0.01)
        with pytest.raises(OSError, match="sendto"):
            server.sendto(b"x", path + ".none")


def test_iteration_ends_when_the_server_stops(path: str) -> None:
    server = serving(path, Accept()).start()
    taking: Background[list[Any]] = Background(list, server)
    wait_until(taking.asleep)
    server.stop()
    assert taking.result() == []


def test_each_named_peer_has_a_record(path: str) -> None:
    with serving(path, Quote(b"q")) as server, plain(path) as one, plain(path) as two:
        for peer in (one, two, one):
            peer.send(b"?")
            assert peer.recv(10) == b"q"
        records = server.ledger.wait(open=2)
        assert [record.messages_in for record in records] == [2, 1]
        assert {record.transport for record in records} == {"unix-datagram"}
        assert [os.fsencode(str(record.remote.address)) for record in records] == [
            one.getsockname(),
            two.getsockname(),
        ]
    assert {record.closed_by for record in server.ledger.closed} == {"stop"}


def test_the_file_has_its_mode_and_is_removed_at_the_end(path: str) -> None:
    with serving(path, options=SocketOptions(mode=0o600)):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with pytest.raises(OSError, match="in use"):
            serving(path).start()
        with pytest.raises(OSError, match="in use"):
            Server(path=path).start()
    assert not os.path.exists(path)


def test_a_stale_file_is_replaced(path: str) -> None:
    leave_stale(path)
    with serving(path), plain(path) as peer:
        peer.send(b"x")
        assert peer.recv(1) == b"x"


def test_what_waits_when_the_stop_begins_is_answered(path: str) -> None:
    gate = threading.Event()

    def handle(data: bytes, address: object) -> bytes:
        gate.wait(SOON)
        return data

    server = serving(path, Handler(handle)).start()
    with plain(path) as peer:
        for number in range(5):
            peer.send(b"%d" % number)
        wait_until(lambda: server.ledger.totals.messages_in == 5)
        stopping = Background(server.stop, SOON)
        wait_until(lambda: server.state == "draining")
        gate.set()
        stopping.result()
        assert [peer.recv(10) for _ in range(5)] == [b"%d" % number for number in range(5)]


def test_a_descriptor_may_be_given(path: str) -> None:
    with plain(None, path) as listening:
        number = os.dup(listening.fileno())
        with Server(fd=number, transport=UNIX) as server, plain(path) as peer:
            assert server.address == path
            peer.send(b"x")
            assert peer.recv(1) == b"x"
    os.unlink(path)


def test_answers_that_are_not_read_are_dropped_until_their_peer_is_gone(path: str) -> None:
    with serving(path) as server, plain(path) as peer, plain(path) as deaf:
        # Until the queue of the deaf one is full (net.unix.max_dgram_qlen, or its send buffer).
        while not server.ledger.totals.dropped:
            deaf.send(b"x")
        deaf.close()
        peer.send(b"hello")
        assert peer.recv(10) == b"hello"


def test_limits_hold(path: str) -> None:
    limits = Limits(connections=2, datagram=10, idle=0.2)
    with serving(path, limits=limits) as server, contextlib.ExitStack() as stack:
        for _ in range(3):
            peer = stack.enter_context(plain(path))
            peer.send(b"x" * 20)
            assert peer.recv(100) == b"x" * 10
        assert server.ledger.totals.truncated == 3
        server.ledger.wait(open=0, closed=3)
        assert {record.limit for record in server.ledger.closed} == {"connections", "idle"}


def test_an_idle_server_uses_no_processor_and_stops_at_once(path: str) -> None:
    with serving(path) as server, plain(path, None) as peer:
        peer.send(b"")
        wait_until(lambda: server.ledger.totals.messages_in == 1)
        before = time.process_time()
        threading.Event().wait(0.3)
        assert time.process_time() - before < 0.2


# --- the client ----------------------------------------------------------------------------


def test_a_client_has_a_name_and_is_answered(path: str) -> None:
    with serving(path) as server, server.client(timeout=SOON) as client:
        assert (client.family, client.type) == (socket.AF_UNIX, socket.SOCK_DGRAM)
        client.send(b"hello")
        assert client.recv(10) == b"hello"
        (record,) = server.ledger.open
        assert os.fsencode(str(record.remote.address)) == client.getsockname()
        assert client.getpeername() == path


def test_a_client_sends_to_any_address_and_receives_from_any(path: str) -> None:
    with plain(None, path) as one, Client(transport=UNIX, timeout=SOON) as client:
        client.sendto(b"hello", path)
        data, address = one.recvfrom(10)
        assert (data, address) == (b"hello", client.getsockname())
        one.sendto(b"answer", address)
        assert client.recvfrom(10) == (b"answer", path)
        client.sendmsg([b"in ", b"parts"], [], 0, path)
        assert one.recv(10) == b"in parts"
        one.sendto(b"more", address)
        assert client.recvmsg(10)[3] == path
    os.unlink(path)


def test_a_send_waits_for_room_until_its_time_out(path: str) -> None:
    with plain(None, path) as full, Client(transport=UNIX, timeout=0.2) as client:
        with pytest.raises(TimeoutError):
            while True:
                client.sendto(b"x" * 1000, path)
        client.settimeout(SOON)
        sending = Background(client.sendto, b"last", path)
        while full.recv(2000) != b"last":
            pass
        assert sending.result() == 4
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                client.sendto(b"x", path)
    os.unlink(path)


def test_a_connected_client_waits_for_room_too(path: str) -> None:
    with plain(None, path) as full, Client(path=path, transport=UNIX, timeout=0.2) as client:
        with pytest.raises(TimeoutError):
            while True:
                client.send(b"x" * 1000)
        client.settimeout(SOON)
        sending = Background(client.send, b"last")
        while full.recv(2000) != b"last":
            pass
        assert sending.result() == 4
    os.unlink(path)


def test_a_path_without_a_socket_is_refused(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        Client(path=path, transport=UNIX)
    leave_stale(path)
    with pytest.raises(OSError, match=r"x\.sock"):
        Client(path=path, transport=UNIX)
    os.unlink(path)


# --- bad input -----------------------------------------------------------------------------


def test_what_has_no_meaning_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        Server(transport=UNIX)
    with pytest.raises(TypeError, match="streams only"):
        serving(path, LineEcho())
    with pytest.raises(TypeError, match="data and the sender's address"):
        serving(path, lambda conn: None)
    with pytest.raises(ValueError, match="not those of a Unix socket"):
        serving(path, Forward("127.0.0.1", 9)).start()
    with pytest.raises(ValueError, match="per_host"):
        serving(path, limits=Limits(per_host=1))
    with pytest.raises(ValueError, match="two transports"):
        Server("127.0.0.1", 0, path=path, transport=UNIX)
    with Client(transport=UNIX) as client, pytest.raises(OSError, match="Address family"):
        client.connect(("127.0.0.1", 9))
    with serving(path, Discard()) as server, pytest.raises(TypeError):
        server.sendto(b"x", path)

"""The descriptor of a stream: reading and waiting with it, duplicating it, detaching it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import resource
import select
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import uvloop
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
    sleeping,
    wait_until,
)
from support.roles import ROLES, Pair, connected, handled

from rsock import Accept, Client, Connection, Limits, Server

ONE_MIB = payload(1 << 20, seed=12)

# gevent opens a pipe for signals with the first loop of a process and keeps it.
uvloop.new_event_loop().close()

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
# libuv opens a pipe with the first loop of a process and never closes it.
uvloop.new_event_loop().close()


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param], debug=True) as runner:
        yield runner


def is_blocking(number: int) -> bool:
    return not fcntl.fcntl(number, fcntl.F_GETFL) & os.O_NONBLOCK


# --- the descriptor ------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_only_a_timeout_of_nothing_makes_the_descriptor_non_blocking(role: str) -> None:
    with connected(role) as (stream, _):
        for timeout in (None, 0, 2.5, 0, None, 2.5, None, 0.0):
            stream.settimeout(timeout)
            # The standard library's socket does the same with any time-out: it polls and tries
            # again.
            expected = timeout is None or (timeout > 0 and role != "socket")
            assert is_blocking(stream.fileno()) is expected, timeout
        stream.setblocking(True)
        assert is_blocking(stream.fileno())
        stream.setblocking(False)
        assert not is_blocking(stream.fileno())


def test_children_do_not_inherit_it_by_default(pair: Pair) -> None:
    stream, _ = pair
    assert not os.get_inheritable(stream.fileno())
    os.set_inheritable(stream.fileno(), True)
    assert os.get_inheritable(stream.fileno())


def test_it_is_the_first_of_the_five(ours: Pair) -> None:
    stream, peer = ours
    assert stream.five_tuple.fd == stream.fileno()
    assert os.fstat(stream.fileno()).st_ino != os.fstat(peer.fileno()).st_ino


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_two_roles_of_one_thing_and_a_listener_that_carries_no_data() -> None:
    """The two roles of the study notes, and the listening socket.

    Client and server sockets are the same thing in two roles; the listening socket carries no data,
    and `accept` creates a new one. Their descriptors exist side by side.
    """
    # The faults of a connection are those of its server.
    assert public(Client) - {"fault", "faults", "seed"} == public(Connection)
    with Server(service=Accept(), drain=0.0) as server, server.client(timeout=SOON) as client:
        conn, address = server.accept(SOON)
        with conn:
            numbers = [server.fileno(), conn.fileno(), client.fileno()]
            links = [os.readlink(f"/proc/self/fd/{number}") for number in numbers]
            assert len(set(numbers)) == len(set(links)) == 3
            assert all(link.startswith("socket:") for link in links)
            assert conn.record is not None
            assert client.record is not None
            assert (conn.record.role, client.record.role) == ("server", "client")

            # The new socket has the listener's own address, and the other end as its peer.
            assert server.getsockname() == conn.getsockname() == client.getpeername()
            assert address == conn.getpeername() == client.getsockname()
            assert conn.five_tuple[1:3] == client.five_tuple[3:] == server.address
            for one, other in ((conn, client), (client, conn)):
                one.sendall(b"either way")
                assert other.recv_exactly(10) == b"either way"

            listening = socket.socket(fileno=os.dup(server.fileno()))
            with listening:
                assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
                assert error_number(listening.getpeername) == errno.ENOTCONN
            assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0
            assert error_number(lambda: os.read(server.fileno(), 1)) == errno.ENOTCONN
            with pytest.raises(OSError, match=r"not connected|Broken pipe"):
                os.write(server.fileno(), b"x")


# --- read and write ------------------------------------------------------------------------


def test_file_functions_serve_and_ask() -> None:
    """The study notes: a socket is a file, so read and write are receive and send.

    This is their server's inner loop, up to 99 bytes at a time, with a file on the client's side.
    """

    def loop(conn: Connection) -> None:
        while data := os.read(conn.fileno(), 99):
            assert os.write(conn.fileno(), data) == len(data)

    with handled(loop) as server, server.client(timeout=SOON) as client:
        with client.makefile("rw", encoding="utf-8", newline="\n") as file:
            for line in ("hello\n", "x" * 500 + "\n"):
                file.write(line)
                file.flush()
                assert file.readline() == line
        client.shutdown(socket.SHUT_WR)
        assert os.read(client.fileno(), 1) == b""


def test_read_and_write_on_the_descriptor_are_receive_and_send(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"read")
    assert os.read(stream.fileno(), 100) == b"read"
    assert os.write(stream.fileno(), b"write") == 5
    assert read_exactly(peer, 5) == b"write"
    assert os.writev(stream.fileno(), [b"in ", b"parts"]) == 8
    assert read_exactly(peer, 8) == b"in parts"
    peer.close()
    assert os.read(stream.fileno(), 100) == b""


def test_read_waits_for_the_first_byte(pair: Pair) -> None:
    stream, peer = pair
    reading = Background(os.read, stream.fileno(), 100)
    wait_until(reading.asleep)
    peer.sendall(b"late")
    assert reading.result() == b"late"


def test_read_waits_whatever_the_timeout_but_nothing(ours: Pair) -> None:
    # A plain socket does not allow it: with any time-out its descriptor is non-blocking.
    stream, peer = ours
    stream.settimeout(0.01)
    reading = Background(os.read, stream.fileno(), 100)
    wait_until(reading.asleep)
    peer.sendall(b"late")
    assert reading.result() == b"late"
    stream.settimeout(0)
    with pytest.raises(BlockingIOError):
        os.read(stream.fileno(), 100)


def test_any_file_may_be_opened_on_it(pair: Pair) -> None:
    stream, peer = pair
    with open(stream.fileno(), "r+b", buffering=0, closefd=False) as file:
        peer.sendall(b"in")
        assert file.read(100) == b"in"
        assert file.write(b"out") == 3
        assert read_exactly(peer, 3) == b"out"
    stream.sendall(b"open")
    assert read_exactly(peer, 4) == b"open"


def test_what_goes_through_the_descriptor_is_not_counted(ours: Pair) -> None:
    stream, peer = ours
    peer.sendall(b"not counted")
    assert os.read(stream.fileno(), 100) == b"not counted"
    peer.sendall(b"counted")
    assert stream.recv_exactly(7) == b"counted"
    os.write(stream.fileno(), b"nor this")
    assert (stream.record.bytes_in, stream.record.bytes_out) == (7, 0)


def test_a_handler_in_read_finds_the_end_when_the_server_stops() -> None:
    ends: list[bytes] = []
    reading: list[int] = []

    def read(conn: Connection) -> None:
        assert os.read(conn.fileno(), 100) == b"hello"
        reading.append(threading.get_native_id())
        ends.append(os.read(conn.fileno(), 100))

    with handled(read) as server, server.client(timeout=SOON) as client:
        client.sendall(b"hello")
        wait_until(lambda: reading and sleeping(reading[0]))
        report = server.stop(SOON)
        assert (report.forced, report.abandoned) == (0, 0)
        assert ends == [b""]
        assert client.recv(1) == b""


# --- waiting for several streams -----------------------------------------------------------


def test_select_knows_it(pair: Pair) -> None:
    stream, peer = pair
    assert select.select([stream], [stream], [stream], 0) == ([], [stream], [])
    peer.sendall(b"x")
    assert select.select([stream], [], [stream], SOON) == ([stream], [], [])


@pytest.mark.parametrize("make", [select.poll, select.epoll])
def test_poll_and_epoll_know_it(pair: Pair, make: Callable[[], Any]) -> None:
    stream, peer = pair
    poller = make()
    with contextlib.closing(poller) if make is select.epoll else contextlib.nullcontext():
        poller.register(stream, select.POLLIN)
        assert poller.poll(0) == []
        peer.sendall(b"x")
        assert poller.poll(SOON * 1000) == [(stream.fileno(), select.POLLIN)]
        poller.unregister(stream)


def test_selectors_know_it(pair: Pair) -> None:
    stream, peer = pair
    with selectors.DefaultSelector() as selector:
        key = selector.register(stream, selectors.EVENT_READ, "data")
        assert (key.fileobj, key.fd) == (stream, stream.fileno())
        assert selector.select(0) == []
        peer.sendall(b"x")
        assert selector.select(SOON) == [(key, selectors.EVENT_READ)]
        assert selector.get_key(stream) is key
        key = selector.modify(stream, selectors.EVENT_WRITE)
        assert selector.select(SOON) == [(key, selectors.EVENT_WRITE)]
        selector.unregister(stream)


def test_a_closed_stream_cannot_be_waited_for(pair: Pair) -> None:
    stream, _ = pair
    stream.close()
    with pytest.raises(ValueError, match=r"negative|-1"):
        select.select([stream], [], [], 0)
    with selectors.DefaultSelector() as selector, pytest.raises(ValueError, match="-1"):
        selector.register(stream, selectors.EVENT_READ)


def test_one_thread_serves_many_connections_by_a_selector() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(service=Accept(), drain=0.0))
        selector = stack.enter_context(selectors.DefaultSelector())
        clients = [stack.enter_context(server.client(timeout=SOON)) for _ in range(20)]
        for client in clients:
            conn, _ = server.accept(SOON)
            stack.enter_context(conn)
            conn.setblocking(False)
            selector.register(conn, selectors.EVENT_READ)
            client.sendall(str(client.five_tuple.local_port).encode())
        waiting = len(clients)
        while waiting:
            for key, _ in selector.select(SOON):
                conn = cast(Connection, key.fileobj)
                assert conn.recv(100) == str(conn.getpeername()[1]).encode()
                with pytest.raises(BlockingIOError):
                    conn.recv(1)
                selector.unregister(conn)
                waiting -= 1


# --- loops ---------------------------------------------------------------------------------


def test_a_loop_calls_readers_and_writers_of_a_stream(runner: asyncio.Runner, pair: Pair) -> None:
    stream, peer = pair
    stream.setblocking(False)

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        writable, readable = asyncio.Event(), asyncio.Event()
        loop.add_writer(stream, writable.set)
        await asyncio.wait_for(writable.wait(), SOON)
        loop.remove_writer(stream)
        loop.add_reader(stream, readable.set)
        assert not readable.is_set()
        peer.sendall(b"readable")
        await asyncio.wait_for(readable.wait(), SOON)
        loop.remove_reader(stream)
        got: bytes = stream.recv(100)
        return got

    assert runner.run(main()) == b"readable"


def test_a_loop_receives_and_sends_through_a_stream(runner: asyncio.Runner, pair: Pair) -> None:
    stream, peer = pair
    stream.setblocking(False)

    def echo() -> None:
        peer.sendall(read_exactly(peer, len(ONE_MIB)))
        peer.shutdown(socket.SHUT_WR)

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SOON):
            sending = asyncio.create_task(loop.sock_sendall(stream, ONE_MIB))
            first = bytearray(100)
            count = await loop.sock_recv_into(stream, first)
            got = bytes(first[:count])
            while part := await loop.sock_recv(stream, 1 << 16):
                got += part
            await sending
        return got

    echoing = Background(echo)
    assert runner.run(main()) == ONE_MIB
    echoing.result()


@pytest.mark.parametrize("by_duplicate", [False, True], ids=["itself", "by its duplicate"])
def test_a_loop_connects_a_client(runner: asyncio.Runner, by_duplicate: bool) -> None:
    async def main(address: tuple[str, int]) -> bytes:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            client: Any = stack.enter_context(Client(timeout=0))
            connecting = stack.enter_context(client.to_socket()) if by_duplicate else client
            async with asyncio.timeout(SOON):
                await loop.sock_connect(connecting, address)
                await loop.sock_sendall(client, b"connected")
                got: bytes = await loop.sock_recv(client, 100)
            assert client.getpeername() == address
            assert client.record.remote.address == address
            assert (client.record.bytes_out, client.record.bytes_in) == (9, 9)
            return got

    with Server() as server:
        assert runner.run(main(server.address)) == b"connected"
    with closed_port() as address, pytest.raises(ConnectionRefusedError):
        runner.run(main(address))


def test_asyncio_tells_apart_a_stream_that_waits(pair: Pair) -> None:
    stream, _ = pair
    stream.settimeout(1.0)

    async def main() -> None:
        with pytest.raises(ValueError, match="non-blocking"):
            await asyncio.get_running_loop().sock_recv(stream, 1)

    asyncio.run(main(), debug=True)


def test_streams_of_asyncio_take_a_stream(runner: asyncio.Runner, pair: Pair) -> None:
    stream, peer = pair

    def answer() -> None:
        assert read_exactly(peer, len(ONE_MIB)) == ONE_MIB
        peer.sendall(b"got it\n" + ONE_MIB)
        assert peer.recv(1) == b""
        peer.close()

    async def main() -> None:
        async with asyncio.timeout(SOON):
            reader, writer = await asyncio.open_connection(sock=stream)
            assert writer.get_extra_info("peername") == peer.getsockname()
            writer.writelines([ONE_MIB[:10], ONE_MIB[10:]])
            await writer.drain()
            assert await reader.readline() == b"got it\n"
            assert await reader.readexactly(len(ONE_MIB)) == ONE_MIB
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    answering = Background(answer)
    runner.run(main())
    answering.result()
    # The transport owns the descriptor it was given.
    assert stream.fileno() == -1


def test_a_handler_may_run_a_loop_of_its_own() -> None:
    async def shout(conn: Connection) -> None:
        # A real socket: asyncio's types require one.
        sock: Any = conn
        reader, writer = await asyncio.open_connection(sock=sock)
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    with handled(lambda conn: asyncio.run(shout(conn))) as server:
        with server.client(timeout=SOON) as client:
            for line in (b"one\n", b"two\n"):
                client.sendall(line)
                assert client.recv_line() == line.upper()
        server.ledger.wait(open=0, closed=1)
        [record] = server.ledger.closed
        assert (record.closed_by, record.bytes_in, record.bytes_out) == ("peer", 8, 8)


# --- a duplicate ----------------------------------------------------------------------------


def test_a_duplicate_is_a_socket_with_a_descriptor_of_its_own(ours: Pair) -> None:
    stream, peer = ours
    with stream.to_socket() as duplicate:
        assert type(duplicate) is socket.socket
        assert duplicate.fileno() != stream.fileno()
        assert not os.get_inheritable(duplicate.fileno())
        assert (duplicate.family, duplicate.type) == (stream.family, stream.type)
        assert duplicate.getsockname() == stream.getsockname()
        assert duplicate.getpeername() == stream.getpeername() == peer.getsockname()
        assert os.fstat(duplicate.fileno()).st_ino == os.fstat(stream.fileno()).st_ino


def test_both_go_both_ways(ours: Pair) -> None:
    stream, peer = ours
    with stream.to_socket() as duplicate:
        duplicate.sendall(b"double,")
        stream.sendall(b"stream")
        assert read_exactly(peer, 13) == b"double,stream"
        peer.sendall(b"abcd")
        arrived(peer)
        assert duplicate.recv(2) == b"ab"
        assert stream.recv(2) == b"cd"
        # The record counts only what went through the stream.
        assert (stream.record.bytes_in, stream.record.bytes_out) == (2, 6)
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        stream.shutdown(socket.SHUT_WR)
        assert error_number(lambda: duplicate.send(b"x")) == errno.EPIPE
        assert peer.recv(1) == b""


@pytest.mark.parametrize("timeout", [None, 0.0, 2.5])
def test_the_timeout_goes_along(ours: Pair, timeout: float | None) -> None:
    stream, _ = ours
    stream.settimeout(timeout)
    with stream.to_socket() as duplicate:
        assert duplicate.gettimeout() == timeout
        # From here on each object has its own time-out.
        duplicate.settimeout(7.0)
        assert stream.gettimeout() == timeout


def test_the_standard_librarys_default_timeout_is_ignored(ours: Pair) -> None:
    stream, _ = ours
    socket.setdefaulttimeout(3.0)
    try:
        with Client() as client, stream.to_socket() as duplicate:
            assert client.gettimeout() is None
            assert duplicate.gettimeout() is None
            assert is_blocking(stream.fileno())
    finally:
        socket.setdefaulttimeout(None)


def test_a_stream_waits_also_where_its_duplicate_does_not(ours: Pair) -> None:
    # Both numbers refer to one open file: a duplicate with a time-out makes it non-blocking for
    # both.
    stream, peer = ours
    with stream.to_socket() as duplicate:
        duplicate.setblocking(False)
        assert not is_blocking(stream.fileno())
        reading = Background(stream.recv, 10)
        wait_until(reading.asleep)
        peer.sendall(b"late")
        assert reading.result() == b"late"
        sending = Background(stream.sendall, ONE_MIB * 10)
        wait_until(sending.asleep)
        assert read_exactly(peer, len(ONE_MIB) * 10) == ONE_MIB * 10
        sending.result()


def test_a_clients_connection_ends_when_both_are_closed() -> None:
    with connected("Client") as (client, peer):
        with client.to_socket() as duplicate:
            client.close()
            assert client.record.closed_by == "local"
            duplicate.sendall(b"still open")
            assert read_exactly(peer, 10) == b"still open"
            peer.sendall(b"both ways")
            assert read_exactly(duplicate, 9) == b"both ways"
        assert peer.recv(1) == b""


def test_a_servers_connection_ends_for_both_when_it_is_closed() -> None:
    with connected("Connection") as (conn, peer), conn.to_socket() as duplicate:
        reading = Background(duplicate.recv, 1)
        wait_until(reading.asleep)
        conn.close()
        assert reading.result() == b""
        assert peer.recv(1) == b""
        assert error_number(lambda: duplicate.send(b"x")) == errno.EPIPE


def test_a_servers_connection_ends_for_both_when_its_handler_returns() -> None:
    kept: list[socket.socket] = []
    with handled(lambda conn: kept.append(conn.to_socket())) as server:
        with server.client(timeout=SOON) as client:
            assert client.recv(1) == b""
        server.ledger.wait(open=0, closed=1)
        with kept.pop() as duplicate:
            assert duplicate.recv(1) == b""


def test_an_abort_resets_both(ours: Pair) -> None:
    stream, peer = ours
    with stream.to_socket() as duplicate:
        stream.abort()
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        with pytest.raises(ConnectionResetError):
            duplicate.recv(1)


def test_a_handler_in_its_duplicate_finds_the_end_when_the_server_stops() -> None:
    ends: list[bytes] = []
    reading: list[int] = []

    def read(conn: Connection) -> None:
        with conn.to_socket() as duplicate:
            assert duplicate.recv(100) == b"hello"
            reading.append(threading.get_native_id())
            ends.append(duplicate.recv(100))

    with handled(read) as server, server.client(timeout=SOON) as client:
        client.sendall(b"hello")
        wait_until(lambda: reading and sleeping(reading[0]))
        report = server.stop(SOON)
        assert (report.forced, report.abandoned) == (0, 0)
        assert report.seconds < LATE
        assert ends == [b""]
        assert client.recv(1) == b""


def test_a_reset_that_the_duplicate_meets_is_the_peers_doing() -> None:
    def read(conn: Connection) -> None:
        with conn.to_socket() as duplicate:
            duplicate.recv(1)

    with handled(read) as server:
        with server.client() as client:
            client.abort()
        server.ledger.wait(open=0, closed=1)
        [record] = server.ledger.closed
        assert record.closed_by in ("reset", "error")
        assert "ConnectionResetError" in str(record.error)
        assert server.errors == []


# Calls that discover only as a side effect that there is no peer any more.
DISCOVERIES: dict[str, Callable[[socket.socket], object]] = {
    "asking for the peer": socket.socket.getpeername,
    "ending a direction": lambda duplicate: duplicate.shutdown(socket.SHUT_WR),
}


@pytest.mark.parametrize("discover", DISCOVERIES.values(), ids=DISCOVERIES)
def test_a_duplicate_that_is_not_connected_any_more_is_the_peers_doing(
    discover: Callable[[socket.socket], object],
) -> None:
    def handler(conn: Connection) -> None:
        with conn.to_socket() as duplicate:
            poller = select.poll()
            poller.register(duplicate, 0)
            assert poller.poll(SOON * 1000), "the reset arrives"
            discover(duplicate)

    with Server(service=handler, on_error="raise") as server:
        with server.client() as client:
            client.abort()
        server.ledger.wait(open=0, closed=1)
        [record] = server.ledger.closed
        assert record.closed_by == "reset"
        assert "OSError" in str(record.error)
        assert server.errors == []


def test_another_socket_that_is_not_connected_is_the_handlers_doing() -> None:
    def handler(conn: Connection) -> None:
        with conn.to_socket(), socket.socket() as other:
            other.getpeername()

    caught: list[BaseException] = []
    with Server(service=handler, on_error=caught.append) as server:
        with server.client(timeout=SOON) as client:
            assert client.recv(1) == b""
        server.ledger.wait(open=0, closed=1)
    assert [getattr(error, "errno", None) for error in caught] == [errno.ENOTCONN]


def test_an_error_of_another_connection_is_the_handlers_though_it_has_a_duplicate() -> None:
    caught: list[BaseException] = []

    def relay(conn: Connection) -> None:
        with listener() as gone:
            address = gone.getsockname()
        with conn.to_socket():
            Client(address)

    with Server(service=relay, on_error=caught.append) as server:
        with server.client(timeout=SOON) as client:
            assert client.recv(1) == b""
        server.ledger.wait(open=0, closed=1)
    assert [type(error) for error in caught] == [ConnectionRefusedError]


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_duplicate_has_the_family_of_its_stream() -> None:
    with Server("::1") as server, server.client(timeout=SOON) as client:
        with client.to_socket() as duplicate:
            assert duplicate.family == client.family == socket.AF_INET6
            duplicate.sendall(b"six")
            assert client.recv_exactly(3) == b"six"


def test_a_stream_that_is_not_connected_has_a_duplicate_too() -> None:
    with Client() as client, client.to_socket() as duplicate, listener() as listening:
        duplicate.connect(listening.getsockname())
        peer, _ = listening.accept()
        with peer:
            client.sendall(b"connected")
            assert read_exactly(peer, 9) == b"connected"


def test_a_closed_stream_has_no_duplicate(ours: Pair) -> None:
    stream, _ = ours
    stream.close()
    assert error_number(stream.to_socket) == errno.EBADF


def test_no_duplicate_is_made_without_a_descriptor(ours: Pair) -> None:
    stream, peer = ours
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        assert error_number(stream.to_socket) == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    stream.sendall(b"unharmed")
    assert read_exactly(peer, 8) == b"unharmed"


# --- detaching it --------------------------------------------------------------------------


def test_a_detached_descriptor_lives_on(pair: Pair) -> None:
    stream, peer = pair
    before = stream.fileno()
    number = stream.detach()
    assert number == before
    assert (stream.fileno(), stream.detach()) == (-1, -1)
    for use in (
        lambda: stream.recv(1),
        lambda: stream.send(b"x"),
        lambda: stream.settimeout(1),
        lambda: stream.getpeername(),
    ):
        assert error_number(use) == errno.EBADF
    stream.close()
    with socket.socket(fileno=number) as plain:
        plain.sendall(b"lives")
        peer.sendall(b"on")
        assert read_exactly(peer, 5) == b"lives"
        assert read_exactly(plain, 2) == b"on"


def test_the_record_of_a_detached_stream_says_so(ours: Pair) -> None:
    stream, peer = ours
    stream.sendall(b"12345")
    with socket.socket(fileno=stream.detach()) as plain:
        assert stream.closed
        assert stream.record.closed_by == "detached"
        plain.sendall(b"not counted")
        assert read_exactly(peer, 16) == b"12345not counted"
    assert stream.record.bytes_out == 5


@pytest.mark.parametrize("timeout", [None, 2.5, 0])
def test_a_detached_descriptor_is_as_blocking_as_it_was(ours: Pair, timeout: float | None) -> None:
    stream, _ = ours
    stream.settimeout(timeout)
    with socket.socket(fileno=stream.detach()) as plain:
        assert is_blocking(plain.fileno()) is (timeout != 0)


def test_a_descriptor_in_use_by_another_thread_cannot_be_given_away(ours: Pair) -> None:
    # A plain socket allows it, and the other call continues with a number that may belong to
    # another file.
    stream, peer = ours
    reading = Background(stream.recv, 10)
    wait_until(reading.asleep)
    assert error_number(stream.detach) == errno.EBUSY
    peer.sendall(b"unharmed")
    assert reading.result() == b"unharmed"
    os.close(stream.detach())


def test_a_handler_may_give_its_connection_away() -> None:
    given: list[socket.socket] = []
    with handled(lambda conn: given.append(socket.socket(fileno=conn.detach()))) as server:
        with server.client(timeout=SOON) as client:
            server.ledger.wait(open=0, closed=1)
            [record] = server.ledger.closed
            assert record.closed_by == "detached"
            report = server.stop()
            assert (report.drained, report.forced) == (0, 0)
            # Neither the handler's return nor the server's stop has ended it.
            wait_until(lambda: given)
            with given.pop() as plain:
                plain.sendall(b"alive")
                assert client.recv_exactly(5) == b"alive"


def test_a_connection_given_away_makes_room_for_another() -> None:
    with Server(service=Accept(), limits=Limits(connections=1), drain=0.0) as server:
        with server.client(timeout=SOON) as first, server.client(timeout=SOON) as second:
            conn, _ = server.accept(SOON)
            with pytest.raises(TimeoutError):
                server.accept(0.01)
            with socket.socket(fileno=conn.detach()) as plain:
                conn, _ = server.accept(SOON)
                with conn:
                    conn.sendall(b"second")
                    plain.sendall(b"first")
                    assert first.recv_exactly(5) == b"first"
                    assert second.recv_exactly(6) == b"second"


def test_a_detached_stream_is_not_warned_of() -> None:
    with connected("Client") as (_, peer), Server() as server:
        client = server.client()
        number = client.detach()
        # Warnings are errors here, including those of unreachable objects.
        del client
        os.close(number)
        reset(peer)


def test_the_end_of_a_given_descriptor_is_read_as_ever(ours: Pair) -> None:
    stream, peer = ours
    peer.sendall(b"the rest")
    peer.close()
    with socket.socket(fileno=stream.detach()) as plain:
        assert read_to_end(plain) == b"the rest"

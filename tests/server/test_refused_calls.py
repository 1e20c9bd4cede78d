"""System calls that a kernel lacks, or that a filter refuses, have a replacement.

Containers refuse calls by seccomp(2), with EPERM or ENOSYS; gVisor and old kernels lack some.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import (
    LOOPBACK,
    SOON,
    Background,
    Script,
    dial,
    dial_path,
    ended,
    error_number,
    exchange,
    output_of,
    payload,
    read_to_end,
    says_back,
)
from support.project import TESTS
from support.refusals import can_refuse, refusing

from rsock import Accept, Connection, Echo, Forward, Server

MIB = 1 << 20
DATA = payload(4 * MIB)

There = Callable[[Callable[[], Any]], Any]

OPTIONAL = [
    "accept4", "dup3", "flock", "pipe2", "ppoll", "prctl", "prlimit64", "recvmmsg", "sendmmsg",
    "splice", "ioctl", "F_SETPIPE_SZ", "FIONREAD", "SIOCOUTQ", "SIOCOUTQNSD", "IP_RECVERR",
    "SO_MEMINFO", "SO_PEERCRED", "SO_REUSEPORT", "SO_SNDBUF", "TCP_CONGESTION", "TCP_INFO",
    "netlink",
]  # fmt: skip
ERRORS = [errno.ENOSYS, errno.EPERM]

pytestmark = pytest.mark.skipif(not can_refuse(), reason="no filter of system calls")
every_error = pytest.mark.parametrize("error", ERRORS, ids=lambda number: errno.errorcode[number])


@contextlib.contextmanager
def started(there: There, **settings: Any) -> Iterator[Server]:
    """A server that lives on a thread with refused calls, where it is stopped too."""
    server = there(lambda: Server(**settings).start())
    try:
        yield server
    finally:
        report = there(lambda: server.stop(SOON))
    assert (report.forced, report.abandoned, report.errors, report.cause) == (0, 0, 0, "stop")


@contextlib.contextmanager
def datagrams(address: Any) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(SOON)
        peer.connect(address)
        yield peer


@every_error
def test_a_filter_holds_for_one_thread(error: int) -> None:
    def splice() -> None:
        os.splice(-1, -1, 1)

    with refusing("splice", error) as there:
        assert error_number(lambda: there(splice)) == error
    assert error_number(splice) == errno.EBADF


@every_error
@pytest.mark.parametrize("call", OPTIONAL)
def test_bytes_are_whole_without_an_optional_call(call: str, error: int) -> None:
    with refusing(call, error) as there:
        with started(there, service=Echo()) as echo, dial(echo.address) as peer:
            assert exchange(peer, DATA) == DATA
        with Server() as target, started(there, service=Forward(target)) as forward:
            with dial(forward.address) as peer:
                assert exchange(peer, DATA) == DATA


@every_error
@pytest.mark.parametrize("call", OPTIONAL)
def test_a_unix_server_works_without_an_optional_call(call: str, error: int, path: str) -> None:
    with refusing(call, error) as there:
        with started(there, path=path), dial_path(path) as peer:
            assert exchange(peer, DATA) == DATA


@every_error
@pytest.mark.parametrize("call", OPTIONAL)
def test_datagrams_arrive_without_an_optional_call(call: str, error: int) -> None:
    def answer(data: bytes, _: object) -> bytes:
        return data

    with refusing(call, error) as there, Server(transport="udp") as target:
        for service in (Echo(), Forward(target), answer):
            with started(there, transport="udp", service=service) as server:
                with datagrams(server.address) as peer:
                    for size in (0, 1, 1472, 65_507):
                        peer.send(DATA[:size])
                        assert peer.recv(70_000) == DATA[:size]


@every_error
@pytest.mark.parametrize("call", OPTIONAL)
def test_python_is_handed_connections_without_an_optional_call(call: str, error: int) -> None:
    def double(connection: Connection) -> None:
        connection.sendall(2 * connection.recv_exactly(5))

    with refusing(call, error) as there:
        with started(there, service=double) as server, dial(server.address) as peer:
            peer.sendall(b"hello")
            assert read_to_end(peer) == b"hellohello"
        with started(there, service=Accept()) as server, dial(server.address) as peer:
            connection, _ = there(lambda: server.accept(SOON))
            with connection:
                peer.sendall(b"hello")
                assert there(lambda: connection.recv_exactly(5)) == b"hello"
                connection.sendall(b"bye")
            assert read_to_end(peer) == b"bye"


@every_error
@pytest.mark.parametrize("call", ["FIONREAD", "SIOCOUTQNSD", "ioctl"])
def test_a_reply_ahead_of_unread_input_arrives_whole(call: str, error: int) -> None:
    """The lengths of the queues decide whether a close lingers."""

    def reply(connection: Connection) -> None:
        connection.recv_exactly(5)
        connection.sendall(DATA)

    with refusing(call, error) as there, started(there, service=reply) as server:
        with dial(server.address) as peer:
            peer.sendall(b"hello and what the handler never reads")
            sending = Background(peer.sendall, bytes(100_000))
            assert read_to_end(peer) == DATA
            sending.result()


@every_error
@pytest.mark.parametrize("call", ["TCP_INFO", "netlink"])
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_a_stop_serves_the_queue_although_its_length_is_unknown(
    transport: str, call: str, error: int, path: str
) -> None:
    code = """
import os, resource, socket, sys
sys.path.insert(0, sys.argv[1])
from support import SOON, ended, read_exactly, wait_until
from support.refusals import refusing
from rsock import Server
family = socket.AF_UNIX if sys.argv[2] == "unix" else socket.AF_INET
name = sys.argv[3] if sys.argv[2] == "unix" else ("127.0.0.1", 0)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
with socket.socket(family) as listening, socket.socket(family) as peer:
    listening.bind(name)
    listening.listen()
    peer.settimeout(SOON)
    with refusing(sys.argv[4], int(sys.argv[5])) as there:
        server = there(Server(fd=os.dup(listening.fileno())).start)
        # With no descriptor left, the server pauses, and the connection stays in the queue.
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        peer.connect(listening.getsockname())
        peer.sendall(b"hello")
        wait_until(lambda: server.ledger.totals.accept_errors > 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        there(lambda: server.stop(SOON))
    assert read_exactly(peer, 5) == b"hello"
    assert ended(peer)
print("served")
"""
    said = output_of(code, str(TESTS), transport, path, call, str(error))
    assert said == "served\n"
    if transport == "unix":
        os.unlink(path)


@every_error
def test_tcp_info_needs_no_name_of_the_congestion_control(error: int) -> None:
    with refusing("TCP_CONGESTION", error) as there, started(there) as server:
        with dial(server.address) as peer:
            assert says_back(peer)
            [record] = server.ledger.open
            info = there(lambda: record.tcp_info)
            assert info is not None
            assert info.bytes_received == 5


@every_error
def test_a_udp_server_for_others_needs_the_destinations(error: int) -> None:
    """Without them nothing tells a datagram to a broadcast address, which no service answers."""
    with refusing("IP_PKTINFO", error) as there:
        with started(there, transport="udp") as server, datagrams(server.address) as peer:
            assert says_back(peer)
        external = Server("0.0.0.0", transport="udp", allow_external=True)
        with pytest.raises(OSError, match="create") as caught:
            there(external.start)
        assert caught.value.errno == error


@every_error
@pytest.mark.parametrize("call", ["epoll_create1", "eventfd2"])
def test_a_start_without_a_required_call_raises(call: str, error: int) -> None:
    with refusing(call, error) as there:
        assert error_number(lambda: there(Server(workers=2).start)) == error


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
@pytest.mark.parametrize("error", ["ENOSYS", "EPERM", "EACCES", "EOPNOTSUPP", "EINVAL"])
@pytest.mark.parametrize("first", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["echo", "forward"])
def test_bytes_in_a_pipe_are_copied_where_splice_is_refused(
    kind: str, first: int, error: str
) -> None:
    """A filter may be installed at any time, with bytes on their way."""
    code = """
import sys
from rsock import Echo, Forward, Server
target = sys.argv[1:]
with Server(service=Forward(target[0], int(target[1])) if target else Echo()) as server:
    print(*server.address, flush=True)
    sys.stdin.readline()
"""
    inject = f"inject=splice:error={error}:when={first}+"
    prefix = ("strace", "-f", "-o", os.devnull, "-e", "trace=splice", "-e", inject)
    with contextlib.ExitStack() as stack:
        arguments: tuple[str, ...] = ()
        if kind == "forward":
            host, port = stack.enter_context(Server()).address
            arguments = (host, str(port))
        script = stack.enter_context(Script(code, *arguments, prefix=prefix))
        _, port = script.line().split()
        with dial((LOOPBACK, int(port))) as peer:
            assert exchange(peer, DATA) == DATA
        with dial((LOOPBACK, int(port))) as peer:
            assert says_back(peer)
            peer.shutdown(socket.SHUT_WR)
            assert ended(peer)
        script.tell()
        assert script.end() == (0, "", "")

"""UDP: the same server, its datagrams, its records, its stop."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import (
    SOON,
    Background,
    error_number,
    given_back,
    has_ipv6,
    held,
    output_of,
    payload,
    threads,
    wait_until,
)

from rsock import Client, Limits, Server, SocketOptions, StateError

# Not defined in every Python's socket module.
IP_RECVERR = 11
# What IPv4 leaves of 65 535 bytes: its header takes 20 and UDP's header 8.
LARGEST = 65_507


@contextlib.contextmanager
def plain(address: tuple[Any, ...] | None = None) -> Iterator[socket.socket]:
    """A plain UDP socket, connected where an address is given."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(SOON)
        if address is None:
            peer.bind(("127.0.0.1", 0))
        else:
            peer.connect(address)
        yield peer


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(transport="udp", name="udp") as server:
        yield server


@pytest.mark.parametrize("size", [0, 1, 1472, LARGEST])
def test_a_datagram_comes_back_as_it_was(server: Server, size: int) -> None:
    data = payload(size)
    with plain(server.address) as peer:
        peer.send(data)
        assert peer.recv(70_000) == data


def test_borders_are_kept(server: Server) -> None:
    sent = [bytes([n]) * n for n in range(50)]
    with server.client(timeout=SOON) as client:
        for data in sent:
            client.send(data)
        assert [client.recv(100) for _ in sent] == sent


def test_the_steps_are_those_of_any_server() -> None:
    server = Server(transport="udp")
    states = [server.state]
    for step in (server.create, server.bind, server.listen, server.start):
        step()
        states.append(server.state)
    assert states == ["new", "created", "bound", "listening", "serving"]
    assert server.transport == "udp"
    server.stop()
    assert server.state == "stopped"
    with pytest.raises(StateError):
        server.start()


def test_what_came_before_the_start_is_answered() -> None:
    server = Server(transport="udp")
    server.bind()
    with plain(server.address) as peer:
        peer.send(b"early")
        with server.start():
            assert peer.recv(10) == b"early"


def test_a_server_has_one_worker_and_gives_all_back() -> None:
    before = held()
    with Server(transport="udp") as server:
        wait_until(lambda: sorted(threads().values()) == ["rsock-worker-0"])
        with server.client(timeout=SOON) as client:
            client.send(b"x")
            client.recv(1)
    given_back(before)


def test_several_workers_share_the_port() -> None:
    with Server(transport="udp", workers=3) as server, contextlib.ExitStack() as stack:
        names = [f"rsock-worker-{number}" for number in range(3)]
        wait_until(lambda: sorted(threads().values()) == names)
        peers = [stack.enter_context(plain(server.address)) for _ in range(40)]
        for number, peer in enumerate(peers):
            peer.send(b"%d" % number)
        assert [peer.recv(10) for peer in peers] == [b"%d" % number for number in range(40)]
        assert server.ledger.totals.open == 40
        ids = [record.id for record in server.ledger.open]
        assert ids == list(range(1, 41))
    assert server.ledger.totals.closed_by["stop"] == 40


def test_a_port_is_not_shared(server: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        assert error_number(lambda: other.bind(server.address)) == errno.EADDRINUSE
    with pytest.raises(OSError, match=r'held by the Server "udp" of this process'):
        Server(*server.address, transport="udp").start()
    with pytest.raises(ValueError, match="workers="):
        Server(transport="udp", options=SocketOptions(reuse_port=True))


def test_several_workers_share_the_port_with_no_other_server() -> None:
    with Server(transport="udp", workers=2) as server:
        other = Server(*server.address, transport="udp", workers=2)
        with pytest.raises(OSError, match=rf"start 127\.0\.0\.1:{server.port}: Address") as raised:
            other.start()
        assert raised.value.errno == errno.EADDRINUSE
    # The port is free as soon as the other server has stopped.
    with (
        Server(*server.address, transport="udp", workers=2) as server,
        plain(server.address) as peer,
    ):
        peer.send(b"mine")
        assert peer.recv(10) == b"mine"


def test_a_tcp_port_of_the_same_number_is_another_one() -> None:
    # An address that no other test uses: elsewhere the port number may be taken.
    with Server("127.45.67.89", transport="udp") as udp, Server(*udp.address) as tcp:
        assert udp.address == tcp.address
        with udp.client(timeout=SOON) as client:
            client.send(b"udp")
            assert client.recv(10) == b"udp"
        with tcp.client(timeout=SOON) as client:
            client.sendall(b"tcp")
            assert client.recv_exactly(3) == b"tcp"


# --- records -------------------------------------------------------------------------------


def test_each_peer_has_a_record(server: Server) -> None:
    with plain(server.address) as one, plain(server.address) as two:
        for peer, times in ((one, 3), (two, 1)):
            for _ in range(times):
                peer.send(b"hello")
                peer.recv(10)
        records = server.ledger.wait(open=2)
        assert [str(record.remote) for record in records] == [
            f"{host}:{port}" for host, port in (one.getsockname(), two.getsockname())
        ]
        assert [record.messages_in for record in records] == [3, 1]
        # An answer can arrive before it is counted.
        wait_until(lambda: [record.bytes_out for record in records] == [15, 5])
        assert {record.transport for record in records} == {"udp"}
    report = server.stop()
    assert (report.drained, report.forced) == (2, 0)
    totals = server.ledger.totals
    assert (totals.accepted, totals.open, totals.closed) == (2, 0, 2)
    assert totals.closed_by["stop"] == 2
    assert (totals.messages_in, totals.messages_out, totals.bytes_in) == (4, 4, 20)


def test_an_empty_datagram_is_a_message(server: Server) -> None:
    with server.client(timeout=SOON) as client:
        client.send(b"")
        assert client.recv(10) == b""
        record = server.ledger.wait(open=1)[0]
        wait_until(lambda: record.messages_out == 1)
        assert (record.messages_in, record.bytes_in, record.bytes_out) == (1, 0, 0)
        assert client.record is not None
        assert (client.record.messages_in, client.record.messages_out) == (1, 1)


def test_peers_are_forgotten_when_there_are_too_many() -> None:
    limits = Limits(connections=2)
    with Server(transport="udp", limits=limits) as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(plain(server.address)) for _ in range(3)]
        for peer in (peers[0], peers[1], peers[0], peers[2]):
            peer.send(b"x")
            assert peer.recv(1) == b"x"
        (forgotten,) = server.ledger.closed
        # The peer that had been silent for longest, not the one that came first.
        assert forgotten.remote.address == peers[1].getsockname()
        assert (forgotten.closed_by, forgotten.limit) == ("limit", "connections")
        peers[1].send(b"again")
        assert peers[1].recv(10) == b"again"
        assert server.ledger.totals.accepted == 4


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_receive_that_waits_gets_the_answer_of_another_family() -> None:
    with Server("::1", transport="udp") as server, Client(transport="udp") as client:
        reading = Background(client.recvfrom, 100)
        wait_until(reading.asleep)
        client.sendto(b"hello", server.address)
        data, address = reading.result(SOON)
        assert (data, address[:2]) == (b"hello", server.address)


def test_a_client_that_does_not_wait_sends_to_a_name() -> None:
    with Server("127.0.0.1", transport="udp") as server:
        with Client(transport="udp", timeout=0) as client:
            assert client.sendto(b"hello", ("localhost", server.port)) == 5


def test_an_unread_error_queue_makes_no_thread_spin() -> None:
    with plain(("127.0.0.1", 0)) as peer, Client(transport="udp") as client:
        client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        client.connect(peer.getsockname())
        peer_address, address = peer.getsockname(), client.getsockname()
        peer.close()
        client.send(b"hello")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
            late.bind(peer_address)
            timer = threading.Timer(0.5, late.sendto, (b"late", address))
            timer.start()
            before = time.thread_time()
            assert client.recv(10) == b"late"
            timer.join()
        assert time.thread_time() - before < 0.25


@pytest.mark.parametrize("most", [1, 2, 5])
def test_several_workers_find_a_slot_for_every_new_peer(most: int) -> None:
    limits = Limits(connections=most)
    with (
        Server(transport="udp", workers=3, limits=limits) as server,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(30):
            # Kept open: the port of a closed socket may be given to the next one.
            peer = stack.enter_context(plain(server.address))
            peer.send(b"new")
            assert peer.recv(10) == b"new"
            assert server.ledger.totals.open <= most
        totals = server.ledger.totals
        assert (totals.accepted, totals.refused) == (30, 0)


def test_memory_that_is_not_to_be_had_is_an_error_of_start() -> None:
    code = """
import errno, resource
from rsock import Server
server = Server(transport="udp").start()
others, found = [], set()
# Memory for a thread's stack and not for a batch of datagrams, or for neither.
for megabytes in range(1, 25):
    pages = int(open("/proc/self/statm").read().split()[0])
    room = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
    try:
        others.append(Server(transport="udp").start())
    except OSError as error:
        found.add(errno.errorcode[error.errno])
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
print(sorted(found))
with server, server.client(timeout=5) as client:
    client.send(b"still here")
    print(client.recv(10))
"""
    # With one malloc arena, no address space has been reserved in advance.
    prefix = ("env", "MALLOC_ARENA_MAX=1")
    refused, served = output_of(code, options=("-W", "ignore"), prefix=prefix).splitlines()
    assert "ENOMEM" in refused
    assert served == "b'still here'"


def test_a_new_peer_may_be_refused_instead() -> None:
    limits = Limits(connections=1, overflow="refuse")
    with Server(transport="udp", limits=limits) as server:
        with plain(server.address) as one, plain(server.address) as two:
            one.send(b"one")
            assert one.recv(10) == b"one"
            two.send(b"two")
            wait_until(lambda: server.ledger.totals.refused == 1)
            one.send(b"still")
            assert one.recv(10) == b"still"
            assert server.ledger.totals.accepted == 1


def test_a_silent_peer_is_forgotten_after_the_idle_limit() -> None:
    with Server(transport="udp", limits=Limits(idle=0.05)) as server:
        with plain(server.address) as peer:
            peer.send(b"x")
            assert peer.recv(1) == b"x"
            record = server.ledger.wait(open=0, closed=1)[0]
        assert (record.closed_by, record.limit) == ("limit", "idle")
        assert record.seconds >= 0.05


def test_one_host_may_have_a_limited_number_of_peers() -> None:
    with Server(transport="udp", limits=Limits(per_host=1)) as server:
        with plain(server.address) as one, plain(server.address) as two:
            one.send(b"one")
            assert one.recv(10) == b"one"
            two.send(b"two")
            wait_until(lambda: server.ledger.totals.refused == 1)


def test_what_is_too_long_is_cut_and_counted() -> None:
    with Server(transport="udp", limits=Limits(datagram=10)) as server:
        with plain(server.address) as peer:
            for size in (10, 11, 5000):
                peer.send(bytes(range(11)) + bytes(size - 11) if size > 10 else bytes(range(10)))
                assert peer.recv(100) == bytes(range(10))
        totals = server.ledger.totals
        assert (totals.truncated, totals.bytes_in) == (2, 30)


def test_a_peer_that_is_gone_harms_no_other(server: Server) -> None:
    with plain(server.address) as bystander:
        for number in range(20):
            with plain(server.address) as gone:
                # Closed before the answer arrives: the system rejects the answer with ICMP.
                gone.send(b"the answer is refused")
            bystander.send(b"%d" % number)
            assert bystander.recv(10) == b"%d" % number
    assert server.stop().errors == 0


def test_a_record_of_a_peer_that_refuses_is_closed() -> None:
    server = Server(transport="udp")
    server.bind()
    with plain(server.address) as gone:
        gone.send(b"the answer is refused")
    with server.start(), plain(server.address) as other:

        def closed() -> bool:
            # With each answer the server checks what became of those before.
            other.send(b"x")
            return other.recv(1) == b"x" and server.ledger.totals.closed == 1

        wait_until(closed)
        (record,) = server.ledger.closed
        assert (record.closed_by, record.error) == ("reset", "Connection refused")


# --- the end -------------------------------------------------------------------------------


def test_what_waits_when_the_stop_begins_is_answered() -> None:
    server = Server(transport="udp")
    server.bind()
    with plain(server.address) as peer:
        sent = [b"%d" % number for number in range(100)]
        for data in sent:
            peer.send(data)
        server.start()
        report = server.stop()
        assert [peer.recv(10) for _ in sent] == sent
        assert (report.drained, report.forced) == (1, 0)
        # From here on the peer's port is closed, and the system reports that.
        with pytest.raises(ConnectionRefusedError):
            peer.send(b"late")
            peer.recv(10)


def test_a_descriptor_may_be_given() -> None:
    with plain() as mine:
        address = mine.getsockname()
        number = os.dup(mine.fileno())
        with Server(transport="udp", fd=number) as server, plain(address) as peer:
            assert server.address == address
            peer.send(b"x")
            assert peer.recv(1) == b"x"
        # It was closed, not shut down: its other owner continues to use it.
        with plain(address) as peer:
            peer.send(b"for the other owner")
            assert mine.recv(100) == b"for the other owner"


def test_a_descriptor_of_another_kind_is_refused() -> None:
    with socket.socket() as stream, plain() as datagram:
        with pytest.raises(ValueError, match="not a UDP socket"):
            Server(transport="udp", fd=stream.fileno()).start()
        with pytest.raises(ValueError, match="not a TCP socket"):
            Server(fd=datagram.fileno()).start()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_both_families_are_answered_from_where_they_wrote_to() -> None:
    with Server("::", transport="udp", allow_external=True) as server:
        with server.client(timeout=SOON) as six, plain(("127.0.0.1", server.port)) as four:
            six.send(b"six")
            assert six.recv(10) == b"six"
            # Connected: an answer from another address would be dropped.
            four.send(b"four")
            assert four.recv(10) == b"four"
            with plain(("127.0.0.2", server.port)) as second:
                second.send(b"second")
                assert second.recv(10) == b"second"
            records = server.ledger.wait(open=3)
        assert [str(record.local) for record in records] == [
            f"{host}:{server.port}" for host in ("[::1]", "127.0.0.1", "127.0.0.2")
        ]


# --- the client ----------------------------------------------------------------------------


def test_a_client_need_not_connect(server: Server) -> None:
    with Client(transport="udp", timeout=SOON) as client:
        assert client.record is None
        assert client.sendto(b"hello", server.address) == 5
        assert client.recvfrom(10) == (b"hello", server.address)
        assert error_number(lambda: client.send(b"no peer")) == errno.EDESTADDRREQ
        client.connect(server.address)
        client.send(b"to you")
        assert client.recv(10) == b"to you"
        assert client.record is not None
        assert client.five_tuple.remote_port == server.port
        assert client.record.remote.transport == "udp"


def test_a_client_is_a_datagram_socket(server: Server) -> None:
    with server.client(timeout=SOON) as client:
        assert (client.type, client.proto) == (socket.SOCK_DGRAM, socket.IPPROTO_UDP)
        assert client.family == socket.AF_INET
        with client.to_socket() as duplicate:
            assert duplicate.type == socket.SOCK_DGRAM
            duplicate.send(b"by the other")
            assert client.recv(20) == b"by the other"


def test_what_does_not_fit_is_lost_and_said_so(server: Server) -> None:
    with server.client(timeout=SOON) as client:
        calls: list[Callable[[], bytes]] = [
            lambda: client.recv(3),
            lambda: client.recvfrom(3)[0],
            lambda: client.recvmsg(3)[0],
        ]
        for receive in calls:
            client.send(b"longer")
            assert receive() == b"lon"
        client.send(b"longer")
        data, _, flags, sender = client.recvmsg(3)
        assert (data, flags & socket.MSG_TRUNC, sender) == (
            b"lon",
            socket.MSG_TRUNC,
            server.address,
        )
        client.send(b"longer")
        assert client.recv_into(bytearray(3), 0, socket.MSG_TRUNC) == 6


def test_messages_of_several_parts(server: Server) -> None:
    with Client(transport="udp", timeout=SOON) as client:
        assert client.sendmsg([b"one ", b"two"], [], 0, server.address) == 7
        buffer = bytearray(10)
        assert client.recvfrom_into(buffer) == (7, server.address)
        assert buffer[:7] == b"one two"
        client.connect(server.address)
        client.sendmsg([b"three"])
        first, second = bytearray(2), bytearray(8)
        count, _, _, sender = client.recvmsg_into([first, second])
        assert (count, bytes(first), bytes(second[:3]), sender) == (
            5,
            b"th",
            b"ree",
            server.address,
        )


def test_a_connected_client_gets_an_error_from_a_closed_port() -> None:
    with plain() as holder:
        address = holder.getsockname()
    with Client(*address, transport="udp", timeout=SOON) as client:
        client.send(b"hello")
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)
    assert client.record is not None
    assert client.record.closed_by == "reset"


def test_readers_of_streams_are_none_of_datagrams(server: Server) -> None:
    with server.client(timeout=SOON) as client:
        calls: list[Callable[[], bytes]] = [
            lambda: client.recv_exactly(3),
            lambda: client.recv_line(),
            lambda: client.recv_until(b"x"),
        ]
        for call in calls:
            with pytest.raises(OSError, match="a message of its own") as raised:
                call()
            assert raised.value.errno == errno.EOPNOTSUPP


def test_time_outs_hold(server: Server) -> None:
    with server.client(timeout=0.01) as client:
        with pytest.raises(TimeoutError):
            client.recv(10)
        client.settimeout(0)
        with pytest.raises(BlockingIOError):
            client.recvfrom(10)


@pytest.mark.parametrize("timeout", [None, SOON])
def test_a_client_that_reads_no_more_gets_the_end(server: Server, timeout: float | None) -> None:
    with server.client(timeout=timeout) as client:
        waiting = Background(client.recv, 100)
        wait_until(waiting.asleep)
        client.shutdown(socket.SHUT_RD)
        # As with a socket.socket: neither the waiting call nor a later one waits any longer.
        assert waiting.result() == b""
        assert Background(client.recvfrom, 100).result()[0] == b""


def test_a_source_address_receives_without_connecting() -> None:
    with Client(transport="udp", source_address=("127.0.0.1", 0), timeout=SOON) as client:
        with plain(client.getsockname()) as peer:
            peer.send(b"hello")
            assert client.recvfrom(10) == (b"hello", peer.getsockname())


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_client_takes_the_family_that_it_needs() -> None:
    with Server("::1", transport="udp") as server, Client(transport="udp") as client:
        client.settimeout(SOON)
        client.sendto(b"six", server.address)
        data, sender = client.recvfrom(10)
        assert (data, client.family, sender[:2]) == (b"six", socket.AF_INET6, server.address)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_port_that_others_know_is_kept_by_connect() -> None:
    with plain() as peer, Client(transport="udp", timeout=SOON) as client:
        client.sendto(b"this is my port", peer.getsockname())
        mine = peer.recvfrom(100)[1]
        # Another family would need another socket.
        assert error_number(lambda: client.connect(("::1", 9))) == errno.EAFNOSUPPORT
        client.connect(peer.getsockname())
        assert client.getsockname() == mine
        peer.sendto(b"heard", mine)
        assert client.recv(10) == b"heard"


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_external_peers_are_served_only_when_that_is_allowed(host: str) -> None:
    with pytest.raises(ValueError, match="allow_external=True"):
        Server(host, transport="udp").start()
    with pytest.raises(ValueError, match="allow_external=True"):
        Server(transport="udp").bind((host, 0))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="transport 'sctp'"):
        Server(transport="sctp")
    with pytest.raises(ValueError, match="transport 'sctp'"):
        Client(transport="sctp")
    with pytest.raises(TypeError, match="transport must be a str"):
        Server(transport=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="allow_external must be True or False"):
        Server(allow_external=1)  # type: ignore[arg-type]
    for wrong in (0, 2**23 + 1):
        with pytest.raises(ValueError, match="datagram"):
            Limits(datagram=wrong)

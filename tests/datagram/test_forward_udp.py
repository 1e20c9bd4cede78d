"""Forward on UDP: one session for each peer, and every answer reaches the peer that it is for."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from support import LOOPBACK, SOON, Background, payload, wait_until

from rsock import Forward, Limits, Server

LARGEST = 65_507


@contextlib.contextmanager
def plain(to: tuple[str, int] | None = None) -> Iterator[socket.socket]:
    """A plain UDP socket with its own address, connected where one is given."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(SOON)
        peer.bind((LOOPBACK, 0))
        if to is not None:
            peer.connect(to)
        yield peer


def forwarder(target: tuple[str, int], **settings: object) -> Server:
    return Server(transport="udp", service=Forward(*target), **settings)  # type: ignore[arg-type]


@contextlib.contextmanager
def through(**settings: object) -> Iterator[tuple[Server, socket.socket, socket.socket]]:
    """A forwarder, a peer of it, and its target."""
    with plain() as target, forwarder(target.getsockname(), **settings) as server:
        with plain(server.address) as peer:
            yield server, peer, target


@pytest.mark.parametrize("size", [0, 1, 1472, LARGEST])
def test_a_datagram_goes_there_and_its_answer_back(size: int) -> None:
    data = payload(size)
    with through() as (_, peer, target):
        peer.send(data)
        got, session = target.recvfrom(70_000)
        assert got == data
        target.sendto(data[::-1], session)
        assert peer.recv(70_000) == data[::-1]


def test_each_peer_has_a_session_of_its_own() -> None:
    with Server(transport="udp") as echo, contextlib.ExitStack() as stack:
        server = stack.enter_context(
            Server(transport="udp", service=Forward(echo), limits=Limits(connections=100))
        )
        peers = [stack.enter_context(plain(server.address)) for _ in range(40)]
        for turn in range(3):
            for number, peer in enumerate(peers):
                peer.send(b"%d of %d" % (turn, number))
        for number, peer in enumerate(peers):
            assert [peer.recv(100) for _ in range(3)] == [
                b"%d of %d" % (t, number) for t in range(3)
            ]
        assert server.ledger.totals.open == echo.ledger.totals.open == 40
        assert len({record.far.local for record in server.ledger.open if record.far}) == 40


def test_borders_and_order_are_kept_in_a_burst() -> None:
    sent = [payload(number, number) for number in range(200)]
    with through() as (_, peer, target):
        for data in sent:
            peer.send(data)
        assert [target.recv(1000) for _ in sent] == sent


def test_the_record_knows_both_legs() -> None:
    with through() as (server, peer, target):
        peer.send(b"four")
        _, session = target.recvfrom(100)
        for _ in range(2):
            target.sendto(b"answer", session)
            assert peer.recv(100) == b"answer"
        [record] = server.ledger.open
        leg = record.far
        assert leg is not None
        assert record.transport == leg.remote.transport == "udp"
        assert (leg.local.address, leg.remote.address) == (session, target.getsockname())
        assert (record.messages_in, record.bytes_in, leg.messages_out, leg.bytes_out) == (
            1,
            4,
            1,
            4,
        )
        assert (leg.messages_in, leg.bytes_in) == (2, 12)
        # The counter is updated after the send.
        wait_until(lambda: (record.messages_out, record.bytes_out) == (2, 12))


def test_a_silent_session_ends_and_the_next_datagram_begins_another() -> None:
    with through(limits=Limits(idle=0.2)) as (server, peer, target):
        peer.send(b"one")
        _, first = target.recvfrom(100)
        [record] = server.ledger.wait(open=0, closed=1)
        assert (record.closed_by, record.limit) == ("limit", "idle")
        # The descriptor is closed with the session: a late answer finds no receiver.
        target.sendto(b"late", first)
        peer.send(b"two")
        data, second = target.recvfrom(100)
        assert data == b"two"
        target.sendto(b"answer", second)
        assert peer.recv(100) == b"answer"


def test_answers_keep_a_session_open() -> None:
    with through(limits=Limits(idle=0.5)) as (server, peer, target):
        peer.send(b"subscribe")
        _, session = target.recvfrom(100)
        [record] = server.ledger.open

        def publish() -> float:
            target.sendto(b"news", session)
            assert peer.recv(100) == b"news"
            return record.seconds

        wait_until(lambda: publish() > 1.0)
        assert record.closed_by is None


def test_above_the_limit_the_longest_silent_gives_way() -> None:
    with plain() as target, contextlib.ExitStack() as stack:
        limits = Limits(connections=2)
        server = stack.enter_context(forwarder(target.getsockname(), limits=limits))
        for number in range(3):
            peer = stack.enter_context(plain(server.address))
            peer.send(b"%d" % number)
            assert target.recv(10) == b"%d" % number
        totals = server.ledger.totals
        assert (totals.accepted, totals.open) == (3, 2)
        assert [record.limit for record in server.ledger.closed] == ["connections"]


def test_a_target_that_is_not_there_is_said_and_may_come() -> None:
    with plain() as holder:
        address = holder.getsockname()
    with forwarder(address) as server, plain(server.address) as peer:
        peer.send(b"hello")
        [record] = server.ledger.wait(open=0, closed=1)
        assert record.closed_by == "error"
        assert record.error is not None
        assert f"{address[0]}:{address[1]}: Connection refused" in record.error
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
            target.settimeout(SOON)
            target.bind(address)
            peer.send(b"again")
            assert target.recv(100) == b"again"


def test_a_stop_passes_on_what_has_come_and_waits_for_answers() -> None:
    with through() as (server, peer, target):
        peer.send(b"question")
        _, session = target.recvfrom(100)
        stopping = Background(server.stop, 10.0)
        wait_until(lambda: server.state == "draining")
        target.sendto(b"answer", session)
        assert peer.recv(100) == b"answer"
        report = stopping.result(10.0)
        assert (report.drained, report.forced) == (1, 0)
        assert report.seconds < 5.0


def test_a_stop_is_not_held_up_beyond_its_deadline() -> None:
    with through() as (server, peer, target):
        peer.send(b"question")
        assert target.recv(100) == b"question"
        report = server.stop(drain=0.2)
        assert (report.drained, report.forced) == (0, 1)
        assert report.seconds < 2.0


def test_no_address_elsewhere_gets_more_than_came_in_its_name() -> None:
    with plain() as probe:
        try:
            # Sends nothing; reports which local address would be used outside the machine.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
                outward.connect(("192.0.2.1", 9))
                own = outward.getsockname()[0]
        except OSError:
            own = LOOPBACK
        if own.startswith("127."):
            pytest.skip("this machine has no address but the loopback's")
        server = Server(own, 0, Forward(*probe.getsockname()), transport="udp", allow_external=True)
        with server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(SOON)
            peer.bind((own, 0))
            peer.sendto(b"0123456789", server.address)
            _, session = probe.recvfrom(100)
            for answer in (b"too long for it", b"123456", b"too much", b"7890"):
                probe.sendto(answer, session)
            assert [peer.recv(100), peer.recv(100)] == [b"123456", b"7890"]
            wait_until(lambda: server.ledger.totals.dropped == 2)


@pytest.mark.parametrize("target", ["127.0.0.1", "localhost", "::ffff:127.0.0.1", "0.0.0.0"])
def test_a_forwarder_to_itself_does_not_start(target: str) -> None:
    with plain() as holder:
        port = holder.getsockname()[1]
    server = Server(LOOPBACK, port, Forward(target, port), transport="udp")
    with pytest.raises(ValueError, match="leads back to this server"):
        server.start()
    assert server.state == "new"


def test_a_circle_of_forwarders_does_not_close() -> None:
    with plain() as holder:
        port = holder.getsockname()[1]
    with Server(transport="udp", service=Forward(LOOPBACK, port)) as first:
        with pytest.raises(ValueError, match="leads back"):
            Server(LOOPBACK, port, Forward(first), transport="udp").start()
    # The same port number on the other transport is a different endpoint.
    tcp = socket.create_server((LOOPBACK, 0))
    with Server(transport="udp", service=Forward(*tcp.getsockname())) as first:
        with Server(fd=tcp.detach(), service=Forward(*first.address)):
            pass


def test_a_server_of_the_other_transport_is_no_target() -> None:
    with Server() as tcp, Server(transport="udp") as udp:
        for target, transport in ((tcp, "udp"), (udp, "tcp")):
            server = Server(transport=transport, service=Forward(target))
            with pytest.raises(ValueError, match="reached by"):
                server.start()


def test_a_stream_forwarder_and_a_datagram_forwarder_of_one_service() -> None:
    service = Forward(LOOPBACK, 9)
    with Server(service=service), Server(transport="udp", service=service):
        pass

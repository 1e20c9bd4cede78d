"""dnspython behind faults: a resolver whose queries and answers are lost, late, doubled or cut."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest
from support import SOON, wait_until

from rsock import Connection, Server
from rsock.faults import Corrupt, Drop, Duplicate, Fault, Latency

NAME = "example.test."
ADDRESS = "192.0.2.1"
# How many addresses fit into no datagram of 512 bytes, which is what a query without EDNS allows.
MANY = 40


def response_to(query: bytes, addresses: int) -> dns.message.Message:
    message = dns.message.from_wire(query)
    response = dns.message.make_response(message)
    found = [f"192.0.2.{number + 1}" for number in range(addresses)]
    response.answer.append(dns.rrset.from_text(message.question[0].name, 60, "IN", "A", *found))
    return response


def answer(query: bytes, address: object) -> bytes:
    return response_to(query, 1).to_wire()


def answer_shortly(query: bytes, address: object) -> bytes:
    """What a name server does where the answer is too long for a datagram."""
    response = response_to(query, MANY)
    response.answer.clear()
    response.flags |= dns.flags.TC
    return response.to_wire()


def answer_in_full(connection: Connection) -> None:
    """The same question over TCP, where each message follows its length."""
    length = int.from_bytes(connection.recv_exactly(2))
    wire = response_to(connection.recv_exactly(length), MANY).to_wire()
    connection.sendall(len(wire).to_bytes(2) + wire)


def resolver_of(server: Server) -> dns.resolver.Resolver:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [server.host]
    resolver.port = server.port
    # Each attempt has a socket of its own.
    resolver.timeout = 0.2
    resolver.lifetime = SOON
    return resolver


def serving(*faults: Fault, service: Any = answer, **settings: Any) -> Server:
    return Server(service=service, transport="udp", faults=faults, **settings)


def addresses(found: dns.resolver.Answer) -> list[str]:
    return [record.address for record in found]


def beside(over_tcp: Server, fault: Fault) -> Server:
    """A server of datagrams on the port of another server, whose answers are cut."""
    return serving(fault, service=answer_shortly, port=over_tcp.port)


@contextlib.contextmanager
def asking(server: Server) -> Iterator[socket.socket]:
    """A socket for several queries."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        yield sock


def query() -> dns.message.Message:
    return dns.message.make_query(NAME, dns.rdatatype.A)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_resolver_asks_again_until_an_answer_is_not_lost(direction: Any) -> None:
    with serving(Drop(1.0, direction=direction, connections=2)) as server:
        before = time.monotonic()
        assert addresses(resolver_of(server).resolve(NAME)) == [ADDRESS]
        assert time.monotonic() - before >= 2 * 0.2, "it has waited for two answers in vain"
        first, second, third = server.ledger.open
        for record in (first, second):
            assert [event.action for event in record.faults] == ["dropped"]
            assert record.messages_out == 0
        assert third.messages_in == 1
        # An answer can arrive before it is counted.
        wait_until(lambda: third.messages_out == 1)


def test_a_resolver_gives_up_where_all_is_lost() -> None:
    with serving(Drop(1.0, direction="up")) as server:
        resolver = resolver_of(server)
        resolver.lifetime = 0.5
        with pytest.raises(dns.resolver.LifetimeTimeout):
            resolver.resolve(NAME)
        assert server.ledger.totals.messages_in >= 2
        assert server.ledger.totals.messages_out == 0


def test_an_answer_that_comes_late_is_no_answer_for_a_short_wait() -> None:
    with serving(Latency(0.3)) as server:
        with pytest.raises(dns.exception.Timeout):
            dns.query.udp(query(), server.host, timeout=0.1, port=server.port)
        found = dns.query.udp(query(), server.host, timeout=SOON, port=server.port)
        assert found.answer[0][0].address == ADDRESS


def test_the_second_copy_of_an_answer_is_not_taken_for_the_next_one() -> None:
    with serving(Duplicate(1.0)) as server, asking(server) as sock:

        def ask(message: dns.message.Message, **more: Any) -> dns.message.Message:
            return dns.query.udp(
                message, server.host, timeout=SOON, port=server.port, sock=sock, **more
            )

        ask(query())
        wait_until(lambda: server.ledger.totals.messages_out == 2)
        # The copy answers another query.
        with pytest.raises(dns.query.BadResponse):
            ask(query())
        # One that passes over what does not belong to it finds the answer behind the copies.
        message = query()
        assert ask(message, ignore_errors=True).id == message.id


def test_an_answer_with_a_changed_byte_is_told_from_one_that_is_whole() -> None:
    with serving(Corrupt(1.0), seed=1) as server:
        for _ in range(20):
            message = query()
            try:
                found = dns.query.udp(message, server.host, timeout=SOON, port=server.port)
            except (dns.exception.DNSException, dns.query.BadResponse):
                continue
            whole = response_to(message.to_wire(), 1)
            assert found.to_wire() != whole.to_wire()


def test_an_answer_that_is_cut_is_asked_for_over_tcp_although_datagrams_are_lost() -> None:
    fault = Drop(1.0, connections=1)
    with Server(service=answer_in_full) as over_tcp, beside(over_tcp, fault) as server:
        found = resolver_of(server).resolve(NAME)
        assert len(addresses(found)) == MANY
        # More than two on a busy machine, where the resolver asks again.
        assert server.ledger.totals.accepted >= 2, "the first answer was lost"
        assert over_tcp.ledger.wait(open=0, closed=1)[0].messages_in >= 1

"""Whom handlers and `Accept()` hear on UDP: every sender, and what is sent to many hosts."""

from __future__ import annotations

import pickle
import socket
from typing import Any

import pytest
from support import LOOPBACK, SOON, has_ipv6, wait_until
from support.on_a_wire import on_a_wire, wired
from support.wire import forge, may_forge

from rsock import Accept, Client, Discard, Sender, Server, SocketOptions

raw = pytest.mark.skipif(not may_forge(), reason="raw sockets are not permitted here")


# --- every sender --------------------------------------------------------------------------


@raw
@pytest.mark.parametrize("port", [0, 1, 7, 19, 53, 123, 500, 514, 1023])
def test_a_handler_hears_every_source_port(port: int) -> None:
    heard: list[tuple[bytes, tuple[str, int]]] = []
    with Server(service=lambda data, address: heard.append((data, address)), transport="udp") as it:
        forge((LOOPBACK, port), it.address, b"x")
        wait_until(lambda: heard == [(b"x", (LOOPBACK, port))])
        assert it.ledger.totals.suspects == 0


@raw
@pytest.mark.parametrize("port", [0, 19, 123])
def test_accept_hears_every_source_port(port: int) -> None:
    with Server(service=Accept(), transport="udp") as server:
        forge((LOOPBACK, port), server.address, b"x")
        assert server.accept(SOON) == (b"x", (LOOPBACK, port))


@raw
def test_a_handler_answers_a_privileged_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ntp:
        try:
            ntp.bind((LOOPBACK, 123))
        except OSError:
            pytest.skip("port 123 is taken, or not permitted here")
        ntp.settimeout(SOON)
        with Server(service=lambda data, address: data[::-1], transport="udp") as server:
            ntp.sendto(b"time?", server.address)
            assert ntp.recv(100) == b"?emit"


@raw
def test_an_answer_to_port_0_is_dropped_and_no_error() -> None:
    with Server(service=lambda data, address: data, transport="udp") as server:
        forge((LOOPBACK, 0), server.address, b"x")
        wait_until(lambda: server.ledger.totals.dropped == 1)
        assert server.errors == []


def test_servers_of_one_process_may_write_to_each_other() -> None:
    with Server(service=lambda data, address: data.upper(), transport="udp") as shouting:
        with Server(service=Accept(), transport="udp") as asking:
            asking.sendto(b"hello", shouting.address)
            assert asking.accept(SOON) == (b"HELLO", shouting.address)


# --- the destination -----------------------------------------------------------------------


def test_a_datagram_tells_what_it_was_sent_to() -> None:
    heard: list[Sender] = []
    with Server(service=lambda data, address: heard.append(address), transport="udp") as server:
        with server.client() as client:
            client.send(b"x")
            wait_until(lambda: heard)
            [address] = heard
            assert address == client.getsockname()
            assert address.destination == server.address


def test_a_server_on_every_address_tells_which_one_was_written_to() -> None:
    service, everywhere = Accept(), "0.0.0.0"
    with Server(everywhere, service=service, transport="udp", allow_external=True) as server:
        with Client(transport="udp") as client:
            for host in ("127.0.0.1", "127.0.0.2"):
                client.sendto(b"x", (host, server.port))
                _, address = server.accept(SOON)
                assert address.destination == (host, server.port)


def test_a_sender_is_a_pair_like_any_other() -> None:
    sender = Sender(("127.0.0.1", 5), ("127.0.0.1", 6))
    host, port = sender
    assert (host, port) == sender == ("127.0.0.1", 5)
    assert hash(sender) == hash(("127.0.0.1", 5))
    copied = pickle.loads(pickle.dumps(sender))
    assert (copied, copied.destination) == (sender, sender.destination)


# --- broadcast and multicast ---------------------------------------------------------------

HEARERS = """
def hearing(host="0.0.0.0", **more):
    "A server, and a function that returns the next datagram, its sender and its destination."
    import queue
    heard = queue.Queue()
    def note(data, address):
        heard.put((data, address, address.destination))
        return data
    def accepted():
        data, address = accepting.accept(SOON)
        return data, address, address.destination
    handling = serve(note, host, **more)
    accepting = serve(rsock.Accept(), host, **more)
    return [(handling, lambda: heard.get(timeout=SOON)), (accepting, accepted)]
"""


@wired
def test_broadcast_and_multicast_are_heard_with_their_destination() -> None:
    on_a_wire(
        HEARERS
        + """
for server, heard in hearing():
    with server:
        server.start()
        for host in ("255.255.255.255", "10.9.0.255", "224.0.0.1", HOST):
            wire.send(FORGED, (host, server.port), b"to " + host.encode())
            assert heard() == (b"to " + host.encode(), FORGED, (host, server.port))
        assert server.ledger.totals.suspects == 0
"""
    )


@wired
def test_an_answer_to_a_broadcast_leaves_from_an_address_of_this_machine() -> None:
    on_a_wire(
        HEARERS
        + """
handling, heard = hearing()[0]
with handling:
    for host in ("255.255.255.255", "10.9.0.255", "224.0.0.1"):
        wire.send(FORGED, (host, handling.port), b"who is there?")
        heard()
        source, target, data = next(iter(wire.received(SOON)))
        assert (source, target, data) == ((HOST, handling.port), FORGED, b"who is there?"), host
"""
    )


@wired
def test_a_server_on_a_broadcast_address_hears_or_does_not_start() -> None:
    on_a_wire(
        HEARERS
        + """
for host in ("10.9.0.255", "255.255.255.255", "224.0.0.1"):
    for server, heard in hearing(host):
        with server:
            wire.send(FORGED, (host, server.port), b"x")
            assert heard() == (b"x", FORGED, (host, server.port))
    for service in (rsock.Echo(), rsock.Discard(), rsock.Forward(HOST, 9)):
        try:
            serve(service, host).start()
        except ValueError as error:
            assert "never answered by a service in Rust" in str(error), error
        else:
            raise AssertionError((host, service))
"""
    )


@wired
def test_a_group_is_heard_once_it_is_joined() -> None:
    on_a_wire(
        HEARERS
        + """
GROUP = "239.1.2.3"
for groups in ((GROUP, HOST), (GROUP, "wire0"), [GROUP + "%wire0", "239.1.2.4%wire0"]):
    options = rsock.SocketOptions(multicast=groups)
    for host in ("0.0.0.0", GROUP) if isinstance(groups, tuple) else ("0.0.0.0",):
        for server, heard in hearing(host, options=options):
            with server:
                server.start()
                # Not joined by this server.
                wire.send(FORGED, ("239.1.2.9", server.port), b"no")
                wire.send(FORGED, (GROUP, server.port), b"yes")
                assert heard() == (b"yes", FORGED, (GROUP, server.port))
                # A program that has joined a group may send to it without being asked.
                for _ in wire.received(): pass
                if isinstance(server.service, rsock.Accept):
                    assert server.sendto(b"to all of us", (GROUP, 5353)) == 12
                    source, target, data = next(iter(wire.received(SOON)))
                    assert (target, data) == ((GROUP, 5353), b"to all of us")
"""
    )


@wired
def test_no_service_in_rust_answers_a_group_that_its_server_has_joined() -> None:
    on_a_wire("""
options = rsock.SocketOptions(multicast=("239.1.2.3", HOST))
with serve(rsock.Echo(), options=options) as server:
    wire.send(FORGED, ("239.1.2.3", server.port), b"answer me")
    wait_until(lambda: server.ledger.totals.suspects == 1)
    assert server.ledger.totals.accepted == 0
    assert not list(wire.received())
""")


def test_a_broadcast_on_the_loopback_is_not_answered_by_a_service_in_rust() -> None:
    with pytest.raises(ValueError, match="never answered by a service in Rust"):
        Server("127.255.255.255", transport="udp").start()
    with Server("127.255.255.255", service=Accept(), transport="udp") as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            peer.sendto(b"x", server.address)
        data, address = server.accept(SOON)
        assert (data, address.destination) == (b"x", server.address)


def groups_of(text: str) -> list[str]:
    """The IPv4 groups that sockets of this machine have joined, as /proc/net/igmp has them."""
    reversed_bytes = socket.inet_aton(text)[::-1].hex().upper()
    with open("/proc/net/igmp") as lines:
        return [line for line in lines if reversed_bytes in line]


def test_a_client_joins_groups_too() -> None:
    group = "239.77.66.55"
    options = SocketOptions(multicast=(group, LOOPBACK))
    with Client(
        transport="udp", source_address=("0.0.0.0", 0), options=options, timeout=SOON
    ) as it:
        assert groups_of(group)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
            peer.sendto(b"x", (group, it.getsockname()[1]))
        assert it.recv(10) == b"x"
    wait_until(lambda: not groups_of(group))


def multicast_interface(group: str) -> tuple[int, str]:
    """An interface of this machine that has a route for this IPv6 group."""
    for index, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            try:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                probe.sendto(b"", (group, 9, 0, index))
            except OSError:
                continue
            return index, name
    pytest.skip("no interface with a route for IPv6 groups here")


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_an_ipv6_group_is_joined_by_an_ipv6_server() -> None:
    group = "ff15::7766"
    index, name = multicast_interface(group)
    options = SocketOptions(multicast=(group, name))
    server = Server("::", service=Accept(), transport="udp", allow_external=True, options=options)
    with server, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        server.start()
        peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        peer.sendto(b"x", (group, server.port, 0, index))
        data, address = server.accept(SOON)
        assert (data, address.destination) == (b"x", (group, server.port))
        # The answer leaves from an address of this machine, not from the group's.
        peer.settimeout(SOON)
        server.sendto(b"y", address)
        assert peer.recv(10) == b"y"


# --- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "named"),
    [
        ("10.0.0.1", ValueError, "'10.0.0.1'"),
        ("nowhere", ValueError, "'nowhere'"),
        (("239.1.2.3", 1.5), TypeError, "multicast"),
        (7, TypeError, "multicast"),
        ([("239.1.2.3", "lo"), "::1"], ValueError, "'::1'"),
        ([None], TypeError, "multicast"),
    ],
)
def test_what_is_no_group_is_named(value: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        SocketOptions(multicast=value)


def test_groups_are_for_udp_and_for_addresses_that_hear_them() -> None:
    options = SocketOptions(multicast="239.1.2.3")
    for refused in (
        lambda: Server(options=options),
        lambda: Server(path="\0none", options=options),
        lambda: Client(options=options),
        lambda: Server(transport="udp", service=Accept(), options=options).start(),
        lambda: Server(transport="udp", service=Discard(), options=options).start(),
    ):
        with pytest.raises(ValueError, match=r"239\.1\.2\.3"):
            refused()
    missing = SocketOptions(multicast=("239.1.2.3", "nowhere0"))
    everywhere = Server("0.0.0.0", transport="udp", allow_external=True, options=missing)
    with pytest.raises(OSError, match=r"join multicast group 239\.1\.2\.3%nowhere0"):
        everywhere.start()
    assert everywhere.state == "new"

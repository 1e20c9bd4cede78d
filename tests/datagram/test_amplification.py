"""How much a forged sender can make a UDP server send.

Tested with raw sockets and on a virtual wire. A test that needs its own network runs its code in a
fresh process, and the network ends with the process.
"""

from __future__ import annotations

import os
import socket
import time
from functools import partial

import pytest
from support import SOON, Script, wait_until
from support.on_a_wire import on_a_wire, wired
from support.wire import forge, may_forge

from rsock import Accept, Chargen, Client, Server

raw = pytest.mark.skipif(not may_forge(), reason="raw sockets are not permitted here")

# A server in another process: prints its port, ends when its standard input closes, prints what it
# sent.
OTHER_PROCESS = """
from rsock import Server
with Server(transport="udp") as server:
    print(server.port, flush=True)
    input()
# An answer can arrive before it is counted; after the stop all are.
print(server.ledger.totals.messages_out, server.ledger.totals.suspects, flush=True)
"""


def replies(*servers: Server) -> int:
    return sum(server.ledger.totals.messages_out for server in servers)


def answered(server: Server, count: int) -> bool:
    return replies(server) == count


def suspects(*servers: Server) -> int:
    return sum(server.ledger.totals.suspects for server in servers)


def settled(server: Server) -> bool:
    """Whether a server has processed everything sent to it before: it answers a later datagram."""
    with server.client(timeout=SOON) as client:
        client.send(b"are you done?")
        return client.recv(100) == b"are you done?"


# --- servers forged as each other's peers --------------------------------------------------


@raw
def test_two_servers_of_a_process_do_not_talk_to_each_other() -> None:
    with Server(transport="udp") as one, Server(transport="udp") as two:
        forge(one.address, two.address, b"answer me")
        forge(two.address, one.address, b"answer me")
        wait_until(lambda: suspects(one, two) == 2)
        assert settled(one)
        assert settled(two)
    # The two replies that `settled` has asked for. They can arrive before they are counted; after
    # the stop all are.
    assert replies(one, two) == 2


@raw
def test_a_server_does_not_talk_to_itself() -> None:
    with Server(transport="udp") as server:
        forge(server.address, server.address, b"answer me")
        wait_until(lambda: suspects(server) == 1)
        assert replies(server) == 0


@raw
def test_servers_on_every_address_are_known_by_each() -> None:
    with Server("0.0.0.0", transport="udp", allow_external=True) as wide:
        with Server(transport="udp") as narrow:
            forge(("127.0.0.1", wide.port), narrow.address, b"answer me")
            forge(("127.0.0.7", wide.port), narrow.address, b"answer me")
            wait_until(lambda: suspects(narrow) == 2)
            forge(narrow.address, ("127.0.0.1", wide.port), b"answer me")
            wait_until(lambda: suspects(wide) == 1)
            assert replies(wide, narrow) == 0


@raw
def test_a_service_in_rust_answers_no_server_with_a_handler() -> None:
    with Server(service=lambda data, address: data, transport="udp") as handling:
        with Server(service=Accept(), transport="udp") as accepting, Server(transport="udp") as one:
            forge(accepting.address, one.address, b"answer me")
            forge(handling.address, one.address, b"answer me")
            wait_until(lambda: suspects(one) == 2)
            # A handler hears every server, and this one's service does not answer it.
            forge(one.address, handling.address, b"answer me")
            wait_until(lambda: suspects(one) == 3)
    assert (replies(handling), replies(one)) == (1, 0)


@raw
def test_a_server_that_comes_to_a_clients_address_is_no_client_any_more() -> None:
    with Server(transport="udp") as server:
        with server.client(timeout=SOON) as client:
            client.send(b"x")
            client.recv(1)
            address = client.getsockname()
        with Server(*address, transport="udp") as other:
            forge(address, server.address, b"answer me")
            wait_until(lambda: suspects(server) == 1)
            assert server.ledger.totals.closed_by["service"] == 1
            assert (replies(server), replies(other)) == (1, 0)
        # After the server has stopped, a client can use its address again.
        with Client(transport="udp", source_address=address, timeout=SOON) as client:
            client.sendto(b"y", server.address)
            assert client.recv(1) == b"y"


@raw
def test_a_server_of_another_process_is_known_as_well() -> None:
    with Script(OTHER_PROCESS) as script, Server(transport="udp") as server:
        other = ("127.0.0.1", int(script.line()))
        forge(other, server.address, b"answer me")
        forge(server.address, other, b"answer me")
        wait_until(lambda: suspects(server) == 1)
        with Client(*other, transport="udp", timeout=SOON) as client:
            client.send(b"are you done?")
            client.recv(100)
        script.tell()
        assert script.line() == "1 1", "it has answered its client only"
        assert replies(server) == 0


@raw
def test_a_server_that_takes_a_clients_place_elsewhere_is_found_out() -> None:
    # Another process cannot report its servers; the peer is checked again after a number of
    # datagrams.
    code = OTHER_PROCESS.replace('Server(transport="udp")', 'Server("127.0.0.1", int(input()))')
    code = code.replace("int(input()))", 'int(input()), transport="udp")')
    with Script(code) as script, Server(transport="udp") as server:
        with server.client(timeout=SOON) as client:
            client.send(b"x")
            client.recv(1)
            address = client.getsockname()
        script.tell(str(address[1]))
        assert int(script.line()) == address[1]
        end = time.monotonic() + SOON
        while not suspects(server):
            # Repeated as often as necessary: where the server is slow, the kernel drops some
            # datagrams.
            forge(address, server.address, b"answer me")
            assert time.monotonic() < end, "the server has not noticed"
        assert server.ledger.totals.closed_by["service"] == 1
        script.tell()
        sent, _ = map(int, script.line().split())
        assert sent == 0, "the server knew from the start"


# --- ports and addresses -------------------------------------------------------------------


@raw
@pytest.mark.parametrize("port", [0, 7, 11, 13, 17, 19, 37])
def test_no_answer_to_the_port_of_a_service_that_answers_anything(port: int) -> None:
    with Server(transport="udp") as server:
        forge(("127.0.0.1", port), server.address, b"answer me")
        wait_until(lambda: suspects(server) == 1)
        assert replies(server) == 0
        assert server.ledger.totals.accepted == 0
        # Clients of DNS, NTP, ISAKMP and syslog use such ports.
        for count, client in enumerate((1, 53, 123, 500, 514, 1024), 1):
            forge(("127.0.0.1", client), server.address, b"answer me")
            wait_until(partial(answered, server, count))


def test_on_the_loopback_an_answer_may_be_larger() -> None:
    with Server(service=Chargen(), transport="udp") as server, server.client() as client:
        client.settimeout(SOON)
        sizes = set()
        for _ in range(20):
            client.send(b"")
            sizes.add(len(client.recv(600)))
        assert max(sizes) > 0
        assert server.ledger.totals.dropped == 0


# --- forged senders on a virtual wire --------------------------------------------------------


@wired
def test_a_forged_sender_gets_no_more_than_was_sent_in_its_name() -> None:
    on_a_wire("""
big = b"x" * 400
services = {
    "Echo": (rsock.Echo(), True),
    "Chargen": (rsock.Chargen(), False),
    "Quote": (rsock.Quote(big), False),
    "Greeting": (rsock.Greeting("hello"), False),
    "Daytime": (rsock.Daytime(), False),
    "Time": (rsock.Time(), False),
    "Discard": (rsock.Discard(), False),
    "handler": (lambda data, address: big, False),
    "mirror": (lambda data, address: data, True),
}
for name, (service, always) in services.items():
    with serve(service) as server:
        asked = {}
        for number, size in enumerate((0, 1, 4, 30, 400, 1400)):
            peer = (FORGED[0], FORGED[1] + number)
            asked[peer] = size
            wire.send(peer, (HOST, server.port), b"?" * size)
        wait_until(lambda: server.ledger.totals.messages_in == len(asked))
        if name != "Discard":
            wait_until(lambda: server.ledger.totals.messages_out + server.ledger.totals.dropped
                       == len(asked), what=name)
        answers = list(wire.received())
        assert len(answers) == server.ledger.totals.messages_out, name
        for source, target, data in answers:
            assert source == (HOST, server.port), name
            assert len(data) <= asked.pop(target), (name, target, len(data))
        assert not asked or not always, name
        totals = server.ledger.totals
        assert totals.bytes_out <= totals.bytes_in, name
        # Dropped, not truncated: what arrived is complete.
        if name in ("Quote", "handler"):
            assert [len(data) for _, _, data in answers] == [400, 400], name
""")


@wired
def test_a_forged_sender_gets_a_limited_number_of_answers_a_second() -> None:
    on_a_wire("""
import time
from functools import partial
with serve() as server:
    started = time.monotonic()
    sent = 0
    while sent < 4000:
        # As fast as the server processes them, so that none is dropped for lack of room.
        for _ in range(50):
            wire.send((FORGED[0], 2000 + sent % 3000), (HOST, server.port), b"answer me")
            sent += 1
        wait_until(lambda: server.ledger.totals.messages_in == sent)
    totals = lambda: server.ledger.totals
    wait_until(lambda: totals().messages_out + totals().dropped == sent)
    lasted = time.monotonic() - started
    answers = totals().messages_out
    # A burst of a thousand, and a thousand each second, for all its ports together.
    assert 1000 <= answers <= 1000 + 1000 * lasted + 1, (answers, lasted)
    for _ in wire.received(): pass
    # Other addresses have their own limit.
    wire.send(("10.9.0.88", 4000), (HOST, server.port), b"answer me")
    _, target, data = next(iter(wire.received(SOON)))
    assert (target, data) == (("10.9.0.88", 4000), b"answer me")
    with server.client(timeout=SOON) as client:
        for _ in range(2500):
            client.send(b"near")
            client.recv(10)
""")


@wired
def test_what_is_sent_to_all_is_not_answered() -> None:
    on_a_wire("""
with serve() as server:
    everybody = ["255.255.255.255", "10.9.0.255", "224.0.0.1"]
    for number, host in enumerate(everybody, 1):
        wire.send(FORGED, (host, server.port), b"answer me")
        wait_until(lambda: server.ledger.totals.suspects == number, what=host)
    for number, port in enumerate((0, 19, 37), 4):
        wire.send((FORGED[0], port), (HOST, server.port), b"answer me")
        wait_until(lambda: server.ledger.totals.suspects == number, what=str(port))
    assert server.ledger.totals.accepted == 0
    assert not list(wire.received())
    wire.send(FORGED, (HOST, server.port), b"answer me")
    assert next(iter(wire.received(SOON)))[1] == FORGED
""")


@wired
def test_an_answer_leaves_from_where_it_was_asked() -> None:
    on_a_wire("""
for service in (rsock.Echo(), lambda data, address: data):
    with serve(service) as server:
        for host in (HOST, OTHER):
            wire.send(FORGED, (host, server.port), b"who are you?")
            source, target, data = next(iter(wire.received(SOON)))
            assert (source, target, data) == ((host, server.port), FORGED, b"who are you?")
        records = server.ledger.wait(open=2)
        assert [record.local.address[0] for record in records] == [HOST, OTHER]
""")


@wired
def test_forged_as_this_machine_it_gets_nothing() -> None:
    on_a_wire("""
with serve() as server, serve(host="127.0.0.1") as other:
    for source in ((HOST, server.port), (OTHER, 4000), ("127.0.0.1", other.port),
                   ("127.0.0.1", 4000), ("0.0.0.0", 4000), ("255.255.255.255", 4000)):
        wire.send(source, (HOST, server.port), b"answer me")
    wire.send(FORGED, (HOST, server.port), b"and me")
    assert next(iter(wire.received(SOON)))[1:] == (FORGED, b"and me")
    wait_until(lambda: server.ledger.totals.messages_out == 1)
    assert server.ledger.totals.messages_in == 1
    assert other.ledger.totals.messages_out == 0
""")


@wired
def test_python_is_held_to_it_as_well() -> None:
    on_a_wire("""
with serve(rsock.Accept()) as server:
    try:
        server.sendto(b"unasked", FORGED)
    except PermissionError as error:
        assert "no more than it has sent" in str(error), error
    else:
        raise AssertionError("sent")
    wire.send(FORGED, (HOST, server.port), b"0123456789")
    assert server.accept(SOON) == (b"0123456789", FORGED)
    assert server.sendto(b"01234", FORGED) == 5
    assert server.sendto(b"56789", FORGED) == 5
    try:
        server.sendto(b"!", FORGED)
    except PermissionError:
        pass
    else:
        raise AssertionError("sent")
    assert [data for _, _, data in wire.received()] == [b"01234", b"56789"]
    assert server.ledger.totals.dropped == 2
""")


@wired
def test_peers_that_are_all_forged_take_no_more_than_their_bound() -> None:
    on_a_wire("""
with serve() as server:
    sent = 0
    for number in range(6000):
        source = (f"10.9.{number >> 8}.{number & 255}", 4000)
        wire.send(source, (HOST, server.port), b"x")
        sent += 1
        if sent % 50 == 0:
            totals = lambda: server.ledger.totals
            wait_until(lambda: totals().messages_in + totals().suspects >= sent - 8)
    totals = server.ledger.totals
    assert totals.open <= 4096, totals
    assert totals.closed_by["limit"] + totals.open == totals.accepted
report = server.stop()
totals = server.ledger.totals
assert totals.open == 0 and totals.accepted == totals.closed
assert len(server.ledger) <= 10_000
""")


def test_a_socket_of_ones_own_is_not_in_the_way() -> None:
    # The name under which other processes find a server may be in use already: the server works all
    # the same.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as squatter:
            squatter.bind(f"\0rsock/udp/127.0.0.1/{port}")
            number = os.dup(holder.fileno())
            with Server(transport="udp", fd=number) as server:
                assert settled(server)

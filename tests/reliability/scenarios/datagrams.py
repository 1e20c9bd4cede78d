"""Scenario 17: datagrams of every size, forged senders, and forwarders in a circle."""

import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from support import LOOPBACK, payload, wait_until
from support.wire import HOST, Wire, forge, may_forge, may_wire

from reliability.figures import Figure, at_most, equal
from reliability.load import PATIENCE
from reliability.process import Child, Served
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Server

# The smallest, one byte, the largest of an Ethernet frame, and the largest of IPv4.
SIZES = (0, 1, 1_472, 65_507)
LIMIT = 1_000
# What each service is sent on the virtual wire.
ASKED = (0, 1, 30, 400, 1_400)


def server(transport: str = "udp", kind: str = "Echo()") -> "Server":
    from rsock import Limits, Server

    service = (lambda data, address: data) if kind == "a handler" else None
    limits = Limits(datagram=LIMIT) if kind == "cut" else None
    return Server(service=service, transport=transport, limits=limits)


def dial(address: Any) -> socket.socket:
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.settimeout(PATIENCE)
    peer.bind((LOOPBACK, 0))
    peer.connect(tuple(address))
    return peer


def echoed(address: Any, times: int) -> int:
    """How many datagrams of all sizes came back unchanged."""
    with dial(address) as peer:
        count = 0
        for number in range(times):
            for size in SIZES:
                data = payload(size, seed=number)
                peer.send(data)
                count += peer.recv(70_000) == data
        return count


def cut(address: Any, times: int) -> int:
    """How many datagrams that are too long came back truncated to the limit."""
    with dial(address) as peer:
        count = 0
        for number in range(times):
            data = payload(LIMIT + 1 + number % 60_000, seed=number)
            peer.send(data)
            count += peer.recv(70_000) == data[:LIMIT]
        return count


def refused(address: Any, times: int) -> int:
    """How many of a bystander's datagrams came back while other clients left too early."""
    with dial(address) as bystander:
        count = 0
        for number in range(times):
            with dial(address) as gone:
                gone.send(b"the answer is refused")
            data = b"%d" % number
            bystander.send(data)
            count += bystander.recv(100) == data
        return count


def totals(server: "Server") -> dict[str, int]:
    """What a server has sent and dropped, once it has processed everything sent to it before."""
    with server.client(timeout=PATIENCE) as client:
        client.send(b"are you done?")
        client.recv(100)
    wait_until(lambda: server.ledger.totals.messages_out >= 1, PATIENCE)
    now = server.ledger.totals
    return {"sent": now.messages_out, "suspects": now.suspects}


def forged_within(times: int) -> list[int]:
    """Replies and suspected datagrams of two servers, each forged as the other's sender."""
    with server() as one, server(kind="a handler") as two:
        for _ in range(times):
            forge(one.address, two.address, b"answer me")
            forge(two.address, one.address, b"answer me")
            forge(one.address, one.address, b"answer me")
        # The answers of the handler's threads, which go to the other server. A wrong count is
        # reported.
        with contextlib.suppress(AssertionError):
            wait_until(lambda: one.ledger.totals.suspects >= 3 * times, PATIENCE)
        counts = [totals(each) for each in (one, two)]
        # Minus the answers that `totals` itself asked for.
        sent = sum(count["sent"] for count in counts) - len(counts)
        return [sent, sum(count["suspects"] for count in counts)]


def set_on(source: Any, target: Any, times: int) -> None:
    for _ in range(times):
        forge(tuple(source), tuple(target), b"answer me")


def amplified(times: int) -> dict[str, list[int]]:
    """Bytes in and out, and answers larger than their requests, by service, on a virtual wire."""
    from rsock import Chargen, Daytime, Echo, Greeting, Quote, Time

    wire = Wire()
    services: dict[str, Any] = {
        "Echo()": Echo(),
        "Chargen()": Chargen(),
        "Quote()": Quote(b"q" * 500),
        "Greeting()": Greeting("hello"),
        "Daytime()": Daytime(),
        "Time()": Time(),
        "a handler": lambda data, address: data * 2 + b"!",
    }
    return {name: _amplified(wire, service, times) for name, service in services.items()}


def _amplified(wire: Wire, service: Any, times: int) -> list[int]:
    from rsock import Server

    with Server("0.0.0.0", service=service, transport="udp", allow_external=True) as server:
        sizes = {}
        for number in range(times):
            peer = (f"10.9.0.{100 + number % 100}", 2_000 + number)
            sizes[peer] = ASKED[number % len(ASKED)]
            wire.send(peer, (HOST, server.port), b"?" * sizes[peer])
            if number % 50 == 49:
                wait_until(lambda: server.ledger.totals.messages_in == len(sizes), PATIENCE)
        wait_until(lambda: _all_dealt_with(server, times), PATIENCE)
        now = server.ledger.totals
        larger = sum(len(data) > sizes[target] for _, target, data in wire.received())
        return [now.bytes_in, now.bytes_out, larger]


def _all_dealt_with(server: "Server", count: int) -> bool:
    now = server.ledger.totals
    return now.messages_out + now.dropped == count


def forwarded_to_itself() -> int:
    """How many configurations that forward to themselves are refused at the start."""
    from rsock import Forward, Server

    count = 0
    for transport in ("tcp", "udp"):
        for target in (LOOPBACK, "0.0.0.0", f"::ffff:{LOOPBACK}", "localhost"):
            with Server(transport=transport) as holder:
                port = holder.port
            forwarder = Server(LOOPBACK, port, Forward(target, port), transport=transport)
            try:
                forwarder.start().stop()
            except ValueError:
                count += forwarder.state == "new"
        # Through another forwarder.
        with Server(transport=transport) as holder:
            port = holder.port
        with Server(service=Forward(LOOPBACK, port), transport=transport) as other:
            forwarder = Server(LOOPBACK, port, Forward(other), transport=transport)
            with contextlib.suppress(ValueError):
                forwarder.start().stop()
            count += forwarder.state == "new"
    return count


def run(size: Size) -> Iterator[Figure]:
    times = size.of(brief=5, short=200, long=5_000)
    for kind in ("Echo()", "a handler"):
        with Served(server, "udp", kind) as served, Child() as peers:
            got = peers.call(echoed, served.address, times)
            yield equal(f"{kind}: of 0, 1, 1 472 and 65 507 bytes, echoed", got, times * len(SIZES))
            got = peers.call(refused, served.address, times)
            yield equal(f"{kind}: a bystander's, while others are gone", got, times)
            report = served.stop()
            yield equal(f"{kind}: errors", report["errors"], 0)
            yield equal(f"{kind}: in the ledger", report["totals"]["open"], 0)
            yield from served.afterwards()
    with Served(server, "udp", "cut") as served, Child() as peers:
        got = peers.call(cut, served.address, times)
        yield equal("too long: echoed as far as the limit goes", got, times)
        served.stop()
        yield from served.afterwards()
    if may_forge():
        with Child() as child:
            sent, suspects = child.call(forged_within, times)
            yield at_most(
                "replies to a forged one, within a process", sent / times, 2, measured=False
            )
            # Two of each three were sent to the service; the third is the answer of the handler,
            # which receives every datagram.
            yield equal("suspects counted", suspects, times * 3)
        with Served(server) as served, Served(server) as other:
            for source, target in ((served, other), (other, served)):
                with Child() as child:
                    child.call(set_on, source.address, target.address, times)
            sent = sum(each.call_with_server(totals)["sent"] - 1 for each in (served, other))
            replies = sent / times
            yield at_most("replies to a forged one, two processes", replies, 2, measured=False)
            for each in (served, other):
                each.stop()
                yield from each.afterwards()
    if may_wire():
        with Child() as child:
            for name, (came, went, larger) in child.call(amplified, times * 10).items():
                factor = went / max(came, 1)
                yield at_most(f"{name}: factor to a forged sender", factor, 1.0, measured=False)
                yield equal(f"{name}: answers larger than their requests", larger, 0)
    with Child() as child:
        yield equal("forwarding to itself: refused", child.call(forwarded_to_itself), 10)


SCENARIO = Scenario("17", "UDP: sizes, spoofed addresses, loops", run)

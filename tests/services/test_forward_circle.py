"""Forwarders of several processes that lead to each other: what goes round is ended."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

import pytest
from support import LOOPBACK, SOON, Script, dial, dial_path, has_ipv6, read_to_end, wait_until

# Prints the address of its forwarder, forwards to where its input says, and prints its account when
# told to. The port is bound first, because each process needs the port of the other.
FORWARDER = """
import sys
from rsock import Forward, Server
transport, where = sys.argv[1:]
if transport == "unix":
    there = chr(0) + sys.stdin.readline().strip()
    server = Server(path=chr(0) + where, service=Forward(path=there))
else:
    with Server(where, transport=transport) as holder:
        port = holder.port
    print(port, flush=True)
    there = int(sys.stdin.readline())
    server = Server(where, port, Forward(where, there), transport=transport)
with server:
    print("serving", flush=True)
    for _ in sys.stdin:
        totals = server.ledger.totals
        errors = [record.error for record in server.ledger if record.error]
        print(totals.accepted, totals.messages_in, sum("circle" in e for e in errors), flush=True)
"""
# Far more than the hops that are allowed, and far fewer than a loop without end makes.
MOST = 100


@contextlib.contextmanager
def circle(transport: str, where: str) -> Iterator[tuple[Script, Script, tuple[str, int]]]:
    with Script(FORWARDER, transport, where) as one, Script(FORWARDER, transport, where) as two:
        ports = [int(one.line()), int(two.line())]
        one.tell(str(ports[1]))
        two.tell(str(ports[0]))
        assert [one.line(), two.line()] == ["serving", "serving"]
        yield one, two, (where, ports[0])


def account(*scripts: Script) -> list[int]:
    """Accepted, datagrams received, and errors that name the circle, of all scripts together."""
    counts = []
    for script in scripts:
        script.tell()
        counts.append([int(word) for word in script.line().split()])
    return [sum(column) for column in zip(*counts, strict=True)]


def is_ended(dial: Callable[[], socket.socket], data: bytes) -> bool:
    """Whether the server ends a connection, which it may before the client's connect returns."""
    try:
        with dial() as peer:
            peer.sendall(data)
            return read_to_end(peer) == b""
    except (ConnectionResetError, BrokenPipeError):
        return True


@pytest.mark.parametrize("host", [LOOPBACK, "::1"])
def test_a_connection_that_goes_round_through_another_process_is_ended(host: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 here")
    with circle("tcp", host) as (one, two, address):
        assert is_ended(lambda: dial(address), b"round and round")
        accepted, _, named = account(one, two)
        assert 2 <= accepted < MOST
        assert named >= 1


def test_a_connection_that_goes_round_through_unix_sockets_is_ended() -> None:
    # Abstract names, because a process that is killed leaves its file behind.
    paths = [f"rsock-circle-{os.getpid()}-{number}" for number in (1, 2)]
    with contextlib.ExitStack() as stack:
        one, two = [stack.enter_context(Script(FORWARDER, "unix", path)) for path in paths]
        one.tell(paths[1])
        two.tell(paths[0])
        assert [one.line(), two.line()] == ["serving", "serving"]
        assert is_ended(lambda: dial_path("\0" + paths[0]), b"")
        accepted, _, named = account(one, two)
        assert 2 <= accepted < MOST
        assert named >= 1


@pytest.mark.parametrize("host", [LOOPBACK, "::1"])
def test_a_datagram_that_goes_round_through_another_process_is_ended(host: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 here")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with circle("udp", host) as (one, two, address), socket.socket(family, socket.SOCK_DGRAM) as it:
        for number in range(1, 4):
            it.sendto(b"round and round", address)
            wait_until(lambda n=number: account(one, two)[2] >= n)  # type: ignore[misc]
        before = account(one, two)
        assert before[1] < 3 * MOST
        # It stands still: what came round was not forwarded again.
        with socket.socket(family, socket.SOCK_DGRAM) as other:
            other.sendto(b"once more", address)
            wait_until(lambda: account(one, two)[2] > before[2])
        assert account(one, two)[1] <= before[1] + MOST


def test_a_chain_of_forwarders_that_is_no_circle_is_long_enough() -> None:
    """Ten processes in a row, each with a forwarder to the next."""
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(socket.create_server((LOOPBACK, 0)))
        target.settimeout(SOON)
        port = target.getsockname()[1]
        for _ in range(10):
            script = stack.enter_context(Script(FORWARDER, "tcp", LOOPBACK))
            own = int(script.line())
            script.tell(str(port))
            assert script.line() == "serving"
            port = own
        with dial((LOOPBACK, port)) as peer:
            far, _ = target.accept()
            with far:
                peer.sendall(b"hello")
                assert far.recv(5) == b"hello"

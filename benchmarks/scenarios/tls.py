"""The cost of TLS 1.3: handshakes, messages, bulk and idle connections, all with one certificate.

HAProxy and nginx cannot echo, so they end TLS and forward to a target that echoes by splice; so
does *rsock*, while *rsock, echo*, asyncio and uvloop echo themselves. The server has one core; the
load and the target share the other. Must never count the target, nor a handshake that was resumed.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from harness.certificate import folder
from harness.children import LOAD_CORE, Child, binary, script
from harness.contest import Contender, Scenario, Target, Turn
from harness.peers import SPLICE, Peer
from harness.procfs import (
    come_to_rest,
    open_files,
    process_cpu_nanoseconds,
    resident_bytes,
    wait_until,
)
from servers.foreign_forward import STREAM_MODULE

WARM_UP = 0.1
# Concurrent handshakes.
UNDER_WAY = 50
WARM_CONNECTIONS = 100
IDLE_CONNECTIONS = 1_000

ECHO = Peer("rsock, echo", script("servers.rsock_tls"), requires="rsock")
ASYNCIO = Peer("asyncio", script("servers.asyncio_echo"), requires="rsock")
UVLOOP = Peer("uvloop", script("servers.uvloop_echo"), requires="uvloop")

FORWARD = Peer("rsock", script("servers.rsock_tls"), requires="rsock")
HAPROXY = Peer("haproxy", script("servers.foreign_forward", "haproxy"), program="haproxy")
NGINX = Peer(
    "nginx",
    script("servers.foreign_forward", "nginx"),
    program="nginx" if STREAM_MODULE.exists() else "libnginx-mod-stream",
)

FORWARDING = (FORWARD, HAPROXY, NGINX)


@contextmanager
def _served(peer: Peer) -> Iterator[Child]:
    """The server; before it, the target of one that forwards."""
    with ExitStack() as stack:
        arguments = [str(folder())]
        if peer in FORWARDING:
            arguments.insert(0, stack.enter_context(Child(SPLICE.command, LOAD_CORE)).greeting)
        yield stack.enter_context(peer.start(*arguments))


def _load(server: Child, connections: int, size: int = 64, *, churns: bool = False) -> Child:
    arguments = ["--port", server.greeting, "--connections", str(connections)]
    arguments += ["--size", str(size), "--churn", str(int(churns))]
    return Child(binary("tls_load", *arguments), LOAD_CORE)


@contextmanager
def _busy(peer: Peer, connections: int, size: int, churns: bool) -> Iterator[Turn]:
    """Turns that give µs of the server for each message, or for each handshake."""
    counted = "handshakes" if churns else "messages"
    with _served(peer) as server, _load(server, connections, size, churns=churns) as load:

        def turn(seconds: float) -> float:
            before = process_cpu_nanoseconds(server.pid)
            window = json.loads(load.ask(str(seconds)))
            spent = process_cpu_nanoseconds(server.pid) - before
            return float(spent / 1e3 / window[counted])

        turn(WARM_UP)
        yield turn


@contextmanager
def _idle(peer: Peer) -> Iterator[Turn]:
    """A turn that gives the bytes of each connection that has made its handshake."""
    with _served(peer) as server:
        with _load(server, WARM_CONNECTIONS):
            held = open_files(server.pid)
        # Where a connection is forwarded, it has two descriptors.
        wait_until(
            lambda: open_files(server.pid) <= held - WARM_CONNECTIONS, "connections to be closed"
        )

        def turn(_: float) -> float:
            come_to_rest(server.pid)
            resident = resident_bytes(server.pid)
            with _load(server, IDLE_CONNECTIONS):
                come_to_rest(server.pid)
                return (resident_bytes(server.pid) - resident) / IDLE_CONNECTIONS

        yield turn


def _scenario(
    key: str,
    title: str,
    unit: str,
    peers: tuple[Peer, ...],
    start: Callable[[Peer], AbstractContextManager[Turn]],
    base: Peer,
    target: Target | None,
    turns: int = 5,
) -> Scenario:
    """The first of the peers is the rsock that the target is for."""

    def contender(peer: Peer, name: str) -> Contender:
        ours = peer is peers[0]
        return Contender(
            "rsock" if ours else name,
            partial(start, peer),
            None if name == base.name else base.name,
            target if ours else None,
            peer.requires,
            peer.program,
        )

    entries = [contender(peer, peer.name) for peer in peers]
    entries.append(contender(base, f"{base.name} again"))
    return Scenario(key, title, unit, tuple(entries), turns=turns)


TLS_HANDSHAKE = _scenario(
    "tls-handshake",
    f"TLS: connect, handshake, echo 64 B, reset; {UNDER_WAY} under way",
    "CPU µs/handshake",
    (FORWARD, ECHO, HAPROXY, NGINX, ASYNCIO, UVLOOP),
    partial(_busy, connections=UNDER_WAY, size=64, churns=True),
    HAPROXY,
    Target("≤", 1.2, "≤ 1.2 × haproxy"),
)
TLS_ECHO = _scenario(
    "tls-echo50",
    "TLS: echo 64 B, 50 connections",
    "CPU µs/message",
    (ECHO, ASYNCIO, UVLOOP),
    partial(_busy, connections=50, size=64, churns=False),
    UVLOOP,
    Target("≤", 0.6, "≤ 0.6 × uvloop"),
)
TLS_BULK = _scenario(
    "tls-bulk",
    "TLS: echo 1 MiB, 10 connections",
    "CPU µs/message",
    (FORWARD, ECHO, HAPROXY, NGINX, ASYNCIO, UVLOOP),
    partial(_busy, connections=10, size=1 << 20, churns=False),
    HAPROXY,
    Target("≤", 1.0, "≤ haproxy"),
)
TLS_IDLE = _scenario(
    "tls-idle",
    f"TLS: idle connections, {IDLE_CONNECTIONS:,} of them",
    "bytes/connection",
    (ECHO, HAPROXY, NGINX, ASYNCIO, UVLOOP),
    _idle,
    HAPROXY,
    None,
    # A second turn would still find the memory of the first.
    turns=1,
)

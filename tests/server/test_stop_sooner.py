"""A later stop with an earlier deadline: every shape of server hears it.

Each shape is kept busy, so that its stop would last as long as its deadline allows.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    LOOPBACK,
    SOON,
    Background,
    dial,
    dial_narrow,
    dial_path,
    listener,
    payload,
    send_until_stuck,
    wait_until,
)

import rsock
from rsock import Accept, ByConnection, Echo, Forward, Greeting, LineEcho, Server, SocketOptions

# Far longer than any test may last.
LONG = 50.0
BULK = 16 << 20

Busy = contextlib.AbstractContextManager[Server]


@contextlib.contextmanager
def socket_path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="rsock-") as name:
        yield str(Path(name) / "x.sock")


@contextlib.contextmanager
def unread(**settings: Any) -> Iterator[Server]:
    """A peer that does not read what it is sent."""
    server = Server(**settings).start()
    with dial_narrow(server.address) as peer:
        send_until_stuck(peer, payload(BULK))
        yield server


@contextlib.contextmanager
def unread_on_unix(**settings: Any) -> Iterator[Server]:
    with socket_path() as path:
        server = Server(path=path, **settings).start()
        with dial_path(path) as peer:
            send_until_stuck(peer, payload(BULK))
            yield server


@contextlib.contextmanager
def greeted(**settings: Any) -> Iterator[Server]:
    """A final message that its peer does not read."""
    server = Server(service=Greeting(payload(BULK)), **settings).start()
    with dial_narrow(server.address):
        server.ledger.wait(open=1)
        yield server


@contextlib.contextmanager
def in_handler(transport: str = "tcp", **settings: Any) -> Iterator[Server]:
    """A handler that does not return."""
    entered, release = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        entered.set()
        release.wait(LONG)

    service: Any = (lambda data, address: wait()) if transport == "udp" else (lambda conn: wait())
    server = Server(service=service, transport=transport, **settings).start()
    try:
        with server.client(timeout=SOON) as client:
            client.send(b"x")
            assert entered.wait(SOON)
            yield server
    finally:
        release.set()


@contextlib.contextmanager
def in_handler_on_unix(**settings: Any) -> Iterator[Server]:
    with socket_path() as path:
        entered, release = threading.Event(), threading.Event()

        def wait(conn: rsock.Connection) -> None:
            entered.set()
            release.wait(LONG)

        server = Server(path=path, service=wait, **settings).start()
        try:
            with dial_path(path):
                assert entered.wait(SOON)
                yield server
        finally:
            release.set()


@contextlib.contextmanager
def lingering(**settings: Any) -> Iterator[Server]:
    """A handler has returned, and its last bytes are on their way to a peer that does not read."""

    def reply(conn: rsock.Connection) -> None:
        conn.recv(1, socket.MSG_PEEK)
        conn.sendall(payload(400_000))

    options = SocketOptions(send_buffer=1 << 20)
    server = Server(service=reply, options=options, **settings).start()
    with dial_narrow(server.address) as peer:
        peer.sendall(b"unread")
        server.ledger.wait(open=0, closed=1)
        yield server


@contextlib.contextmanager
def in_a_call(**settings: Any) -> Iterator[Server]:
    """A connection of `Accept()` that another thread is sending on."""
    server = Server(service=Accept(), **settings).start()
    with dial_narrow(server.address):
        conn, _ = server.accept(SOON)

        def send() -> None:
            with contextlib.suppress(OSError):
                conn.sendall(payload(BULK))

        sending = Background(send)
        wait_until(sending.asleep, what="the send waits for the peer")
        yield server
        sending.result()
        conn.close()


@contextlib.contextmanager
def waiting_accept(transport: str) -> Iterator[Server]:
    """A call of `accept` that waits. No stop waits for it."""
    server = Server(service=Accept(), transport=transport).start()

    def accept() -> None:
        with contextlib.suppress(rsock.StateError):
            server.accept(SOON)

    waiting = Background(accept)
    wait_until(waiting.asleep, what="accept waits")
    yield server
    waiting.result()


@contextlib.contextmanager
def unanswered(**settings: Any) -> Iterator[Server]:
    """A forwarder whose target does not answer."""
    with listener() as target:
        server = Server(service=Forward(*target.getsockname()), **settings).start()
        with dial(server.address) as peer:
            peer.sendall(b"x")
            far, _ = target.accept()
            with far:
                assert far.recv(1) == b"x"
                yield server


@contextlib.contextmanager
def unanswered_datagram(**settings: Any) -> Iterator[Server]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.settimeout(SOON)
        target.bind((LOOPBACK, 0))
        service = Forward(*target.getsockname())
        server = Server(service=service, transport="udp", **settings).start()
        with server.client() as client:
            client.send(b"x")
            assert target.recv(1) == b"x"
            yield server


@contextlib.contextmanager
def answered_datagram(service: Any = None, **settings: Any) -> Iterator[Server]:
    """A UDP server that owes nothing. No stop of it waits for its deadline."""
    server = Server(service=service, transport="udp", **settings).start()
    with server.client(timeout=SOON) as client:
        client.send(b"x")
        assert client.recv(1) == b"x"
        yield server


BUSY: dict[str, Callable[[], Busy]] = {
    "echo by one worker": lambda: unread(workers=1),
    "echo by two workers": lambda: unread(workers=2),
    "echo on a Unix socket": unread_on_unix,
    "echo byte by byte": lambda: unread(_stages="bytewise"),
    "echo delayed": lambda: unread(_stages="delayed"),
    "lines": lambda: unread(service=LineEcho(newline=True)),
    "by connection": lambda: unread(service=ByConnection(Echo())),
    "greeting": greeted,
    "greeting delayed": lambda: greeted(_stages="delayed"),
    "handler": in_handler,
    "handler delayed": lambda: in_handler(_stages="delayed"),
    "handler that has returned": lingering,
    "handler on a Unix socket": in_handler_on_unix,
    "handler on UDP": lambda: in_handler("udp"),
    "accept": in_a_call,
    "accept delayed": lambda: in_a_call(_stages="delayed"),
    "forward": unanswered,
    "forward by one worker": lambda: unanswered(workers=1),
    "forward delayed": lambda: unanswered(_stages="delayed"),
    "forward on UDP": unanswered_datagram,
    "forward on UDP by two workers": lambda: unanswered_datagram(workers=2),
}
AT_REST: dict[str, Callable[[], Busy]] = {
    "echo on UDP": answered_datagram,
    "echo on UDP by two workers": lambda: answered_datagram(workers=2),
    "accept that waits": lambda: waiting_accept("tcp"),
    "accept on UDP that waits": lambda: waiting_accept("udp"),
}


@pytest.mark.parametrize("shape", BUSY)
def test_every_shape_of_server_hears_an_earlier_deadline(shape: str) -> None:
    with BUSY[shape]() as server:
        first = Background(server.stop, LONG)
        wait_until(lambda: server.state == "draining")
        wait_until(first.asleep, what="the first stop waits for what the server owes")
        began = time.monotonic()
        report = server.stop(0)
        assert time.monotonic() - began < SOON
        assert first.result() == report
        assert report.forced + report.abandoned >= 1


@pytest.mark.parametrize("shape", AT_REST)
def test_a_server_that_owes_nothing_waits_for_no_deadline(shape: str) -> None:
    with AT_REST[shape]() as server:
        began = time.monotonic()
        assert Background(server.stop, LONG).result() == server.stop(0)
        assert time.monotonic() - began < SOON


@pytest.mark.parametrize("shape", ["echo by one worker", "handler on UDP", "forward on UDP"])
def test_a_stop_of_all_servers_is_an_earlier_deadline_too(shape: str) -> None:
    with BUSY[shape]() as server:
        first = Background(server.stop, LONG)
        wait_until(lambda: server.state == "draining")
        wait_until(first.asleep, what="the first stop waits for what the server owes")
        reports = rsock.stop_all(0)
        assert first.result() in reports

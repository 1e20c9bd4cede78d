"""`Limits.handshakes` bounds the handshakes of a server: those at the accept, and `start_tls`."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import SOON, Background, dial, wait_until

from rsock import TLS, Accept, Client, Connection, Limits, Script, Server
from rsock.faults import Latency

MADE = TLS.for_tests()
ONE = Limits(handshakes=1, first_byte=30)
# A first part of a ClientHello, which takes a place.
PART = b"\x16\x03\x01"


def test_further_handshakes_wait_for_one_to_end() -> None:
    with Server(tls=MADE, limits=Limits(handshakes=1, first_byte=30)) as server:
        slow = dial(server.address)
        # The beginning of a hello has the only place.
        slow.sendall(b"\x16\x03\x01")
        server.ledger.wait(open=1, timeout=SOON)
        with pytest.raises(TimeoutError):
            server.client(timeout=0.3)
        with dial(server.address):
            server.ledger.wait(open=2, timeout=SOON)
        # Neither of these waits for a place any more.
        server.ledger.wait(open=1, closed=2, timeout=SOON)
        client = Client(tls=MADE, timeout=SOON)
        thread = threading.Thread(target=client.connect, args=[server.address])
        thread.start()
        server.ledger.wait(open=2, timeout=SOON)
        slow.close()
        thread.join()
        with client:
            client.sendall(b"x")
            assert client.recv_exactly(1) == b"x"


def talk(conn: Connection) -> None:
    """The server's side of a small protocol: a line, an answer, TLS, an echo."""
    assert conn.recv_line() == b"STARTTLS\r\n"
    conn.sendall(b"go\r\n")
    conn.start_tls(MADE)
    while data := conn.recv(100):
        conn.sendall(data)


def script() -> Script:
    dialogue = Script().expect(b"STARTTLS\r\n").send(b"go\r\n").start_tls(MADE, timeout=SOON)
    return dialogue.expect(b"hello").send(b"hello").expect_end()


def upgrading(kind: str, limits: Limits) -> Server:
    """A server whose clients begin TLS by `talk`, in each way that there is."""
    options: dict[str, Any] = {"faults": [Latency(0.0)]} if kind == "with a worker" else {}
    services: dict[str, Callable[[], Any]] = {"accept": Accept, "script": script}
    service = services.get(kind, lambda: talk)()
    # Handshakes that fail are what these tests are about.
    return Server(service=service, limits=limits, on_error=lambda error: None, **options)


@contextlib.contextmanager
def accepting(server: Server, kind: str) -> Any:
    """Has a thread for each connection call `talk`, where `accept` returns them."""
    if kind != "accept":
        yield
        return

    def serve(conn: Connection) -> None:
        with conn, contextlib.suppress(OSError):
            talk(conn)

    def accept() -> None:
        for conn, _ in server:
            talking.append(Background(serve, conn))

    talking: list[Background[None]] = []
    accepted = Background(accept)
    yield
    server.stop()
    accepted.result()
    for each in talking:
        each.result()


def told(server: Server) -> Any:
    """A client that was told to begin."""
    stream = dial(server.address)
    stream.settimeout(SOON)
    stream.sendall(b"STARTTLS\r\n")
    assert stream.recv(4) == b"go\r\n"
    return stream


def half_way(server: Server) -> Any:
    """A client that has begun, has the server's answer, and so a place, and says no more."""
    stream, outgoing = told(server), ssl.MemoryBIO()
    context = ssl.create_default_context(cadata=MADE.ca_pem)
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    stream.sendall(outgoing.read())
    assert stream.recv(1)
    return stream


def begin(server: Server, **options: Any) -> Client:
    """A client that is about to begin."""
    client = Client(*server.address, **{"timeout": SOON, **options})
    client.sendall(b"STARTTLS\r\n")
    assert client.recv_line() == b"go\r\n"
    return client


KINDS = pytest.mark.parametrize("kind", ["itself", "with a worker", "accept", "script"])


@KINDS
def test_further_upgrades_wait_for_one_to_end(kind: str) -> None:
    with upgrading(kind, ONE) as server, accepting(server, kind):
        slow = half_way(server)
        with begin(server, timeout=0.3) as late, pytest.raises(TimeoutError):
            late.start_tls(MADE)
        # One that closes while it waits ends at once, and waits for a place no more.
        with told(server) as gone:
            gone.sendall(PART)
        server.ledger.wait(open=1, closed=2, timeout=SOON)
        with begin(server) as client:
            upgrade = Background(client.start_tls, MADE)
            wait_until(upgrade.asleep)
            slow.close()
            upgrade.result()
            client.sendall(b"hello")
            assert client.recv_exactly(5) == b"hello"
        server.ledger.wait(closed=4, timeout=SOON)
        totals = server.ledger.totals
        assert (sum(totals.tls_handshakes.values()), totals.tls_failed) == (1, 3)


@KINDS
def test_one_that_waits_waits_under_the_limit_of_the_first_byte(kind: str) -> None:
    # The timer of `idle` runs already when the wait begins.
    limits = Limits(handshakes=1, first_byte=1, idle=60)
    with upgrading(kind, limits) as server, accepting(server, kind):
        slow = half_way(server)
        waiting = told(server)
        waiting.sendall(PART)
        records = server.ledger.wait(closed=2, timeout=SOON)
        for record in records:
            if kind == "script":
                # The dialogue has come no further, which is an error of its own.
                assert "ended during the handshake" in str(record.error)
            else:
                assert (record.closed_by, record.limit) == ("limit", "first_byte")
            assert record.seconds >= 1
        slow.close()
        waiting.close()


def test_one_that_waits_waits_under_the_time_out_of_the_call() -> None:
    caught: list[BaseException] = []

    def impatient(conn: Connection) -> None:
        assert conn.recv_line() == b"STARTTLS\r\n"
        conn.sendall(b"go\r\n")
        if conn.id == 2:
            conn.settimeout(0.2)
        try:
            conn.start_tls(MADE)
        except OSError as error:
            caught.append(error)
            return
        conn.sendall(b"hello")

    with Server(service=impatient, limits=ONE, on_error="raise") as server:
        slow = half_way(server)
        with begin(server) as late, pytest.raises(OSError, match="reset"):
            late.start_tls(MADE)
        wait_until(lambda: caught)
        assert isinstance(caught[0], TimeoutError)
        assert "start_tls" in str(caught[0])
        slow.close()
        # It has left no place taken.
        with begin(server) as client:
            client.start_tls(MADE)
            assert client.recv_exactly(5) == b"hello"


def test_one_that_waits_does_not_delay_a_stop() -> None:
    with upgrading("itself", ONE) as server:
        slow, waiting = half_way(server), told(server)
        waiting.sendall(PART)
        report = server.stop(0.2)
        assert report.seconds < SOON
        slow.close()
        waiting.close()


def test_many_upgrades_pass_one_place_in_turn() -> None:
    def visit(server: Server) -> bytes:
        with begin(server) as client:
            client.start_tls(MADE)
            client.sendall(b"hello")
            return client.recv_exactly(5)

    with upgrading("itself", ONE) as server:
        visits = [Background(visit, server) for _ in range(20)]
        assert [each.result() for each in visits] == [b"hello"] * 20
        server.ledger.wait(closed=20, timeout=SOON)
        assert server.ledger.totals.tls_failed == 0


def test_the_places_are_those_of_the_server_not_of_the_certificate() -> None:
    """Two servers that use one TLS object have a place each."""
    with upgrading("itself", ONE) as one, upgrading("itself", ONE) as other:
        slow = half_way(one)
        with begin(other) as client:
            client.start_tls(MADE)
            client.sendall(b"hello")
            assert client.recv_exactly(5) == b"hello"
        slow.close()


def test_the_upgrade_of_a_client_takes_no_place() -> None:
    """A handler whose own client begins TLS with another server, while its server has no place."""
    with upgrading("itself", ONE) as server:
        slow = half_way(server)

        def relay(conn: Connection) -> None:
            with begin(target) as client:
                client.start_tls(MADE)
                client.sendall(b"hello")
                conn.sendall(client.recv_exactly(5))

        with (
            upgrading("itself", Limits()) as target,
            Server(service=relay, limits=ONE, on_error="raise") as outer,
            Client(*outer.address, timeout=SOON) as client,
        ):
            assert client.recv_exactly(5) == b"hello"
        slow.close()

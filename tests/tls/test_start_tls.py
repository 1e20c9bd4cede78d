"""TLS that begins on a connection in use: `start_tls` of both sides, with foreign peers too."""

from __future__ import annotations

import contextlib
import os
import select
import smtplib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from support import (
    SOON,
    Background,
    dial,
    fds,
    listener,
    payload,
    read_to_end,
    threads,
    wait_until,
)
from support.roles import handled

from rsock import TLS, Accept, Client, Connection, Forward, Limits, Server, StateError
from rsock.faults import Fault, Latency

DATA = payload(3_000_000)


@pytest.fixture(scope="module")
def tls() -> TLS:
    return TLS.for_tests()


@pytest.fixture(scope="module")
def context(tls: TLS) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=tls.ca_pem)


@pytest.fixture
def server_context(tls: TLS, tmp_path: Path) -> ssl.SSLContext:
    """The same certificate for the standard library's side."""
    path = tmp_path / "both.pem"
    path.write_text(tls.cert_pem + tls.key_pem)
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(path)
    return made


def upgrade(conn: Connection, tls: TLS) -> None:
    """The server's side of a small protocol: a line, an answer, TLS."""
    assert conn.recv_line() == b"STARTTLS\r\n"
    conn.sendall(b"go\r\n")
    conn.start_tls(tls)


def echoing(tls: TLS) -> Callable[[Connection], None]:
    def handler(conn: Connection) -> None:
        upgrade(conn, tls)
        while data := conn.recv(65_536):
            conn.sendall(data)

    return handler


def refused(tls: TLS, caught: list[ssl.SSLError]) -> Callable[[Connection], None]:
    """A handler whose TLS may fail, which it notes."""

    def handler(conn: Connection) -> None:
        try:
            upgrade(conn, tls)
        except ssl.SSLError as error:
            caught.append(error)

    return handler


def ask(stream: Any) -> None:
    stream.sendall(b"STARTTLS\r\n")
    answer = b""
    while not answer.endswith(b"\r\n"):
        part = stream.recv(4 - len(answer))
        assert part, "the server has closed"
        answer += part
    assert answer == b"go\r\n"


@contextlib.contextmanager
def plain(server: Server) -> Iterator[socket.socket]:
    """A client of the standard library that was told to go."""
    with dial(server.address) as stream:
        ask(stream)
        yield stream


# --- The two sides ------------------------------------------------------------------------


def test_both_sides_begin_tls_in_place(tls: TLS) -> None:
    with handled(echoing(tls)) as server, Client(*server.address, timeout=SOON) as client:
        number = client.fileno()
        ask(client)
        client.start_tls(tls)
        assert client.fileno() == number
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"
        [record] = server.ledger
        for each in (record, client.record):
            assert each is not None
            assert each.tls is not None
            assert each.tls.version == "TLSv1.3"
            assert each.tcp_info is not None
        assert record.tls is not None
        assert record.tls.sni is None, "the address of the client's target is no host name"
        assert client.getpeername() == server.address
        client.close()
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert (record.closed_by, record.error) == ("peer", None)


def test_nothing_but_tls_crosses_the_wire_behind_it(tls: TLS, tmp_path: Path) -> None:
    secret, path = b"what only the two may read", tmp_path / "wire.rec"
    with handled(echoing(tls)) as server:
        between = Forward(*server.address, recording=path)
        with Server(service=between) as wire, Client(*wire.address, timeout=SOON) as client:
            ask(client)
            client.start_tls(tls)
            client.sendall(secret)
            assert client.recv_exactly(len(secret)) == secret
    recorded = path.read_bytes()
    assert b"STARTTLS" in recorded
    assert secret not in recorded


@pytest.mark.parametrize("faults", [None, [Latency(0.0)]], ids=["moved to a worker", "with one"])
def test_the_totals_count_its_handshakes(tls: TLS, faults: list[Fault] | None) -> None:
    options: dict[str, Any] = {} if faults is None else {"faults": faults}
    with Server(service=echoing(tls), on_error=lambda error: None, **options) as server:
        with Client(*server.address, timeout=SOON) as client:
            ask(client)
            client.start_tls(tls)
            client.sendall(b"hello")
            assert client.recv_exactly(5) == b"hello"
        # This one closes in place of a handshake.
        with plain(server) as stream:
            stream.shutdown(socket.SHUT_RDWR)
        server.ledger.wait(closed=2, timeout=SOON)
        totals = server.ledger.totals
        assert totals.tls_handshakes == {"TLSv1.2": 0, "TLSv1.3": 1}
        assert totals.tls_failed == 1


def test_a_client_of_the_standard_library_is_served(tls: TLS, context: ssl.SSLContext) -> None:
    with handled(echoing(tls)) as server, plain(server) as stream:
        with context.wrap_socket(stream, server_hostname="localhost") as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
            client.unwrap().close()
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.tls is not None
        assert (record.tls.sni, record.closed_by) == ("localhost", "peer")


def test_a_server_of_the_standard_library_is_reached(
    tls: TLS, server_context: ssl.SSLContext
) -> None:
    def serve(listening: socket.socket) -> bytes:
        near, _ = listening.accept()
        near.settimeout(SOON)
        with near:
            assert near.recv(10) == b"STARTTLS\r\n"
            near.sendall(b"go\r\n")
            with server_context.wrap_socket(near, server_side=True) as stream:
                data = stream.recv(100)
                stream.sendall(data.upper())
                return stream.recv(100)

    with listener() as listening:
        serving = Background(serve, listening)
        with Client(*listening.getsockname(), timeout=SOON) as client:
            ask(client)
            client.start_tls(tls)
            client.sendall(b"hello")
            assert client.recv_exactly(5) == b"HELLO"
            client.close()
            assert serving.result() == b""


def test_an_accepted_connection_begins_tls(tls: TLS) -> None:
    with Server(service=Accept()) as server, Client(*server.address, timeout=SOON) as client:
        conn, _ = server.accept(SOON)
        with conn:
            other = Background(client.start_tls, tls)
            conn.settimeout(SOON)
            conn.start_tls(tls)
            other.result()
            client.sendall(b"hello")
            assert conn.recv_exactly(5) == b"hello"
            # Clear text at the descriptor as well.
            os.write(conn.fileno(), b"bye")
            assert client.recv_exactly(3) == b"bye"


@pytest.mark.parametrize("faults", [None, [Latency(0.0)]], ids=["moved to a worker", "with one"])
def test_it_returns_only_when_the_handshake_is_complete(
    tls: TLS, faults: list[Fault] | None
) -> None:
    """Also where the call comes before the worker has begun to serve the connection."""
    options: dict[str, Any] = {} if faults is None else {"faults": faults}
    with Server(service=Accept(), **options) as server:
        for _ in range(50):
            with Client(*server.address, timeout=SOON) as client:
                conn, _ = server.accept(SOON)
                with conn:
                    conn.settimeout(SOON)
                    upgrade = Background(conn.start_tls, tls)
                    wait_until(lambda: upgrade.asleep() or not upgrade.running)  # noqa: B023
                    assert upgrade.running, "the client has not begun"
                    client.start_tls(tls)
                    upgrade.result()
                    assert conn.record.tls is not None


def test_a_unix_socket_begins_tls_with_a_name(tls: TLS, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with (
        Server(path=path, service=echoing(tls), on_error="raise") as server,
        Client(path=path, timeout=SOON) as client,
    ):
        ask(client)
        with pytest.raises(ValueError, match="server_hostname"):
            client.start_tls(tls)
        client.start_tls(tls, server_hostname="localhost")
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"
        [record] = server.ledger
        assert record.tls is not None
        assert record.tls.sni == "localhost"


def test_a_large_transfer_goes_both_ways(tls: TLS) -> None:
    with handled(echoing(tls)) as server, Client(*server.address, timeout=SOON) as client:
        ask(client)
        client.start_tls(tls)
        sending = Background(client.sendall, DATA)
        assert client.recv_exactly(len(DATA)) == DATA
        sending.result()


def test_a_half_close_passes_both_ways(tls: TLS) -> None:
    def handler(conn: Connection) -> None:
        upgrade(conn, tls)
        received = read_to_end(conn)
        conn.sendall(received[::-1])
        conn.shutdown(socket.SHUT_WR)

    with handled(handler) as server, Client(*server.address, timeout=SOON) as client:
        ask(client)
        client.start_tls(tls)
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"olleh"


def test_what_was_sent_before_arrives_in_clear(tls: TLS, context: ssl.SSLContext) -> None:
    def handler(conn: Connection) -> None:
        conn.recv_line()
        conn.sendall(DATA)
        conn.start_tls(tls)
        conn.sendall(b"hello")

    with handled(handler) as server, dial(server.address) as stream:
        stream.sendall(b"STARTTLS\r\n")
        stream.settimeout(SOON)
        received = bytearray()
        while len(received) < len(DATA):
            received += stream.recv(len(DATA) - len(received))
        assert received == DATA
        with context.wrap_socket(stream, server_hostname="localhost") as client:
            assert read_to_end(client) == b"hello"


@pytest.mark.parametrize("where", ["server", "client"])
def test_connections_with_faults_begin_tls_behind_what_is_delayed(tls: TLS, where: str) -> None:
    delay = [Latency(0.05)]
    of_server: Any = {"faults": delay} if where == "server" else {}
    of_client: Any = {"faults": delay} if where == "client" else {}
    with (
        Server(service=echoing(tls), on_error="raise", **of_server) as server,
        Client(*server.address, timeout=SOON, **of_client) as client,
    ):
        ask(client)
        client.start_tls(tls)
        client.sendall(DATA[:100_000])
        assert client.recv_exactly(100_000) == DATA[:100_000]
        [record] = server.ledger
        assert record.tls is not None


def test_faults_added_behind_it_act_on_the_connection(tls: TLS) -> None:
    with handled(echoing(tls)) as server, Client(*server.address, timeout=SOON) as client:
        ask(client)
        client.start_tls(tls)
        with server.fault(Latency(0.0)):
            client.sendall(b"hello")
            assert client.recv_exactly(5) == b"hello"


def test_many_connections_begin_tls_at_once(tls: TLS) -> None:
    def talk(server: Server) -> bytes:
        with Client(*server.address, timeout=SOON) as client:
            ask(client)
            client.start_tls(tls)
            client.sendall(DATA[:10_000])
            return client.recv_exactly(10_000)

    with handled(echoing(tls)) as server:
        talking = [Background(talk, server) for _ in range(20)]
        assert all(each.result() == DATA[:10_000] for each in talking)
        server.ledger.wait(closed=20, timeout=SOON)


def test_a_connection_keeps_two_descriptors_more(tls: TLS) -> None:
    """The outer socket and the worker's end of the pair: the number is that of the caller's end."""

    def begun(server: Server, stack: contextlib.ExitStack) -> Counter[str]:
        client = stack.enter_context(Client(*server.address, timeout=SOON))
        conn, _ = server.accept(SOON)
        stack.enter_context(conn)
        conn.settimeout(SOON)
        before = fds()
        other = Background(client.start_tls, tls)
        conn.start_tls(tls)
        other.result()
        return before

    with Server(service=Accept(), workers=1) as server, contextlib.ExitStack() as stack:
        # The first ones start the workers.
        begun(server, stack)
        before = begun(server, stack)
        # A worker may still hold the flag that it has set at the end of the handshake.
        wait_until(lambda: sum((fds() - before).values()) == 2 + 2)


# --- Clear text must not pass for protected ------------------------------------------------


def test_bytes_injected_behind_the_command_are_refused(tls: TLS) -> None:
    caught: list[BaseException] = []

    def handler(conn: Connection) -> None:
        try:
            upgrade(conn, tls)
        except StateError as error:
            caught.append(error)
            # The connection is as it was.
            assert conn.recv_line() == b"DELETE EVERYTHING\r\n"

    with Server(service=handler, on_error="raise") as server, dial(server.address) as stream:
        stream.sendall(b"STARTTLS\r\nDELETE EVERYTHING\r\n")
        assert read_to_end(stream) == b"go\r\n"
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.tls is None
    assert "start_tls 127.0.0.1" in str(caught[0])
    assert "clear text that was not read" in str(caught[0])


def test_bytes_injected_behind_the_answer_are_refused(tls: TLS) -> None:
    with listener() as listening, Client(*listening.getsockname(), timeout=SOON) as client:
        near, _ = listening.accept()
        with near:
            near.sendall(b"go\r\n250 forged\r\n")
            assert client.recv_line() == b"go\r\n"
            with pytest.raises(StateError, match="clear text"):
                client.start_tls(tls)
            assert client.recv_line() == b"250 forged\r\n"


def test_bytes_injected_on_the_way_make_the_handshake_fail(tls: TLS) -> None:
    """They come when the call has begun, so that it cannot see them before."""
    caught: list[BaseException] = []
    begun = threading.Event()

    def handler(conn: Connection) -> None:
        conn.settimeout(SOON)
        conn.recv_line()
        begun.set()
        try:
            conn.start_tls(tls)
        except ssl.SSLError as error:
            caught.append(error)
            raise
        caught.append(AssertionError("it was taken for TLS"))

    with Server(service=handler, on_error=lambda error: None) as server:
        with dial(server.address) as stream:
            stream.sendall(b"STARTTLS\r\n")
            assert begun.wait(SOON)
            # The call has looked at the input before it starts a worker.
            wait_until(lambda: any("worker" in name for name in threads().values()))
            stream.sendall(b"DELETE EVERYTHING\r\n")
            [record] = server.ledger.wait(closed=1, timeout=SOON)
    assert "not TLS" in str(caught[0])
    assert (record.closed_by, record.tls) == ("error", None)


@pytest.mark.parametrize("fault", [False, True], ids=["itself", "with a worker"])
def test_a_hello_that_comes_early_is_no_injection(
    tls: TLS, context: ssl.SSLContext, fault: bool
) -> None:
    """A client may begin as soon as it was told to, before the handler calls `start_tls`."""
    told = threading.Event()

    def handler(conn: Connection) -> None:
        conn.recv_line()
        conn.sendall(b"go\r\n")
        assert told.wait(SOON)
        conn.start_tls(tls)
        conn.sendall(b"hello")

    faults: Any = {"faults": [Latency(0.0)]} if fault else {}
    with Server(service=handler, on_error="raise", **faults) as server, plain(server) as stream:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        stream.sendall(outgoing.read())
        [conn] = server.connections
        wait_until(lambda: readable(conn.fileno()), what="the hello is there")
        told.set()
        received = b""
        while not received:
            incoming.write(stream.recv(65_536))
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
                stream.sendall(outgoing.read())
                received = client.read(5)
        assert received == b"hello"


def readable(number: int) -> bool:
    return bool(select.select([number], [], [], 0)[0])


# --- Refusals -----------------------------------------------------------------------------


def test_it_is_refused_where_tls_is_on(tls: TLS) -> None:
    with handled(echoing(tls)) as server, Client(*server.address, timeout=SOON) as client:
        ask(client)
        client.start_tls(tls)
        with pytest.raises(StateError, match="has TLS already"):
            client.start_tls(tls)
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"
    with Server(tls=tls) as server, server.client(timeout=SOON) as client:
        with pytest.raises(StateError, match="has TLS already"):
            client.start_tls(tls)


def test_arguments_that_do_not_fit_are_named(tls: TLS) -> None:
    with Server(service=Accept()) as server, Client(*server.address, timeout=SOON) as client:
        conn, _ = server.accept(SOON)
        with conn:
            with pytest.raises(TypeError, match=r"start_tls\(TLS\(cert, key\)\)"):
                conn.start_tls()
            with pytest.raises(TypeError, match="tls must be a TLS"):
                conn.start_tls(True)
            with pytest.raises(ValueError, match="server_hostname"):
                conn.start_tls(tls, server_hostname="localhost")
            with pytest.raises(ValueError, match="needs a certificate"):
                conn.start_tls(TLS())
        with pytest.raises(TypeError, match="tls"):
            client.start_tls("localhost")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="False"):
            client.start_tls(False)
        with pytest.raises(ValueError, match="server_hostname"):
            client.start_tls(tls, server_hostname="a b")


def test_a_call_that_may_not_wait_is_refused(tls: TLS) -> None:
    with Server() as server, Client(*server.address, timeout=SOON) as client:
        client.settimeout(0)
        with pytest.raises(ValueError, match="time-out"):
            client.start_tls(tls)
        client.settimeout(SOON)
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"


def test_files_and_duplicates_are_refused(tls: TLS) -> None:
    with Server() as server, Client(*server.address, timeout=SOON) as client:
        with client.makefile("rb"):
            with pytest.raises(StateError, match="makefile"):
                client.start_tls(tls)
        with client.to_socket():
            with pytest.raises(StateError, match="duplicate"):
                client.start_tls(tls)


def test_a_client_that_is_not_connected_is_refused(tls: TLS) -> None:
    with Client() as client, pytest.raises(OSError, match="start_tls") as caught:
        client.start_tls(tls)
    assert caught.value.errno == 107  # ENOTCONN
    closed = Client()
    closed.close()
    with pytest.raises(OSError, match="closed"):
        closed.start_tls(tls)


def test_datagrams_are_refused(tls: TLS, tmp_path: Path) -> None:
    with Server(transport="udp") as server:
        with Client(*server.address, transport="udp") as client:
            with pytest.raises(OSError, match="TLS needs a stream"):
                client.start_tls(tls)
    path = tmp_path / "datagrams"
    with Server(path=path, transport="unix-datagram"):
        with Client(path=path, transport="unix-datagram") as client:
            with pytest.raises(OSError, match="TLS needs a stream"):
                client.start_tls(tls)


# --- Handshakes that fail ------------------------------------------------------------------


def test_a_certificate_for_another_name_is_refused(tls: TLS) -> None:
    with Server(service=echoing(tls), on_error=lambda error: None) as server:
        with Client(*server.address, timeout=SOON) as client:
            ask(client)
            with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
                client.start_tls(tls, server_hostname="example.org")
            assert client.closed
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.closed_by == "error"
        assert record.error is not None
        assert "alert" in record.error


def test_an_authority_that_is_not_known_is_told_to_the_handler(tls: TLS) -> None:
    caught: list[ssl.SSLError] = []
    with Server(service=refused(tls, caught), on_error="raise") as server:
        with plain(server) as stream, pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(stream, server_hostname="localhost")
        server.ledger.wait(closed=1, timeout=SOON)
    assert "unknown_ca" in str(caught[0])


def test_the_client_gets_the_alert_of_the_server(tls: TLS, context: ssl.SSLContext) -> None:
    strict = TLS.for_tests(alpn=["one"])
    other = ssl.create_default_context(cadata=strict.ca_pem)
    other.set_alpn_protocols(["two"])
    with Server(service=echoing(strict), on_error=lambda error: None) as server:
        with plain(server) as stream, pytest.raises(ssl.SSLError, match="(?i)alert"):
            other.wrap_socket(stream, server_hostname="localhost")


def test_a_peer_that_closes_during_the_handshake_is_told(tls: TLS) -> None:
    caught: list[ssl.SSLError] = []
    with Server(service=refused(tls, caught), on_error="raise") as server:
        with plain(server):
            pass
        [record] = server.ledger.wait(closed=1, timeout=SOON)
    assert "closed during the handshake" in str(caught[0])
    assert record.tls is None


@pytest.mark.parametrize("fault", [False, True], ids=["itself", "with a worker"])
def test_a_handshake_takes_no_longer_than_the_time_out(tls: TLS, fault: bool) -> None:
    caught: list[BaseException] = []

    def handler(conn: Connection) -> None:
        conn.settimeout(0.1)
        try:
            upgrade(conn, tls)
        except TimeoutError as error:
            caught.append(error)
            assert conn.closed

    faults: Any = {"faults": [Latency(0.0)]} if fault else {}
    with Server(service=handler, on_error="raise", **faults) as server, plain(server) as stream:
        with pytest.raises(ConnectionResetError):
            stream.recv(1)
        server.ledger.wait(closed=1, timeout=SOON)
    assert "start_tls 127.0.0.1" in str(caught[0])


def test_a_client_takes_no_longer_than_its_time_out(tls: TLS) -> None:
    with listener() as listening, Client(*listening.getsockname(), timeout=0.1) as client:
        with pytest.raises(TimeoutError, match="start_tls"):
            client.start_tls(tls)
        assert client.closed


@pytest.mark.parametrize("call", ["start_tls", "connect"])
def test_a_client_that_gives_up_leaves_no_connection(tls: TLS, call: str) -> None:
    """Many times: the wake-up of the worker by the reset could be lost behind an earlier one."""
    with listener() as listening:
        for _ in range(50):
            where = listening.getsockname()
            client = Client(timeout=SOON, tls=tls if call == "connect" else None)
            with client, pytest.raises(TimeoutError):
                if call == "start_tls":
                    client.connect(where)
                client.settimeout(0.01)
                client.connect(where) if call == "connect" else client.start_tls(tls)
            near, _ = listening.accept()
            with near, pytest.raises(ConnectionResetError):
                near.settimeout(SOON)
                read_to_end(near)


@pytest.mark.parametrize("waits", [True, False], ids=["in its wait", "as it begins"])
@pytest.mark.parametrize("role", ["client", "server"])
def test_a_close_during_a_handshake_ends_the_connection(tls: TLS, role: str, waits: bool) -> None:
    def close(stream: Any, peer: socket.socket) -> None:
        with peer:
            peer.settimeout(SOON)
            handshake = Background(stream.start_tls, tls)
            if waits:
                wait_until(handshake.asleep)
            stream.close()
            with pytest.raises(OSError, match="closed"):
                handshake.result()
            # By RST, or where the worker did not have it yet, by FIN.
            with contextlib.suppress(ConnectionResetError):
                read_to_end(peer)
            wait_until(lambda: stream.record.closed_by == "local")

    for _ in range(1 if waits else 20):
        if role == "client":
            with listener() as listening:
                client = Client(*listening.getsockname(), timeout=SOON)
                peer, _ = listening.accept()
                close(client, peer)
        else:
            with Server(service=Accept()) as server:
                peer = dial(server.address)
                conn, _ = server.accept(SOON)
                conn.settimeout(SOON)
                close(conn, peer)


def test_the_limit_counts_from_the_call_also_where_nothing_was_received(tls: TLS) -> None:
    limits = Limits(first_byte=1)
    with Server(service=Accept(), limits=limits) as server:
        with Client(*server.address, timeout=SOON) as client:
            conn, _ = server.accept(SOON)
            wait_until(lambda: conn.record.seconds > 1)
            with conn:
                conn.settimeout(SOON)
                other = Background(client.start_tls, tls)
                conn.start_tls(tls)
                other.result()


def test_the_limit_of_the_first_byte_counts_from_the_call(tls: TLS) -> None:
    caught: list[BaseException] = []

    def handler(conn: Connection) -> None:
        try:
            upgrade(conn, tls)
        except OSError as error:
            caught.append(error)

    limits = Limits(first_byte=0.2)
    with Server(service=handler, limits=limits, on_error="raise") as server:
        with plain(server):
            [record] = server.ledger.wait(closed=1, timeout=SOON)
    assert record.closed_by == "limit"
    assert "Limits.first_byte" in str(caught[0])


def test_a_stop_ends_a_handshake_by_its_deadline(tls: TLS) -> None:
    caught: list[BaseException] = []
    begun = threading.Event()

    def handler(conn: Connection) -> None:
        conn.recv_line()
        conn.sendall(b"go\r\n")
        begun.set()
        try:
            conn.start_tls(tls)
        except OSError as error:
            caught.append(error)
            raise

    with Server(service=handler, on_error="raise") as server, plain(server):
        assert begun.wait(SOON)
        server.stop(0.2)
    assert isinstance(caught[0], OSError)


def test_the_close_of_another_thread_ends_a_handshake(tls: TLS) -> None:
    with listener() as listening, Client(*listening.getsockname(), timeout=SOON) as client:
        handshake = Background(client.start_tls, tls)
        wait_until(handshake.asleep)
        client.close()
        with pytest.raises(OSError, match="start_tls"):
            handshake.result()


# --- Foreign protocols ----------------------------------------------------------------------


def test_smtplib_begins_tls_with_a_handler(tls: TLS, context: ssl.SSLContext) -> None:
    delivered: list[bytes] = []

    def smtp(conn: Connection) -> None:
        conn.sendall(b"220 test ready\r\n")
        secure = False
        while line := conn.recv_line():
            command = line.split()[0].upper()
            if command == b"STARTTLS":
                conn.sendall(b"220 go ahead\r\n")
                conn.start_tls(tls)
                secure = True
            elif command == b"EHLO":
                conn.sendall(
                    b"250-test\r\n250 SIZE\r\n" if secure else b"250-a\r\n250 STARTTLS\r\n"
                )
            elif command == b"DATA":
                conn.sendall(b"354 go on\r\n")
                delivered.append(conn.recv_until(b"\r\n.\r\n"))
                conn.sendall(b"250 taken\r\n")
            elif command == b"QUIT":
                conn.sendall(b"221 bye\r\n")
                return
            else:
                conn.sendall(b"250 fine\r\n")

    with handled(smtp) as server:
        with smtplib.SMTP("localhost", server.port, "client.test", timeout=SOON) as client:
            assert client.starttls(context=context)[0] == 220
            assert client.ehlo() == (250, b"test\nSIZE")
            client.sendmail(
                "me@example.test", ["you@example.test"], "Subject: hello\r\n\r\nbye\r\n"
            )
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.tls is not None
    assert delivered == [b"Subject: hello\r\n\r\nbye\r\n.\r\n"]


class Kept(Message):
    """Keeps what was delivered."""

    def __init__(self) -> None:
        super().__init__()
        self.subjects: list[str | None] = []

    def handle_message(self, message: Any) -> None:
        self.subjects.append(message["Subject"])


class AnyPort(Controller):
    """Its own check connects to the port that it was given, not to the one that it got."""

    def _trigger_server(self) -> None:
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


def test_a_client_begins_tls_with_aiosmtpd(tls: TLS, server_context: ssl.SSLContext) -> None:
    kept = Kept()
    controller = AnyPort(
        kept,
        hostname="127.0.0.1",
        port=0,
        ready_timeout=SOON,
        tls_context=server_context,
        require_starttls=True,
    )
    controller.start()
    before = fds()
    try:
        with Client("127.0.0.1", controller.port, timeout=SOON) as client:

            def answer(command: bytes) -> bytes:
                if command:
                    client.sendall(command + b"\r\n")
                while (line := client.recv_line())[3:4] == b"-":
                    pass
                return line[:3]

            assert answer(b"") == b"220"
            assert answer(b"EHLO client.test") == b"250"
            assert answer(b"MAIL FROM:<me@example.test>") == b"530", "TLS is asked for"
            assert answer(b"STARTTLS") == b"220"
            client.start_tls(tls)
            assert answer(b"EHLO client.test") == b"250"
            assert answer(b"MAIL FROM:<me@example.test>") == b"250"
            assert answer(b"RCPT TO:<you@example.test>") == b"250"
            assert answer(b"DATA") == b"354"
            assert answer(b"Subject: hello\r\n\r\nbye\r\n.") == b"250"
            assert answer(b"QUIT") == b"221"
        # Its stop forgets connections that have not ended.
        wait_until(lambda: not fds() - before)
    finally:
        controller.stop()
    assert kept.subjects == ["hello"]

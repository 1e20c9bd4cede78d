"""How connections with TLS end: close_notify both ways, a cut, limits, a stop."""

from __future__ import annotations

import socket
import ssl
import threading
import time

import pytest
from support import SOON, dial, payload
from support.exchange import read_to_end

from rsock import TLS, Connection, Greeting, Limits, Server

DATA = payload(300_000)


@pytest.fixture(scope="module")
def tls() -> TLS:
    return TLS.for_tests()


def wrapped(server: Server, tls: TLS) -> ssl.SSLSocket:
    context = ssl.create_default_context(cadata=tls.ca_pem)
    return context.wrap_socket(
        dial(server.address), server_hostname="localhost", suppress_ragged_eofs=False
    )


def cut(stream: ssl.SSLSocket) -> None:
    """A FIN without close_notify."""
    socket.socket.shutdown(stream, socket.SHUT_WR)


def test_close_notify_passes_both_ways(tls: TLS) -> None:
    with Server(tls=tls) as server, server.client(timeout=SOON) as client:
        sender = threading.Thread(target=client.sendall, args=(DATA,))
        sender.start()
        received = client.recv_exactly(len(DATA))
        sender.join()
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert received == DATA
        client.close()
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert (record.closed_by, record.error) == ("peer", None)


def test_the_close_of_a_service_is_an_end_to_the_client(tls: TLS) -> None:
    with Server(service=Greeting(b"hello"), tls=tls) as server, wrapped(server, tls) as client:
        assert read_to_end(client) == b"hello"
        # Only close_notify is that: a cut would have been an SSLEOFError.
        client.close()
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert (record.closed_by, record.error) == ("service", None)


def test_a_fin_without_close_notify_is_an_error(tls: TLS) -> None:
    with Server(tls=tls) as server, wrapped(server, tls) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        cut(client)
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.closed_by == "reset"
        assert record.error is not None
        assert "without close_notify" in record.error


def test_a_handler_gets_what_came_before_a_cut_and_then_an_error(tls: TLS) -> None:
    caught: list[BaseException] = []

    def handler(conn: Connection) -> None:
        assert conn.recv_exactly(5) == b"hello"
        try:
            conn.recv(1)
        except OSError as error:
            caught.append(error)
            raise

    with Server(service=handler, tls=tls) as server, wrapped(server, tls) as client:
        client.sendall(b"hello")
        cut(client)
        server.ledger.wait(closed=1, timeout=SOON)
        assert server.errors == [], "the peer's doing"
    assert isinstance(caught[0], ssl.SSLEOFError)


def test_a_client_learns_of_a_cut(tls: TLS) -> None:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(cert: str, key: str) -> None:
        own.load_cert_chain(cert, key)
        raw, _ = listener.accept()
        with own.wrap_socket(raw, server_side=True) as stream:
            stream.sendall(b"hel")
            cut(stream)
            raw.close()

    import tempfile
    from pathlib import Path

    from rsock import Client

    with listener, tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "cert.pem"), Path(folder, "key.pem")
        for path, text in zip(paths, (tls.cert_pem, tls.key_pem), strict=True):
            path.write_text(text)
        thread = threading.Thread(target=serve, args=[str(path) for path in paths])
        thread.start()
        with Client(*listener.getsockname(), tls=tls, timeout=SOON) as client:
            assert client.recv_exactly(3) == b"hel"
            with pytest.raises(ssl.SSLEOFError, match="without close_notify"):
                client.recv(1)
        thread.join()


class TestLimits:
    def test_first_byte_bounds_the_handshake(self, tls: TLS) -> None:
        with Server(tls=tls, limits=Limits(first_byte=0.2)) as server:
            with dial(server.address) as silent, dial(server.address) as slow:
                # The beginning of a hello.
                slow.sendall(b"\x16\x03\x01")
                records = server.ledger.wait(closed=2, timeout=SOON)
                assert [record.limit for record in records] == ["first_byte"] * 2
                assert all(record.seconds >= 0.2 for record in records)
                silent.close()

    def test_a_handshake_in_time_is_enough(self, tls: TLS) -> None:
        with Server(tls=tls, limits=Limits(first_byte=0.3)) as server:
            with server.client(timeout=SOON) as client:
                assert client.record is not None
                end = time.monotonic() + 0.6
                while time.monotonic() < end:
                    threading.Event().wait(0.05)
                client.sendall(b"x")
                assert client.recv_exactly(1) == b"x"

    @pytest.mark.parametrize(
        "limits", [Limits(idle=0.2), Limits(lifetime=0.2)], ids=["idle", "lifetime"]
    )
    def test_a_limit_ends_with_close_notify(self, tls: TLS, limits: Limits) -> None:
        with Server(tls=tls, limits=limits) as server, wrapped(server, tls) as client:
            assert read_to_end(client) == b""
            client.close()
            [record] = server.ledger.wait(closed=1, timeout=SOON)
            assert record.closed_by == "limit"

    def test_a_limit_is_a_time_out_of_the_handlers_call(self, tls: TLS) -> None:
        caught: list[BaseException] = []

        def handler(conn: Connection) -> None:
            try:
                conn.recv(1)
            except OSError as error:
                caught.append(error)

        limits = Limits(idle=0.2)
        with Server(service=handler, tls=tls, limits=limits) as server:
            with wrapped(server, tls) as client:
                assert read_to_end(client) == b""
            server.ledger.wait(closed=1, timeout=SOON)
        assert isinstance(caught[0], TimeoutError)


def test_a_stop_ends_with_close_notify(tls: TLS) -> None:
    with Server(tls=tls) as server, wrapped(server, tls) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        report = server.stop()
        assert read_to_end(client) == b""
        assert (report.drained, report.forced) == (1, 0)


def test_a_stop_does_not_wait_long_for_a_handshake(tls: TLS) -> None:
    with Server(tls=tls, drain=30) as server, dial(server.address) as slow:
        slow.sendall(b"\x16\x03\x01")
        server.ledger.wait(open=1, timeout=SOON)
        report = server.stop()
        assert report.seconds < 10

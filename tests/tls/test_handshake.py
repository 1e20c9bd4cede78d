"""TLS of servers and clients, against each other and against Python's own `ssl`."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support import SOON, dial, payload
from support.exchange import Stream, read_exactly

from rsock import TLS, Accept, Client, Connection, Server, TlsInfo

BIG = payload(1_000_000)


@pytest.fixture(scope="module")
def tls() -> TLS:
    return TLS.for_tests()


def context(tls: TLS) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=tls.ca_pem)


@contextmanager
def connected(server: Server, tls: TLS, name: str = "localhost") -> Iterator[ssl.SSLSocket]:
    """Python's own client."""
    with dial(server.address) as raw:
        with context(tls).wrap_socket(raw, server_hostname=name) as stream:
            yield stream


def the_record_of(server: Server) -> TlsInfo:
    [record] = server.ledger.wait(closed=1, timeout=SOON)
    assert record.tls is not None
    return record.tls


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_pythons_ssl_talks_to_a_server(tls: TLS, name: str, workers: int) -> None:
    with Server(tls=tls, workers=workers) as server, connected(server, tls, name) as client:
        assert echoes(client, BIG)


def test_a_client_talks_to_pythons_ssl(tls: TLS) -> None:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(*written(tls))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with in_thread_echo(listener, own):
            with Client(*listener.getsockname(), tls=tls, timeout=SOON) as client:
                client.sendall(b"hello")
                assert client.recv_exactly(5) == b"hello"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_record_has_what_was_agreed_on(tls: TLS, version: str) -> None:
    own = context(tls)
    number = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
    own.minimum_version = own.maximum_version = number
    with Server(tls=tls) as server, dial(server.address) as raw:
        with own.wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            client.unwrap()
        info = the_record_of(server)
        assert (info.version, info.sni, info.alpn) == (f"TLSv{version}", "localhost", None)
        assert (info.resumed, info.peer) == (False, None)
        assert info.cipher.startswith("TLS_")


def test_a_record_in_clear_text_has_no_tls() -> None:
    with Server() as server, server.client() as client:
        assert client.record is not None
        assert client.record.tls is None


def test_a_client_knows_the_certificate_of_its_server(tls: TLS) -> None:
    with Server(tls=tls) as server, server.client() as client:
        assert client.record is not None
        assert client.record.tls is not None
        peer = client.record.tls.peer
        assert peer is not None
        assert peer.der == ssl.PEM_cert_to_DER_cert(tls.cert_pem)
        assert (peer.subject, peer.names) == ("CN=localhost", ("localhost", "127.0.0.1"))


def test_handlers_and_accept_get_clear_text(tls: TLS) -> None:
    def shout(conn: Connection) -> None:
        while line := conn.recv_line():
            conn.sendall(line.upper())

    with Server(service=shout, tls=tls) as server, server.client(timeout=SOON) as client:
        client.sendall(b"hello\n")
        assert client.recv_line() == b"HELLO\n"
    with Server(service=Accept(), tls=tls) as server:
        client = Client(tls=tls, timeout=SOON)
        with in_thread(lambda: client.connect(server.address)):
            conn, _ = server.accept(timeout=SOON)
        with conn, client:
            client.sendall(b"x")
            with socket.socket(fileno=conn.detach()) as plain:
                assert plain.recv(1) == b"x"


def test_the_protocol_of_alpn_is_the_servers_choice() -> None:
    tls = TLS.for_tests(alpn=["h2", "http/1.1"])
    own = context(tls)
    own.set_alpn_protocols(["http/1.1", "h2"])
    with Server(tls=tls) as server, dial(server.address) as raw:
        with own.wrap_socket(raw, server_hostname="localhost") as client:
            assert client.selected_alpn_protocol() == "h2"
            client.unwrap()
        assert the_record_of(server).alpn == "h2"


def test_another_handshake_resumes_the_session(tls: TLS) -> None:
    with Server(tls=tls) as server:
        sessions = []
        for _ in range(2):
            with server.client(timeout=SOON) as client:
                client.sendall(b"x")
                # Tickets come with the first bytes.
                assert client.recv_exactly(1) == b"x"
                assert client.record is not None
                assert client.record.tls is not None
                sessions.append(client.record.tls.resumed)
        assert sessions == [False, True]
        first, second = server.ledger.wait(closed=2, timeout=SOON)
        assert first.tls is not None
        assert second.tls is not None
        assert (first.tls.resumed, second.tls.resumed) == (False, True)


def test_a_certificate_is_replaced_while_the_server_serves(tls: TLS) -> None:
    with Server(tls=tls) as server, connected(server, tls) as before:
        after = TLS.for_tests()
        server.tls = after
        assert server.tls is after
        with connected(server, after) as client:
            assert echoes(client)
        assert echoes(before)
        with dial(server.address) as raw, pytest.raises(ssl.SSLCertVerificationError):
            context(tls).wrap_socket(raw, server_hostname="localhost")


def test_a_name_chooses_its_certificate(tls: TLS) -> None:
    other = TLS.for_tests(["example.org", "www.example.org"])
    cert, key = tls.cert_pem.encode(), tls.key_pem.encode()
    both = TLS(cert, key, sni={"example.org": other, "*.example.org": other})
    with Server(tls=both) as server:
        for name in ("example.org", "WWW.example.org"):
            with connected(server, other, name) as client:
                assert echoes(client)
        with connected(server, tls) as client:
            assert echoes(client)


class TestCertificatesOfClients:
    def test_one_that_is_shown_is_in_the_record(self) -> None:
        tls = TLS.for_tests(require_client_cert=True)
        with Server(tls=tls) as server:
            with server.client(timeout=SOON) as client:
                client.sendall(b"x")
                assert client.recv_exactly(1) == b"x"
            peer = the_record_of(server).peer
            assert peer is not None
            assert peer.subject == "CN=localhost"

    def test_without_one_the_handshake_fails(self) -> None:
        tls = TLS.for_tests(require_client_cert=True)
        bare = TLS(ca=tls.ca_pem.encode())
        with Server(tls=tls) as server:
            # A client of TLS 1.3 hears of that only by its first read.
            with pytest.raises(ssl.SSLError, match="certificate_required"):
                with server.client(tls=bare, timeout=SOON) as client:
                    client.recv(1)
            [record] = server.ledger.wait(closed=1, timeout=SOON)
            assert record.error == "TLS: the client sent no certificate, which is required"


class TestRefused:
    def test_an_unknown_authority_is_a_verification_error(self, tls: TLS) -> None:
        with Server(tls=tls) as server:
            with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
                Client(*server.address, tls=True, timeout=SOON)
            [record] = server.ledger.wait(closed=1, timeout=SOON)
            assert (record.closed_by, record.error) == (
                "error",
                "TLS: the peer sent the alert unknown_ca",
            )

    def test_another_name_is_a_verification_error(self) -> None:
        tls = TLS.for_tests(["example.org"])
        with Server(tls=tls) as server:
            with pytest.raises(ssl.SSLCertVerificationError, match="example.org"):
                server.client(timeout=SOON)
            named = TLS(ca=tls.ca_pem.encode(), server_hostname="example.org")
            with server.client(tls=named, timeout=SOON) as client:
                assert echoes(client)

    def test_clear_text_gets_an_alert(self, tls: TLS) -> None:
        with Server(tls=tls) as server, dial(server.address) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
            # A fatal alert (RFC 8446, section 6), and the end.
            assert peer.recv(100)[:1] == b"\x15"
            assert peer.recv(100) == b""
            peer.close()
            [record] = server.ledger.wait(closed=1, timeout=SOON)
            assert record.error == "TLS: what the peer sent is not TLS"

    def test_a_server_in_clear_text_is_an_ssl_error(self) -> None:
        with Server() as server, pytest.raises(ssl.SSLError, match="unexpected"):
            Client(*server.address, tls=True, timeout=SOON)

    def test_an_old_version_is_refused(self) -> None:
        tls = TLS.for_tests(min_version="1.3")
        own = context(tls)
        own.maximum_version = ssl.TLSVersion.TLSv1_2
        with Server(tls=tls) as server, dial(server.address) as raw:
            with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                own.wrap_socket(raw, server_hostname="localhost")

    def test_a_handshake_that_does_not_end_is_timed_out(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            with pytest.raises(TimeoutError, match="connect"):
                Client(*silent.getsockname(), tls=True, timeout=0.2)


# Helpers.


def echoes(stream: Stream, data: bytes = b"hello") -> bool:
    """Piece by piece: an SSLSocket is used by one thread only."""
    for at in range(0, len(data), 20_000):
        piece = data[at : at + 20_000]
        stream.sendall(piece)
        if read_exactly(stream, len(piece)) != piece:
            return False
    return True


def written(tls: TLS) -> tuple[str, str]:
    """The certificate and the key as files, which `ssl` wants."""
    import tempfile
    from pathlib import Path

    folder = Path(tempfile.mkdtemp())
    (folder / "cert.pem").write_text(tls.cert_pem)
    (folder / "key.pem").write_text(tls.key_pem)
    return str(folder / "cert.pem"), str(folder / "key.pem")


@contextmanager
def in_thread(target: object) -> Iterator[None]:
    import threading

    assert callable(target)
    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextmanager
def in_thread_echo(listener: socket.socket, own: ssl.SSLContext) -> Iterator[None]:
    def serve() -> None:
        raw, _ = listener.accept()
        with own.wrap_socket(raw, server_side=True) as stream:
            while data := stream.recv(1000):
                stream.sendall(data)

    with in_thread(serve):
        yield

"""Forward with TLS: towards its clients, towards its target, on both sides, on neither."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Literal

import pytest
from support import SOON, payload
from support.exchange import exchange, read_to_end

from rsock import TLS, Client, Connection, Forward, Greeting, Server

DATA = payload(400_000)
MADE = TLS.for_tests()
OTHER = TLS.for_tests()


@pytest.mark.parametrize("up", [None, MADE], ids=["clear-up", "tls-up"])
@pytest.mark.parametrize("down", [None, OTHER], ids=["clear-down", "tls-down"])
def test_bytes_and_ends_pass_with_tls_on_either_side(
    down: TLS | None, up: TLS | None, workers: int
) -> None:
    with (
        Server(tls=up) as target,
        Server(service=Forward(target, tls=up), tls=down, workers=workers) as server,
        server.client(timeout=SOON) as client,
    ):
        # With an end behind the data, and one behind the answer.
        assert exchange(client, DATA) == DATA
        client.close()
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert (record.closed_by, record.error) == ("peer", None)
        assert (record.tls is None) == (down is None)
        assert record.far is not None
        assert (record.far.tls is None) == (up is None)


def test_the_end_of_the_target_is_an_end_to_the_client() -> None:
    with (
        Server(service=Greeting(b"hello"), tls=MADE) as target,
        Server(service=Forward(target, tls=MADE), tls=OTHER) as server,
        server.client(timeout=SOON) as client,
    ):
        assert read_to_end(client) == b"hello"


def test_a_target_with_a_certificate_of_others_is_refused() -> None:
    with (
        Server(tls=MADE) as target,
        Server(service=Forward(target, tls=OTHER)) as server,
    ):
        # The reset may come before the connect returns.
        with pytest.raises(ConnectionResetError), server.client(timeout=SOON) as client:
            client.recv(1)
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.error is not None
        assert "certificate verify failed" in record.error
        assert str(target.port) in record.error


def test_a_target_without_tls_resets_the_client() -> None:
    with (
        Server(service=Greeting(b"220 hello\r\n")) as target,
        Server(service=Forward(target, tls=MADE)) as server,
    ):
        with pytest.raises(ConnectionResetError), server.client(timeout=SOON) as client:
            client.recv(1)
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert (record.closed_by, record.far is None) == ("error", False)


def test_a_target_that_does_not_shake_hands_is_timed_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        forward = Forward(silent.getsockname(), tls=MADE, connect_timeout=0.3)
        with Server(service=forward) as server, server.client(timeout=SOON) as client:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            [record] = server.ledger.wait(closed=1, timeout=SOON)
            assert record.error is not None
            assert "handshake" in record.error


def test_a_cut_by_the_target_resets_the_client() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def serve(listener: socket.socket, cert: str, key: str) -> None:
        context.load_cert_chain(cert, key)
        raw, _ = listener.accept()
        with context.wrap_socket(raw, server_side=True) as stream:
            stream.sendall(b"hel")
            socket.socket.shutdown(stream, socket.SHUT_WR)
            # Until the forwarder has reset it.
            with pytest.raises(OSError, match="reset|EOF"):
                read_to_end(stream)
                raise ConnectionResetError("reset")

    import tempfile
    from pathlib import Path

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        tempfile.TemporaryDirectory() as folder,
    ):
        paths = Path(folder, "cert.pem"), Path(folder, "key.pem")
        for path, text in zip(paths, (MADE.cert_pem, MADE.key_pem), strict=True):
            path.write_text(text)
        thread = threading.Thread(target=serve, args=[listener, *map(str, paths)])
        thread.start()
        with Server(service=Forward(listener.getsockname(), tls=MADE)) as server:
            with server.client(timeout=SOON) as client:
                assert client.recv_exactly(3) == b"hel"
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            [record] = server.ledger.wait(closed=1, timeout=SOON)
            assert record.error is not None
            assert "without close_notify" in record.error
        thread.join()


def test_datagrams_and_unix_targets_are_checked() -> None:
    with pytest.raises(TypeError):
        Server(transport="udp", service=Forward("127.0.0.1", 9, tls=True))
    with pytest.raises(ValueError, match="server_hostname"):
        Forward(path="/tmp/none", tls=True)
    with pytest.raises(TypeError, match="tls must be"):
        Forward("127.0.0.1", 9, tls="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_header_of_the_proxy_protocol_goes_in_front_of_the_handshake(
    version: Literal["v1", "v2"],
) -> None:
    def who(conn: Connection) -> None:
        conn.sendall(f"{conn.getpeername()[1]}\n".encode())

    with (
        Server(service=who, tls=MADE, proxy_protocol=("127.0.0.0/8",)) as target,
        Server(service=Forward(target, tls=MADE, proxy_protocol=version)) as server,
        server.client(timeout=SOON) as client,
    ):
        assert client.recv_line() == b"%d\n" % client.getsockname()[1]


def test_the_header_of_a_client_goes_in_front_of_the_handshake() -> None:
    trusted = TLS(ca=MADE.ca_pem.encode())
    with (
        Server(tls=MADE, proxy_protocol=("127.0.0.0/8",)) as server,
        Client(*server.address, tls=trusted, proxy_protocol="v2", timeout=SOON) as client,
    ):
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"

"""PostgreSQL's way into TLS: a request in clear text, one byte as the answer, and the handshake.

pg8000 is the client of a handler, which passes everything on to a real PostgreSQL; rsock's own
client talks to that PostgreSQL in TLS.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

import pg8000.native  # type: ignore[import-untyped]
from support import SOON, Background
from support.postgresql import DATABASE, USER, running_postgresql

from rsock import TLS, Client, Connection, Server

# The number that stands for a version in a request for TLS.
SSL_REQUEST = struct.pack(">II", 8, 80_877_103)


def pump(source: Connection | Client, sink: Connection | Client) -> None:
    while data := source.recv(65_536):
        sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def test_pg8000_talks_to_a_handler_that_begins_tls() -> None:
    tls = TLS.for_tests()
    with running_postgresql() as (path, _):

        def handler(conn: Connection) -> None:
            assert conn.recv_exactly(8) == SSL_REQUEST
            conn.sendall(b"S")
            conn.start_tls(tls)
            with Client(path=path, timeout=SOON) as database:
                back = Background(pump, database, conn)
                pump(conn, database)
                back.result()

        with Server(service=handler, on_error="raise") as server:
            context = ssl.create_default_context(cadata=tls.ca_pem)
            host, port = server.address
            client = pg8000.native.Connection(
                USER, host=host, port=port, database=DATABASE, ssl_context=context
            )
            assert client.run("SELECT 6 * 7, repeat('x', 300000)") == [[42, "x" * 300_000]]
            client.close()
            [record] = server.ledger.wait(closed=1, timeout=SOON)
            assert record.tls is not None
            assert record.tls.version == "TLSv1.3"


def test_a_client_begins_tls_with_postgresql() -> None:
    tls = TLS.for_tests()
    with running_postgresql(tls) as (_, port), Client("127.0.0.1", port, timeout=SOON) as client:
        client.sendall(SSL_REQUEST)
        assert client.recv_exactly(1) == b"S"
        client.start_tls(TLS(ca=tls.ca_pem.encode()))
        names = f"user\0{USER}\0database\0{DATABASE}\0\0".encode()
        client.sendall(struct.pack(">II", 8 + len(names), 3 << 16) + names)
        # AuthenticationOk.
        assert client.recv_exactly(9) == b"R" + struct.pack(">II", 8, 0)

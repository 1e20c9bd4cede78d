"""Peers that abuse TLS are refused with the reason in the record, and cost the others nothing.

What is sent is made by hand, on sockets of the standard library. `RSOCK_TEST_LONG=1` runs the
numbers of production. What a peer can do behind a handshake is in `tests/net/hostile_tls.rs`, what
many that stop in it cost in `test_half_open_handshakes.py`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import SOON, dial, wait_until
from support.exchange import read_to_end, says_back

from rsock import TLS, Greeting, Limits, Record, Server

LONG = bool(os.environ.get("RSOCK_TEST_LONG"))
AT_ONCE = 1_000 if LONG else 200
MADE = TLS.for_tests()
OPENSSL = shutil.which("openssl") or ""
needs_openssl = pytest.mark.skipif(not OPENSSL, reason="openssl is not installed")

# RFC 8446, section 5.1 and appendix B.
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, DATA, HEARTBEAT = 20, 21, 22, 23, 24
ALPN = 16
# A record of rustls' largest alert in clear text.
SHORT = 7


def record(kind: int, payload: bytes) -> bytes:
    return struct.pack("!BHH", kind, 0x0301, len(payload)) + payload


def records(message: bytes, size: int = 16_000) -> bytes:
    """A message of the handshake in records of `size` bytes."""
    parts = (message[at : at + size] for at in range(0, len(message), size))
    return b"".join(record(HANDSHAKE, part) for part in parts)


def hello(kind: int | None = None, content: bytes = b"") -> bytes:
    """The ClientHello of OpenSSL, with one more extension."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cadata=MADE.ca_pem)
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    message = outgoing.read()[5:]
    if kind is None:
        return message
    at = 4 + 2 + 32
    at += 1 + message[at]
    at += 2 + int.from_bytes(message[at : at + 2], "big")
    at += 1 + message[at]
    extensions = message[at + 2 :] + struct.pack("!HH", kind, len(content)) + content
    body = message[4:at] + struct.pack("!H", min(len(extensions), 0xFFFF)) + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def protocols(size: int) -> bytes:
    """An extension of ALPN of about that size."""
    names = b"".join(b"\xff" + b"x" * 255 for _ in range((size - 2) // 256))
    return struct.pack("!H", len(names)) + names


@contextlib.contextmanager
def serving(tls: TLS = MADE) -> Iterator[Server]:
    """A server that still serves at the end."""
    with Server(tls=tls, workers=1) as server:
        yield server
        with server.client(tls=MADE, timeout=SOON) as client:
            assert says_back(client)


def the_end_of(server: Server) -> Record:
    [ended] = server.ledger.wait(closed=1, timeout=SOON)
    assert ended.tls is None
    return ended


def answer(client: socket.socket) -> bytes:
    """What the server sends before it ends, by FIN or by a reset."""
    try:
        return read_to_end(client)
    except ConnectionResetError:
        return b""


ATTACKS = {
    "a record that says 64 KiB": record(HANDSHAKE, b"")[:3] + b"\xff\xff",
    "empty records": record(HANDSHAKE, b"") * 100,
    "data before the handshake": record(DATA, bytes(16)),
    "empty data before the handshake": record(DATA, b"") * 1_000,
    "a heartbeat that says more than it has": record(HEARTBEAT, b"\x01\x40\x00x"),
    "a storm of warnings": record(ALERT, b"\x01\x5a") * 1_000,
    "a storm of close_notify": record(ALERT, b"\x01\x00") * 1_000,
    "a fatal alert": record(ALERT, b"\x02\x28"),
    "an alert of one byte": record(ALERT, b"\x02"),
    "change_cipher_spec first": record(CHANGE_CIPHER_SPEC, b"\x01") * 1_000,
    "a message of 16 MiB": record(HANDSHAKE, b"\x01\xff\xff\xff"),
    "a hello that is shorter than it says": record(HANDSHAKE, b"\x01\x00\x00\x01\x03"),
    "the hello of a server": records(b"\x02" + hello()[1:]),
    "two hellos": records(hello()) * 2,
    "an SSL 2 hello": b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10" + bytes(37),
    "an unknown kind of record": record(99, b"xx"),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "protocols of 64 KiB": records(hello(ALPN, protocols(65_536 - 256))),
    "an extension that says 64 KiB": records(hello(ALPN, b"\xff\xff")),
}


@pytest.mark.parametrize("sent", ATTACKS.values(), ids=ATTACKS)
def test_what_is_not_a_handshake_is_refused_with_its_reason(sent: bytes) -> None:
    with serving() as server, dial(server.address) as client:
        with contextlib.suppress(OSError):
            client.sendall(sent)
        answer(client)
        client.close()
        ended = the_end_of(server)
        assert ended.closed_by == "error"
        assert ended.error is not None
        assert ended.error.startswith("TLS: ")
        assert ended.bytes_out < 3_000


def test_a_close_in_the_middle_of_the_handshake_is_told() -> None:
    for end in (record(ALERT, b"\x01\x00"), b""):
        with serving() as server, dial(server.address) as client:
            client.sendall(records(hello()))
            assert client.recv(1) == bytes([HANDSHAKE])
            client.sendall(end)
            client.shutdown(socket.SHUT_WR)
            answer(client)
            assert the_end_of(server).error in (
                "TLS: the peer closed during the handshake",
                "TLS: the peer sent the alert close_notify",
            )


def test_a_hello_in_records_of_one_byte_is_a_hello() -> None:
    with serving() as server, dial(server.address) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in records(hello(), 1):
            client.sendall(bytes([byte]))
        assert client.recv(1) == bytes([HANDSHAKE])


def test_a_long_hello_in_records_of_one_byte_is_refused() -> None:
    with serving() as server, dial(server.address) as client:
        before = time.process_time()
        with contextlib.suppress(OSError):
            client.sendall(records(hello(ALPN, protocols(60_000)), 1))
        answer(client)
        client.close()
        ended = the_end_of(server)
        # Each byte of it comes with five of a header, which are kept until the message is whole.
        assert ended.error is not None
        assert "more than 64 KiB" in ended.error
        assert time.process_time() - before < 2.0


def test_a_hello_with_many_protocols_is_a_hello() -> None:
    with serving() as server, dial(server.address) as client:
        client.sendall(records(hello(ALPN, protocols(50_000))))
        assert client.recv(1) == bytes([HANDSHAKE])


@pytest.mark.parametrize(
    "half",
    [b"", b"\x16", records(hello())[:100], records(hello())],
    ids=["nothing", "a byte", "a half", "a hello"],
)
def test_a_handshake_that_stops_costs_no_time(half: bytes) -> None:
    with serving() as server, dial(server.address) as client:
        client.sendall(half)
        server.ledger.wait(open=1, timeout=SOON)
        client.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while client.recv(4096):
                pass
        before = time.process_time()
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert time.process_time() - before < 0.15, "it spins"


class TestChains:
    """Certificates of clients, which a server that asks for them has to read."""

    @staticmethod
    def sends(folder: Path, certificates: int) -> tuple[Record, int]:
        for name, text in (
            ("cert", MADE.cert_pem + MADE.ca_pem * certificates),
            ("key", MADE.key_pem),
        ):
            (folder / f"{name}.pem").write_text(text)
        tls = TLS(
            MADE.cert_pem.encode(),
            MADE.key_pem.encode(),
            client_ca=MADE.ca_pem.encode(),
            require_client_cert=True,
        )
        context = ssl.create_default_context(cadata=MADE.ca_pem)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        before = time.process_time()
        with Server(tls=tls, workers=1) as server, dial(server.address) as raw:
            with contextlib.suppress(OSError):
                with context.wrap_socket(raw, server_hostname="localhost") as client:
                    client.sendall(b"x")
                    client.recv(1)
            raw.close()
            [ended] = server.ledger.wait(closed=1, timeout=SOON)
            with server.client(tls=MADE, timeout=SOON) as other:
                assert says_back(other)
        assert time.process_time() - before < 3.0
        return ended, ended.bytes_in

    def test_a_chain_of_more_than_64_kib_is_refused(self, tmp_path: Path) -> None:
        ended, received = self.sends(tmp_path, 400)
        assert ended.error is not None
        assert "more than 64 KiB" in ended.error
        assert ended.tls is None
        assert received < 300_000

    def test_a_long_chain_is_read(self, tmp_path: Path) -> None:
        ended, received = self.sends(tmp_path, 60)
        assert ended.tls is not None
        assert received > 20_000


@needs_openssl
class TestOpenssl:
    @staticmethod
    def command(server: Server, *options: str) -> list[str]:
        host, port = server.address
        return [OPENSSL, "s_client", "-connect", f"{host}:{port}", "-ign_eof", *options]

    def test_a_renegotiation_is_refused(self) -> None:
        with serving() as server:
            # Without -ign_eof, a line "R" asks for one.
            command = [word for word in self.command(server, "-tls1_2") if word != "-ign_eof"]
            pipe = subprocess.PIPE
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as client:
                wait_until(lambda: any(one.tls for one in server.ledger.open))
                assert client.stdin is not None
                client.stdin.write(b"R\n")
                client.stdin.flush()
                # It ends by itself, because of the answer.
                client.wait(SOON)
                _, errors = client.communicate(timeout=SOON)
            assert b"RENEGOTIATING" in errors
            assert b"no renegotiation" in errors
            [ended] = server.ledger.wait(closed=1, timeout=SOON)
            assert ended.closed_by != "service"

    def test_early_data_is_not_taken(self, tmp_path: Path) -> None:
        session, data = str(tmp_path / "session"), tmp_path / "data"
        data.write_bytes(b"early")
        with Server(service=Greeting(b"hello"), tls=MADE) as server:
            for options in (
                ["-sess_out", session],
                ["-sess_in", session, "-early_data", str(data)],
            ):
                done = subprocess.run(
                    self.command(server, "-tls1_3", *options),
                    input=b"",
                    capture_output=True,
                    check=True,
                    timeout=60,
                )
                assert b"hello" in done.stdout
            first, second = server.ledger.wait(closed=2, timeout=SOON)
            assert b"Early data was not sent" in done.stdout
            assert (first.error, second.error) == (None, None)
            assert second.tls is not None
            assert second.tls.resumed


def test_many_handshakes_at_once_all_succeed() -> None:
    context = ssl.create_default_context(cadata=MADE.ca_pem)
    limits = Limits(connections=AT_ONCE + 10)
    with Server(tls=MADE, limits=limits) as server, contextlib.ExitStack() as stack:
        poll = stack.enter_context(selectors.DefaultSelector())
        clients = []
        for _ in range(AT_ONCE):
            raw = stack.enter_context(dial(server.address))
            raw.setblocking(False)
            client = context.wrap_socket(
                raw, server_hostname="localhost", do_handshake_on_connect=False
            )
            clients.append(stack.enter_context(client))
        begun = time.monotonic()
        deadline = begun + 4 * SOON
        for client in clients:
            if not shaken(client):
                poll.register(client, selectors.EVENT_READ)
        while poll.get_map():
            assert time.monotonic() < deadline, f"{len(poll.get_map())} are not complete"
            for key, _ in poll.select(SOON):
                assert isinstance(key.fileobj, ssl.SSLSocket)
                if shaken(key.fileobj):
                    poll.unregister(key.fileobj)
        took = time.monotonic() - begun
        if LONG:
            # With the client's side of them, which is in this process.
            print(f"\n{AT_ONCE:,} handshakes at once: {took:.2f} s, {AT_ONCE / took:,.0f} a second")
        for client in clients:
            client.settimeout(SOON)
            assert says_back(client)
        assert server.ledger.totals.open == AT_ONCE


def shaken(client: ssl.SSLSocket) -> bool:
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True

"""TLS over a duplicate of a stream, and HTTP on handlers, with peers that do not know rsock."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import shutil
import smtplib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import urllib3
from support import (
    LATE,
    LOOPBACK,
    SOON,
    Background,
    Script,
    arrived,
    dial,
    payload,
    read_exactly,
    read_to_end,
    reset,
    sleeping,
    wait_until,
)
from support.project import ROOT
from support.roles import handled

from rsock import Client, Connection, Record, Server

ONE_MIB = payload(1 << 20, seed=13)
EXAMPLE = ROOT / "examples" / "http_handler.py"
# The first bytes of a handshake that does not continue.
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


# --- TLS -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def for_servers(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(LOOPBACK, "localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def for_clients(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def tls_echo(for_servers: ssl.SSLContext) -> Iterator[Server]:
    """A server whose handler echoes over TLS. Any exception in a handler fails the test."""
    with handled(echo_by(for_servers)) as server:
        yield server


def echo_by(
    context: ssl.SSLContext, threads: list[int] | None = None
) -> Callable[[Connection], None]:
    """A handler that echoes over TLS; it adds the thread that it runs on to `threads`."""

    def echo(conn: Connection) -> None:
        if threads is not None:
            threads.append(threading.get_native_id())
        with context.wrap_socket(conn.to_socket(), server_side=True) as tls:
            while data := tls.recv(1 << 16):
                tls.sendall(data)

    return echo


def last_of(server: Server) -> Record:
    """The record of the only connection."""
    server.ledger.wait(open=0, closed=1)
    [record] = server.ledger.closed
    return record


def test_what_is_sent_over_tls_comes_back(tls_echo: Server, for_clients: ssl.SSLContext) -> None:
    with tls_echo.client(timeout=SOON) as client:
        with for_clients.wrap_socket(client.to_socket(), server_hostname=LOOPBACK) as tls:
            # In turns: before 3.13 two threads must not use one SSLSocket at once.
            for start in range(0, len(ONE_MIB), 1 << 16):
                piece = ONE_MIB[start : start + (1 << 16)]
                tls.sendall(piece)
                assert read_exactly(tls, len(piece)) == piece
            assert tls.version() == "TLSv1.3"
            names: Any = (tls.getpeercert() or {})["subjectAltName"]
            assert ("IP Address", LOOPBACK) in names
        assert client.record is not None
        # Bytes that go through a duplicate are not counted.
        assert (client.record.bytes_in, client.record.bytes_out) == (0, 0)
    record = last_of(tls_echo)
    assert (record.closed_by, record.error) == ("local", None)
    assert tls_echo.errors == []


def test_many_clients_speak_tls_at_once(tls_echo: Server, for_clients: ssl.SSLContext) -> None:
    def speak(number: int) -> bool:
        message = payload(50_000, seed=number)
        with tls_echo.client(timeout=SOON) as client:
            with for_clients.wrap_socket(client.to_socket(), server_hostname=LOOPBACK) as tls:
                tls.sendall(message)
                return read_exactly(tls, len(message)) == message

    calls = [Background(speak, number) for number in range(20)]
    assert all([call.result(20.0) for call in calls])


def test_a_program_that_knows_nothing_of_rsock_speaks_tls_with_it(
    tls_echo: Server, authority: trustme.CA, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    trusted = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    address = f"{tls_echo.host}:{tls_echo.port}"
    command = [openssl, "s_client", "-quiet", "-no_ign_eof", "-verify_return_error"]
    with subprocess.Popen(
        [*command, "-verify_ip", LOOPBACK, "-CAfile", trusted, "-connect", address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(b"from openssl\n")
        program.stdin.flush()
        assert program.stdout.readline() == b"from openssl\n"
        program.stdin.close()
        assert program.wait(SOON) == 0


def test_a_client_may_give_itself_to_tls(tls_echo: Server, for_clients: ssl.SSLContext) -> None:
    client = tls_echo.client(timeout=SOON)
    # As with any socket, ssl takes the descriptor and detaches the original object.
    with for_clients.wrap_socket(as_socket(client), server_hostname=LOOPBACK) as tls:
        assert client.closed
        assert client.record is not None
        assert client.record.closed_by == "detached"
        assert tls.gettimeout() == SOON
        tls.sendall(b"given away")
        assert read_exactly(tls, 10) == b"given away"


def test_a_handler_may_give_its_connection_to_tls(
    for_servers: ssl.SSLContext, for_clients: ssl.SSLContext
) -> None:
    def echo(conn: Connection) -> None:
        with for_servers.wrap_socket(as_socket(conn), server_side=True) as tls:
            while data := tls.recv(1 << 16):
                tls.sendall(data)

    with handled(echo) as server, server.client(timeout=SOON) as client:
        with for_clients.wrap_socket(client.to_socket(), server_hostname=LOOPBACK) as tls:
            tls.sendall(b"given away")
            assert read_exactly(tls, 10) == b"given away"
            # The server no longer manages it.
            assert last_of(server).closed_by == "detached"


def as_socket(stream: Client | Connection) -> Any:
    """The stream, typed as a socket for functions whose signature asks for one."""
    return stream


def test_tls_may_begin_in_the_middle_of_a_connection(
    for_servers: ssl.SSLContext, for_clients: ssl.SSLContext
) -> None:
    # A stream reads nothing ahead: what follows the line is still there for TLS.
    def upgrade(conn: Connection) -> None:
        conn.sendall(b"220 here\r\n")
        assert conn.recv_line().startswith(b"ehlo")
        conn.sendall(b"250-here\r\n250 STARTTLS\r\n")
        assert conn.recv_line() == b"STARTTLS\r\n"
        conn.sendall(b"220 go on\r\n")
        with for_servers.wrap_socket(conn.to_socket(), server_side=True) as tls:
            with tls.makefile("rwb") as file:
                for line in file:
                    file.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 secret\r\n")
                    file.flush()

    class Mail(smtplib.SMTP):
        def _get_socket(self, host: str, port: int, timeout: float) -> Client:
            return Client(host, port, timeout=timeout)

    with handled(upgrade) as server:
        with Mail(server.host, server.port, "me.example", SOON) as smtp:
            smtp._host = LOOPBACK  # type: ignore[attr-defined]
            assert smtp.starttls(context=for_clients)[0] == 220
            assert isinstance(smtp.sock, ssl.SSLSocket)
            assert smtp.noop() == (250, b"secret")
        assert last_of(server).closed_by == "local"


def test_a_server_that_is_not_trusted_is_refused_by_the_client(tls_echo: Server) -> None:
    with tls_echo.client(timeout=SOON) as client:
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(client.to_socket(), server_hostname=LOOPBACK)
    record = last_of(tls_echo)
    assert record.closed_by == "error"
    assert "UNKNOWN_CA" in str(record.error)
    assert tls_echo.errors == []


def test_a_client_without_a_certificate_is_refused_and_recorded(
    authority: trustme.CA, for_clients: ssl.SSLContext
) -> None:
    with handled(echo_by(asking_for_certificates(authority))) as server:
        with server.client(timeout=SOON) as client:
            refused_over_tls(client, for_clients)
        record = last_of(server)
        assert (record.closed_by, record.limit) == ("error", None)
        assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in str(record.error)
        assert server.errors == []


def test_a_client_with_a_strange_certificate_is_refused_and_recorded(
    authority: trustme.CA,
) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    trustme.CA().issue_cert("unknown.example").configure_cert(context)
    with handled(echo_by(asking_for_certificates(authority))) as server:
        with server.client(timeout=SOON) as client:
            refused_over_tls(client, context)
        record = last_of(server)
        assert "CERTIFICATE_VERIFY_FAILED" in str(record.error)
        # SSLCertVerificationError is also a ValueError; that must not be mistaken for a limit.
        assert (record.closed_by, record.limit) == ("error", None)
        assert server.errors == []


def test_a_server_without_a_certificate_is_told_so(for_clients: ssl.SSLContext) -> None:
    without = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server = Server(service=echo_by(without), on_error="raise").start()
    with server.client(timeout=SOON) as client:
        refused_over_tls(client, for_clients)
    assert "NO_SHARED_CIPHER" in str(last_of(server).error)
    wait_until(lambda: len(server.errors) == 1)
    [error] = server.errors
    assert isinstance(error, ssl.SSLError)
    with pytest.raises(ExceptionGroup) as raised:
        server.stop()
    assert raised.value.exceptions == (error,)


def test_a_context_for_clients_is_reported() -> None:
    wrong = ssl.create_default_context()
    wrong.check_hostname = False
    with Server(service=echo_by(wrong)) as server, server.client(timeout=SOON):
        last_of(server)
        wait_until(lambda: len(server.errors) == 1)
        assert "PROTOCOL_TLS_CLIENT" in str(server.errors[0])


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.0\r\n\r\n", b"hello\n" * 20, HALF_A_HELLO, b""],
    ids=["http", "text", "half", "nothing"],
)
def test_a_client_that_does_not_speak_tls_is_its_own_fault(tls_echo: Server, said: bytes) -> None:
    with tls_echo.client(timeout=SOON) as client:
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            client.recv(100)
        assert last_of(tls_echo).closed_by in {"error", "peer"}
    assert tls_echo.errors == []


def test_a_stop_is_a_clean_end_for_a_tls_client(
    authority: trustme.CA, for_clients: ssl.SSLContext
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(LOOPBACK).configure_cert(context)
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF

    def echo(conn: Connection) -> None:
        with context.wrap_socket(conn.to_socket(), server_side=True) as tls:
            while data := tls.recv(1 << 16):
                tls.sendall(data)
            tls.unwrap()

    with handled(echo) as server, server.client(timeout=SOON) as client:
        with for_clients.wrap_socket(
            client.to_socket(), server_hostname=LOOPBACK, suppress_ragged_eofs=False
        ) as tls:
            tls.sendall(b"before")
            assert read_exactly(tls, 6) == b"before"
            stopping = Background(server.stop)
            # Without close_notify this raises SSLEOFError.
            assert tls.recv(1) == b""
        assert stopping.result().abandoned == 0


def test_a_client_with_a_certificate_is_served(authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    authority.issue_cert("friend.example").configure_cert(context)
    with handled(echo_by(asking_for_certificates(authority))) as server:
        with server.client(timeout=SOON) as client:
            with context.wrap_socket(client.to_socket(), server_hostname=LOOPBACK) as tls:
                tls.sendall(b"a friend")
                assert read_exactly(tls, 8) == b"a friend"


def asking_for_certificates(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(LOOPBACK).configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def refused_over_tls(client: Client, context: ssl.SSLContext) -> None:
    # With TLS 1.3 the client finishes its part of the handshake before the server has seen it.
    with pytest.raises(OSError, match=r"(?i)alert|eof|reset|broken"):
        with context.wrap_socket(client.to_socket(), server_hostname=LOOPBACK) as tls:
            while True:
                tls.sendall(b"x")
                if not tls.recv(1):
                    raise OSError("alert: a plain end")


@pytest.mark.parametrize(
    ("data", "leave", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "waits", "HTTP_REQUEST"),
        (payload(1_000, seed=1), "waits", "SSLError"),
        (b"\n", "ends", "SSL"),
        (HALF_A_HELLO, "ends", "EOF"),
        (b"", "ends", "EOF"),
        (HALF_A_HELLO, "resets", "ConnectionResetError"),
        (b"", "resets", "ConnectionResetError"),
    ],
    ids=["HTTP", "noise", "a line", "leaves halfway", "leaves", "resets halfway", "resets"],
)
def test_a_client_that_does_not_speak_tls_is_only_recorded(
    for_servers: ssl.SSLContext,
    data: bytes,
    leave: str,
    words: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    threads: list[int] = []
    with Server(service=echo_by(for_servers, threads)) as server:
        with dial(server.address) as peer:
            peer.sendall(data)
            if leave != "waits":
                wait_until(lambda: threads and sleeping(threads[0]))
            if leave == "ends":
                peer.shutdown(socket.SHUT_WR)
            elif leave == "resets":
                reset(peer)
            record = last_of(server)
        assert record.closed_by in ("error", "reset")
        assert words in str(record.error)
        assert server.errors == []
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_a_client_that_leaves_without_a_word_of_tls_has_finished(
    tls_echo: Server, for_clients: ssl.SSLContext
) -> None:
    with tls_echo.client(timeout=SOON) as client:
        with for_clients.wrap_socket(client.to_socket(), server_hostname=LOOPBACK) as tls:
            tls.sendall(b"hello")
            assert read_exactly(tls, 5) == b"hello"
            client.shutdown(socket.SHUT_WR)
            record = last_of(tls_echo)
    assert record.error is None
    assert tls_echo.errors == []


@pytest.mark.parametrize("when", ["in a read", "in the handshake"])
def test_a_tls_handler_that_waits_ends_at_once_when_the_server_stops(
    for_servers: ssl.SSLContext, for_clients: ssl.SSLContext, when: str
) -> None:
    waiting: list[int] = []
    ends: list[bytes] = []

    def read(conn: Connection) -> None:
        waiting.append(threading.get_native_id())
        with for_servers.wrap_socket(conn.to_socket(), server_side=True) as tls:
            ends.append(tls.recv(100))
            ends.append(tls.recv(100))

    with handled(read) as server, server.client(timeout=SOON) as client:
        speaks: socket.socket = client.to_socket()
        if when == "in a read":
            speaks = for_clients.wrap_socket(speaks, server_hostname=LOOPBACK)
            speaks.sendall(b"hello")
            wait_until(lambda: ends)
        else:
            speaks.sendall(HALF_A_HELLO)
            arrived(speaks)
        with speaks:
            wait_until(lambda: waiting and sleeping(waiting[0]))
            report = server.stop(SOON)
            assert (report.drained, report.forced, report.abandoned) == (1, 0, 0)
            assert report.seconds < LATE
        assert ends == ([b"hello", b""] if when == "in a read" else [])
        [record] = server.ledger.closed
        assert record.closed_by == "stop"
        assert server.errors == []


# --- HTTP ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def http_handler() -> Callable[[Connection], None]:
    """The handler of `examples/http_handler.py`."""
    specification = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    handler: Callable[[Connection], None] = module.serve
    return handler


@pytest.fixture
def web(http_handler: Callable[[Connection], None]) -> Iterator[Server]:
    """A server with that handler. Any exception in a handler fails the test."""
    with handled(http_handler) as server:
        yield server


def ask(server: Server, data: bytes) -> bytes:
    """Send exactly this and finish; return everything that comes back."""
    with dial(server.address) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        return read_to_end(peer)


def curl(*arguments: str, data: bytes = b"") -> bytes:
    """What curl prints."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(
        [program, "--silent", "--show-error", "--max-time", "10", "--noproxy", "*", *arguments],
        input=data,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 80


def test_the_example_runs_as_a_program() -> None:
    with Script(
        f"import runpy, sys; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')", "0"
    ) as (script):
        url = script.line().removeprefix("serving ")
        with urllib3.PoolManager() as pool:
            assert (
                pool.request("GET", url, retries=False, timeout=SOON).data == b"hello from rsock\n"
            )
        script.process.terminate()
        code, out, errors = script.end()
        assert (code, errors) == (0, "")
        assert "SIGTERM" in out


def test_curl_fetches_two_pages_through_one_connection(web: Server) -> None:
    assert curl(web.url("http"), web.url("http", "/?again")) == b"hello from rsock\n" * 2
    record = last_of(web)
    assert record.closed_by == "peer"
    assert web.ledger.totals.accepted == 1


@pytest.mark.parametrize("size", [0, 1, 100_000, 1 << 20])
def test_curl_posts_a_body_and_gets_it_back(web: Server, size: int) -> None:
    body = payload(size)
    # With more than 1 MiB, or with this header, curl first asks whether to continue.
    sent = curl(
        "--data-binary", "@-", "-H", "Expect: 100-continue", web.url("http", "/echo"), data=body
    )
    assert sent == body


def test_a_body_that_is_too_large_is_refused_as_a_whole(web: Server) -> None:
    url = web.url("http", "/echo")
    arguments = ("--data-binary", "@-", "--write-out", " %{http_code}", url)
    assert curl(*arguments, data=payload(5 << 20)) == b"too large\n 413"


def test_curl_asks_for_the_head_alone(web: Server) -> None:
    head = curl("--head", web.url("http"))
    status, *headers = head.split(b"\r\n")
    assert status.rstrip() == b"HTTP/1.1 200"
    assert b"Content-Length: 17" in headers
    assert head.endswith(b"\r\n\r\n")
    # It has no body, and the connection continues with the next request.
    assert curl("--head", web.url("http"), web.url("http")).count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    ("arguments", "path", "status"),
    [
        ((), "/nowhere", b"404"),
        (("-X", "POST", "-d", "data"), "/", b"405"),
        ((), "/echo", b"405"),
        (("--http1.0",), "/", b"200"),
        (("-H", "Connection: close"), "/", b"200"),
        (("-H", "Transfer-Encoding: chunked", "-d", "in a chunk"), "/echo", b"200"),
    ],
    ids=["404", "405 POST", "405 GET", "HTTP/1.0", "close", "chunked"],
)
def test_curl_is_answered_with_the_right_status(
    web: Server, arguments: tuple[str, ...], path: str, status: bytes
) -> None:
    answer = curl("--write-out", "%{http_code}", *arguments, web.url("http", path))
    assert answer[-3:] == status


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\ncut",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=["nonsense", "no host", "two hosts", "header", "length", "cut short", "TLS"],
)
def test_a_bad_request_is_answered_and_ends_the_connection(web: Server, request_: bytes) -> None:
    answer = ask(web, request_)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\nno such request\n")
    assert answer.count(b"HTTP/1.1") == 1
    # A request that was cut short is an ordinary end of a client, and is not reported.
    assert web.errors == []


def test_a_head_without_end_is_refused(web: Server) -> None:
    answer = ask(web, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000)
    assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


def test_requests_sent_at_once_are_answered_in_order(web: Server) -> None:
    page = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    echo = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
    answers = ask(web, page + echo + page + echo)
    assert answers.count(b"HTTP/1.1 200 ") == 4
    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in answers.split(b"HTTP/1.1 ")[1:]]
    assert bodies == [b"hello from rsock\n", b"body"] * 2


def test_a_request_that_comes_byte_by_byte_is_answered(web: Server) -> None:
    with dial(web.address) as peer:
        for byte in b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody":
            peer.sendall(bytes([byte]))
            arrived(peer)
        answer = b""
        while not answer.endswith(b"\r\n\r\nbody"):
            answer += peer.recv(1_000)
        assert answer.startswith(b"HTTP/1.1 200 ")


def test_urllib3_makes_fifty_requests_through_few_connections(web: Server) -> None:
    with urllib3.HTTPConnectionPool(web.host, web.port, maxsize=3, block=True) as pool:

        def ask(number: int) -> bool:
            body = payload(1_000 + number, seed=number)
            answer = pool.request("POST", "/echo", body=body, retries=False, timeout=SOON)
            return (answer.status, answer.data) == (200, body)

        def ask_some(first: int) -> bool:
            return all([ask(number) for number in range(first, 50, 5)])

        calls = [Background(ask_some, first) for first in range(5)]
        assert all([call.result(20.0) for call in calls])
        assert pool.num_requests == 50
        assert 1 <= pool.num_connections <= 3
        assert web.ledger.totals.accepted == pool.num_connections
    records = web.ledger.wait(open=0, closed=1)
    # Each record counts what came through its connection: all bodies and headers.
    assert sum(record.bytes_in for record in records) > sum(range(1_000, 1_050))
    assert {record.closed_by for record in records} == {"peer"}


def test_http_client_keeps_its_connection(web: Server) -> None:
    connection = http.client.HTTPConnection(web.host, web.port, timeout=SOON)
    for _ in range(10):
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"hello from rsock\n")
        connection.request("HEAD", "/")
        answer = connection.getresponse()
        assert (answer.getheader("Content-Length"), answer.read()) == ("17", b"")
        connection.request("PUT", "/", b"body")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Allow")) == (405, "GET, HEAD")
        answer.read()
    connection.close()
    assert last_of(web).closed_by == "peer"


def test_a_stop_ends_connections_that_are_kept_for_later(web: Server) -> None:
    with urllib3.HTTPConnectionPool(web.host, web.port) as pool:
        assert pool.request("GET", "/", retries=False, timeout=SOON).status == 200
        report = web.stop(SOON)
        assert (report.drained, report.forced, report.abandoned) == (1, 0, 0)
        assert report.seconds < LATE


def test_a_silent_client_is_given_up_and_recorded(
    http_handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The handler reads its time-out from its module.
    monkeypatch.setitem(http_handler.__globals__, "PATIENCE", 0.05)
    with handled(http_handler) as server, server.client(timeout=SOON) as client:
        client.sendall(b"GET / HT")
        assert client.recv(1) == b""
        record = last_of(server)
        assert record.closed_by == "error"
        assert "TimeoutError" in str(record.error)
        assert server.errors == []


def test_https_is_http_over_a_duplicate(
    for_servers: ssl.SSLContext, for_clients: ssl.SSLContext, http_handler: Callable[..., None]
) -> None:
    def serve(conn: Connection) -> None:
        # The handler only needs recv and sendall, which a TLS socket has as well.
        with for_servers.wrap_socket(conn.to_socket(), server_side=True) as tls:
            http_handler(tls)

    with handled(serve) as server:
        with urllib3.PoolManager(ssl_context=for_clients) as pool:
            for _ in range(3):
                answer = pool.request("GET", server.url("https"), retries=False, timeout=SOON)
                assert (answer.status, answer.data) == (200, b"hello from rsock\n")
        assert server.ledger.totals.accepted == 1

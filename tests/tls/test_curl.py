"""TLS against curl: HTTP with each service in front of it, mail, and what curl refuses."""

from __future__ import annotations

import contextlib
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support import SOON, payload

from rsock import TLS, Connection, Forward, Greeting, Server

CURL = shutil.which("curl") or ""
MADE = TLS.for_tests(alpn=["http/1.1"])
OTHER = TLS.for_tests(["example.org"])
BODY = payload(300_000)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"

pytestmark = pytest.mark.skipif(not CURL, reason="curl is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("ca", MADE.ca_pem), ("cert", MADE.cert_pem), ("key", MADE.key_pem)):
        (tmp_path / f"{name}.pem").write_text(text)
    (tmp_path / "other.pem").write_text(OTHER.ca_pem)
    return tmp_path


def curl(folder: Path, *options: str) -> tuple[int, bytes, str]:
    """Exit code, output, and what it says of an error."""
    command = [CURL, "-sS", "--cacert", "ca.pem", "--noproxy", "*", "--max-time", "60", *options]
    done = subprocess.run(command, capture_output=True, check=False, timeout=90, cwd=folder)
    return done.returncode, done.stdout, done.stderr.decode()


def url(server: Server, scheme: str = "https") -> str:
    return f"{scheme}://localhost:{server.port}/"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_gets_an_answer(folder: Path, version: str) -> None:
    with Server(service=Greeting(ANSWER), tls=MADE) as server:
        options = f"--tlsv{version}", "--tls-max", version
        assert curl(folder, *options, url(server)) == (0, b"hello", "")
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert (record.closed_by, record.error) == ("service", None)
        assert record.tls is not None
        assert (record.tls.version, record.tls.alpn) == (f"TLSv{version}", "http/1.1")


def web(conn: Connection) -> None:
    """HTTP whose content ends with the connection: only close_notify says that it is all."""
    while conn.recv_line() != b"\r\n":
        pass
    conn.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)


def test_what_close_notify_ends_is_whole_to_curl(folder: Path) -> None:
    with Server(service=web, tls=MADE) as server:
        assert curl(folder, url(server)) == (0, BODY, "")


def test_curl_takes_what_is_cut_for_an_error(folder: Path) -> None:
    def handler(conn: Connection) -> None:
        while conn.recv_line() != b"\r\n":
            pass
        conn.sendall(ANSWER[:-2])
        conn.abort()

    with Server(service=handler, tls=MADE) as server:
        code, _, said = curl(folder, url(server))
        assert code in (18, 56), said


class Page(BaseHTTPRequestHandler):
    """A target that is not rsock's."""

    def do_PUT(self) -> None:
        got = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(got)))
        self.end_headers()
        self.wfile.write(got)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def page(folder: Path, *, by_tls: bool) -> Iterator[tuple[str, int]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as httpd:
        if by_tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
            httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        thread = threading.Thread(target=httpd.serve_forever, args=[0.05])
        thread.start()
        try:
            yield "127.0.0.1", httpd.server_port
        finally:
            httpd.shutdown()
            thread.join()


@pytest.mark.parametrize("up", [False, True], ids=["clear-up", "tls-up"])
@pytest.mark.parametrize("down", [False, True], ids=["clear-down", "tls-down"])
def test_curl_reaches_a_foreign_server_through_a_forwarder(
    folder: Path, down: bool, up: bool
) -> None:
    (folder / "body").write_bytes(BODY)
    with page(folder, by_tls=up) as target:
        forward = Forward(target, tls=TLS(ca=MADE.ca_pem.encode()) if up else False)
        with Server(service=forward, tls=MADE if down else None) as server:
            where = url(server, "https" if down else "http")
            # Without the header, curl waits a second for an answer that HTTP/1.0 does not have.
            assert curl(folder, "-H", "Expect:", "-T", "body", where) == (0, BODY, "")
            [record] = server.ledger.wait(closed=1, timeout=SOON)
            # The standard library closes the target's socket without close_notify.
            assert ("without close_notify" in str(record.error)) == up
            assert (record.tls is not None) == down
            assert record.far is not None
            assert (record.far.tls is not None) == up


@pytest.mark.parametrize(
    ("tls", "options", "code", "said"),
    [
        (OTHER, ["--cacert", "other.pem"], 60, "no alternative certificate subject name"),
        (MADE, ["--cacert", "other.pem"], 60, "unable to get local issuer certificate"),
        (MADE, ["--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0"], 35, "handshake failure"),
        (MADE, ["--tls-max", "1.2", "--ciphers", "AES128-SHA"], 35, "handshake failure"),
    ],
    ids=["another name", "another authority", "an old version", "an old cipher"],
)
def test_curl_says_why_there_is_no_connection(
    folder: Path, tls: TLS, options: list[str], code: int, said: str
) -> None:
    with Server(service=Greeting(ANSWER), tls=tls) as server:
        got, out, errors = curl(folder, *options, url(server))
        assert (got, out) == (code, b""), errors
        assert said in errors
        server.ledger.wait(closed=1, timeout=SOON)
        assert server.stop().errors == 0


def test_curl_shows_its_certificate(folder: Path) -> None:
    tls = TLS(
        folder / "cert.pem",
        folder / "key.pem",
        client_ca=folder / "ca.pem",
        require_client_cert=True,
    )
    with Server(service=Greeting(ANSWER), tls=tls) as server:
        with_one = curl(folder, "--cert", "cert.pem", "--key", "key.pem", url(server))
        assert with_one == (0, b"hello", "")
        code, out, said = curl(folder, url(server))
        assert (code, out) == (56, b"")
        assert "certificate required" in said
        good, bad = server.ledger.wait(closed=2, timeout=SOON)
        assert good.tls is not None
        assert good.tls.peer is not None
        assert good.tls.peer.names == ("localhost", "127.0.0.1")
        assert bad.error == "TLS: the client sent no certificate, which is required"


def test_curl_resumes_its_session(folder: Path) -> None:
    with Server(service=web, tls=MADE) as server:
        assert curl(folder, url(server), url(server)) == (0, BODY * 2, "")
        first, second = server.ledger.wait(closed=2, timeout=SOON)
        assert first.tls is not None
        assert second.tls is not None
        assert (first.tls.resumed, second.tls.resumed) == (False, True)


def test_curl_sends_mail_by_start_tls(folder: Path) -> None:
    delivered: list[bytes] = []

    def smtp(conn: Connection) -> None:
        conn.sendall(b"220 test\r\n")
        while line := conn.recv_line():
            match line.split()[0].upper():
                case b"EHLO":
                    conn.sendall(b"250-test\r\n250 STARTTLS\r\n")
                case b"STARTTLS":
                    conn.sendall(b"220 go ahead\r\n")
                    conn.start_tls(MADE)
                case b"DATA":
                    conn.sendall(b"354 go on\r\n")
                    delivered.append(conn.recv_until(b"\r\n.\r\n"))
                    conn.sendall(b"250 taken\r\n")
                case b"QUIT":
                    conn.sendall(b"221 bye\r\n")
                    return
                case _:
                    conn.sendall(b"250 fine\r\n")

    (folder / "mail").write_bytes(b"Subject: hello\r\n\r\nbye\r\n")
    with Server(service=smtp, on_error="raise") as server:
        mail = ["--mail-from", "me@example.test", "--mail-rcpt", "you@example.test", "-T", "mail"]
        done = curl(folder, "--ssl-reqd", *mail, url(server, "smtp"))
        assert done == (0, b"", "")
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.tls is not None
    assert delivered == [b"Subject: hello\r\n\r\nbye\r\n.\r\n"]

"""TLS against the programs of OpenSSL."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import SOON, dial

from rsock import TLS, Client, Connection, Echo, Greeting, Server

MADE = TLS.for_tests()
OPENSSL = shutil.which("openssl") or ""

pytestmark = pytest.mark.skipif(not OPENSSL, reason="openssl is not installed")


def openssl(*command: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [OPENSSL, *command], input=data, capture_output=True, check=False, timeout=60
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("ca", MADE.ca_pem), ("cert", MADE.cert_pem), ("key", MADE.key_pem)):
        (tmp_path / f"{name}.pem").write_text(text)
    return tmp_path


def client(server: Server, *options: str, data: bytes = b"") -> tuple[int, str, str]:
    """`openssl s_client`, until the server closes."""
    host, port = server.address
    done = openssl("s_client", "-connect", f"{host}:{port}", *options, "-ign_eof", data=data)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("version", "cipher"),
    [
        ("-tls1_2", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("-tls1_2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("-tls1_3", "TLS_AES_256_GCM_SHA384"),
        ("-tls1_3", "TLS_CHACHA20_POLY1305_SHA256"),
    ],
)
def test_s_client_gets_what_is_sent_and_a_clean_end(
    folder: Path, version: str, cipher: str
) -> None:
    suite = "-cipher" if version == "-tls1_2" else "-ciphersuites"
    with Server(service=Greeting(b"hello from rsock"), tls=MADE) as server:
        code, out, _ = client(
            server, version, suite, cipher, "-CAfile", str(folder / "ca.pem"),
            "-verify_return_error", "-verify_hostname", "localhost",
        )  # fmt: skip
        assert code == 0
        assert "hello from rsock" in out
        assert cipher in out
        assert "Verification: OK" in out
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.error is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        # An old version has no such extension.
        (["-tls1"], "signature algorithms extension required"),
        (["-tls1_1"], "signature algorithms extension required"),
        (["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"], "no kx groups in common"),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"], "no cipher suites in common"),
        (["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "no signature schemes in common"),
        (["-tls1_3", "-groups", "ffdhe2048"], "no kx groups in common"),
    ],
    ids=["1.0", "1.1", "static RSA", "CBC", "RSA only", "ffdhe"],
)
def test_what_rustls_does_not_speak_is_refused_with_an_alert(
    options: list[str], error: str
) -> None:
    with Server(tls=MADE) as server:
        code, _, errors = client(server, *options)
        assert code != 0
        if "no protocols" in errors:
            pytest.skip("this OpenSSL does not speak that")
        assert "alert handshake failure" in errors
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert (record.closed_by, record.tls) == ("error", None)
        assert record.error == f"TLS: the peer is incompatible: {error}"


def test_an_older_version_than_wanted_is_refused_with_its_alert() -> None:
    tls = TLS(MADE.cert_pem.encode(), MADE.key_pem.encode(), min_version="1.3")
    with Server(tls=tls) as server:
        code, _, errors = client(server, "-tls1_2")
        assert code != 0
        assert "alert protocol version" in errors
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert (record.closed_by, record.tls) == ("error", None)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_resumes_a_session(folder: Path, version: str) -> None:
    session = str(folder / "session")
    with Server(service=Greeting(b"hello"), tls=MADE) as server:
        for flag in ("-sess_out", "-sess_in"):
            code, out, _ = client(server, version, flag, session)
            assert code == 0
            assert ("Reused, " in out) == (flag == "-sess_in")
        first, second = server.ledger.wait(closed=2, timeout=SOON)
        assert first.tls is not None
        assert second.tls is not None
        assert (first.tls.resumed, second.tls.resumed) == (False, True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-verify_hostname", "example.org"], "hostname mismatch"),
        (["-verify_ip", "192.0.2.1"], "IP address mismatch"),
        (["-verify_hostname", "localhost", "-attime", "7258118400"], "certificate has expired"),
    ],
    ids=["another name", "another address", "expired"],
)
def test_s_client_refuses_a_certificate_that_does_not_fit(
    folder: Path, options: list[str], reason: str
) -> None:
    with Server(service=Greeting(b"hello to you"), tls=certificate(folder)) as server:
        ca = ["-CAfile", str(folder / "own.pem"), "-verify_return_error"]
        code, out, errors = client(server, *ca, *options)
        assert code != 0
        assert reason in errors
        assert "hello to you" not in out
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert (record.closed_by, record.tls) == ("error", None)
        assert record.error is not None
        assert "the peer sent the alert" in record.error
        # That the certificate has expired is known to that client's clock only.
        assert server.stop().errors == 0


def smtp(conn: Connection) -> None:
    conn.sendall(b"220 test\r\n")
    assert conn.recv_line().startswith(b"EHLO ")
    conn.sendall(b"250-test\r\n250 STARTTLS\r\n")
    assert conn.recv_line() == b"STARTTLS\r\n"
    conn.sendall(b"220 go ahead\r\n")


def imap(conn: Connection) -> None:
    conn.sendall(b"* OK test\r\n")
    tag = conn.recv_line().split()[0]
    conn.sendall(b"* CAPABILITY IMAP4rev1 STARTTLS\r\n" + tag + b" OK done\r\n")
    assert conn.recv_line().split()[1] == b"STARTTLS"
    conn.sendall(b". OK go ahead\r\n")


def pop3(conn: Connection) -> None:
    conn.sendall(b"+OK test\r\n")
    assert conn.recv_line() == b"STLS\r\n"
    conn.sendall(b"+OK go ahead\r\n")


def ftp(conn: Connection) -> None:
    conn.sendall(b"220 test\r\n")
    assert conn.recv_line() == b"AUTH TLS\r\n"
    conn.sendall(b"234 go ahead\r\n")


def postgres(conn: Connection) -> None:
    assert conn.recv_exactly(8) == struct.pack(">II", 8, 80_877_103)
    conn.sendall(b"S")


@pytest.mark.parametrize("protocol", [smtp, imap, pop3, ftp, postgres])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_begins_tls_in_a_protocol(
    folder: Path, protocol: Callable[[Connection], None], version: str
) -> None:
    def handler(conn: Connection) -> None:
        protocol(conn)
        conn.start_tls(MADE)
        conn.sendall(b"hello from rsock")

    with Server(service=handler, on_error="raise") as server:
        code, out, errors = client(
            server, version, "-starttls", protocol.__name__, "-CAfile", str(folder / "ca.pem"),
            "-verify_return_error", "-verify_hostname", "localhost",
        )  # fmt: skip
        assert code == 0, errors
        assert "hello from rsock" in out
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.tls is not None
        assert (record.closed_by, record.error) == ("local", None)


def test_a_certificate_of_a_client_is_verified(folder: Path) -> None:
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    tls = TLS(cert, key, client_ca=folder / "ca.pem", require_client_cert=True)
    with Server(service=Greeting(b"hello"), tls=tls) as server:
        code, out, _ = client(server, "-cert", cert, "-key", key)
        assert (code, "hello" in out) == (0, True)
        code, _, errors = client(server)
        assert code != 0
        assert "certificate required" in errors
        good, bad = server.ledger.wait(closed=2, timeout=SOON)
        assert good.tls is not None
        assert good.tls.peer is not None
        assert good.tls.peer.names == ("localhost", "127.0.0.1")
        assert bad.error == "TLS: the client sent no certificate, which is required"


def certificate(folder: Path, *options: str, subject: str = "/CN=localhost/O=A, B") -> TLS:
    """A certificate that signs itself, as people make them."""
    cert, key = folder / "own.pem", folder / "own-key.pem"
    done = openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", str(key), "-out", str(cert), "-subj", subject,
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,email:a@b.c", *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return TLS(cert, key)


def test_a_certificate_that_signs_itself_is_accepted_where_it_is_named(folder: Path) -> None:
    own = certificate(folder)
    named = TLS(ca=folder / "own.pem")
    with Server(tls=own) as server:
        with server.client(tls=named, timeout=SOON) as stream:
            stream.sendall(b"x")
            assert stream.recv_exactly(1) == b"x"
            assert stream.record is not None
            assert stream.record.tls is not None
            peer = stream.record.tls.peer
            assert peer is not None
            assert peer.subject == r"CN=localhost, O=A\, B"
            assert peer.names == ("localhost", "127.0.0.1", "a@b.c")
        with pytest.raises(ssl.SSLCertVerificationError):
            server.client(tls=True, timeout=SOON)
        other = TLS(ca=folder / "own.pem", server_hostname="example.org")
        with pytest.raises(ssl.SSLCertVerificationError, match="example.org"):
            server.client(tls=other, timeout=SOON)


# A little authority, for what `req` cannot do: certificates of the past.
AUTHORITY = """
[ca]
default_ca = own
[own]
database = index.txt
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
[any]
commonName = supplied
[names]
subjectAltName = DNS:localhost,IP:127.0.0.1
"""


@pytest.fixture
def expired(folder: Path, monkeypatch: pytest.MonkeyPatch) -> TLS:
    """A certificate of last year, own.pem in the current directory."""
    monkeypatch.chdir(folder)
    for name, text in (("ca.cnf", AUTHORITY), ("index.txt", ""), ("serial", "01\n")):
        (folder / name).write_text(text)
    for command in (
        "req -new -key key.pem -subj /CN=localhost -out own.csr",
        "ca -batch -selfsign -config ca.cnf -keyfile key.pem -in own.csr -out own.pem -notext"
        " -extensions names -startdate 20200101000000Z -enddate 20210101000000Z",
    ):
        done = openssl(*command.split())
        assert done.returncode == 0, done.stderr
    return TLS("own.pem", "key.pem")


EXPIRED = "the certificate has expired at 2021-01-01T00:00:00"


def test_a_certificate_that_has_expired_is_refused(expired: TLS) -> None:
    with Server(tls=expired) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            server.client(tls=TLS(ca="own.pem"), timeout=SOON)
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        report = server.stop()
    assert record.error is not None
    assert re.fullmatch(
        r"TLS: the server's certificate has expired at 2021-01-01T00:00:00\S*Z:"
        r" the peer sent the alert certificate_expired",
        record.error,
    )
    # Our own fault, and so an error of the server.
    assert report.errors == 1


def test_what_the_peer_does_in_a_handshake_is_no_error_of_the_server() -> None:
    with Server(tls=MADE) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            server.client(tls=TLS(ca=TLS.for_tests().ca_pem.encode()), timeout=SOON)
        with dial(server.address) as peer:
            peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert peer.recv(100)[:1] == b"\x15", "an alert"
        dial(server.address).close()
        records = server.ledger.wait(closed=3, timeout=SOON)
        report = server.stop()
    assert {record.closed_by for record in records} == {"error"}
    assert all(record.error and record.error.startswith("TLS: ") for record in records)
    assert not any("the server's certificate" in str(record.error) for record in records)
    assert report.errors == 0


def test_an_own_certificate_that_has_expired_is_logged_at_the_start(
    expired: TLS, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(tls=expired, name="web"):
        [said] = caplog.messages
        assert said.startswith(f"web: {EXPIRED}")
    caplog.clear()
    with Server(tls=MADE, name="web") as server:
        assert caplog.messages == []
        server.tls = expired
        [said] = caplog.messages
        assert said.startswith(f"web: {EXPIRED}")


def test_on_error_is_called_with_what_is_wrong_with_an_own_certificate(expired: TLS) -> None:
    errors: list[BaseException] = []
    mixed = TLS(
        MADE.cert_pem.encode(),
        MADE.key_pem.encode(),
        sni={"localhost": expired, "example.org": MADE, "*.example.net": MADE},
    )
    with Server(tls=mixed, name="web", on_error=errors.append):
        assert [type(error) for error in errors] == [ssl.SSLError] * 3
    texts = sorted(str(error) for error in errors)
    assert "sni '*.example.net' is not valid for that name" in texts[0]
    assert "sni 'example.org' is not valid for that name" in texts[1]
    assert "sni 'localhost' has expired at 2021-01-01" in texts[2]


def test_a_certificate_for_tests_has_nothing_wrong(caplog: pytest.LogCaptureFixture) -> None:
    named = TLS.for_tests(["*.example.net", "127.0.0.1"])
    both = TLS(MADE.cert_pem.encode(), MADE.key_pem.encode(), sni={"*.example.net": named})
    with Server(tls=both):
        assert caplog.messages == []


def test_a_client_talks_to_s_server(folder: Path) -> None:
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = [OPENSSL, "s_server", "-accept", "127.0.0.1:0", "-rev", "-cert", cert, "-key", key]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        assert program.stdout is not None
        try:
            line = next(line for line in program.stdout if line.startswith(b"ACCEPT"))
            port = int(line.rpartition(b":")[2])
            with Client("127.0.0.1", port, tls=MADE, timeout=SOON) as stream:
                stream.sendall(b"hello\n")
                assert stream.recv_line() == b"olleh\n"
        finally:
            program.terminate()


def test_many_handshakes_at_once(folder: Path) -> None:
    count = 200
    context = ssl.create_default_context(cadata=MADE.ca_pem)
    failed: list[BaseException] = []

    def talk(sockets: list[socket.socket]) -> None:
        try:
            streams = [context.wrap_socket(raw, server_hostname="localhost") for raw in sockets]
            for stream in streams:
                stream.sendall(b"hello")
            for stream in streams:
                assert stream.recv(5) == b"hello"
                stream.close()
        except BaseException as error:
            failed.append(error)

    with Server(service=Echo(), tls=MADE) as server:
        # All are connected before the first handshake.
        sockets = [dial(server.address) for _ in range(count)]
        threads = [threading.Thread(target=talk, args=[sockets[n::4]]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert all(record.tls for record in server.ledger.wait(closed=count, timeout=SOON))

"""The plugin for pytest and TLS: servers with a certificate, and reports of failed handshakes."""

from __future__ import annotations

import http.client
import re
import ssl
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support import SOON, dial
from support.errors import raised
from support.plugin import alone, quick

from rsock import TLS, Connection, Forward, Script, Server
from rsock._pytest._cause import cause
from rsock._pytest._scene import look, settle
from rsock._pytest._section import section
from rsock.pytest_plugin import MakeProxy, MakeServer

pytest_plugins = ["pytester"]


def echoes(address: Any, context: ssl.SSLContext) -> bool:
    with dial(address) as raw, context.wrap_socket(raw, server_hostname="localhost") as client:
        client.sendall(b"hello")
        return client.recv(5) == b"hello"


# --- servers with a certificate ------------------------------------------------------------


@pytest.mark.rsock(tls=True)
def test_the_marker_gives_the_server_a_certificate(rsock_server: Server, rsock_tls: TLS) -> None:
    assert rsock_server.tls is rsock_tls
    with rsock_server.client(timeout=SOON) as client:
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"
        assert client.record is not None
        assert client.record.tls is not None
    assert echoes(rsock_server.address, rsock_tls.client_context())


def test_all_servers_of_a_run_have_the_same_authority(
    make_rsock_server: MakeServer, rsock_proxy: MakeProxy, rsock_tls: TLS, rsock_ca_file: Path
) -> None:
    context = ssl.create_default_context(cafile=rsock_ca_file)
    own = TLS.for_tests()
    first = make_rsock_server(tls=True)
    assert first.tls is rsock_tls
    assert echoes(first.address, context)
    assert echoes(rsock_proxy(make_rsock_server(tls=False), tls=True).address, context)
    assert make_rsock_server(tls=None).tls is None
    other = make_rsock_server(tls=own)
    assert other.tls is own
    with pytest.raises(ssl.SSLCertVerificationError):
        echoes(other.address, context)
    assert echoes(other.address, own.client_context())


def test_handlers_and_scripts_get_clear_text(make_rsock_server: MakeServer) -> None:
    server = make_rsock_server(Script().expect(b"HELO\r\n").send(b"250 ok\r\n"), tls=True)
    with server.client(timeout=SOON) as client:
        client.sendall(b"HELO\r\n")
        assert client.recv_line() == b"250 ok\r\n"


def test_a_client_of_another_library(make_rsock_server: MakeServer, rsock_tls: TLS) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    server = make_rsock_server(Script().until(b"\r\n\r\n").send(answer), tls=True)
    with urllib3.PoolManager(ssl_context=rsock_tls.client_context()) as pool:
        assert pool.request("GET", server.url("https")).data == b"ok"


def test_udp_with_tls_is_an_error_that_says_so(pytester: pytest.Pytester) -> None:
    code = """
@pytest.mark.rsock(tls=True)
def test_it(rsock_udp):
    pass
"""
    done = quick(pytester, code)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*tls=…*udp*"])


def test_the_certificate_is_made_by_the_first_test_that_needs_it(pytester: pytest.Pytester) -> None:
    code = """
made = []

def test_none(rsock_server, pytestconfig):
    from rsock._pytest import _session
    assert pytestconfig.stash.get(_session._TLS, None) is None

@pytest.mark.parametrize("number", range(3))
def test_it(make_rsock_server, number):
    made.append(make_rsock_server(tls=True).tls)
    assert len(set(map(id, made))) == 1

def test_the_fixture(rsock_tls, rsock_ca_file):
    assert rsock_tls is made[0]
    assert rsock_ca_file.read_text() == rsock_tls.ca_pem
"""
    alone(pytester, code).assert_outcomes(passed=5)


# --- `TLS.client_context` -------------------------------------------------------------------


def test_a_context_verifies_the_host_and_trusts_nothing_else() -> None:
    context = TLS.for_tests().client_context()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


def test_a_context_has_alpn_and_the_version() -> None:
    tls = TLS.for_tests(alpn=["h2", b"http/1.1"], min_version="1.3")
    assert tls.client_context().minimum_version == ssl.TLSVersion.TLSv1_3
    with Server(tls=tls) as server, dial(server.address) as raw:
        with tls.client_context().wrap_socket(raw, server_hostname="localhost") as client:
            assert client.selected_alpn_protocol() == "h2"


def test_a_context_shows_the_certificate_where_it_is_required() -> None:
    tls = TLS.for_tests(require_client_cert=True)
    with Server(tls=tls) as server:
        assert echoes(server.address, tls.client_context())
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.tls is not None
        assert record.tls.peer is not None


def test_other_objects_have_no_context() -> None:
    with pytest.raises(AttributeError, match="client_context: only of an object of TLS.for_tests"):
        TLS(ca=TLS.for_tests().ca_pem.encode()).client_context()


# --- the line of cause ---------------------------------------------------------------------


def line(error: BaseException | None, *servers: Server) -> str:
    settle(servers)
    return cause(error, [look(server) for server in servers])


def shakes(server: Server, context: ssl.SSLContext, name: str = "localhost") -> BaseException:
    """What a client of Python's `ssl` fails with."""
    with dial(server.address) as raw:

        def talk() -> None:
            with context.wrap_socket(raw, server_hostname=name) as client:
                client.sendall(b"x")
                client.recv(1)

        error = raised(talk)
    server.ledger.wait(open=0, closed=1, timeout=SOON)
    return error


def of_tests(**options: Any) -> Server:
    return Server(**{"tls": TLS.for_tests(), "trace": True, **options})


def test_a_client_that_does_not_know_the_authority() -> None:
    with of_tests() as server:
        found = line(shakes(server, ssl.create_default_context()), server)
    assert found.startswith(
        "TLS, connection 1: the client refused the server's certificate: unknown CA ("
    )
    # What OpenSSL says of it.
    assert found.endswith("certificate in certificate chain)") or "issuer" in found


def test_a_client_that_wants_another_name() -> None:
    with of_tests() as server:
        tls = server.tls
        assert tls is not None
        found = line(shakes(server, tls.client_context(), "example.org"), server)
    assert found.startswith("TLS, connection 1: the client refused the server's certificate: bad")
    assert "certificate is not valid for 'example.org'" in found


def test_a_client_of_rsock_that_does_not_know_the_authority() -> None:
    with of_tests() as server:
        error = raised(lambda: server.client(tls=True, timeout=SOON))
        server.ledger.wait(open=0, closed=1, timeout=SOON)
        found = line(error, server)
    assert found.startswith("TLS, connection 1: the client refused the server's certificate: ")


def test_a_client_of_another_library_that_does_not_know_the_authority() -> None:
    with of_tests() as server:
        pool = urllib3.PoolManager(retries=False)
        error = raised(lambda: pool.request("GET", server.url("https")))
        server.ledger.wait(open=0, closed=1, timeout=SOON)
        found = line(error, server)
    assert found.startswith(
        "TLS, connection 1: the client refused the server's certificate: unknown CA"
    )


def test_a_client_without_the_certificate_that_is_required() -> None:
    tls = TLS.for_tests(require_client_cert=True)
    with Server(tls=tls, trace=True) as server:
        found = line(shakes(server, ssl.create_default_context(cadata=tls.ca_pem)), server)
    assert found == (
        "TLS, connection 1: the handshake of TLS failed: the client sent no certificate, which is "
        "required"
    )


def test_a_client_in_clear_text() -> None:
    with of_tests() as server:
        client = http.client.HTTPConnection(server.host or "", server.port, timeout=SOON)

        def ask() -> None:
            client.request("GET", "/")
            client.getresponse()

        error = raised(ask)
        client.close()
        server.ledger.wait(open=0, closed=1, timeout=SOON)
        found = line(error, server)
    assert "connection 1: the client did not begin TLS, which the server has" in found


@pytest.mark.parametrize("service", [None, Script().expect(b"EHLO me\r\n")])
def test_a_server_in_clear_text(service: Any) -> None:
    with Server(service=service, trace=True) as server:
        found = line(shakes(server, TLS.for_tests().client_context()), server)
    # A script resets a client that diverges.
    assert re.sub("^reset", "TLS", found) == (
        "TLS, connection 1: the client began a handshake of TLS, and the server is without TLS: "
        "tls=True gives it a certificate"
    )


def test_the_tls_of_a_target_is_its_own() -> None:
    with of_tests(name="target") as target:
        with Server(service=Forward(target, tls=True), trace=True, name="proxy") as proxy:
            with proxy.client(timeout=SOON) as client:
                error = raised(lambda: client.recv(1))
            proxy.ledger.wait(open=0, closed=1, timeout=SOON)
            found = line(error, proxy)
    assert "connection 1: the server's side failed: " in found
    assert "certificate verify failed" in found


def test_what_is_told_of_a_connection_in_tls_is_no_cipher_text() -> None:
    def half(conn: Connection) -> None:
        conn.sendall(conn.recv_exactly(5)[:2])
        conn.recv(1)

    with of_tests(service=half) as server, server.client(timeout=0.3) as client:
        client.sendall(b"hello")

        def read() -> None:
            assert client.recv(5) == b"hello"
            client.recv(5)

        first, second = raised(read), raised(lambda: client.recv(5))
        assert "connection 1: " in line(first, server)
        found = line(second, server)
        assert re.search(r"connection 1: \d[\d,]* bytes of TLS came and \d[\d,]* were sent", found)
        assert "the handler is in `conn.recv(1)`" in found
        assert "b'" not in line(first, server) + found
        text = section([server], second, "call", 1, "pytest")
    assert re.search(r"connection 1: .* from the client and .* to it, in TLSv1.3", text)


def test_the_report_of_a_test_has_it(pytester: pytest.Pytester) -> None:
    code = """
import ssl

@pytest.mark.rsock(tls=True)
def test_it(rsock_server):
    with socket.create_connection(rsock_server.address, 5.0) as raw:
        ssl.create_default_context().wrap_socket(raw, server_hostname="localhost")
"""
    done = quick(pytester, code)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        ["*- rsock -*", "TLS, connection 1: the client refused the server's certificate: unknown*"]
    )

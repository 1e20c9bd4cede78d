"""The step `start_tls` of a script, and its text form."""

from __future__ import annotations

import smtplib
import ssl
from pathlib import Path

import pytest
from support import SOON, dial, read_exactly

from rsock import TLS, Client, Script, Server


@pytest.fixture(scope="module")
def tls() -> TLS:
    return TLS.for_tests()


@pytest.fixture(scope="module")
def context(tls: TLS) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=tls.ca_pem)


def upgrading(tls: TLS) -> Script:
    return Script().expect(b"STARTTLS\r\n").send(b"go\r\n").start_tls(tls)


def test_smtplib_begins_tls_with_a_script(tls: TLS, context: ssl.SSLContext) -> None:
    script = (
        Script()
        .send(b"220 ready\r\n")
        .expect_pattern(rb"ehlo [^\r]*\r\n")
        .send(b"250-a\r\n250 STARTTLS\r\n")
        .expect(b"STARTTLS\r\n")
        .send(b"220 go ahead\r\n")
        .start_tls(tls)
        .expect_pattern(rb"ehlo [^\r]*\r\n")
        .send(b"250 a\r\n")
        .expect(b"quit\r\n", ignore_case=True)
        .send(b"221 bye\r\n")
    )
    with Server(service=script, on_error="raise") as server:
        with smtplib.SMTP("localhost", server.port, "client.test", timeout=SOON) as client:
            client.ehlo()
            assert client.starttls(context=context)[0] == 220
            assert client.ehlo() == (250, b"a")
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.tls is not None
        assert record.tls.sni == "localhost"
    [result] = server.script_results
    assert result.done, result


def test_a_dialogue_goes_on_under_tls(tls: TLS) -> None:
    script = upgrading(tls).send(b"hello").expect(b"bye").expect_end()
    with (
        Server(service=script, on_error="raise") as server,
        Client(*server.address, timeout=SOON) as client,
    ):
        client.sendall(b"STARTTLS\r\n")
        assert client.recv_line() == b"go\r\n"
        client.start_tls(tls)
        assert client.recv_exactly(5) == b"hello"
        client.sendall(b"bye")
    script.check()


def test_bytes_behind_the_request_make_the_handshake_fail(tls: TLS) -> None:
    with Server(service=upgrading(tls).expect(b"x"), on_error=lambda error: None) as server:
        with dial(server.address) as stream:
            stream.sendall(b"STARTTLS\r\nDELETE EVERYTHING\r\n")
            assert read_exactly(stream, 4) == b"go\r\n"
            [record] = server.ledger.wait(closed=1, timeout=SOON)
    assert (record.closed_by, record.tls) == ("error", None)
    [result] = server.script_results
    assert result.error is not None
    assert "start_tls" in result.error
    assert "not TLS" in result.error


def test_a_handshake_that_does_not_come_is_told(tls: TLS) -> None:
    script = Script().start_tls(tls, timeout=0.1)
    with Server(service=script, on_error=lambda error: None) as server, dial(server.address):
        server.ledger.wait(closed=1, timeout=SOON)
    [result] = server.script_results
    assert result.error is not None
    assert "not met within 0.1 s" in result.error


def test_a_second_one_is_a_mismatch(tls: TLS) -> None:
    script = upgrading(tls).start_tls()
    with (
        Server(service=script, on_error=lambda error: None) as server,
        Client(*server.address, timeout=SOON) as client,
    ):
        client.sendall(b"STARTTLS\r\n")
        assert client.recv_line() == b"go\r\n"
        client.start_tls(tls)
        server.ledger.wait(closed=1, timeout=SOON)
    [result] = server.script_results
    assert "has TLS already" in str(result.error)


def test_the_text_form_has_the_step_and_not_the_certificate(tls: TLS, tmp_path: Path) -> None:
    path = tmp_path / "script.txt"
    upgrading(tls).save(path)
    assert "start_tls" in path.read_text()
    assert "PRIVATE" not in path.read_text()
    assert Script.load(path, tls=tls) == upgrading(tls)
    with pytest.raises(ValueError, match=r"line 4: start_tls needs a certificate"):
        Script.load(path)


def test_arguments_that_do_not_fit_are_named(tls: TLS) -> None:
    with pytest.raises(ValueError, match="needs a certificate"):
        Script().start_tls()
    with pytest.raises(TypeError, match="tls must be a TLS"):
        Script().start_tls(True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a certificate"):
        Script(tls=TLS()).start_tls()
    with pytest.raises(ValueError, match="one certificate"):
        Script(tls=tls).start_tls(TLS.for_tests())
    with pytest.raises(ValueError, match="shutdown write comes before it"):
        Script(tls=tls).shutdown_write().start_tls()

"""Bad input to TLS is refused where it is given: the error names the argument, path and reason."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import fds

from rsock import TLS, Client, Server

MADE = TLS.for_tests()
CERT, KEY, CA = MADE.cert_pem.encode(), MADE.key_pem.encode(), MADE.ca_pem.encode()
OTHER = TLS.for_tests()


def test_a_missing_file_is_the_error_of_open(tmp_path: Path) -> None:
    path = tmp_path / "none.pem"
    with pytest.raises(FileNotFoundError) as caught:
        TLS(path, KEY)
    assert caught.value.filename == str(path)


def test_an_error_names_argument_and_path(tmp_path: Path) -> None:
    path = tmp_path / "empty.pem"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="cert='.*empty.pem': not PEM") as caught:
        TLS(path, KEY)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"cert": b"", "key": KEY}, "cert=bytes: not PEM"),
        ({"cert": KEY, "key": KEY}, "cert=bytes: there is no certificate"),
        ({"cert": CERT, "key": CERT}, "key=bytes: there is no private key"),
        ({"cert": CERT}, "cert=bytes: there is no private key in it; give key="),
        ({"cert": CERT, "key": OTHER.key_pem.encode()}, "key=bytes: not the private key of cert"),
        ({"cert": CERT[:-30], "key": KEY}, "cert=bytes: not valid PEM"),
        ({"cert": CERT.replace(b"M", b"!", 1), "key": KEY}, "cert=bytes: not valid PEM"),
        ({"ca": b"x"}, "ca=bytes: not PEM"),
        ({"cert": CERT.decode(), "key": KEY}, "PEM itself is given as bytes"),
        ({"alpn": [""]}, "alpn ''"),
        ({"alpn": ["x" * 256]}, "alpn 'x"),
        ({"alpn": ["x" * 255] * 300}, "alpn: 76800 bytes"),
        ({"min_version": "1.1"}, "min_version '1.1'"),
        ({"server_hostname": "a b"}, "server_hostname 'a b'"),
        ({"require_client_cert": True}, "needs client_ca"),
        ({"cert": CERT, "key": KEY, "sni": {"127.0.0.1": MADE}}, "sni '127.0.0.1'"),
        ({"cert": CERT, "key": KEY, "sni": {"a": TLS(ca=CA)}}, "sni 'a': a TLS without"),
    ],
)
def test_bad_content_is_a_value_error(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TLS(**arguments)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"cert": 1, "key": KEY}, "cert must be a path, or PEM as bytes"),
        ({"key": KEY}, "needs cert="),
        ({"alpn": "h2"}, "alpn must be a list"),
        ({"sni": ["a"]}, "sni must be a dict"),
        ({"password": 1, "cert": CERT, "key": KEY}, "password must be"),
        ({"min_version": 1.2}, "min_version must be"),
    ],
)
def test_a_wrong_type_is_a_type_error(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        TLS(**arguments)


def test_a_key_in_the_file_of_the_certificate_is_found() -> None:
    with Server(tls=TLS(CERT + KEY)) as server, server.client(tls=TLS(ca=CA)) as client:
        client.sendall(b"x")
        assert client.recv_exactly(1) == b"x"


class TestEncryptedKeys:
    """Keys as OpenSSL writes them."""

    @pytest.fixture(params=["aes-256-cbc", "aes-128-cbc"])
    def encrypted(self, request: pytest.FixtureRequest) -> bytes:
        return openssl("pkcs8", "-topk8", "-v2", request.param, "-passout", "pass:secret")

    def test_a_password_decrypts_it(self, encrypted: bytes) -> None:
        for password in ("secret", b"secret"):
            TLS(CERT, encrypted, password=password)

    def test_without_a_password_it_says_so(self, encrypted: bytes) -> None:
        with pytest.raises(ValueError, match=r"key=bytes: the private key is encrypted; give pass"):
            TLS(CERT, encrypted)

    def test_a_wrong_password_says_so(self, encrypted: bytes) -> None:
        with pytest.raises(ValueError, match="cannot be decrypted with this password"):
            TLS(CERT, encrypted, password="wrong")

    def test_the_old_format_says_how_to_write_it_anew(self) -> None:
        old = openssl("ec", "-aes256", "-passout", "pass:secret")
        with pytest.raises(ValueError, match="openssl pkcs8 -topk8"):
            TLS(CERT, old, password="secret")


def openssl(*command: str) -> bytes:
    """The key as a command of OpenSSL writes it."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    return subprocess.run([program, *command], input=KEY, capture_output=True, check=True).stdout


def test_the_settings_of_one_role_are_refused_in_the_other() -> None:
    before = fds()
    with pytest.raises(ValueError, match="a server needs a certificate"):
        Server(tls=TLS())
    with pytest.raises(ValueError, match=r"TLS\(ca=…\) is for clients; .* client_ca="):
        Server(tls=TLS(CERT, KEY, ca=CA))
    with pytest.raises(ValueError, match=r"TLS\(server_hostname=…\) is for clients"):
        Server(tls=TLS(CERT, KEY, server_hostname="a"))
    with pytest.raises(ValueError, match=r"TLS\(client_ca=…\) is for servers; .* ca="):
        Client("127.0.0.1", 1, tls=TLS(CERT, KEY, client_ca=CA))
    with pytest.raises(ValueError, match=r"TLS\(sni=…\) is for servers"):
        Client("127.0.0.1", 1, tls=TLS(CERT, KEY, sni={"a": MADE}))
    assert fds() == before


def test_datagrams_have_no_tls() -> None:
    with pytest.raises(ValueError, match="tls=… and transport='udp'"):
        Server(transport="udp", tls=MADE)
    with pytest.raises(ValueError, match="TLS needs a stream"):
        Client(transport="udp", tls=MADE)


def test_other_objects_are_refused() -> None:
    values: list[Any] = [True, "cert.pem", {}]
    for value in values:
        with pytest.raises(TypeError, match="tls must be a TLS"):
            Server(tls=value)
    with pytest.raises(TypeError, match="tls must be True, False or a TLS"):
        Client(tls="cert.pem")  # type: ignore[arg-type]


def test_a_unix_socket_has_no_name_to_verify(tmp_path: Path) -> None:
    with Server(path=tmp_path / "x", tls=MADE) as server:
        with pytest.raises(ValueError, match="server_hostname"):
            server.client()
        named = TLS(ca=CA, server_hostname="localhost")
        with server.client(tls=named) as client:
            client.sendall(b"x")
            assert client.recv_exactly(1) == b"x"


def test_a_server_in_clear_text_gets_no_tls_later() -> None:
    server = Server()
    assert server.tls is None
    with pytest.raises(ValueError, match="without tls="):
        server.tls = MADE


def test_names_that_no_certificate_can_have_are_refused() -> None:
    with pytest.raises(ValueError, match="one name at least"):
        TLS.for_tests([])
    with pytest.raises(TypeError, match="names must be a list"):
        TLS.for_tests("localhost")
    with pytest.raises(ValueError, match="for_tests"):
        TLS.for_tests(["ä"])


def test_only_those_for_tests_have_their_pem() -> None:
    assert not hasattr(TLS(CERT, KEY), "ca_pem")
    assert repr(MADE) == "<TLS for tests, localhost, 127.0.0.1>"
    assert "PRIVATE" not in repr(TLS(CERT, KEY))

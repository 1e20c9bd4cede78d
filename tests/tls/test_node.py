"""TLS against Node's client, which is OpenSSL's library with ends of its own.

Each test starts one `node` or two, with the options of `tls.connect` and the steps to take
(`tests/peers/tls_client.js`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import SOON

from rsock import TLS, Connection, Forward, Limits, Server, TlsInfo
from rsock.faults import Truncate

NODE = shutil.which("node") or ""
PROGRAM = Path(__file__).parent.parent / "peers" / "tls_client.js"
MADE = TLS.for_tests()

pytestmark = pytest.mark.skipif(not NODE, reason="node is not installed")
VERSIONS = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])

Step = tuple[str | int, str] | tuple[str | int, str, str | int]
SAYS_HELLO: list[Step] = [("secure", "write", "hello"), (5, "end")]


class Told:
    """The events of a client, in the order in which they came."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self._events = events
        # What Node tells once and for both versions: a session comes once, or twice.
        self.order = [each["event"] for each in events if each["event"] != "session"]

    def __getitem__(self, event: str) -> dict[str, Any]:
        """The last of them."""
        return [each for each in self._events if each["event"] == event][-1]


def node(
    server: Server, steps: list[Step] = SAYS_HELLO, *, version: str | None = None, **options: Any
) -> Told:
    """A client of Node, until its connection has closed."""
    options = {"port": server.port, "ca": MADE.ca_pem, "steps": steps, **options}
    if version is not None:
        options |= {"minVersion": version, "maxVersion": version}
    done = subprocess.run(
        [NODE, str(PROGRAM), json.dumps(options)], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return Told([json.loads(line) for line in done.stdout.splitlines()])


def agreed(server: Server) -> TlsInfo:
    """What the newest record says of TLS, once all are closed."""
    record = server.ledger.wait(open=0, closed=1, timeout=SOON)[-1]
    assert record.tls is not None
    return record.tls


@VERSIONS
def test_an_echo_of_much_and_a_clean_end(version: str) -> None:
    much = 1_000_000
    with Server(tls=MADE) as server:
        told = node(server, [("secure", "write", much), (much, "end")], version=version)
        assert told.order == ["secure", "end", "close"]
        assert told["secure"]["protocol"] == version
        assert told["secure"]["names"] == "DNS:localhost, IP Address:127.0.0.1"
        assert told["close"]["count"] == much
        assert told["close"]["digest"] == hashlib.sha256(b"x" * much).hexdigest()
        info = agreed(server)
        assert (info.version, info.sni) == (version, "localhost")
        # TLS 1.3 has names without the key exchange, in both.
        assert info.cipher.replace("13_", "") == told["secure"]["cipher"]
        assert (server.ledger[-1].closed_by, server.ledger[-1].error) == ("peer", None)


@VERSIONS
def test_an_end_behind_the_data_passes_the_answer(version: str) -> None:
    """The client ends its side at once, and its data comes back all the same."""
    with Server(tls=MADE) as server:
        steps: list[Step] = [("secure", "write", 300_000), ("secure", "end")]
        told = node(server, steps, version=version)
        assert told.order == ["secure", "end", "close"]
        assert told["close"]["count"] == 300_000
        assert server.ledger.wait(closed=1, timeout=SOON)[0].closed_by == "peer"


@VERSIONS
@pytest.mark.parametrize("half_open", [True, False], ids=["half-open", "default"])
def test_what_comes_behind_the_servers_end_reaches_the_handler(
    version: str, half_open: bool
) -> None:
    """By default, Node ends its own side when the server does."""
    got: list[bytes] = []

    def handler(conn: Connection) -> None:
        conn.sendall(b"bye")
        conn.shutdown(socket.SHUT_WR)
        while data := conn.recv(100):
            got.append(data)

    with Server(tls=MADE, service=handler) as server:
        steps: list[Step] = [("end", "write", "after"), ("end", "end")]
        told = node(server, steps, version=version, allowHalfOpen=half_open)
        assert told["close"]["text"] == "bye"
        assert "end" in told.order
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.error is None
        assert server.errors == []
    assert b"".join(got) == (b"after" if half_open else b"")


@VERSIONS
def test_node_takes_a_cut_without_close_notify_for_an_end(version: str) -> None:
    """Its event is "end", as after close_notify, and none is "error": the protocol must tell."""

    def handler(conn: Connection) -> None:
        conn.sendall(bytes(100_000))
        # The end of the client's side.
        conn.recv(1)

    with (
        Server(tls=MADE, service=handler) as server,
        # The cut is made where the forwarder passes on what it cannot read.
        Server(service=Forward(server), faults=[Truncate(50_000)]) as relay,
    ):
        told = node(relay, [], version=version)
        assert told.order == ["secure", "end", "close"]
        assert 0 < told["close"]["count"] < 50_000
        server.ledger.wait(closed=1, timeout=SOON)


@VERSIONS
def test_a_reset_is_an_error_to_node(version: str) -> None:
    def handler(conn: Connection) -> None:
        conn.sendall(b"hello")
        # A reset in the same segment as data would be an end to Node.
        assert conn.recv_exactly(4) == b"seen"
        conn.abort()

    with Server(tls=MADE, service=handler) as server:
        told = node(server, [(5, "write", "seen")], version=version)
        assert told.order == ["secure", "error", "close"]
        assert told["error"]["code"] == "ECONNRESET"
        assert told["close"]["text"] == "hello"
        server.ledger.wait(closed=1, timeout=SOON)


@VERSIONS
def test_the_cut_that_node_makes_is_an_error_to_the_handler(version: str) -> None:
    """`destroy()` of Node closes the socket without close_notify."""
    caught: list[OSError] = []

    def handler(conn: Connection) -> None:
        conn.sendall(conn.recv_exactly(5))
        try:
            conn.recv(1)
        except OSError as error:
            caught.append(error)

    with Server(tls=MADE, service=handler) as server:
        node(server, [("secure", "write", "hello"), (5, "destroy")], version=version)
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.error == "TLS: the peer closed without close_notify: data may be missing"
    assert [type(error) for error in caught] == [ssl.SSLEOFError]


@VERSIONS
def test_the_limit_of_an_idle_connection_is_an_end_to_node(version: str) -> None:
    with Server(tls=MADE, limits=Limits(idle=0.3)) as server:
        told = node(server, [("secure", "write", "hello")], version=version)
        assert told.order == ["secure", "end", "close"]
        assert told["close"]["text"] == "hello"
        assert server.ledger.wait(closed=1, timeout=SOON)[0].limit == "idle"


@VERSIONS
def test_a_session_is_resumed(version: str) -> None:
    with Server(tls=MADE) as server:
        first = node(server, version=version)
        assert not first["secure"]["resumed"]
        assert not agreed(server).resumed
        second = node(server, version=version, session=first["session"]["ticket"])
        assert second["secure"]["resumed"]
        assert agreed(server).resumed
        assert second["close"]["text"] == "hello"


@VERSIONS
def test_the_certificate_of_a_client_is_in_the_record(version: str) -> None:
    tls = TLS(
        MADE.cert_pem.encode(),
        MADE.key_pem.encode(),
        client_ca=MADE.ca_pem.encode(),
        require_client_cert=True,
    )
    with Server(tls=tls) as server:
        told = node(server, version=version, cert=MADE.cert_pem, key=MADE.key_pem)
        assert told["close"]["text"] == "hello"
        peer = agreed(server).peer
        assert peer is not None
        assert peer.der == ssl.PEM_cert_to_DER_cert(MADE.cert_pem)
        told = node(server, version=version)
        assert "ALERT_CERTIFICATE_REQUIRED" in told["error"]["code"]
        refused = server.ledger.wait(closed=2, timeout=SOON)[-1]
        assert refused.error == "TLS: the client sent no certificate, which is required"


@VERSIONS
def test_a_protocol_is_agreed_on(version: str) -> None:
    tls = TLS(MADE.cert_pem.encode(), MADE.key_pem.encode(), alpn=["h2", "http/1.1"])
    with Server(tls=tls) as server:
        told = node(server, version=version, ALPNProtocols=["spdy/1", "http/1.1"])
        assert told["secure"]["alpn"] == agreed(server).alpn == "http/1.1"
        told = node(server, version=version, ALPNProtocols=["spdy/1"])
        assert "NO_APPLICATION_PROTOCOL" in told["error"]["code"]
        refused = server.ledger.wait(closed=2, timeout=SOON)[-1]
        assert (refused.closed_by, refused.tls) == ("error", None)


@VERSIONS
def test_the_name_chooses_the_certificate(version: str) -> None:
    other = TLS.for_tests(["www.example.org"])
    both = TLS(MADE.cert_pem.encode(), MADE.key_pem.encode(), sni={"*.example.org": other})
    with Server(tls=both) as server:
        told = node(server, version=version, ca=other.ca_pem, servername="www.example.org")
        assert told["secure"]["names"] == "DNS:www.example.org"
        assert agreed(server).sni == "www.example.org"
        assert node(server, version=version)["close"]["text"] == "hello"


@VERSIONS
@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"servername": "example.org"}, "ERR_TLS_CERT_ALTNAME_INVALID"),
        ({"ca": TLS.for_tests().ca_pem}, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"),
    ],
    ids=["another name", "another authority"],
)
def test_a_certificate_that_does_not_fit_is_refused(
    version: str, options: dict[str, Any], code: str
) -> None:
    with Server(tls=MADE) as server:
        told = node(server, version=version, **options)
        assert told["error"]["code"] == code
        assert told["close"]["count"] == 0
        # Node sends no alert. It closes at its end of the handshake, whose last message may be the
        # server's end of it.
        [record] = server.ledger.wait(closed=1, timeout=SOON)
        assert record.closed_by in ("error", "reset")
        assert record.error is not None
        assert record.error.startswith("TLS: the peer closed")
        assert server.stop().errors == 0


def test_a_version_that_the_server_does_not_speak_is_refused() -> None:
    tls = TLS(MADE.cert_pem.encode(), MADE.key_pem.encode(), min_version="1.3")
    with Server(tls=tls) as server:
        told = node(server, version="TLSv1.2")
        assert told["error"]["code"] == "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION"
        assert server.ledger.wait(closed=1, timeout=SOON)[0].tls is None

"""Certificates of many clients: each record names its own client, and old records cost nothing.

The server is a process of its own, so that its memory is its own. `RSOCK_TEST_LONG=1` has 10 000
clients, and prints what one record takes.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support import Script, dial, says_back

from rsock import TLS

LONG = bool(os.environ.get("RSOCK_TEST_LONG"))
CLIENTS = 10_000 if LONG else 200
# What an allocator may keep of what was freed.
SLACK = 3 << 20
MADE = TLS.for_tests()
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])

# Answers a line on standard input with a line of JSON.
SERVER = """
import json, os, sys
from rsock import TLS, Server

folder, history, required = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "required"
authority = folder + "/authority.pem" if required else None
tls = TLS(
    folder + "/server.pem", client_ca=authority, require_client_cert=required
)
with Server(tls=tls, history=history, workers=1) as server:
    print(server.port, flush=True)
    for line in sys.stdin:
        records = server.ledger.wait(open=0, closed=int(line), timeout=60)
        # Read first: the names become objects of Python below.
        with open("/proc/self/statm") as memory:
            rss = int(memory.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        peers = [
            (one.remote.port, one.tls.resumed, one.tls.peer and [one.tls.peer.subject,
             one.tls.peer.names[0], len(one.tls.peer.der)])
            for one in records
        ]
        failed = server.ledger.totals.tls_failed
        print(json.dumps({"rss": rss, "failed": failed, "peers": peers}), flush=True)
        del records, peers
"""


class Authority:
    """Signs a certificate for each client, with a key of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = named("the authority of many")
        ca = x509.BasicConstraints(ca=True, path_length=None)
        signed = self._sign(self._name, self._key, ca)
        (folder / "authority.pem").write_bytes(signed)
        (folder / "server.pem").write_text(MADE.cert_pem + MADE.key_pem)

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name)
        made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(days=1))
        made = made.not_valid_after(now + datetime.timedelta(days=1))
        made = made.add_extension(extension, critical=False)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, *, names: int = 1) -> ssl.SSLContext:
        """The context of a client with a certificate for that number of names."""
        key = ec.generate_private_key(ec.SECP256R1())
        others = [x509.DNSName(f"{number}.{name}.test") for number in range(names)]
        cert = self._sign(named(name), key, x509.SubjectAlternativeName(others))
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path = self.folder / f"{name}.pem"
        path.write_bytes(cert + private)
        context = bare()
        context.load_cert_chain(path)
        path.unlink()
        return context


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def bare() -> ssl.SSLContext:
    """The context of a client without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=MADE.ca_pem)
    return context


class Serving:
    def __init__(self, script: Script) -> None:
        self._script = script
        self.address = "127.0.0.1", int(script.line())

    def talk(
        self, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> tuple[int, ssl.SSLSession | None]:
        """An echo in a connection of its own: the client's port, and its session."""
        with (
            dial(self.address) as raw,
            context.wrap_socket(raw, server_hostname="localhost", session=session) as client,
        ):
            assert says_back(client)
            port, session = client.getsockname()[1], client.session
            client.unwrap().close()
            return port, session

    def all_closed(self, count: int) -> Any:
        self._script.tell(str(count))
        return json.loads(self._script.line())


@contextlib.contextmanager
def serving(folder: Path, history: int, *, required: bool = True) -> Iterator[Serving]:
    kind = "required" if required else "none"
    with Script(SERVER, str(folder), str(history), kind) as script:
        yield Serving(script)
        code, _, errors = script.end()
        assert (code, errors) == (0, "")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def own_subject(number: int) -> str:
    return f"client-{number}"


@pytest.mark.timeout(900 if LONG else 120)
def test_each_record_names_its_own_client(authority: Authority) -> None:
    # A small number of clients first: what is allocated once is no cost of a record.
    first = 30

    def costs(required: bool) -> tuple[float, list[tuple[int, str]], Any]:
        with serving(authority.folder, CLIENTS + first, required=required) as server:

            def talk(number: int) -> tuple[int, str]:
                name = own_subject(number)
                context = authority.issue(name) if required else bare()
                return server.talk(context)[0], name

            with ThreadPoolExecutor(4) as pool:
                came = list(pool.map(talk, range(first)))
                before = server.all_closed(first)["rss"]
                came += pool.map(talk, range(first, first + CLIENTS))
            told = server.all_closed(first + CLIENTS)
            return (told["rss"] - before) / CLIENTS, came, told

    each, came, told = costs(required=True)
    assert told["failed"] == 0
    # A port may come twice, but then with each of its subjects.
    subjects = sorted((port, peer[0]) for port, _, peer in told["peers"])
    assert subjects == sorted((port, f"CN={name}") for port, name in came)
    assert all(peer[1] == f"0.{peer[0][3:]}.test" for *_, peer in told["peers"])
    assert len({subject for _, subject in subjects}) == first + CLIENTS
    without, _, told_without = costs(required=False)
    assert {peer for *_, peer in told_without["peers"]} == {None}
    der = sum(peer[2] for *_, peer in told["peers"]) / len(told["peers"])
    if LONG:
        print(f"\na closed record with a certificate of {der:.0f} bytes: {each:,.0f} bytes;")
        print(f"without one {without:,.0f}: the certificate is {each - without:,.0f} of them")
        assert each - without < 4 * der + 1_024
    assert each * CLIENTS < SLACK + CLIENTS * 4_096


@VERSIONS
def test_a_session_that_goes_on_has_the_certificate_it_began_with(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    clients = 20
    with serving(authority.folder, 1_000) as server:
        contexts = [authority.issue(own_subject(number)) for number in range(clients)]
        for context in contexts:
            context.minimum_version = context.maximum_version = version
        sessions = [server.talk(context)[1] for context in contexts]
        order = list(range(clients))
        random.Random(3).shuffle(order)
        again = {server.talk(contexts[it], sessions[it])[0]: own_subject(it) for it in order}
        told = server.all_closed(2 * clients)["peers"][clients:]
        assert all(resumed for _, resumed, _ in told)
        assert {port: peer[0] for port, _, peer in told} == {
            port: f"CN={name}" for port, name in again.items()
        }


def test_a_ledger_that_keeps_fewer_records_frees_their_certificates(authority: Authority) -> None:
    """Large certificates, so that what is kept shows in the memory of the process."""
    clients, names = 200, 700

    def grows(history: int) -> tuple[int, int]:
        with serving(authority.folder, history) as server:
            server.talk(warm)
            before = server.all_closed(1)["rss"]
            with ThreadPoolExecutor(4) as pool:
                for _ in pool.map(server.talk, contexts):
                    pass
            told = server.all_closed(1 + clients)
            assert told["failed"] == 0
            assert len(told["peers"]) == min(history, 1 + clients)
            return told["rss"] - before, max(peer[2] for *_, peer in told["peers"])

    warm = authority.issue("warm", names=names)
    contexts = [authority.issue(own_subject(it), names=names) for it in range(20)]
    contexts *= clients // len(contexts)
    few, der = grows(4)
    many, _ = grows(10_000)
    told = f"certificates of {der} bytes: {few:,} bytes with history=4, {many:,} with all"
    assert few < SLACK, told
    assert many > 2 * SLACK, told
    # Each name is kept as text besides.
    assert many < SLACK + 6 * clients * der, told

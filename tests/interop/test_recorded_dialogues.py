"""Dialogues of real clients with real servers, recorded once and replayed without the server.

The servers are Debian's Redis and PostgreSQL, `aiosmtpd`, and a small DNS server. Each unchanged
client gets the same from the recording; a client that does something else is told where.
"""

from __future__ import annotations

import contextlib
import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rdatatype
import dns.rrset
import pg8000.native  # type: ignore[import-untyped]
import pytest
import redis
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink
from redis.backoff import NoBackoff
from redis.retry import Retry
from support import SOON
from support.postgresql import running_postgresql
from support.redis_server import running_redis

from rsock import Forward, Recording, Replay, ReplayClient, ScriptResult, Server

Address = tuple[str, int]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dialogue.rec"


def record(path: Path, talk: Callable[[Address], Any], to: Forward, **options: Any) -> Any:
    """What a client gets from the real server; the recording is complete then."""
    with Server(service=to, **options) as server:
        return talk(server.address)


def replay(path: Path, talk: Callable[[Address], Any], **options: Any) -> Any:
    """What a client gets from the recording, without a divergence."""
    server_options = {"transport": options.pop("transport", "tcp"), "on_error": "raise"}
    with Server(service=Replay(path, **options), **server_options) as server:
        told = talk(server.address)
    results = server.script_results
    assert results, "every client has a result"
    assert all(each.done for each in results), results
    assert len(results) == len(Recording.read(path).connections)
    return told


def divergence(path: Path, talk: Callable[[Address], Any], **options: Any) -> str:
    """The report about a client that does something else."""
    transport = options.pop("transport", "tcp")
    errors: list[BaseException] = []
    replayed = Replay(path, **options)
    with Server(service=replayed, transport=transport, on_error=errors.append) as server:
        with contextlib.suppress(Exception):
            talk(server.address)
    diverged = [each for each in server.script_results if each.error is not None]
    assert diverged, "the client has diverged"
    assert [str(error) for error in errors] == [each.error for each in diverged]
    return diverged[0].error or ""


def names(report: str, connection: int, expected: str, received: str) -> None:
    """The report names the connection, and shows both in text and in hex."""
    first, *rest = report.splitlines()
    assert first.startswith(f"connection {connection}: "), report
    assert ", line " in first
    text = "\n".join(rest)
    assert "  expected b" in text
    assert expected in text.split("  received ")[0]
    assert received in text.split("  received ")[1]
    shown = " ".join(f"{byte:02x}" for byte in received.encode())
    # The lines of hex may be cut anywhere.
    in_hex = " ".join(text.split("  received ")[1].split())
    assert shown[:11] in in_hex, "and as hex"


# --- redis-py with Redis -------------------------------------------------------------------


@pytest.fixture(scope="module")
def database() -> Iterator[Path]:
    """The path of the socket that a Redis listens on."""
    with running_redis() as path:
        yield path


def redis_at(address: Address, **options: Any) -> redis.Redis:
    host, port = address
    return redis.Redis(
        host,
        port,
        socket_timeout=SOON,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        **options,
    )


def shop(address: Address, item: str = "tea") -> list[Any]:
    with redis_at(address) as client:
        told: list[Any] = [client.set("item", item), client.get("item")]
        pipeline = client.pipeline(transaction=True)
        told.append(pipeline.incr("sold").incr("sold").lrange("list", 0, -1).execute())
        told.append(client.hset("hash", mapping={"a": "1", "b": "2"}))
        told.append(client.hgetall("hash"))
    return told


def test_redis_py_is_served_by_a_recording_of_redis(database: Path, path: Path) -> None:
    recorded = record(path, shop, Forward(path=database, recording=path))
    assert recorded[:2] == [True, "tea"]
    assert replay(path, shop) == recorded
    report = divergence(path, lambda address: shop(address, "cup"))
    names(report, 1, "tea", "cup")
    assert 'expected b"t", received b"c"' in report


def test_a_recorded_client_asks_redis_again(database: Path, path: Path) -> None:
    with redis.Redis(unix_socket_path=str(database)) as direct:
        direct.flushall()

        def count(address: Address) -> int:
            with redis_at(address, protocol=2, driver_info=None) as client:
                return int(client.incr("counter"))

        assert record(path, count, Forward(path=database, recording=path)) == 1
        result: ScriptResult = ReplayClient(path).run(str(database), timeout=SOON)
        assert not result.done
        assert result.error is not None
        assert 'expected b"1", received b"2"' in result.error
        direct.delete("counter")
        assert ReplayClient(path).run(str(database), timeout=SOON).error is None


# --- smtplib with aiosmtpd -----------------------------------------------------------------


@contextlib.contextmanager
def mail_server() -> Iterator[Address]:
    class AnyPort(Controller):
        """Its own check connects to the port that it was given, not to the one that it got."""

        def _trigger_server(self) -> None:
            server: Any = self.server
            self.port = server.sockets[0].getsockname()[1]
            super()._trigger_server()  # type: ignore[no-untyped-call]

    controller = AnyPort(Sink(), hostname="127.0.0.1", port=0, ready_timeout=SOON)
    controller.start()
    try:
        yield controller.hostname, controller.port
    finally:
        controller.stop()


def deliver(address: Address, to: str = "you@example.test") -> list[Any]:
    with smtplib.SMTP(*address, local_hostname="client.test", timeout=SOON) as client:
        refused = client.sendmail("me@example.test", [to], "Subject: hello\r\n\r\n.dot\r\nbye\r\n")
        return [client.ehlo_resp, client.esmtp_features, refused, client.noop()]


def test_smtplib_is_served_by_a_recording_of_aiosmtpd(path: Path) -> None:
    with mail_server() as address:
        recorded = record(path, deliver, Forward(*address, recording=path))
    assert recorded[2:] == [{}, (250, b"OK")]
    assert replay(path, deliver) == recorded
    report = divergence(path, lambda address: deliver(address, "them@example.test"))
    names(report, 1, "you@example.test", "them@example.test")


# --- pg8000 with PostgreSQL ----------------------------------------------------------------


@pytest.fixture
def postgres() -> Iterator[Path]:
    with running_postgresql() as (path, _):
        yield path


def query(address: Address, name: str = "tea") -> list[Any]:
    host, port = address
    connection = pg8000.native.Connection("test", host=host, port=port, database="postgres")
    try:
        connection.run("CREATE TEMPORARY TABLE item (id serial, name text)")
        connection.run("INSERT INTO item (name) VALUES (:name)", name=name)
        return [connection.run("SELECT id, name FROM item"), connection.columns[1]["name"]]
    finally:
        connection.close()


def test_pg8000_is_served_by_a_recording_of_postgresql(postgres: Path, path: Path) -> None:
    recorded = record(path, query, Forward(path=postgres, recording=path))
    assert recorded == [[[1, "tea"]], "name"]
    assert replay(path, query) == recorded
    report = divergence(path, lambda address: query(address, "cup"))
    names(report, 1, "tea", "cup")


# --- dnspython over UDP --------------------------------------------------------------------


def answer(data: bytes, address: object) -> bytes:
    message = dns.message.from_wire(data)
    response = dns.message.make_response(message)
    name = message.question[0].name
    response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.1"))
    return response.to_wire()


def resolve(address: Address, *hosts: str) -> list[str]:
    host, port = address
    told = []
    for name in hosts or ("one.test.", "two.test."):
        message = dns.message.make_query(name, dns.rdatatype.A)
        found = dns.query.udp(message, host, timeout=SOON, port=port)
        told.append(f"{found.answer[0].name} {found.answer[0][0].address}")
    return told


def test_dnspython_is_served_by_a_recording_of_datagrams(path: Path) -> None:
    with Server(service=answer, transport="udp") as upstream:
        to = Forward(*upstream.address, recording=path)
        recorded = record(path, resolve, to, transport="udp")
    assert recorded == ["one.test. 192.0.2.1", "two.test. 192.0.2.1"]
    # The identifier, the first two bytes, is another one for each query.
    assert replay(path, resolve, transport="udp", carry=[(0, 2)]) == recorded

    def changed(address: Address) -> None:
        resolve(address, "one.test.")
        host, port = address
        message = dns.message.make_query("ten.test.", dns.rdatatype.A)
        dns.query.udp(message, host, timeout=0.2, port=port)

    report = divergence(path, changed, transport="udp", carry=[(0, 2)])
    names(report, 2, "two", "ten")

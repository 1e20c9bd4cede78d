"""redis-py behind faults, with a real Redis.

The faults are in a `Forward` between them, so neither side knows of them. Redis is Debian's package
redis-server; it listens on a Unix socket, so that no port has to be chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from support import SOON, has_ended, payload, wait_until
from support.redis_server import running_redis

from rsock import Forward, Server
from rsock.faults import Fault, Latency, Reset, Slice

VALUE = payload(1_000, seed=9)


@pytest.fixture(scope="module")
def database() -> Iterator[Path]:
    """The path of the socket that a Redis listens on."""
    with running_redis() as path:
        yield path


@pytest.fixture
def direct(database: Path) -> Iterator[redis.Redis]:
    """A client that is connected without faults, to an empty database."""
    with redis.Redis(unix_socket_path=str(database)) as client:
        client.flushall()
        yield client


def behind(database: Path, *faults: Fault) -> Server:
    """A forwarder to the database that has the faults."""
    return Server(service=Forward(path=database), faults=faults, seed=1)


def client_of(server: Server, *, timeout: float = SOON, tries: int = 0) -> redis.Redis:
    """A client of the forwarder that repeats a command as often as it is told to."""
    host, port = server.address
    return redis.Redis(
        host,
        port,
        socket_timeout=timeout,
        socket_connect_timeout=SOON,
        retry=Retry(NoBackoff(), tries),
        # Without it, each connection begins with commands about the client.
        protocol=2,
        driver_info=None,
    )


def keys(count: int) -> list[str]:
    return [f"key:{number:04}" for number in range(count)]


def kept(client: redis.Redis) -> list[str]:
    found = client.keys()
    return sorted(str(key, "ascii") for key in found if isinstance(key, bytes))


# --- a reset in the middle -----------------------------------------------------------------


def test_a_pipeline_that_was_reset_has_done_its_first_commands_and_no_other(
    database: Path, direct: redis.Redis
) -> None:
    with behind(database, Reset(after_bytes=500_000, direction="up", connections=1)) as server:
        with client_of(server) as client:
            pipeline = client.pipeline(transaction=False)
            for key in keys(1_000):
                pipeline.set(key, VALUE)
            with pytest.raises(redis.ConnectionError):
                pipeline.execute()
            server.ledger.wait(open=0, closed=1)
            done = kept(direct)
            # At most as many as the bytes before the reset had, and no part of another one.
            assert 0 < len(done) < 500
            assert done == keys(len(done))
            assert all(value == VALUE for value in direct.mget(done))
            # The same client goes on, by another connection.
            for key in keys(1_000)[len(done) :]:
                pipeline.set(key, VALUE)
            assert pipeline.execute() == [True] * (1_000 - len(done))
            assert kept(client) == keys(1_000)
        ends = [record.fault for record in server.ledger]
        assert ends == ["reset", None]


def test_a_transaction_that_was_reset_has_done_nothing(database: Path, direct: redis.Redis) -> None:
    with behind(database, Reset(after_bytes=500_000, direction="up", connections=1)) as server:
        with client_of(server) as client:
            transaction = client.pipeline(transaction=True)
            for key in keys(1_000):
                transaction.set(key, VALUE)
            with pytest.raises(redis.ConnectionError):
                transaction.execute()
            server.ledger.wait(open=0, closed=1)
            assert kept(direct) == []
            assert client.ping()


def test_a_command_whose_answer_was_lost_is_done_twice_if_it_is_repeated(
    database: Path, direct: redis.Redis
) -> None:
    with behind(database, Reset(after_bytes=0, direction="down", connections=1)) as server:
        # Reset at once: the command did not reach the database.
        with client_of(server, tries=1) as client:
            assert client.incr("counter") == 1
    with behind(database, Reset(after_bytes=1, direction="down", connections=1)) as server:
        # Reset in the answer: it did, and is done again.
        with client_of(server, tries=1) as client:
            assert client.incr("counter") == 3
    with behind(database, Reset(after_bytes=1, direction="down", connections=1)) as server:
        with client_of(server) as client:
            with pytest.raises(redis.ConnectionError):
                client.incr("counter")
    assert direct.get("counter") == b"4"


def test_a_pooled_connection_that_was_reset_while_idle_is_replaced(
    database: Path, direct: redis.Redis
) -> None:
    with behind(database, Reset(after_seconds=1.0, connections=1)) as server:
        with client_of(server) as client:
            assert client.set("key", VALUE)
            [record] = server.ledger.wait(open=0, closed=1)
            port = record.remote.port
            assert port is not None
            wait_until(lambda: has_ended(port, server.port))
            assert client.get("key") == VALUE
            assert [record.fault for record in server.ledger] == ["reset", None]


# --- an answer that is late ----------------------------------------------------------------


def test_a_late_answer_is_given_to_no_other_command(database: Path, direct: redis.Redis) -> None:
    direct.mset({"first": b"1", "second": b"2"})
    with behind(database, Latency(0.5, connections=1)) as server:
        with client_of(server, timeout=0.1) as client:
            with pytest.raises(redis.TimeoutError):
                client.get("first")
            # In a connection of its own, while the answer to the first is on its way.
            assert client.get("second") == b"2"
            assert client.get("first") == b"1"
        assert server.ledger.totals.accepted == 2


def test_a_command_that_timed_out_is_repeated(database: Path, direct: redis.Redis) -> None:
    direct.set("key", VALUE)
    with behind(database, Latency(1.0, connections=2)) as server:
        with client_of(server, timeout=0.2, tries=2) as client:
            assert client.get("key") == VALUE
        delayed = [bool(record.faults) for record in server.ledger]
        assert delayed == [True, True, False]


# --- an answer in pieces -------------------------------------------------------------------


def test_answers_in_pieces_of_one_byte_are_read_right(database: Path, direct: redis.Redis) -> None:
    direct.rpush("list", *range(200))
    with behind(database, Slice(1)) as server:
        with client_of(server) as client:
            expected = [str(number).encode() for number in range(200)]
            assert client.lrange("list", 0, -1) == expected
            pipeline = client.pipeline()
            assert pipeline.set("key", VALUE).get("key").llen("list").execute() == [
                True,
                VALUE,
                200,
            ]

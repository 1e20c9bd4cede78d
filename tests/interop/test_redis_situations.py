"""redis-py against servers that a Script plays: what a client meets besides a healthy Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry
from support import SOON

from rsock import ByConnection, Captured, Script, Server


def command(*words: str) -> bytes:
    """A command as clients send it."""
    parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


PING = Script().expect(command("PING"))
GET = Script().expect(command("GET", "key"))


@contextlib.contextmanager
def client_of(*scripts: Script, tries: int = 0, **options: Any) -> Iterator[tuple[Server, Any]]:
    """A client whose first connections are served by the scripts, and all later ones by the last.

    It does not introduce itself, so that its commands are all that is sent.
    """
    options = {"socket_timeout": SOON, "protocol": 2, "driver_info": None, **options}
    with Server(service=ByConnection(*scripts), on_error="raise", drain=0) as server:
        retry = Retry(NoBackoff(), tries)
        with redis.Redis(host=server.host, port=server.port, retry=retry, **options) as client:
            yield server, client


def test_a_connection_that_ends_in_the_command_is_made_again() -> None:
    with client_of(GET.reset(), GET.send(b"$5\r\nvalue\r\n"), tries=1) as (server, client):
        assert client.get("key") == b"value"
        assert len(server.script_results) == 2


def test_without_retries_the_end_of_a_connection_is_an_error() -> None:
    with client_of(GET) as (_, client):
        with pytest.raises(exceptions.ConnectionError):
            client.get("key")


def test_a_server_that_still_loads_is_asked_again_on_another_connection() -> None:
    loading = PING.send(b"-LOADING Redis is loading the dataset in memory\r\n")
    with client_of(loading.expect_end(), PING.send(b"+PONG\r\n"), tries=1) as (server, client):
        assert client.ping()
        server.ledger.wait(closed=1)
    with client_of(loading) as (_, client), pytest.raises(exceptions.BusyLoadingError):
        client.ping()


def test_an_error_is_raised_and_leaves_the_connection_usable() -> None:
    wrong = GET.send(b"-WRONGTYPE Operation against a key\r\n").expect(command("PING"))
    with client_of(wrong.send(b"+PONG\r\n")) as (server, client):
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE|Operation against"):
            client.get("key")
        assert client.ping()
        assert len(server.ledger) == 1


@pytest.mark.parametrize("half", [b"", b"$5", b"$5\r\nval", b"$5\r\nvalue"])
def test_half_an_answer_is_an_error(half: bytes) -> None:
    answer = GET.send(half) if half else GET
    with client_of(answer) as (_, client), pytest.raises(exceptions.ConnectionError):
        client.get("key")


def test_an_answer_in_pieces_of_one_byte_is_read_whole() -> None:
    with client_of(GET.send(b"$5\r\nvalue\r\n", size=1)) as (_, client):
        assert client.get("key") == b"value"


def test_nothing_is_none() -> None:
    answers = GET.send(b"$-1\r\n").expect(command("LRANGE", "list", "0", "-1")).send(b"*0\r\n")
    with client_of(answers) as (_, client):
        assert client.get("key") is None
        assert client.lrange("list", 0, -1) == []


def test_a_server_that_says_nothing_is_a_time_out() -> None:
    with client_of(GET.expect_end(), socket_timeout=0.1) as (server, client):
        with pytest.raises(exceptions.TimeoutError):
            client.get("key")
        server.ledger.wait(closed=1)


def test_a_late_answer_is_not_the_answer_to_the_next_command() -> None:
    late = GET.wait(0.3).send(b"$4\r\nlate\r\n")
    other = Script().expect(command("GET", "other")).send(b"$5\r\nfresh\r\n")
    with Server(service=ByConnection(late, other), on_error=lambda error: None, drain=0) as server:
        retry = Retry(NoBackoff(), 0)
        options: dict[str, Any] = {"socket_timeout": 0.1, "protocol": 2, "driver_info": None}
        with redis.Redis(host=server.host, port=server.port, retry=retry, **options) as client:
            with pytest.raises(exceptions.TimeoutError):
                client.get("key")
            client.connection_pool.connection_kwargs["socket_timeout"] = SOON
            assert client.get("other") == b"fresh"


def test_a_pipeline_that_is_cut_is_an_error_and_not_half_a_result() -> None:
    both = Script().expect(command("GET", "a") + command("GET", "b"))
    with client_of(both.send(b"$1\r\n1\r\n$1\r\n")) as (_, client):
        pipeline = client.pipeline(transaction=False)
        pipeline.get("a").get("b")
        with pytest.raises(exceptions.ConnectionError):
            pipeline.execute()


def test_an_error_inside_a_pipeline_is_that_of_its_command() -> None:
    both = Script().expect(command("GET", "a") + command("GET", "b"))
    with client_of(both.send(b"-ERR first\r\n$1\r\n2\r\n")) as (_, client):
        pipeline = client.pipeline(transaction=False)
        pipeline.get("a").get("b")
        first, second = pipeline.execute(raise_on_error=False)
        assert (str(first), second) == ("first", b"2")


def test_a_password_that_is_refused_is_an_error_before_any_command() -> None:
    refused = Script().expect(command("AUTH", "secret"))
    refused = refused.send(b"-WRONGPASS invalid username-password pair\r\n").expect_end()
    with client_of(refused, password="secret") as (server, client):
        with pytest.raises(exceptions.AuthenticationError, match="invalid username"):
            client.get("key")
        server.ledger.wait(closed=1)


def test_a_key_that_has_moved_names_its_new_place() -> None:
    with client_of(GET.send(b"-MOVED 3999 127.0.0.1:6381\r\n")) as (_, client):
        with pytest.raises(exceptions.MovedError) as caught:
            client.get("key")
        assert (caught.value.slot_id, caught.value.port) == (3999, 6381)


def test_the_health_of_an_idle_connection_is_checked_first() -> None:
    healthy = PING.send(b"+PONG\r\n").repeat(1, GET.send(b"$1\r\n1\r\n"))
    with client_of(healthy, health_check_interval=1) as (_, client):
        connection = client.connection_pool.get_connection()
        connection.next_health_check = 0
        client.connection_pool.release(connection)
        assert client.get("key") == b"1"


def test_a_message_is_pushed_between_answers() -> None:
    channel = Script().expect_pattern(rb"\*2\r\n\$9\r\nSUBSCRIBE\r\n\$\d+\r\n(?P<name>[^\r]+)\r\n")
    push = channel.send(b"*3\r\n$9\r\nsubscribe\r\n$4\r\n", Captured("name"), b"\r\n:1\r\n")
    push = push.send(b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n", size=7)
    with client_of(push.expect_end(or_reset=True)) as (server, client):
        with client.pubsub() as listener:
            listener.subscribe("news")
            assert listener.get_message(timeout=SOON)["type"] == "subscribe"
            assert listener.get_message(timeout=SOON)["data"] == b"hi"
        server.ledger.wait(closed=1)


def test_bytes_of_another_protocol_are_an_error() -> None:
    with client_of(GET.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as (_, client):
        with pytest.raises(exceptions.InvalidResponse):
            client.get("key")

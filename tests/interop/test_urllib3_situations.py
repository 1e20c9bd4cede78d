"""urllib3 against servers that a Script plays: what a client meets besides good servers."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from support import SOON
from urllib3.exceptions import (
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
)

from rsock import ByConnection, Captured, Echo, Script, Server, Service

REQUEST = Script().until(b"\r\n\r\n")
OK = REQUEST.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
Pool = urllib3.HTTPConnectionPool


@contextlib.contextmanager
def pool_of(*scripts: Service, **options: Any) -> Iterator[tuple[Server, Pool]]:
    """A pool whose first connections are served by the scripts, and all later ones by the last."""
    options = {"timeout": SOON, "retries": False, "maxsize": 1, **options}
    with Server(service=ByConnection(*scripts), on_error="raise", drain=0) as server:
        with urllib3.HTTPConnectionPool(*server.address, **options) as pool:
            yield server, pool


def replied(head: bytes, body: bytes = b"") -> Script:
    """A script that answers one request, and finishes."""
    return REQUEST.send(b"HTTP/1.1 " + head + b"\r\n\r\n" + body)


def test_a_connection_that_ends_before_the_answer_is_tried_again() -> None:
    with pool_of(REQUEST, OK, retries=1) as (server, pool):
        assert pool.request("GET", "/").data == b"ok"
        assert [each.done for each in server.script_results] == [True, True]
        assert pool.num_connections == 2


def test_a_post_is_not_tried_again_once_it_was_sent() -> None:
    posted = REQUEST.expect(b"once").reset()
    with pool_of(posted, retries=3) as (server, pool):
        with pytest.raises(ProtocolError):
            pool.request("POST", "/", body=b"once")
        assert len(server.script_results) == 1


def test_a_server_that_says_nothing_is_a_read_time_out() -> None:
    with pool_of(REQUEST.expect_end(), timeout=urllib3.Timeout(read=0.1)) as (server, pool):
        with pytest.raises(ReadTimeoutError):
            pool.request("GET", "/")
        server.ledger.wait(closed=1)


def test_a_body_that_comes_to_a_halt_is_a_read_time_out() -> None:
    halted = replied(b"200 OK\r\nContent-Length: 10", b"half").expect_end()
    with pool_of(halted, timeout=urllib3.Timeout(read=0.1)) as (server, pool):
        with pytest.raises(ReadTimeoutError):
            pool.request("GET", "/")
        server.ledger.wait(closed=1)


def test_a_body_that_is_only_slow_is_read_whole() -> None:
    slow = REQUEST.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", size=4, delay=0.01)
    with pool_of(slow, timeout=urllib3.Timeout(read=SOON)) as (_, pool):
        assert pool.request("GET", "/").data == b"hello"


def test_a_head_in_pieces_of_one_byte_is_read() -> None:
    with pool_of(REQUEST.send(b"HTTP/1.1 204 No\r\nA: b\r\nC: d\r\n\r\n", size=1)) as (_, pool):
        response = pool.request("GET", "/")
        assert (response.status, response.headers["c"]) == (204, "d")


@pytest.mark.parametrize("cut", [b"", b"5", b"5\r\nhel", b"5\r\nhello\r\n"])
def test_chunks_that_are_cut_off_are_no_whole_body(cut: bytes) -> None:
    with pool_of(replied(b"200 OK\r\nTransfer-Encoding: chunked", cut)) as (_, pool):
        with pytest.raises(ProtocolError):
            pool.request("GET", "/")


def test_a_chunk_whose_length_is_no_number_is_an_error() -> None:
    with pool_of(replied(b"200 OK\r\nTransfer-Encoding: chunked", b"zz\r\nhello")) as (_, pool):
        with pytest.raises(ProtocolError, match="IncompleteRead"):
            pool.request("GET", "/")


def test_extensions_and_trailers_of_chunks_are_no_part_of_the_body() -> None:
    body = b"5;name=value\r\nhello\r\n0;last\r\nDigest: x\r\n\r\n"
    with pool_of(replied(b"200 OK\r\nTransfer-Encoding: chunked", body)) as (_, pool):
        assert pool.request("GET", "/").data == b"hello"


def test_a_connection_is_used_again() -> None:
    with pool_of(Script().repeat(None, OK)) as (server, pool):
        assert [pool.request("GET", "/").data for _ in range(3)] == [b"ok"] * 3
        assert (pool.num_connections, len(server.ledger)) == (1, 1)


def test_a_pooled_connection_that_has_ended_meanwhile_is_replaced() -> None:
    with pool_of(OK, OK) as (server, pool):
        assert pool.request("GET", "/").data == b"ok"
        server.ledger.wait(closed=1)
        assert pool.request("GET", "/").data == b"ok"
        assert len(server.ledger) == 2


def test_a_server_that_asks_for_it_gets_a_connection_for_each_request() -> None:
    once = replied(b"200 OK\r\nConnection: close\r\nContent-Length: 2", b"ok").expect_end()
    with pool_of(once) as (server, pool):
        assert [pool.request("GET", "/").data for _ in range(2)] == [b"ok"] * 2
        server.ledger.wait(closed=2)


def test_interim_answers_come_before_the_answer() -> None:
    with pool_of(replied(b"100 Continue\r\n\r\nHTTP/1.1 200 OK", b"whole")) as (_, pool):
        response = pool.request("POST", "/", body=b"x")
        assert (response.status, response.data) == (200, b"whole")


def test_a_body_shorter_than_announced_is_an_error() -> None:
    with pool_of(replied(b"200 OK\r\nContent-Length: 10", b"half")) as (_, pool):
        with pytest.raises(ProtocolError, match="IncompleteRead"):
            pool.request("GET", "/")


def test_an_answer_that_was_not_asked_for_is_not_the_next_answer() -> None:
    unasked = OK.wait(0.01).send(b"HTTP/1.1 408 Too Late\r\n\r\n")
    with pool_of(unasked, OK) as (server, pool):
        assert pool.request("GET", "/").status == 200
        server.ledger.wait(closed=1)
        assert pool.request("GET", "/").status == 200
        assert len(server.ledger) == 2


@pytest.mark.parametrize("line", [b"", b"SSH-2.0-x", b"HTTP/1.1 teapot", b"HTTP/1.1 99 Low"])
def test_a_status_line_that_is_none_is_an_error(line: bytes) -> None:
    with pool_of(REQUEST.send(line + b"\r\n\r\n")) as (_, pool):
        with pytest.raises(ProtocolError):
            pool.request("GET", "/")


def test_a_head_that_does_not_end_is_given_up() -> None:
    field = Script().send(b"A: " + b"x" * 1_000 + b"\r\n")
    # The client gives up at the 101st field, and resets what may still be on its way behind it.
    endless = REQUEST.send(b"HTTP/1.1 200 OK\r\n").repeat(101, field)
    with pool_of(endless) as (_, pool):
        with pytest.raises(ProtocolError, match="headers"):
            pool.request("GET", "/")


def test_the_answer_to_head_has_no_body() -> None:
    with pool_of(REQUEST.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"), OK) as (_, pool):
        response = pool.request("HEAD", "/")
        assert (response.data, response.headers["Content-Length"]) == (b"", "999")


def test_a_redirect_is_followed_on_the_same_connection() -> None:
    first = Script().expect(b"GET /old ").until(b"\r\n\r\n")
    moved = first.send(b"HTTP/1.1 302 Found\r\nLocation: /new\r\nContent-Length: 0\r\n\r\n")
    second = moved.expect(b"GET /new ").until(b"\r\n\r\n")
    both = second.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew")
    with pool_of(both, retries=1) as (_, pool):
        assert pool.request("GET", "/old").data == b"new"
        assert pool.num_connections == 1


def test_redirects_in_a_circle_come_to_an_end() -> None:
    again = REQUEST.send(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")
    with pool_of(Script().repeat(None, again), retries=3) as (server, pool):
        with pytest.raises(MaxRetryError, match="too many redirects"):
            pool.request("GET", "/")


def test_a_server_that_asks_to_wait_is_asked_again() -> None:
    busy = REQUEST.send(b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")
    retries = urllib3.Retry(2, status_forcelist=[503])
    with pool_of(busy.repeat(1, busy).repeat(1, OK), retries=retries) as (server, pool):
        response = pool.request("GET", "/")
        assert response.data == b"ok"
        assert response.retries is not None
        assert [each.status for each in response.retries.history] == [503, 503]


def test_an_answer_before_the_end_of_the_request_is_read() -> None:
    with pool_of(replied(b"413 Too Large\r\nContent-Length: 0")) as (_, pool):
        assert pool.request("POST", "/", body=bytes(4 << 20)).status == 413


def test_a_server_that_stops_reading_is_a_time_out_of_the_send() -> None:
    stopped = REQUEST.pause_reading().wait(SOON)
    with Server(service=stopped, drain=0, on_error=lambda error: None) as server:
        with urllib3.HTTPConnectionPool(
            server.host, server.port, timeout=0.2, retries=False
        ) as pool:
            with pytest.raises((HTTPError, TimeoutError)):
                pool.request("POST", "/", body=bytes(32 << 20))


def test_a_compressed_body_that_is_cut_is_not_taken_for_whole() -> None:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(b"hello " * 1_000) + packer.flush()
    head = b"200 OK\r\nContent-Encoding: gzip"
    with pool_of(replied(head, packed)) as (_, pool):
        assert pool.request("GET", "/").data == b"hello " * 1_000
    length = b"\r\nContent-Length: %d" % len(packed)
    with pool_of(replied(head + length, packed[:-9])) as (_, pool):
        with pytest.raises(ProtocolError):
            pool.request("GET", "/")


def test_bytes_that_are_not_compressed_as_announced_are_an_error() -> None:
    with pool_of(replied(b"200 OK\r\nContent-Encoding: gzip", b"plain")) as (_, pool):
        with pytest.raises(urllib3.exceptions.DecodeError):
            pool.request("GET", "/")


def test_the_client_sends_what_it_was_asked_for() -> None:
    request = (
        Script()
        .expect(b"PUT /a%20b?c=d HTTP/1.1\r\n")
        .any_order(
            Script().expect_pattern(rb"(?i:x-one): (?P<one>\w+)\r\n"),
            Script().expect_pattern(rb"(?i:content-length): (?P<length>\d+)\r\n"),
            Script().expect_pattern(rb"(?i:host|user-agent|accept-encoding): [^\r]*\r\n"),
            Script().expect_pattern(rb"(?i:host|user-agent|accept-encoding): [^\r]*\r\n"),
            Script().expect_pattern(rb"(?i:host|user-agent|accept-encoding): [^\r]*\r\n"),
        )
    )
    request = request.expect(b"\r\n").expect(b"body")
    answer = request.send(b"HTTP/1.1 200 OK\r\nX-Two: ", Captured("one"), b"\r\n\r\n")
    with pool_of(answer) as (server, pool):
        response = pool.request("PUT", "/a b?c=d", body=b"body", headers={"X-One": "first"})
        assert response.headers["x-two"] == "first"
        assert server.script_results[0].captures["length"] == b"4"


def test_a_proxy_that_refuses_the_tunnel_is_named() -> None:
    refused = (
        Script()
        .expect(b"CONNECT example.test:443 ")
        .until(b"\r\n\r\n")
        .send(b"HTTP/1.1 407 Who are you\r\n\r\n")
    )
    with Server(service=refused, on_error="raise") as server:
        proxy = urllib3.ProxyManager(f"http://127.0.0.1:{server.port}", retries=False)
        with proxy, pytest.raises(ProxyError) as caught:
            proxy.request("GET", "https://example.test/", timeout=SOON)
        assert "407" in str(caught.value.original_error)


def test_a_server_that_comes_back_is_found_again() -> None:
    with Server(service=OK, on_error="raise") as server:
        port = server.port
        with urllib3.HTTPConnectionPool("127.0.0.1", port, timeout=SOON, retries=False) as pool:
            assert pool.request("GET", "/").data == b"ok"
            server.stop()
            with pytest.raises(NewConnectionError):
                pool.request("GET", "/")
            with Server(port=port, service=OK, on_error="raise"):
                assert pool.request("GET", "/").data == b"ok"


def test_a_server_that_speaks_another_protocol_is_an_error() -> None:
    with pool_of(Echo()) as (_, pool):
        with pytest.raises(ProtocolError):
            pool.request("GET", "/")

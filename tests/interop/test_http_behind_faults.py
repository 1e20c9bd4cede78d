"""HTTP clients behind faults: urllib3 and httpx, with the server of the standard library.

The faults are in a `Forward` between them, so neither side knows of them.
"""

from __future__ import annotations

import asyncio
import http.client
import http.server
import logging
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import urllib3
from support import LOOPBACK, SOON, has_ended, payload, wait_until
from urllib3.exceptions import ProtocolError, ReadTimeoutError
from urllib3.util import Retry, Timeout

from rsock import Forward, Server
from rsock.faults import Bandwidth, Fault, Garbage, Latency, Reset, Slice, Truncate

SIZE = 100_000
BODY = payload(SIZE, seed=5)
# More than the head of an answer, less than an answer.
IN_THE_BODY = 20_000


class Site(http.server.ThreadingHTTPServer):
    """A web server that notes what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), Answer)
        self.asked: list[str] = []
        self.orders: list[bytes] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over the end of a connection by a fault."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        # Each path has an answer of its own.
        self.answer(BODY if self.path == "/body" else self.path.encode())

    def do_POST(self) -> None:
        self.server.orders.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(b"ordered")

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            # A fault has ended the connection.
            self.close_connection = True


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,))
        thread.start()
        yield site
        site.shutdown()
        thread.join()


def behind(site: Site, *faults: Fault, seed: int = 1) -> Server:
    """A forwarder to the site that has the faults."""
    host, port = site.server_address[:2]
    assert isinstance(host, str)
    return Server(service=Forward(host, port), faults=faults, seed=seed)


@pytest.fixture
def manager(caplog: pytest.LogCaptureFixture) -> Iterator[urllib3.PoolManager]:
    # Its warnings have exceptions, whose frames would keep sockets open as long as pytest has them.
    caplog.set_level(logging.ERROR, "urllib3")
    with urllib3.PoolManager(retries=False, timeout=SOON) as manager:
        yield manager


# --- urllib3 -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "after", [0, 20, IN_THE_BODY], ids=["at once", "in the head", "in the body"]
)
def test_urllib3_repeats_a_request_that_was_reset(
    site: Site, manager: urllib3.PoolManager, after: int
) -> None:
    with behind(site, Reset(after_bytes=after, direction="down", connections=2)) as server:
        answer = manager.request("GET", server.url("http", "/body"), retries=Retry(2))
        assert answer.data == BODY
        ends = [record.fault for record in server.ledger]
    assert ends == ["reset", "reset", None]
    if after:
        assert site.asked == ["/body"] * 3


def test_urllib3_gives_up_after_as_many_tries_as_it_was_allowed(
    site: Site, manager: urllib3.PoolManager
) -> None:
    with behind(site, Reset(after_bytes=20, direction="down")) as server:
        with pytest.raises(urllib3.exceptions.MaxRetryError) as raised:
            manager.request("GET", server.url("http", "/body"), retries=Retry(3))
        assert isinstance(raised.value.reason, ProtocolError)
        assert [record.fault for record in server.ledger] == ["reset"] * 4


def test_urllib3_does_not_repeat_an_order_that_may_have_been_heard(
    site: Site, manager: urllib3.PoolManager
) -> None:
    with behind(site, Reset(after_bytes=20, direction="down", connections=1)) as server:
        with pytest.raises(ProtocolError, match="reset by peer"):
            manager.request(
                "POST", server.url("http", "/order"), body=b"one piece", retries=Retry(3)
            )
    # The server has heard it, and only the answer was lost.
    assert site.orders == [b"one piece"]


def test_urllib3_waits_for_an_answer_no_longer_than_it_was_told(
    site: Site, manager: urllib3.PoolManager
) -> None:
    with behind(site, Latency(3.0, connections=1)) as server:
        url, patience = server.url("http", "/body"), Timeout(connect=SOON, read=0.2)
        began = time.monotonic()
        with pytest.raises(ReadTimeoutError):
            manager.request("GET", url, timeout=patience)
        assert 0.2 <= time.monotonic() - began < 2.5
        assert manager.request("GET", url).data == BODY
        late, prompt = server.ledger
        assert [event.action for event in late.faults] == ["delayed"]
        assert prompt.faults == []


def test_urllib3_takes_the_answer_of_a_second_try_for_one_that_is_late(
    site: Site, manager: urllib3.PoolManager
) -> None:
    with behind(site, Latency(3.0, connections=1)) as server:
        patience = Timeout(connect=SOON, read=0.3)
        answer = manager.request(
            "GET", server.url("http", "/body"), timeout=patience, retries=Retry(1)
        )
        assert answer.data == BODY
    assert site.asked == ["/body"] * 2


def test_urllib3_notices_a_body_that_was_cut(site: Site, manager: urllib3.PoolManager) -> None:
    with behind(site, Truncate(IN_THE_BODY)) as server:
        url = server.url("http", "/body")
        with pytest.raises(ProtocolError, match="IncompleteRead") as raised:
            manager.request("GET", url)
        cause = raised.value.__cause__
        assert isinstance(cause, http.client.IncompleteRead)
        # The bytes or, where urllib3 itself compares the length, their number.
        partial: bytes | int = cause.partial
        came = len(partial) if isinstance(partial, bytes) else partial
        assert 0 < came < IN_THE_BODY
        # Read in parts, those before the cut are given to the program.
        answer = manager.request("GET", url, preload_content=False)
        assert BODY.startswith(answer.read(came))
        with pytest.raises(ProtocolError):
            answer.read(1)


def test_urllib3_replaces_a_pooled_connection_that_was_reset_while_idle(
    site: Site, manager: urllib3.PoolManager
) -> None:
    with behind(site, Reset(after_seconds=1.0, connections=1)) as server:
        assert manager.request("GET", server.url("http", "/first")).data == b"/first"
        [record] = server.ledger.wait(open=0, closed=1)
        port = record.remote.port
        assert port is not None
        wait_until(lambda: has_ended(port, server.port))
        assert manager.request("GET", server.url("http", "/second")).data == b"/second"
        assert manager.request("GET", server.url("http", "/third")).data == b"/third"
        assert [record.fault for record in server.ledger] == ["reset", None]


# --- httpx ---------------------------------------------------------------------------------


def test_httpx_notices_a_body_that_was_cut(site: Site) -> None:
    with behind(site, Truncate(IN_THE_BODY)) as server, httpx.Client(timeout=SOON) as client:
        with client.stream("GET", server.url("http", "/body")) as answer:
            assert answer.status_code == 200
            came = b""
            with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message"):
                for piece in answer.iter_bytes():
                    came += piece
        # What came before the cut was given to the program.
        assert BODY.startswith(came)
        assert 0 < len(came) < IN_THE_BODY


def test_httpx_names_an_answer_that_is_no_http(site: Site) -> None:
    with behind(site, Garbage(b"SSH-2.0-OpenSSH_9.7\r\n\r\n")) as server:
        with httpx.Client(timeout=SOON) as client:
            with pytest.raises(httpx.RemoteProtocolError, match="illegal status line"):
                client.get(server.url("http", "/body"))


def test_the_read_time_out_of_httpx_is_for_each_read_and_not_for_the_answer(site: Site) -> None:
    # The whole answer takes 1.5 times the time-out, and no read of it comes near it.
    with behind(site, Bandwidth(SIZE / 3)) as server, httpx.Client(timeout=2.0) as client:
        began = time.monotonic()
        assert client.get(server.url("http", "/body")).content == BODY
        assert time.monotonic() - began > 2.5
    with behind(site, Latency(4.0)) as server, httpx.Client(timeout=0.5) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.get(server.url("http", "/body"))


def test_httpx_reads_an_answer_in_pieces_of_one_byte(site: Site) -> None:
    with behind(site, Slice(1)) as server, httpx.Client(timeout=SOON) as client:
        assert client.get(server.url("http", "/small")).content == b"/small"
        assert [event.action for event in server.ledger[0].faults] == ["sliced"]


def test_httpx_gives_a_late_answer_to_no_other_request(site: Site) -> None:
    async def ask(url: str) -> list[bytes]:
        # One connection at a time.
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(timeout=SOON, limits=limits) as client:
            first = asyncio.create_task(client.get(f"{url}first"))
            while not site.asked:
                await asyncio.sleep(0.01)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            return [(await client.get(f"{url}{name}")).content for name in ("second", "third")]

    with behind(site, Latency(3.0, connections=1)) as server:
        assert asyncio.run(ask(server.url("http", "/"))) == [b"/second", b"/third"]
    assert site.asked == ["/first", "/second", "/third"]

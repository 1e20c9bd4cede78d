"""`async with` starts and stops a server without blocking the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from support import LATE, SOON, Arrivals, dial, payload, says_back, send_until_stuck

from rsock import Connection, Server

# A drain that no test waits for: a test that reaches it hangs.
LONG = 30.0


def test_a_server_serves_inside_async_with() -> None:
    async def main() -> Server:
        async with Server() as server:
            assert server.state == "serving"
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(b"from a coroutine")
            writer.write_eof()
            assert await reader.read() == b"from a coroutine"
            writer.close()
            await writer.wait_closed()
        return server

    server = asyncio.run(main())
    assert server.state == "stopped"
    assert server.stop().cause == "stop"


def test_the_loop_runs_on_while_the_server_drains() -> None:
    async def main() -> tuple[int, Server]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        async with Server(drain=0.4) as server:
            peer = await asyncio.to_thread(dial, server.address)
            await asyncio.to_thread(send_until_stuck, peer, payload(16 << 20))
            ticker = asyncio.create_task(tick())
        ticker.cancel()
        peer.close()
        return ticks, server

    ticks, server = asyncio.run(main())
    assert ticks >= 10
    assert server.stop().forced == 1


def test_a_body_that_raises_stops_without_draining() -> None:
    server = Server(drain=30.0)

    async def main() -> None:
        async with server:
            peer = await asyncio.to_thread(dial, server.address)
            with peer:
                assert await asyncio.to_thread(says_back, peer)
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    report = server.stop()
    assert report.cause == "exception"
    assert report.seconds < LATE


async def cancelled_when(server: Server, state: str, body: Coroutine[Any, Any, None]) -> None:
    """Runs `body` until the server is in this state, and cancels it there."""
    task = asyncio.create_task(body)
    while server.state != state:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_body_stops_the_server() -> None:
    server = Server()

    async def body() -> None:
        async with server:
            await asyncio.sleep(60)

    asyncio.run(cancelled_when(server, "serving", body()))
    assert server.state == "stopped"


def test_a_drain_that_is_cancelled_ends_at_once() -> None:
    at = Arrivals()
    over = threading.Event()

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)

    server = Server(service=handler, drain=LONG)

    async def body() -> None:
        async with server:
            with dial(server.address):
                await asyncio.to_thread(at.until)

    asyncio.run(cancelled_when(server, "draining", body()))
    report = server.stop()
    over.set()
    assert report.seconds < LATE
    assert report.abandoned == 1


def test_what_start_raises_comes_out_of_async_with() -> None:
    async def main(port: int) -> None:
        async with Server("127.0.0.1", port):
            raise AssertionError("never reached")

    with Server() as holder, pytest.raises(OSError, match="Address already in use"):
        asyncio.run(main(holder.port))

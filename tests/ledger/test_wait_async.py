"""`ledger.wait_async`: a wait that leaves the event loop to others."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
import trio
from support import SOON

from rsock import Server


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_coroutine_waits_while_its_loop_goes_on() -> None:
    async def main(server: Server) -> int:
        turns = 0
        waiting = asyncio.create_task(server.ledger.wait_async(closed=1, timeout=SOON))
        reader, writer = await asyncio.open_connection(*server.address)
        while turns < 20:
            await asyncio.sleep(0)
            turns += 1
        assert not waiting.done()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        [record] = await waiting
        assert (record.bytes_in, record.closed_by) == (1, "peer")
        return turns

    with Server() as server:
        assert asyncio.run(main(server)) == 20


def test_a_condition_that_is_met_already_returns_at_once() -> None:
    with Server() as server:
        assert asyncio.run(server.ledger.wait_async(open=0)) == []
        assert trio.run(server.ledger.wait_async, 0) == []


def test_trio_waits_too() -> None:
    async def main(server: Server) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.ledger.wait_async, None, 1)
            stream = await trio.open_tcp_stream(*server.address)
            async with stream:
                await server.ledger.wait_async(open=1, timeout=SOON)
        await server.ledger.wait_async(open=0, closed=1, timeout=SOON)

    with Server() as server:
        trio.run(main, server)


@pytest.mark.parametrize("run", [asyncio.run, lambda wait: trio.run(lambda: wait)])
def test_a_wait_that_is_not_met_in_time_says_what_there_is(run: object) -> None:
    async def main(server: Server) -> None:
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match=r"for open=1, closed=2 \(0 are open, 0 closed\)"):
            await server.ledger.wait_async(open=1, closed=2, timeout=0.05)
        assert time.monotonic() - begin >= 0.04

    assert callable(run)
    with Server() as server:
        run(main(server))


def test_a_cancelled_wait_leaves_nothing() -> None:
    async def main(server: Server) -> None:
        before = descriptors()
        tasks = [asyncio.create_task(server.ledger.wait_async(open=7)) for _ in range(10)]
        while descriptors() < before + 9:
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(server.ledger.wait_async(open=7)))
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in done} == {asyncio.CancelledError}
        assert descriptors() == before
        # The ledger goes on.
        with server.client():
            await server.ledger.wait_async(open=1, timeout=SOON)

    with Server() as server:
        asyncio.run(main(server))


def test_the_end_of_the_server_does_not_end_a_wait_that_can_be_met() -> None:
    async def main() -> None:
        async with Server() as server:
            ledger = server.ledger
            with server.client():
                await ledger.wait_async(open=1, timeout=SOON)
        [record] = await ledger.wait_async(open=0, closed=1, timeout=SOON)
        assert record.closed_by is not None

    asyncio.run(main())


def test_the_arguments_are_checked_before_the_first_await() -> None:
    with Server() as server:
        with pytest.raises(TypeError, match="wait_async"):
            _ = server.ledger.wait_async()
        with pytest.raises(ValueError, match="open"):
            _ = server.ledger.wait_async(open=-1)
        with pytest.raises(ValueError, match="timeout"):
            _ = server.ledger.wait_async(open=1, timeout=-1)

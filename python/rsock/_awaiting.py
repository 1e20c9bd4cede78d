"""Waiting for a descriptor in a coroutine, by the loop that runs it: that of asyncio or of trio.

Nothing here may block, start a thread, or import a library that the program has not imported.
"""

import sys
import time
from typing import Final

from ._rsock import Ledger, Record, Watch

__all__ = ["wait"]

# How often a condition is looked at without a descriptor.
_LOOK: Final = 0.02


async def wait(
    ledger: Ledger, open: int | None, closed: int | None, timeout: float | None
) -> list[Record]:
    """Return the records once the condition is met. Raises TimeoutError after `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    # Here and not by the caller: a coroutine that never runs must hold nothing.
    watch = Watch(ledger, open, closed)
    try:
        while True:
            found = watch.check()
            if found is not None:
                return found
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                watch.late()
            await _readable(watch.fileno(), left)
    finally:
        watch.close()


async def _readable(number: int | None, seconds: float | None) -> None:
    """Return when the descriptor is readable, or after that time, or earlier."""
    if number is None:
        seconds = _LOOK if seconds is None else min(seconds, _LOOK)
    if _in_trio():
        import trio

        with trio.move_on_after(seconds if seconds is not None else float("inf")):
            if number is None:
                await trio.sleep_forever()
            else:
                await trio.lowlevel.wait_readable(number)
        return
    import asyncio

    if number is None:
        await asyncio.sleep(_LOOK)
        return
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def set_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(number, set_ready)
    try:
        await asyncio.wait([ready], timeout=seconds)
    finally:
        loop.remove_reader(number)
        ready.cancel()


def _in_trio() -> bool:
    """Whether the caller is a task of trio."""
    trio = sys.modules.get("trio")
    if trio is None:
        return False
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True

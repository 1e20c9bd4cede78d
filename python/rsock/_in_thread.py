"""Blocking calls awaited from asyncio.

Each call runs in a thread of its own, which ends with the call. Nothing here may use the loop's
default executor, nor import asyncio before it is needed.
"""

from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_thread"]

_T = TypeVar("_T")


async def in_thread(function: Callable[[], _T], hurry: Callable[[], None] | None = None) -> _T:
    """Run `function` in a thread of its own, to its end, even if the caller is cancelled meanwhile.

    On a cancellation `hurry` is called once, in another thread, to make that end come sooner.

    The loop's default executor will not do: its few threads may all be busy with calls that end
    only when this one has run, such as a `recv` from the server that this call stops.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(2, thread_name_prefix="rsock-async")
    cancelled: asyncio.CancelledError | None = None
    try:
        ended = asyncio.get_running_loop().run_in_executor(pool, function)
        while not ended.done():
            try:
                # Unlike awaiting `ended`, this leaves it running when the caller is cancelled.
                await asyncio.wait([ended])
            except asyncio.CancelledError as error:
                if cancelled is None and hurry is not None:
                    pool.submit(hurry)
                cancelled = error
    finally:
        # Takes no time, because the thread has done its work. If the loop was abandoned and this
        # coroutine closed, nothing else runs that waiting here could block.
        pool.shutdown()
    if cancelled is not None:
        # Retrieve the exception, or the loop logs that it was never retrieved.
        ended.exception()
        raise cancelled
    return ended.result()

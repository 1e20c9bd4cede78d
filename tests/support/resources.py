"""The threads, descriptors and memory that the test process holds.

Read from `/proc`. Must never ask rsock: what a test compares is the system's own account.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections import Counter
from pathlib import Path
from typing import Any

from support.waiting import SOON, wait_until


def threads() -> dict[int, str]:
    """The threads of this process that belong to rsock: number and name."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            name = (task / "comm").read_text().strip()
            if name.startswith("rsock-"):
                found[int(task.name)] = name
    return found


def fds() -> Counter[str]:
    """The sockets, pipes, eventfds, pollers and timers that this process has open."""
    found: Counter[str] = Counter()
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            link = os.readlink(entry.path)
            if link.startswith(("socket:", "pipe:", "anon_inode:")):
                found[link] += 1
    return found


Held = tuple[dict[int, str], Counter[str]]


def held() -> Held:
    """The threads and descriptors of this process now; for `given_back`."""
    return threads(), fds()


def given_back(before: Held, deadline: float = SOON) -> None:
    """Wait until there is nothing left that was not there before."""

    def back() -> bool:
        gc.collect()
        return threads().keys() <= before[0].keys() and not fds() - before[1]

    wait_until(back, deadline, "threads and descriptors are given back")


def drop(held: list[Any]) -> None:
    """Clear the list and collect garbage, so that cycles are freed too."""
    held.clear()
    gc.collect()


def rss() -> int:
    """The resident memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

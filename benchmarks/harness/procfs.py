"""Reads Linux's accounts of a process: its threads' time, its memory, its descriptors.

Must never touch the process, nor read a clock that the kernel updates only at its ticks: a sleeping
thread's account is exact, so time is read when the threads are asleep. A thread that ends while it
is read is no error.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from harness.children import BenchmarkError

# How long a process may take until all its threads sleep, and how often that is checked.
PATIENCE = 20.0
GLANCE = 0.0005


def cpu_nanoseconds(pid: int, threads: str = "") -> int:
    """CPU time of all threads whose name begins with `threads`, once they are asleep.

    Excludes the time of threads that have ended.
    """
    come_to_rest(pid, threads)
    accounts = _read(pid, threads, "schedstat")
    return sum(int(account.split()[0]) for account in accounts)


def process_cpu_nanoseconds(pid: int) -> int:
    """CPU time of the whole process, ended threads included, once the others are asleep.

    The last microseconds of an ended thread are missing: those after its account was last updated.
    """
    come_to_rest(pid)
    # The clock that clock_getcpuclockid(3) derives from a process: 2 is CPUCLOCK_SCHED, of which
    # schedstat shows each thread's part, in nanoseconds. (utime and stime count ticks.)
    return time.clock_gettime_ns(~pid << 3 | 2)


def tree_cpu_nanoseconds(pid: int) -> int:
    """The same for a process and all its descendants: a server may fork for each connection."""
    return sum(cpu_nanoseconds(each) for each in _tree(pid))


def at_rest(pid: int, threads: str = "") -> bool:
    """Whether all threads whose name begins with `threads` are asleep."""
    # The second field is the name in brackets, which may itself contain spaces and brackets.
    states = [stat.rpartition(")")[2].split()[0] for stat in _read(pid, threads, "stat")]
    if not states:
        raise BenchmarkError(f"process {pid} has no thread named {threads}*")
    return all(state == "S" for state in states)


def come_to_rest(pid: int, threads: str = "") -> None:
    """Waits until all threads whose name begins with `threads` are asleep."""
    command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    wait_until(lambda: at_rest(pid, threads), f"{command} to come to rest")


def resident_bytes(pid: int) -> int:
    """The resident memory of a process. (Not from statm, which is only approximate.)"""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise BenchmarkError("/proc/PID/smaps_rollup has no line Rss")


def open_files(pid: int) -> int:
    """How many descriptors a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{what}: not within {PATIENCE:.0f} s")
        time.sleep(GLANCE)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _tree(int(child))


def _read(pid: int, threads: str, file: str) -> Iterator[str]:
    """A file of each thread whose name begins with `threads`."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        # Either error means that the thread has ended: before the file was opened, or since.
        with suppress(FileNotFoundError, ProcessLookupError):
            if (task / "comm").read_text().startswith(threads):
                yield (task / file).read_text()

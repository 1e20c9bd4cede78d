"""Reads what Linux accounts for a process: its threads' time, its memory, its descriptors.

Must never touch the process, nor read a clock that the kernel only brings up to date at its
ticks: a sleeping thread's account is exact, so time is read when the threads are asleep.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.children import BenchmarkError

# How long a process may take to come to rest, and how often it is looked at meanwhile.
PATIENCE = 20.0
GLANCE = 0.0005


def cpu_nanoseconds(pid: int, threads: str = "") -> int:
    """Time on a CPU of all threads whose name begins with `threads`, once they are asleep."""
    come_to_rest(pid, threads)
    accounts = [(task / "schedstat").read_text() for task in _tasks(pid, threads)]
    return sum(int(account.split()[0]) for account in accounts)


def at_rest(pid: int, threads: str = "") -> bool:
    """Whether all threads whose name begins with `threads` are asleep."""
    states = [_state(task) for task in _tasks(pid, threads)]
    if not states:
        raise BenchmarkError(f"process {pid} has no thread named {threads}*")
    return all(state == "S" for state in states)


def come_to_rest(pid: int, threads: str = "") -> None:
    """Waits until all threads whose name begins with `threads` are asleep."""
    command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    wait_until(lambda: at_rest(pid, threads), f"{command} to come to rest")


def resident_bytes(pid: int) -> int:
    """The memory a process has in use. (Not from statm, which is only roughly right.)"""
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
            raise BenchmarkError(f"waited {PATIENCE:.0f} s in vain for {what}")
        time.sleep(GLANCE)


def _tasks(pid: int, threads: str) -> Iterator[Path]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith(threads):
            yield task


def _state(task: Path) -> str:
    # The second field is the name in brackets, which may itself hold spaces and brackets.
    return (task / "stat").read_text().rpartition(")")[2].split()[0]

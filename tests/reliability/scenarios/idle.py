"""Scenario 2: thousands of idle connections cost memory and nothing else."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from support import wait_until

from reliability import load
from reliability.figures import Figure, at_most, equal, only_shown
from reliability.process import Child, Served, resident_bytes
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Server


def server() -> "Server":
    import rsock

    rsock.raise_fd_limit()
    return rsock.Server()


def settle(server: "Server", open_: int) -> None:
    server.ledger.wait(open=open_, timeout=60)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wakings(pid: int) -> int:
    """How often the server's own threads have gone to sleep."""
    count = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith("rsock-"):
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    count += int(line.split()[1])
    return count


def _after(seconds: float, ask: Callable[[int], int], pid: int) -> int:
    time.sleep(seconds)
    return ask(pid)


def run(size: Size) -> Iterator[Figure]:
    count, echoes, seconds = size.of(
        brief=(200, 50, 0.2), short=(5_000, 500, 2.0), long=(19_000, 2_000, 10.0)
    )
    with Served(server) as served, Child() as idle, Child() as fresh:
        fresh.call(load.fresh_echoes, served.address, echoes)
        unloaded = fresh.call(load.fresh_echoes, served.address, echoes)
        memory = resident_bytes(served.pid)
        yield equal("open", idle.call(load.keep, served.address, count), count)
        served.call_with_server(settle, count)
        # Until the last close has been processed.
        wait_until(lambda: wakings(served.pid) == _after(0.05, wakings, served.pid), load.PATIENCE)
        grown = resident_bytes(served.pid) - memory
        yield at_most("memory of each, bytes", round(grown / count), 1024)
        cpu, woken = cpu_seconds(served.pid), wakings(served.pid)
        time.sleep(seconds)
        share = (cpu_seconds(served.pid) - cpu) / seconds
        yield at_most(f"CPU over {seconds:g} s, percent", 100 * share, 1.0)
        yield equal("wake-ups of the server's threads", wakings(served.pid) - woken, 0)
        loaded = fresh.call(load.fresh_echoes, served.address, echoes)
        yield only_shown("p99 of a fresh echo, unloaded", unloaded, "s")
        yield at_most("the same beside the idle", loaded, 2 * unloaded, "s")
        idle.call(load.leave)
        served.call_with_server(settle, 0)
        report = served.stop()
        yield equal("in the ledger", report["totals"]["closed"], count + 3 * echoes)
        yield from served.afterwards()


SCENARIO = Scenario("2", "idle connections in one process", run)

"""Scenario 8: clients that stop reading. Memory stays bounded, other connections unaffected."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support import wait_until

from reliability import load
from reliability.figures import Figure, at_most, equal, only_shown
from reliability.paths import ECHO, FORWARD, served, service
from reliability.process import Child, resident_bytes
from reliability.scenario import Scenario, Size
from reliability.scenarios.idle import cpu_seconds

if TYPE_CHECKING:
    from rsock import Server

KIB, MIB = 1 << 10, 1 << 20


def server(path: str, target: list[Any]) -> "Server":
    from rsock import Limits, Server

    limits = Limits(write=None, half_close=None)
    return Server(service=service(path, target), limits=limits)


def received(server: "Server") -> int:
    return server.ledger.totals.bytes_in


def run(size: Size) -> Iterator[Figure]:
    count, length, seconds = size.of(
        brief=(10, 100_000, 0.3), short=(200, 500_000, 5.0), long=(200, 5_000_000, 60.0)
    )
    for path in (ECHO, FORWARD):
        yield from _one_path(path, count, length, seconds)


def _one_path(path: str, count: int, length: int, seconds: float) -> Iterator[Figure]:
    with served(path, server) as child, Child() as flooders, Child() as calm:
        before = calm.call(load.bystanders, child.address, 20, max(seconds / 10, 0.5))
        start = child.call_with_server(received)
        memory = resident_bytes(child.pid)
        flooders.begin(load.exact, child.address, count, length, 0)
        # In the middle of the transfer.
        wanted = start + count * length // 4
        wait_until(lambda: child.call_with_server(received) > wanted, load.PATIENCE)
        os.kill(flooders.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: _is_stopped(flooders.pid), load.PATIENCE)
            cpu = cpu_seconds(child.pid)
            during = calm.call(load.bystanders, child.address, 20, seconds)
            cpu = (cpu_seconds(child.pid) - cpu) / seconds
            grown = resident_bytes(child.pid) - memory
        finally:
            os.kill(flooders.pid, signal.SIGCONT)
        yield at_most(f"{path}: memory grown", grown, count * 64 * KIB + 8 * MIB, "B")
        yield equal(f"{path}: echoes lost by bystanders", during["lost"], 0)
        yield only_shown(f"{path}: p99 of the bystanders before", before["p99"], "s")
        yield at_most(f"{path}: the same meanwhile", during["p99"], 2 * before["p99"], "s")
        yield only_shown(f"{path}: CPU of the server meanwhile, percent", 100 * cpu)
        yield equal(f"{path}: byte-exact once they go on", flooders.result(), count)
        child.stop()
        yield from child.afterwards()


def _is_stopped(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


SCENARIO = Scenario("8", "clients that stopped reading", run)

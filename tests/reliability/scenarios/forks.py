"""Scenario 11: a process forks while its server is under load, without harm to either process.

Forks come from the main thread and from handlers, and the children end in every possible way. Must
never stop the server before every child has been waited for: its end is one of the figures.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from support import read_exactly, wait_until

from reliability import load
from reliability.figures import Figure, at_most, equal
from reliability.process import Child, Served
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Connection, Server

PATIENCE = 60.0
LINE = b"hello, this is one line\n"
# After the import alone there is no thread that a fork could warn of.
IMPORTED = """
import os, rsock
rsock.Server(), rsock.Accept()
child = os.fork()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""

_ends: list[tuple[int, float]] = []


# In the child that runs the server.


def server(service: str) -> "Server":
    from rsock import Server

    return Server() if service == "echo" else Server(service=lines)


def lines(conn: "Connection") -> None:
    while line := conn.recv_line():
        if line.startswith(b"fork "):
            child = os.fork()
            if child == 0:
                _end(line.split()[1].decode())
                # A child forked by a handler's thread continues in that handler.
                return
            _await(child)
        conn.sendall(line)


def _end(way: str) -> None:
    if way == "os._exit":
        os._exit(0)
    if way == "sys.exit":
        sys.exit(0)


def _await(child: int) -> None:
    """Wait for the child; record its exit code and how long its end took."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            _ends.append((os.waitstatus_to_exitcode(status), time.monotonic() - began))
            return
        time.sleep(0.001)
    os.kill(child, 9)
    os.waitpid(child, 0)
    _ends.append((-9, PATIENCE))


def fork(_: "Server", count: int) -> None:
    """Fork from the main thread."""
    for number in range(count):
        child = os.fork()
        if child == 0:
            _end("os._exit" if number % 2 else "sys.exit")
        _await(child)


def under_load(server: "Server", connections: int) -> None:
    """Wait until every loading client has been answered, and also the one that requests forks."""

    def all_talk() -> bool:
        records = list(server.ledger.open)
        return len(records) > connections and all(record.messages_in for record in records)

    wait_until(all_talk, PATIENCE, "all talk")


def ends(_: "Server") -> list[tuple[int, float]]:
    return _ends


# In the child that makes the load.


def talk(address: Any, connections: int) -> dict[str, int]:
    """Send lines on several connections until the server ends each of them between two lines."""
    rounds = [0] * connections
    wrong = [0] * connections

    def one(number: int) -> None:
        with load.dial(address) as peer:
            while True:
                peer.sendall(LINE)
                got = read_exactly(peer, len(LINE))
                if got != LINE:
                    wrong[number] += bool(got)
                    return
                rounds[number] += 1

    def guarded(number: int) -> None:
        # A line in flight when the server closed is answered by a reset.
        with contextlib.suppress(ConnectionError):
            one(number)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"wrong": sum(wrong), "served": sum(count > 0 for count in rounds)}


# In this process.


def forked(service: str, count: int, connections: int = 3) -> dict[str, Any]:
    """`count` forks under load; return how the children ended and what the parent served."""
    with Served(server, service) as served, Child() as loading:
        loading.begin(talk, served.address, connections)
        with load.dial(served.address) as peer:

            def says_back(line: bytes) -> bool:
                peer.sendall(line)
                return read_exactly(peer, len(line)) == line

            answered = says_back(LINE)
            served.call_with_server(under_load, connections)
            if service == "echo":
                served.call_with_server(fork, count)
            else:
                served.call_with_server(fork, count // 2)
                ways = ["os._exit", "sys.exit", "return"]
                for number in range(count - count // 2):
                    answered &= says_back(f"fork {ways[number % 3]}\n".encode())
            answered &= says_back(LINE)
        children = served.call_with_server(ends)
        report = served.stop()
        talked = loading.result()
        return {
            "children": len(children),
            "codes": sorted({code for code, _ in children}),
            "slowest": max(seconds for _, seconds in children),
            "answered": answered,
            "wrong": talked["wrong"],
            "served": talked["served"],
            "report": {name: report[name] for name in ("errors", "abandoned", "cause")},
            "balanced": report["totals"]["accepted"] == report["totals"]["closed"],
            "left": served.left(),
            "exit": served.end(),
            "said": served.said(),
        }


def run(size: Size) -> Iterator[Figure]:
    count = size.of(brief=6, short=30, long=100)
    for service in size.of(
        brief=["handlers"], short=["echo", "handlers"], long=["echo", "handlers"]
    ):
        found = forked(service, count)
        what = f"{service}: "
        yield equal(what + "children", found["children"], count)
        yield equal(what + "their exit codes", found["codes"], [0])
        yield at_most(what + "slowest end of a child", found["slowest"], 5.0, "s")
        yield equal(what + "the parent answers throughout", found["answered"], True)
        yield equal(what + "load: served, wrong", (found["served"], found["wrong"]), (3, 0))
        yield equal(
            what + "its report", found["report"], {"errors": 0, "abandoned": 0, "cause": "stop"}
        )
        yield equal(what + "ledger balances", found["balanced"], True)
        yield equal(what + "descriptors, threads left", found["left"], [0, 0])
        yield equal(what + "exit code, standard error", (found["exit"], found["said"]), (0, ""))
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", IMPORTED],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    yield equal("output of a fork after the import alone", (done.returncode, done.stderr), (0, ""))


SCENARIO = Scenario("11", "fork under load", run)

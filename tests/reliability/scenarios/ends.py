"""Scenario 13: a program ends as it would without rsock, whatever its servers are doing.

Owns the program that ends, for every way and every use; the tests run it too. Must never compare
two programs that differ in more than the use, because their final output names their lines.
"""

import contextlib
import itertools
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

from support import Background, Script, dial, ended, says_back

from reliability.figures import Figure, at_most, equal
from reliability.scenario import Scenario, Size

PROGRAM = """
import os, sys, threading, time
way, use = sys.argv[1:]
if use != "nothing":
    from rsock import Accept, Server
    options = {}
    if texts := os.environ.get("RSOCK_RELIABILITY_FAULTS"):
        from rsock.faults import parse
        options = {"faults": [parse(text) for text in texts.split("; ")], "seed": 19}
    def handler(conn):
        line = conn.recv_line()
        conn.sendall(line)
        if use == "asleep":
            time.sleep(60)
        while use == "computing":
            pass
        while line := conn.recv_line():
            conn.sendall(line)
    if use == "accept":
        server = Server(service=Accept(), **options).start()
        def take():
            for conn, _ in server:
                handler(conn)
        threading.Thread(target=take, daemon=True).start()
    elif use.startswith("echo"):
        server = Server(**options).start()
    else:
        # A handler that does not return delays the end for as long as the drain.
        options["drain"] = 0.2 if use in ("asleep", "computing") else 1
        server = Server(service=handler, **options).start()
    print(server.port, flush=True)
else:
    print(0, flush=True)
sys.stdin.readline()
if way == "sys.exit":
    sys.exit(3)
elif way == "exception":
    raise LookupError("on purpose")
elif way == "os._exit":
    os._exit(5)
elif way.startswith("SIG"):
    # On one line: where handlers compute, it is unpredictable in which call the signal arrives.
    # And in short sleeps: a signal just before a sleep is handled when the sleep ends.
    while print("waiting", flush=True) is None: time.sleep(0.02)
"""
WAYS = {
    "end of main": 0,
    "sys.exit": 3,
    "exception": 1,
    "SIGINT": -signal.SIGINT,
    "SIGTERM": -signal.SIGTERM,
    "os._exit": 5,
}
# How many clients each use has.
USES = {
    "echo": 2,
    "echo, load": 0,
    "handler": 0,
    "handler, load": 0,
    "computing": 3,
    "asleep": 3,
    "waiting": 3,
    "accept": 1,
}
# The end waits for handlers for up to 1.5 s; beyond this limit it is blocked.
HELD_UP = 20.0
SIDE_BY_SIDE = 3


class Ending(NamedTuple):
    """How a program ended: exit code, standard error, and duration."""

    code: int
    said: str
    seconds: float


def ending(way: str, use: str) -> Ending:
    """Run the program, end it in this way during this use."""
    # Without the markers below the running expressions, which depend on where the signal arrives;
    # see the end of the program.
    with Script(PROGRAM, way, use, options=("-X", "no_debug_ranges")) as script:
        address = ("127.0.0.1", int(script.line()))
        with contextlib.ExitStack() as stack:
            if use.endswith("load"):
                stack.enter_context(_talking(address))
            peers = [stack.enter_context(dial(address)) for _ in range(USES.get(use, 0))]
            for peer in peers:
                assert says_back(peer, b"hello\n")
            began = time.monotonic()
            script.tell()
            if way.startswith("SIG"):
                assert script.line() == "waiting"
                began = time.monotonic()
                script.signal(signal.Signals[way])
            code, _, said = script.end(HELD_UP)
            took = time.monotonic() - began
            for peer in peers:
                with contextlib.suppress(ConnectionResetError):
                    assert ended(peer)
    return Ending(code, said, took)


@cache
def without_rsock(way: str) -> Ending:
    return ending(way, "nothing")


@contextlib.contextmanager
def _talking(address: tuple[str, int]) -> Iterator[None]:
    """Clients that send and receive until the server is gone."""
    over = threading.Event()

    def talk(peer: socket.socket) -> None:
        with peer, contextlib.suppress(ConnectionError):
            while not over.is_set() and says_back(peer, b"x" * 50_000 + b"\n"):
                pass

    talks = [Background(talk, dial(address)) for _ in range(2)]
    try:
        yield
    finally:
        over.set()
        for each in talks:
            each.result()


def endings(cases: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Ending]:
    """The endings of (way, use) pairs, a few programs in parallel."""
    cases = list(cases)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return dict(zip(cases, pool.map(lambda case: ending(*case), cases), strict=True))


def different(found: dict[tuple[str, str], Ending]) -> dict[tuple[str, str], Ending]:
    """The endings whose exit code or output differs from that without rsock."""
    return {
        (way, use): end
        for (way, use), end in found.items()
        if end[:2] != (WAYS[way], without_rsock(way).said)
    }


def run(size: Size) -> Iterator[Figure]:
    uses = size.of(brief=["computing"], short=list(USES), long=list(USES))
    ways = size.of(brief=["SIGINT", "sys.exit"], short=list(WAYS), long=list(WAYS))
    times = size.of(brief=1, short=1, long=10)
    cases = list(itertools.product(ways, uses))
    wrong: dict[tuple[str, str], Ending] = {}
    slowest: dict[str, float] = dict.fromkeys(uses, 0.0)
    for _ in range(times):
        # Sequential here: the time is the figure.
        found = {case: ending(*case) for case in cases}
        wrong |= different(found)
        for (_, use), end in found.items():
            slowest[use] = max(slowest[use], end.seconds)
    yield equal(f"{len(cases)} endings, {times} ×, that differ", sorted(wrong), [])
    for use, seconds in slowest.items():
        yield at_most(f"slowest end: {use}", seconds, 2.0, "s")


SCENARIO = Scenario("13", "the end of the program, in every way and use", run, with_faults=True)

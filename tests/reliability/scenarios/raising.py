"""Scenario 16: handlers that raise.

Each exception is reported exactly once, to whichever destination.

The child counts reports by connection number in an array of fixed size, so that counting itself
takes no memory. (Panics need a service that panics: they are in `tests/net/services.rs`.)
"""

import gc
import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reliability.figures import Figure, at_most, equal
from reliability.process import Child, Served, resident_bytes
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Connection, Server

MIB = 1 << 20
PATIENCE = 60.0

_reported = bytearray()


# In the child that runs the server.


def server(on_error: str, count: int) -> "Server":
    from rsock import Server

    global _reported
    _reported = bytearray(count + 1)
    # The ledger is full before memory is measured.
    if on_error == "function":
        return Server(service=fail, on_error=_note, history=100)
    if on_error == "log":
        logger = logging.getLogger("rsock")
        logger.propagate = False
        logger.addHandler(_Counting())
        return Server(service=fail, history=100)
    return Server(service=fail, on_error="raise", history=100)


def fail(conn: "Connection") -> None:
    raise LookupError(conn.id)


def _note(error: BaseException) -> None:
    _reported[error.args[0]] += 1


class _Counting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            # Includes all the work of a log: the traceback is formatted.
            assert "LookupError" in logging.Formatter().format(record)
            _reported[record.connection] += 1  # type: ignore[attr-defined]


def settle(server: "Server", count: int) -> None:
    """Wait until `count` handlers have raised and been reported."""
    server.ledger.wait(open=0, closed=count, timeout=PATIENCE)
    gc.collect()


def stop(server: "Server") -> dict[str, Any]:
    """How many errors were reported in all, and whether each once, after `stop()`."""
    reported, once = 0, True
    try:
        server.stop()
    except ExceptionGroup as group:
        # "N exceptions in handlers of …"
        reported, once = int(group.message.split()[0]), len(group.exceptions) == 100
    if any(_reported):
        reported, once = sum(_reported), max(_reported) == 1
    return {"reported": reported, "once": once, "kept": len(server.errors)}


# In the child that connects.


def visit(address: Any, count: int) -> int:
    """How many of `count` connections ended without a byte."""
    ended = 0
    for _ in range(count):
        with socket.create_connection(tuple(address), PATIENCE) as peer:
            ended += peer.recv(1) == b""
    return ended


# In this process.


def raised(on_error: str, first: int, more: int) -> dict[str, Any]:
    """`first` handlers raise, then `more`; return the reports and the growth of memory."""
    count = first + more
    with Served(server, on_error, count) as served, Child() as load:
        ended = load.call(visit, served.address, first)
        served.call_with_server(settle, first)
        memory = resident_bytes(served.pid)
        ended += load.call(visit, served.address, more)
        served.call_with_server(settle, count)
        grown = resident_bytes(served.pid) - memory
        found: dict[str, Any] = served.call_with_server(stop)
        # The report of the server, which is stopped already.
        found |= {"ended": ended, "grown": grown, "errors": served.stop()["errors"]}
        found["left"] = served.left()
        found |= {"exit": served.end(), "said": served.said()}
        return found


def run(size: Size) -> Iterator[Figure]:
    every = ["function", "log", "raise"]
    kinds = size.of(brief=every[:1], short=every, long=every)
    first, more = size.of(brief=(100, 200), short=(500, 1_500), long=(10_000, 90_000))
    for kind in kinds:
        found = raised(kind, first, more)
        what = f"{first + more:,} handlers that raise, on_error {kind}: "
        yield equal(what + "reported", found["reported"], first + more)
        yield equal(what + "none twice", found["once"], True)
        yield equal(what + "StopReport.errors", found["errors"], first + more)
        yield equal(what + "clients that saw an end", found["ended"], first + more)
        yield at_most(what + f"memory grown after {first:,}", found["grown"], MIB, "B")
        yield equal(what + "descriptors, threads left", found["left"], [0, 0])
        yield equal(what + "exit code, standard error", (found["exit"], found["said"]), (0, ""))


SCENARIO = Scenario("16", "handlers that raise", run)

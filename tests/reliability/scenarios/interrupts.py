"""Scenario 14: Ctrl-C in every blocking call.

Each interrupt is raised at once, none is lost, and the object stays usable.

The calls are made on the main thread of a child, which sends itself SIGINT once it is blocked in
the call: Python runs signal handlers on that thread only. Must never send a signal that no call
waits for.
"""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from support import Arrivals, Signal, dial, full_listener, listener, read_to_end, wait_until

from reliability.faults import faulty
from reliability.figures import Figure, at_most, equal
from reliability.process import Child, held, warm_up
from reliability.scenario import Scenario, Size

SOON = 30.0
# A time-out or a drain that no call waits for.
LONG = 300.0

Call = Callable[[], object]
# A call, and a check that its object is still usable after the interrupts.
Case = tuple[Call, Callable[[], bool]]

READS: dict[str, Callable[[Any], object]] = {
    "recv": lambda stream: stream.recv(6),
    "recvfrom": lambda stream: stream.recvfrom(6)[0],
    "recvmsg": lambda stream: stream.recvmsg(6)[0],
    "recv_into": lambda stream: b"hello\n"[: stream.recv_into(bytearray(6))],
    "recv_exactly": lambda stream: stream.recv_exactly(6),
    "recv_until": lambda stream: stream.recv_until(b"\n"),
    "recv_line": lambda stream: stream.recv_line(),
}


@contextlib.contextmanager
def _pair(kind: str) -> Iterator[tuple[Any, socket.socket]]:
    """A stream and the plain socket at its other end."""
    from rsock import Accept, Client, Server

    if kind == "Client":
        with listener() as listening, Client(listening.getsockname()) as client:
            peer, _ = listening.accept()
            with peer:
                yield client, peer
    else:
        with Server(service=Accept(), **faulty()) as server, dial(server.address) as peer:
            conn, _ = server.accept(SOON)
            with conn:
                yield conn, peer


@contextlib.contextmanager
def _reading(kind: str, name: str, timeout: float | None) -> Iterator[Case]:
    with _pair(kind) as (stream, peer):
        stream.settimeout(timeout)

        def usable() -> bool:
            peer.sendall(b"hello\n")
            got = READS[name](stream)
            return got == b"hello\n"

        yield lambda: READS[name](stream), usable


@contextlib.contextmanager
def _writing(kind: str) -> Iterator[Case]:
    with _pair(kind) as (stream, peer):
        data = bytes(16 << 20)

        def usable() -> bool:
            # The bytes that `sendall` had taken arrive, and then the end.
            stream.close()
            return 0 < len(read_to_end(peer)) < len(data)

        yield lambda: stream.sendall(data), usable


@contextlib.contextmanager
def _connecting() -> Iterator[Case]:
    from rsock import Client

    with full_listener() as address, listener() as listening:

        def usable() -> bool:
            with Client(listening.getsockname(), timeout=SOON) as client:
                there: tuple[str, int] = listening.getsockname()
                return bool(client.getpeername() == there)

        yield lambda: Client(address, timeout=LONG), usable


@contextlib.contextmanager
def _serving(name: str, timeout: float | None) -> Iterator[Case]:
    """The blocking calls of a server with a running handler."""
    from rsock import Connection, Server

    at, over = Arrivals(), threading.Event()

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(LONG)
        conn.sendall(conn.recv_line())

    with (
        Server(service=handler, on_error="raise", **faulty()) as server,
        dial(server.address) as peer,
    ):
        at.until()
        calls: dict[str, Call] = {
            "wait": lambda: server.wait(timeout),
            "ledger.wait": lambda: server.ledger.wait(open=9, timeout=timeout),
            "stop": lambda: server.stop(LONG),
        }

        def usable() -> bool:
            over.set()
            peer.sendall(b"hello\n")
            return read_to_end(peer) == b"hello\n"

        yield calls[name], usable
        over.set()


@contextlib.contextmanager
def _accepting(name: str, timeout: float | None) -> Iterator[Case]:
    from rsock import Accept, Server

    with Server(service=Accept(), **faulty()) as server:

        def usable() -> bool:
            with dial(server.address) as peer:
                conn, address = server.accept(SOON)
                with conn:
                    there: tuple[str, int] = peer.getsockname()
                    return bool(address == there)

        yield (
            (lambda: server.accept(timeout)) if name == "accept" else (lambda: next(iter(server))),
            usable,
        )


@contextlib.contextmanager
def _running() -> Iterator[Case]:
    """`run()` turns the first interrupt into a drain, and says so."""
    from rsock import Connection, Server

    def lines(conn: Connection) -> None:
        while line := conn.recv_line():
            conn.sendall(line)

    states = []

    def call() -> None:
        server = Server(service=lines, **faulty())
        report = server.run()
        states.append(server.state)
        if report.cause == "SIGINT":
            raise KeyboardInterrupt

    yield call, lambda: set(states) == {"stopped"}


def _cases() -> dict[str, contextlib.AbstractContextManager[Case]]:
    found: dict[str, contextlib.AbstractContextManager[Case]] = {}
    for kind in ("Client", "Connection"):
        for timeout in (None, LONG):
            for name in READS:
                found[f"{kind}.{name}, {timeout}"] = _reading(kind, name, timeout)
        found[f"{kind}.sendall"] = _writing(kind)
    found["Client"] = _connecting()
    for timeout in (None, LONG):
        for name in ("wait", "ledger.wait"):
            found[f"Server.{name}, {timeout}"] = _serving(name, timeout)
        found[f"Server.accept, {timeout}"] = _accepting("accept", timeout)
    found["Server.stop"] = _serving("stop", None)
    found["iteration"] = _accepting("next", None)
    found["Server.run"] = _running()
    return found


def interrupt(times: int) -> dict[str, Any]:
    """Interrupt each call that number of times. Runs in the child."""
    warm_up()
    before = held()
    raised = 0
    slowest: tuple[float, str] = (0.0, "")
    unusable = []
    cases = _cases()
    for name, case in cases.items():
        with case as (call, usable):
            for _ in range(times):
                with Signal(signal.SIGINT) as sent:
                    try:
                        call()
                    except KeyboardInterrupt:
                        raised += 1
                slowest = max(slowest, (sent.after, name))
            if not usable():
                unusable.append(name)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: held() == before)
    now = held()
    return {
        "calls": len(cases),
        "raised": raised,
        "slowest": slowest,
        "unusable": unusable,
        "left": [now.fds - before.fds, now.threads - before.threads],
    }


def run(size: Size) -> Iterator[Figure]:
    times = size.of(brief=1, short=10, long=200)
    with Child() as child:
        found = child.call(interrupt, times)
        calls = found["calls"]
        yield equal(f"{times} × SIGINT in {calls} calls: raised", found["raised"], calls * times)
        seconds, name = found["slowest"]
        yield at_most(f"slowest to end ({name})", seconds, 0.2, "s")
        yield equal("unusable afterwards", found["unusable"], [])
        yield equal("descriptors, threads left", found["left"], [0, 0])
        yield equal("exit code, standard error", (child.end(), child.said()), (0, ""))


SCENARIO = Scenario("14", "an interrupt in every blocking call", run, with_faults=True)

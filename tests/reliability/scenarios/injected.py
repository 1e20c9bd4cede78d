"""Scenario 5: errors injected into the system calls of the server's process.

Uses strace(1), attached to that process alone once the server runs. Must never inject into the
load, nor into the start of the interpreter.
"""

import contextlib
import itertools
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from support import read_exactly, says_back

from reliability import load
from reliability.figures import Figure, at_most, equal
from reliability.process import Child, Served, back_to, held
from reliability.scenario import Scenario, Size
from reliability.scenarios.idle import cpu_seconds

if TYPE_CHECKING:
    from rsock import Server

EXHAUSTED = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")
OF_ONE = (
    "ECONNABORTED", "EINTR", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET",
    "EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "EPERM", "ETIMEDOUT", "ECONNRESET",
)  # fmt: skip
FATAL = ("EBADF", "ENOTSOCK")
# The system calls needed to start a server, and how they fail.
STARTS = {"clone3": "EAGAIN", "epoll_create1": "EMFILE", "eventfd2": "EMFILE"}


def server(workers: int | None) -> "Server":
    from rsock import Server

    return Server(workers=workers)


def echoes(address: Any, count: int) -> int:
    good = 0
    for number in range(count):
        with load.dial(address) as peer:
            said = b"%04d" % number
            peer.sendall(said)
            peer.shutdown(socket.SHUT_WR)
            good += read_exactly(peer, 4) == said and peer.recv(1) == b""
    return good


def cause(server: "Server") -> str:
    return server.wait(load.PATIENCE).cause


def accept_errors(server: "Server") -> int:
    return server.ledger.totals.accept_errors


def start(times: int) -> dict[str, int]:
    """Start servers; each echoes, or raised an OSError and left nothing behind."""
    from rsock import Server

    before, good, raised, leaks = held(), 0, 0, 0
    for _ in range(times):
        try:
            with Server(workers=2) as server:
                good += echoes(server.address, 1)
        except OSError:
            raised += 1
        leaks += not back_to(before)
    return {"good": good, "raised": raised, "leaks": leaks}


@contextlib.contextmanager
def injecting(pid: int, call: str, error: str, when: str) -> Iterator[None]:
    """This call fails with this error in the process, as often as strace's `when` says."""
    inject = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}")
    with subprocess.Popen(
        ["strace", "-f", "-o", "/dev/null", "-p", str(pid), *inject],
        stderr=subprocess.PIPE,
        text=True,
    ) as strace:
        try:
            assert strace.stderr is not None
            said = strace.stderr.readline()
            assert "attached" in said, said
            yield
        finally:
            strace.terminate()


def run(size: Size) -> Iterator[Figure]:
    count = size.of(brief=8, short=40, long=100)
    every = EXHAUSTED + OF_ONE
    # A single worker accepts by itself; with several, a separate thread does.
    both: tuple[int | None, ...] = (None, 1)
    errors = size.of(brief=("EMFILE", "EPROTO"), short=every, long=every)
    for error, workers in itertools.product(errors, both):
        with Served(server, workers) as served:
            with injecting(served.pid, "accept4", error, "3+4"):
                good = echoes(served.address, count)
                yield equal(f"accept4 {error}: echoes{_of(workers)}", good, count)
            served.stop()
            yield from _only_misses(served)
    yield from _without_end(size, both)
    yield from _while_asked(size)
    for call in size.of(
        brief=("recvfrom",), short=("recvfrom", "sendto"), long=("recvfrom", "sendto")
    ):
        with Served(server, None) as served:
            with injecting(served.pid, call, "EINTR", "3+4"):
                yield equal(f"{call} EINTR: echoes", echoes(served.address, count), count)
            served.stop()
            yield from _only_misses(served)
    for error, workers in itertools.product(FATAL, both):
        with Served(server, workers) as served, injecting(served.pid, "accept4", error, "2+1"):
            # The second accept, after a first connection that is served.
            load.keep(served.address, 1)
            with contextlib.suppress(ConnectionError):
                load.keep(served.address, 1)
            ended = served.call_with_server(cause)
            yield equal(f"accept4 {error}: cause of the end{_of(workers)}", ended, "accept error")
            load.leave()
    for call, error in STARTS.items():
        times = size.of(brief=4, short=12, long=50)
        with Child() as child:
            child.call(start, 1)
            with injecting(child.pid, call, error, "3+4"):
                found = child.call(start, times)
        yield equal(f"{call} {error}: started, or raised", found["good"] + found["raised"], times)
        yield equal(f"{call} {error}: leaks", found["leaks"], 0)


def _endless(size: Size) -> tuple[float, int]:
    """How long the endless errors last, and the maximum number of accept4 calls in that time."""
    seconds = size.of(brief=0.5, short=2.0, long=10.0)
    # At most 64 accepts a turn and a turn every 100 ms, whatever the established connections do.
    return seconds, 64 * (round(seconds / 0.1) + 2)


def _without_end(size: Size, both: tuple[int | None, ...]) -> Iterator[Figure]:
    """An error of a single connection that recurs for each accept: the acceptor must back off."""
    seconds, most = _endless(size)
    for workers in both:
        with Served(server, workers) as served, load.dial(served.address) as peer:
            assert says_back(peer)
            # accept(2) is called where accept4(2) is not permitted.
            endless = injecting(served.pid, "accept4,accept", "EPERM", "1+")
            with endless, load.dial(served.address) as late:
                before = cpu_seconds(served.pid)
                late.sendall(b"let me in")
                good, rounds, end = 0, 0, time.monotonic() + seconds
                while time.monotonic() < end:
                    good, rounds = good + says_back(peer), rounds + 1
                    time.sleep(0.005)
                spent = 100 * (cpu_seconds(served.pid) - before) / seconds
                assert not select.select([late], [], [], 0)[0], "accept4 does not fail"
                failed = served.call_with_server(accept_errors)
            what = f"accept4 EPERM without end{_of(workers)}"
            yield at_most(f"{what}: CPU, percent", spent, 20.0)
            yield at_most(f"{what}: tried, in {seconds:g} s", failed, most, measured=False)
            yield equal(f"{what}: echoes lost by the established", rounds - good, 0)
            late_too = echoes(served.address, 1)
            yield equal(f"{what}: later connections", late_too, 1)
            served.stop()
            yield from _only_misses(served)


def asked_for() -> "Server":
    from rsock import Accept, Server

    return Server(service=Accept())


def ask(server: "Server", seconds: float) -> dict[str, float]:
    """Call `accept` beside another thread; return that thread's progress and accept4's failures."""
    over = threading.Event()
    turns = itertools.count()

    def turn() -> None:
        while not over.wait(0.01):
            next(turns)

    beside = threading.Thread(target=turn)
    beside.start()
    began = time.monotonic()
    with contextlib.suppress(OSError):
        server.accept(seconds)
    took = time.monotonic() - began
    over.set()
    beside.join()
    return {"turns": next(turns), "failed": accept_errors(server), "seconds": took}


def _while_asked(size: Size) -> Iterator[Figure]:
    """The same where the program itself accepts: its other threads must keep running."""
    seconds, most = _endless(size)
    with Served(asked_for) as served, load.dial(served.address):
        with injecting(served.pid, "accept4", "ECONNABORTED", "1+"):
            found = served.call_with_server(ask, seconds)
        what = "accept4 ECONNABORTED without end, Accept()"
        yield at_most(f"{what}: tried, in {seconds:g} s", found["failed"], most, measured=False)
        late = 1000 * (found["seconds"] - seconds)
        yield at_most(f"{what}: the time-out's delay, ms", late, 100.0)
        lost = 1 - found["turns"] / (seconds / 0.01)
        yield at_most(f"{what}: turns lost by another thread, share", lost, 0.5)
        served.stop()
        yield from _only_misses(served)


def _of(workers: int | None) -> str:
    return "" if workers is None else ", one worker"


def _only_misses(served: Served) -> Iterator[Figure]:
    """Only deviations: with this number of servers the expected figures would fill the table."""
    for figure in served.afterwards():
        if figure.verdict(brief=True) == "MISSED":
            yield figure


SCENARIO = Scenario("5", "errors injected into system calls", run, needs=("strace",))

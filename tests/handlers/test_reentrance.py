"""Any code may use a server while another call of it is in the middle: signals, collection, forks.

A signal handler and a finalizer run between two lines of the thread that they interrupt, and a fork
copies every other thread in the middle of a line. Each test does so at every line of rsock's Python
code in turn.
"""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import pytest
from support import SOON, dial, given_back, held, output_of, read_to_end, wait_until
from support.interrupts import InterruptAt

import rsock
from rsock import Connection, Server

# Where the Python code is that a server runs on the thread of its caller.
OURS = (str(Path(rsock.__file__).parent), threading.__file__)

LINES = """
import gc, os, socket, sys, threading, warnings
from pathlib import Path
import rsock
from rsock import Server
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
OURS = str(Path(rsock.__file__).parent)

def at_each_line(call):
    '''A trace function that calls `call` before each line of rsock's Python code.'''
    def trace(frame, event, _):
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line":
            sys.settrace(None)
            call()
            sys.settrace(trace)
        return trace
    return trace

def fail(conn):
    raise ValueError("from the handler")

def asked(server):
    with socket.create_connection(server.address, timeout=5) as peer:
        while peer.recv(10):
            pass
"""


@pytest.mark.parametrize("inner", ["server.errors", "server.stop()", "server.wait()"])
@pytest.mark.parametrize("outer", ["server.errors", "server.stop()", "server.wait()"])
def test_a_signal_handler_may_use_the_server_that_it_interrupts(inner: str, outer: str) -> None:
    code = f"""
server = Server(service=fail, on_error="raise").start()
asked(server)
server._begin_stop("stop")
lines = 0
groups = []

def use(call):
    try:
        call()
    except ExceptionGroup as error:
        groups.append(len(error.exceptions))

def interrupt():
    global lines
    lines += 1
    use(lambda: {inner})

sys.settrace(at_each_line(interrupt))
use(lambda: {outer})
sys.settrace(None)
use(server.stop)
print(lines > 3, groups, [str(error) for error in server.errors])
"""
    assert output_of(LINES + code) == "True [1] ['from the handler']\n"


@pytest.mark.parametrize("thread", ["caller", "handler"])
def test_a_finalizer_may_use_the_server_of_the_call_in_which_it_runs(thread: str) -> None:
    code = f"""
class Cycle:
    def __init__(self):
        self.itself = self
    def __del__(self):
        for server in servers:
            found.append(len(server.errors))

def collect():
    Cycle()
    gc.collect()

found, servers = [], []
if "{thread}" == "handler":
    threading.settrace(at_each_line(collect))
server = Server(service=fail, on_error="raise").start()
servers.append(server)
asked(server)
if "{thread}" == "caller":
    sys.settrace(at_each_line(collect))
try:
    server.errors
    server.stop()
except ExceptionGroup as error:
    sys.settrace(None)
    print(len(error.exceptions), set(found) <= {{0, 1}}, len(found) > 10)
"""
    assert output_of(LINES + code) == "1 True True\n"


def test_errors_in_a_child_are_a_runtime_error_wherever_the_handler_was() -> None:
    code = """
import queue
forks, forked = queue.SimpleQueue(), queue.SimpleQueue()

def fork_elsewhere():
    forks.put(True)
    forked.get()

def fork():
    child = os.fork()
    if child == 0:
        try:
            server.errors
        except RuntimeError as error:
            os._exit(7 if str(os.getppid()) in str(error) else 1)
        os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

threading.settrace(at_each_line(fork_elsewhere))
server = Server(service=fail, on_error="raise").start()
peer = socket.create_connection(server.address)
codes = []
while True:
    try:
        forks.get(timeout=0.05)
    except queue.Empty:
        if server.errors and server.ledger.totals.closed:
            break
        continue
    codes.append(fork())
    forked.put(True)
threading.settrace(None)
stopping = threading.Thread(target=lambda: server._stop(0, "stop"))
stopping.start()
while stopping.is_alive():
    try:
        forks.get(timeout=0.05)
        forked.put(True)
    except queue.Empty:
        pass
print(set(codes), len(codes) > 10)
"""
    assert output_of(LINES + code) == "{7} True\n"


@pytest.mark.parametrize("lines", [False, True], ids=["handlers", "handlers and log lines"])
def test_an_interrupt_at_any_step_of_a_start_leaves_no_thread(
    lines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lines:
        import logging

        monkeypatch.setattr(logging.getLogger("rsock.connections"), "level", logging.INFO)
    before, threads = held(), set(threading.enumerate())
    for step in itertools.count(1):
        server = Server(service=lambda conn: conn.sendall(conn.recv_line()), drain=SOON)
        try:
            with InterruptAt(step) as interrupt, server, dial(server.address) as peer:
                peer.sendall(b"line\n")
                assert read_to_end(peer) == b"line\n"
        except KeyboardInterrupt:
            assert interrupt.happened
        assert server.state in ("new", "stopped"), f"at step {step}"
        if not interrupt.happened:
            break
    assert step > 10
    given_back(before)
    # Also none that never ran. The one of the log may end a moment after its last line.
    wait_until(lambda: set(threading.enumerate()) == threads)


def test_a_stop_does_not_wait_for_what_a_thread_destroys_at_its_end() -> None:
    over = threading.Event()
    local = threading.local()

    class Slow:
        def __del__(self) -> None:
            over.wait(SOON * 3)

    def handler(conn: Connection) -> None:
        local.slow = Slow()

    before = held()
    with Server(service=handler) as server:
        with dial(server.address) as peer:
            assert read_to_end(peer) == b""
        began = time.monotonic()
        report = server.stop(0)
        assert time.monotonic() - began < 2.5
        assert report.abandoned == 0
    over.set()
    given_back(before)


def test_a_stop_by_a_finalizer_of_the_thread_that_ends_does_not_wait_for_that_thread() -> None:
    reports: list[rsock.StopReport] = []
    local = threading.local()

    class Stops:
        def __del__(self) -> None:
            reports.append(server.stop(SOON * 4))

    def handler(conn: Connection) -> None:
        local.stops = Stops()

    server = Server(service=handler).start()
    with dial(server.address) as peer:
        assert read_to_end(peer) == b""
    report = server.stop(SOON * 4)
    assert report.seconds < SOON
    assert report.abandoned == 0
    assert reports in ([], [report])


def test_every_thread_has_ended_when_stop_returns() -> None:
    def handler(conn: Connection) -> None:
        conn.recv(1)

    before = set(threading.enumerate())
    with Server(service=handler, drain=SOON) as server:
        for _ in range(10):
            dial(server.address).close()
    assert set(threading.enumerate()) == before

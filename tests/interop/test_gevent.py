"""Servers in a program whose standard library gevent has patched."""

from __future__ import annotations

import pytest
from support import output_of

PATCHED = """
import sys
if sys.argv[1] == "rsock first":
    import rsock
from gevent import monkey
monkey.patch_all()
import gevent, logging, os, signal, socket, threading, time
import rsock
from rsock import Accept, Limits, Server

logging.getLogger("rsock.connections").setLevel("INFO")
logging.getLogger("rsock").addHandler(logging.NullHandler())

def ask(address, count=2):
    with socket.create_connection(address, timeout=10) as peer:
        got = b""
        for _ in range(count):
            peer.sendall(b"hello\\n")
            gevent.sleep(0.01)
            got += peer.recv(100)
        return got

def ask_together(address, clients=8):
    jobs = [gevent.spawn(ask, address) for _ in range(clients)]
    gevent.joinall(jobs, timeout=15)
    return {job.value for job in jobs}

def lines(conn):
    while line := conn.recv_line():
        if line == b"fail\\n":
            raise ValueError(line)
        threads.add(threading.get_native_id())
        # Blocks this thread, and no other.
        time.sleep(0.01)
        conn.sendall(line.upper())

threads = set()
"""


@pytest.mark.parametrize("order", ["rsock first", "gevent first"])
def test_handlers_run_on_threads_of_the_system(order: str) -> None:
    code = """
with Server(service=lines, drain=5) as server:
    print(ask_together(server.address))
    print(len(threads) > 1, os.getpid() in threads)
    with server.client(timeout=10) as client:
        client.sendall(b"fail\\n")
        assert client.recv(1) == b""
    report = server.stop()
    print(report.abandoned, report.forced, [str(error) for error in server.errors])
"""
    assert output_of(PATCHED + code, order).splitlines() == [
        "{b'HELLO\\nHELLO\\n'}",
        "True False",
        "0 0 [\"b'fail\\\\n'\"]",
    ]


@pytest.mark.parametrize("order", ["rsock first", "gevent first"])
def test_ctrl_c_ends_the_waits_of_a_server_with_a_handler(order: str) -> None:
    code = """
server = Server(service=lines).start()
for call in (server.wait, lambda: server.ledger.wait(open=7, timeout=None)):
    child = os.spawnvp(os.P_NOWAIT, "sh", ["sh", "-c", f"sleep 0.3; kill -INT {os.getpid()}"])
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted")
server.stop()
child = os.spawnvp(os.P_NOWAIT, "sh", ["sh", "-c", f"sleep 0.3; kill -INT {os.getpid()}"])
print(Server(service=lines).run().cause)
"""
    assert output_of(PATCHED + code, order).split() == ["interrupted", "interrupted", "SIGINT"]


@pytest.mark.parametrize("order", ["rsock first", "gevent first"])
@pytest.mark.parametrize("number", ["INT", "TERM"])
def test_a_signal_ends_a_run_in_a_green_thread(order: str, number: str) -> None:
    code = """
asked = f"sleep 0.3; kill -{sys.argv[2]} {os.getpid()}"
child = os.spawnvp(os.P_NOWAIT, "sh", ["sh", "-c", asked])
print(gevent.spawn(lambda: Server(service=lines).run().cause).get())
"""
    assert output_of(PATCHED + code, order, number).split() == [f"SIG{number}"]


@pytest.mark.parametrize("order", ["rsock first", "gevent first"])
def test_handlers_that_raise_at_the_same_time_are_all_logged(order: str) -> None:
    code = """
logged = []
# So that threads meet at the locks.
sys.setswitchinterval(1e-5)

class Keep(logging.Handler):
    def emit(self, record):
        logged.append(self.format(record))

logging.getLogger("rsock").addHandler(Keep())
logging.getLogger("rsock").propagate = False
with Server(service=lines, drain=10) as server:
    for _ in range(30):
        clients = [server.client(timeout=10) for _ in range(8)]
        for client in clients:
            client.sendall(b"fail\\n")
        for client in clients:
            assert client.recv(1) == b""
            client.close()
    print(server.stop().abandoned, len(logged))
"""
    assert output_of(PATCHED + code, order).split() == [
        "0",
        # A report of each error, and a line of "rsock.connections" for each connection.
        "480",
    ]


@pytest.mark.parametrize("order", ["rsock first", "gevent first"])
def test_the_lock_of_a_connection_works_between_handlers(order: str) -> None:
    code = """
count = 0
shared = []
# So that threads meet at the lock.
sys.setswitchinterval(1e-5)

def handler(conn):
    global count
    while conn.recv_line():
        for _ in range(2000):
            with shared[0].lock:
                before = count
                for _ in range(20):
                    pass
                count = before + 1
        conn.sendall(b"done\\n")

with Server(service=handler) as server:
    shared.append(server.client())
    clients = [server.client(timeout=10) for _ in range(6)]
    for client in clients:
        client.sendall(b"go\\n")
    print(*[client.recv_line() == b"done\\n" for client in clients], count)
    for client in clients:
        client.close()
"""
    assert output_of(PATCHED + code, order).split() == ["True"] * 6 + ["12000"]


def test_services_in_rust_serve_green_clients() -> None:
    code = """
with Server() as server:
    print(ask_together(server.address))
"""
    assert output_of(PATCHED + code, "gevent first") == "{b'hello\\nhello\\n'}\n"


def test_a_patch_of_an_unknown_library_is_named() -> None:
    code = """
import _thread
def start_new_thread(function, args, kwargs={}):
    raise AssertionError("never called")
start_new_thread.__module__ = "unknown.library"
_thread.start_new_thread = start_new_thread
from rsock import Server, StateError
server = Server(service=print)
try:
    server.start()
except StateError as error:
    print("unknown.library" in str(error), server.state)
with Server() as echo:
    print(echo.state)
"""
    assert output_of(code).splitlines() == ["True stopped", "serving"]

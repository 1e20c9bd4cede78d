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

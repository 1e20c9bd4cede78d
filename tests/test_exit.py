"""A program with a running server ends as it would without: as fast, as quiet, with that code."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import cache

import pytest
from support import Background, Script, dial, output_of, payload, run_script, says_back, wait_until

PROGRAM = """
import os, sys, time
way, use = sys.argv[1:]
if use == "rsock":
    from rsock import Server
    server = Server().start()
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
    print("waiting", flush=True)
    time.sleep(60)
"""
WAYS = ["end of main", "sys.exit", "exception", "SIGINT", "SIGTERM", "os._exit"]


def end(script: Script, way: str) -> tuple[int, str, float]:
    """Let the program end: exit code, what it said, how long it took."""
    began = time.monotonic()
    script.tell()
    if way.startswith("SIG"):
        assert script.line() == "waiting"
        wait_until(script.asleep)
        began = time.monotonic()
        script.signal(signal.Signals[way])
    code, _, errors = script.end(10.0)
    return code, errors, time.monotonic() - began


@cache
def without_rsock(way: str) -> tuple[int, str]:
    with Script(PROGRAM, way, "nothing") as script:
        script.line()
        code, errors, _ = end(script, way)
    return code, errors


@contextlib.contextmanager
def load(address: tuple[str, int]) -> Iterator[None]:
    """Clients that send and receive until the server is gone."""
    over = threading.Event()
    data = payload(200_000)

    def talk(peer: socket.socket) -> None:
        with peer, contextlib.suppress(ConnectionError):
            while not over.is_set() and says_back(peer, data):
                pass

    peers = [dial(address) for _ in range(4)]
    talks = [Background(talk, peer) for peer in peers]
    try:
        yield
    finally:
        over.set()
        for talk_ in talks:
            talk_.result()


@pytest.mark.parametrize("way", WAYS)
def test_a_program_with_an_idle_server_ends_as_without(way: str) -> None:
    with Script(PROGRAM, way, "rsock") as script:
        address = ("127.0.0.1", int(script.line()))
        with dial(address) as idle, dial(address) as silent:
            assert says_back(idle)
            code, errors, took = end(script, way)
            for peer in (idle, silent):
                with contextlib.suppress(ConnectionResetError):
                    assert peer.recv(1) == b""
    assert (code, errors) == without_rsock(way)
    assert took < 2.0


@pytest.mark.parametrize("way", WAYS)
def test_a_program_with_a_server_under_load_ends_as_without(way: str) -> None:
    with Script(PROGRAM, way, "rsock") as script, load(("127.0.0.1", int(script.line()))):
        code, errors, took = end(script, way)
    assert (code, errors) == without_rsock(way)
    assert took < 2.0


def test_the_codes_are_those_that_were_asked_for() -> None:
    codes = [without_rsock(way)[0] for way in WAYS]
    assert codes == [0, 3, 1, -signal.SIGINT, -signal.SIGTERM, 5]


def test_a_stuck_client_does_not_hold_up_the_end() -> None:
    code = """
import socket
from rsock import Server
server = Server(drain=60).start()
peer = socket.create_connection(server.address)
peer.settimeout(0.2)
try:
    while True:
        peer.send(b"x" * 100_000)
except TimeoutError:
    print("stuck")
"""
    began = time.monotonic()
    assert output_of(code) == "stuck\n"
    assert time.monotonic() - began < 4.0


def test_threads_blocked_in_calls_do_not_hold_up_the_end() -> None:
    code = """
import threading, time
from rsock import Client, Server
server = Server().start()
client = Client(server.address)
calls = [
    lambda: client.recv(1),
    lambda: client.recv_exactly(10),
    server.wait,
    lambda: server.ledger.wait(open=9, timeout=None),
]
threads = [threading.Thread(target=call, daemon=True) for call in calls]
for thread in threads:
    thread.start()
def asleep(thread):
    stat = open(f"/proc/self/task/{thread.native_id}/stat").read()
    return stat.rpartition(")")[2].split()[0] == "S"
while not all(asleep(thread) for thread in threads):
    time.sleep(0.002)
time.sleep(0.05)
print("end")
"""
    for _ in range(5):
        began = time.monotonic()
        done = run_script(code)
        assert (done.returncode, done.stdout) == (0, "end\n")
        # A daemon thread may report that its server has gone; nothing may crash.
        assert "Fatal" not in done.stderr
        assert "panicked" not in done.stderr
        assert time.monotonic() - began < 3.0


def test_a_server_started_by_an_atexit_function_ends_too() -> None:
    code = """
import atexit
from rsock import Server
def late():
    server = Server().start()
    with server.client() as client:
        client.sendall(b"late")
        print(client.recv_exactly(4).decode())
    server.stop()
atexit.register(late)
Server().start().stop()
"""
    assert output_of(code) == "late\n"


def test_a_stop_within_an_atexit_function_works() -> None:
    code = """
import atexit
from rsock import Server
server = Server().start()
atexit.register(lambda: print(server.stop().cause))
"""
    assert output_of(code) == "stop\n"


def test_a_server_started_on_another_thread_ends_with_the_program() -> None:
    code = """
import threading
from rsock import Server
servers = []
thread = threading.Thread(target=lambda: servers.append(Server().start()))
thread.start()
thread.join()
print(servers[0].state)
"""
    assert output_of(code) == "serving\n"


def test_many_servers_end_with_the_program() -> None:
    code = """
from rsock import Server
servers = [Server().start() for _ in range(50)]
clients = [server.client() for server in servers]
for client in clients:
    client.sendall(b"x")
    client.recv_exactly(1)
print(len(servers))
"""
    began = time.monotonic()
    assert output_of(code) == "50\n"
    assert time.monotonic() - began < 4.0


def test_development_mode_with_warnings_as_errors_has_nothing_to_say() -> None:
    code = """
import asyncio
from rsock import Server
with Server() as server, server.client(timeout=5) as client:
    client.sendall(b"line\\n")
    print(client.recv_line())
    repr(server), repr(client), repr(server.ledger), repr(list(server.ledger))
async def main():
    async with Server():
        pass
asyncio.run(main())
"""
    assert output_of(code, options=("-X", "dev", "-W", "error")) == "b'line\\n'\n"


def test_to_import_it_starts_no_thread_and_opens_nothing() -> None:
    code = """
import os
before = sorted(os.listdir("/proc/self/fd")), os.listdir("/proc/self/task")
import rsock
after = sorted(os.listdir("/proc/self/fd")), os.listdir("/proc/self/task")
print(after == before)
"""
    assert output_of(code, options=("-X", "dev", "-W", "error")) == "True\n"

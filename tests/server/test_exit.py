"""A program with a running server ends as without: as fast, as quietly, with the same code."""

from __future__ import annotations

import time

import pytest
from reliability.scenarios.ends import USES, WAYS, different, endings
from support import output_of, run_script

# The target is 2 s, which the reliability suite checks; on a busy machine a bare program may take a
# while.
AT_MOST = 10.0


@pytest.mark.parametrize("use", USES)
def test_a_program_ends_as_without_rsock(use: str) -> None:
    found = endings((way, use) for way in WAYS)
    assert different(found) == {}
    assert max(end.seconds for end in found.values()) < AT_MOST


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
    assert time.monotonic() - began < AT_MOST


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
        # A daemon thread may report that its server has gone; the process must not crash.
        assert "Fatal" not in done.stderr
        assert "panicked" not in done.stderr
        assert time.monotonic() - began < AT_MOST


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


def test_a_stop_within_a_destructor_at_the_very_end_works() -> None:
    code = """
from rsock import Server
class App:
    def __init__(self):
        self.server = Server().start()
        self.client = self.server.client()
    def __del__(self):
        print(self.client.five_tuple.remote_host, self.server.ledger.totals.accepted)
        print(self.server.stop().cause)
        try:
            self.server.start()
        except RuntimeError as error:
            print(type(error).__name__)
        self.client.close()
app = App()
# Collected after the modules have been cleared.
app.itself = app
"""
    assert output_of(code) == "127.0.0.1 1\nexit\nStateError\n"


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
    assert time.monotonic() - began < AT_MOST


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

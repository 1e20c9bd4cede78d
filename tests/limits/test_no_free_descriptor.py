"""A server that has started needs no new descriptor but those of its connections.

Strangers can use up the descriptors of a process. The calls that wait for a server or follow its
ledger, its log, and the command line go on then.
"""

from __future__ import annotations

import functools
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import SOON, all_say_back, dial, output_of, says_back, wait_until

# Each test uses up the descriptors of a process of its own.
FULL = """
import os, resource, sys, threading, time
import rsock
from rsock import Accept, Server

def use_up():
    # The numbers below this are those of the server: none gets free when a client is closed.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (6, hard))

def until(condition):
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.002)
"""


def test_several_calls_follow_and_wait_without_a_free_descriptor() -> None:
    code = (
        FULL
        + """
with Server() as server:
    clients = [server.client(timeout=15) for _ in range(4)]
    server.ledger.wait(open=4)
    use_up()
    said = [[], [], []]
    def follow(ids, records):
        for record in records:
            ids.append(record.id)
    followers = [
        threading.Thread(target=follow, args=(ids, server.ledger.follow(15))) for ids in said
    ]
    for each in followers:
        each.start()
    for number, client in enumerate(clients, 1):
        client.close()
        server.ledger.wait(closed=number, timeout=15)
        until(lambda: all(len(ids) == number for ids in said))
    try:
        server.ledger.wait(closed=5, timeout=0.05)
    except TimeoutError as error:
        print(error)
for each in followers:
    each.join(15)
print(said[0] == said[1] == said[2], sorted(said[0]))
"""
    )
    waited, followed = output_of(code).splitlines()
    assert waited.startswith("wait for closed=5 (0 are open, 4 closed)")
    assert followed == "True [1, 2, 3, 4]"


def test_the_log_of_connections_goes_on_without_a_free_descriptor() -> None:
    code = (
        "import logging\n"
        + FULL
        + """
lines = []
class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
logging.getLogger("rsock.connections").addHandler(Lines())
logging.getLogger("rsock.connections").setLevel(logging.INFO)
with Server() as server:
    clients = [server.client(timeout=15) for _ in range(4)]
    server.ledger.wait(open=4)
    use_up()
    for number, client in enumerate(clients, 1):
        client.close()
        until(lambda: len(lines) == number)
print(len(lines))
"""
    )
    assert output_of(code) == "4\n"


@pytest.mark.parametrize("service", ["Echo()", "Accept()", "print"])
def test_a_server_is_waited_for_and_stopped_without_a_free_descriptor(service: str) -> None:
    code = (
        FULL
        + f"""
from rsock import Echo
server = Server(service={service}).start()
use_up()
"""
        + """
try:
    server.wait(0.05)
except TimeoutError:
    print(rsock.servers() == [server], server.state, "serving" in repr(server))
waiting = threading.Thread(target=server.wait)
waiting.start()
print(server.stop().cause, server.state)
waiting.join(15)
print(waiting.is_alive(), rsock.servers(), rsock.stop_all())
"""
    )
    assert output_of(code).splitlines() == ["True serving True", "stop stopped", "False [] []"]


def test_strangers_who_use_up_the_descriptors_do_not_end_the_command(tmp_path: Path) -> None:
    account = tmp_path / "account"
    command = ["-m", "rsock", "echo", "127.0.0.1:0", "--ledger", str(account)]

    def written(count: int) -> bool:
        return len(account.read_text().splitlines()) == count

    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.match(r"listening on ([\d.]+):(\d+): ", process.stdout.readline())
            assert found is not None
            address = (found[1], int(found[2]))
            peers = [dial(address) for _ in range(4)]
            assert all_say_back(peers)
            before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (6, before[1]))
            for number, peer in enumerate(peers, 1):
                peer.close()
                wait_until(functools.partial(written, number), what=f"{number} are written")
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
            with dial(address) as peer:
                assert says_back(peer)
            process.send_signal(signal.SIGINT)
            assert process.wait(SOON) == 0
        finally:
            process.kill()


def test_a_resolver_without_a_free_descriptor_is_an_error_of_the_system() -> None:
    # As with `socket.getaddrinfo`: the errno is the system's, not EAI_SYSTEM.
    code = (
        FULL
        + """
import errno, socket
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
socket.getaddrinfo("localhost", 0)  # Loads what the resolver needs.
said = set()
held = []
for free in range(6):
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(free):
        os.close(held.pop())
    try:
        Server("localhost").bind().stop()
    except OSError as error:
        said.add(error.errno)
print(socket.EAI_SYSTEM in said, errno.EMFILE in said)
"""
    )
    assert output_of(code).split() == ["False", "True"]

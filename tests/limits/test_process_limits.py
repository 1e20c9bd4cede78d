"""The system's limits for this process, and raising the number of descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import time
from pathlib import Path

from support import SOON, Script, output_of

import rsock
from rsock import Server


def test_the_limits_are_those_of_the_system() -> None:
    limits = rsock.process_limits()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limits.fd_soft == soft
    assert limits.fd_hard == hard or hard == resource.RLIM_INFINITY
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert limits.ephemeral_ports == (int(low), int(high))
    assert limits.backlog_max == int(Path("/proc/sys/net/core/somaxconn").read_text())


def test_descriptors_in_use_are_counted() -> None:
    before = rsock.process_limits().fd_in_use
    # Listing the directory itself takes one descriptor.
    assert abs(before - len(os.listdir("/proc/self/fd"))) <= 1
    reader, writer = os.pipe()
    assert rsock.process_limits().fd_in_use == before + 2
    os.close(reader)
    os.close(writer)


def test_the_limit_of_descriptors_can_be_raised_to_the_most_there_is() -> None:
    code = """
import resource, rsock
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
assert rsock.process_limits().fd_soft == 64
raised = rsock.raise_fd_limit()
print(raised == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == rsock.process_limits().fd_soft)
print(raised > 64, rsock.raise_fd_limit() == raised)
"""
    assert output_of(code).split() == ["True", "True", "True"]


def test_a_server_serves_with_few_descriptors(workers: int) -> None:
    code = (
        f"""
workers = {workers}
"""
        + """
import contextlib, resource, socket
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
from rsock import Server
def says_back(peer):
    peer.sendall(b"x")
    return peer.recv(1) == b"x"
with Server(workers=workers) as server, contextlib.ExitStack() as stack:
    served = [stack.enter_context(socket.create_connection(server.address, 5)) for _ in range(5)]
    print(all(says_back(peer) for peer in served))
    waiting = []
    while True:
        try:
            waiting.append(stack.enter_context(socket.socket()))
        except OSError:
            break
    # The last descriptor is taken before the server has anything to accept.
    for peer in waiting:
        peer.settimeout(5)
        peer.connect(server.address)
    print(all(says_back(peer) for peer in served))
    last = waiting.pop()
    for peer in waiting:
        peer.close()
    print(says_back(last), server.state)
"""
    )
    assert output_of(code).split() == ["True", "True", "True", "serving"]


def test_a_server_that_gets_no_descriptor_says_so_and_leaves_nothing(workers: int) -> None:
    code = (
        f"""
workers = {workers}
"""
        + """
import errno, os, resource, time
from rsock import Server
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
Server().start().stop()
held = []
def fill(spare):
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        for _ in range(spare):
            os.close(held.pop())
resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
failures = 0
for spare in range(12):
    fill(spare)
    server = Server(workers=workers)
    try:
        server.start()
    except OSError as error:
        assert error.errno == errno.EMFILE, error
        failures += 1
        probe = []
        try:
            while True:
                probe.append(os.dup(0))
        except OSError:
            pass
        assert len(probe) == spare, (len(probe), spare)
        for number in probe:
            os.close(number)
    else:
        server.stop()
    while held:
        os.close(held.pop())
    end = time.monotonic() + 2
    while len(os.listdir("/proc/self/task")) > 1:
        assert time.monotonic() < end, spare
print(failures > 2, failures < 12)
"""
    )
    assert output_of(code).split() == ["True", "True"]


def test_a_program_that_closes_what_is_not_its_own_is_not_spun_for(workers: int) -> None:
    code = """
import contextlib, os, sys, time
from rsock import Server
def state(task):
    try:
        with open(f"/proc/self/task/{task}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except OSError:
        return "it has ended"
server = Server(workers=int(sys.argv[1])).start()
client = server.client(timeout=5)
client.sendall(b"x")
client.recv_exactly(1)
# A worker that was not in epoll_wait yet would never see the connection again.
end = time.monotonic() + 10
while any(state(task) != "S" for task in os.listdir("/proc/self/task") if int(task) != os.getpid()):
    assert time.monotonic() < end, "a worker does not sleep"
    time.sleep(0.001)
for number in os.listdir("/proc/self/fd"):
    with contextlib.suppress(OSError):
        if "eventpoll" in os.readlink(f"/proc/self/fd/{number}"):
            os.close(int(number))
# Until then it was registered in the poller.
client.sendall(b"y")
client.recv_exactly(1)
before = time.process_time()
time.sleep(0.5)
print(time.process_time() - before < 0.25, server.stop(0).cause, flush=True)
# Its number may be reused by now: nothing is closed twice here.
os._exit(0)
"""
    assert output_of(code, str(workers)) == "True accept error\n"


def test_the_default_limit_of_connections_is_below_that_of_descriptors() -> None:
    with Server() as server:
        limit = server.limits.connections
        assert limit is None or 8 <= limit < rsock.process_limits().fd_soft


SHORT_OF_DESCRIPTORS = """
import resource, sys
from rsock import Limits, Server
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
with Server(limits=Limits(connections=1_000), workers=2) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


def test_the_end_of_a_connection_serves_the_next_one_without_the_back_off() -> None:
    # The server is out of descriptors before it reaches its limit. A wake-up that is lost shows as
    # a wait of 100 ms, the time after which accepting is tried again in any case.
    rounds, backed_off = 150, 0
    with Script(SHORT_OF_DESCRIPTORS) as child, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", int(child.line()))
        clients = [stack.enter_context(socket.create_connection(address)) for _ in range(200)]
        for client in clients:
            client.sendall(b"x")
            client.settimeout(SOON)
        # Connections are accepted in the order in which they were made.
        served = 0
        while select.select([clients[served]], [], [], 0.5)[0]:
            assert clients[served].recv(1) == b"x"
            served += 1
        assert 0 < served < 40
        for turn in range(rounds):
            begin = time.perf_counter()
            clients[turn].close()
            assert clients[turn + served].recv(1) == b"x"
            backed_off += 0.098 < time.perf_counter() - begin < 0.125
    assert backed_off <= 3

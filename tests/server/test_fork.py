"""A forked child takes nothing from its parent and keeps nothing of it open."""

from __future__ import annotations

import pytest
from support import output_of

# From Python 3.12 on, forking a process with threads raises a warning, which the caller of fork
# must deal with.
COMMON = """
import gc, os, signal, socket, sys, time, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from rsock import Client, Server

def dial(address):
    return socket.create_connection(address, timeout=5)

def says_back(stream):
    stream.sendall(b"hello")
    got = b""
    while len(got) < 5:
        part = stream.recv(5)
        if not part:
            return False
        got += part
    return got == b"hello"

def fork(body=None):
    '''Fork; the child runs `body` and ends like a script; returns its number to the parent.'''
    child = os.fork()
    if child == 0:
        if body is not None:
            body()
        sys.exit(0)
    return child

def ended(child, deadline=5.0):
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    kill(child)
    return False

def kill(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

def resident():
    '''A child that stays until it is killed, and has all its parent had.'''
    return fork(lambda: time.sleep(60))
"""


@pytest.mark.parametrize("use", ["start()", "stop()", "stop(0)", "wait()", "listen()"])
def test_use_in_a_child_is_a_runtime_error_naming_both_processes(use: str) -> None:
    code = f"""
server = Server().start()
parent = os.getpid()
def body():
    try:
        server.{use}
    except RuntimeError as error:
        text = str(error)
        print(str(parent) in text, str(os.getpid()) in text, flush=True)
child = fork(body)
print(ended(child))
with dial(server.address) as peer:
    print(says_back(peer))
server.stop()
"""
    assert output_of(COMMON + code).split() == ["True"] * 4


def test_a_display_never_raises_in_a_child() -> None:
    code = """
server = Server().start()
client, ledger = server.client(), server.ledger
def body():
    for thing in (server, client, ledger):
        repr(thing)
        thing._repr_html_()
    print("shown", flush=True)
print(ended(fork(body)))
client.close()
server.stop()
"""
    assert output_of(COMMON + code).split() == ["shown", "True"]


@pytest.mark.parametrize("way", ["sys.exit(0)", "os._exit(0)", "del server; gc.collect()", "pass"])
def test_a_child_ends_at_once_in_every_way(way: str) -> None:
    code = f"""
server = Server().start()
with dial(server.address) as peer:
    assert says_back(peer)
    child = os.fork()
    if child == 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            {way}
        sys.exit(0)
    print(ended(child, 2.0), says_back(peer))
with dial(server.address) as peer:
    print(says_back(peer))
print(server.stop().cause)
"""
    assert output_of(COMMON + code).split() == ["True", "True", "True", "stop"]


def test_a_client_sees_the_end_though_a_child_lives() -> None:
    code = """
server = Server().start()
idle, silent = dial(server.address), dial(server.address)
assert says_back(idle)
server.ledger.wait(open=2)
child = resident()
report = server.stop()
print(report.drained, idle.recv(1), silent.recv(1))
kill(child)
"""
    assert output_of(COMMON + code).split() == ["2", "b''", "b''"]


def test_a_client_that_finishes_sees_the_end_though_a_child_lives() -> None:
    code = """
server = Server().start()
peer = dial(server.address)
assert says_back(peer)
child = resident()
peer.shutdown(socket.SHUT_WR)
print(peer.recv(1))
kill(child)
server.stop()
"""
    assert output_of(COMMON + code).split() == ["b''"]


def test_connections_reset_end_though_a_child_lives() -> None:
    code = """
server = Server().start()
peer = dial(server.address)
assert says_back(peer)
child = resident()
print(server.stop(0).forced)
try:
    print(peer.recv(1))
except ConnectionResetError:
    print("b''")
kill(child)
"""
    assert output_of(COMMON + code).split() == ["1", "b''"]


def test_a_closed_client_ends_its_stream_though_a_child_lives() -> None:
    code = """
with socket.create_server(("127.0.0.1", 0)) as listening:
    client = Client(listening.getsockname())
    peer, _ = listening.accept()
    server = Server().start()
    child = resident()
    client.close()
    peer.settimeout(5)
    print(peer.recv(1))
    peer.close()
kill(child)
server.stop()
"""
    assert output_of(COMMON + code).split() == ["b''"]


def test_the_port_is_free_again_though_a_child_lives() -> None:
    code = """
server = Server().start()
port = server.port
child = resident()
server.stop()
try:
    dial(("127.0.0.1", port))
except ConnectionRefusedError:
    print("refused")
with Server("127.0.0.1", port) as again, dial(again.address) as peer:
    print(says_back(peer))
kill(child)
"""
    assert output_of(COMMON + code).split() == ["refused", "True"]


def test_a_child_does_not_accept_for_its_parent() -> None:
    code = """
server = Server().listen()
child = resident()
server.start()
for _ in range(20):
    with dial(server.address) as peer:
        assert says_back(peer)
kill(child)
print(server.stop().cause, server.ledger.totals.accepted)
"""
    assert output_of(COMMON + code).split() == ["stop", "20"]


def test_forks_under_load_do_no_harm() -> None:
    code = """
import threading
server = Server().start()
over = threading.Event()
wrong = []
def load():
    with dial(server.address) as peer:
        while not over.is_set():
            if not says_back(peer):
                wrong.append(peer)
                return
threads = [threading.Thread(target=load) for _ in range(2)]
for thread in threads:
    thread.start()
children = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0)
    children.append(child)
print(all([ended(child) for child in children]))
over.set()
for thread in threads:
    thread.join(5)
print(wrong, server.stop().forced)
"""
    assert output_of(COMMON + code).split() == ["True", "[]", "0"]


def test_a_child_may_have_a_server_of_its_own() -> None:
    code = """
server = Server().start()
def body():
    with Server() as own, dial(own.address) as peer:
        print(says_back(peer), flush=True)
print(ended(fork(body)))
print(server.stop().cause)
"""
    assert output_of(COMMON + code).split() == ["True", "True", "stop"]


def test_a_child_of_multiprocessing_ends_well() -> None:
    code = """
import multiprocessing
server = Server().start()
process = multiprocessing.get_context("fork").Process(target=print, args=("child",))
process.start()
process.join(5)
print(process.exitcode, server.stop().cause)
"""
    assert output_of(COMMON + code).split() == ["child", "0", "stop"]


def test_another_program_inherits_no_descriptor() -> None:
    code = '''
import subprocess
show = """
import os
for entry in os.scandir("/proc/self/fd"):
    try:
        link = os.readlink(entry.path)
    except OSError:
        continue
    if link.startswith(("socket:", "anon_inode:")):
        print(link)
"""
server = Server().start()
client = server.client()
assert says_back(client)
done = subprocess.run(
    [sys.executable, "-c", show], close_fds=False, capture_output=True, text=True
)
print([done.returncode, done.stdout, done.stderr])
client.close()
server.stop()
'''
    assert output_of(COMMON + code).strip() == "[0, '', '']"


def test_a_fork_after_the_import_alone_is_silent() -> None:
    code = """
import os, rsock
child = os.fork()
if child == 0:
    os._exit(0)
print(os.waitpid(child, 0)[1], len(os.listdir("/proc/self/task")))
"""
    assert output_of(code, options=("-W", "error")).split() == ["0", "1"]


def test_a_fork_after_all_servers_have_stopped_is_silent() -> None:
    code = """
import os
from rsock import Server
with Server() as server, server.client(timeout=5) as client:
    client.sendall(b"x")
    assert client.recv_exactly(1) == b"x"
child = os.fork()
if child == 0:
    os._exit(0)
print(os.waitpid(child, 0)[1], len(os.listdir("/proc/self/task")))
"""
    assert output_of(code, options=("-W", "error")).split() == ["0", "1"]


CALLS = {
    "wait": "server.wait()",
    "wait with a time-out": "server.wait(60)",
    "stop": "server.stop(60)",
    "the wait of a ledger": "server.ledger.wait(open=7, timeout=None)",
    "a follower": "next(server.ledger.follow())",
    "a follower with a time-out": "next(server.ledger.follow(60))",
    "accept": "accepting.accept()",
    "accept with a time-out": "accepting.accept(60)",
    "accept at the limit": "full.accept()",
    "accept of datagrams": "hearing.accept()",
    "run": "Server().run()",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_the_child_of_a_signal_handler_does_not_wait_in_the_call_interrupted(call: str) -> None:
    code = f"""
import threading
from rsock import Accept, Limits
server = Server(service=lambda conn: time.sleep(60)).start()
accepting = Server(service=Accept()).start()
full = Server(service=Accept(), limits=Limits(connections=1)).start()
hearing = Server(transport="udp", service=Accept()).start()
# So that a stop has something to wait for, and an accept no room.
stuck, waiting = dial(server.address), dial(full.address)
conn, _ = full.accept(5)
server.ledger.wait(open=1)
parent = os.getpid()

class Forked(Exception):
    pass

def fork(number, frame):
    child = os.fork()
    if child:
        raise Forked(child)
    # Numbers of descriptors that the child has closed are in use again, by files that are never
    # ready.
    for _ in range(20):
        os.pipe()

def interrupt():
    main = threading.main_thread().native_id
    asleep = 0
    while asleep < 5:
        state = open(f"/proc/self/task/{{main}}/stat").read().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0
        time.sleep(0.002)
    os.kill(parent, signal.SIGUSR1)

signal.signal(signal.SIGUSR1, fork)
interrupting = threading.Thread(target=interrupt)
interrupting.start()
try:
    {call}
except Forked as error:
    child, = error.args
except RuntimeError as error:
    os._exit(7 if str(parent) in str(error) and str(os.getpid()) in str(error) else 1)
interrupting.join()
end = time.monotonic() + 10
while not (found := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
    time.sleep(0.002)
if not found[0]:
    kill(child)
print(os.waitstatus_to_exitcode(found[1]) if found[0] else "it still waits")
for each in (server, accepting, full, hearing):
    each.stop(0)
"""
    assert output_of(COMMON + code) == "7\n"


def test_a_client_goes_on_waiting_in_the_child_of_a_signal_handler() -> None:
    code = """
import threading
parent = os.getpid()
children = []

def fork(number, frame):
    children.append(os.fork())

def interrupt():
    main = threading.main_thread().native_id
    while open(f"/proc/self/task/{main}/stat").read().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.002)
    os.kill(parent, signal.SIGUSR1)
    while not children:
        time.sleep(0.002)
    peer.sendall(b"12")

listening = socket.create_server(("127.0.0.1", 0))
client = Client(listening.getsockname(), timeout=10)
peer, _ = listening.accept()
signal.signal(signal.SIGUSR1, fork)
interrupting = threading.Thread(target=interrupt)
interrupting.start()
# One byte for each of the two processes.
got = client.recv_exactly(1)
if os.getpid() != parent:
    os._exit(0 if got in (b"1", b"2") else 1)
interrupting.join()
print(got in (b"1", b"2"), os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
client.close()
"""
    assert output_of(COMMON + code) == "True 0\n"


@pytest.mark.parametrize("faults", ["None", "[]"])
def test_a_child_shows_a_client_of_its_parent(faults: str) -> None:
    code = f"""
server = Server().start()
client = Client(*server.address, timeout=5, faults={faults})
print(says_back(client))
page = client._repr_html_()
def body():
    print(client._repr_html_() == page, "connected" in page, flush=True)
print(ended(fork(body)))
client.close()
server.stop()
"""
    assert output_of(COMMON + code).split() == ["True"] * 4

"""A forked child uses the streams that it inherited as it would use inherited sockets."""

from __future__ import annotations

import pytest
from support import output_of

# `ends(role)`: a stream in that role, or a plain socket, and the plain socket at its other end.
COMMON = """
import gc, os, signal, socket, sys, threading, time, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from rsock import Accept, Client, Server

def ends(role):
    listening = socket.create_server(("127.0.0.1", 0))
    if role == "Connection":
        listening.close()
        server = Server(service=Accept(), drain=0.0).start()
        peer = socket.create_connection(server.address, timeout=10)
        stream, _ = server.accept(10)
        keep.append(server)
    else:
        name = listening.getsockname()
        stream = Client(name) if role == "Client" else socket.create_connection(name)
        peer, _ = listening.accept()
        listening.close()
    peer.settimeout(10)
    return stream, peer

keep = []

def in_child(body):
    '''Run `body` in a forked child; what it prints is the result.'''
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(20)
            body()
            sys.stdout.flush()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]

def end():
    stream.close()
    peer.close()
    for server in keep:
        server.stop(0)
"""
roles = pytest.mark.parametrize("role", ["socket", "Client", "Connection"])


def printed(role: str, code: str) -> list[str]:
    whole = f"{COMMON}\nstream, peer = ends({role!r})\n{code}\nend()\n"
    return output_of(whole).split()


@roles
def test_a_child_sends_and_receives(role: str) -> None:
    code = """
def body():
    stream.sendall(b"from the child")
    assert stream.recv(100) == b"to the child"
    stream.settimeout(5)
    print(stream.gettimeout(), stream.fileno() > 2, stream.getpeername() == peer.getsockname())
peer.sendall(b"to the child")
print(in_child(body), peer.recv(100) == b"from the child")
stream.sendall(b"from the parent")
print(peer.recv(100) == b"from the parent")
"""
    assert printed(role, code) == ["5.0", "True", "True", "0", "True", "True"]


# The ways in which a child lets a stream go.
LEAVING = ["stream.close()", "os.close(stream.detach())", "del stream; gc.collect()"]


@roles
@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
def test_a_close_in_a_child_leaves_the_parents_connection_open(
    role: str, leave: str, used: bool
) -> None:
    code = f"""
warnings.simplefilter("ignore", ResourceWarning)
number = stream.fileno()
def body():
    global stream
    if {used}:
        assert stream.send(b"child") == 5
    {leave}
    try:
        os.fstat(number)
    except OSError as error:
        print(error.errno)
status = in_child(body)
stream.sendall(b"parent")
print(status, peer.recv(100).decode(), flush=True)
peer.sendall(b"back")
print(stream.recv(100).decode())
"""
    sent = ["childparent"] if used else ["parent"]
    assert printed(role, code) == ["9", "0", *sent, "back"]


@roles
def test_a_parent_leaves_its_stream_to_a_child(role: str) -> None:
    code = """
go = os.pipe()
child = os.fork()
if child == 0:
    try:
        os.read(go[0], 1)
        stream.sendall(b"still open")
    finally:
        os._exit(0)
os.close(stream.detach())
os.write(go[1], b"x")
print(peer.recv(100).decode(), os.waitpid(child, 0)[1], peer.recv(100))
"""
    assert printed(role, code) == ["still", "open", "0", "b''"]


@pytest.mark.parametrize("role", ["Client", "Connection"])
def test_a_close_ends_the_connection_though_a_child_lives(role: str) -> None:
    code = """
child = os.fork()
if child == 0:
    signal.pause()
stream.close()
print(peer.recv(100))
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""
    assert printed(role, code) == ["b''"]


LINGER = """
stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0" + bytes(4))
"""
UNREAD = """
peer.sendall(b"unread")
while stream.tcp_info.bytes_received < 6:
    time.sleep(0.001)
"""


@pytest.mark.parametrize("child", ["lives", "has ended"])
@pytest.mark.parametrize("cause", [LINGER, UNREAD], ids=["linger", "unread"])
@pytest.mark.parametrize("role", ["Client", "Connection"])
def test_what_makes_a_close_a_reset_does_so_after_a_fork_too(
    role: str, cause: str, child: str
) -> None:
    code = f"""
child = os.fork()
if child == 0:
    signal.pause()
def end_child():
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
if {child!r} == "has ended":
    end_child()
{cause}
stream.close()
try:
    print(peer.recv(100))
except ConnectionResetError:
    print("reset")
if {child!r} == "lives":
    end_child()
"""
    assert printed(role, code) == ["reset"]


# A server's connection ends for its double too, fork or none.
@pytest.mark.parametrize("role", ["socket", "Client"])
def test_a_double_outlives_its_stream_after_a_fork(role: str) -> None:
    code = """
double = stream.dup() if isinstance(stream, socket.socket) else stream.to_socket()
in_child(lambda: None)
stream.close()
warnings.simplefilter("ignore", ResourceWarning)
del stream
gc.collect()
double.sendall(b"alive")
print(peer.recv(100).decode())
peer.sendall(b"back")
print(double.recv(100).decode())
double.close()
stream = peer
"""
    assert printed(role, code) == ["alive", "back"]


@roles
def test_a_close_in_a_child_does_not_wake_its_own_threads_by_a_shutdown(role: str) -> None:
    code = """
import time
def body():
    got = []
    reading = threading.Thread(target=lambda: got.append(stream.recv(100)), daemon=True)
    reading.start()
    def asleep():
        with open(f"/proc/self/task/{reading.native_id}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "S"
    end = time.monotonic() + 10
    while not asleep() and time.monotonic() < end:
        time.sleep(0.002)
    stream.close()
print(in_child(body))
stream.sendall(b"parent")
print(peer.recv(100).decode())
"""
    assert printed(role, code) == ["0", "parent"]


@roles
def test_every_call_works_in_a_child_and_in_its_child(role: str) -> None:
    code = """
def body():
    file = stream.makefile("rwb")
    assert file.readline() == b"a line\\n"
    file.write(b"1"); file.flush()
    stream.setblocking(False)
    try:
        stream.recv(1)
    except BlockingIOError:
        pass
    stream.setblocking(True)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    repr(stream)
    print("child", flush=True)
    def again():
        assert stream.sendmsg([b"2"]) == 1
        stream.close()
        print("grandchild", flush=True)
    assert in_child(again) == 0
    file.close()
    stream.sendall(b"3")
    stream.close()
    try:
        stream.send(b"x")
    except OSError as error:
        print(error.errno)
peer.sendall(b"a line\\n")
print(in_child(body))
print(peer.recv(1), peer.recv(1), peer.recv(1))
stream.sendall(b"4")
print(peer.recv(1))
"""
    end = ["0", "b'1'", "b'2'", "b'3'", "b'4'"]
    assert printed(role, code) == ["child", "grandchild", "9", *end]


def test_an_unconnected_client_connects_in_a_child() -> None:
    code = """
stream.close()
stream = Client()
listening = socket.create_server(("127.0.0.1", 0))
def body():
    stream.connect(listening.getsockname())
    stream.sendall(b"connected")
    stream.close()
print(in_child(body))
other, _ = listening.accept()
print(other.recv(100).decode())
stream.close()
print(other.recv(100))
other.close()
listening.close()
"""
    assert printed("Client", code) == ["0", "connected", "b''"]


def test_a_child_counts_nothing_and_its_server_is_a_runtime_error() -> None:
    code = """
def body():
    stream.sendall(b"12345")
    print(stream.record.bytes_out, stream.record.closed_by, stream.draining)
    stream.close()
    print(stream.record.closed_by)
    try:
        keep[0].ledger.open
    except RuntimeError:
        print("RuntimeError")
stream.sendall(b"1")
assert in_child(body) == 0
print(stream.record.bytes_out, len(keep[0].ledger.open))
"""
    expected = ["1", "None", "False", "None", "RuntimeError", "1", "1"]
    assert printed("Connection", code) == expected


def test_a_connection_outlives_its_server_in_a_child() -> None:
    # The stop of the parent's server ends the connection; a limit of that server does not end a
    # call in the child.
    code = """
from rsock import Limits
end()
keep.clear()
server = Server(service=Accept(), limits=Limits(idle=0.05), drain=0.0).start()
peer = socket.create_connection(server.address, timeout=10)
stream, _ = server.accept(10)
go = os.pipe()
child = os.fork()
if child == 0:
    try:
        print(stream.recv(100), flush=True)
        stream.close()
    finally:
        os._exit(0)
import select, time
# Longer than the limit.
assert not select.select([peer], [], [], 0.2)[0]
peer.sendall(b"late")
print(os.waitpid(child, 0)[1])
server.stop(0)
"""
    assert printed("Client", code) == ["b'late'", "0"]


# What redis-py's tests of multiprocessing do with its connections.
def test_a_pooled_connection_is_dropped_in_a_child_and_used_in_the_parent() -> None:
    code = """
import multiprocessing
class Link:
    def __init__(self, sock):
        self.sock, self.pid = sock, os.getpid()
    def ask(self):
        self.sock.sendall(b"PING")
        return self.sock.recv(4)
    def disconnect(self):
        sock, self.sock = self.sock, None
        if os.getpid() == self.pid:
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
end()
with Server() as server:
    stream = server.client()
    link = Link(stream)
    def target():
        assert link.ask() == b"PING"
        link.disconnect()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=target)
    process.start()
    process.join(10)
    print(process.exitcode, link.ask())
    link.sock.settimeout(10)
    ready = context.Event()
    def later():
        ready.wait(10)
        try:
            link.ask()
            raise SystemExit(3)
        except OSError:
            link.disconnect()
    process = context.Process(target=later)
    process.start()
    link.disconnect()
    ready.set()
    process.join(10)
    print(process.exitcode)
"""
    assert printed("Client", code) == ["0", "b'PING'", "0"]


@roles
def test_a_child_that_a_signal_handler_forks_goes_on_in_the_call(role: str) -> None:
    code = """
parent, children = os.getpid(), []
def fork(*_):
    child = os.fork()
    if child:
        children.append(child)
    else:
        stream.settimeout(0.2)
signal.signal(signal.SIGALRM, fork)
signal.setitimer(signal.ITIMER_REAL, 0.1)
stream.settimeout(1)
try:
    stream.recv(100)
except TimeoutError:
    if os.getpid() != parent:
        try:
            stream.send(b"child")
        finally:
            os._exit(0)
print(os.waitpid(children[0], 0)[1], peer.recv(100).decode())
"""
    assert printed(role, code) == ["0", "child"]


@pytest.mark.parametrize("role", ["Client", "Connection"])
@pytest.mark.parametrize("holder", ["another thread", "the thread that forks"])
def test_a_child_takes_the_lock_that_its_parent_held(role: str, holder: str) -> None:
    code = f"""
ours = {holder == "the thread that forks"}
taken, release = threading.Event(), threading.Event()
def hold():
    with stream.lock:
        taken.set()
        release.wait(10)
thread = threading.Thread(target=hold)
if not ours:
    thread.start()
    taken.wait(10)
def body():
    with stream.lock, stream.lock:
        stream.sendall(b"from the child")
    print(stream.lock is stream.lock)
if ours:
    with stream.lock:
        status = in_child(body)
else:
    status = in_child(body)
    release.set()
    thread.join()
print(status, peer.recv(100) == b"from the child")
# The parent's is free again.
print(stream.lock.acquire(timeout=0))
"""
    assert printed(role, code) == ["True", "0", "True", "True"]

"""A child that is forked during `start_tls` neither hangs nor spoils the parent's connection."""

from __future__ import annotations

import pytest
from support import output_of

# `begin(role, faults)`: a stream that is in its `start_tls`, on a thread, and the peer, whose side
# of the handshake is made by `peer.run(peer.tls.do_handshake)`.
COMMON = """
import gc, os, signal, socket, ssl, sys, tempfile, threading, time, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from rsock import TLS, Accept, Client, Server
from rsock.faults import Latency

made = TLS.for_tests()
keep = []

class Peer:
    def __init__(self, stream, **options):
        stream.settimeout(10)
        self.stream, self.incoming, self.outgoing = stream, ssl.MemoryBIO(), ssl.MemoryBIO()
        if options:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(made.cert_pem + made.key_pem)
                file.flush()
                context.load_cert_chain(file.name)
        else:
            context = ssl.create_default_context(cadata=made.ca_pem)
            options = {"server_hostname": "localhost"}
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **options)

    def run(self, call, *arguments):
        while True:
            try:
                result = call(*arguments)
            except ssl.SSLWantReadError:
                result = None
            self.stream.sendall(self.outgoing.read())
            if result is not None or call == self.tls.do_handshake and self.tls.version():
                return result
            self.incoming.write(self.stream.recv(65536))

    def says_back(self, stream):
        self.run(self.tls.write, b"hello")
        stream.sendall(stream.recv_exactly(5).upper())
        return self.run(self.tls.read, 5) == b"HELLO"

def begin(role, faults, call=None):
    faults = {"faults": [Latency(0.0)]} if faults else {}
    if role == "Client":
        with socket.create_server(("127.0.0.1", 0)) as listening:
            stream = Client(*listening.getsockname(), timeout=10, **faults)
            peer = Peer(listening.accept()[0], server_side=True)
    else:
        server = Server(service=Accept(), **faults).start()
        keep.append(server)
        peer = Peer(socket.create_connection(server.address))
        stream, _ = server.accept(10)
        stream.settimeout(10)
        # A part of the hello, which the worker reads.
        try:
            peer.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        peer.hello = peer.outgoing.read()
    def has_begun():
        if role == "Client":
            return peer.stream.recv(1, socket.MSG_PEEK)
        peer.stream.sendall(peer.hello[:10])
        while stream.record.bytes_in < 10:
            time.sleep(0.001)
        peer.stream.sendall(peer.hello[10:]) if call else None
    if call:
        return stream, peer, has_begun
    handshake = threading.Thread(target=stream.start_tls, args=[made])
    handshake.start()
    has_begun()
    return stream, peer, handshake

def go_on(peer):
    if hasattr(peer, "hello"):
        peer.stream.sendall(peer.hello[10:])
    peer.run(peer.tls.do_handshake)

def end():
    stream.close()
    peer.stream.close()
    for server in keep:
        server.stop(0)
"""

roles = pytest.mark.parametrize("role", ["Client", "Connection"])
moved = pytest.mark.parametrize("faults", [False, True], ids=["itself", "with a worker"])

# What children do with the stream that they inherited, one after the other.
ACTS = [
    "pass",
    "str((stream, stream.record, stream.fileno(), stream.getpeername()))",
    "refused(stream.start_tls, made)",
    "del globals()['stream']; gc.collect()",
    "stream.close()",
    "sys.exit(0)",
]


@roles
@moved
def test_the_handshake_of_the_parent_completes_whatever_a_child_does(
    role: str, faults: bool
) -> None:
    code = f"""
def refused(call, *arguments):
    try:
        call(*arguments)
    except RuntimeError:
        return
    raise AssertionError("no error")

stream, peer, handshake = begin({role!r}, {faults})
for act in {ACTS!r}:
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        exec(act)
        os._exit(0)
    print(os.waitpid(child, 0)[1])
go_on(peer)
handshake.join()
print(peer.says_back(stream))
end()
"""
    assert output_of(COMMON + code).split() == [*["0"] * len(ACTS), "True"]


@roles
@moved
def test_a_child_that_stays_keeps_nothing_open(role: str, faults: bool) -> None:
    """Neither a connection whose handshake completes, nor one that is given up."""
    code = f"""
stream, peer, handshake = begin({role!r}, {faults})
child = os.fork()
if child == 0:
    signal.alarm(60)
    signal.pause()
go_on(peer)
handshake.join()
print(peer.says_back(stream))
stream.close()
try:
    print(peer.run(peer.tls.read, 1) == b"")
except ssl.SSLZeroReturnError:
    print("True")
print(peer.stream.recv(1))

stream, other, handshake = begin({role!r}, {faults})
stream.abort()
handshake.join()
try:
    while other.stream.recv(65536):
        pass
    print("end")
except ConnectionResetError:
    print("reset")
other.stream.close()
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
end()
"""
    quiet = "threading.excepthook = lambda raised: None\n"
    assert output_of(COMMON + quiet + code).split() == ["True", "True", "b''", "reset"]


@roles
@moved
def test_a_child_uses_the_connection_once_the_parent_has_begun_tls(role: str, faults: bool) -> None:
    """Through the parent, whose worker has it."""
    code = f"""
stream, peer, handshake = begin({role!r}, {faults})
go = os.pipe()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os.read(go[0], 1)
    stream.sendall(b"from the child")
    os._exit(0)
go_on(peer)
handshake.join()
os.write(go[1], b"x")
print(peer.run(peer.tls.read, 100).decode(), os.waitpid(child, 0)[1])
print(peer.says_back(stream))
end()
"""
    assert output_of(COMMON + code).split() == ["from", "the", "child", "0", "True"]


@roles
@moved
def test_a_signal_handler_that_forks_within_the_call(role: str, faults: bool) -> None:
    """The call raises in the child, and goes on in the parent."""
    code = f"""
stream, peer, has_begun = begin({role!r}, {faults}, call=True)
children = []

def forks(number, frame):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
    else:
        children.append(child)

signal.signal(signal.SIGUSR1, forks)

def drive():
    has_begun()
    signal.pthread_kill(main, signal.SIGUSR1)
    while not children:
        time.sleep(0.001)
    peer.run(peer.tls.do_handshake)

main = threading.get_ident()
driving = threading.Thread(target=drive)
driving.start()
try:
    stream.start_tls(made)
except RuntimeError as error:
    print("forked child" in str(error), flush=True)
    os._exit(0)
driving.join()
print(os.waitpid(children[0], 0)[1])
print(peer.says_back(stream))
end()
"""
    assert output_of(COMMON + code).split() == ["True", "0", "True"]

"""A program closes descriptors that are not its own, as `os.closerange` does: the server ends.

`wait()` and `stop()` return and say so, whatever serves the connections, and nothing spins.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from support import SOON, Script

KINDS = {
    "one worker": "Server(workers=1)",
    "two workers": "Server(workers=2)",
    "handler": "Server(service=handler)",
    "accept": "Server(service=Accept())",
    "stages": "Server(service=handler, _stages='bytewise')",
    "accept stages": "Server(service=Accept(), _stages='bytewise')",
    "forward": "Server(service=Forward(*target))",
    "unix": "Server(path='\\0rsock-vanished-%d' % os.getpid())",
    "udp": "Server(transport='udp')",
    "udp idle": "Server(transport='udp', limits=Limits(idle=60))",
    "udp handler": "Server(transport='udp', service=lambda data, peer: data)",
    "udp accept": "Server(transport='udp', service=Accept())",
    "udp forward": "Server(transport='udp', service=Forward(*target))",
}

START = """
import contextlib, os, sys, threading, time
from rsock import Accept, Forward, Limits, Server

target = ("127.0.0.1", int(sys.argv[1]))

def handler(conn):
    while data := conn.recv(100):
        conn.sendall(data)

def tasks():
    return [int(task) for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]

def state(task):
    try:
        with open(f"/proc/self/task/{task}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except OSError:
        return "it has ended"

def settled():
    # All other threads wait in the kernel.
    end = time.monotonic() + 15
    while any([state(task) != "S" for task in tasks() for _ in range(3)]):
        assert time.monotonic() < end
        time.sleep(0.002)

def over():
    # The server's threads have ended.
    end = time.monotonic() + 15
    while tasks():
        assert time.monotonic() < end, tasks()
        time.sleep(0.002)

def numbers(kind):
    # A handler's connection is the program's own as well.
    found = {}
    for number in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
    return [number for number, link in found.items() if number > 2 and kind in link]

server = SERVER.start()
address = server.address if isinstance(server.address, str) else "%s %d" % server.address
print(repr(address), server.transport, flush=True)
sys.stdin.readline()
settled()
"""


@contextlib.contextmanager
def served(kind: str, then: str) -> Iterator[Script]:
    """A server with one client, in an interpreter of its own, which then runs `then`."""
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(socket.socket())
        target.bind(("127.0.0.1", 0))
        target.listen()
        port = str(target.getsockname()[1])
        code = START.replace("SERVER", KINDS[kind], 1) + then + "over()\nprint('over')\n"
        script = stack.enter_context(Script(code, port))
        words = script.line().rpartition(" ")
        address = eval(words[0])
        if words[2] == "unix":
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(address.encode())
        else:
            udp = words[2] == "udp"
            client = stack.enter_context(
                socket.socket(type=socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
            )
            host, number = address.split()
            client.connect((host, int(number)))
        client.settimeout(SOON)
        client.send(b"x")
        if "accept" not in kind and "forward" not in kind:
            assert client.recv(1) == b"x"
        script.tell()
        yield script
        # A handler that waited in a receive is abandoned. Its call goes on until its client leaves.
        client.close()
        assert script.line() == "over"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_returns_and_says_that_the_descriptors_are_gone(kind: str) -> None:
    then = """
os.closerange(3, 1000)
report = server.stop(0.5)
print(report.cause, server.state, report.seconds < 5, time.process_time() < 5, flush=True)
"""
    with served(kind, then) as script:
        assert script.line() == "accept error stopped True True"


@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_returns_and_says_that_the_descriptors_are_gone(kind: str) -> None:
    then = """
os.closerange(3, 1000)
report = server.wait(15)
print(report.cause, server.state, time.process_time() < 5, flush=True)
"""
    with served(kind, then) as script:
        assert script.line() == "accept error stopped True"


@pytest.mark.parametrize("kind", KINDS)
def test_calls_that_wait_already_notice_that_the_descriptors_are_gone(kind: str) -> None:
    # The first of them to look tells the others. A call on another thread than the main one has no
    # signals to look for.
    then = """
said = []
def say(call):
    try:
        said.append(call())
    except (OSError, RuntimeError) as error:
        said.append(error)
calls = [server.wait, lambda: next(server.ledger.follow(), None)]
if isinstance(server.service, Accept):
    calls.append(server.accept)
    server.accept(15)
waiting = [threading.Thread(target=say, args=(call,), daemon=True) for call in calls]
for each in waiting:
    each.start()
settled()
os.closerange(3, 1000)
before = time.process_time()
for each in waiting:
    each.join(15)
print(not any([each.is_alive() for each in waiting]), time.process_time() - before < 2, flush=True)
print(server.state, server.stop().cause, flush=True)
"""
    with served(kind, then) as script:
        assert script.line() == "True True"
        assert script.line() == "stopped accept error"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", ["socket:", "eventfd", "eventpoll"])
def test_a_stop_returns_if_only_some_descriptors_are_gone(kind: str, lost: str) -> None:
    then = f"""
for number in numbers({lost!r}):
    # The server closes one that belongs to another.
    with contextlib.suppress(OSError):
        os.close(number)
report = server.stop(0.5)
print(server.state, report.seconds < 5, time.process_time() < 5, flush=True)
"""
    with served(kind, then) as script:
        assert script.line() == "stopped True True"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_returns_if_the_numbers_are_those_of_other_files(kind: str) -> None:
    # A daemon that puts /dev/null in the place of what it has inherited.
    then = """
null = os.open("/dev/null", os.O_RDWR)
for number in numbers("socket:") + numbers("eventfd") + numbers("eventpoll"):
    os.dup2(null, number)
report = server.stop(0.5)
print(report.cause, server.state, report.seconds < 5, time.process_time() < 5, flush=True)
"""
    with served(kind, then) as script:
        assert script.line() == "accept error stopped True True"


OTHERS = {
    # No poll finds them ready. A read of the first one waits.
    "an empty pipe": "os.pipe()[0]",
    "a listening socket": "listening.fileno()",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("which", [0, 1])
def test_a_stop_returns_if_a_flag_is_a_file_that_is_never_ready(
    kind: str, other: str, which: int
) -> None:
    # The first flag is that of the calls that wait for the end, the second that of the ledger's.
    then = f"""
import socket
listening = socket.create_server(("127.0.0.1", 0))
os.dup2({OTHERS[other]}, numbers("eventfd")[{which}])
with contextlib.suppress(TimeoutError):
    server.ledger.wait(open=9, timeout=0.01)
report = server.stop(0.5)
print(server.state, report.seconds < 5, time.process_time() < 5, flush=True)
"""
    with served(kind, then) as script:
        assert script.line() == "stopped True True"


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_leaves_files_alone_that_got_the_numbers_of_its_flags(kind: str) -> None:
    # As a daemon does: it closes everything, then opens its own files.
    then = """
import gc, tempfile
file = tempfile.TemporaryFile()
flags = numbers("eventfd")
for number in flags:
    os.dup2(file.fileno(), number)
with contextlib.suppress(TimeoutError):
    server.ledger.wait(open=9, timeout=0.01)
server.stop(0.5)
del server
gc.collect()
over()
same = [os.path.samestat(os.fstat(number), os.fstat(file.fileno())) for number in flags]
print(len(flags) > 1 and all(same), os.fstat(file.fileno()).st_size, flush=True)
"""
    with served(kind, then) as script:
        assert script.line() == "True 0"

"""Handlers and the process around them: forks, signals, its exit, garbage collection, memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from reliability.scenarios.dropped import KINDS, dropped
from reliability.scenarios.raising import MIB, raised
from support import (
    AT_ONCE,
    SOON,
    Arrivals,
    Background,
    Script,
    Signal,
    arrived,
    dial,
    ended,
    given_back,
    held,
    output_of,
    partial,
    read_exactly,
    read_to_end,
    says_back,
    wait_until,
)
from support.interrupts import InterruptAt

import rsock
from rsock import Accept, Client, Connection, Limits, Server

# How often each call is interrupted.
TIMES = 25
# Where rsock's own Python code is.
OURS = str(Path(rsock.__file__).parent)
# A drain or a time-out that no test waits for.
LONG = 30.0


def lines(conn: Connection) -> None:
    while line := conn.recv_line():
        conn.sendall(line)


# --- forks ---------------------------------------------------------------------------------

# From Python 3.12 on, forking a process with threads raises a warning, which the caller of fork
# must deal with.
FORKS = """
import contextlib, os, socket, sys, threading, time, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from rsock import Accept, Server

def dial(address):
    return socket.create_connection(address, timeout=5)

def says_back(stream):
    stream.sendall(b"hello\\n")
    got = b""
    while len(got) < 6:
        part = stream.recv(6)
        if not part:
            return False
        got += part
    return got == b"hello\\n"

def ended(child, deadline=5.0):
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.002)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False

def lines(conn):
    while line := conn.recv_line():
        conn.sendall(line)

wrong = []
over = threading.Event()

def load(address):
    with dial(address) as peer:
        while not over.is_set():
            if not says_back(peer):
                wrong.append(peer)
                return

@contextlib.contextmanager
def under_load(server):
    threads = [threading.Thread(target=load, args=(server.address,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join(5)
"""


def test_forks_of_the_main_thread_under_load_do_no_harm() -> None:
    code = """
server = Server(service=lines).start()
with under_load(server):
    children = []
    for number in range(20):
        child = os.fork()
        if child == 0:
            # The ways in which a child may end: with cleanup, or at once.
            os._exit(0) if number % 2 else sys.exit(0)
        children.append(child)
    print(all([ended(child) for child in children]))
    with dial(server.address) as peer:
        print(says_back(peer))
report = server.stop()
totals = server.ledger.totals
print(wrong, server.errors, report.forced, report.abandoned, totals.accepted == totals.closed == 3)
"""
    assert output_of(FORKS + code).split() == ["True", "True", "[]", "[]", "0", "0", "True"]


@pytest.mark.parametrize("way", ["os._exit(0)", "return", "sys.exit(0)"])
def test_forks_of_a_handler_under_load_do_no_harm(way: str) -> None:
    # A child forked by a handler's thread continues in that handler and exits where its thread
    # would end.
    code = f"""
children = []
def handler(conn):
    if conn.recv_line() == b"fork\\n":
        child = os.fork()
        if child == 0:
            {way}
        children.append(child)
        conn.sendall(b"forked")
    else:
        lines(conn)

def load(address):
    with dial(address) as peer:
        peer.sendall(b"talk\\n")
        while not over.is_set():
            if not says_back(peer):
                wrong.append(peer)
                return

server = Server(service=handler).start()
with under_load(server):
    for _ in range(20):
        with dial(server.address) as peer:
            peer.sendall(b"fork\\n")
            if peer.recv(6) != b"forked" or peer.recv(1):
                wrong.append(peer)
    print(len(children), all([ended(child) for child in children]))
report = server.stop()
print(wrong, server.errors, report.forced, report.abandoned, report.cause)
"""
    assert output_of(FORKS + code).split() == ["20", "True", "[]", "[]", "0", "0", "stop"]


FORKED_CHILD = """
server = Server(service=lines).start()
with dial(server.address) as peer:
    # Otherwise the child would write the buffered output a second time.
    print(says_back(peer), flush=True)
    child = os.fork()
    if child == 0:
        tasks = len(os.listdir("/proc/self/task"))
        try:
            server.stop()
        except RuntimeError:
            with Server(service=lines) as own, dial(own.address) as other:
                os.write(1, b"%d %d\\n" % (tasks, says_back(other)))
        sys.exit(0)
    print(ended(child), says_back(peer), flush=True)
server.stop()
"""
EXPECTED = sorted(["True", "1", "1", "True", "True"])


def test_a_forked_child_has_no_handlers_and_may_have_its_own() -> None:
    assert sorted(output_of(FORKS + FORKED_CHILD).split()) == EXPECTED


def test_a_forked_child_with_handlers_of_its_own_ends_well_on_one_processor() -> None:
    # Its threads reuse the memory of those that waited at the fork, so no thread may still look for
    # them there. The outcome depends on timing, so the test repeats it.
    one = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    for _ in range(12):
        assert sorted(output_of(FORKS + one + FORKED_CHILD).split()) == EXPECTED


def test_a_child_that_lives_keeps_no_connection_of_a_handler_open() -> None:
    code = """
server = Server(service=lambda conn: conn.sendall(conn.recv_line())).start()
accepting = Server(service=Accept()).start()
with dial(server.address) as peer, dial(accepting.address) as other:
    server.ledger.wait(open=1)
    conn, _ = accepting.accept(5)
    child = os.fork()
    if child == 0:
        time.sleep(60)
    print(says_back(peer), peer.recv(1))
    conn.close()
    print(other.recv(1))
    os.kill(child, 9)
    os.waitpid(child, 0)
server.stop()
accepting.stop()
"""
    assert output_of(FORKS + code).split() == ["True", "b''", "b''"]


# --- the end of the program ----------------------------------------------------------------


def test_a_handler_that_never_returns_holds_up_the_end_for_no_longer_than_the_longest() -> None:
    code = """
import socket, threading, time
from rsock import Server
here = threading.Event()
def handler(conn):
    here.set()
    time.sleep(60)
server = Server(service=handler, drain=60).start()
peer = socket.create_connection(server.address)
here.wait(5)
print("end", time.monotonic(), flush=True)
"""
    with Script(code) as script:
        said, _ = script.line().split()
        began = time.monotonic()
        assert said == "end"
        assert script.end() == (0, "", "")
        assert time.monotonic() - began < SOON


def test_a_handler_may_end_the_program_by_a_signal() -> None:
    code = """
import os, signal
from rsock import Server
server = Server(service=lambda conn: os.kill(os.getpid(), signal.SIGINT)).listen()
print(server.port, flush=True)
report = server.run()
print(report.cause, report.forced, server.errors)
"""
    with Script(code) as script:
        port = int(script.line())
        wait_until(script.asleep)
        with dial(("127.0.0.1", port)) as peer:
            assert ended(peer)
            assert script.end() == (0, "SIGINT 0 []\n", "")


def test_a_signal_while_the_first_thread_starts_is_that_of_run() -> None:
    code = """
import os, signal, threading
from rsock import Server
start = threading.Thread.start
def start_and_signal(thread):
    start(thread)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread.start = start_and_signal
server = Server(service=print)
report = server.run()
print(report.cause, server.state)
"""
    assert output_of(code) == "SIGINT stopped\n"


# --- signals -------------------------------------------------------------------------------


def interrupted(call: Callable[[], object]) -> KeyboardInterrupt:
    """Interrupt `call` once it is blocked; return the exception that ended it."""
    with pytest.raises(KeyboardInterrupt) as caught, Signal() as sent:
        call()
    assert sent.after < AT_ONCE
    return caught.value


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A server's side of a connection, on the main thread, and the client's side."""
    with Server(service=Accept()) as server, dial(server.address) as peer:
        conn, _ = server.accept(SOON)
        with conn:
            yield conn, peer


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("timeout", [None, LONG])
@pytest.mark.parametrize(
    "read",
    [
        lambda conn: conn.recv(6),
        lambda conn: conn.recvfrom(6)[0],
        lambda conn: conn.recvmsg(6)[0],
        lambda conn: bytes(bytearray(b"hello\n")[: conn.recv_into(bytearray(6))]),
        lambda conn: conn.recv_exactly(6),
        lambda conn: conn.recv_line(),
        lambda conn: conn.recv_until(b"\n"),
    ],
    ids=["recv", "recvfrom", "recvmsg", "recv_into", "recv_exactly", "recv_line", "recv_until"],
)
def test_an_interrupt_ends_a_read_of_a_connection_and_none_is_lost(
    pair: tuple[Connection, socket.socket],
    read: Callable[[Connection], bytes],
    timeout: float | None,
) -> None:
    conn, peer = pair
    conn.settimeout(timeout)
    for _ in range(TIMES // 2):
        interrupted(lambda: read(conn))
    peer.sendall(b"hello\n")
    assert read(conn) == b"hello\n"


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_within_a_message_loses_nothing(
    pair: tuple[Connection, socket.socket],
) -> None:
    conn, peer = pair
    for _ in range(TIMES):
        peer.sendall(b"half ")
        arrived(peer)
        taken = partial(interrupted(lambda: conn.recv_exactly(10)))
        peer.sendall(b"of it")
        assert taken + conn.recv_exactly(10 - len(taken)) == b"half of it"


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_ends_sendall_of_a_connection(
    pair: tuple[Connection, socket.socket],
) -> None:
    conn, peer = pair
    data = bytes(64 << 20)
    for _ in range(5):
        interrupted(lambda: conn.sendall(data))
    conn.close()
    assert 0 < len(read_to_end(peer)) < len(data)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_ends_wait_and_stop_and_handlers_go_on() -> None:
    at = Arrivals()
    over = threading.Event()

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON * 3)
        lines(conn)

    server = Server(service=handler, on_error="raise").start()
    with dial(server.address) as peer:
        at.until()
        for _ in range(TIMES):
            interrupted(server.wait)
        for _ in range(TIMES):
            interrupted(lambda: server.wait(LONG))
        assert server.state == "serving"
        for _ in range(TIMES):
            interrupted(lambda: server.stop(LONG))
        assert server.state == "draining"
        peer.sendall(b"still served\n")
        arrived(peer)
        over.set()
        assert read_to_end(peer) == b"still served\n"
        report = server.stop()
    assert (report.drained, report.forced, report.abandoned) == (1, 0, 0)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_ends_run_with_handlers() -> None:
    for _ in range(TIMES):
        server = Server(service=lines)
        with Signal() as sent, pytest.raises(KeyboardInterrupt):
            server.run()
        assert sent.after < AT_ONCE
        wait_until(lambda s=server: s.state == "stopped")  # type: ignore[misc]


@pytest.mark.parametrize("service", [lines, None], ids=["handler", "echo"])
def test_an_interrupt_at_any_step_of_with_leaves_nothing(
    service: Callable[[Connection], None] | None,
) -> None:
    before = held()
    for step in itertools.count(1):
        server = Server(service=service)
        with contextlib.suppress(KeyboardInterrupt), InterruptAt(step) as interrupt, server:
            pass
        # An interrupt before the first step leaves the server unstarted.
        assert server.state in ("new", "stopped"), f"at step {step}"
        if not interrupt.happened:
            break
    assert step > 10
    given_back(before, SOON)


def test_an_interrupt_of_the_start_of_the_first_thread_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def start_and_raise(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    before = held()
    server = Server(service=lines)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, "start", start_and_raise)
        server.start()
    assert server.state == "stopped"
    # The one thread may not have reached its first line yet. There never was a second one.
    assert server.stop().abandoned <= 1
    given_back(before, SOON)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_of_a_long_drain_at_the_end_of_with_leaves_nothing() -> None:
    at = Arrivals()
    over = threading.Event()

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)

    server = Server(service=handler, drain=LONG).bind()
    before = held()

    def serve(peer: socket.socket) -> None:
        with server:
            peer.connect(server.address)
            at.until()

    def interrupt_the_drain() -> None:
        wait_until(lambda: server.state == "draining", SOON * 2)
        os.kill(os.getpid(), signal.SIGUSR1)

    interrupting = Background(interrupt_the_drain)
    with socket.socket() as peer, pytest.raises(KeyboardInterrupt):
        serve(peer)
    interrupting.result()
    assert server.state == "stopped"
    assert server.stop().abandoned == 1
    over.set()
    given_back(before, SOON)


RUN = """
import sys
from rsock import Server
def handler(conn):
    while line := conn.recv_line():
        conn.sendall(line)
server = Server(service=handler, drain=5).listen()
print(server.port, flush=True)
report = server.run()
print(report.cause, report.drained, report.forced, report.abandoned, server.errors)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_program_of_handlers_drains_them(number: signal.Signals) -> None:
    with Script(RUN) as script:
        address = ("127.0.0.1", int(script.line()))
        with dial(address) as idle, dial(address) as talker:
            assert says_back(idle, b"hello\n")
            assert says_back(talker, b"hello\n")
            talker.sendall(b"one more\n" * 1_000)
            arrived(talker)
            began = time.monotonic()
            script.signal(number)
            assert read_to_end(talker) == b"one more\n" * 1_000
            assert ended(idle)
            assert script.end() == (0, f"{number.name} 2 0 0 []\n", "")
            assert time.monotonic() - began < SOON


# --- garbage -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("handler")])
def test_a_hundred_unstopped_servers_give_everything_back(kind: str) -> None:
    found = dropped(kind, 100)
    assert found["threads_before"] >= 200
    assert (found["left"], found["servers"]) == ([0, 0], 0)
    assert found["warned"] == ["ResourceWarning"] * 100
    assert found["ends"] == 100
    assert (found["exit"], found["said"]) == (0, "")


# --- memory --------------------------------------------------------------------------------


def test_thousands_of_handlers_that_raise_are_reported_once_each_and_leave_nothing() -> None:
    found = raised("function", 500, 1_500)
    assert (found["reported"], found["once"], found["errors"]) == (2_000, True, 2_000)
    assert found["kept"] == 100
    assert found["grown"] <= MIB
    assert (found["left"], found["exit"], found["said"]) == ([0, 0], 0, "")


# --- under debug allocators and dev mode ---------------------------------------------------

SCRUTINY = """
import contextlib, gc, logging, socket, threading
from rsock import Accept, Limits, Server

logging.getLogger("rsock").disabled = True

def handler(conn):
    with conn.makefile("rwb") as file:
        for line in file:
            if line == b"fail\\n":
                raise LookupError("on purpose")
            file.write(line.upper())
            file.flush()

def dial(server):
    return socket.create_connection(server.address, 5)

def ask(peer, line):
    peer.sendall(line)
    return peer.recv(100)

with Server(service=handler, limits=Limits(handler_threads=2)) as server:
    with dial(server) as first, dial(server) as second, dial(server) as third:
        print(ask(first, b"one\\n"), ask(second, b"fail\\n"), ask(third, b"three\\n"))
        repr(server), server._repr_html_(), repr(server.ledger)
    server.ledger.wait(open=0)
    print(len(server.errors))

server = Server(service=handler, on_error="raise").start()
with dial(server) as peer:
    ask(peer, b"fail\\n")
try:
    server.stop()
except ExceptionGroup as group:
    print(len(group.exceptions))

with Server(service=Accept()) as server:
    def visit():
        with dial(server) as peer:
            print(ask(peer, b"accept me\\n"))
        server.stop()
    visitor = threading.Thread(target=visit)
    visitor.start()
    for conn, (host, port) in server:
        conn.sendall(conn.recv_line())
        conn.close()
    visitor.join()

here = threading.Event()
server = Server(service=lambda conn: (here.set(), conn.recv_line(), None)[2]).start()
with dial(server) as peer:
    here.wait(5)
    print(server.stop(2).forced)
server = Server(service=lambda conn: conn.recv_line() and None).start()
peer = dial(server)
server.ledger.wait(open=1)
print(server.stop(0).forced)
peer.close()
gc.collect()
"""


@pytest.mark.parametrize(
    ("options", "prefix"),
    [
        (("-X", "dev", "-W", "error"), ()),
        (("-W", "error"), ("env", "PYTHONMALLOC=debug")),
        (("-X", "dev", "-X", "tracemalloc", "-O"), ("env", "PYTHONMALLOC=debug")),
    ],
    ids=["dev", "malloc", "both"],
)
def test_under_scrutiny_there_is_nothing_to_say(
    options: tuple[str, ...], prefix: tuple[str, ...]
) -> None:
    out = output_of(SCRUTINY, options=options, prefix=prefix)
    assert out.splitlines() == ["b'ONE\\n' b'' b'THREE\\n'", "1", "1", "b'accept me\\n'", "0", "1"]


def test_to_import_it_is_silent_and_so_is_a_fork_after_it() -> None:
    code = """
import os, rsock, time
from rsock import Server
def threads():
    # A joined thread may still be listed for a moment.
    end = time.monotonic() + 10
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < end:
        pass
    return len(os.listdir("/proc/self/task"))
rsock.Handler(print), rsock.Accept(), Server(service=print)
child = os.fork()
if child == 0:
    os._exit(0)
print(os.waitpid(child, 0)[1], threads())
with Server(service=lambda conn: conn.close()) as server, server.client(timeout=5) as client:
    client.recv(1)
server.stop()
child = os.fork()
if child == 0:
    os._exit(0)
print(os.waitpid(child, 0)[1], threads())
"""
    assert output_of(code, options=("-W", "error")).split() == ["0", "1", "0", "1"]


# --- asyncio -------------------------------------------------------------------------------


def test_handlers_serve_clients_of_an_event_loop() -> None:
    async def ask(server: Server, number: int) -> bytes:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"from task %d\n" % number)
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer

    async def main() -> Server:
        async with Server(service=lines, on_error="raise") as server:
            answers = await asyncio.gather(*[ask(server, number) for number in range(20)])
            assert answers == [b"from task %d\n" % number for number in range(20)]
        return server

    server = asyncio.run(main())
    assert server.state == "stopped"
    totals = server.ledger.totals
    assert (totals.accepted, totals.open) == (20, 0)


def test_the_loop_runs_on_while_handlers_drain() -> None:
    over = threading.Event()

    def handler(conn: Connection) -> None:
        assert conn.recv_line() == b"hello\n"
        assert over.wait(SOON)
        conn.sendall(b"done\n")

    async def main() -> tuple[int, bytes]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1
                if ticks == 20:
                    over.set()

        async with Server(service=handler, drain=LONG, on_error="raise") as server:
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(b"hello\n")
            await asyncio.to_thread(server.ledger.wait, open=1)
            ticker = asyncio.create_task(tick())
        ticker.cancel()
        answer = await reader.read()
        writer.close()
        return ticks, answer

    ticks, answer = asyncio.run(main())
    assert ticks >= 20
    assert answer == b"done\n"


def test_the_end_of_async_with_raises_what_handlers_raised() -> None:
    def fail(conn: Connection) -> None:
        raise LookupError("on purpose")

    async def main() -> None:
        async with Server(service=fail, on_error="raise") as server:
            reader, writer = await asyncio.open_connection(*server.address)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    assert [type(error) for error in caught.value.exceptions] == [LookupError]


def test_a_handler_may_run_an_event_loop() -> None:
    def handler(conn: Connection) -> None:
        async def answer() -> bytes:
            await asyncio.sleep(0)
            return b"from a loop"

        conn.sendall(asyncio.run(answer()))

    with Server(service=handler, on_error="raise", limits=Limits(handler_threads=1)) as server:
        for _ in range(3):
            with Client(server.address, timeout=SOON) as client:
                assert read_exactly(client, 11) == b"from a loop"


def test_accept_may_wait_in_a_thread_of_an_event_loop() -> None:
    async def main() -> None:
        async with Server(service=Accept()) as server:
            accepting = asyncio.create_task(asyncio.to_thread(server.accept, SOON))
            reader, writer = await asyncio.open_connection(*server.address)
            conn, address = await accepting
            assert address == writer.get_extra_info("sockname")
            async with conn:
                await asyncio.to_thread(conn.sendall, b"hello")
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())

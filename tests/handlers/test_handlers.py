"""What a handler is: one call for one connection, on an ordinary Python thread."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import faulthandler
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support import (
    SOON,
    Arrivals,
    Background,
    all_say_back,
    arrived,
    dial,
    ended,
    error_number,
    output_of,
    payload,
    read_exactly,
    read_to_end,
    reset,
    says_back,
    threads,
    wait_until,
    was_reset,
)

from rsock import Client, Connection, Handler, Limits, Server

# With one thread a test can tell one call from the next: the same thread makes all of them.
ONE = Limits(handler_threads=1)


def echoes(conn: Connection) -> None:
    while data := conn.recv(65_536):
        conn.sendall(data)


def capitals(conn: Connection) -> None:
    while line := conn.recv_line():
        conn.sendall(line.upper())


class Capitals:
    """Handlers that are not functions."""

    def method(self, conn: Connection) -> None:
        capitals(conn)

    @classmethod
    def of_the_class(cls, conn: Connection) -> None:
        capitals(conn)

    @staticmethod
    def alone(conn: Connection) -> None:
        capitals(conn)

    def __call__(self, conn: Connection) -> None:
        capitals(conn)


def with_more(more: int, conn: Connection, *, other: str) -> None:
    capitals(conn)


def visit(server: Server, times: int = 1) -> None:
    """Connect and stay until the handler has closed, a number of times in sequence."""
    for _ in range(times):
        with dial(server.address) as peer:
            assert ended(peer)


# --- calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "service",
    [
        capitals,
        Handler(capitals),
        lambda conn: capitals(conn),
        Capitals().method,
        Capitals.of_the_class,
        Capitals.alone,
        Capitals(),
        functools.partial(with_more, 1, other=""),
    ],
    ids=[
        "function",
        "Handler",
        "lambda",
        "method",
        "class method",
        "static method",
        "object",
        "partial",
    ],
)
def test_whatever_may_be_called_serves(service: Any) -> None:
    with Server(service=service) as server, dial(server.address) as peer:
        for line in (b"hello\n", b"again\n"):
            peer.sendall(line)
            assert read_exactly(peer, 6) == line.upper()


def test_each_connection_is_one_call_with_a_connection_of_its_own() -> None:
    calls: list[Connection] = []

    def note(conn: Connection) -> None:
        calls.append(conn)
        conn.sendall(b"%d" % conn.id)

    answers = set()
    with Server(service=note) as server:
        for _ in range(50):
            with dial(server.address) as peer:
                answers.add(read_to_end(peer))
        server.ledger.wait(open=0, closed=50)
    assert [type(conn) for conn in calls] == [Connection] * 50
    assert len({id(conn) for conn in calls}) == 50
    assert answers == {b"%d" % number for number in range(1, 51)}


def test_handlers_run_at_the_same_time() -> None:
    all_are_here = threading.Barrier(12)

    def meet(conn: Connection) -> None:
        all_are_here.wait(SOON)
        conn.sendall(b"met")

    with Server(service=meet, on_error="raise") as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(12)]
        assert [read_to_end(peer) for peer in peers] == [b"met"] * 12
        assert server.ledger.totals.waited == 0


def test_many_clients_at_once_each_get_their_own_answer() -> None:
    def talk(number: int) -> bool:
        data = payload(20_000, seed=number)
        with dial(server.address) as peer:
            sending = Background(peer.sendall, data)
            right = read_exactly(peer, len(data)) == data
            sending.result()
            return right

    with Server(service=echoes, on_error="raise") as server:
        talks = [Background(talk, number) for number in range(60)]
        assert all([each.result(20.0) for each in talks])
        server.ledger.wait(open=0, closed=60)
        totals = server.ledger.totals
        assert (totals.accepted, totals.bytes_in, totals.bytes_out) == (60, 1_200_000, 1_200_000)


# --- the end of a call ---------------------------------------------------------------------


def test_a_return_closes_and_the_peer_gets_what_was_sent() -> None:
    data = payload(300_000)

    def speak(conn: Connection) -> None:
        conn.sendall(data)

    with Server(service=speak) as server:
        with dial(server.address) as peer:
            assert read_to_end(peer) == data
        server.ledger.wait(open=0, closed=1)
        [record] = server.ledger.closed
    assert (record.closed_by, record.limit, record.error) == ("local", None, None)
    assert record.bytes_out == len(data)


def test_a_return_after_the_peers_end_was_the_peers() -> None:
    with Server(service=echoes) as server:
        with dial(server.address) as peer:
            assert says_back(peer)
            peer.shutdown(socket.SHUT_WR)
            assert ended(peer)
        server.ledger.wait(open=0, closed=1)
        [record] = server.ledger.closed
    assert (record.closed_by, record.error) == ("peer", None)


def test_a_return_after_the_peers_reset_was_a_reset() -> None:
    def shrug(conn: Connection) -> None:
        with contextlib.suppress(ConnectionResetError):
            conn.recv(1)

    with Server(service=shrug, on_error="raise") as server:
        reset(dial(server.address))
        server.ledger.wait(open=0, closed=1)
        [record] = server.ledger.closed
    assert (record.closed_by, record.error) == ("reset", None)


@pytest.mark.parametrize(
    ("close", "closed_by", "seen"),
    [
        (Connection.close, "local", ended),
        (Connection.abort, "local", was_reset),
        (lambda conn: conn.__exit__(None, None, None), "local", ended),
    ],
    ids=["close", "abort", "with"],
)
def test_a_handler_may_close_before_it_returns(
    close: Callable[[Connection], None], closed_by: str, seen: Callable[[socket.socket], bool]
) -> None:
    over = threading.Event()

    def leave(conn: Connection) -> None:
        # Not before the peer is connected: its connect would fail, not its read.
        conn.recv(1)
        close(conn)
        assert conn.closed
        assert over.wait(SOON)

    with Server(service=leave, on_error="raise") as server, dial(server.address) as peer:
        peer.sendall(b"x")
        assert seen(peer)
        server.ledger.wait(open=0, closed=1)
        assert server.ledger.closed[0].closed_by == closed_by
        over.set()


def test_a_descriptor_given_away_outlives_the_call() -> None:
    kept: list[socket.socket] = []

    def give(conn: Connection) -> None:
        kept.append(socket.socket(fileno=conn.detach()))

    with Server(service=give, on_error="raise") as server, dial(server.address) as peer:
        server.ledger.wait(open=0, closed=1)
        assert server.ledger.closed[0].closed_by == "detached"
        with kept.pop() as own:
            peer.sendall(b"still")
            assert read_exactly(own, 5) == b"still"
            own.sendall(b"here")
            assert read_exactly(peer, 4) == b"here"


def test_a_connection_is_closed_to_those_who_kept_it() -> None:
    kept: list[Connection] = []
    with Server(service=kept.append) as server:
        visit(server)
        [conn] = kept
        assert conn.closed
        assert (conn.fileno(), conn.record.closed_by) == (-1, "local")
        for call in (lambda: conn.recv(1), lambda: conn.sendall(b"x"), conn.getpeername):
            assert error_number(call) == errno.EBADF


@pytest.mark.parametrize("keep", [lambda conn: conn.makefile("rwb"), lambda conn: conn.to_socket()])
def test_a_return_ends_the_connection_whatever_was_made_of_it(
    keep: Callable[[Connection], Any],
) -> None:
    kept: list[Any] = []

    def leave_open(conn: Connection) -> None:
        kept.append(keep(conn))

    with Server(service=leave_open) as server:
        visit(server)
        kept.pop().close()


@pytest.mark.parametrize("value", [b"answer", "", 0, False, [], NotImplemented])
def test_to_return_anything_but_none_is_an_error(value: Any) -> None:
    answer: Any = lambda conn: value  # noqa: E731
    with Server(service=answer, on_error=lambda error: None) as server:
        visit(server)
        [record] = server.ledger.wait(closed=1)
        [error] = server.errors
    assert isinstance(error, TypeError)
    assert repr(value) in str(error)
    assert record.closed_by == "error"
    assert repr(value) in str(record.error)


# --- threads -------------------------------------------------------------------------------


def test_a_handler_runs_on_a_daemon_thread_with_a_name() -> None:
    seen: list[tuple[threading.Thread, str]] = []

    def look(conn: Connection) -> None:
        task = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
        seen.append((threading.current_thread(), task.read_text().strip()))

    with Server(service=look, on_error="raise") as server:
        visit(server)
        [(thread, system_name)] = seen
        assert thread in threading.enumerate()
        assert thread.daemon
        assert thread.name == system_name == "rsock-handler-0"
    wait_until(lambda: thread not in threading.enumerate())


def test_the_names_of_threads_are_numbers_in_their_server() -> None:
    names: set[str] = set()
    gate = threading.Barrier(4)

    def look(conn: Connection) -> None:
        names.add(threading.current_thread().name)
        gate.wait(SOON)

    for _ in range(2):
        names.clear()
        with Server(service=look) as server, contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(dial(server.address))
            server.ledger.wait(open=0, closed=4)
        assert names == {f"rsock-handler-{number}" for number in range(4)}


def test_threads_are_used_again() -> None:
    used: set[int] = set()
    with Server(service=lambda conn: used.add(threading.get_native_id())) as server:
        for count in range(1, 101):
            visit(server)
            server.ledger.wait(open=0, closed=count)
    # One thread at work, and one that waits for the next connection.
    assert 1 <= len(used) <= 10


def test_a_server_starts_with_one_thread_and_grows_as_handlers_take_their_time() -> None:
    over = threading.Event()
    at = Arrivals()

    def stay(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)

    def there_are() -> int:
        return sum(name.startswith("rsock-handler") for name in threads().values())

    limits = Limits(handler_threads=5)
    with Server(service=stay, limits=limits) as server, contextlib.ExitStack() as stack:
        assert there_are() == 1
        for count in range(1, 6):
            stack.enter_context(dial(server.address))
            at.until(count)
            # The last busy thread has started another one that waits, up to the limit.
            wait_until(lambda wanted=min(count + 1, 5): there_are() == wanted)  # type: ignore[misc]
        over.set()
        server.ledger.wait(open=0)
        # The threads stay for later connections.
        assert there_are() == 5


def test_a_thread_local_lives_as_long_as_its_thread() -> None:
    local = threading.local()
    counts: list[int] = []

    def count(conn: Connection) -> None:
        local.calls = getattr(local, "calls", 0) + 1
        counts.append(local.calls)

    for _ in range(2):
        with Server(service=count, limits=ONE, on_error="raise") as server:
            visit(server, 5)
    assert counts == [1, 2, 3, 4, 5] * 2


def test_each_call_has_a_context_of_its_own() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    found: list[tuple[int, str]] = []

    def set_it(conn: Connection) -> None:
        found.append((threading.get_native_id(), variable.get()))
        variable.set(f"by connection {conn.id}")

    variable.set("by the test")
    with Server(service=set_it, limits=ONE, on_error="raise") as server:
        visit(server, 3)
    assert len({thread for thread, _ in found}) == 1
    assert [value for _, value in found] == ["unset"] * 3
    assert variable.get() == "by the test"


@pytest.mark.parametrize("name", ["trace", "profile"])
def test_a_tracer_set_for_threads_sees_handlers(name: str) -> None:
    events: list[str] = []

    def on_event(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code is spied_on.__code__:
            events.append(event)

    def spied_on(conn: Connection) -> None:
        conn.sendall(b"seen")

    before = getattr(threading, f"get{name}")()
    getattr(threading, f"set{name}")(on_event)
    try:
        server = Server(service=spied_on).start()
    finally:
        getattr(threading, f"set{name}")(before)
    visitor = dial(server.address)
    assert read_to_end(visitor) == b"seen"
    visitor.close()
    server.stop()
    assert events[0] == "call"


def test_the_stack_of_a_waiting_handler_can_be_looked_at(tmp_path: Path) -> None:
    at = Arrivals()
    dump = tmp_path / "stacks"

    def inner(conn: Connection) -> None:
        at.here()
        conn.recv(1)

    def outer(conn: Connection) -> None:
        inner(conn)

    with Server(service=outer) as server, dial(server.address) as peer:
        at.until()
        [ident] = [
            thread.ident for thread in threading.enumerate() if thread.native_id in at.threads
        ]
        assert ident is not None
        frame: FrameType | None = sys._current_frames()[ident]
        names = []
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        assert names[:2] == ["inner", "outer"]
        assert names[-1] == "_bootstrap"
        with dump.open("w") as file:
            faulthandler.dump_traceback(file)
        assert f'File "{__file__}", line' in dump.read_text()
        assert "in outer" in dump.read_text()
        peer.sendall(b"x")
        assert ended(peer)


def test_programs_started_by_a_handler_have_no_blocked_signals() -> None:
    show = ["grep", "SigBlk", "/proc/self/status"]
    masks: list[set[Any]] = []

    def start(conn: Connection) -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        conn.sendall(subprocess.run(show, capture_output=True, check=True).stdout)

    with Server(service=start, on_error="raise") as server, dial(server.address) as peer:
        assert int(read_to_end(peer).split()[1], 16) == 0
    assert masks == [set()]


# --- what a handler has access to ----------------------------------------------------------


def test_a_handler_knows_its_connection() -> None:
    known: list[dict[str, Any]] = []

    def look(conn: Connection) -> None:
        known.append(
            {
                "id": conn.id,
                "number": conn.record.id,
                "server": conn.server,
                "remote": conn.record.remote.address,
                "local": conn.record.local.address,
                "tuple": conn.five_tuple,
                "fileno": conn.fileno(),
                "draining": conn.draining,
                "timeout": conn.gettimeout(),
                "peer": conn.getpeername(),
            }
        )

    with Server(service=look, on_error="raise") as server:
        for number in (1, 2):
            with dial(server.address) as peer:
                host, port = peer.getsockname()
                assert ended(peer)
            known_now = known[-1]
            fileno = known_now["fileno"]
            assert fileno > 2
            assert known_now == {
                "id": number,
                "number": number,
                "server": server,
                "remote": (host, port),
                "local": server.address,
                "tuple": (fileno, *server.address, host, port),
                "fileno": fileno,
                "draining": False,
                "timeout": None,
                "peer": (host, port),
            }
            del known_now
        known.clear()


def test_a_record_is_kept_while_the_handler_works() -> None:
    counts: list[tuple[int, int, str | None]] = []

    def count(conn: Connection) -> None:
        conn.sendall(conn.recv_line())
        record = conn.record
        counts.append((record.bytes_in, record.bytes_out, record.closed_by))

    with Server(service=count, on_error="raise") as server, dial(server.address) as peer:
        assert says_back(peer, b"seven.\n")
        assert ended(peer)
        server.ledger.wait(open=0, closed=1)
        assert counts == [(7, 7, None)]
        totals = server.ledger.totals
        assert (totals.accepted, totals.open, totals.closed) == (1, 0, 1)
        assert (totals.bytes_in, totals.messages_in, totals.closed_by["local"]) == (7, 1, 1)


def test_bytes_moved_by_a_file_of_the_connection_are_counted() -> None:
    def answer(conn: Connection) -> None:
        with conn.makefile("rw", encoding="ascii", newline="\n") as file:
            for line in file:
                file.write(line.upper())
                file.flush()

    with Server(service=answer, on_error="raise") as server, dial(server.address) as peer:
        for line in (b"one\n", b"three\n"):
            peer.sendall(line)
            assert read_exactly(peer, len(line)) == line.upper()
        peer.shutdown(socket.SHUT_WR)
        assert ended(peer)
        server.ledger.wait(open=0, closed=1)
        [record] = server.ledger.closed
    assert (record.bytes_in, record.bytes_out, record.closed_by) == (10, 10, "peer")


def test_a_handler_of_every_family_knows_its_peer() -> None:
    def tell(conn: Connection) -> None:
        conn.sendall(f"{conn.record.remote} {conn.family.name}".encode())

    with Server("::", service=tell, on_error="raise") as server:
        for host, shown in (("127.0.0.1", "127.0.0.1:{}"), ("::1", "[::1]:{}")):
            with dial((host, server.port)) as peer:
                name = shown.format(peer.getsockname()[1])
                assert read_to_end(peer).decode() == f"{name} AF_INET6"


# --- handlers and other servers ------------------------------------------------------------


def test_a_handler_may_be_the_client_of_other_servers() -> None:
    def relay(conn: Connection, to: Server) -> None:
        with to.client(timeout=SOON) as onward:
            while line := conn.recv_line():
                onward.sendall(line)
                conn.sendall(onward.recv_line())

    with contextlib.ExitStack() as stack:
        last = stack.enter_context(Server())
        middle = stack.enter_context(
            Server(service=functools.partial(relay, to=last), on_error="raise")
        )
        first = stack.enter_context(
            Server(service=functools.partial(relay, to=middle), on_error="raise")
        )
        peers = [stack.enter_context(dial(first.address)) for _ in range(5)]
        for number in range(3):
            assert {says_back(peer, b"round %d\n" % number) for peer in peers} == {True}


def test_a_handler_may_be_the_client_of_its_own_server() -> None:
    def count_down(conn: Connection) -> None:
        number = int(conn.recv_line())
        if number:
            assert conn.server is not None
            with conn.server.client(timeout=SOON) as own:
                own.sendall(b"%d\n" % (number - 1))
                conn.sendall(own.recv_line())
        else:
            conn.sendall(b"bottom\n")

    with Server(service=count_down, on_error="raise") as server, dial(server.address) as peer:
        peer.sendall(b"20\n")
        assert read_to_end(peer) == b"bottom\n"
        server.ledger.wait(open=0, closed=21)


def test_a_handler_may_have_a_server_of_its_own() -> None:
    def nest(conn: Connection) -> None:
        with Server(service=capitals, on_error="raise") as inner:
            with Client(inner.address, timeout=SOON) as client:
                client.sendall(conn.recv_line())
                conn.sendall(client.recv_line())

    with Server(service=nest, on_error="raise") as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(4)]
        for peer in peers:
            peer.sendall(b"deep\n")
        assert [read_to_end(peer) for peer in peers] == [b"DEEP\n"] * 4


def test_a_handler_serves_while_the_main_thread_computes() -> None:
    with Server(service=echoes) as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(3)]
        talking = Background(lambda: [all_say_back(peers) for _ in range(20)])
        while talking.running:
            sum(range(10_000))
        assert talking.result() == [True] * 20


# --- recursion depth -----------------------------------------------------------------------

DEEP = """
import logging, socket, sys
from rsock import Server
logging.getLogger("rsock").disabled = True
sys.setrecursionlimit(int(sys.argv[1]))

def down(number):
    return 1 + down(number + 1)

class Nested:
    def __repr__(self):
        return repr(self)

def dive(conn):
    if conn.recv(1) == b"p":
        down(0)
    else:
        repr(Nested())

with Server(service=dive) as server:
    for way in sys.argv[2]:
        for _ in range(3):
            with socket.create_connection(server.address, 5) as peer:
                peer.sendall(way.encode())
                print(peer.recv(1), end=" ")
    server.ledger.wait(open=0)
    print({type(error).__name__ for error in server.errors}, server.state)
"""


@pytest.mark.parametrize(("limit", "ways"), [("1000", "pc"), ("30000", "p")])
def test_a_handler_that_goes_too_deep_is_an_error_and_no_crash(limit: str, ways: str) -> None:
    ends = " ".join(["b''"] * 3 * len(ways))
    assert output_of(DEEP, limit, ways) == f"{ends} {{'RecursionError'}} serving\n"


def test_a_handler_may_go_as_deep_as_any_thread() -> None:
    def depth(number: int) -> int:
        return 1 + depth(number - 1) if number else 0

    def dive(conn: Connection) -> None:
        conn.sendall(b"%d" % depth(sys.getrecursionlimit() - 100))

    with Server(service=dive, on_error="raise") as server, dial(server.address) as peer:
        assert int(read_to_end(peer)) == sys.getrecursionlimit() - 100


# --- bytes ---------------------------------------------------------------------------------


def test_the_descriptor_of_a_connection_is_blocking() -> None:
    def read(conn: Connection) -> None:
        conn.sendall(b"%d" % os.get_blocking(conn.fileno()))
        conn.sendall(os.read(conn.fileno(), 10))

    with Server(service=read, on_error="raise") as server, dial(server.address) as peer:
        assert read_exactly(peer, 1) == b"1"
        peer.sendall(b"late")
        assert read_to_end(peer) == b"late"


def test_a_peer_that_is_done_before_its_handler_begins_is_served() -> None:
    got: list[bytes] = []

    def read(conn: Connection) -> None:
        got.append(conn.recv_exactly(5))

    server = Server(service=read, on_error="raise").listen()
    with dial(server.address) as peer:
        peer.sendall(b"early")
        arrived(peer)
    with server:
        server.ledger.wait(open=0, closed=1)
    assert got == [b"early"]

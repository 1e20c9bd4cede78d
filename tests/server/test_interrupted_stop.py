"""A stop in a signal handler does not wait for the call that the signal interrupted."""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from support import SOON, Background, Signal, dial, payload, read_exactly, wait_until

import rsock
from rsock import Accept, Connection, Server, StopReport

# Far longer than any test waits.
LONG = SOON * 4

Call = Callable[[Connection], object]

READS: dict[str, Call] = {
    "recv": lambda conn: conn.recv(10),
    "recv_into": lambda conn: conn.recv_into(bytearray(10)),
    "recv_exactly": lambda conn: conn.recv_exactly(10),
    "recv_line": lambda conn: conn.recv_line(),
    "recvmsg": lambda conn: conn.recvmsg(10),
    "recv with MSG_WAITALL": lambda conn: conn.recv(10, socket.MSG_WAITALL),
    "recv of a file": lambda conn: conn.makefile("rb").read(10),
}


@contextlib.contextmanager
def on_signal(stop: Callable[[], StopReport]) -> Iterator[list[StopReport]]:
    """Call `stop` in the handler of SIGUSR1; yield its reports."""
    reports: list[StopReport] = []

    def handle(number: int, frame: FrameType | None) -> None:
        reports.append(stop())

    before = signal.signal(signal.SIGUSR1, handle)
    yield reports
    signal.signal(signal.SIGUSR1, before)


def ended_call(call: Callable[[], object]) -> None:
    """Run a call that the stop ends, in whatever way it says so."""
    with contextlib.suppress(OSError, rsock.IncompleteRead):
        call()


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("drain", [LONG, 0.0])
def test_a_stop_in_a_signal_handler_does_not_wait_for_the_read_that_it_interrupts(
    read: Call, drain: float
) -> None:
    server = Server(service=Accept()).start()
    with dial(server.address) as peer:
        peer.sendall(b"x")
        conn, _ = server.accept(SOON)
        with conn, on_signal(lambda: server.stop(drain)) as reports, Signal():
            assert conn.recv(1) == b"x"
            ended_call(lambda: read(conn))
    assert reports[0].seconds < SOON
    assert server.state == "stopped"
    assert server.ledger.totals.open == 0


def test_a_stop_in_a_signal_handler_does_not_wait_for_the_send_that_it_interrupts() -> None:
    server = Server(service=Accept()).start()
    with dial(server.address) as peer:
        conn, _ = server.accept(SOON)
        data = payload(64 << 20)

        def stop_and_read() -> StopReport:
            report = server.stop(LONG)
            reading.start()
            return report

        reading = threading.Thread(target=lambda: read_exactly(peer, len(data)))
        with conn, on_signal(stop_and_read) as reports, Signal():
            conn.sendall(data)
        reading.join(SOON)
        assert not reading.is_alive()
    assert reports[0].seconds < SOON


def test_a_stop_in_a_nested_signal_handler_waits_for_no_call_of_the_thread() -> None:
    servers = [Server(service=Accept()).start() for _ in range(2)]
    with contextlib.ExitStack() as stack:
        conns = []
        for server in servers:
            stack.enter_context(dial(server.address))
            conns.append(stack.enter_context(server.accept(SOON)[0]))
        reports: list[StopReport] = []

        def outer(number: int, frame: FrameType | None) -> None:
            with Signal(signal.SIGUSR2):
                ended_call(lambda: conns[1].recv(1))

        def inner(number: int, frame: FrameType | None) -> None:
            reports.extend(rsock.stop_all(LONG))

        before = signal.signal(signal.SIGUSR1, outer), signal.signal(signal.SIGUSR2, inner)
        with Signal():
            ended_call(lambda: conns[0].recv(1))
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGUSR2, before[1])
    assert [report.seconds < SOON for report in reports] == [True, True]


def test_a_stop_does_not_wait_for_a_handler_whose_connection_its_own_thread_reads() -> None:
    handed: queue.SimpleQueue[Connection] = queue.SimpleQueue()
    done = threading.Event()

    def hand(conn: Connection) -> None:
        handed.put(conn)
        assert done.wait(LONG)

    server = Server(service=hand).start()
    with dial(server.address):
        conn = handed.get(timeout=SOON)
        with on_signal(lambda: server.stop(LONG)) as reports, Signal():
            ended_call(lambda: conn.recv(1))
        done.set()
    assert reports[0].seconds < SOON
    assert reports[0].abandoned == 0


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_stop_in_a_signal_handler_ends_the_accept_that_it_interrupts(transport: str) -> None:
    options: Any = {"transport": transport, "service": Accept()}
    server = Server(**options).start()
    with (
        on_signal(lambda: server.stop(LONG)) as reports,
        Signal(),
        pytest.raises(rsock.StateError),
    ):
        server.accept()
    assert reports[0].seconds < SOON


def test_a_loop_over_a_server_ends_when_a_signal_handler_stops_it() -> None:
    server = Server(service=Accept()).start()
    with dial(server.address), on_signal(lambda: server.stop(LONG)) as reports, Signal():
        for conn, _ in server:
            with conn:
                assert conn.recv(1) == b""
    assert reports[0].seconds < SOON
    assert server.state == "stopped"


def test_a_stop_still_waits_for_the_calls_of_other_threads() -> None:
    server = Server(service=Accept()).start()
    with dial(server.address), dial(server.address):
        conn, _ = server.accept(SOON)
        sending, _ = server.accept(SOON)
        data = payload(32 << 20)
        call = Background(lambda: ended_call(lambda: sending.sendall(data)))
        wait_until(call.asleep)
        with conn, on_signal(lambda: server.stop(0.5)) as reports, Signal():
            ended_call(lambda: conn.recv(1))
        # Both are reset at the deadline, which the other thread's call made the stop wait for.
        assert reports[0].seconds >= 0.5
        assert reports[0].forced == 2
        call.result()
        sending.close()

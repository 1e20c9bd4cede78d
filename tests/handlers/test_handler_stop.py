"""How a server with handlers stops.

Waiting handlers are ended at once, working ones have until the deadline, and `stop()` returns in
any case.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable

import pytest
from support import (
    LATE,
    SOON,
    Arrivals,
    Background,
    arrived,
    dial,
    dial_narrow,
    ended,
    given_back,
    held,
    payload,
    read_exactly,
    read_to_end,
    says_back,
    send_until_stuck,
    wait_until,
    was_reset,
)

import rsock
from rsock import Connection, IncompleteRead, Limits, Server, StopReport

# A drain that no test waits for: a test that reaches it hangs.
LONG = 30.0


def until_draining(server: Server) -> None:
    wait_until(lambda: server.state == "draining")


def balanced(server: Server, accepted: int) -> None:
    """Every connection is in the ledger, and is closed there."""
    totals = server.ledger.totals
    assert (totals.accepted, totals.open, totals.closed) == (accepted, 0, accepted)
    assert sum(totals.closed_by.values()) == accepted
    assert server.ledger.open == []


def lines(conn: Connection) -> None:
    while line := conn.recv_line():
        conn.sendall(line)


# --- handlers blocked in a read ------------------------------------------------------------


def read_line_of_text(conn: Connection) -> object:
    with conn.makefile("r", encoding="ascii") as file:
        return file.readline().encode()


def read_whole_file(conn: Connection) -> object:
    with conn.makefile("rb") as file:
        return file.read()


def read_by_duplicate(conn: Connection) -> object:
    with conn.to_socket() as duplicate:
        return duplicate.recv(10)


READS: dict[str, Callable[[Connection], object]] = {
    "recv": lambda conn: conn.recv(10),
    "recv_into": lambda conn: bytes(conn.recv_into(bytearray(4))),
    "recvmsg": lambda conn: conn.recvmsg(10)[0],
    "recv_exactly": lambda conn: conn.recv_exactly(10),
    "recv_until": lambda conn: conn.recv_until(b"--"),
    "recv_line": lambda conn: conn.recv_line(),
    "a file's readline": read_line_of_text,
    "a file's read": read_whole_file,
    "os.read": lambda conn: os.read(conn.fileno(), 10),
    "a duplicate's recv": read_by_duplicate,
}
reads = pytest.mark.parametrize("read", READS.values(), ids=READS.keys())


@reads
def test_a_handler_that_waits_in_a_read_gets_the_end_at_once(
    read: Callable[[Connection], object],
) -> None:
    at = Arrivals()
    got: list[object] = []
    draining: list[bool] = []

    def handler(conn: Connection) -> None:
        conn.sendall(conn.recv_line())
        at.here()
        got.append(read(conn))
        draining.append(conn.draining)
        conn.sendall(b"bye")

    server = Server(service=handler, on_error="raise").start()
    with dial(server.address) as peer:
        assert says_back(peer, b"hello\n")
        at.until()
        report = server.stop(LONG)
        assert read_to_end(peer) == b"bye"
    assert (got, draining) == ([b""], [True])
    assert report.seconds < LATE
    assert (report.drained, report.forced, report.abandoned) == (1, 0, 0)
    [record] = server.ledger.closed
    assert (record.closed_by, record.error) == ("stop", None)
    balanced(server, 1)


def test_a_handler_that_waits_for_the_rest_of_a_message_gets_what_there_is() -> None:
    at = Arrivals()
    got: list[bytes] = []

    def handler(conn: Connection) -> None:
        at.here()
        try:
            conn.recv_exactly(10)
        except IncompleteRead as error:
            got.append(error.partial)

    server = Server(service=handler, on_error="raise").start()
    with dial(server.address) as peer:
        peer.sendall(b"half")
        arrived(peer)
        at.until()
        report = server.stop(LONG)
        assert ended(peer)
    assert got == [b"half"]
    assert report.seconds < LATE
    assert server.ledger.closed[0].closed_by == "stop"


def test_a_message_that_the_stop_cut_off_is_no_error_and_not_the_peers_doing() -> None:
    at = Arrivals()

    def handler(conn: Connection) -> None:
        at.here()
        conn.recv_exactly(10)

    server = Server(service=handler, on_error="raise").start()
    with dial(server.address) as peer:
        peer.sendall(b"half")
        arrived(peer)
        at.until()
        report = server.stop(LONG)
        assert ended(peer)
    assert (report.errors, server.errors) == (0, [])
    assert server.ledger.closed[0].closed_by == "stop"


@pytest.mark.parametrize("sends", [False, True], ids=["says nothing", "begins within it"])
def test_before_the_first_byte_a_handler_is_given_a_quarter_of_a_second(sends: bool) -> None:
    at = Arrivals()
    got: list[bytes] = []

    def handler(conn: Connection) -> None:
        at.here()
        got.append(conn.recv_line())

    server = Server(service=handler, on_error="raise").start()
    with dial(server.address) as peer:
        at.until()
        stopping = Background(server.stop, LONG)
        until_draining(server)
        if sends:
            peer.sendall(b"in time\n")
        report = stopping.result()
        assert ended(peer)
    assert got == [b"in time\n" if sends else b""]
    if sends:
        assert report.seconds < LATE
    else:
        assert 0.2 < report.seconds < 0.25 + LATE
    assert (report.drained, report.forced, report.abandoned) == (1, 0, 0)


def test_the_quarter_of_a_second_is_never_longer_than_the_drain() -> None:
    at = Arrivals()

    def handler(conn: Connection) -> None:
        at.here()
        conn.recv(1)

    took: list[float] = []
    # The machine may be busy once, but not every time.
    while min(took, default=1.0) >= 0.2 and len(took) < 20:
        at.threads.clear()
        server = Server(service=handler).start()
        with dial(server.address):
            at.until()
            report = server.stop(0.05)
        assert report.drained + report.forced == 1
        took.append(report.seconds)
    assert 0.04 < min(took) < 0.2


def test_two_hundred_and_fifty_six_waiting_handlers_end_at_once() -> None:
    at = Arrivals()

    def handler(conn: Connection) -> None:
        conn.sendall(conn.recv_line())
        at.here()
        while line := conn.recv_line():
            conn.sendall(line)

    server = Server(service=handler, on_error="raise").start()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(256)]
        for peer in peers:
            peer.sendall(b"hello\n")
        assert [read_exactly(peer, 6) for peer in peers] == [b"hello\n"] * 256
        at.until(256)
        report = server.stop(LONG)
        assert [peer.recv(1) for peer in peers] == [b""] * 256
    print(f"256 handlers ended in {report.seconds * 1000:.1f} ms")
    assert report.seconds < LATE
    assert (report.drained, report.forced, report.abandoned) == (256, 0, 0)
    assert {record.closed_by for record in server.ledger.closed} == {"stop"}
    balanced(server, 256)


# --- handlers busy with something else -----------------------------------------------------


@reads
def test_a_read_after_the_stop_gets_what_is_there_and_then_the_end(
    read: Callable[[Connection], object],
) -> None:
    at = Arrivals()
    over = threading.Event()
    got: list[object] = []

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)
        got.append(conn.recv_exactly(4))
        got.append(read(conn))

    server = Server(service=handler, on_error="raise").start()
    with dial(server.address) as peer:
        peer.sendall(b"sent")
        arrived(peer)
        at.until()
        stopping = Background(server.stop, LONG)
        until_draining(server)
        over.set()
        report = stopping.result()
    assert got == [b"sent", b""]
    assert report.seconds < SOON
    assert (report.drained, report.forced) == (1, 0)


def test_all_that_has_arrived_is_delivered_however_slowly_it_is_read() -> None:
    gate = threading.Semaphore(0)
    at = Arrivals()

    def handler(conn: Connection) -> None:
        at.here()
        while gate.acquire(timeout=SOON) and (line := conn.recv_line()):
            conn.sendall(line)

    server = Server(service=handler, on_error="raise").start()
    data = b"".join(b"line %d\n" % number for number in range(200))
    with dial(server.address) as peer:
        peer.sendall(data)
        arrived(peer)
        at.until()
        stopping = Background(server.stop, LONG)
        until_draining(server)
        for _ in range(100):
            gate.release()
        assert read_exactly(peer, 790) == data[:790]
        assert stopping.running
        gate.release(200)
        assert read_to_end(peer) == data[790:]
        report = stopping.result()
    assert (report.drained, report.forced, report.abandoned) == (1, 0, 0)
    assert server.ledger.closed[0].bytes_in == len(data)


def test_a_handler_that_returns_within_the_deadline_is_waited_for() -> None:
    at = Arrivals()
    over = threading.Event()

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)
        conn.sendall(b"done")

    server = Server(service=handler, on_error="raise").start()
    with dial(server.address) as peer:
        at.until()
        stopping = Background(server.stop, LONG)
        until_draining(server)
        assert stopping.running
        over.set()
        assert read_to_end(peer) == b"done"
        report = stopping.result()
    assert (report.drained, report.forced, report.abandoned) == (1, 0, 0)
    balanced(server, 1)


def test_a_handler_that_does_not_return_is_reset_and_abandoned_at_the_deadline() -> None:
    at = Arrivals()
    over = threading.Event()
    after: list[int | None] = []

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)
        try:
            conn.sendall(b"too late")
        except OSError as error:
            after.append(error.errno)
            raise

    before = held()
    server = Server(service=handler, on_error="raise").start()
    with dial(server.address) as peer:
        at.until()
        began = time.monotonic()
        report = server.stop(0.3)
        assert 0.28 < time.monotonic() - began < 0.3 + LATE
        assert was_reset(peer)
        assert (report.drained, report.forced, report.abandoned) == (0, 1, 1)
        assert server.state == "stopped"
        balanced(server, 1)
        [record] = server.ledger.closed
        assert (record.closed_by, record.error) == ("stop", None)
        over.set()
        wait_until(lambda: after)
    # What happened afterwards was caused by the stop.
    given_back(before)
    assert server.errors == []
    assert server.stop() == report
    assert after[0] in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


def test_those_who_wait_are_not_kept_for_those_who_work() -> None:
    at = Arrivals()
    over = threading.Event()

    def handler(conn: Connection) -> None:
        if conn.recv_line() == b"work\n":
            at.here()
            assert over.wait(SOON)
        else:
            at.here()
            conn.recv_line()

    server = Server(service=handler, on_error="raise").start()
    with dial(server.address) as worker, dial(server.address) as waiter:
        worker.sendall(b"work\n")
        waiter.sendall(b"wait\n")
        at.until(2)
        stopping = Background(server.stop, LONG)
        assert ended(waiter)
        assert stopping.running
        over.set()
        assert ended(worker)
        assert stopping.result().drained == 2


def test_a_handler_blocked_in_sendall_is_forced_at_the_deadline() -> None:
    at = Arrivals()
    outcome: list[type[BaseException] | None] = []

    def handler(conn: Connection) -> None:
        at.here()
        try:
            conn.sendall(bytes(64 << 20))
            outcome.append(None)
        except BaseException as error:
            outcome.append(type(error))
            raise

    server = Server(service=handler, on_error="raise").start()
    with dial_narrow(server.address) as peer:
        at.until()
        report = server.stop(0.3)
        assert 0.28 < report.seconds < 0.3 + LATE
        with pytest.raises(ConnectionResetError):
            read_to_end(peer)
    assert (report.drained, report.forced) == (0, 1)
    # The reset wakes the handler, so that it is not left behind.
    wait_until(lambda: outcome)
    assert len(outcome) == 1
    assert outcome[0] is not None
    assert issubclass(outcome[0], OSError)
    assert server.errors == []
    assert server.ledger.closed[0].closed_by == "stop"


def test_what_a_handler_sends_is_delivered_to_one_who_reads_it_during_the_drain() -> None:
    at = Arrivals()
    data = payload(8 << 20)

    def handler(conn: Connection) -> None:
        at.here()
        conn.sendall(data)

    server = Server(service=handler, on_error="raise").start()
    with dial_narrow(server.address, 64 << 10) as peer:
        at.until()
        stopping = Background(server.stop, LONG)
        until_draining(server)
        assert stopping.running
        assert read_to_end(peer) == data
        report = stopping.result()
    assert (report.drained, report.forced, report.abandoned) == (1, 0, 0)


def test_a_peer_that_goes_on_talking_does_not_move_the_deadline() -> None:
    over = threading.Event()

    def chatter(peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                peer.sendall(b"and on\n")
                peer.recv(100)

    server = Server(service=lines).start()
    with dial(server.address) as peer:
        assert says_back(peer, b"hello\n")
        talking = Background(chatter, peer)
        report = server.stop(0.3)
        assert report.seconds < 0.3 + LATE
        over.set()
        talking.result()
    assert report.drained + report.forced == 1


# --- the queue -----------------------------------------------------------------------------


def test_those_queued_at_the_moment_of_the_stop_are_served() -> None:
    for _ in range(5):
        server = Server(service=lines, on_error="raise").listen()
        with contextlib.ExitStack() as stack:
            queued = [stack.enter_context(dial(server.address)) for _ in range(20)]
            for peer in queued:
                peer.sendall(b"queued\n")
                arrived(peer)
            server.start()
            report = server.stop(SOON)
            assert [read_to_end(peer) for peer in queued] == [b"queued\n"] * 20
        assert (report.drained, report.forced, report.abandoned) == (20, 0, 0)
        balanced(server, 20)


def test_those_who_wait_for_a_thread_at_the_moment_of_the_stop_are_served() -> None:
    at = Arrivals()
    over = threading.Event()

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)
        lines(conn)

    limits = Limits(handler_threads=2)
    server = Server(service=handler, limits=limits, on_error="raise").start()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(10)]
        for peer in peers:
            peer.sendall(b"waiting\n")
            arrived(peer)
        at.until(2)
        stopping = Background(server.stop, LONG)
        until_draining(server)
        assert stopping.running
        over.set()
        assert [read_to_end(peer) for peer in peers] == [b"waiting\n"] * 10
        report = stopping.result()
    assert (report.drained, report.forced, report.abandoned) == (10, 0, 0)
    balanced(server, 10)


def test_connections_not_taken_by_the_deadline_are_reset() -> None:
    at = Arrivals()
    over = threading.Event()
    calls: list[int] = []

    def handler(conn: Connection) -> None:
        calls.append(conn.id)
        at.here()
        assert over.wait(SOON)

    server = Server(service=handler, limits=Limits(handler_threads=1)).start()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(5)]
        at.until()
        report = server.stop(0.2)
        assert report.seconds < 0.2 + LATE
        assert [was_reset(peer) for peer in peers] == [True] * 5
        assert (report.drained, report.forced, report.abandoned) == (0, 5, 1)
        balanced(server, 5)
        over.set()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "rsock-handler-0"])
    assert calls == [1]


# --- drain=0 -------------------------------------------------------------------------------


def test_no_drain_resets_every_connection_and_ends_its_handler() -> None:
    at = Arrivals()
    left: list[bool] = []

    def handler(conn: Connection) -> None:
        conn.sendall(conn.recv_line())
        at.here()
        try:
            conn.recv_line()
        finally:
            left.append(True)

    # A reset never looks like a clean end, whichever is faster: the stop or the handler that it
    # wakes.
    for _ in range(8):
        at.threads.clear()
        left.clear()
        server = Server(service=handler, on_error="raise").start()
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(dial(server.address)) for _ in range(20)]
            assert {says_back(peer, b"hello\n") for peer in peers} == {True}
            at.until(20)
            report = server.stop(0)
            assert report.seconds < LATE
            assert [was_reset(peer) for peer in peers] == [True] * 20
        assert (report.drained, report.forced) == (0, 20)
        # The reset wakes them. The stop itself waits 30 ms for them, which is too short on a busy
        # machine.
        wait_until(lambda: len(left) == 20)
        assert {record.closed_by for record in server.ledger.closed} == {"stop"}
        balanced(server, 20)


def test_no_drain_leaves_a_handler_at_work_behind() -> None:
    at = Arrivals()
    over = threading.Event()

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)

    server = Server(service=handler, drain=0).start()
    with dial(server.address) as peer:
        at.until()
        report = server.stop()
        assert report.seconds < LATE
        assert was_reset(peer)
        assert (report.forced, report.abandoned) == (1, 1)
        over.set()


def test_a_body_that_raises_resets_at_once() -> None:
    at = Arrivals()

    def handler(conn: Connection) -> None:
        at.here()
        conn.recv_line()

    with dial_to_later() as peer:
        with pytest.raises(ZeroDivisionError):
            with Server(service=handler, drain=LONG) as server:
                peer.connect(server.address)
                at.until()
                raise ZeroDivisionError
        assert was_reset(peer)
    report = server.stop()
    assert (report.cause, report.forced) == ("exception", 1)
    assert report.seconds < LATE


def dial_to_later() -> socket.socket:
    peer = socket.socket()
    peer.settimeout(SOON)
    return peer


# --- stop called by handlers ---------------------------------------------------------------


def test_a_handler_may_stop_its_server_and_still_answer() -> None:
    reports: list[StopReport] = []

    def handler(conn: Connection) -> None:
        assert conn.recv_line() == b"shut down\n"
        assert conn.server is not None
        reports.append(conn.server.stop(LONG))
        conn.sendall(b"done: " + conn.server.state.encode())

    server = Server(service=handler, on_error="raise").start()
    waiting = Background(server.wait)
    with dial(server.address) as peer:
        peer.sendall(b"shut down\n")
        assert read_to_end(peer) == b"done: stopped"
        assert waiting.result() == reports[0] == server.stop()
    assert reports[0].seconds < LATE
    assert reports[0].abandoned == reports[0].forced == 0
    wait_until(lambda: server.ledger.totals.open == 0)
    balanced(server, 1)
    assert server.ledger.closed[0].closed_by == "stop"


def test_a_handler_that_stops_its_server_waits_for_the_others() -> None:
    at = Arrivals()
    over = threading.Event()
    order: list[str] = []

    def handler(conn: Connection) -> None:
        match conn.recv_line():
            case b"stop\n":
                at.here()
                assert conn.server is not None
                conn.server.stop(LONG)
                order.append("stopped")
            case b"wait\n":
                at.here()
                assert conn.recv_line() == b""
            case b"work\n":
                at.here()
                assert over.wait(SOON)
                order.append("worked")

    server = Server(service=handler, on_error="raise").start()
    with contextlib.ExitStack() as stack:
        peers = {}
        for what in (b"wait\n", b"work\n", b"stop\n"):
            peers[what] = stack.enter_context(dial(server.address))
            peers[what].sendall(what)
        assert ended(peers[b"wait\n"])
        wait_until(lambda: len(at.threads) == 3)
        assert server.state == "draining"
        over.set()
        assert ended(peers[b"work\n"])
        assert ended(peers[b"stop\n"])
        report = server.wait(SOON)
    assert order == ["worked", "stopped"]
    assert (report.forced, report.abandoned) == (0, 0)


@pytest.mark.parametrize("way", ["close", "detach", "on_error"])
def test_a_handler_whose_connection_is_gone_may_stop_its_server(way: str) -> None:
    reports: list[StopReport] = []

    def handler(conn: Connection) -> None:
        if way == "on_error":
            raise LookupError("the first error")
        if way == "close":
            conn.close()
        else:
            os.close(conn.detach())
        assert conn.server is not None
        reports.append(conn.server.stop(LONG))

    def give_up(_: BaseException) -> None:
        reports.append(server.stop(LONG))

    server = Server(service=handler, on_error=give_up).start()
    with dial(server.address) as peer:
        assert ended(peer)
        report = server.wait(SOON)
    assert report.seconds < LATE
    assert (report.forced, report.abandoned) == (0, 0)
    wait_until(lambda: reports == [report])
    balanced(server, 1)


def test_a_stop_after_a_close_exempts_no_other_handler() -> None:
    closed, other_came = threading.Event(), threading.Event()
    ends: list[bytes] = []

    def handler(conn: Connection) -> None:
        if conn.id == 1:
            conn.close()
            closed.set()
            # The next connection reuses the first one's entry in the list.
            assert other_came.wait(SOON)
            assert conn.server is not None
            conn.server.stop(LONG)
        else:
            other_came.set()
            ends.append(conn.recv(10))

    server = Server(service=handler, on_error="raise").start()
    with dial(server.address), contextlib.ExitStack() as stack:
        assert closed.wait(SOON)
        other = stack.enter_context(dial(server.address))
        other.sendall(b"")
        report = server.wait(SOON)
        assert ended(other)
    # The handler saw the end, and the stop waited for it.
    assert ends == [b""]
    assert report.seconds < LATE
    assert (report.forced, report.abandoned) == (0, 0)
    balanced(server, 2)


def test_a_handler_that_joins_a_stop_under_way_holds_it_up_no_longer() -> None:
    silent_ended = threading.Event()

    def handler(conn: Connection) -> None:
        data = conn.recv(5)
        if not data:
            silent_ended.set()
            return
        conn.sendall(data)
        # The quarter of a second that a silent connection is given has passed by then, and the stop
        # waits for the deadline or for a notification.
        assert silent_ended.wait(SOON)
        assert conn.server is not None
        wait_until(lambda: server.ledger.totals.open == 1)
        conn.server.stop(LONG)

    server = Server(service=handler, on_error="raise").start()
    with dial(server.address) as peer, dial(server.address):
        wait_until(lambda: server.ledger.totals.accepted == 2)
        assert says_back(peer, b"hello")
        report = server.stop(LONG)
    assert report.seconds < LATE
    assert (report.forced, report.abandoned) == (0, 0)


def test_several_handlers_may_stop_their_server_at_once() -> None:
    reports: list[StopReport] = []
    together = threading.Barrier(4)

    def handler(conn: Connection) -> None:
        together.wait(SOON)
        assert conn.server is not None
        reports.append(conn.server.stop(LONG))
        conn.sendall(b"bye")

    server = Server(service=handler, on_error="raise").start()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(4)]
        began = time.monotonic()
        assert [read_to_end(peer) for peer in peers] == [b"bye"] * 4
        report = server.wait(SOON)
        assert time.monotonic() - began < LATE
    assert reports == [report] * 4
    assert (report.forced, report.abandoned) == (0, 0)
    wait_until(lambda: server.ledger.totals.open == 0)


def test_a_handler_that_stopped_its_server_and_goes_on_delays_no_waiting_call() -> None:
    stopped = threading.Event()
    over = threading.Event()

    def handler(conn: Connection) -> None:
        assert conn.server is not None
        conn.server.stop(LONG)
        stopped.set()
        assert over.wait(SOON)
        conn.sendall(b"bye")

    server = Server(service=handler, on_error="raise").start()
    waiting = Background(server.wait)
    with dial(server.address) as peer:
        assert stopped.wait(SOON)
        began = time.monotonic()
        report = server.stop()
        took = time.monotonic() - began
        over.set()
        assert waiting.result() == report
        assert read_to_end(peer) == b"bye"
    assert took < LATE
    assert (report.forced, report.abandoned) == (0, 0)


def test_a_stop_by_a_thread_that_a_handler_waits_for_ends_at_the_deadline() -> None:
    def handler(conn: Connection) -> None:
        assert conn.server is not None
        Background(conn.server.stop, 0.3).result()

    server = Server(service=handler, on_error="raise").start()
    with dial(server.address) as peer:
        report = server.wait(SOON)
        assert report.seconds < 0.3 + LATE
        assert was_reset(peer)
    assert report.forced == 1


def test_a_handler_that_waits_for_its_own_server_holds_up_no_stop() -> None:
    at = Arrivals()
    reports: list[StopReport] = []

    def handler(conn: Connection) -> None:
        at.here()
        assert conn.server is not None
        reports.append(conn.server.wait())

    server = Server(service=handler, on_error="raise").start()
    with dial(server.address):
        at.until()
        report = server.stop(0.3)
        assert report.seconds < 0.3 + LATE
        wait_until(lambda: reports)
    assert reports == [report]


def test_stop_all_in_a_handler_does_not_wait_for_itself() -> None:
    at = Arrivals()

    def handler(conn: Connection) -> None:
        if conn.recv_line() == b"stop\n":
            rsock.stop_all(LONG)
            conn.sendall(b"stopped")
        else:
            at.here()
            conn.recv_line()

    with contextlib.ExitStack() as stack:
        servers = [Server(service=handler, on_error="raise").start() for _ in range(3)]
        stack.callback(lambda: [server.stop(0) for server in servers])
        waiters = [stack.enter_context(dial(server.address)) for server in servers]
        for peer in waiters:
            peer.sendall(b"wait\n")
        at.until(3)
        caller = stack.enter_context(dial(servers[1].address))
        caller.sendall(b"stop\n")
        assert read_to_end(caller) == b"stopped"
        assert [ended(peer) for peer in waiters] == [True] * 3
        for server in servers:
            report = server.stop()
            assert report.seconds < LATE
            assert (report.forced, report.abandoned) == (0, 0)


def test_a_handler_may_stop_another_server_with_handlers() -> None:
    at = Arrivals()

    def wait(conn: Connection) -> None:
        conn.sendall(conn.recv_line())
        at.here()
        conn.recv_line()

    other = Server(service=wait, on_error="raise").start()

    def stop_other(conn: Connection) -> None:
        report = other.stop(LONG)
        conn.sendall(b"%d drained" % report.drained)

    with Server(service=stop_other, on_error="raise") as server:
        with dial(other.address) as waiter:
            assert says_back(waiter, b"hello\n")
            at.until()
            with dial(server.address) as peer:
                assert read_to_end(peer) == b"1 drained"
            assert ended(waiter)
        assert server.state == "serving"


def test_all_who_stop_it_get_the_same_report() -> None:
    at = Arrivals()

    def handler(conn: Connection) -> None:
        conn.sendall(conn.recv_line())
        at.here()
        conn.recv_line()

    server = Server(service=handler, on_error="raise").start()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(8)]
        assert {says_back(peer, b"hello\n") for peer in peers} == {True}
        at.until(8)
        stops = [Background(server.stop, LONG) for _ in range(8)]
        waits = [Background(server.wait) for _ in range(4)]
        reports = [each.result() for each in stops + waits]
    assert reports == [server.stop()] * 12
    assert server.wait() == reports[0]
    assert (reports[0].drained, reports[0].forced) == (8, 0)


def test_a_second_stop_takes_the_earlier_deadline() -> None:
    at = Arrivals()
    over = threading.Event()

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)

    server = Server(service=handler).start()
    with dial(server.address) as peer:
        at.until()
        first = Background(server.stop, LONG)
        until_draining(server)
        began = time.monotonic()
        report = server.stop(0.2)
        assert 0.15 < time.monotonic() - began < 0.2 + LATE
        assert first.result() == report
        assert was_reset(peer)
        assert (report.forced, report.abandoned) == (1, 1)
        over.set()


def test_a_second_stop_never_moves_the_deadline_out() -> None:
    at = Arrivals()
    over = threading.Event()

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)

    server = Server(service=handler).start()
    with dial(server.address):
        at.until()
        first = Background(server.stop, 0.2)
        until_draining(server)
        report = server.stop(LONG)
        assert report.seconds < 0.2 + LATE
        assert first.result() == report
        over.set()


# --- afterwards ----------------------------------------------------------------------------


def test_nothing_is_left_after_a_stop_in_the_middle_of_everything() -> None:
    before = held()
    over = threading.Event()
    server = Server(service=lines, limits=Limits(handler_threads=6)).start()

    def talk() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), dial(server.address) as peer:
                for _ in range(5):
                    if not says_back(peer, b"hello\n"):
                        break

    with contextlib.ExitStack() as stack:
        stuck = stack.enter_context(dial_to_later())
        stuck.connect(server.address)
        send_until_stuck(stuck, (b"x" * 60_000 + b"\n") * 200, 0.1)
        talkers = [Background(talk) for _ in range(4)]
        server.ledger.wait(closed=50)
        report = server.stop(0.2)
        over.set()
        for talker in talkers:
            talker.result()
        totals = server.ledger.totals
        balanced(server, totals.accepted)
        assert report.seconds < 0.2 + LATE
        assert report.drained + report.forced >= 1
    given_back(before)


def test_the_port_is_free_when_stop_returns_though_a_handler_was_abandoned() -> None:
    at = Arrivals()
    over = threading.Event()

    def handler(conn: Connection) -> None:
        at.here()
        assert over.wait(SOON)

    server = Server(service=handler).start()
    with dial(server.address):
        at.until()
        assert server.stop(0).abandoned == 1
        with Server("127.0.0.1", server.port) as again, dial(again.address) as peer:
            assert says_back(peer)
        over.set()


def test_a_stop_without_connections_takes_no_time() -> None:
    for _ in range(10):
        server = Server(service=lines).start()
        began = time.monotonic()
        report = server.stop(LONG)
        assert time.monotonic() - began < LATE
        assert (report.drained, report.forced, report.abandoned) == (0, 0, 0)


def test_threads_are_gone_when_stop_returns() -> None:
    at = Arrivals()

    def handler(conn: Connection) -> None:
        conn.sendall(conn.recv_line())
        at.here()
        conn.recv_line()

    server = Server(service=handler).start()
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            assert says_back(stack.enter_context(dial(server.address)), b"hello\n")
        at.until(10)
        there = [t for t in threading.enumerate() if t.native_id in at.threads]
        assert len(there) == 10
        server.stop(LONG)
        assert not [thread for thread in there if thread.is_alive()]

"""Faults that are added to a server with a handler or `Accept()` that was made without any."""

from __future__ import annotations

import contextlib
import socket
import time
import warnings
from collections.abc import Iterator

import pytest
from support import (
    SOON,
    Background,
    dial,
    ended,
    output_of,
    read_exactly,
    says_back,
    threads,
    wait_until,
)

from rsock import Accept, ByConnection, Connection, Echo, Handler, Limits, Server
from rsock.faults import Latency

LATE = 0.25


def echo(conn: Connection) -> None:
    while data := conn.recv(65_536):
        conn.sendall(data)


def accept_all(server: Server) -> None:
    def serve(conn: Connection) -> None:
        with conn, contextlib.suppress(OSError):
            echo(conn)

    calls = [Background(serve, conn) for conn, _ in server]
    for call in calls:
        call.result()


@contextlib.contextmanager
def serving(shape: str, **options: object) -> Iterator[Server]:
    """A server of each kind that hands out connections, which all echo."""
    if shape == "accept":
        with Server(service=Accept(), **options) as server:  # type: ignore[arg-type]
            accepting = Background(accept_all, server)
            yield server
            server.stop()
            accepting.result()
        return
    service = {"handler": Handler(echo), "mixed": ByConnection(Handler(echo), rest=Handler(echo))}
    with Server(service=service[shape], **options) as server:  # type: ignore[arg-type]
        yield server


@pytest.fixture(params=["handler", "accept", "mixed"])
def shape(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def seconds_of_an_answer(client: socket.socket) -> float:
    started = time.monotonic()
    assert says_back(client)
    return time.monotonic() - started


def test_a_fault_concerns_connections_accepted_from_then_on(shape: str) -> None:
    with serving(shape) as server, dial(server.address) as before:
        assert says_back(before)
        with pytest.warns(RuntimeWarning) as warned, server.fault(Latency(LATE)) as fault:
            assert seconds_of_an_answer(before) < LATE
            with dial(server.address) as after:
                assert seconds_of_an_answer(after) >= LATE
                assert server.faults.counts() == [(fault, 1, 1)]
        [warning] = warned
        assert str(warning.message).startswith(
            f"1 open connection of {server.name} will not have Latency(0.25): "
        )
        assert "Server(…, faults=[])" in str(warning.message)
        assert warning.filename == __file__
        # Those that have come since can have any fault.
        before.close()
        server.ledger.wait(open=0, timeout=SOON)
        with dial(server.address) as later:
            assert seconds_of_an_answer(later) < LATE
            server.faults.add(Latency(LATE))
            assert seconds_of_an_answer(later) >= LATE
            server.faults.clear()
            assert seconds_of_an_answer(later) < LATE


def test_a_warning_made_an_error_adds_nothing(shape: str) -> None:
    with serving(shape) as server, dial(server.address) as client:
        assert says_back(client)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(RuntimeWarning):
                server.faults.add(Latency(LATE))
            with pytest.raises(RuntimeWarning), server.fault(Latency(LATE)):
                pytest.fail("the block began")
        assert server.faults == []


def test_the_warning_counts_what_the_fault_would_concern(shape: str) -> None:
    with serving(shape) as server, contextlib.ExitStack() as stack:
        for _ in range(3):
            assert says_back(stack.enter_context(dial(server.address)))
        with pytest.warns(RuntimeWarning, match=r"^2 open connections of .* will not have Latency"):
            server.faults.add(Latency(LATE, connections={1, 3, 9}))
        # Only those that come after it, and none that is gone.
        server.faults.add(Latency(LATE, connections=2))
        stack.close()
        server.ledger.wait(open=0, timeout=SOON)
        server.faults.add(Latency(LATE))


@pytest.mark.parametrize("prepared", [[], [Latency(0.0)]], ids=["empty", "one"])
def test_given_faults_have_a_later_fault_reach_every_connection(
    shape: str, prepared: list[Latency]
) -> None:
    with serving(shape, faults=prepared) as server, dial(server.address) as client:
        assert says_back(client)
        with server.fault(Latency(LATE)):
            assert seconds_of_an_answer(client) >= LATE
        assert seconds_of_an_answer(client) < LATE


def test_a_fault_added_before_the_start_prepares_the_server(shape: str) -> None:
    service = Accept() if shape == "accept" else Handler(echo)
    server = Server(service=service)
    server.faults.add(Latency(LATE))
    with server:
        accepting = Background(accept_all, server) if shape == "accept" else None
        with dial(server.address) as client:
            assert seconds_of_an_answer(client) >= LATE
            server.faults.clear()
            assert seconds_of_an_answer(client) < LATE
        server.stop()
        if accepting is not None:
            accepting.result()


def test_a_handler_of_an_old_connection_is_undisturbed_and_all_end_at_a_stop(shape: str) -> None:
    with serving(shape) as server, dial(server.address) as old:
        assert says_back(old)
        with pytest.warns(RuntimeWarning):
            server.faults.add(Latency(0.001))
        with dial(server.address) as new:
            for _ in range(20):
                assert says_back(old)
                assert says_back(new)
            report = server.stop()
            assert (report.forced, report.abandoned, report.errors) == (0, 0, 0)
            assert ended(old)
            assert ended(new)
    assert server.ledger.totals.open == 0


def test_a_stop_at_once_resets_both_kinds(shape: str) -> None:
    with serving(shape) as server, dial(server.address) as old:
        assert says_back(old)
        with pytest.warns(RuntimeWarning):
            server.faults.add(Latency(3600))
        with dial(server.address) as new:
            new.sendall(b"held")
            server.ledger.wait(open=2, timeout=SOON)
            report = server.stop(0)
            assert report.forced == 2
            for client in (old, new):
                with pytest.raises(ConnectionResetError):
                    read_exactly(client, 1)


def test_the_worker_is_started_by_the_first_fault_and_ends_with_the_server(shape: str) -> None:
    def workers() -> int:
        return sum(name.startswith("rsock-worker") for name in threads().values())

    own = 1 if shape == "mixed" else 0
    with serving(shape) as server:
        # A thread has its name a little later than it is there.
        wait_until(lambda: workers() == own)
        server.faults.add(Latency(0.0))
        wait_until(lambda: workers() == own + 1)
        server.faults.clear()
        server.faults.add(Latency(0.0))
        with dial(server.address) as client:
            assert says_back(client)
        assert workers() == own + 1
    assert workers() == 0


def test_by_connection_has_its_services_in_rust_reached_at_once() -> None:
    with Server(service=ByConnection(Handler(echo), rest=Echo())) as server:
        with dial(server.address) as handled, dial(server.address) as rust:
            assert says_back(handled)
            assert says_back(rust)
            with pytest.warns(RuntimeWarning, match="^1 open connection"):
                server.faults.add(Latency(LATE))
            assert seconds_of_an_answer(handled) < LATE
            assert seconds_of_an_answer(rust) >= LATE


def test_an_old_connection_reaches_the_end_of_its_lifetime_beside_new_ones(shape: str) -> None:
    with serving(shape, limits=Limits(lifetime=1.0)) as server, dial(server.address) as old:
        assert says_back(old)
        with pytest.warns(RuntimeWarning):
            server.faults.add(Latency(0.0))
        with dial(server.address) as new:
            assert says_back(new)
            assert ended(old)
            assert ended(new)
        records = server.ledger.wait(open=0, closed=2, timeout=SOON)
        assert [(record.closed_by, record.limit) for record in records] == [
            ("limit", "lifetime")
        ] * 2


def test_connections_come_while_the_first_fault_is_added(shape: str) -> None:
    with serving(shape) as server:

        def exchange() -> None:
            for _ in range(50):
                with dial(server.address) as client:
                    assert says_back(client)

        clients = [Background(exchange) for _ in range(3)]
        wait_until(lambda: server.ledger.totals.accepted > 5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            server.faults.add(Latency(0.0005))
            for _ in range(100):
                with server.fault(Latency(0.0001)):
                    pass
        for client in clients:
            client.result(60)
        server.ledger.wait(open=0, closed=150, timeout=SOON)
    assert server.stop().errors == 0


LIMIT = """
import resource, socket, sys, warnings
from rsock import Server
from rsock.faults import Latency
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
warnings.simplefilter("ignore")

def echo(conn):
    while data := conn.recv(100):
        conn.sendall(data)

def served(add):
    '''How many connections a server has at once that had 100 descriptors when it started.'''
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    clients = []
    with Server(service=echo) as server:
        if add:
            server.faults.add(Latency(0.0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
        while server.waiting == 0:
            client = socket.create_connection(server.address)
            clients.append(client)
            client.settimeout(0.5)
            client.sendall(b"x")
            try:
                client.recv(1)
            except TimeoutError:
                pass
        count = server.ledger.totals.open
        for client in clients:
            client.close()
    return count

print(served(False), served(True))
"""


def test_the_default_limit_of_connections_is_computed_anew() -> None:
    without, late = map(int, output_of(LIMIT).split())
    # What is free of 100, less a quarter for the process; a third of that.
    assert 8 < late < without / 2.5
    assert without < 75

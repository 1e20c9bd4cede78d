"""A server's steps and states: each step by itself, and missing steps done by a later one."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import (
    LATE,
    LOOPBACK,
    SOON,
    Background,
    dial,
    fds,
    given_back,
    has_ipv6,
    held,
    listener,
    payload,
    read_exactly,
    refused,
    says_back,
    send_until_stuck,
    threads,
    wait_until,
)

import rsock
from rsock import Accept, Client, Echo, Server, StateError, StopReport

STEPS: list[tuple[str, Callable[[Server], Server]]] = [
    ("created", Server.create),
    ("bound", Server.bind),
    ("listening", Server.listen),
    ("serving", Server.start),
]
states = pytest.mark.parametrize("reached", range(5), ids=["new", *(name for name, _ in STEPS)])


def server_in_state(reached: int) -> Server:
    server = Server()
    for _, step in STEPS[:reached]:
        step(server)
    return server


@contextlib.contextmanager
def stalled_peer(server: Server) -> Iterator[socket.socket]:
    """A client of `server` that never reads: no stop can finish before it does."""
    with dial(server.address) as peer:
        send_until_stuck(peer, payload(16 << 20))
        yield peer


# --- steps ---------------------------------------------------------------------------------


def test_each_step_leads_to_its_state_and_returns_the_server() -> None:
    server = Server()
    assert server.state == "new"
    for state, step in STEPS:
        assert step(server) is server
        assert server.state == state
    with dial(server.address) as peer:
        assert says_back(peer)
    server.stop()
    assert server.state == "stopped"


@pytest.mark.parametrize("reached", range(4), ids=["new", "created", "bound", "listening"])
def test_start_does_what_is_missing(reached: int) -> None:
    server = server_in_state(reached)
    assert server.start() is server
    with server, dial(server.address) as peer:
        assert says_back(peer)


@pytest.mark.parametrize("step", ["bind", "listen"])
def test_a_step_does_what_is_missing_before_it(step: str) -> None:
    server = Server()
    getattr(server, step)()
    assert server.port != 0
    server.stop()


def test_the_constructor_opens_nothing() -> None:
    before = held()
    server = Server("127.0.0.1", 0)
    assert server.state == "new"
    given_back(before)


def test_create_opens_one_stream_socket() -> None:
    server = Server()
    before = held()
    server.create()
    opened = [link for link in fds() - before[1] if link.startswith("socket:")]
    assert len(opened) == 1
    with socket.socket(fileno=os.dup(server.fileno())) as same:
        assert (same.family, same.type) == (socket.AF_INET, socket.SOCK_STREAM)
        assert not same.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    assert not os.get_inheritable(server.fileno())
    server.stop()
    given_back(before)


def test_bind_takes_the_port_and_does_not_listen() -> None:
    server = Server().bind()
    assert server.getsockname() == server.address
    with pytest.raises(ConnectionRefusedError):
        dial(server.address)
    server.stop()


def test_bind_can_be_given_another_address() -> None:
    server = Server(LOOPBACK, 0).bind(("127.0.0.2", 0))
    assert server.host == "127.0.0.2"
    with server, dial(server.address) as peer:
        assert says_back(peer)


def test_listen_listens_with_the_backlog_it_is_given() -> None:
    server = Server().listen(3)
    with socket.socket(fileno=os.dup(server.fileno())) as same:
        assert same.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        # For a listener, tcpi_sacked is the backlog and tcpi_unacked the length of the queue.
        info = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert int.from_bytes(info[28:32], "little") == 3
    server.stop()


def test_no_thread_runs_before_start(workers: int) -> None:
    server = Server(workers=workers).listen()
    assert threads() == {}
    server.start()
    with dial(server.address) as peer:
        assert says_back(peer)
    several = ["rsock-accept", "rsock-worker-0", "rsock-worker-1"]
    wanted = ["rsock-worker-0"] if workers == 1 else several
    # A thread sets its own name, which may be later.
    wait_until(lambda: sorted(threads().values()) == wanted)
    server.stop()
    wait_until(lambda: not threads())


def test_who_connects_before_start_is_served_after_it() -> None:
    server = Server().listen()
    with dial(server.address) as early, server.client(timeout=5.0) as too:
        early.sendall(b"early")
        too.sendall(b"bird")
        assert server.ledger.totals.accepted == 0
        server.start()
        assert read_exactly(early, 5) == b"early"
        assert too.recv_exactly(4) == b"bird"
        server.stop()


def test_start_returns_when_the_port_is_listening() -> None:
    for _ in range(20):
        with Server() as server, dial(server.address) as peer:
            assert says_back(peer)


@pytest.mark.parametrize(
    ("reached", "step"),
    [
        (1, "create"),
        (3, "create"),
        (2, "bind"),
        (3, "bind"),
        (4, "bind"),
        (4, "listen"),
        (4, "create"),
    ],
)
def test_a_step_in_the_wrong_state_names_the_state(reached: int, step: str) -> None:
    server = server_in_state(reached)
    state = server.state
    address = ((LOOPBACK, 0),) if step == "bind" else ()
    with pytest.raises(StateError, match=state) as caught:
        getattr(server, step)(*address)
    assert "running" not in str(caught.value)
    assert server.state == state
    server.stop()


def test_a_state_error_is_a_runtime_error_of_rsock() -> None:
    assert issubclass(StateError, RuntimeError)
    assert issubclass(StateError, rsock.RsockError)


def test_a_descriptor_adopted_is_served_and_closed() -> None:
    with listener() as plain:
        address = plain.getsockname()
        number = plain.detach()
    server = Server(fd=number)
    with server:
        assert server.fileno() == number
        assert server.address == address
        with dial(address) as peer:
            assert says_back(peer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_descriptor_only_bound_is_adopted_too() -> None:
    with socket.socket() as plain:
        plain.bind((LOOPBACK, 0))
        number = plain.detach()
    with Server(fd=number) as server, dial(server.address) as peer:
        assert says_back(peer)


def test_a_descriptor_adopted_is_closed_but_not_shut_down_for_its_other_owners() -> None:
    with listener() as plain:
        with Server(fd=os.dup(plain.fileno())) as server, dial(server.address) as peer:
            assert says_back(peer)
        with dial(plain.getsockname()) as late:
            accepted, _ = plain.accept()
            with accepted:
                accepted.sendall(b"still here")
                assert read_exactly(late, 10) == b"still here"


@pytest.mark.parametrize(
    ("service", "workers"),
    [(Echo(), 1), (Echo(), 2), (Accept(), None)],
    ids=["one worker", "two workers", "Accept"],
)
def test_another_owner_that_makes_it_block_delays_no_client(
    service: Any, workers: int | None
) -> None:
    with listener() as plain:
        server = Server(fd=os.dup(plain.fileno()), service=service, workers=workers).start()
        plain.setblocking(True)
        if isinstance(service, Echo):
            with dial(server.address) as peer:
                assert says_back(peer)
        else:
            with pytest.raises(TimeoutError):
                server.accept(0.01)
            with dial(server.address):
                server.accept(SOON)[0].close()
        assert server.stop(LATE).seconds < LATE


# --- addresses -----------------------------------------------------------------------------


def test_the_address_is_a_pair_and_its_parts(echo: Server) -> None:
    assert echo.address == (echo.host, echo.port) == echo.getsockname()
    assert echo.host == LOOPBACK
    assert 0 < echo.port < 65_536
    assert (echo.transport, echo.path) == ("tcp", None)
    assert isinstance(echo.service, Echo)


def test_a_server_takes_a_pair() -> None:
    with Server((LOOPBACK, 0)) as server, dial(server.address) as peer:
        assert says_back(peer)


def test_a_port_can_be_a_service_name() -> None:
    assert Server(port="http-alt").port == 8080
    assert Server(("127.0.0.1", "http-alt")).port == 8080


def test_a_host_can_be_a_name() -> None:
    with Server("localhost") as server, dial(server.address) as peer:
        assert server.host in ("127.0.0.1", "::1")
        assert says_back(peer)


def test_a_client_of_a_wildcard_server_goes_over_loopback() -> None:
    with Server("0.0.0.0") as server, server.client(timeout=5.0) as client:
        assert client.getpeername() == (LOOPBACK, server.port)
        assert says_back(client)


def test_a_client_of_the_server_takes_the_arguments_of_client(echo: Server) -> None:
    with echo.client(timeout=1.5, source_address=("127.0.0.3", 0)) as client:
        assert isinstance(client, Client)
        assert client.gettimeout() == 1.5
        assert client.getsockname()[0] == "127.0.0.3"


def test_url_is_built_from_the_address(echo: Server) -> None:
    assert echo.url("http") == f"http://127.0.0.1:{echo.port}/"
    assert echo.url("ws", "/chat") == f"ws://127.0.0.1:{echo.port}/chat"


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_url_puts_ipv6_in_brackets() -> None:
    with Server("::1") as server:
        assert server.url("http") == f"http://[::1]:{server.port}/"


# --- the end -------------------------------------------------------------------------------


@states
def test_a_server_can_be_stopped_in_every_state(reached: int) -> None:
    before = held()
    server = server_in_state(reached)
    report = server.stop()
    assert isinstance(report, StopReport)
    assert (report.drained, report.forced, report.abandoned, report.errors) == (0, 0, 0, 0)
    assert report.cause == "stop"
    assert report.seconds < LATE
    assert server.state == "stopped"
    given_back(before)


@pytest.mark.parametrize("step", ["create", "bind", "listen", "start"])
@states
def test_stopped_is_final(reached: int, step: str) -> None:
    server = server_in_state(reached)
    server.stop()
    with pytest.raises(StateError, match="stopped"):
        getattr(server, step)()
    assert server.state == "stopped"


@states
def test_stop_twice_gives_the_same_report(reached: int) -> None:
    server = server_in_state(reached)
    first = server.stop()
    assert server.stop() == first
    assert server.stop(0) == first
    assert server.wait(0) == first


def test_stop_from_two_threads_at_once_gives_both_the_same_report() -> None:
    for _ in range(20):
        server = Server().start()
        with dial(server.address) as peer:
            assert says_back(peer)
            calls = [Background(server.stop) for _ in range(4)]
            reports = [call.result() for call in calls]
        assert reports.count(reports[0]) == 4
        assert server.state == "stopped"


def test_the_address_is_known_after_the_stop() -> None:
    server = Server().start()
    address = server.address
    server.stop()
    assert server.address == address


def test_a_draining_server_says_so() -> None:
    server = Server().start()
    with stalled_peer(server):
        stopping = Background(server.stop, 10.0)
        wait_until(lambda: server.state == "draining")
        with pytest.raises(StateError, match="draining"):
            server.start()
        wait_until(lambda: refused(server.address))
        server.stop(0)
        stopping.result()


@pytest.mark.parametrize("drain", [-1, float("nan"), "soon"])
def test_stop_refuses_a_drain_that_is_none(echo: Server, drain: float) -> None:
    with pytest.raises((ValueError, TypeError)):
        echo.stop(drain)
    assert echo.state == "serving"


# --- with, wait, lists of servers ----------------------------------------------------------


def test_with_starts_and_stops() -> None:
    server = Server()
    with server as same:
        assert same is server
        assert server.state == "serving"
    assert server.state == "stopped"
    assert server.stop().cause == "stop"


def test_with_takes_a_server_that_runs_already() -> None:
    with Server().start() as server, dial(server.address) as peer:
        assert says_back(peer)
    assert server.state == "stopped"


def test_with_a_server_stopped_before_is_a_state_error() -> None:
    server = Server()
    server.stop()
    with pytest.raises(StateError, match="stopped"), server:
        pass


def test_a_body_that_raises_stops_without_draining() -> None:
    server = Server(drain=30.0)

    def body() -> None:
        with server, dial(server.address) as peer:
            send_until_stuck(peer, payload(16 << 20))
            raise LookupError

    with pytest.raises(LookupError):
        body()
    report = server.stop()
    assert report.cause == "exception"
    assert report.seconds < LATE


def test_a_body_that_raises_resets_its_connections() -> None:
    server = Server().bind()

    def body(peer: socket.socket) -> None:
        with server:
            peer.connect(server.address)
            assert says_back(peer)
            raise LookupError

    with socket.socket() as peer:
        peer.settimeout(5.0)
        with pytest.raises(LookupError):
            body(peer)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
    assert server.stop().forced == 1


def test_wait_runs_out_of_time_while_the_server_serves(echo: Server) -> None:
    with pytest.raises(TimeoutError):
        echo.wait(0.05)
    with pytest.raises(TimeoutError):
        echo.wait(0)
    assert echo.state == "serving"


def test_wait_returns_the_report_of_a_stop_elsewhere() -> None:
    server = Server().start()
    waiting = Background(server.wait)
    wait_until(waiting.asleep)
    report = server.stop()
    assert waiting.result() == report


def test_servers_lists_those_that_run() -> None:
    first, second = Server(), Server()
    assert first not in rsock.servers()
    first.start()
    second.start()
    assert [s for s in rsock.servers() if s in (first, second)] == [first, second]
    first.stop()
    assert first not in rsock.servers()
    assert second in rsock.servers()
    second.stop()
    assert second not in rsock.servers()


def test_stop_all_stops_every_server_and_reports() -> None:
    running = [Server().start() for _ in range(3)]
    with dial(running[0].address) as peer:
        assert says_back(peer)
        reports = rsock.stop_all()
        assert peer.recv(1) == b""
    assert [server.state for server in running] == ["stopped"] * 3
    assert len(reports) == 3
    assert sum(report.drained for report in reports) == 1
    assert rsock.stop_all() == []


def test_stop_all_leaves_a_server_alone_whose_start_has_failed() -> None:
    with Server(transport="udp", workers=2) as holder:
        server = Server(*holder.address, transport="udp", workers=2)
        for _ in range(2):
            with pytest.raises(OSError, match="start .*: Address already in use"):
                server.start()
        assert len(rsock.stop_all()) == 1
        assert (holder.state, server.state) == ("stopped", "new")
    server.start()
    # Once, although it was bound three times.
    assert len(rsock.stop_all()) == 1
    assert server.state == "stopped"


def test_a_name_is_kept_and_one_is_made_up_where_none_is_given() -> None:
    assert Server(name="mine").name == "mine"
    assert Server().name

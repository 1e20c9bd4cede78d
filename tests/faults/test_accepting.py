"""Faults of accepting: connects are refused or not answered, or connections stay in the queue."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import LATE, SOON, Background, fds, output_of, says_back, wait_until

from rsock import (
    Accept,
    ByConnection,
    Client,
    Echo,
    Limits,
    Server,
    SocketOptions,
    StateError,
)
from rsock.faults import AcceptDelay, Fault, Full, Latency, NeverAccept, Refuse

# Within this time a connect to an open listener succeeds, and one to a full one does not.
A_WHILE = 0.3


def echo(conn: Any) -> None:
    while data := conn.recv(1000):
        conn.sendall(data)


SHAPES: dict[str, Callable[[], dict[str, Any]]] = {
    "one worker": lambda: {"workers": 1},
    "two workers": lambda: {"workers": 2},
    "handler": lambda: {"service": echo},
    "accept": lambda: {"service": Accept()},
    "by connection": lambda: {"service": ByConnection(Echo(), rest=echo)},
}
ON_UNIX = ("one worker", "two workers", "handler", "accept")


def on_both(folder: Path) -> tuple[dict[str, Any], ...]:
    """The arguments of a server on TCP, and of one on a Unix socket."""
    return {}, {"path": folder / "s.sock"}


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Starts a server, with a thread that echoes where it is the caller who accepts."""
    with server:
        if isinstance(server.service, Accept):
            threading.Thread(target=accept_all, args=(server,), daemon=True).start()
        yield server


def accept_all(server: Server) -> None:
    with contextlib.suppress(StateError):
        while True:
            conn, _ = server.accept()
            threading.Thread(target=echo_and_close, args=(conn,), daemon=True).start()


def echo_and_close(conn: Any) -> None:
    with conn, contextlib.suppress(OSError):
        echo(conn)


@pytest.fixture(params=[*SHAPES, *(f"unix, {shape}" for shape in ON_UNIX)])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Server]:
    """Makes a server of each shape."""
    shape: str = request.param
    arguments = SHAPES[shape.removeprefix("unix, ")]()
    if shape.startswith("unix, "):
        arguments["path"] = tmp_path / "s.sock"
    return lambda **others: Server(**(arguments | others))


def is_refused(server: Server) -> bool:
    try:
        server.client(timeout=SOON).close()
    except ConnectionRefusedError:
        return True
    return False


def is_full(server: Server) -> bool:
    """Whether a connect is not answered for a while."""
    try:
        server.client(timeout=A_WHILE).close()
    except TimeoutError:
        return True
    return False


def is_open(server: Server) -> bool:
    with server.client(timeout=SOON) as client:
        return says_back(client)


def is_silent(client: Client) -> bool:
    """Whether nothing answers for a while."""
    client.settimeout(A_WHILE)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(SOON)
    return False


def counted(server: Server) -> tuple[int, int]:
    """The connections and the events of the last fault."""
    return server._list_faults()[-1][2:]


def grows(counts: dict[str, int], name: str) -> None:
    """Wait until something happens once more."""
    before = counts[name]
    wait_until(lambda: counts[name] > before, what=name)


class TestRefuse:
    def test_connects_are_refused_while_open_connections_go_on(
        self, make: Callable[..., Server]
    ) -> None:
        with running(make()) as server, server.client(timeout=SOON) as client:
            address, number = server.address, server.fileno()
            for _ in range(3):
                with server.fault(Refuse()):
                    assert is_refused(server)
                    assert says_back(client)
                    assert server.state == "serving"
                    assert "serving" in repr(server)
                assert is_open(server)
                assert (server.address, server.fileno()) == (address, number)
            assert says_back(client)

    def test_it_holds_before_the_first_connect(self, make: Callable[..., Server]) -> None:
        with running(make(faults=[Refuse()])) as server:
            assert is_refused(server)
            assert server.state == "serving"
            assert server.waiting == 0
            assert server._remove_faults([0]) == 1
            assert is_open(server)
            with server.fault(Refuse()):
                assert is_refused(server)
            assert is_open(server)

    def test_connections_that_wait_in_the_queue_are_served(
        self, make: Callable[..., Server]
    ) -> None:
        with running(make()) as server:
            with server.fault(NeverAccept()):
                clients = [server.client(timeout=SOON) for _ in range(5)]
                assert server.waiting == 5
                with server.fault(Refuse()):
                    assert is_refused(server)
                    assert all(says_back(client) for client in clients)
                    assert server.waiting == 0
            for client in clients:
                client.close()
            server.ledger.wait(open=0)
            assert server.ledger.totals.accepted == 5

    def test_what_waits_is_accepted_by_the_next_call(self, tmp_path: Path) -> None:
        for arguments in on_both(tmp_path):
            with Server(service=Accept(), **arguments) as server:
                clients = [server.client(timeout=SOON) for _ in range(3)]
                with server.fault(Refuse()):
                    assert server.waiting == 3
                    conn, _ = server.accept(timeout=SOON)
                    assert is_refused(server)
                    conn.close()
                assert server.waiting == 2
                later = server.client(timeout=SOON)
                for client in (*clients[1:], later):
                    conn, _ = server.accept(timeout=SOON)
                    client.sendall(b"x")
                    assert conn.recv(1) == b"x"
                    conn.close()
                for client in (*clients, later):
                    client.close()

    @pytest.mark.parametrize("chosen", [False, True])
    @pytest.mark.parametrize("at_once", [False, True])
    def test_the_port_stays_the_servers(self, chosen: bool, at_once: bool) -> None:
        port = 0
        if chosen:
            with Server() as before:
                port = before.port
        with Server(port=port, faults=[Refuse()] if at_once else []) as server:
            if not at_once:
                server._add_fault(Refuse())
            port = server.port
            for reuse in (False, True):
                with socket.socket() as other:
                    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                    with pytest.raises(OSError, match="in use"):
                        other.bind(server.address)
            with pytest.raises(OSError, match=f'held by the Server "{server.name}"'):
                Server(port=port).start()
            assert server._remove_faults([0]) == 1
            assert is_open(server)
            assert server.port == port

    def test_the_sockets_options_are_kept(self) -> None:
        options = SocketOptions(max_segment=1472)
        with Server(options=options) as server:
            sizes = []
            for _ in range(2):
                with server.client(timeout=SOON) as client:
                    assert says_back(client, bytes(5_000))
                    info = server.ledger.open[0].tcp_info
                    assert info is not None
                    sizes.append(info.send_mss)
                server.ledger.wait(open=0)
                with server.fault(Refuse()):
                    assert is_refused(server)
            assert sizes == [1460, 1460]
            listener = socket.socket(fileno=os.dup(server.fileno()))
            with listener:
                assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
                assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0

    def test_ipv6_and_both_families(self) -> None:
        for host in ("::1", "::"):
            try:
                server = Server(host).start()
            except OSError:
                pytest.skip("no IPv6")
            with server, server.fault(Refuse()):
                families = [socket.AF_INET6, *([socket.AF_INET] if host == "::" else [])]
                for family in families:
                    loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"
                    with socket.socket(family) as peer:
                        assert peer.connect_ex((loopback, server.port)) == errno.ECONNREFUSED

    def test_the_file_stays_and_goes_with_the_server(self, tmp_path: Path) -> None:
        path = tmp_path / "s.sock"
        with Server(path=path, options=SocketOptions(mode=0o640)) as server:
            inode = path.stat().st_ino
            with server.fault(Refuse()):
                assert path.is_socket()
                assert path.stat().st_mode & 0o777 == 0o640
                with pytest.raises(OSError, match="live socket"):
                    Server(path=path).start()
            assert path.stat().st_ino == inode
            assert os.listdir(tmp_path) == ["s.sock"]
            server._add_fault(Refuse())
        assert os.listdir(tmp_path) == []

    def test_a_path_as_long_as_an_address_can_be(self, tmp_path: Path) -> None:
        folder = tmp_path / ("d" * (100 - len(os.fsencode(tmp_path))))
        folder.mkdir()
        path = folder / "s12345"[: 107 - len(os.fsencode(folder)) - 1]
        assert len(os.fsencode(path)) == 107
        with Server(path=path) as server:
            for fault, holds in ((Refuse(), is_refused), (Full(), is_full)):
                with server.fault(fault):
                    assert holds(server)
                assert is_open(server)

    def test_a_relative_path_after_a_change_of_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with Server(path="s.sock") as server:
            monkeypatch.chdir("/")
            with Client(path=tmp_path / "s.sock", timeout=SOON) as client:
                assert says_back(client)
            for fault, wanted in ((Refuse(), ConnectionRefusedError), (Full(), TimeoutError)):
                with server.fault(fault), pytest.raises(wanted):
                    Client(path=tmp_path / "s.sock", timeout=A_WHILE)

    def test_a_path_that_another_has_taken_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "s.sock"
        with Server(path=path) as server:
            number = server._add_fault(Refuse())
            path.unlink()
            path.write_text("another's")
            server._remove_faults([number])
            assert path.read_text() == "another's"
            # The server's own file is gone, as if it were removed while it listens.
            with pytest.raises(FileNotFoundError):
                server._add_fault(Refuse())
        assert os.listdir(tmp_path) == ["s.sock"]

    def test_a_call_that_waits_gets_the_first_connection_afterwards(self, tmp_path: Path) -> None:
        for arguments in on_both(tmp_path):
            with Server(service=Accept(), **arguments) as server:
                waiting = Background(server.accept)
                wait_until(waiting.asleep)
                with server.fault(Refuse()):
                    assert is_refused(server)
                    later = Background(server.accept)
                    wait_until(later.asleep)
                    assert waiting.running
                    assert server.state == "serving"
                    with pytest.raises(TimeoutError):
                        server.accept(timeout=0.05)
                clients = [server.client(timeout=SOON) for _ in range(2)]
                for call in (waiting, later):
                    call.result()[0].close()
                for client in clients:
                    client.close()

    @pytest.mark.parametrize("workers", [1, 2])
    def test_added_and_removed_under_connects(self, workers: int) -> None:
        counts = {"served": 0, "refused": 0, "lost": 0}
        over = threading.Event()

        def connect() -> None:
            while not over.is_set():
                try:
                    # A SYN between the last accept and the shutdown is repeated after a second.
                    with server.client(timeout=SOON) as client:
                        counts["served" if says_back(client) else "lost"] += 1
                except ConnectionRefusedError:
                    counts["refused"] += 1
                except OSError as error:
                    counts[repr(error)] = counts.get(repr(error), 0) + 1

        with Server(workers=workers) as server:
            threads = [threading.Thread(target=connect) for _ in range(2)]
            for thread in threads:
                thread.start()
            for _ in range(30):
                with server.fault(Refuse()):
                    grows(counts, "refused")
                grows(counts, "served")
            over.set()
            for thread in threads:
                thread.join(SOON)
            del counts["served"], counts["refused"]
            assert counts == {"lost": 0}


class TestFull:
    def test_connects_are_not_answered_while_open_connections_go_on(
        self, make: Callable[..., Server]
    ) -> None:
        with running(make()) as server, server.client(timeout=SOON) as client:
            assert says_back(client)
            for _ in range(2):
                with server.fault(Full()):
                    assert is_full(server)
                    assert says_back(client)
                    assert server.waiting == 0
                    assert server.state == "serving"
                assert is_open(server)
            client.close()
            server.ledger.wait(open=0)
            # No connection of the fault's own enters the ledger.
            assert server.ledger.totals.accepted == 3

    def test_it_holds_before_the_first_connect(self, make: Callable[..., Server]) -> None:
        with running(make(faults=[Full()])) as server:
            assert is_full(server)
            assert server.waiting == 0
            server._remove_faults([0])
            assert is_open(server)

    def test_what_waits_stays_in_the_queue(self, make: Callable[..., Server]) -> None:
        with running(make()) as server:
            with server.fault(NeverAccept()):
                clients = [server.client(timeout=SOON) for _ in range(3)]
                clients[0].sendall(b"early")
                with server.fault(Full()):
                    assert is_full(server)
                    assert server.waiting == 3
                    assert is_silent(clients[0])
            assert clients[0].recv(5) == b"early"
            for client in clients:
                assert says_back(client)
                client.close()

    def test_a_connect_that_waits_succeeds_afterwards(self, tmp_path: Path) -> None:
        for arguments in on_both(tmp_path):
            with Server(**arguments) as server:
                with server.fault(Full()):
                    connect = Background(lambda: server.client(timeout=SOON))
                    wait_until(connect.asleep)
                    assert connect.running
                # TCP tries again after a second or a few.
                with connect.result() as client:
                    assert says_back(client)

    def test_a_unix_client_that_does_not_wait_is_told(self, tmp_path: Path) -> None:
        path = tmp_path / "s.sock"
        with Server(path=path, workers=1) as server, server.fault(Full()):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.setblocking(False)
                assert peer.connect_ex(os.fspath(path)) == errno.EAGAIN

    def test_an_abstract_name(self) -> None:
        name = f"\0rsock-full-{os.getpid()}"
        with Server(path=name) as server:
            with server.fault(Full()):
                assert is_full(server)
            assert is_open(server)


class TestNeverAccept:
    def test_connects_succeed_and_nothing_answers(self, make: Callable[..., Server]) -> None:
        with running(make()) as server:
            with server.fault(NeverAccept()):
                clients = [server.client(timeout=SOON) for _ in range(4)]
                for client in clients:
                    client.sendall(b"hello")
                assert is_silent(clients[0])
                assert server.waiting == 4
                assert server.ledger.totals.accepted == 0
                wait_until(lambda: counted(server) == (4, 4))
            for client in clients:
                assert client.recv_exactly(5) == b"hello"
                client.close()
            wait_until(lambda: server.waiting == 0)

    def test_it_holds_before_the_first_connect(self, make: Callable[..., Server]) -> None:
        with running(make(faults=[NeverAccept()])) as server:
            with server.client(timeout=SOON) as client:
                client.sendall(b"hello")
                assert is_silent(client)
                assert server.waiting == 1
                server._remove_faults([0])
                assert client.recv_exactly(5) == b"hello"

    def test_what_waits_already_is_not_accepted(self) -> None:
        with Server(limits=Limits(connections=1)) as server:
            with server.client(timeout=SOON) as first, server.client(timeout=SOON) as second:
                assert says_back(first)
                second.sendall(b"hello")
                with server.fault(NeverAccept()):
                    first.close()
                    server.ledger.wait(open=0)
                    assert is_silent(second)
                    assert server.waiting == 1
                    wait_until(lambda: counted(server) == (1, 1))
                assert second.recv_exactly(5) == b"hello"

    def test_a_call_that_waits_is_given_the_connection_afterwards(self) -> None:
        with Server(service=Accept()) as server:
            waiting = Background(server.accept)
            wait_until(waiting.asleep)
            with server.fault(NeverAccept()):
                client = server.client(timeout=SOON)
                wait_until(lambda: server.waiting == 1)
                wait_until(waiting.asleep)
                with pytest.raises(TimeoutError):
                    server.accept(timeout=0.05)
                with pytest.raises(TimeoutError):
                    server.accept(timeout=0)
            waiting.result()[0].close()
            client.close()

    @pytest.mark.parametrize("workers", [1, 2])
    def test_the_threads_sleep_meanwhile(self, workers: int) -> None:
        with Server(workers=workers, faults=[NeverAccept()]) as server:
            with server.client(timeout=SOON):
                wait_until(lambda: counted(server) == (1, 1))
                before = time.process_time()
                time.sleep(0.5)
                assert time.process_time() - before < 0.25


class TestAcceptDelay:
    def test_each_connection_waits_from_its_arrival(self, make: Callable[..., Server]) -> None:
        delay = 0.25
        with running(make()) as server, server.fault(AcceptDelay(delay)):
            started, clients = [], []
            for _ in range(3):
                started.append(time.monotonic())
                clients.append(server.client(timeout=SOON))
                clients[-1].sendall(b"x")
                time.sleep(delay / 5)
            assert server.waiting > 0
            took = []
            for client, start in zip(clients, started, strict=True):
                assert client.recv(1) == b"x"
                took.append(time.monotonic() - start)
            assert min(took) >= delay
            # Together they wait one delay, not three.
            assert max(took) < 2 * delay + LATE
            assert counted(server) == (3, 3)
            for client, record in zip(clients, server.ledger.open, strict=True):
                assert [(e.fault, e.action) for e in record.faults] == [
                    (f"acceptdelay:{delay}", "delayed")
                ]
                client.close()

    def test_it_holds_before_the_first_connect(self, make: Callable[..., Server]) -> None:
        with running(make(faults=[AcceptDelay(0.2)])) as server:
            start = time.monotonic()
            assert is_open(server)
            assert time.monotonic() - start >= 0.2
            server._remove_faults([0])
            assert is_open(server)

    def test_removal_serves_at_once_what_waits(self, make: Callable[..., Server]) -> None:
        with running(make()) as server:
            with server.fault(AcceptDelay(3600)):
                client = server.client(timeout=SOON)
                client.sendall(b"x")
                wait_until(lambda: counted(server) == (1, 1))
            assert client.recv(1) == b"x"
            client.close()

    def test_no_delay_at_all(self, make: Callable[..., Server]) -> None:
        with running(make(faults=[AcceptDelay(0)])) as server:
            assert all(is_open(server) for _ in range(20))
            assert counted(server) == (20, 20)

    def test_a_flood_is_delayed_and_served_whole(self, workers: int) -> None:
        delay = 0.3
        with Server(workers=workers, faults=[AcceptDelay(delay)]) as server:
            start = time.monotonic()
            clients = [server.client(timeout=SOON) for _ in range(200)]
            for client in clients:
                client.sendall(b"x")
            assert [client.recv(1) for client in clients] == [b"x"] * 200
            assert time.monotonic() - start >= delay
            assert counted(server) == (200, 200)
            for client in clients:
                client.close()

    def test_at_the_limit_of_connections(self, make: Callable[..., Server]) -> None:
        limits = Limits(connections=1)
        with running(make(limits=limits, faults=[AcceptDelay(0.1)])) as server:
            with server.client(timeout=SOON) as first, server.client(timeout=SOON) as second:
                second.sendall(b"x")
                assert says_back(first)
                assert is_silent(second)
                assert server.waiting == 1
                first.close()
                assert second.recv(1) == b"x"

    def test_time_outs_of_accept(self) -> None:
        with Server(service=Accept(), faults=[AcceptDelay(0.2)]) as server:
            with server.client(timeout=SOON):
                with pytest.raises(TimeoutError):
                    server.accept(timeout=0.02)
                server.accept(timeout=SOON)[0].close()


class TestCombined:
    def test_the_last_one_holds_until_it_is_removed(self, make: Callable[..., Server]) -> None:
        with running(make(faults=[NeverAccept(), Latency(0.001)])) as server:
            refuse = server._add_fault(Refuse())
            assert is_refused(server)
            full = server._add_fault(Full())
            assert is_full(server)
            # One that does not hold goes without an effect.
            assert server._remove_faults([refuse]) == 1
            assert is_full(server)
            again = server._add_fault(Refuse())
            assert is_refused(server)
            assert server._remove_faults([again]) == 1
            assert is_full(server)
            assert server._remove_faults([full]) == 1
            with server.client(timeout=SOON) as client:
                client.sendall(b"x")
                assert is_silent(client)
                assert server.waiting == 1
                delay = server._add_fault(AcceptDelay(0.01))
                assert client.recv(1) == b"x"
                assert server._remove_faults([delay]) == 1
            with server.client(timeout=SOON) as client:
                client.sendall(b"x")
                assert is_silent(client)
                assert server._remove_faults([0]) == 1
                assert client.recv(1) == b"x"

    def test_two_of_a_kind(self, make: Callable[..., Server]) -> None:
        for fault, holds in ((Refuse(), is_refused), (Full(), is_full)):
            with running(make()) as server:
                with server.fault(fault), server.fault(fault):
                    assert holds(server)
                assert is_open(server)

    def test_changes_by_two_threads_under_connects(self, make: Callable[..., Server]) -> None:
        kinds: list[Fault] = [Refuse(), Full(), NeverAccept(), AcceptDelay(0.01)]
        over = threading.Event()
        served: list[bool] = []

        def change(seed: int) -> None:
            numbers = random.Random(seed)
            for _ in range(150):
                with server.fault(numbers.choice(kinds)):
                    with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                        server.client(timeout=0.01).close()

        def connect() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                    with server.client(timeout=0.1) as client:
                        served.append(says_back(client))

        with running(make()) as server:
            connects = Background(connect)
            changes = [Background(change, seed) for seed in range(2)]
            for each in changes:
                each.result(4 * SOON)
            # Between two faults, and at the latest now, clients are served.
            wait_until(lambda: served)
            over.set()
            connects.result()
            assert all(served)
            assert len(server.faults) == 0
            assert is_open(server)
            server.ledger.wait(open=0)
            assert server.waiting == 0

    def test_no_fault_of_accepting_is_a_fault_of_connections(self) -> None:
        with Server(faults=[AcceptDelay(0)]) as server, server.client(timeout=SOON) as client:
            # With stages, a large message is copied. Without, the kernel moves it.
            assert says_back(client, bytes(1 << 20))
            assert [event.action for event in server.ledger.open[0].faults] == ["delayed"]

    def test_the_steps_one_by_one(self, tmp_path: Path) -> None:
        for arguments in on_both(tmp_path):
            server = Server(service=Accept(), **arguments)
            number = server._add_fault(Refuse())
            server.create()
            server.bind()
            assert is_refused(server)
            server.listen()
            assert is_refused(server)
            server._remove_faults([number])
            with server.client(timeout=SOON):
                assert server.waiting == 1
                number = server._add_fault(Full())
                assert is_full(server)
                server._add_fault(Refuse())
                assert is_refused(server)
                server.start()
                assert is_refused(server)
                server.accept(timeout=SOON)[0].close()
                server.stop()

    def test_a_second_start_after_one_that_failed(self, tmp_path: Path) -> None:
        path = tmp_path / "s.sock"
        with Server(path=path):
            server = Server(path=path, faults=[Refuse()])
            with pytest.raises(OSError, match="in use"):
                server.start()
        with server:
            assert is_refused(server)

    @pytest.mark.parametrize("overflow", ["wait", "refuse"])
    def test_at_the_limit_of_connections(self, make: Callable[..., Server], overflow: str) -> None:
        limits = Limits(connections=1, overflow=overflow)  # type: ignore[arg-type]
        with running(make(limits=limits)) as server:
            for fault, holds in ((Refuse(), is_refused), (Full(), is_full)):
                with server.client(timeout=SOON) as client:
                    assert says_back(client)
                    with server.fault(fault):
                        assert holds(server)
                        assert says_back(client)
                server.ledger.wait(open=0)
                assert is_open(server)
                server.ledger.wait(open=0)

    def test_connections_beyond_the_limit_are_served_later(self) -> None:
        with Server(limits=Limits(connections=2)) as server:
            clients = [server.client(timeout=SOON) for _ in range(5)]
            for client in clients:
                client.sendall(b"x")
            assert clients[0].recv(1) == b"x"
            with server.fault(Refuse()):
                assert server.waiting == 3
                assert is_refused(server)
                for client in clients:
                    if client is not clients[0]:
                        assert client.recv(1) == b"x"
                    client.close()
                server.ledger.wait(open=0)
            assert is_open(server)


class TestStop:
    @pytest.mark.parametrize("fault", [Refuse(), Full(), NeverAccept(), AcceptDelay(3600)])
    @pytest.mark.parametrize("drain", [0.0, 1.0])
    def test_in_each_state(self, make: Callable[..., Server], fault: Fault, drain: float) -> None:
        before = fds()
        with running(make(faults=[fault])) as server:
            start = time.monotonic()
            server.stop(drain)
            assert time.monotonic() - start < LATE
            assert server.state == "stopped"
            assert server.waiting == 0
        wait_until(lambda: not fds() - before)

    def test_connections_that_are_never_accepted_are_reset(
        self, make: Callable[..., Server]
    ) -> None:
        with running(make(faults=[NeverAccept()])) as server:
            clients = [server.client(timeout=SOON) for _ in range(3)]
            wait_until(lambda: server.waiting == 3)
            report = server.stop(drain=0.2)
            assert (report.drained, report.forced) == (0, 3)
            for client in clients:
                # A Unix socket without unread data ends without an error.
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""
                client.close()

    def test_connections_that_wait_for_a_time_are_served_at_once(self, tmp_path: Path) -> None:
        for arguments in ({"workers": 2}, *on_both(tmp_path)):
            with Server(faults=[AcceptDelay(3600)], **arguments) as server:
                clients = [server.client(timeout=SOON) for _ in range(3)]
                for client in clients:
                    client.sendall(b"x")
                wait_until(lambda: server.waiting == 3)
                report = server.stop(drain=5)
                assert (report.drained, report.forced) == (3, 0)
                for client in clients:
                    assert (client.recv(1), client.recv(1)) == (b"x", b"")
                    client.close()

    def test_a_call_that_waits_is_told(self) -> None:
        for fault in (Refuse(), Full(), NeverAccept(), AcceptDelay(3600)):
            with Server(service=Accept(), faults=[fault]) as server:
                client = None
                if isinstance(fault, NeverAccept | AcceptDelay):
                    client = server.client(timeout=SOON)
                call = Background(server.accept)
                wait_until(call.asleep)
                server.stop(drain=0.1)
                with pytest.raises(StateError):
                    call.result()
                if client is not None:
                    client.close()

    def test_a_fault_of_a_server_that_has_stopped(self) -> None:
        server = Server().start()
        server.stop()
        with pytest.raises(StateError):
            server.faults.add(Refuse())


class TestForks:
    COMMON = """
import os, sys, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from rsock import Server
from rsock.faults import *

def forked():
    # A child that ends at once, as a script does.
    child = os.fork()
    if child == 0:
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0

def open_to_all(server):
    with server.client(timeout=15) as client:
        client.sendall(b"x")
        return client.recv(1) == b"x"

where = {"path": sys.argv[1]} if sys.argv[1:] else {}
"""

    @pytest.mark.parametrize("unix", [False, True])
    @pytest.mark.parametrize("fault", [Refuse(), Full(), NeverAccept(), AcceptDelay(0.2)])
    def test_a_child_changes_nothing(self, fault: Fault, unix: bool, tmp_path: Path) -> None:
        code = f"""
fault = {fault!r}
with Server(**where) as server:
    number = server._add_fault(fault)
    forked()
    if not isinstance(fault, AcceptDelay):
        try:
            with server.client(timeout=0.3) as client:
                client.sendall(b"x")
                client.recv(1)
        except OSError as error:
            print(type(error).__name__)
    # A child that stays has copies of everything.
    child = os.fork()
    if child == 0:
        import signal
        signal.pause()
    server._remove_faults([number])
    print(open_to_all(server))
    number = server._add_fault(fault)
    server._remove_faults([number])
    print(open_to_all(server))
    server._add_fault(fault)
try:
    server.client(timeout=5)
except OSError as error:
    print(type(error).__name__)
except RuntimeError as error:
    print("StateError" in repr(type(error)))
os.kill(child, 9)
os.waitpid(child, 0)
"""
        args = [str(tmp_path / "s.sock")] if unix else []
        said = output_of(self.COMMON + code, *args).split()
        first = {Refuse: ["ConnectionRefusedError"], AcceptDelay: []}
        assert said[:-1] == [*first.get(type(fault), ["TimeoutError"]), "True", "True"]


class TestErrors:
    def test_a_socket_of_others_is_not_changed(self, tmp_path: Path) -> None:
        for fault in (Refuse(), Full()):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                with pytest.raises(ValueError, match="given by fd="):
                    Server(fd=listener.fileno(), faults=[fault])
                with Server(fd=os.dup(listener.fileno())) as server:
                    with pytest.raises(ValueError, match="given by fd="):
                        server._add_fault(fault)
                    assert server._list_faults() == []
                    assert is_open(server)

    def test_faults_that_a_socket_of_others_can_have(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            with Server(fd=os.dup(listener.fileno()), faults=[NeverAccept()]) as server:
                with server.client(timeout=SOON) as client:
                    client.sendall(b"x")
                    assert is_silent(client)
                    number = server._add_fault(AcceptDelay(0))
                    assert client.recv(1) == b"x"
                    server._remove_faults([number])
                with server.client(timeout=SOON):
                    # Another owner accepts what this one leaves.
                    listener.accept()[0].close()
                    wait_until(lambda: server.waiting == 0)
                    server._remove_faults([0])
                assert is_open(server)

    def test_a_listener_that_is_handed_over(self) -> None:
        with Server() as server:
            for fault in (Refuse(), Full()):
                with server.fault(fault), pytest.raises(StateError, match="remove the fault"):
                    server.hand_over()
            other = server.hand_over()
            try:
                for fault in (Refuse(), Full()):
                    with pytest.raises(ValueError, match="handed over"):
                        server._add_fault(fault)
                assert server._list_faults() == []
                assert is_open(server)
            finally:
                os.close(other)

    def test_a_port_that_cannot_be_listened_on_again(self) -> None:
        options = SocketOptions(reuse_address=False)
        with pytest.raises(ValueError, match=r"reuse_address=True"):
            Server(options=options, faults=[Refuse()])
        with Server(options=options) as server:
            with pytest.raises(ValueError, match=r"reuse_address=True"):
                server._add_fault(Refuse())
            assert is_open(server)

    def test_an_abstract_name_cannot_refuse(self) -> None:
        name = f"\0rsock-refuse-{os.getpid()}"
        with pytest.raises(ValueError, match="abstract"):
            Server(path=name, faults=[Refuse()]).start()
        with Server(path=name) as server:
            with pytest.raises(ValueError, match="abstract"):
                server._add_fault(Refuse())
            assert server._list_faults() == []
            assert is_open(server)

    def test_a_directory_that_cannot_be_written(self, tmp_path: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        with Server(path=tmp_path / "s.sock") as server:
            tmp_path.chmod(0o500)
            try:
                with pytest.raises(PermissionError):
                    server._add_fault(Refuse())
                assert is_open(server)
            finally:
                tmp_path.chmod(0o700)

    def test_datagrams_have_no_queue_of_connections(self) -> None:
        for fault in (Refuse(), Full(), NeverAccept(), AcceptDelay(1)):
            with pytest.raises(ValueError, match="datagrams"):
                Server(transport="udp", faults=[fault])

    @pytest.mark.parametrize("unix", [False, True])
    @pytest.mark.parametrize("fault", [Refuse(), Full(), AcceptDelay(0.1)])
    def test_out_of_descriptors(self, fault: Fault, unix: bool, tmp_path: Path) -> None:
        code = f"""
import os, resource, sys
from rsock import Server
from rsock.faults import *

where = {{"path": sys.argv[1]}} if sys.argv[1:] else {{}}
fault = {fault!r}
with Server(**where) as server, server.client(timeout=15) as client:
    client.sendall(b"x")
    client.recv(1)
    # One descriptor more each time, until there are enough.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    failures = 0
    while True:
        try:
            number = server._add_fault(fault)
            break
        except OSError as error:
            assert error.errno == 24, error
            failures += 1
            assert server._list_faults() == []
        os.close(taken.pop())
    for number_of in taken:
        os.close(number_of)
    server._remove_faults([number])
    print(failures > 0)
    client.sendall(b"y")
    print(client.recv(1) == b"y")
    with server.client(timeout=15) as other:
        other.sendall(b"z")
        print(other.recv(1) == b"z")
print(os.listdir(os.path.dirname(sys.argv[1])) if where else [])
"""
        args = [str(tmp_path / "s.sock")] if unix else []
        # The filter of a full TCP listener takes none.
        fails = str(unix or not isinstance(fault, Full))
        assert output_of(code, *args).split() == [fails, "True", "True", "[]"]

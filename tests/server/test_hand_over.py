"""A listening socket with several owners: handed on, or shut down by another owner."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    LATE,
    SOON,
    Background,
    Script,
    dial,
    dial_path,
    output_of,
    says_back,
    wait_until,
)

from rsock import Accept, Echo, Forward, Limits, Server, StateError

TRANSPORTS = ("tcp", "unix", "udp")


def upper_stream(conn: Any) -> None:
    while data := conn.recv(100):
        conn.sendall(data.upper())


def upper_datagram(data: bytes, _address: Any) -> bytes:
    return data.upper()


def upper_for(transport: str) -> Callable[..., Any]:
    return upper_datagram if transport == "udp" else upper_stream


def arguments(transport: str, folder: Path) -> dict[str, Any]:
    if transport == "unix":
        return {"path": folder / "x.sock"}
    return {"transport": transport}


def reach(server: Server, address: Any) -> socket.socket:
    """A plain client of the address."""
    if server.transport == "tcp":
        return dial(address)
    if server.transport == "unix":
        return dial_path(address)
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.settimeout(SOON)
    peer.connect(address)
    return peer


@contextlib.contextmanager
def handed_over(server: Server) -> Iterator[int]:
    """The descriptor of the next server, which is closed if no server has taken it."""
    number = server.hand_over()
    try:
        yield number
    finally:
        with contextlib.suppress(OSError):
            os.close(number)


# A server on a descriptor that it inherits, until its input ends.
NEXT = """
import sys
from rsock import Server

def stream(conn):
    while data := conn.recv(100):
        conn.sendall(b"next:" + data)

def datagram(data, address):
    return b"next:" + data

transport = sys.argv[1]
handler = datagram if transport == "udp" else stream
with Server(fd=int(sys.argv[2]), transport=transport, service=handler) as server:
    print("serving", flush=True)
    sys.stdin.read()
    print(server.state, flush=True)
"""


@pytest.mark.parametrize("service", ["echo", "handler"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_another_process_serves_on_after_the_stop(
    transport: str, service: str, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        server = Server(
            service=Echo() if service == "echo" else upper_for(transport),
            **arguments(transport, tmp_path),
        ).start()
        address = server.address
        stack.callback(server.stop, 0)
        with reach(server, address) as peer:
            peer.sendall(b"HELLO")
            assert peer.recv(100) == b"HELLO"
        number = server.hand_over()
        child = stack.enter_context(Script(NEXT, transport, str(number), pass_fds=(number,)))
        assert child.line() == "serving"
        os.close(number)
        assert server.state == "serving"
        assert server.stop().cause == "stop"
        for _ in range(5):
            with reach(server, address) as peer:
                peer.sendall(b"hello")
                assert peer.recv(100) == b"next:hello"
        if transport == "unix":
            assert Path(str(address)).is_socket()
        assert child.process.stdin is not None
        child.process.stdin.close()
        child.process.stdin = None
        assert child.line() == "serving"


@pytest.mark.parametrize("drain", [0, None])
@pytest.mark.parametrize(
    "service", [Echo(), Accept(), upper_stream], ids=["echo", "accept", "handler"]
)
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_connections_in_the_queue_are_left_to_the_next_server(
    transport: str, service: Any, drain: float | None, tmp_path: Path
) -> None:
    server = Server(service=service, **arguments(transport, tmp_path)).listen()
    with contextlib.ExitStack() as stack:
        number = stack.enter_context(handed_over(server))
        address = server.address
        # Not served yet, so that all of them wait.
        peers = [stack.enter_context(reach(server, address)) for _ in range(5)]
        assert server.stop(drain).forced == 0
        following = stack.enter_context(Server(fd=os.dup(number)))
        assert all(says_back(peer) for peer in peers)
        following.ledger.wait(open=5)


@pytest.mark.parametrize("service", [Accept(), upper_stream], ids=["accept", "handler"])
def test_a_serving_server_leaves_its_queue_when_it_is_full(service: Any) -> None:
    """With `Limits.connections` reached, the others wait in the queue."""
    server = Server(service=service, limits=Limits(connections=1)).start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop, 0)
        first = stack.enter_context(dial(server.address))
        if isinstance(service, Accept):
            conn, _ = server.accept(SOON)
            stack.enter_context(conn)
        server.ledger.wait(open=1)
        number = stack.enter_context(handed_over(server))
        waiting = [stack.enter_context(dial(server.address)) for _ in range(3)]
        wait_until(lambda: server.waiting == 3)
        report = server.stop(0)
        assert report.forced <= 1
        first.close()
        stack.enter_context(Server(fd=os.dup(number)))
        assert all(says_back(peer) for peer in waiting)


@pytest.mark.parametrize(
    "service", [Echo(), Accept(), upper_datagram], ids=["echo", "accept", "handler"]
)
def test_datagrams_in_the_queue_are_left_to_the_next_server(service: Any) -> None:
    server = Server(transport="udp", service=service).bind()
    with contextlib.ExitStack() as stack:
        number = stack.enter_context(handed_over(server))
        peer = stack.enter_context(reach(server, server.address))
        peer.send(b"queued")
        server.stop()
        stack.enter_context(Server(fd=os.dup(number), transport="udp"))
        assert peer.recv(100) == b"queued"


@pytest.mark.parametrize("service", [Echo(), upper_datagram], ids=["echo", "handler"])
def test_no_datagram_of_our_own_reaches_a_service_or_the_next_owner(service: Any) -> None:
    seen = []

    def note(data: bytes, address: Any) -> bytes:
        seen.append(data)
        return data.upper()

    with Server(transport="udp", service=note if callable(service) else service) as server:
        with reach(server, server.address) as peer:
            peer.send(b"ONE")
            assert peer.recv(100) == b"ONE"
            # Its thread waits in the receive call again.
            with handed_over(server) as number, socket.socket(fileno=os.dup(number)) as shared:
                with pytest.raises(BlockingIOError):
                    shared.recv(100, socket.MSG_DONTWAIT)
            peer.send(b"TWO")
            assert peer.recv(100) == b"TWO"
        assert server.ledger.totals.accepted == 1
        assert len(server.ledger.open) == 1
        assert seen in ([], [b"ONE", b"TWO"])


@pytest.mark.parametrize(
    "service", [Echo(), Accept(), upper_datagram], ids=["echo", "accept", "handler"]
)
def test_a_udp_server_that_waits_for_a_datagram_stops_after_it_was_handed_over(
    service: Any,
) -> None:
    server = Server(transport="udp", service=service).start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop, 0)
        if isinstance(service, Accept):
            waiting = Background(server.accept)
            wait_until(waiting.asleep)
        number = stack.enter_context(handed_over(server))
        assert server.stop(LATE).seconds < LATE
        if isinstance(service, Accept):
            with pytest.raises(StateError):
                waiting.result()
        shared = stack.enter_context(socket.socket(fileno=os.dup(number)))
        shared.settimeout(SOON)
        with reach(server, server.address) as peer:
            peer.send(b"for the other owner")
            assert shared.recv(100) == b"for the other owner"


# Tries to hand a server over with 0, 1 and 2 free descriptors. Afterwards it serves, and stops.
FEW = """
import json, os, resource, sys
from rsock import Server

def outcome(transport, free):
    server = Server(transport=transport).start()
    with server.client(timeout=5) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    server.ledger.wait(open=0) if transport == "tcp" else None
    held = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    for _ in range(free):
        os.close(held.pop())
    try:
        held.append(server.hand_over())
        said = "handed over"
    except OSError as error:
        said = error.errno
    for number in held:
        os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with server.client(timeout=5) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    assert server.stop().seconds < 5
    return said

said = {kind: [outcome(kind, free) for free in (0, 1, 2, 5)] for kind in ("tcp", "udp")}
print(json.dumps(said))
"""


def test_a_server_that_could_not_be_handed_over_serves_and_stops() -> None:
    said = json.loads(output_of(FEW))
    assert said["tcp"] == [errno.EMFILE] + ["handed over"] * 3
    assert (said["udp"][0], said["udp"][-1]) == (errno.EMFILE, "handed over")


def test_a_server_that_was_handed_over_goes_on_serving(echo: Server) -> None:
    with handed_over(echo), dial(echo.address) as peer:
        assert says_back(peer)
        assert echo.state == "serving"


def test_handing_over_again_gives_another_descriptor(echo: Server) -> None:
    with handed_over(echo) as one, handed_over(echo) as two:
        assert one != two
        assert os.fstat(one).st_ino == os.fstat(two).st_ino == os.fstat(echo.fileno()).st_ino
        assert not os.get_inheritable(one)


def test_there_is_nothing_to_hand_over_before_the_bind_and_after_the_stop() -> None:
    server = Server()
    with pytest.raises(StateError, match="before bind"):
        server.hand_over()
    server.start()
    server.stop()
    with pytest.raises(StateError, match="closed"):
        server.hand_over()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_given_a_descriptor_hands_it_over_too(transport: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        first = Server(**arguments(transport, tmp_path)).start()
        second = Server(fd=first.hand_over(), transport=transport).start()
        first.stop()
        third = stack.enter_context(Server(fd=second.hand_over(), transport=transport))
        second.stop()
        with reach(third, first.address) as peer:
            assert says_back(peer)


def test_no_client_is_refused_while_servers_follow_each_other() -> None:
    server = Server().start()
    address = server.address
    served = []
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: server.stop(0))
        done = False

        def knock() -> None:
            while not done:
                with dial(address) as peer:
                    assert says_back(peer)
                served.append(1)

        clients = [Background(knock) for _ in range(2)]
        for _ in range(5):
            count = len(served)
            following = Server(fd=server.hand_over()).start()
            server.stop()
            server = following
            wait_until(lambda count=count: len(served) > count + 2)  # type: ignore[misc]
        done = True
        for client in clients:
            client.result()


# --- shut down by another owner ------------------------------------------------------------


def services(transport: str) -> dict[str, dict[str, Any]]:
    return {
        "one worker": {"service": Echo(), "workers": 1},
        "workers": {"service": Echo(), "workers": 2},
        "handler": {"service": upper_for(transport)},
        "accept": {"service": Accept()},
    }


def shut_by_another(number: int, how: int = socket.SHUT_RDWR) -> None:
    """shutdown(2) by a process that shares the socket."""
    with socket.socket(fileno=os.dup(number)) as other, contextlib.suppress(OSError):
        # ENOTCONN on UDP, which Linux shuts down all the same.
        other.shutdown(how)


@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
@pytest.mark.parametrize("service", ["one worker", "workers", "handler", "accept"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_listener_shut_down_by_another_owner_ends_the_server(
    transport: str, service: str, given: bool, tmp_path: Path
) -> None:
    own = arguments(transport, tmp_path)
    with contextlib.ExitStack() as stack:
        if given:
            family = socket.AF_UNIX if transport == "unix" else socket.AF_INET
            kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
            plain = stack.enter_context(socket.socket(family, kind))
            plain.bind(str(own["path"]) if transport == "unix" else ("127.0.0.1", 0))
            own = {"fd": os.dup(plain.fileno()), "transport": transport}
        chosen = services(transport)[service]
        if transport == "udp" and given:
            # Others would need SO_REUSEPORT on the socket that is given.
            chosen.pop("workers", None)
        server = Server(**own, **chosen).start()
        stack.callback(server.stop, 0)
        shut_by_another(server.fileno())
        assert server.wait(SOON).cause == "accept error"
        assert server.state == "stopped"
        assert server.stop().cause == "accept error"


def test_a_udp_forwarder_notices_the_shutdown_too() -> None:
    with Server(transport="udp") as target:
        server = Server(transport="udp", service=Forward(*target.address)).start()
        shut_by_another(server.fileno(), socket.SHUT_RD)
        assert server.wait(SOON).cause == "accept error"


def test_a_server_at_its_limit_notices_the_shutdown_too() -> None:
    server = Server(service=upper_stream, limits=Limits(connections=1), drain=0).start()
    with dial(server.address):
        server.ledger.wait(open=1)
        shut_by_another(server.fileno())
        assert server.wait(SOON).cause == "accept error"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call_that_waits_for_a_client_raises(transport: str, tmp_path: Path) -> None:
    server = Server(service=Accept(), **arguments(transport, tmp_path)).start()
    waiting = Background(server.accept)
    wait_until(waiting.asleep)
    shut_by_another(server.fileno())
    with pytest.raises(OSError, match="accept"):
        waiting.result()
    assert server.wait(SOON).cause == "accept error"
    with pytest.raises(OSError, match="accept"):
        server.accept(SOON)


@pytest.mark.parametrize("service", ["one worker", "workers", "handler"])
def test_connections_queued_on_a_path_are_served_before_the_end(
    service: str, tmp_path: Path
) -> None:
    server = Server(path=tmp_path / "x.sock", **services("unix")[service]).listen()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop, 0)
        peers = [stack.enter_context(dial_path(str(server.address))) for _ in range(3)]
        for peer in peers:
            peer.sendall(b"HELLO")
        shut_by_another(server.fileno())
        server.start()
        for peer in peers:
            assert peer.recv(100) == b"HELLO"
            peer.close()
        assert server.wait(SOON).cause == "accept error"


@pytest.mark.parametrize("service", [Echo(), upper_datagram], ids=["echo", "handler"])
def test_another_owner_that_makes_a_udp_socket_non_blocking_costs_no_cpu_time(service: Any) -> None:
    with Server(transport="udp", service=service) as server:
        with socket.socket(fileno=os.dup(server.fileno())) as other:
            other.setblocking(False)
        with reach(server, server.address) as peer:
            peer.send(b"HELLO")
            assert peer.recv(100) == b"HELLO"
        before = time.process_time()
        end = time.monotonic() + 0.5
        wait_until(lambda: time.monotonic() >= end)
        assert time.process_time() - before < 0.25

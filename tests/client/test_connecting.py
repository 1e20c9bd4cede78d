"""Connecting: names with several addresses, servers not there yet, sources, self-connects."""

from __future__ import annotations

import errno
import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from support import (
    LATE,
    LOOPBACK,
    SOON,
    Background,
    Script,
    closed_port,
    full_listener,
    has_ipv6,
    output_of,
    reserved_port,
    says_back,
    wait_until,
)
from support.namespaces import LOOPBACK_UP, alone

from rsock import Client, Forward, Server, wait_for

ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")

# `both.test` has an address of each family, `many.test` several.
HOSTS = """\
127.0.0.1 localhost both.test many.test
::1 both.test
127.0.0.2 many.test
127.0.0.3 many.test
127.0.0.4 many.test
"""
# What the programs below share: listeners that answer, and that swallow SYNs.
PEERS = (
    LOOPBACK_UP
    + """
import contextlib, json, os, select, signal, socket, sys, threading, time
from rsock import Client, Forward, Server

def listening(host, port=0, backlog=16):
    plain = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    plain.bind((host, port))
    plain.listen(backlog)
    return plain

def swallowing(stack, host, port=0):
    plain = stack.enter_context(listening(host, port, 0))
    for _ in range(20):
        peer = stack.enter_context(socket.socket(plain.family))
        peer.setblocking(False)
        peer.connect_ex(plain.getsockname())
        if not select.select([], [peer], [], 0.1)[1]:
            return plain.getsockname()[1]
    raise AssertionError("the queue of a listener has no end here")

def all_swallowing(stack, hosts):
    port = swallowing(stack, hosts[0])
    for host in hosts[1:]:
        swallowing(stack, host, port)
    return port

def addresses(name):
    return [entry[4][0] for entry in socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)]

def echoed(stream):
    stream.sendall(b"hello")
    return stream.recv(5) == b"hello"

def descriptors():
    return len(os.listdir("/proc/self/fd"))

def at_most(most):
    # The thread of the resolver, and a server's worker, may be about to close theirs.
    end = time.monotonic() + 10
    while descriptors() > most and time.monotonic() < end:
        time.sleep(0.01)
    return descriptors() <= most

said = {}
"""
)
SAY = "\nprint(json.dumps(said))\n"


def said_alone(folder: Path, code: str) -> dict[str, Any]:
    """What a program says that runs in a network of its own."""
    said = json.loads(output_of(PEERS + code + SAY, prefix=alone(folder, HOSTS)))
    assert isinstance(said, dict)
    return said


# --- several addresses ---------------------------------------------------------------------


@ipv6
def test_an_address_that_does_not_answer_delays_the_next_one_by_little(tmp_path: Path) -> None:
    said = said_alone(
        tmp_path,
        """
for silent, answering in (("::1", "127.0.0.1"), ("127.0.0.1", "::1")):
    with contextlib.ExitStack() as stack:
        port = swallowing(stack, silent)
        stack.enter_context(Server(answering, port))
        for timeout in (2.0, 0.4, None):
            before, began = descriptors(), time.monotonic()
            with Client("both.test", port, timeout=timeout) as client:
                took = time.monotonic() - began
                said[f"{silent} {timeout}"] = [
                    client.getpeername()[0] == answering, echoed(client), took < 1.5,
                    client.gettimeout() == timeout, at_most(before + 2),
                    client.record.remote.host == answering,
                ]
""",
    )
    assert len(said) == 6
    # The descriptors of the client, and of the server's side.
    wrong = {name: one for name, one in said.items() if one != [True] * 6}
    assert wrong == {}


def test_each_of_several_silent_addresses_has_its_share(tmp_path: Path) -> None:
    said = said_alone(
        tmp_path,
        """
order = addresses("many.test")
with contextlib.ExitStack() as stack:
    port = all_swallowing(stack, order[:-1])
    stack.enter_context(Server(order[-1], port))
    for timeout in (2.0, 0.8):
        with Client("many.test", port, timeout=timeout) as client:
            said[str(timeout)] = [len(order), client.getpeername()[0] == order[-1], echoed(client)]
""",
    )
    assert said == {"2.0": [4, True, True], "0.8": [4, True, True]}


def test_a_name_none_of_whose_addresses_answers_is_a_time_out_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    said = said_alone(
        tmp_path,
        """
with contextlib.ExitStack() as stack:
    port = all_swallowing(stack, ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"])
    server = stack.enter_context(Server("127.0.0.1"))
    client = stack.enter_context(Client(timeout=0.5))
    before = descriptors()
    began = time.monotonic()
    try:
        client.connect(("many.test", port))
    except TimeoutError as error:
        said["text"] = str(error)
    said["took"] = 0.3 < time.monotonic() - began < 5.0
    said["left"] = not at_most(before)
    client.connect(server.address)
    said["usable"] = echoed(client)

    def interrupt():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    client = stack.enter_context(Client(timeout=30.0))
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        client.connect(("many.test", port))
    except KeyboardInterrupt:
        said["interrupted"] = time.monotonic() - began < 20.0
    thread.join()
    client.connect(server.address)
    said["usable after Ctrl-C"] = echoed(client)

    client = stack.enter_context(Client(timeout=30.0))
    threading.Timer(0.6, client.close).start()
    try:
        client.connect(("many.test", port))
    except OSError as error:
        said["closed"] = [error.errno, time.monotonic() - began < 25.0]
""",
    )
    text = said.pop("text")
    assert "connect many.test:" in text
    assert "timed out" in text
    assert said == {
        "took": True,
        "left": False,
        "usable": True,
        "interrupted": True,
        "usable after Ctrl-C": True,
        "closed": [errno.EBADF, True],
    }


def test_addresses_that_refuse_are_passed_at_once(tmp_path: Path) -> None:
    said = said_alone(
        tmp_path,
        """
order = addresses("many.test")
with Server(order[-1]) as server:
    with Client("many.test", server.port, timeout=5.0) as client:
        said["reached"] = echoed(client)
    with Client(timeout=5.0) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        number = client.fileno()
        client.connect(("many.test", server.port))
        said["option"] = client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        said["number"] = client.fileno() == number
        said["in use"] = client.connect_ex(("many.test", server.port))
    with Client("many.test", server.port, timeout=5.0, source_address=("127.0.0.9", 0)) as client:
        said["source"] = client.getsockname()[0]
try:
    Client("many.test", server.port, timeout=5.0)
except ConnectionRefusedError as error:
    said["refused"] = f"connect many.test:{server.port} ({order[0]}:{server.port})" in str(error)
""",
    )
    assert said == {
        "reached": True,
        "option": 1,
        "number": True,
        "in use": errno.EISCONN,
        "source": "127.0.0.9",
        "refused": True,
    }


def test_a_source_port_is_used_for_one_address_after_the_other(tmp_path: Path) -> None:
    """Two sockets cannot have it at once, so each address has its share of the time."""
    said = said_alone(
        tmp_path,
        """
order = addresses("many.test")
with contextlib.ExitStack() as stack:
    port = swallowing(stack, order[0])
    stack.enter_context(Server(order[1], port))
    source = ("127.0.0.9", 20_000)
    with Client("many.test", port, timeout=2.0, source_address=source) as client:
        said["reached"] = [client.getpeername()[0] == order[1], echoed(client)]
        said["source"] = client.getsockname()[0:2] == source
""",
    )
    assert said == {"reached": [True, True], "source": True}


def test_a_socket_that_lost_the_race_delays_nothing(tmp_path: Path) -> None:
    """Whose close would wait for its peer: SO_LINGER."""
    said = said_alone(
        tmp_path,
        """
from rsock import SocketOptions
with contextlib.ExitStack() as stack:
    port = swallowing(stack, "127.0.0.1")
    stack.enter_context(Server("127.0.0.4", port))
    began = time.monotonic()
    client = Client("many.test", port, timeout=20.0, options=SocketOptions(linger=15))
    said["took"] = time.monotonic() - began < 10.0
    said["linger"] = client.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)[4]
    client.close()
""",
    )
    assert said == {"took": True, "linger": 15}


def test_a_process_with_few_descriptors_tries_one_address_after_the_other(tmp_path: Path) -> None:
    said = said_alone(
        tmp_path,
        """
import resource
order = addresses("many.test")
with Server(order[-1]) as server, Client(timeout=5.0) as client:
    # The resolver needs some, and closes them before the connect.
    held = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    for left in range(6, 0, -1):
        try:
            for _ in range(left):
                os.close(held.pop())
            client.connect(("many.test", server.port))
            said["reached"] = echoed(client)
            break
        except OSError as error:
            said.setdefault("errors", []).append(error.errno)
    for number in held:
        os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
""",
    )
    assert said["reached"] is True


@ipv6
def test_a_forwarder_passes_an_address_that_does_not_answer(tmp_path: Path) -> None:
    said = said_alone(
        tmp_path,
        """
for silent, answering in (("::1", "127.0.0.1"), ("127.0.0.1", "::1")):
    with contextlib.ExitStack() as stack:
        port = swallowing(stack, silent)
        target = stack.enter_context(Server(answering, port))
        forward = stack.enter_context(Server(service=Forward("both.test", port)))
        began = time.monotonic()
        clients = [stack.enter_context(forward.client(timeout=10.0)) for _ in range(3)]
        said[silent] = [all(map(echoed, clients)), time.monotonic() - began < 3.0]
        forward.ledger.wait(open=3)
        far = [record.far.remote.host == answering for record in forward.ledger.open]
        said[silent].append(all(far))
        for client in clients:
            client.close()
        forward.ledger.wait(open=0)
        target.ledger.wait(open=0, closed=3)
""",
    )
    assert said == {"::1": [True, True, True], "127.0.0.1": [True, True, True]}


def test_a_forwarder_gives_each_of_several_silent_addresses_its_share(tmp_path: Path) -> None:
    said = said_alone(
        tmp_path,
        """
order = addresses("many.test")
with contextlib.ExitStack() as stack:
    port = all_swallowing(stack, order[:-1])
    forward = stack.enter_context(Server(service=Forward("many.test", port, connect_timeout=1.5)))
    before = descriptors()
    began = time.monotonic()
    with forward.client(timeout=10.0) as client:
        try:
            said["refused"] = client.recv(1)
        except ConnectionResetError:
            said["refused"] = "reset"
    said["late"] = time.monotonic() - began
    [record] = forward.ledger.wait(open=0, closed=1)
    said["error"] = record.error
    said["left"] = not at_most(before)
    target = stack.enter_context(Server(order[-1], port))
    before = descriptors()
    with forward.client(timeout=10.0) as client:
        said["reached"] = echoed(client)
    forward.ledger.wait(open=0)
    target.ledger.wait(open=0, closed=1)
    said["left after"] = not at_most(before)
""",
    )
    assert 0.5 < said.pop("late") < 10.0
    assert said.pop("error").startswith("connect 127.0.0.")
    assert said == {"refused": "reset", "left": False, "reached": True, "left after": False}


# --- a connection of a socket to itself ----------------------------------------------------

# Two ports for the system to choose from, so that one in two connects finds itself.
NARROW = """
PORTS = (40_000, 40_001)
with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as range_:
    range_.write("40000 40001")

def bindable(port):
    # As a server does. A port in TIME-WAIT of a socket without SO_REUSEADDR cannot be bound.
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            plain.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno
    return True

def outcome(call):
    try:
        call().close()
        return "connected"
    except OSError as error:
        return type(error).__name__
"""


@pytest.mark.parametrize("timeout", [5.0, None, 0])
def test_a_client_never_connects_to_itself(tmp_path: Path, timeout: float | None) -> None:
    said = said_alone(
        tmp_path,
        NARROW
        + f"""
outcomes, free = set(), set()
for _ in range(20):
    for port in PORTS:
        def call():
            client = Client(timeout={timeout})
            try:
                client.connect(("127.0.0.1", port))
            except BlockingIOError:
                select.select([], [client], [], 5)
                client.connect(("127.0.0.1", port))
            finally:
                local = client.getsockname()
            assert client.getpeername() != local, local
            return client
        outcomes.add(outcome(call))
        free.add(bindable(port))
said.update(outcomes=sorted(outcomes), free=sorted(free))
""",
    )
    assert said == {"outcomes": ["ConnectionRefusedError"], "free": [True]}


def test_a_client_of_a_name_never_connects_to_itself(tmp_path: Path) -> None:
    said = said_alone(
        tmp_path,
        NARROW
        + """
outcomes = {outcome(lambda: Client("many.test", port, timeout=5)) for port in PORTS * 20}
outcomes |= {outcome(lambda: Client("0.0.0.0", port, timeout=5)) for port in PORTS * 20}
outcomes |= {outcome(lambda: Client("127.0.0.1", port, retry=0.05)) for port in PORTS * 5}
said.update(outcomes=sorted(outcomes), free=[bindable(port) for port in PORTS])
""",
    )
    assert said == {"outcomes": ["ConnectionRefusedError"], "free": [True, True]}


def test_a_datagram_client_never_sends_to_itself(tmp_path: Path) -> None:
    said = said_alone(
        tmp_path,
        NARROW
        + """
own = 0
for port in PORTS * 20:
    with Client("127.0.0.1", port, transport="udp", timeout=5) as client:
        own += client.getsockname() == client.getpeername()
said["own"] = own
""",
    )
    assert said == {"own": 0}


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_forwarder_never_connects_to_itself(tmp_path: Path, transport: str) -> None:
    """And leaves the port of its target free, which it could not be in TIME-WAIT."""
    said = said_alone(
        tmp_path,
        NARROW
        + f"""
free, echoes = set(), 0
with Server(transport="{transport}", port=20_000, service=Forward("127.0.0.1", 40_000)) as forward:
    for number in range(20):
        peer = socket.socket(type=socket.SOCK_{"STREAM" if transport == "tcp" else "DGRAM"})
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        peer.bind(("127.0.0.1", 10_000 + number))
        peer.settimeout({5.0 if transport == "tcp" else 0.05})
        with peer, contextlib.suppress(OSError):
            peer.connect(forward.address)
            peer.send(b"x")
            echoes += peer.recv(1) == b"x"
        free.add(bindable(40_000))
said.update(free=sorted(free), echoes=echoes)
""",
    )
    assert said == {"free": [True], "echoes": 0}


def test_a_client_connects_to_itself_where_its_source_says_so(tmp_path: Path) -> None:
    said = said_alone(
        tmp_path,
        """
address = ("127.0.0.1", 20_000)
with Client(address, source_address=address, timeout=5) as client:
    said["own"] = client.getsockname() == client.getpeername() == address and echoed(client)
""",
    )
    assert said == {"own": True}


# --- the source ----------------------------------------------------------------------------


@ipv6
@pytest.mark.parametrize("host", ["", "localhost"])
def test_a_source_is_of_the_family_of_the_target(host: str) -> None:
    with Server("127.0.0.1") as four, four.client(source_address=(host, 0)) as client:
        assert says_back(client)
        assert client.getsockname()[0] == LOOPBACK
    if host == "":
        with Server("::1") as six, six.client(source_address=(host, 0)) as client:
            assert says_back(client)
            assert client.getsockname()[0] == "::1"


@ipv6
def test_a_source_name_has_an_address_for_each_candidate(tmp_path: Path) -> None:
    said = said_alone(
        tmp_path,
        """
for host in ("127.0.0.1", "::1"):
    with Server(host) as server:
        for source in (("both.test", 0), ("", 0), (host, 0)):
            with Client("both.test", server.port, source_address=source, timeout=5.0) as client:
                said[f"{host} {source[0]}"] = client.getsockname()[0] == host and echoed(client)
            with Client(host, server.port, source_address=source, timeout=5.0) as client:
                said[f"{host} {source[0]} alone"] = client.getsockname()[0] == host
""",
    )
    assert len(said) == 12
    assert set(said.values()) == {True}


@ipv6
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_source_of_the_other_family_is_an_error_of_the_resolver(transport: str) -> None:
    with Server("::1", transport=transport) as server:
        with pytest.raises(OSError, match="connect|source"):
            Client(*server.address, source_address=(LOOPBACK, 0), transport=transport)
        with Client(
            *server.address, source_address=("", 0), transport=transport, timeout=SOON
        ) as client:
            assert says_back(client)


def test_an_unknown_service_is_an_error_of_the_resolver() -> None:
    for call in (
        lambda: Client(LOOPBACK, "no-such-service"),
        lambda: Server(LOOPBACK, "no-such-service"),
        lambda: Forward(LOOPBACK, "no-such-service"),
        lambda: Client(source_address=(LOOPBACK, "no-such-service")),
        lambda: Client(LOOPBACK, ""),
        lambda: Client(LOOPBACK, "a b"),
    ):
        with pytest.raises(socket.gaierror) as caught:
            call()
        assert caught.value.errno == socket.EAI_SERVICE


# --- a server that is not there yet --------------------------------------------------------


def started_later(port: int, running: Background[Any]) -> Server:
    """A server that starts while a call waits for it."""
    wait_until(running.asleep)
    return Server(LOOPBACK, port).start()


def test_a_client_that_retries_connects_as_soon_as_there_is_a_server() -> None:
    with reserved_port() as port:
        connecting = Background(Client, LOOPBACK, port, timeout=SOON, retry=SOON)
        with started_later(port, connecting), connecting.result() as client:
            assert says_back(client)
            assert client.gettimeout() == SOON


def test_connect_as_a_step_of_its_own_retries_too() -> None:
    with reserved_port() as port, Client(timeout=SOON, retry=SOON) as client:
        connecting = Background(client.connect, (LOOPBACK, port))
        with started_later(port, connecting):
            connecting.result()
            assert says_back(client)


def test_a_client_of_a_server_retries_too(echo: Server) -> None:
    with echo.client(timeout=SOON, retry=1.0) as client:
        assert says_back(client)


def test_a_path_may_come_later(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    connecting = Background(Client, path=path, timeout=SOON, retry=SOON)
    wait_until(connecting.asleep)
    with Server(path=path), connecting.result() as client:
        assert says_back(client)


def test_retrying_ends_with_the_last_error() -> None:
    began = time.monotonic()
    with closed_port() as address, pytest.raises(ConnectionRefusedError, match="connect"):
        Client(*address, retry=0.3)
    assert 0.2 < time.monotonic() - began < LATE


def test_a_listener_that_does_not_answer_ends_within_the_retry() -> None:
    began = time.monotonic()
    with full_listener() as address, pytest.raises(TimeoutError):
        Client(*address, retry=0.3)
    assert 0.2 < time.monotonic() - began < LATE


def test_an_error_that_time_does_not_change_is_raised_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(OSError, match="bind") as caught:
        # An address of documentation (RFC 5737), not one of this machine.
        Client(LOOPBACK, 9, source_address=("192.0.2.1", 0), retry=60.0)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Client(path=tmp_path / "file" / "x.sock", retry=60.0)
    assert time.monotonic() - began < 30.0


def test_a_retry_that_cannot_wait_is_refused() -> None:
    with pytest.raises(ValueError, match="never waits"):
        Client(timeout=0, retry=1.0)
    with pytest.raises(ValueError, match="retry"):
        Client(retry=-1.0)
    with pytest.raises(TypeError, match="retry"):
        Client(retry="soon")  # type: ignore[arg-type]


def test_a_signal_ends_the_retries() -> None:
    code = """
import sys
from rsock import Client
print("trying", flush=True)
try:
    Client(sys.argv[1], int(sys.argv[2]), retry=60.0)
except KeyboardInterrupt:
    print("interrupted")
"""
    with closed_port() as (host, port), Script(code, host, str(port)) as script:
        assert script.line() == "trying"
        wait_until(script.asleep)
        script.signal(signal.SIGINT)
        assert script.end() == (0, "interrupted\n", "")


def test_a_close_ends_the_retries() -> None:
    with closed_port() as address, Client(timeout=SOON, retry=60.0) as client:
        connecting = Background(client.connect, address)
        wait_until(connecting.asleep)
        client.close()
        with pytest.raises(OSError, match="closed") as caught:
            connecting.result()
        assert caught.value.errno == errno.EBADF


# --- wait_for ------------------------------------------------------------------------------


def test_wait_for_returns_once_a_server_listens() -> None:
    with reserved_port() as port:
        waiting = Background(wait_for, (LOOPBACK, port), SOON)
        with started_later(port, waiting) as server:
            waiting.result()
            server.ledger.wait(open=0, closed=1)


def test_wait_for_a_path(tmp_path: Path) -> None:
    waiting = Background(wait_for, tmp_path / "x.sock", SOON)
    wait_until(waiting.asleep)
    with Server(path=tmp_path / "x.sock"):
        waiting.result()


def test_wait_for_names_what_it_waited_for_and_why() -> None:
    with closed_port() as address:
        with pytest.raises(TimeoutError, match=rf"{address[1]}.*0\.2 s.*refused") as caught:
            wait_for(address, 0.2)
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    with pytest.raises(TimeoutError) as caught:
        wait_for("/nowhere/x.sock", 0.1)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_wait_for_a_host_that_is_not_known_yet() -> None:
    with pytest.raises(TimeoutError) as caught:
        wait_for(("no-such-host.invalid", 80), 0.2)
    assert isinstance(caught.value.__cause__, socket.gaierror | TimeoutError)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("localhost:80", ValueError),
        ((LOOPBACK, 99_999), OverflowError),
        ((LOOPBACK, "no-such-service"), socket.gaierror),
        (("", 80), ValueError),
        (80, TypeError),
    ],
)
def test_wait_for_refuses_what_is_no_address(address: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        wait_for(address, 60.0)

"""A signal ends every blocking call at once, and the object stays usable."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
from support import (
    AT_ONCE,
    SOON,
    Background,
    Signal,
    arrived,
    dial,
    listener,
    output_of,
    partial,
    payload,
    read_exactly,
    says_back,
    send_until_stuck,
    wait_until,
)

from rsock import Client, Server

pytestmark = pytest.mark.usefixtures("interrupts")


Pair = tuple[Client, socket.socket]


@pytest.fixture(params=[None, 30.0], ids=["no timeout", "with timeout"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A client and the plain socket at its other end."""
    with listener() as listening, Client(listening.getsockname()) as client:
        peer, _ = listening.accept()
        with peer:
            peer.settimeout(5.0)
            client.settimeout(request.param)
            yield client, peer


def interrupted(call: Callable[[], object]) -> KeyboardInterrupt:
    """Interrupt `call` once it is blocked; return the exception that ended it."""
    with pytest.raises(KeyboardInterrupt) as caught, Signal() as sent:
        call()
    assert sent.after < AT_ONCE
    return caught.value


# --- the client's calls --------------------------------------------------------------------


def test_interrupt_recv(pair: Pair) -> None:
    client, peer = pair
    interrupted(lambda: client.recv(10))
    peer.sendall(b"still here")
    assert client.recv_exactly(10) == b"still here"


def test_interrupt_recv_into(pair: Pair) -> None:
    client, peer = pair
    buffer = bytearray(4)
    interrupted(lambda: client.recv_into(buffer))
    buffer.extend(b"!")
    peer.sendall(b"good")
    assert client.recv_into(buffer) == 4
    assert buffer == b"good!"


@pytest.mark.parametrize(
    "read",
    [
        lambda c: c.recv_exactly(10),
        lambda c: c.recv_until(b"--"),
        lambda c: c.recv_line(),
    ],
    ids=["recv_exactly", "recv_until", "recv_line"],
)
def test_interrupt_a_read_of_a_message_and_nothing_is_lost(
    pair: Pair, read: Callable[[Client], bytes]
) -> None:
    client, peer = pair
    peer.sendall(b"half of ")
    arrived(peer)
    error = interrupted(lambda: read(client))
    taken = partial(error)
    peer.sendall(b"it\n")
    rest = read_exactly(client, len(b"half of it\n") - len(taken))
    assert taken + rest == b"half of it\n"


def test_interrupt_sendall(pair: Pair) -> None:
    client, peer = pair
    data = payload(32 << 20)
    interrupted(lambda: client.sendall(data))
    client.settimeout(5.0)
    client.shutdown(socket.SHUT_WR)
    got = bytearray()
    while part := peer.recv(1 << 20):
        got += part
    assert 0 < len(got) < len(data)
    assert data.startswith(bytes(got))


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_interrupt_connect(
    full_listener: tuple[str, int], timeout: float | None, echo: Server
) -> None:
    with Client(timeout=timeout) as client:
        interrupted(lambda: client.connect(full_listener))
        client.close()
    interrupted(lambda: Client(full_listener, timeout=timeout))
    with echo.client(timeout=5.0) as other:
        assert says_back(other)


def test_no_interrupt_is_lost(pair: Pair) -> None:
    client, peer = pair
    for _ in range(30):
        interrupted(lambda: client.recv(1))
    peer.sendall(b"x")
    assert client.recv(1) == b"x"


# --- the server's calls --------------------------------------------------------------------


def test_interrupt_wait(echo: Server) -> None:
    interrupted(echo.wait)
    interrupted(lambda: echo.wait(30.0))
    assert echo.state == "serving"
    with dial(echo.address) as peer:
        assert says_back(peer)


def test_interrupt_the_wait_of_a_ledger(echo: Server) -> None:
    interrupted(lambda: echo.ledger.wait(open=5))
    interrupted(lambda: echo.ledger.wait(open=5, timeout=None))
    with dial(echo.address):
        echo.ledger.wait(open=1)


def test_interrupt_a_long_drain() -> None:
    server = Server().start()
    with dial(server.address) as stuck:
        send_until_stuck(stuck, payload(16 << 20))
        interrupted(lambda: server.stop(30.0))
        assert server.state == "draining"
        report = server.stop(0)
    assert report.forced == 1
    assert server.state == "stopped"


def test_interrupt_the_end_of_with() -> None:
    server = Server(drain=30.0)

    def interrupt_the_drain() -> None:
        wait_until(lambda: server.state == "draining")
        os.kill(os.getpid(), signal.SIGUSR1)

    def serve(stuck: socket.socket) -> None:
        with server:
            stuck.connect(server.address)
            send_until_stuck(stuck, payload(16 << 20))

    server.bind()
    interrupting = Background(interrupt_the_drain)
    with socket.socket() as stuck, pytest.raises(KeyboardInterrupt):
        serve(stuck)
    interrupting.result()
    assert server.stop(0).seconds < 5.0


# --- handlers that do not raise ------------------------------------------------------------


@contextlib.contextmanager
def counting() -> Iterator[list[int]]:
    signals: list[int] = []

    def count(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    before = signal.signal(signal.SIGUSR1, count)
    yield signals
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(
    "read",
    [
        lambda c: c.recv(10),
        lambda c: c.recv_exactly(10),
        lambda c: c.recv_line(),
    ],
    ids=["recv", "recv_exactly", "recv_line"],
)
def test_a_handler_that_does_not_raise_lets_a_read_go_on(
    pair: Pair, read: Callable[[Client], bytes]
) -> None:
    client, peer = pair
    with counting() as signals, Signal(times=3):

        def answer() -> None:
            wait_until(lambda: len(signals) == 3)
            peer.sendall(b"123456789\n")

        answering = Background(answer)
        assert read(client) == b"123456789\n"
        answering.result()
    assert len(signals) == 3


def test_a_handler_that_does_not_raise_lets_a_wait_go_on(echo: Server) -> None:
    with counting() as signals, Signal(times=3):

        def come() -> socket.socket:
            wait_until(lambda: len(signals) == 3)
            return dial(echo.address)

        coming = Background(come)
        echo.ledger.wait(open=1)
        coming.result().close()


def test_signals_do_not_move_a_deadline(pair: Pair) -> None:
    client, _ = pair
    client.settimeout(0.4)
    began = time.monotonic()
    with counting() as signals, Signal(times=5), pytest.raises(TimeoutError):
        client.recv(1)
    assert 0.35 < time.monotonic() - began < SOON
    assert signals


def test_what_a_handler_raises_comes_out_of_the_call(pair: Pair) -> None:
    client, peer = pair

    def fail(number: int, frame: FrameType | None) -> None:
        raise LookupError("from the handler")

    before = signal.signal(signal.SIGUSR1, fail)
    try:
        with pytest.raises(LookupError, match="from the handler"), Signal():
            client.recv(1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    peer.sendall(b"x")
    assert client.recv(1) == b"x"


# --- a real SIGINT -------------------------------------------------------------------------

CTRL_C = """
import os, signal, socket, sys, threading, time
from rsock import Client, Server

def asleep(thread):
    for _ in range(5):
        if open(f"/proc/self/task/{thread}/stat").read().rpartition(")")[2].split()[0] != "S":
            return False
        time.sleep(0.002)
    return True

def interrupt(call):
    main = threading.main_thread().native_id
    def send():
        while not asleep(main):
            pass
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=send)
    thread.start()
    began = time.monotonic()
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted" if time.monotonic() - began < 5 else "late", flush=True)
    thread.join()

with Server() as server, server.client() as client:
    interrupt(lambda: client.recv(1))
    interrupt(lambda: client.recv_exactly(1))
    interrupt(lambda: client.recv_line())
    interrupt(lambda: server.wait())
    interrupt(lambda: server.ledger.wait(open=7, timeout=None))
    client.sendall(b"hello")
    print(client.recv_exactly(5).decode())
"""


def test_ctrl_c_ends_every_wait() -> None:
    assert output_of(CTRL_C).split() == ["interrupted"] * 5 + ["hello"]

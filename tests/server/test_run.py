"""`run()`: serve until a signal, drain, restore the signal handlers."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from support import (
    LATE,
    Background,
    Script,
    Signal,
    arrived,
    dial,
    payload,
    read_exactly,
    refused,
    says_back,
    send_until_stuck,
    wait_until,
)

import rsock
from rsock import Server

RUN = """
import signal, sys
from rsock import Server

mine = lambda number, frame: None
if "own-handlers" in sys.argv:
    signal.signal(signal.SIGINT, mine)
    signal.signal(signal.SIGTERM, mine)
before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
server = Server(drain=float(sys.argv[1])).listen()
print(server.port, flush=True)
try:
    report = server.run()
except KeyboardInterrupt:
    print("interrupted", server.state)
else:
    print(report.cause, report.drained, report.forced, server.state)
after = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
print("handlers back" if after == before else f"handlers {after}")
"""
signals = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@contextlib.contextmanager
def running(drain: float, *args: str) -> Iterator[tuple[Script, tuple[str, int]]]:
    with Script(RUN, str(drain), *args) as script:
        yield script, ("127.0.0.1", int(script.line()))


def stuck_peer(address: tuple[str, int]) -> socket.socket:
    """A client that never reads, so that a drain lasts until its deadline."""
    peer = dial(address)
    send_until_stuck(peer, payload(16 << 20))
    return peer


@signals
@pytest.mark.parametrize("handlers", [(), ("own-handlers",)], ids=["", "own-handlers"])
def test_a_signal_drains_and_returns_the_report(
    number: signal.Signals, handlers: tuple[str, ...]
) -> None:
    with running(5.0, *handlers) as (script, address), dial(address) as peer:
        assert says_back(peer)
        script.signal(number)
        assert peer.recv(1) == b""
        assert script.end() == (0, f"{number.name} 1 0 stopped\nhandlers back\n", "")


@signals
def test_what_is_under_way_when_the_signal_comes_is_delivered(number: signal.Signals) -> None:
    data = payload(200_000)
    with running(5.0) as (script, address), dial(address) as peer:
        assert says_back(peer)
        peer.sendall(data)
        arrived(peer)
        script.signal(number)
        assert read_exactly(peer, len(data)) == data
        assert peer.recv(1) == b""
        code, out, _ = script.end()
        assert (code, out.split()[:3]) == (0, [number.name, "1", "0"])


def test_a_second_ctrl_c_forces_and_raises() -> None:
    with running(60.0) as (script, address), stuck_peer(address):
        script.signal(signal.SIGINT)
        wait_until(lambda: refused(address))
        assert script.process.poll() is None
        began = time.monotonic()
        script.signal(signal.SIGINT)
        assert script.end() == (0, "interrupted stopped\nhandlers back\n", "")
        assert time.monotonic() - began < LATE


def test_a_second_sigterm_forces_as_well() -> None:
    with running(60.0) as (script, address), stuck_peer(address):
        script.signal(signal.SIGTERM)
        wait_until(lambda: refused(address))
        script.signal(signal.SIGTERM)
        assert script.end() == (0, "interrupted stopped\nhandlers back\n", "")


def test_a_stuck_client_is_forced_at_the_deadline() -> None:
    with running(0.2) as (script, address), stuck_peer(address):
        script.signal(signal.SIGTERM)
        assert script.end() == (0, "SIGTERM 0 1 stopped\nhandlers back\n", "")


def test_a_signal_between_start_and_the_wait_is_not_lost() -> None:
    code = """
import os, signal, threading
from rsock import Server
server = Server()
def send():
    while server.state != "serving":
        pass
    os.kill(os.getpid(), signal.SIGINT)
thread = threading.Thread(target=send)
thread.start()
print(server.run().cause)
thread.join()
"""
    for _ in range(5):
        with Script(code) as script:
            assert script.end() == (0, "SIGINT\n", "")


def test_run_on_the_main_thread_ends_with_a_stop_elsewhere() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    server = Server()

    def stop_when_serving() -> None:
        wait_until(lambda: server.state == "serving")
        server.stop()

    stopping = Background(stop_when_serving)
    assert server.run().cause == "stop"
    stopping.result()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_run_on_another_thread_only_waits_for_stop() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    server = Server()
    run = Background(server.run)
    wait_until(lambda: server.state == "serving")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with dial(server.address) as peer:
        assert says_back(peer)
    report = server.stop()
    assert run.result() == report
    assert report.cause == "stop"


@pytest.mark.usefixtures("interrupts")
def test_an_exception_from_another_handler_ends_run_and_the_server() -> None:
    server = Server()
    with Signal() as sent, pytest.raises(KeyboardInterrupt):
        server.run()
    assert sent.after < LATE
    wait_until(lambda: server.state == "stopped")


def test_run_of_a_stopped_server_is_a_state_error() -> None:
    server = Server()
    server.stop()
    with pytest.raises(rsock.StateError, match="stopped"):
        server.run()


def test_run_passes_on_what_start_raises() -> None:
    with Server() as holder, pytest.raises(OSError, match="Address already in use"):
        Server("127.0.0.1", holder.port).run()


def test_run_server_is_run_in_one_line() -> None:
    known = rsock.servers()
    run = Background(rsock.run_server, "127.0.0.1", 0)
    wait_until(lambda: len(rsock.servers()) > len(known))
    [server] = [server for server in rsock.servers() if server not in known]
    wait_until(lambda: server.state == "serving")
    with dial(server.address) as peer:
        assert says_back(peer)
    report = server.stop()
    assert run.result() == report


def test_run_server_ends_with_ctrl_c() -> None:
    code = """
import os, signal, threading, time
import rsock
def interrupt():
    while not any(server.state == "serving" for server in rsock.servers()):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
print(rsock.run_server("127.0.0.1", 0).cause)
"""
    with Script(code) as script:
        assert script.end() == (0, "SIGINT\n", "")

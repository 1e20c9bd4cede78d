"""Time limits, and the limit for one host, over real sockets."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support import (
    LOOPBACK,
    SOON,
    Script,
    dial,
    dial_narrow,
    listener,
    read_exactly,
    read_to_end,
    reset,
    says_back,
    send_until_stuck,
    sleeping,
    wait_until,
)

from rsock import Accept, Connection, Echo, Forward, Limits, Record, Server

LONG = 10.0


def echo(conn: Connection) -> None:
    while data := conn.recv(65_536):
        conn.sendall(data)


SERVICES = {"rust": Echo(), "handler": echo}
every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def ended(server: Server) -> Record:
    server.ledger.wait(open=0, closed=1, timeout=LONG)
    (record,) = server.ledger.closed
    return record


def cut_by(server: Server) -> tuple[str | None, str | None]:
    record = ended(server)
    return record.closed_by, record.limit


@every_service
def test_a_first_byte_that_never_comes_is_waited_for_so_long(service: Any) -> None:
    with Server(service=service, limits=Limits(first_byte=0.4), on_error="raise") as server:
        began = time.monotonic()
        with dial(server.address) as silent:
            silent.settimeout(LONG)
            assert silent.recv(1) == b""
            assert time.monotonic() - began >= 0.39
        assert cut_by(server) == ("limit", "first_byte")


@every_service
def test_who_has_spoken_may_fall_silent(service: Any) -> None:
    with Server(service=service, limits=Limits(first_byte=0.3), on_error="raise") as server:
        with dial(server.address) as peer, dial(server.address) as silent:
            assert says_back(peer)
            silent.settimeout(LONG)
            assert silent.recv(1) == b""
            assert says_back(peer)
        server.ledger.wait(open=0, closed=2, timeout=LONG)
        assert server.ledger.totals.closed_by["limit"] == 1


@pytest.mark.parametrize("limit", ["idle", "first_byte"])
def test_what_came_in_time_counts_though_the_process_stood_still(limit: str) -> None:
    code = """
import sys
from rsock import Limits, Server
with Server(limits=Limits(**{sys.argv[1]: 0.3}), workers=1) as server:
    print(server.port, flush=True)
    sys.stdin.readline()
"""
    with Script(code, limit) as script:
        with dial((LOOPBACK, int(script.line()))) as peer:
            # The server has accepted the connection, and its timer runs.
            if limit == "idle":
                assert says_back(peer)
            else:
                wait_until(lambda: worker_sleeps(script.process.pid))
            script.signal(signal.SIGSTOP)
            peer.sendall(b"in time")
            # Longer than the limit itself.
            time.sleep(0.5)
            script.signal(signal.SIGCONT)
            assert read_exactly(peer, 7) == b"in time"
        script.tell()


def worker_sleeps(pid: int) -> bool:
    """Whether the worker has the connection, which takes a descriptor, and waits."""
    try:
        links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
        workers = [
            int(task.name)
            for task in Path(f"/proc/{pid}/task").iterdir()
            # A thread sets its own name, which may be later.
            if (task / "comm").read_text().startswith("rsock-worker")
        ]
    except OSError:
        # One was closed, or has ended, between the list of them and the look at it.
        return False
    sockets = sum(link.startswith("socket:") for link in links)
    return sockets == 2 and workers != [] and sleeping(workers[0], pid)


def test_who_has_spoken_to_a_forwarder_that_still_connects_has_spoken() -> None:
    with listener(backlog=0) as target, contextlib.ExitStack() as stack:
        # A full queue: a new connection is answered only when there is room.
        stack.enter_context(dial(target.getsockname()))
        limits = Limits(first_byte=0.2)
        with Server(service=Forward(*target.getsockname()), limits=limits) as server:
            with dial(server.address) as peer:
                peer.sendall(b"spoken")
                # Twice the limit: the connection has not been closed.
                with pytest.raises(TimeoutError):
                    server.ledger.wait(closed=1, timeout=0.4)
                stack.enter_context(target.accept()[0])
                reached = stack.enter_context(target.accept()[0])
                assert read_exactly(reached, 6) == b"spoken"


@every_service
def test_an_idle_connection_is_closed_and_a_busy_one_is_not(service: Any) -> None:
    with Server(service=service, limits=Limits(idle=1.0), on_error="raise") as server:
        with dial(server.address) as peer:
            peer.settimeout(LONG)
            began = time.monotonic()
            # Longer than the limit in all, though never idle for that long.
            while time.monotonic() - began < 1.3:
                assert says_back(peer)
                threading.Event().wait(0.1)
            began = time.monotonic()
            assert peer.recv(1) == b""
            assert time.monotonic() - began >= 0.7
        assert cut_by(server) == ("limit", "idle")


@every_service
def test_a_peer_that_does_not_take_what_is_sent_is_reset(service: Any) -> None:
    limits = Limits(write=0.4, write_buffer=4096)
    with Server(service=service, limits=limits, on_error="raise") as server:
        with dial_narrow(server.address) as stuck, dial(server.address) as other:
            stuck.settimeout(LONG)
            # Bytes in flight arrive; then the reset, and no ordinary end.
            with pytest.raises(ConnectionResetError):
                send_until_stuck(stuck, os.urandom(8 << 20))
                assert says_back(other)
                server.ledger.wait(open=1, closed=1, timeout=LONG)
                while stuck.recv(65_536):
                    pass
            server.ledger.wait(open=1, closed=1, timeout=LONG)
            (record,) = server.ledger.closed
            assert (record.closed_by, record.limit) == ("limit", "write")
            assert says_back(other)


@every_service
def test_a_peer_that_is_slow_is_not_reset(service: Any) -> None:
    data = os.urandom(300_000)

    with Server(service=service, limits=Limits(write=1.0, write_buffer=4096)) as server:
        with dial_narrow(server.address) as slow:
            slow.settimeout(LONG)
            sender = threading.Thread(target=slow.sendall, args=(data,))
            sender.start()
            got = bytearray()
            began = time.monotonic()
            while len(got) < len(data):
                part = slow.recv(len(data) // 20)
                assert part
                got += part
                # Longer than the limit in all, with steady progress.
                if time.monotonic() - began < 1.5:
                    threading.Event().wait(0.1)
            sender.join(SOON)
            assert bytes(got) == data
            slow.shutdown(socket.SHUT_WR)
            assert read_to_end(slow) == b""
        assert cut_by(server) == ("peer", None)


def test_a_call_that_waits_too_long_raises_and_the_connection_is_over() -> None:
    with Server(service=Accept(), limits=Limits(idle=0.3)) as server:
        with dial(server.address) as peer:
            conn, _ = server.accept(SOON)
            with conn:
                with pytest.raises(TimeoutError, match=r"recv .*Limits\.idle"):
                    conn.recv(1)
                assert conn.recv(1) == b""
                with pytest.raises(BrokenPipeError):
                    conn.sendall(b"too late")
            assert peer.recv(1) == b""
        assert cut_by(server) == ("limit", "idle")


def test_a_shorter_time_out_of_the_call_is_no_limit() -> None:
    with Server(service=Accept(), limits=Limits(idle=60.0)) as server:
        with dial(server.address) as peer:
            conn, _ = server.accept(SOON)
            with conn:
                conn.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    conn.recv(1)
                peer.sendall(b"x")
                conn.settimeout(SOON)
                assert conn.recv(1) == b"x"
        assert ended(server).closed_by == "local"


@pytest.mark.parametrize("service", [*SERVICES.values(), Accept()], ids=[*SERVICES, "accept"])
def test_one_host_has_its_share_and_no_more(service: Any) -> None:
    with Server("0.0.0.0", 0, service, limits=Limits(per_host=2), drain=0.0) as server:
        taken: list[tuple[Connection, tuple[str, int]]] = []
        if isinstance(service, Accept):
            accepting = threading.Thread(
                target=lambda: taken.extend(server), name="accepting", daemon=True
            )
            accepting.start()
        port = server.port
        with dial((LOOPBACK, port)) as first, dial((LOOPBACK, port)):
            wait_until(lambda: server.ledger.totals.accepted == 2)
            # The reset may come before connect has returned.
            with pytest.raises(ConnectionResetError), dial((LOOPBACK, port)) as third:
                third.settimeout(LONG)
                third.recv(1)
            assert (server.ledger.totals.accepted, server.ledger.totals.refused) == (2, 1)
            # Another host has its own share.
            with socket.create_connection((LOOPBACK, port), SOON, ("127.0.0.2", 0)):
                wait_until(lambda: server.ledger.totals.accepted == 3)
            first.close()
            if taken:
                taken.pop(0)[0].close()
                taken.pop(1)[0].close()
            server.ledger.wait(open=1, closed=2, timeout=LONG)
            with dial((LOOPBACK, port)):
                wait_until(lambda: server.ledger.totals.accepted == 4)
            assert server.ledger.totals.refused == 1
        server.stop()
        if isinstance(service, Accept):
            accepting.join(SOON)
            for conn, _ in taken:
                conn.close()


def test_with_default_limits_an_idle_connection_wakes_no_thread() -> None:
    def switches() -> dict[str, tuple[bool, str]]:
        found = {}
        for task in Path("/proc/self/task").iterdir():
            # That of another server, which has stopped, may end meanwhile.
            with contextlib.suppress(OSError):
                if (task / "comm").read_text().startswith("rsock-"):
                    status = (task / "status").read_text()
                    sleeps = "\nState:\tS" in status
                    found[task.name] = (sleeps, status[status.index("voluntary_ctxt_switches") :])
        return found

    with Server() as server, dial(server.address) as peer:
        assert says_back(peer)
        before: dict[str, tuple[bool, str]] = {}

        def settled() -> bool:
            last = before.copy()
            before.update(switches())
            # A thread that waits for a CPU has a switch before it.
            return last == before and all(sleeps for sleeps, _ in before.values())

        wait_until(settled)
        threading.Event().wait(0.6)
        assert switches() == before


def test_a_reset_of_the_peer_is_no_limit() -> None:
    with Server(limits=Limits(idle=30.0, first_byte=30.0, write=30.0)) as server:
        with dial(server.address) as peer:
            assert says_back(peer)
            reset(peer)
        assert cut_by(server) == ("reset", None)

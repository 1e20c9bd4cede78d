"""A server nobody holds any more gives back its threads and descriptors, and says so once."""

from __future__ import annotations

import contextlib
import gc
import warnings
import weakref

import pytest
from support import Background, dial, drop, fds, output_of, says_back, threads, wait_until

import rsock
from rsock import Client, Server


def test_a_dropped_server_warns_once_and_gives_everything_back() -> None:
    before = fds(), threads()
    held = [Server().start()]
    address = held[0].address
    with pytest.warns(ResourceWarning, match=str(address[1])) as warned:
        drop(held)
    assert len(warned) == 1
    wait_until(lambda: (fds(), threads()) == before, 1.0)
    with pytest.raises(ConnectionRefusedError):
        dial(address)


@pytest.mark.parametrize("step", ["create", "bind", "listen"])
def test_a_server_dropped_before_it_started_gives_everything_back(step: str) -> None:
    before = fds()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        getattr(Server(), step)()
        gc.collect()
    wait_until(lambda: fds() == before, 1.0)


def test_a_server_that_opened_nothing_is_dropped_in_silence() -> None:
    Server()
    gc.collect()


def test_a_stopped_server_is_dropped_in_silence() -> None:
    server = Server().start()
    server.stop()
    del server
    gc.collect()


def test_dropping_a_server_with_connections_does_not_wait() -> None:
    before = fds(), threads()
    held = [Server(drain=30.0).start()]
    with dial(held[0].address) as peer:
        assert says_back(peer)
        with pytest.warns(ResourceWarning):
            drop(held)
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
    wait_until(lambda: (fds(), threads()) == before, 1.0)


def test_a_server_in_a_cycle_is_collected() -> None:
    class Owner(Server):
        me: Server

    before = fds(), threads()
    owner = Owner().start()
    owner.me = owner
    gone = weakref.ref(owner)
    del owner
    with pytest.warns(ResourceWarning):
        gc.collect()
    assert gone() is None
    wait_until(lambda: (fds(), threads()) == before, 1.0)


def test_a_ledger_does_not_keep_its_server_alive() -> None:
    held = [Server().start()]
    gone = weakref.ref(held[0])
    ledger = held[0].ledger
    with pytest.warns(ResourceWarning):
        drop(held)
    assert gone() is None
    assert ledger.totals.accepted == 0


def test_the_list_of_servers_keeps_none_alive() -> None:
    held = [Server().start()]
    gone = weakref.ref(held[0])
    assert held[0] in rsock.servers()
    with pytest.warns(ResourceWarning):
        drop(held)
    assert gone() is None


def test_a_server_is_not_collected_while_a_thread_waits_for_it() -> None:
    server = Server().start()
    address = server.address
    waiting = Background(server.wait)
    stop = weakref.WeakMethod(server.stop)
    del server
    wait_until(waiting.asleep)
    gc.collect()
    with dial(address) as peer:
        assert says_back(peer)
    stopping = stop()
    assert stopping is not None
    stopping()
    waiting.result()


def test_a_client_in_a_cycle_is_collected() -> None:
    class Owner(Client):
        me: Client

    with Server() as server:
        owner = Owner(server.address)
        owner.me = owner
        server.ledger.wait(open=1)
        owner.close()
        gone = weakref.ref(owner)
        del owner
        gc.collect()
        assert gone() is None


TWO_HUNDRED = """
import gc, os, time, warnings
import rsock
rsock.raise_fd_limit()

def held():
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

Server = rsock.Server
Server().start().stop()
before = held()
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    servers = [Server().start() for _ in range(200)]
    assert held()[1] >= before[1] + 400
    with servers[100].client(timeout=5) as client:
        client.sendall(b"x")
        assert client.recv_exactly(1) == b"x"
    del servers
    gc.collect()
    end = time.monotonic() + 1.0
    while held() != before and time.monotonic() < end:
        time.sleep(0.005)
print(before == held(), len(warned), {w.category.__name__ for w in warned}, len(rsock.servers()))
"""


def test_two_hundred_servers_dropped_are_gone_within_a_second() -> None:
    assert output_of(TWO_HUNDRED).split() == ["True", "200", "{'ResourceWarning'}", "0"]


def test_starting_and_dropping_again_and_again_does_not_grow() -> None:
    before = fds(), threads()
    for _ in range(50):
        with pytest.warns(ResourceWarning):
            drop([Server().start()])
    wait_until(lambda: (fds(), threads()) == before, 1.0)

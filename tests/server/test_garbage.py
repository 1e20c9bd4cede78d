"""An unreachable server releases its threads and descriptors, and warns exactly once."""

from __future__ import annotations

import contextlib
import gc
import warnings
import weakref

import pytest
from support import Background, dial, drop, given_back, held, output_of, says_back, wait_until

import rsock
from rsock import Client, Server


def test_a_dropped_server_warns_once_and_gives_everything_back() -> None:
    before = held()
    servers = [Server().start()]
    address = servers[0].address
    with pytest.warns(ResourceWarning, match=str(address[1])) as warned:
        drop(servers)
    assert len(warned) == 1
    given_back(before)
    with pytest.raises(ConnectionRefusedError):
        dial(address)


def test_a_warning_that_is_an_error_keeps_nothing_alive() -> None:
    code = """
import gc, logging, socket, sys, time
from rsock import Server, servers
logging.disable()
kept = []
sys.unraisablehook = kept.append
with Server() as other:
    server, client = Server().start(), other.client()
    address = server.address
    del server, client
    gc.collect()
    other.ledger.wait(open=0, closed=1)
    # Its threads end by themselves: a drop only begins the stop.
    end = time.monotonic() + 10
    while len(servers()) > 1 and time.monotonic() < end:
        time.sleep(0.001)
    try:
        socket.create_connection(address, 5)
    except ConnectionRefusedError:
        print("refused")
    print([type(each.exc_value).__name__ for each in kept], len(servers()))
"""
    said = output_of(code, options=("-W", "error::ResourceWarning"))
    assert said == "refused\n['ResourceWarning', 'ResourceWarning'] 1\n"


@pytest.mark.parametrize("step", ["create", "bind", "listen"])
def test_a_server_dropped_before_it_started_gives_everything_back(step: str) -> None:
    before = held()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        getattr(Server(), step)()
        gc.collect()
    given_back(before)


def test_a_server_that_opened_nothing_is_dropped_in_silence() -> None:
    Server()
    gc.collect()


def test_a_stopped_server_is_dropped_in_silence() -> None:
    server = Server().start()
    server.stop()
    del server
    gc.collect()


def test_dropping_a_server_with_connections_does_not_wait() -> None:
    before = held()
    servers = [Server(drain=30.0).start()]
    with dial(servers[0].address) as peer:
        assert says_back(peer)
        with pytest.warns(ResourceWarning):
            drop(servers)
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
    given_back(before)


def test_a_server_in_a_cycle_is_collected() -> None:
    class Owner(Server):
        me: Server

    before = held()
    owner = Owner().start()
    owner.me = owner
    gone = weakref.ref(owner)
    del owner
    with pytest.warns(ResourceWarning):
        gc.collect()
    gc.collect()
    assert gone() is None
    given_back(before)


def test_a_ledger_does_not_keep_its_server_alive() -> None:
    servers = [Server().start()]
    gone = weakref.ref(servers[0])
    ledger = servers[0].ledger
    with pytest.warns(ResourceWarning):
        drop(servers)
    assert gone() is None
    assert ledger.totals.accepted == 0


def test_the_list_of_servers_keeps_none_alive() -> None:
    servers = [Server().start()]
    gone = weakref.ref(servers[0])
    assert servers[0] in rsock.servers()
    with pytest.warns(ResourceWarning):
        drop(servers)
    assert gone() is None


def test_a_server_is_not_collected_while_a_thread_waits_for_it() -> None:
    server = Server().start()
    address = server.address
    waiting = Background(server.wait)
    del server
    wait_until(waiting.asleep)
    gc.collect()
    with dial(address) as peer:
        assert says_back(peer)
    [same] = [server for server in rsock.servers() if server.address == address]
    same.stop()
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
import logging
logging.disable()
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
    servers = [Server(workers=1 + n % 2).start() for n in range(200)]
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
    before = held()
    for _ in range(50):
        with pytest.warns(ResourceWarning):
            drop([Server().start()])
    given_back(before)

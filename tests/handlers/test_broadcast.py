"""Several threads on one connection: `server.connections` and `conn.lock`."""

from __future__ import annotations

import contextlib
import threading

from support import SOON, Background, dial, output_of, read_exactly, says_back, wait_until
from support.roles import handled

from rsock import Accept, Connection, Server

# Large enough that the kernel takes it in several sends.
MESSAGE = 4 << 20


def test_the_connections_are_those_that_handlers_serve() -> None:
    seen: list[Connection] = []
    let_go = threading.Event()

    def handler(conn: Connection) -> None:
        seen.append(conn)
        while data := conn.recv(100):
            if data == b"close":
                conn.close()
                assert let_go.wait(SOON)
                return
            conn.sendall(data)

    with handled(handler) as server:
        assert server.connections == []
        # One after the other: two handlers that start together may do so in either order.
        with dial(server.address) as first, contextlib.ExitStack() as stack:
            assert says_back(first)
            second = stack.enter_context(dial(server.address))
            assert says_back(second)
            assert server.connections == seen
            first.sendall(b"close")
            assert first.recv(1) == b""
            # Its handler goes on, but it is closed.
            assert server.connections == seen[1:]
            let_go.set()
        wait_until(lambda: server.connections == [])


def test_other_services_have_no_connections_of_handlers() -> None:
    with Server() as server, dial(server.address) as peer:
        assert says_back(peer)
        assert server.connections == []
    with Server(service=Accept()) as server, dial(server.address):
        conn, _ = server.accept(SOON)
        with conn:
            assert server.connections == []


def test_a_line_reaches_every_client() -> None:
    def chat(conn: Connection) -> None:
        while line := conn.recv_line():
            for each in conn.server.connections if conn.server else []:
                with each.lock, contextlib.suppress(OSError):
                    each.sendall(line)

    with handled(chat) as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(server.address)) for _ in range(5)]
        wait_until(lambda: len(server.connections) == 5)
        for number, peer in enumerate(peers):
            line = b"from %d\n" % number
            peer.sendall(line)
            for each in peers:
                assert read_exactly(each, len(line)) == line


def test_messages_that_are_sent_under_the_lock_are_whole() -> None:
    def handler(conn: Connection) -> None:
        conn.recv(1)

    with handled(handler) as server, dial(server.address) as peer:
        wait_until(lambda: len(server.connections) == 1)
        [conn] = server.connections

        def send(letter: bytes) -> None:
            with conn.lock, conn.lock:
                conn.sendall(letter * MESSAGE)

        sending = [Background(send, letter) for letter in (b"a", b"b", b"c")]
        parts = [read_exactly(peer, MESSAGE) for _ in sending]
        assert sorted(part[:1] * MESSAGE == part and part[:1] for part in parts) == [
            b"a",
            b"b",
            b"c",
        ]
        for each in sending:
            each.result()
        peer.sendall(b"x")


def test_a_lock_is_the_same_each_time() -> None:
    with Server() as server, server.client() as client:
        assert client.lock is client.lock


def test_a_forked_child_has_no_connections_of_its_parents_server() -> None:
    code = """
import os, rsock
with rsock.Server(service=lambda conn: conn.recv(1)) as server:
    child = os.fork()
    if not child:
        try:
            server.connections
        except RuntimeError:
            print("RuntimeError", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
    assert output_of(code, options=("-W", "ignore::DeprecationWarning")) == "RuntimeError\n"

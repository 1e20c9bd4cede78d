"""Scenario 7: a long reply and a close while the client floods; all of the reply arrives."""

import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reliability import load
from reliability.figures import Figure, equal
from reliability.process import Child, Served
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Connection, Server

REPLY = bytes(range(250)) * 1_600


def server(kind: str) -> "Server":
    from rsock import Greeting, Server

    return Server(service=Greeting(REPLY) if kind == "Greeting()" else handler)


def handler(conn: "Connection") -> None:
    conn.recv(100)
    conn.sendall(REPLY)


def flood(address: Any, count: int) -> int:
    """How many of `count` flooding clients got the whole reply, and the end after it."""
    return sum(_flood_once(address) for _ in range(count))


def _flood_once(address: Any) -> bool:
    with load.dial(address) as peer:
        over = threading.Event()

        def pour() -> None:
            try:
                while not over.is_set():
                    peer.sendall(bytes(16_384))
                peer.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        pouring = threading.Thread(target=pour)
        pouring.start()
        got = bytearray()
        try:
            while part := peer.recv(20_000):
                got += part
            ended = True
        except ConnectionResetError:
            ended = False
        over.set()
        pouring.join(load.PATIENCE)
        return ended and got == REPLY


def run(size: Size) -> Iterator[Figure]:
    count = size.of(brief=3, short=25, long=100)
    for kind in ("Greeting()", "a handler"):
        with Served(server, kind) as served, Child() as peers:
            got = peers.call(flood, served.address, count)
            yield equal(f"{kind}: {len(REPLY):,} bytes and the end", got, count)
            yield equal(f"{kind}: in the ledger", served.stop()["totals"]["closed"], count)
            yield from served.afterwards()


SCENARIO = Scenario("7", "a long reply and its close against a flooding client", run)

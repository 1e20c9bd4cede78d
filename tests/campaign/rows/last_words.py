"""Matrix row 7: a long reply and its close, while the client sends and sends."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from support import read_exactly

from campaign import load
from campaign.figures import Figure, equal
from campaign.process import Child, Served
from campaign.row import Row, Size

if TYPE_CHECKING:
    from rsock import Server

REPLY = bytes(range(250)) * 1_600


def server() -> "Server":
    from rsock import Server

    # It never reads a byte of what comes.
    return Server(service=lambda conn: conn.sendall(REPLY))


def ask(address: Any, times: int) -> int:
    """How often the reply came whole, with a clean end behind it."""
    return sum(_flood(load.dial(address)) for _ in range(times))


def _flood(peer: socket.socket) -> bool:
    over = threading.Event()

    def flood() -> None:
        with contextlib.suppress(ConnectionError):
            while not over.is_set():
                peer.sendall(bytes(1 << 16))

    with peer:
        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            return read_exactly(peer, len(REPLY)) == REPLY and peer.recv(1) == b""
        except ConnectionError:
            return False
        finally:
            over.set()
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            flooding.join()


def run(size: Size) -> Iterator[Figure]:
    times = size.of(brief=20, short=100, long=1_000)
    with Served(server) as served, Child() as clients:
        yield equal("complete replies", clients.call(ask, served.address, times), times)
        report = served.stop()
        yield equal("forced", report["forced"], 0)
        yield from served.afterwards()


ROW = Row("7", "a long reply and its close against a flooding client", run)

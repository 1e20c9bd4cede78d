"""Draws the pictures of `docs/guide/seeing.md` from real connections.

`.venv/bin/python docs/images/drawings.py [FOLDER]` writes them to this folder, or to another. Owns
what the pictures show; must never define how a drawing looks.
"""

import contextlib
import sys
import time
from pathlib import Path

from rsock import (
    Accept,
    Client,
    Connection,
    Drawing,
    Forward,
    Limits,
    Server,
    SocketOptions,
)
from rsock.faults import Latency, Reset

HERE = Path(__file__).parent


def ladder() -> Drawing:
    """A greeting, a pause, an answer that a fault delays, and the end."""
    with Server(trace=True) as server:
        with server.client(timeout=10) as client:
            client.sendall(b"hello")
            client.recv_exactly(5)
            time.sleep(0.2)
            with server.fault(Latency(0.05)):
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                client.recv_exactly(18)
        [record] = server.ledger.wait(open=0, closed=1)
    return record.ladder()


def forward() -> Drawing:
    """A message to a target behind a forwarder, and its answer, after which the client closes."""
    with Server() as target, Server(service=Forward(target), trace=True) as front:
        with front.client(timeout=10) as client:
            front.ledger.wait(open=1)
            time.sleep(0.1)
            client.sendall(b"hello")
            client.recv_exactly(5)
        [record] = front.ledger.wait(open=0, closed=1)
    return record.ladder()


def states() -> Drawing:
    """A connection that its client closes."""
    with Server() as server:
        with server.client(timeout=10) as client:
            client.sendall(b"hello")
            client.recv_exactly(5)
        [record] = server.ledger.wait(open=0, closed=1)
    return record.states()


def answer(conn: Connection) -> None:
    """Send all at once what came in several reads."""
    conn.sendall(conn.recv_exactly(5_000))
    # Until the client has closed.
    conn.recv(1)


def segments() -> Drawing:
    """The 5 000 bytes of the study notes, in segments of 1 460 bytes."""
    options = SocketOptions(max_segment=1_472)
    with Server(service=answer, trace=True, options=options) as server:
        with Client(*server.address, timeout=10, options=options) as client:
            client.sendall(bytes(5_000))
            client.recv_exactly(5_000)
        [record] = server.ledger.wait(open=0, closed=1)
    return record.segments()


def serve(conn: Connection) -> None:
    """Wait for as long as the client says, then answer."""
    time.sleep(float(conn.recv_line()))
    conn.sendall(b"done\n")


def timeline() -> Drawing:
    """Connections that end in several ways, and one that is still open."""
    limits = Limits(first_byte=0.15)
    faults = [Reset(after_seconds=0.1, connections={4})]
    with (
        Server(service=serve, limits=limits, faults=faults, on_error=lambda _: None) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = []
        for words in (b"0.05\n", b"", b"0.1\n", b"0.6\n", b"soon\n", b"0.2\n", b"0.6\n"):
            client = stack.enter_context(server.client(timeout=10))
            client.sendall(words)
            clients.append(client)
            time.sleep(0.03)
        clients[6].abort()
        for client in clients[:6]:
            with contextlib.suppress(ConnectionResetError):
                client.recv(100)
            client.close()
        server.ledger.wait(open=0, closed=7)
        last = stack.enter_context(server.client(timeout=10))
        last.sendall(b"0.2")
        server.ledger.wait(open=1)
        time.sleep(0.1)
        return server.ledger.timeline()


def queue() -> Drawing:
    """Clients that wait for a server that accepts when it is asked."""
    with (
        Server(service=Accept(), options=SocketOptions(backlog=64)) as server,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(24):
            stack.enter_context(server.client(timeout=10))
        taken = [stack.enter_context(server.accept(timeout=10)[0]) for _ in range(7)]
        for conn in taken[:2]:
            conn.close()
        return server.queue()


def server_map() -> Drawing:
    """Clients of a forwarder, and its target."""
    with (
        Server(name="backend") as backend,
        Server(service=Forward(backend), name="front") as front,
        contextlib.ExitStack() as stack,
    ):
        for number in range(4):
            client = stack.enter_context(front.client(timeout=10))
            client.sendall(bytes(1_000 * number + 5))
            client.recv_exactly(1_000 * number + 5)
            if number == 1:
                client.close()
        front.ledger.wait(open=3, closed=1)
        return front.map()


PICTURES = {
    "ladder": ladder,
    "forward": forward,
    "states": states,
    "segments": segments,
    "timeline": timeline,
    "queue": queue,
    "map": server_map,
}


def main() -> None:
    """Draw all pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, draw in PICTURES.items():
        draw().save(folder / f"{name}.svg")


if __name__ == "__main__":
    main()

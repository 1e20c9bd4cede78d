"""Milliseconds to start a server, make one exchange with it and stop it: `start_stop.py PEER`.

The client is the same blocking `socket.socket` in the same thread for all, because a server inside
a test or a notebook is used that way; an event loop therefore runs in a separate thread. One more
entry, `asyncio-one-loop`, has server and client in one loop and needs no thread: the best case of
asyncio, for clients that use asyncio too. `bare-thread` is the minimum with the standard library: a
listening socket, and a thread that serves one connection. Must never count imports: each figure is
the median of as many cycles as fit, in a warm interpreter.
"""

import asyncio
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from servers.asyncio_echo import Echo

from inside.turns import answer_with_median

Address = tuple[str, int]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

LOOPBACK: Address = ("127.0.0.1", 0)
MESSAGE = b"x" * 64
# Enough for a median, even in a short time.
CYCLES = 5


def exchange(address: Address) -> None:
    """The client: connects, sends, receives the echo, closes."""
    with socket.socket() as client:
        client.connect(address)
        client.sendall(MESSAGE)
        if client.recv(len(MESSAGE)) != MESSAGE:
            raise SystemExit("the server did not echo what it was sent")


def loop_cycle(factory: LoopFactory) -> None:
    """An event loop in a separate thread."""
    serving: Future[tuple[Callable[[], object], Address]] = Future()

    async def main() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        server = await loop.create_server(Echo, *LOOPBACK)
        stop = partial(loop.call_soon_threadsafe, ended.set)
        serving.set_result((stop, server.sockets[0].getsockname()))
        await ended.wait()
        server.close()
        await server.wait_closed()

    def run() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    stop, address = serving.result()
    exchange(address)
    stop()
    thread.join()


def asyncio_cycle() -> None:
    loop_cycle(asyncio.new_event_loop)


def uvloop_cycle() -> None:
    import uvloop

    loop_cycle(uvloop.new_event_loop)


def one_loop_cycle() -> None:
    """Server and client in one loop, in this thread."""

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, *LOOPBACK)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(MESSAGE)
        if await reader.readexactly(len(MESSAGE)) != MESSAGE:
            raise SystemExit("the server did not echo what it was sent")
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def thread_cycle() -> None:
    """A socket and a thread, for one connection."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(65_536):
                connection.sendall(data)

    with socket.create_server(LOOPBACK) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        exchange(listener.getsockname())
        thread.join()


def rsock_cycle() -> None:
    from rsock import Server

    with Server() as server:
        exchange(server.address)


PEERS: dict[str, Callable[[], None]] = {
    "asyncio": asyncio_cycle,
    "asyncio-one-loop": one_loop_cycle,
    "bare-thread": thread_cycle,
    "uvloop": uvloop_cycle,
    "rsock": rsock_cycle,
}


def main() -> None:
    answer_with_median(PEERS[sys.argv[1]])


if __name__ == "__main__":
    main()

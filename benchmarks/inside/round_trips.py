"""Round trips a second of one blocking client: `round_trips.py CLIENT PORT [--busy]`.

With `--busy`, a Python thread of the same process spins meanwhile. Must never treat the clients
differently: the same lines use both.
"""

import argparse
import socket
from contextlib import nullcontext
from time import perf_counter
from typing import Protocol

from inside.spinner import Spinner
from inside.turns import answer

MESSAGE = bytes(range(64))


class Stream(Protocol):
    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...


def connect(client: str, port: int) -> Stream:
    """A connected client of that name, with TCP_NODELAY, which rsock's sets by default."""
    if client == "rsock.Client":
        import rsock

        return rsock.Client("127.0.0.1", port)
    stream = socket.create_connection(("127.0.0.1", port))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def round_trips(stream: Stream, seconds: float) -> float:
    """How many round trips a second `stream` makes."""
    count = 0
    begin = perf_counter()
    while (passed := perf_counter() - begin) < seconds:
        stream.sendall(MESSAGE)
        if stream.recv(len(MESSAGE)) != MESSAGE:
            raise SystemExit("the server did not echo what it was sent")
        count += 1
    return count / passed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=["socket.socket", "rsock.Client"])
    parser.add_argument("port", type=int)
    parser.add_argument("--busy", action="store_true")
    arguments = parser.parse_args()
    stream = connect(arguments.client, arguments.port)

    def measure(seconds: float) -> float:
        with Spinner() if arguments.busy else nullcontext():
            return round_trips(stream, seconds)

    answer(measure)


if __name__ == "__main__":
    main()

"""Milliseconds that a server of a test takes, from its start over one exchange to its stop.

`fixture.py PEER`. Each contender is started and stopped as its fixture for pytest does it, by the
calls of that fixture; the client is the same blocking `socket.socket` in the same thread, which
sends what the server answers: bytes, or a request of HTTP to those that speak only that. Must never
count imports, nor pytest itself.
"""

import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from inside.turns import answer_with_median

Address = tuple[str, int]

MESSAGE = b"x" * 64
REQUEST = b"GET / HTTP/1.0\r\n\r\n"


def exchange(address: Address, message: bytes = MESSAGE) -> None:
    """The client: connects, sends, receives the beginning of the answer, closes."""
    with socket.socket() as client:
        client.connect(address)
        client.sendall(message)
        if not client.recv(65_536):
            raise SystemExit("the server has not answered")


def rsock_cycle() -> None:
    """The fixture `rsock_server`."""
    from rsock._pytest._servers import ServersOfTest

    options: dict[str, Any] = {"rsock_seed": None, "rsock_strict": None, "rsock_show": False}
    config = SimpleNamespace(getoption=options.get, getini=lambda _: False)
    item: Any = SimpleNamespace(
        config=config,
        iter_markers=lambda _: (),
        reportinfo=lambda: (__file__, 0, "cycle"),
    )
    servers = ServersOfTest(item)
    exchange(servers.marked().address)
    servers.stop()


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65_536):
            self.request.sendall(data)


def socketserver_cycle() -> None:
    """The fixture that its users write: a server in a thread."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        exchange(server.server_address)  # type: ignore[arg-type]
        server.shutdown()
        thread.join()


def localserver_cycle() -> None:
    """The fixture `httpserver` of pytest-localserver."""
    server = import_module("pytest_localserver.http").ContentServer()
    server.start()
    exchange(server.server_address, REQUEST)
    server.stop()


def httpserver_cycle() -> None:
    """The fixture `httpserver` of pytest-httpserver, which one server serves for all tests.

    Here it is started and stopped, as for the first and the last test.
    """
    server = import_module("pytest_httpserver").HTTPServer(host="127.0.0.1", port=0)
    server.start()
    server.expect_request("/").respond_with_data(MESSAGE)
    exchange((server.host, server.port), REQUEST)
    server.clear()
    server.stop()


PEERS: dict[str, Callable[[], None]] = {
    "pytest-httpserver": httpserver_cycle,
    "pytest-localserver": localserver_cycle,
    "rsock": rsock_cycle,
    "socketserver": socketserver_cycle,
}


def main() -> None:
    answer_with_median(PEERS[sys.argv[1]])


if __name__ == "__main__":
    main()

"""The handler on socketserver: a thread for each connection, as the standard library does it.

Must never slow it down, nor print what a handler raises.
"""

import socketserver
import sys
import threading

from servers.asyncio_echo import BACKLOG
from servers.handler import handle


class Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        handle(self.request)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True  # not kept in a list until the server ends
    request_queue_size = BACKLOG

    def handle_error(self, request: object, client_address: object) -> None:
        """Prints nothing: errors that the load causes must not cost a traceback."""


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()

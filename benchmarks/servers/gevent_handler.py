"""The handler on gevent's StreamServer: a greenlet for each connection, all in one thread.

Must never monkey-patch: the server's own sockets are gevent's already.
"""

import contextlib
import sys

from gevent.server import StreamServer  # type: ignore[import-untyped]
from gevent.socket import wait_read  # type: ignore[import-untyped]

from servers.asyncio_echo import BACKLOG
from servers.handler import Connection, handle


def _handle(connection: Connection, _: object) -> None:
    # Resets are expected, and reporting each would cost more than all the rest.
    with contextlib.suppress(ConnectionError):
        handle(connection)


if __name__ == "__main__":
    server = StreamServer(("127.0.0.1", 0), _handle, backlog=BACKLOG)
    server.start()
    print(server.server_port, flush=True)
    wait_read(sys.stdin.fileno())
    server.stop()

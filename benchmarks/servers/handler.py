"""The blocking handler that the servers of the row `handler` run: it echoes one connection.

Must never know which server runs it: what is compared is what is around it.
"""

from typing import Protocol


class Connection(Protocol):
    def recv(self, size: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...


def handle(connection: Connection) -> None:
    """Echoes until the peer ends its side; who called closes the connection."""
    while data := connection.recv(65536):
        connection.sendall(data)

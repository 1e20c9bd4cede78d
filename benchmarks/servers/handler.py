"""The blocking handler that the servers of the scenario `handler` run: it echoes one connection.

Must never know which server runs it, because the servers are what is compared.
"""

from typing import Protocol


class Connection(Protocol):
    def recv(self, size: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...


def handle(connection: Connection) -> None:
    """Echoes until the peer ends its side; the caller closes the connection."""
    while data := connection.recv(65536):
        connection.sendall(data)

"""The echo servers that are compared, and how one of them is started.

Every server has the same manners: it listens on a port of the system's choosing, prints the port,
echoes, and ends with its standard input. Must never tell one peer from another.
"""

from dataclasses import dataclass

from harness.children import SERVER_CORE, Child, binary, script


@dataclass(frozen=True)
class Peer:
    name: str
    command: list[str]
    requires: str | None = None
    """A module without which this peer is skipped."""

    def start(self) -> Child:
        """The server, on its core, to be entered with `with`; its greeting is its port."""
        return Child(self.command, SERVER_CORE)


FLOOR = Peer("floor", binary("floor"))
RSOCK = Peer("rsock", script("servers.rsock_echo"), requires="rsock")

PEERS = (
    FLOOR,
    Peer("asyncio", script("servers.asyncio_echo")),
    Peer("uvloop", script("servers.uvloop_echo"), requires="uvloop"),
    RSOCK,
)

"""The servers that are compared, and how one of them is started.

Every server follows the same protocol: it listens on a port that the system chooses, prints the
port, echoes (or forwards to the port in its arguments), and ends with its standard input. Must
never treat one peer differently from another.
"""

from dataclasses import dataclass

from harness.children import SERVER_CORE, Child, binary, script


@dataclass(frozen=True)
class Peer:
    name: str
    command: list[str]
    requires: str | None = None
    """A module without which this peer is skipped."""
    program: str | None = None
    """The same for a system program."""

    def start(self, *arguments: str) -> Child:
        """The server on its core, as a context manager; its greeting is its port."""
        return Child([*self.command, *arguments], SERVER_CORE)


FLOOR = Peer("floor", binary("floor"))
RSOCK = Peer("rsock", script("servers.rsock_echo"), requires="rsock")

UVLOOP = Peer("uvloop", script("servers.uvloop_echo"), requires="uvloop")
# Both serve with a Python function (`servers/handler.py`), and neither reports a reset.
SOCKETSERVER = Peer("socketserver", script("servers.socketserver_handler"))
GEVENT = Peer("gevent", script("servers.gevent_handler"), requires="gevent")

PEERS = (
    FLOOR,
    Peer("tokio", binary("tokio")),
    Peer("asyncio", script("servers.asyncio_echo")),
    UVLOOP,
    RSOCK,
    SOCKETSERVER,
    GEVENT,
)

SPLICE = Peer("splice", binary("splice"))

# A message of 1 MiB is a different comparison: the floor copies it twice.
BULK_PEERS = (SPLICE, *PEERS)

HAPROXY = Peer("haproxy", script("servers.foreign_forward", "haproxy"), program="haproxy")
RSOCK_FORWARD = Peer("rsock", script("servers.rsock_forward"), requires="rsock")

FORWARDERS = (
    HAPROXY,
    Peer("socat", script("servers.foreign_forward", "socat"), program="socat"),
    Peer("uvloop", script("servers.uvloop_forward"), requires="uvloop"),
    RSOCK_FORWARD,
)

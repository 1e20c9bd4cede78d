"""The cost of one echoed datagram: CPU time of the whole server process, divided by datagrams.

As the scenarios of TCP (`echo.py`), with UDP sockets. Must never lose a datagram: no more are in
flight than fit into any receive buffer.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.children import binary, script
from harness.contest import Contender, Scenario, Target, Turn
from harness.peers import Peer

from scenarios.echo import echoing

SOCKETS = 50

RECVMMSG = Peer("recvmmsg", binary("udp", "--batch", "64"))
RSOCK = Peer("rsock", script("servers.rsock_udp"), requires="rsock")

PEERS = (
    RECVMMSG,
    Peer("recvfrom", binary("udp", "--batch", "1")),
    Peer("asyncio", script("servers.asyncio_udp")),
    Peer("uvloop", script("servers.uvloop_udp"), requires="uvloop"),
    RSOCK,
)


def _contender(name: str, peer: Peer) -> Contender:
    @contextmanager
    def start() -> Iterator[Turn]:
        with peer.start() as server, echoing(server, SOCKETS, udp=True) as turn:
            yield turn

    against = None if name == RECVMMSG.name else RECVMMSG.name
    target = Target("≤", 1.12, "≤ 1.12 × recvmmsg") if peer is RSOCK else None
    return Contender(name, start, against, target, peer.requires)


_entries = [_contender(peer.name, peer) for peer in PEERS]
# A second floor against the first shows the noise of a ratio on this machine, at this time.
_entries.insert(1, _contender("recvmmsg again", RECVMMSG))

UDP = Scenario("udp", f"UDP echo 64 B, {SOCKETS} sockets", "CPU µs/datagram", tuple(_entries))

"""Matrix row 1: odd chunks, odd pauses, odd buffers, and not a byte lost, cut or doubled."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from campaign import load
from campaign.figures import Figure, equal
from campaign.process import Child, Served
from campaign.row import Row, Size

if TYPE_CHECKING:
    from rsock import Connection, Server


def server(kind: str) -> "Server":
    from rsock import Echo, Server

    return Server(service=Echo() if kind == "Echo()" else handler)


def handler(conn: "Connection") -> None:
    while data := conn.recv(65_536):
        conn.sendall(data)


def run(size: Size) -> Iterator[Figure]:
    connections, length, seeds = size.of(
        brief=(20, 50_000, 1), short=(200, 500_000, 1), long=(200, 5_000_000, 20)
    )
    for kind in ("Echo()", "a handler"):
        with Served(server, kind) as served, Child() as peers:
            right = sum(
                peers.call(load.exact, served.address, connections, length, seed)
                for seed in range(seeds if kind == "Echo()" else 1)
            )
            wanted = connections * (seeds if kind == "Echo()" else 1)
            yield equal(f"{kind}: got {length:,} bytes back, SHA-256 equal", right, wanted)
            report = served.stop()
            yield equal(f"{kind}: bytes in, bytes out", *_sums(report["totals"], wanted * length))
            yield from served.afterwards()


def _sums(totals: dict[str, int], wanted: int) -> tuple[str, str]:
    return f"{totals['bytes_in']}, {totals['bytes_out']}", f"{wanted}, {wanted}"


ROW = Row("1", "odd chunks and pauses, half-close at the end: byte-exact", run)

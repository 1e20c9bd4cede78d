"""Random bytes, and every way to come and go, at every service in Rust at once.

One process has a server of each, another one torments them all, a thread for each. Must never know
what a service does with what it is sent, but for the question at the end whether it still does it.
"""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from support import read_exactly

from campaign.figures import Figure, at_least, at_most, equal, only_shown
from campaign.load import dial, reset
from campaign.process import Child, held, resident_bytes, warm_up
from campaign.row import Row, Size

if TYPE_CHECKING:
    from rsock import Server, Service

# What means something to one service or another, among all that means nothing.
WORDS = [
    b"exit\n",
    b"exit",
    b"\r\n",
    b"\n",
    b"\0",
    b"\xff\xf4\xff\xfd\x06",
    b"x" * 70_000,
    b"a line\n",
]
# What Forward passes on to; nobody else goes there.
BEHIND = "behind"
_servers: dict[str, "Server"] = {}


def services() -> "dict[str, Callable[[], Service]]":
    """How each is made; what one is asked at the end is in `still_serves`."""
    import rsock

    return {
        "Echo": rsock.Echo,
        "LineEcho": rsock.LineEcho,
        "Discard": rsock.Discard,
        "Chargen": rsock.Chargen,
        "Daytime": rsock.Daytime,
        "Time": rsock.Time,
        "Quote": lambda: rsock.Quote("quoted"),
        "Greeting": lambda: rsock.Greeting(b"g" * 100_000),
        "Forward": lambda: rsock.Forward(_servers[BEHIND]),
        "ByConnection": lambda: rsock.ByConnection(
            rsock.Echo(),
            rsock.Chargen(),
            rest=rsock.LineEcho(quit=None, newline=False, limit=1_000),
        ),
    }


def without_row() -> list[str]:
    """Services in Rust that nobody has put here."""
    import rsock

    mine = {kind.__name__ for kind in rsock.Service.__subclasses__()} - {"Handler", "Accept"}
    return sorted(mine - services().keys())


def start() -> dict[str, tuple[str, int]]:
    import rsock

    warm_up()
    _servers[BEHIND] = rsock.Server(history=100).start()
    for name, make in services().items():
        _servers[name] = rsock.Server(service=make(), history=100).start()
    return {name: server.address for name, server in _servers.items() if name != BEHIND}


def settle(made: dict[str, int]) -> list[str]:
    """Wait until all that came has gone, and stop; what is not as it should be."""
    wrong = []
    for name, server in reversed(_servers.items()):
        with contextlib.suppress(TimeoutError):
            server.ledger.wait(open=0, timeout=30.0)
        report = server.stop(drain=0.5)
        totals = server.ledger.totals
        # Not all that came to Forward was there for long enough to be passed on.
        came = made.get(name, totals.accepted)
        if (totals.accepted, totals.closed, totals.open) != (came, came, 0):
            wrong.append(f"{name}: {came} came, {totals}")
        if report.errors or report.forced or totals.closed_by["error"]:
            wrong.append(f"{name}: {report}, {totals.closed_by}")
    _servers.clear()
    return wrong


def torment(addresses: dict[str, Any], seconds: float, seed: int) -> dict[str, int]:
    """Come and go for so long; how often it came to each."""
    made = dict.fromkeys(addresses, 0)
    end = time.monotonic() + seconds

    def one(name: str, number: int) -> None:
        dice = random.Random(seed * 1_000 + number)
        held: list[socket.socket] = []
        while time.monotonic() < end:
            peer = dial(addresses[name])
            made[name] += 1
            held.append(peer)
            with contextlib.suppress(OSError):
                abuse(peer, dice)
            while len(held) > dice.randrange(20):
                depart(held.pop(dice.randrange(len(held))), dice)
        while held:
            depart(held.pop(), dice)

    threads = [
        threading.Thread(target=one, args=(name, number)) for number, name in enumerate(addresses)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


def abuse(peer: socket.socket, dice: random.Random) -> None:
    peer.settimeout(0.005)
    for _ in range(dice.randrange(8)):
        kind = dice.randrange(8)
        if kind < 3:
            peer.sendall(dice.randbytes(int(2 ** dice.uniform(0, 17))))
        elif kind < 5:
            peer.sendall(dice.choice(WORDS))
        elif kind == 5:
            peer.send(b"!", socket.MSG_OOB)
        elif kind == 6:
            peer.recv(int(2 ** dice.uniform(0, 17)))
        else:
            peer.shutdown(dice.choice([socket.SHUT_RD, socket.SHUT_WR]))


def depart(peer: socket.socket, dice: random.Random) -> None:
    if dice.random() < 0.5:
        peer.close()
    else:
        reset(peer)


def still_serves(addresses: dict[str, Any]) -> list[str]:
    """Those that do not do any more what they are for."""
    expected = {
        "Echo": b"hello\n",
        "LineEcho": b"hello\n",
        "Discard": b"",
        "Chargen": b' !"#$%',
        "Daytime": None,
        "Time": None,
        "Quote": b"quoted",
        "Greeting": b"gggggg",
        "Forward": b"hello\n",
        "ByConnection": b"hello",
    }
    silent = []
    for name, address in addresses.items():
        with dial(address) as peer:
            peer.sendall(b"hello\n")
            peer.shutdown(socket.SHUT_WR)
            wanted = expected[name]
            said = read_exactly(peer, 4 if wanted is None else len(wanted) or 1)
            if said != wanted if wanted is not None else len(said) != 4:
                silent.append(f"{name}: {said!r}")
    return silent


def run(size: Size) -> Iterator[Figure]:
    seconds = size.of(brief=1.0, short=10.0, long=60.0)
    with Child() as served, Child() as load:
        served.call(warm_up)
        before = held(served.pid)
        yield equal("services that are not here", served.call(without_row), [])
        addresses = served.call(start)
        made = load.call(torment, addresses, seconds / 4, 1)
        resident = resident_bytes(served.pid)
        for name, count in load.call(torment, addresses, seconds * 3 / 4, 2).items():
            made[name] += count
        grown = resident_bytes(served.pid) - resident
        yield equal("do no more what they are for", load.call(still_serves, addresses), [])
        for name in made:
            made[name] += 1
        yield only_shown("connections", sum(made.values()))
        yield at_least("fewest at one service", min(made.values()), 5, measured=False)
        yield at_most("memory gained after the first quarter", grown, 1 << 20, "B")
        yield equal("not in the books", served.call(settle, made), [])
        now = held(served.pid)
        yield equal("descriptors, threads left", (*now,), (*before,))
        yield equal("exit code", served.end(), 0)
        yield equal("said on standard error", served.said(), "")


ROW = Row("random-bytes", "random bytes at every service: no panic, no leak, books balance", run)

"""Random bytes, and connections that come and go in every way, at every service in Rust.

One process has a server of each, on TCP and UDP, another one attacks them all, with a thread for
each. Must never know what a service does with its input, except for the final check that it still
works.
"""

import contextlib
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from support import read_exactly

from reliability.figures import Figure, at_least, at_most, equal, only_shown
from reliability.load import PATIENCE, dial, reset
from reliability.process import Child, held, resident_bytes, warm_up
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Server, Service

# Inputs that are meaningful to one service or another.
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
# The target of Forward; no client connects to it directly.
BEHIND = "behind"
# What each service answers to b"hello\n"; of the time services any four bytes are right.
ANSWERS: dict[str, bytes | None] = {
    "Echo": b"hello\n",
    "LineEcho": b"hello\n",
    "Discard": b"",
    "Chargen": b' !"#$%',
    "Daytime": None,
    "Time": None,
    "Quote": b"quoted",
    "Greeting": b"gggggg",
    "Forward": b"hello\n",
    "Replay": b"hello\n",
    "Script": b"hello\n",
    "ByConnection": b"hello",
}
# These serve streams only.
NOT_ON_UDP = {"LineEcho", "Forward", "ByConnection", "Replay", "Script"}
# A recording with one connection, which a client that says hello is played.
RECORDING = """rsock recording 1
transport tcp
started 2026-11-28T09:05:00.000000Z
target peer.test:7
1 0.0 open 127.0.0.1:50000
1 0.0 > b"hello\\n"
1 0.1 < b"hello\\n"
1 0.2 > end
1 0.2 < end
stop 1.0
"""
ON_UDP = " on UDP"
# A UDP server has room for 64 datagrams of the largest size, and which pages of it are touched
# depends on chance: seven servers touch some MiB, ever more slowly. Ten leaked bytes per datagram
# would still be visible in the long form.
GROWTH = 4 << 20
_servers: dict[str, "Server"] = {}


def services() -> "dict[str, Callable[[], Service]]":
    """How each service is made; `still_serves` has the final check of each."""
    import rsock

    return {
        "Echo": rsock.Echo,
        "LineEcho": rsock.LineEcho,
        "Discard": rsock.Discard,
        "Chargen": rsock.Chargen,
        "Daytime": rsock.Daytime,
        "Time": rsock.Time,
        "Quote": lambda: rsock.Quote("quoted"),
        "Greeting": lambda: rsock.Greeting(b"g" * 60_000),
        "Forward": lambda: rsock.Forward(_servers[BEHIND]),
        "Script": lambda: rsock.Script().either(
            rsock.Script().expect(b"hello\n").send(b"hello\n"),
            rsock.Script().until(b"\n", limit=1_000, name="line"),
            rsock.Script().expect_pattern(rb"[^\nh][^\n]{2}"),
        ),
        "Replay": _replay,
        "ByConnection": lambda: rsock.ByConnection(
            rsock.Echo(),
            rsock.Chargen(),
            rest=rsock.LineEcho(quit=None, newline=False, limit=1_000),
        ),
    }


def _replay() -> "Service":
    import rsock

    with tempfile.NamedTemporaryFile("w", suffix=".rec") as file:
        file.write(RECORDING)
        file.flush()
        return rsock.Replay(file.name, connections=1)


def missing_services() -> list[str]:
    """Services in Rust that are missing in `services` or in `ANSWERS`."""
    import rsock

    mine = {kind.__name__ for kind in rsock.Service.__subclasses__()} - {"Handler", "Accept"}
    return sorted(mine - (services().keys() & ANSWERS.keys()))


def start() -> dict[str, tuple[str, int]]:
    import rsock

    warm_up()
    _servers[BEHIND] = rsock.Server(history=100).start()
    for name, make in services().items():
        # Random bytes diverge from a script, which is not an error here.
        server = rsock.Server(service=make(), history=100, on_error=lambda error: None)
        _servers[name] = server.start()
        if name not in NOT_ON_UDP:
            # The record of a peer stays open until it has been silent for that long.
            limits = rsock.Limits(idle=0.5)
            server = rsock.Server(service=make(), transport="udp", history=100, limits=limits)
            _servers[name + ON_UDP] = server.start()
    return {name: server.address for name, server in _servers.items() if name != BEHIND}


def settle(made: dict[str, int]) -> list[str]:
    """Wait until all connections have closed, and stop; return the deviations."""
    wrong = []
    for name, server in reversed(_servers.items()):
        with contextlib.suppress(TimeoutError):
            server.ledger.wait(open=0, timeout=30.0)
        report = server.stop(drain=0.5)
        totals = server.ledger.totals
        # Some connections to Forward ended before they could be passed on. Datagrams are counted by
        # peer, and some peers find no room.
        known = name in made and not name.endswith(ON_UDP)
        came = made[name] if known else totals.accepted
        if (totals.accepted, totals.closed, totals.open) != (came, came, 0):
            wrong.append(f"{name}: {came} came, {totals}")
        # Of a script or a recording, a client that diverges is an error.
        diverged = sum(each.error is not None for each in server.script_results)
        told = totals.closed_by["error"] if name in ("Replay", "Script") else 0
        if (
            report.errors != told
            or told > diverged
            or report.forced
            or (totals.closed_by["error"] != told)
        ):
            wrong.append(f"{name}: {report}, {totals.closed_by}")
    _servers.clear()
    return wrong


def torment(addresses: dict[str, Any], seconds: float, seed: int) -> dict[str, int]:
    """Connect and disconnect for that time; return how often at each service."""
    made = dict.fromkeys(addresses, 0)
    end = time.monotonic() + seconds

    def one(name: str, number: int) -> None:
        dice = random.Random(seed * 1_000 + number)
        if name.endswith(ON_UDP):
            while time.monotonic() < end:
                made[name] += pelt(tuple(addresses[name]), dice)
            return
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


def pelt(address: tuple[str, int], dice: random.Random) -> int:
    """Send some datagrams from a new socket; return how many."""
    sent = dice.randrange(50)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(0.001)
        for _ in range(sent):
            data = dice.choice(WORDS)[:60_000]
            if dice.random() < 0.7:
                data = dice.randbytes(int(2 ** dice.uniform(0, 15)))
            with contextlib.suppress(OSError):
                peer.sendto(data, address)
                if dice.random() < 0.3:
                    peer.recv(int(2 ** dice.uniform(0, 17)))
    return sent


def depart(peer: socket.socket, dice: random.Random) -> None:
    if dice.random() < 0.5:
        peer.close()
    else:
        reset(peer)


def still_serves(addresses: dict[str, Any]) -> list[str]:
    """The services that no longer do what they are for."""
    silent = []
    for name, address in addresses.items():
        wanted = ANSWERS[name.removesuffix(ON_UDP)]
        length = 4 if wanted is None else len(wanted)
        said = (asked_on_udp if name.endswith(ON_UDP) else asked)(tuple(address), length)
        # Chargen may also answer with an empty datagram; Discard does not answer.
        right = len(said) == 4 if wanted is None else wanted.startswith(said)
        if not right or (len(said) < length and name != "Chargen" + ON_UDP):
            silent.append(f"{name}: {said!r}")
    return silent


def asked(address: tuple[str, int], length: int) -> bytes:
    with dial(address) as peer:
        peer.sendall(b"hello\n")
        peer.shutdown(socket.SHUT_WR)
        return read_exactly(peer, length or 1)


def asked_on_udp(address: tuple[str, int], length: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.connect(address)
        peer.settimeout(PATIENCE if length else 0.1)
        peer.send(b"hello\n")
        with contextlib.suppress(TimeoutError):
            return peer.recv(length or 1)
    return b""


def run(size: Size) -> Iterator[Figure]:
    seconds = size.of(brief=1.0, short=10.0, long=60.0)
    with Child() as served, Child() as load:
        served.call(warm_up)
        before = held(served.pid)
        yield equal("services that are missing", served.call(missing_services), [])
        addresses = served.call(start)
        made = load.call(torment, addresses, seconds / 2, 1)
        resident = resident_bytes(served.pid)
        for name, count in load.call(torment, addresses, seconds / 2, 2).items():
            made[name] += count
        grown = resident_bytes(served.pid) - resident
        yield equal("no longer work", load.call(still_serves, addresses), [])
        for name in made:
            made[name] += 1
        datagrams = sum(count for name, count in made.items() if name.endswith(ON_UDP))
        yield only_shown("connections", sum(made.values()) - datagrams)
        yield only_shown("datagrams", datagrams)
        yield at_least("fewest at one service", min(made.values()), 5, measured=False)
        yield at_most("memory gained in the second half", grown, GROWTH, "B")
        yield equal("not in the ledger", served.call(settle, made), [])
        now = held(served.pid)
        yield equal("descriptors, threads left", (*now,), (*before,))
        yield equal("exit code", served.end(), 0)
        yield equal("written to standard error", served.said(), "")


SCENARIO = Scenario(
    "random-bytes", "random bytes at every service: no panic, no leak, the ledger balances", run
)

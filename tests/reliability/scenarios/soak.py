"""Scenario 19: servers of every shape under faults that a seed draws and that change all the time.

What a connection gets back is compared with what it sent, byte by byte. Most faults promise that it
is the same, as far as it came: only `Corrupt` and `Garbage` may send something else. Each round
draws new faults for each server, adds and removes them while data flows, and clears them at its
end: then every connection must end by itself, because nothing that was held is lost.

The servers are in one process, their clients in others. The clients know no rsock.
"""

import contextlib
import random
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reliability import load
from reliability.figures import Figure, at_least, at_most, equal, only_shown
from reliability.process import Child, back_to, held, resident_bytes, warm_up
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Connection, Server
    from rsock.faults import Fault

ECHO_1, ECHO_2 = "Echo(), one worker", "Echo(), two workers"
HANDLER, ACCEPT, FORWARD, MIXED = "a handler", "Accept()", "Forward()", "ByConnection()"
UNIX, UDP = "Echo() on a Unix socket", "Echo() on UDP"
SHAPES = (ECHO_1, ECHO_2, HANDLER, ACCEPT, FORWARD, MIXED, UNIX, UDP)

# The kinds of faults that change what is sent, and those that lose connections that are queued.
CHANGING = {"corrupt", "garbage"}
UNCOUNTED = {"refuse", "full"}
# What one connection sends: some fill the buffers on its way, some do not.
SIZES = (1, 100, 5_000, 70_000, 400_000)
# Clients of one server at a time, in each process of clients.
AT_ONCE = 2
# From the end of the faults on, what was held has to arrive within this time. A client whose
# connect a full queue has refused tries again after 1, 3, 7 and 15 seconds (`tcp(7)`).
SETTLED = 60.0
# Few records, so that the memory for them has its final size after some seconds.
HISTORY = 20
# The share of the run after which memory is looked at.
WARM = 0.25
KIB = 1024


# --- in the process of the servers ---------------------------------------------------------

_servers: dict[str, "Server"] = {}
_target: list["Server"] = []
_accepting: list[threading.Thread] = []
_faults: dict[str, list["Fault"]] = {}


def _echo(conn: "Connection") -> None:
    while data := conn.recv(65_536):
        conn.sendall(data)


def _serve_accepted(server: "Server") -> None:
    """Accept connections until the server stops, and serve each on a thread of its own."""

    def serve(conn: "Connection") -> None:
        with conn, contextlib.suppress(OSError):
            _echo(conn)

    for conn, _ in server:
        thread = threading.Thread(target=serve, args=(conn,))
        _accepting[:] = [each for each in _accepting if each.is_alive()]
        _accepting.append(thread)
        thread.start()


def start(folder: str, seed: int) -> list[Any]:
    """Start the servers; return the addresses, in the order of `SHAPES`."""
    import rsock
    from rsock import Accept, ByConnection, Echo, Forward, Limits, Server

    rsock.raise_fd_limit()
    # Faults hold data for a long time on purpose; no limit ends a connection meanwhile.
    limits = Limits(write=None, half_close=None)
    target = Server(limits=limits, history=HISTORY).start()
    _target.append(target)
    options: dict[str, dict[str, Any]] = {
        ECHO_1: {"workers": 1},
        ECHO_2: {"workers": 2},
        HANDLER: {"service": _echo},
        ACCEPT: {"service": Accept()},
        FORWARD: {"service": Forward(target)},
        MIXED: {"service": ByConnection(Echo(), _echo, rest=Echo())},
        UNIX: {"path": str(Path(folder) / "soak.sock")},
        # Few peers are remembered, so that the memory for them soon has its final size.
        UDP: {"transport": "udp", "limits": Limits(connections=200)},
    }
    for number, shape in enumerate(SHAPES):
        if shape != UDP:
            options[shape]["limits"] = limits
        server = Server(faults=[], seed=seed + number, history=HISTORY, **options[shape])
        _servers[shape] = server.start()
    accepting = threading.Thread(target=_serve_accepted, args=(_servers[ACCEPT],))
    accepting.start()
    _accepting.append(accepting)
    return [server.address for server in _servers.values()]


def draw(seed: int) -> list[list[str]]:
    """Draw the faults of a round; return the names of their kinds for each server."""
    dice = random.Random(seed)
    for shape in SHAPES:
        drawn = [_drawn(dice, shape) for _ in range(dice.randint(2, 5))]
        if dice.random() < 0.7:
            drawn = [fault for fault in drawn if fault._name not in CHANGING]
        _faults[shape] = drawn
    return [[fault._name for fault in _faults[shape]] for shape in SHAPES]


def _drawn(dice: random.Random, shape: str) -> "Fault":
    from rsock import faults

    datagrams = shape == UDP
    soon = dice.uniform(0.0, 1.5)
    some: int | None = int(2 ** dice.uniform(0, 18))
    # After a number of bytes, or after a time.
    if dice.random() < 0.5:
        after: dict[str, Any] = {"after_bytes": some}
    else:
        after = {"after_seconds": soon}
    scope: dict[str, Any] = {
        "direction": dice.choice(("up", "down", "both")),
        "probability": dice.choice((0.3, 0.7, 1.0)),
    }
    if dice.random() < 0.25:
        scope["when"] = (soon / 2, dice.choice((None, soon + 0.1)))
    rate = dice.choice((0.001, 0.05, 0.5))
    kinds: dict[str, Callable[[], Fault]] = {
        "latency": lambda: faults.Latency(
            soon / 4,
            jitter=soon / 8,
            distribution=dice.choice(("uniform", "normal")),
            **scope,
        ),
        "bandwidth": lambda: faults.Bandwidth(
            10 ** dice.uniform(4.5, 7.0), shared=dice.random() < 0.3, **scope
        ),
        "blackhole": lambda: faults.Blackhole(soon, for_seconds=dice.choice((None, 0.3)), **scope),
        "corrupt": lambda: faults.Corrupt(rate, **scope),
    }
    if datagrams:
        kinds |= {
            "drop": lambda: faults.Drop(rate, **scope),
            "duplicate": lambda: faults.Duplicate(rate, **scope),
            "reorder": lambda: faults.Reorder(rate, window=dice.randint(1, 8), **scope),
        }
    else:
        kinds |= {
            "slice": lambda: faults.Slice(
                dice.choice((100, 1_000, 20_000)), variation=dice.choice((0, 90)), **scope
            ),
            "close": lambda: faults.CloseAfter(**after, **scope),
            "reset": lambda: faults.Reset(**after, **scope),
            "slowclose": lambda: faults.SlowClose(soon, **scope),
            "slowreader": lambda: faults.SlowReader(10 ** dice.uniform(4.5, 6.5), **scope),
            "garbage": lambda: faults.Garbage(some or 1, **scope),
            "truncate": lambda: faults.Truncate(some or 0, **scope),
            "refuse": faults.Refuse,
            "full": faults.Full,
            "neveraccept": faults.NeverAccept,
            "acceptdelay": lambda: faults.AcceptDelay(soon / 10),
        }
    return kinds[dice.choice(sorted(kinds))]()


def disturb(seconds: float, seed: int) -> dict[str, int]:
    """Add and remove the faults of the round for its time; clear them then.

    Returns how often each kind was added.
    """
    dice = random.Random(seed)
    added: Counter[str] = Counter()
    end = time.monotonic() + seconds
    in_force: dict[str, list[Fault]] = {shape: [] for shape in SHAPES}
    while time.monotonic() < end:
        shape = dice.choice(SHAPES)
        here = in_force[shape]
        left = [fault for fault in _faults[shape] if fault not in here]
        if left and (not here or dice.random() < 0.6):
            fault = dice.choice(left)
            _servers[shape].faults.add(fault)
            here.append(fault)
            added[fault._name] += 1
        elif here:
            _servers[shape].faults.remove(here.pop(dice.randrange(len(here))))
        time.sleep(dice.uniform(0.0, 0.04))
    for server in _servers.values():
        server.faults.clear()
    return dict(added)


def settle() -> dict[str, Any]:
    """After a round: what is wrong in the books, where every connection has ended by itself."""
    wrong = []
    for shape, server in _servers.items():
        ledger = server.ledger
        if shape != UDP:
            try:
                ledger.wait(open=0, timeout=SETTLED)
            except TimeoutError:
                wrong.append(f"{shape}: {ledger.totals.open} still open: {ledger.open!r}")
        totals = ledger.totals
        if totals.accepted != totals.open + totals.closed:
            wrong.append(f"{shape}: accepted, open, closed: {totals}")
        if sum(totals.closed_by.values()) != totals.closed:
            wrong.append(f"{shape}: closed, and by what: {totals}")
        errors = {record.error for record in ledger.closed if record.closed_by == "error"}
        wrong += [f"{shape}: {error}" for error in errors]
    accepted = [server.ledger.totals.accepted for server in _servers.values()]
    return {"wrong": wrong, "accepted": accepted}


def finish() -> dict[str, int]:
    """Stop the servers; return the causes that ended their connections."""
    seen: Counter[str] = Counter()
    for server in _servers.values():
        server.stop(5.0)
        seen.update(server.ledger.totals.closed_by)
    for thread in _accepting:
        thread.join(SETTLED)
    _target.pop().stop(5.0)
    _servers.clear()
    _accepting.clear()
    _faults.clear()
    return seen


# --- in the processes of the clients -------------------------------------------------------


def visit(addresses: list[Any], exact: list[bool], seconds: float, seed: int) -> dict[str, Any]:
    """Send and compare on all servers for that time; count how connections went, by server."""
    end = time.monotonic() + seconds
    counts = {shape: Counter[str]() for shape in SHAPES}
    wrong: list[str] = []

    def one(index: int, number: int) -> None:
        shape, address = SHAPES[index], addresses[index]
        dice = random.Random(f"{seed} {index} {number}")
        talk = _datagrams if shape == UDP else _stream
        while time.monotonic() < end:
            try:
                outcome = talk(dice, address, exact[index])
            except Exception as error:
                outcome = f"wrong: {error!r}"
            if outcome.startswith("wrong"):
                wrong.append(f"{shape}: {outcome}")
            counts[shape][outcome.partition(":")[0]] += 1

    threads = [
        threading.Thread(target=one, args=(index, number))
        for index in range(len(SHAPES))
        for number in range(AT_ONCE)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"counts": counts, "wrong": wrong}


def _connected(address: Any) -> socket.socket:
    if not isinstance(address, str):
        return load.dial(address)
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(load.PATIENCE)
    try:
        peer.connect(address)
    except BaseException:
        peer.close()
        raise
    return peer


def _stream(dice: random.Random, address: Any, exact: bool) -> str:
    """One connection: "whole", "cut", "refused", "changed" where that is allowed, or "wrong"."""
    try:
        peer = _connected(address)
    except (ConnectionError, BlockingIOError):
        # EAGAIN: the queue of a Unix socket is full, and the socket has a time-out (`unix(7)`).
        time.sleep(0.005)
        return "refused"
    sent = dice.randbytes(dice.choice(SIZES))
    got = bytearray()
    with peer:
        peer.settimeout(SETTLED)

        def send() -> None:
            # A fault may end the connection at any time.
            with contextlib.suppress(OSError):
                for piece in _cut(dice, sent):
                    peer.sendall(piece)
                peer.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            while part := peer.recv(65_536):
                got += part
        except TimeoutError:
            return f"wrong: nothing came for {SETTLED:.0f} s after {len(got)} of {len(sent)} bytes"
        except ConnectionError:
            pass
        finally:
            # Where only our direction is slow, its end wakes the sender.
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            sender.join()
    if got == sent:
        return "whole"
    if sent.startswith(got):
        return "cut"
    if not exact:
        return "changed"
    at = next(at for at, pair in enumerate(zip(sent, got, strict=False)) if pair[0] != pair[1])
    return f"wrong: byte {at} of {len(sent)}, {len(got)} came"


def _cut(dice: random.Random, data: bytes) -> Iterator[bytes]:
    while data:
        size = int(2 ** dice.uniform(0, 17))
        yield data[:size]
        data = data[size:]


def _datagrams(dice: random.Random, address: Any, exact: bool) -> str:
    """Some datagrams: each that comes back is one that was sent, or of its length."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(0.05)
        peer.connect(tuple(address))
        sent = [dice.randbytes(dice.choice((1, 100, 1_400))) for _ in range(20)]
        lengths = {len(data) for data in sent}
        came: set[bytes] = set()
        for data in sent:
            peer.send(data)
            # The last answers may be late, and those of a black hole never come.
            with contextlib.suppress(TimeoutError):
                came.add(peer.recv(2_048))
        changed = came - set(sent)
        if changed and exact:
            return "wrong: a datagram that was not sent"
        if any(len(data) not in lengths for data in changed):
            return "wrong: a datagram of another length"
        return "changed" if changed else "whole" if came == set(sent) else "cut"


# --- the scenario --------------------------------------------------------------------------


def run(size: Size) -> Iterator[Figure]:
    rounds, seconds = size.of(brief=(1, 0.3), short=(3, 2.5), long=(100, 5.0))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rsock-"))
        servers = stack.enter_context(Child())
        clients = [stack.enter_context(Child()) for _ in range(2)]
        servers.call(warm_up)
        before = held(servers.pid)
        addresses = servers.call(start, folder, 19)
        counts = {shape: Counter[str]() for shape in SHAPES}
        kinds: Counter[str] = Counter()
        wrong: list[str] = []
        books: list[str] = []
        memory: list[tuple[float, int]] = []
        began = time.monotonic()
        end = began + (600.0 if size.form == "long" else 0.0)
        number, accepted = 0, [0] * len(SHAPES)
        # In the long form as many rounds as fit in ten minutes.
        while number < rounds or time.monotonic() < end:
            drawn = servers.call(draw, number)
            exact = [CHANGING.isdisjoint(names) for names in drawn]
            connected = dict.fromkeys(SHAPES, 0)
            for index, each in enumerate(clients):
                each.begin(visit, addresses, exact, seconds, number * 10 + index)
            kinds.update(servers.call(disturb, seconds, number))
            for each in clients:
                found = each.result()
                wrong += [f"round {number}: {what}" for what in found["wrong"]]
                for shape in SHAPES:
                    counts[shape].update(found["counts"][shape])
                    connected[shape] += _connects(found["counts"][shape])
            settled = servers.call(settle)
            books += [f"round {number}: {what}" for what in settled["wrong"]]
            for index, shape in enumerate(SHAPES):
                more = settled["accepted"][index] - accepted[index]
                counted = shape != UDP and UNCOUNTED.isdisjoint(drawn[index])
                if counted and more != connected[shape]:
                    books.append(
                        f"round {number}: {shape}: {connected[shape]} connected, {more} accepted"
                    )
            accepted = settled["accepted"]
            memory.append((time.monotonic() - began, resident_bytes(servers.pid)))
            number += 1
        yield only_shown("rounds, seconds", f"{number}, {memory[-1][0]:.0f}")
        yield only_shown("faults added, by kind", _listed(kinds))
        for shape in SHAPES:
            yield only_shown(f"{shape}: connections", _listed(counts[shape]))
        yield equal("wrong, or never ended", wrong[:5], [])
        yield equal("books that do not balance", books[:5], [])
        whole = sum(counts[shape]["whole"] for shape in SHAPES)
        yield at_least("came back whole", whole, size.of(brief=1, short=50, long=5_000))
        slope = _slope([each for each in memory if each[0] >= WARM * memory[-1][0]])
        if size.form == "long":
            yield at_most("memory grown a minute", slope, 100 * KIB, "B")
        else:
            yield only_shown("memory grown a minute", slope, "B")
        yield only_shown("closed by", _listed(Counter(servers.call(finish))))
        back_to(before, servers.pid)
        now = held(servers.pid)
        left = [now.fds - before.fds, now.threads - before.threads]
        yield equal("descriptors, threads left", left, [0, 0])
        yield equal("exit code", servers.end(), 0)
        yield equal("written to standard error", servers.said(), "")


def _connects(outcomes: dict[str, int]) -> int:
    return sum(count for outcome, count in outcomes.items() if outcome != "refused")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.most_common() if count)


def _slope(points: list[tuple[float, int]]) -> float:
    """The slope of the line through the points by least squares, a minute."""
    if len(points) < 2:
        return 0.0
    middle = sum(at for at, _ in points) / len(points)
    mean = sum(value for _, value in points) / len(points)
    spread = sum((at - middle) ** 2 for at, _ in points)
    return 60 * sum((at - middle) * (value - mean) for at, value in points) / spread


SCENARIO = Scenario("19", "soak: servers of every shape, all faults drawn by seed", run)

"""Handshakes that are begun and never end harm no bystander, and take little memory.

Three processes: the server, the peers that stop in their handshakes, and this one, which is the
bystander. `RSOCK_TEST_LONG=1 pytest -s` on a quiet machine prints the figures for 5 000: the round
trips of the bystander alone, while the same peers come to another server (what the machine itself
adds), while they come, and while they are there, by turns in each round.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Script, dial, says_back

from rsock import TLS

LONG = bool(os.environ.get("RSOCK_TEST_LONG"))
HALF_OPEN = 5_000 if LONG else 300
# Connections a second.
RATE = 1_000
ROUNDS = 7 if LONG else 1
SAMPLES = 20_000 if LONG else 500
MADE = TLS.for_tests()

# Answers a line, the number of open connections to wait for, with its memory.
SERVER = """
import json, os, resource, sys, time
from rsock import TLS, Limits, Server

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
limits = Limits(connections=int(sys.argv[2]) + 10, first_byte=None)
# One worker has them all, and the bystander.
with Server(tls=TLS(sys.argv[1]), limits=limits, workers=1, history=100) as server:
    print(server.port, flush=True)
    for line in sys.stdin:
        count = int(line)
        server.ledger.wait(open=count, timeout=60)
        # Every hello, or its half, has been read.
        while sum(one.bytes_in >= 100 for one in server.ledger.open) < count:
            time.sleep(0.01)
        with open("/proc/self/statm") as memory:
            rss = int(memory.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        print(json.dumps(rss), flush=True)
"""

# A line "PORT COUNT RATE" opens COUNT connections; an empty one resets them.
PEERS = """
import resource, socket, struct, sys, time

hello = bytes.fromhex(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
for line in sys.stdin:
    if not line.strip():
        for peer in held:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        held.clear()
    else:
        port, count, rate = map(int, line.split())
        begun = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            peer = socket.create_connection(("127.0.0.1", port), timeout=60)
            # Of those that send a whole hello, the server keeps what it has agreed on so far.
            peer.sendall(hello if number % 2 else hello[:100])
            held.append(peer)
    print("done", flush=True)
"""


def hello() -> bytes:
    """The first record of OpenSSL's client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cadata=MADE.ca_pem)
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@contextlib.contextmanager
def bystander(port: int) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cadata=MADE.ca_pem)
    with dial(("127.0.0.1", port)) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as client:
            # A time-out would cost a poll(2) in each call.
            client.settimeout(None)
            assert says_back(client, bytes(100))
            yield client


def round_trips(client: ssl.SSLSocket, goes_on: Callable[[int], bool]) -> list[float]:
    """How long each took, in microseconds, in order of length."""
    times: list[float] = []
    gc.disable()
    try:
        while goes_on(len(times)):
            for _ in range(50):
                before = time.perf_counter_ns()
                client.sendall(b"x")
                assert client.recv(1) == b"x"
                times.append((time.perf_counter_ns() - before) / 1e3)
    finally:
        gc.enable()
    return sorted(times)


def percentile(times: list[float], part: float) -> float:
    return times[min(int(len(times) * part), len(times) - 1)]


PHASES = {
    "alone": "alone",
    "elsewhere": f"{RATE:,} a second come to another server",
    "coming": f"{RATE:,} a second come",
    "there": f"{HALF_OPEN:,} are there",
}


class Figures:
    """Round trips by phase, with one list for each round."""

    def __init__(self) -> None:
        self.rounds: dict[str, list[list[float]]] = {phase: [] for phase in PHASES}
        self.bytes_each: list[float] = []

    def median(self, phase: str, part: float) -> float:
        """The median of the rounds' percentiles."""
        return statistics.median(percentile(times, part) for times in self.rounds[phase])

    def ratios(self, phase: str, part: float) -> list[float]:
        """In each round, to the one before of the bystander alone."""
        pairs = zip(self.rounds[phase], self.rounds["alone"], strict=True)
        return sorted(percentile(one, part) / percentile(base, part) for one, base in pairs)

    def __str__(self) -> str:
        # From the second round on, memory that was freed is taken again.
        each = max(self.bytes_each)
        lines = [
            f"{HALF_OPEN:,} half-open handshakes, {each:,.0f} bytes each; {ROUNDS} rounds;"
            " round trips in µs (medians of the rounds; × alone, with the least and the most)",
            f"{'':40}{'samples':>10}{'p50':>8}{'p99':>8}{'p99.9':>9}  p99 × alone",
        ]
        for phase, meaning in PHASES.items():
            count = sum(map(len, self.rounds[phase]))
            p50, p99, p999 = (self.median(phase, part) for part in (0.5, 0.99, 0.999))
            least, middle, most = (
                percentile(self.ratios(phase, 0.99), part) for part in (0.0, 0.5, 1.0)
            )
            lines.append(
                f"{meaning:40}{count:>10,}{p50:>8.1f}{p99:>8.1f}{p999:>9.1f}"
                f"  {middle:.2f} ({least:.2f} … {most:.2f})"
            )
        return "\n".join(lines)


@pytest.mark.timeout(900 if LONG else 120)
def test_half_open_handshakes_harm_no_bystander_and_take_little(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < HALF_OPEN + 200:
        pytest.skip(f"needs {HALF_OPEN + 200} descriptors")
    path = tmp_path / "both.pem"
    path.write_text(MADE.cert_pem + MADE.key_pem)
    found = Figures()
    with contextlib.ExitStack() as stack:
        server, other = (
            stack.enter_context(Script(SERVER, str(path), str(HALF_OPEN))) for _ in range(2)
        )
        peers = stack.enter_context(Script(PEERS, hello().hex()))
        port, other_port = int(server.line()), int(other.line())
        client = stack.enter_context(bystander(port))

        def memory(script: Script, count: int) -> int:
            script.tell(str(count))
            return int(json.loads(script.line()))

        def comes_to(target: int) -> list[float]:
            """Round trips until all peers are connected."""
            peers.tell(f"{target} {HALF_OPEN} {RATE}")
            output = peers.process.stdout
            assert output is not None
            times = round_trips(client, lambda _: not select.select([output], [], [], 0)[0])
            assert peers.line() == "done"
            return times

        def leave() -> None:
            peers.tell()
            assert peers.line() == "done"

        def enough(count: int) -> bool:
            return count < SAMPLES

        # Not counted: caches, allocators, the sessions of this process.
        round_trips(client, enough)
        for _ in range(ROUNDS):
            found.rounds["alone"].append(round_trips(client, enough))
            found.rounds["elsewhere"].append(comes_to(other_port))
            leave()
            memory(other, 0)
            before = memory(server, 1)
            found.rounds["coming"].append(comes_to(port))
            found.bytes_each.append((memory(server, 1 + HALF_OPEN) - before) / HALF_OPEN)
            found.rounds["there"].append(round_trips(client, enough))
            leave()
            memory(server, 1)
        client.shutdown(socket.SHUT_RDWR)
        for script in (server, other, peers):
            code, _, errors = script.end()
            assert (code, errors) == (0, "")
    told = str(found)
    if LONG:
        print(f"\n{told}")
    assert max(found.bytes_each) < 60_000, told
    # A machine that does other things has its own delays: of the p99, only what is far off counts.
    for phase in ("coming", "there"):
        alone = max(found.median("alone", 0.5), found.median("elsewhere", 0.5))
        assert found.median(phase, 0.5) <= 3 * alone + 2_000, told
        late = max(found.median("alone", 0.99), found.median("elsewhere", 0.99))
        assert found.median(phase, 0.99) <= 10 * late + 50_000, told

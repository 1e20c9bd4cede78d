"""The accuracy of faults: what was asked for beside what a client measures.

The server is a process of its own, as the client is. The machine's own delay is measured in the
same way, on a server without faults: an error below it says nothing about rsock. Must never judge;
it prints.

`python benchmarks/accuracy.py [--connections N] [--seconds S]`
"""

import argparse
import json
import math
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.procfs import resident_bytes

MESSAGE = b"x" * 64
RATE = 1_000
"""Messages a second over all connections: few, so that none waits for another one."""

SERVER = """
import sys
from rsock import Chargen, Server
from rsock.faults import *
with Server(service={service}, faults={faults}) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


@contextmanager
def served(faults: str, service: str = "None") -> Iterator[tuple[str, int]]:
    with process_of(faults, service) as (_, address):
        yield address


@contextmanager
def process_of(faults: str, service: str = "None") -> Iterator[tuple[int, tuple[str, int]]]:
    """A server in a process of its own: the process's number, and the server's address."""
    code = SERVER.format(faults=faults, service=service)
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        yield process.pid, ("127.0.0.1", int(process.stdout.readline()))
        process.communicate()


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def round_trips(address: tuple[str, int], connections: int, seconds: float) -> list[float]:
    """The times of single messages, each on the connection that has rested for longest."""
    streams = [socket.create_connection(address) for _ in range(connections)]
    poller = select.epoll()
    for stream in streams:
        stream.setblocking(False)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poller.register(stream, select.EPOLLIN)
    by_number = {stream.fileno(): stream for stream in streams}
    sent: dict[int, float] = {}
    missing: dict[int, int] = {}
    times: list[float] = []
    begin = time.perf_counter()
    number, total = 0, int(RATE * seconds)
    while number < total or sent:
        due = begin + number / RATE
        now = time.perf_counter()
        if number < total and now >= due:
            stream = streams[number % connections]
            if stream.fileno() not in sent:
                sent[stream.fileno()] = time.perf_counter()
                missing[stream.fileno()] = len(MESSAGE)
                stream.send(MESSAGE)
            number += 1
            continue
        wait = max(0.0, due - now) if number < total else 0.1
        # epoll_wait rounds up to milliseconds: the rest is spun.
        for ready, _ in poller.poll(0 if wait < 0.002 else wait - 0.002):
            missing[ready] -= len(by_number[ready].recv(len(MESSAGE)))
            if missing[ready] == 0:
                times.append(time.perf_counter() - sent.pop(ready))
    for stream in streams:
        stream.close()
    return sorted(times)


def latency(connections: int, seconds: float) -> Iterator[tuple[str, str]]:
    with served("[]") as address:
        own = round_trips(address, connections, seconds)
    name = f"round trip without a fault, {connections:,} connections"
    yield (
        name,
        f"median {percentile(own, 0.5) * 1e3:.3f} ms, p99 {percentile(own, 0.99) * 1e3:.3f} ms",
    )
    for asked in (0.01, 0.05, 0.2):
        with served(f"[Latency({asked})]") as address:
            times = round_trips(address, connections, seconds)
        late = [(one - asked) * 1e3 for one in times]
        yield (
            f"Latency({asked}), beyond it",
            f"least {late[0]:.3f} ms, median {percentile(late, 0.5):.3f} ms, "
            f"p99 {percentile(late, 0.99):.3f} ms",
        )


def footprint(connections: int) -> Iterator[tuple[str, str]]:
    """Threads and memory of a server whose connections have all had a message and are quiet."""
    for faults in ("[]", "[Latency(0.05)]"):
        with process_of(faults) as (pid, address):
            # What the first connection allocates is not counted for each of the others.
            round_trips(address, 1, 0.1)
            before = resident_bytes(pid)
            streams = [socket.create_connection(address) for _ in range(connections)]
            for stream in streams:
                stream.send(MESSAGE)
            for stream in streams:
                stream.recv(len(MESSAGE), socket.MSG_WAITALL)
            each = (resident_bytes(pid) - before) / connections
            threads = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
            found = f"{threads} threads, {each:,.0f} bytes of memory for each"
            for stream in streams:
                stream.close()
        yield f"faults={faults}, {connections:,} quiet connections", found


def bandwidth(seconds: float) -> Iterator[tuple[str, str]]:
    for rate in (10_000, 1_000_000, 50_000_000):
        with (
            served(f"[Bandwidth({rate})]", "Chargen()") as address,
            socket.create_connection(address) as stream,
        ):
            stream.recv(1)
            begin, count = time.perf_counter(), 0
            while (now := time.perf_counter()) - begin < seconds:
                count += len(stream.recv(65_536))
            found = count / (now - begin)
        yield f"Bandwidth({rate}), over {seconds:g} s", f"{found / rate:.4f} of it"


def resets() -> Iterator[tuple[str, str]]:
    errors = []
    with served("[Reset(after_seconds=0.5)]") as address:
        for _ in range(10):
            with socket.create_connection(address) as stream:
                begin = time.perf_counter()
                try:
                    stream.recv(1)
                except ConnectionResetError:
                    errors.append((time.perf_counter() - begin - 0.5) * 1e3)
    errors.sort()
    yield (
        "Reset(after_seconds=0.5) on idle connections, beyond it",
        f"{len(errors)} of 10, least {errors[0]:.3f} ms, most {errors[-1]:.3f} ms",
    )
    with (
        served("[Reset(after_bytes=100_000, direction='down')]", "Chargen()") as address,
        socket.create_connection(address) as stream,
    ):
        count = 0
        try:
            while chunk := stream.recv(1 << 20):
                count += len(chunk)
        except ConnectionResetError:
            yield "Reset(after_bytes=100_000), bytes before the reset", f"{count:,}"


def slices() -> Iterator[tuple[str, str]]:
    with (
        served("[Slice(100, delay=0.002)]", "Chargen()") as address,
        socket.create_connection(address) as stream,
    ):
        sizes = [len(stream.recv(65_536)) for _ in range(200)]
    yield "Slice(100, delay=0.002), reads of 100 bytes", f"{sizes.count(100)} of {len(sizes)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", action="store_true", help="print one object")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = [
        *latency(arguments.connections, arguments.seconds),
        *footprint(arguments.connections),
        *bandwidth(arguments.seconds),
        *resets(),
        *slices(),
    ]
    if arguments.json:
        print(json.dumps(dict(rows), indent=1))
        return
    width = max(len(name) for name, _ in rows)
    for name, found in rows:
        print(f"{name:{width}}  {found}")


if __name__ == "__main__":
    main()

"""Load on a server by plain sockets, shared by several scenarios.

Runs in a separate process. The client's own address rotates through 127.0.0.0/8, because one
address has only 28 000 ports, and each is held for a minute after a close. Must never use rsock.
"""

import contextlib
import hashlib
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

from support import read_exactly

# Longer than any step here takes on a busy machine.
PATIENCE = 60.0
RESET = struct.pack("ii", 1, 0)
# Not defined in every Python's socket module: connect chooses the port, which can then be shared.
IP_BIND_ADDRESS_NO_PORT = 24
# The payload of a TCP segment on an Ethernet. Segments on the loopback have up to 64 KiB, more than
# a small buffer takes: each then waits for an acknowledgement that the kernel delays.
ETHERNET = 1_448

_source = 0


def dial(address: Any, segment: int | None = None) -> socket.socket:
    """A connected socket from the next client address; `segment` is its largest, in bytes."""
    global _source
    _source = _source % 240 + 1
    peer = socket.socket()
    try:
        peer.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        peer.bind((f"127.0.0.{_source + 1}", 0))
        if segment is not None:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
        peer.settimeout(PATIENCE)
        peer.connect(tuple(address))
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        peer.close()
        raise
    return peer


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()


def quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def fresh_echoes(address: Any, count: int) -> float:
    """The 99th percentile of `count` connects, each with one echo."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        with dial(address) as peer:
            peer.sendall(b"hello")
            assert read_exactly(peer, 5) == b"hello"
        times.append(time.perf_counter() - began)
    return quantile(times, 0.99)


def bystanders(address: Any, count: int, seconds: float) -> dict[str, float]:
    """Echo on `count` connections in turn, some 500 a second in all.

    `lost` counts the echoes that did not come back as sent; `p99` is in seconds.
    """
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(address)) for _ in range(count)]
        times: list[float] = []
        lost = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for number, peer in enumerate(peers):
                said = f"{number:08}{len(times):08}".encode()
                began = time.perf_counter()
                try:
                    peer.sendall(said)
                    lost += read_exactly(peer, len(said)) != said
                except OSError:
                    lost += 1
                times.append(time.perf_counter() - began)
                time.sleep(0.002)
        return {"p99": quantile(times, 0.99), "lost": lost, "echoes": len(times)}


def storm(address: Any, seconds: float, rate: float, ending: str) -> dict[str, float]:
    """Connect `rate` times a second and end each connection at once: by reset, or by close.

    `slowest` is the longest time until a refused connection was reset.
    """
    begun = time.monotonic()
    made, refused, slowest = 0, 0, 0.0
    while (now := time.monotonic() - begun) < seconds:
        if made > now * rate:
            time.sleep(0.0005)
            continue
        made += 1
        began = time.perf_counter()
        try:
            peer = dial(address)
            if ending == "wait":
                with peer:
                    peer.recv(1)
                continue
        except ConnectionResetError:
            refused += 1
            slowest = max(slowest, time.perf_counter() - began)
            if ending == "wait":
                continue
            raise
        (reset if ending == "reset" else socket.socket.close)(peer)
    return {"made": made, "refused": refused, "slowest": slowest, "seconds": now}


def exact(address: Any, connections: int, size: int, seed: int) -> int:
    """How many of the connections got back exactly what they sent, and then the end.

    Pieces of 1 byte to 64 KiB, pauses and buffers of random sizes, half-close after the last.
    """
    right = [False] * connections

    def one(number: int) -> None:
        dice = random.Random(seed * 1_000_003 + number)
        with dial(address, ETHERNET) as peer:
            # The clock goes on while a process is stopped; the caller that waits for it has a
            # deadline.
            peer.settimeout(None)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                peer.setsockopt(socket.SOL_SOCKET, option, dice.choice((4_096, 65_536, 1 << 20)))
            sent = hashlib.sha256()

            def send() -> None:
                for piece in pieces(random.Random(dice.random()), size):
                    sent.update(piece)
                    peer.sendall(piece)
                peer.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            got, length = hashlib.sha256(), 0
            while part := peer.recv(dice.choice((1_000, 65_536, 1 << 20))):
                got.update(part)
                length += len(part)
                pause(dice)
            sender.join(PATIENCE)
            right[number] = length == size and got.digest() == sent.digest()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(right)


def pieces(dice: random.Random, size: int) -> Iterator[bytes]:
    """`size` random bytes, in pieces of random sizes with pauses between some."""
    while size:
        # Uniform in the order of magnitude, so that small ones are as frequent as large ones.
        piece = min(size, int(2 ** dice.uniform(0, 16)))
        yield dice.randbytes(piece)
        size -= piece
        pause(dice)


def pause(dice: random.Random) -> None:
    if dice.random() < 0.02:
        time.sleep(dice.random() * 0.002)


_kept: list[socket.socket] = []


def keep(address: Any, count: int) -> int:
    """Open `count` more connections that send nothing; they stay until `leave`."""
    for _ in range(count):
        _kept.append(dial(address))
    return len(_kept)


def ends(deadline: float) -> list[float]:
    """When each of the kept connections ended, in seconds after this call; waits for all."""
    began = time.monotonic()
    found = []
    with selectors.DefaultSelector() as waiting:
        for peer in _kept:
            waiting.register(peer, selectors.EVENT_READ)
        while waiting.get_map() and time.monotonic() - began < deadline:
            for key, _ in waiting.select(0.5):
                waiting.unregister(key.fileobj)
                found.append(time.monotonic() - began)
    return found


def leave() -> None:
    while _kept:
        _kept.pop().close()

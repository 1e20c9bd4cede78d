"""Plain sockets for the other side of a connection.

Connected, listening, with a full queue, refusing, or reset. A peer is always a plain
`socket.socket`. Must never use rsock.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from support.waiting import SOON

LOOPBACK = "127.0.0.1"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def dial(address: tuple[str, int], *, timeout: float | None = SOON) -> socket.socket:
    """A plain connected socket. A hang shows as a TimeoutError, not as a stuck run."""
    peer = socket.create_connection(address, timeout=SOON)
    peer.settimeout(timeout)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def dial_path(path: str | bytes, *, timeout: float = 10.0) -> socket.socket:
    """The same with a Unix socket."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(timeout)
    try:
        peer.connect(path)
    except BaseException:
        peer.close()
        raise
    return peer


def dial_narrow(address: tuple[str, int], size: int = 2304) -> socket.socket:
    """A connected socket with a small receive buffer, so that its peer soon has to wait."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    peer.settimeout(SOON)
    peer.connect(address)
    return peer


@contextlib.contextmanager
def listener(host: str = LOOPBACK, backlog: int = 16) -> Iterator[socket.socket]:
    """A plain listening socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind((host, 0))
        listening.listen(backlog)
        listening.settimeout(SOON)
        yield listening


@contextlib.contextmanager
def full_listener() -> Iterator[tuple[str, int]]:
    """The address of a listener whose queue is full: handshakes with it do not finish."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(listener(backlog=0))
        address = listening.getsockname()
        for _ in range(20):
            peer = stack.enter_context(socket.socket())
            peer.setblocking(False)
            peer.connect_ex(address)
            if not select.select([], [peer], [], 0.1)[1]:
                break
        else:
            raise AssertionError("the queue of a listener has no end here")
        yield address


@contextlib.contextmanager
def closed_port() -> Iterator[tuple[str, int]]:
    """An address that refuses; bound, so that no other program can listen there meanwhile."""
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        yield holder.getsockname()


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port on which servers can follow each other; the kernel gives it to no other program.

    A bound socket with SO_REUSEADDR keeps the number from those that bind port 0, and lets in those
    that name it, as a Server does. Without it a parallel test may get the number between two
    servers, and with it the connections of this test.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, 0))
        yield holder.getsockname()[1]


def leave_stale(path: str | Path) -> None:
    """Leave what a killed process leaves: the file of a Unix socket without an owner."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()


def refused(address: tuple[str, int]) -> bool:
    """Whether connections to this address are refused."""
    try:
        dial(address).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        # Only while the listener closes.
        return False
    return False


def has_ended(port: int, peer: int) -> bool:
    """Whether no TCP socket over IPv4 is connected from `port` to the port `peer`.

    Other sockets of the machine may have the same port, for another peer.
    """
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = [(row[1][-4:], row[2][-4:]) for row in rows if row[3] == "01"]
    return (f"{port:04X}", f"{peer:04X}") not in established


def reset(peer: socket.socket) -> None:
    """Close with RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()

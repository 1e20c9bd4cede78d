"""Bytes between a test and its peer: sent, received, or still in the kernel.

Each function takes any stream with the methods of `Stream`, a plain socket or one of rsock's. Must
never open or configure a socket.
"""

from __future__ import annotations

import fcntl
import random
import socket
import struct
import termios
from collections.abc import Iterable
from typing import Protocol

from support.waiting import SOON, Background, wait_until


class Stream(Protocol):
    """The methods that the tests use of both `socket.socket` and `Client`."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes: ...
    def sendall(self, data: bytes, flags: int = 0, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...


def payload(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def read_exactly(stream: Stream, size: int) -> bytes:
    """`size` bytes, or fewer when the stream ended earlier."""
    parts = []
    while size:
        part = stream.recv(min(size, 1 << 16))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_to_end(stream: Stream) -> bytes:
    parts = []
    while part := stream.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def says_back(stream: Stream, data: bytes = b"hello") -> bool:
    """Whether the other side echoes `data`."""
    stream.sendall(data)
    return read_exactly(stream, len(data)) == data


def all_say_back(streams: Iterable[Stream]) -> bool:
    """Whether every stream is echoed to; also tests those after one that is not."""
    return {says_back(stream) for stream in streams} <= {True}


def exchange(stream: Stream, data: bytes) -> bytes:
    """Send everything, finish the sending side, and return what came back until the end."""

    def send() -> None:
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)

    sender = Background(send)
    got = read_to_end(stream)
    sender.result()
    return got


def send_until_stuck(peer: socket.socket, data: bytes, patience: float = 0.3) -> int:
    """Send without reading until the socket takes nothing more for a while; return how much."""
    view = memoryview(data)
    sent = 0
    peer.settimeout(patience)
    try:
        while sent < len(data):
            sent += peer.send(view[sent : sent + (1 << 16)])
    except TimeoutError:
        pass
    finally:
        peer.settimeout(SOON)
    return sent


def ended(peer: socket.socket) -> bool:
    """Whether a clean end comes next, without bytes before it."""
    return peer.recv(1) == b""


def was_reset(peer: socket.socket) -> bool:
    """Whether a reset comes next."""
    try:
        peer.recv(1)
    except ConnectionResetError:
        return True
    return False


def arrived(peer: socket.socket) -> None:
    """Wait until the other side's system has acknowledged everything that was sent."""

    def unsent() -> int:
        answer = fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])

    wait_until(lambda: unsent() == 0, what="everything sent is acknowledged")


def unread(peer: socket.socket) -> int | None:
    """Bytes that the other side's system holds for its program; None where its socket is gone.

    Queries sock_diag(7) for this one socket, because /proc/net/tcp would list all of them. IPv4
    only.
    """

    def spelled(address: tuple[str, int]) -> tuple[bytes, bytes]:
        return struct.pack("!H", address[1]), socket.inet_aton(address[0]).ljust(16, b"\0")

    theirs, ours = spelled(peer.getpeername()), spelled(peer.getsockname())
    name = theirs[0] + ours[0] + theirs[1] + ours[1] + bytes(4) + b"\xff" * 8  # No cookie.
    request = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFF) + name
    by_family, sock_diag, is_request = 20, 4, 1
    header = struct.pack("=IHHII", 16 + len(request), by_family, is_request, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, sock_diag) as kernel:
        kernel.sendto(header + request, (0, 0))
        answer = kernel.recv(4096)
    if struct.unpack_from("=H", answer, 4)[0] != by_family:
        return None
    return int(struct.unpack_from("=I", answer, 16 + 4 + 48 + 4)[0])

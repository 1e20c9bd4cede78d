"""Datagrams with any source address, written to the wire directly.

`forge` sends one on the loopback through a raw socket. `Wire` is a separate network: the process
that makes one moves into a fresh network namespace and holds the other end of its only link, a TUN
device (`tun.rst` of the kernel's documentation). Both need root. Must never use rsock.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterator

Address = tuple[str, int]

# linux/sched.h, linux/if_tun.h, linux/sockios.h, linux/if.h
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS = 0x8916, 0x891C, 0x8914
IFF_UP, IFF_RUNNING = 0x1, 0x40

HOST, OTHER = "10.9.0.1", "10.9.0.2"


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(source: Address, target: Address, data: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram in it (RFC 791, RFC 768), without the UDP checksum."""
    udp = struct.pack("!HHHH", source[1], target[1], 8 + len(data), 0) + data
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0)
    checksum = struct.pack("!H", _checksum(header + addresses))
    return header[:10] + checksum + addresses + udp


def may_forge() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()
    except PermissionError:
        return False
    return True


def may_wire() -> bool:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError:
        return False
    return may_forge()


def forge(source: Address, target: Address, data: bytes) -> None:
    """Send a datagram to `target` with `source` as its sender."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(packet(source, target, data), (target[0], 0))


class Wire:
    """A network in which this process is `HOST`, `OTHER` and every other address."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        self._tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        name = b"wire0"
        fcntl.ioctl(self._tun, TUNSETIFF, struct.pack("16sH22x", name, IFF_TUN | IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:

            def ask(request: int, label: bytes, value: bytes) -> None:
                fcntl.ioctl(control, request, struct.pack("16s24s", label, value))

            def address(host: str) -> bytes:
                return struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(host))

            up = struct.pack("=H", IFF_UP | IFF_RUNNING)
            ask(SIOCSIFFLAGS, b"lo", up)
            for label, host in ((name, HOST), (name + b":1", OTHER)):
                ask(SIOCSIFADDR, label, address(host))
                ask(SIOCSIFNETMASK, label, address("255.255.255.0"))
            ask(SIOCSIFFLAGS, name, up)

    def send(self, source: Address, target: Address, data: bytes) -> None:
        """Deliver a datagram to this process over the link."""
        os.write(self._tun, packet(source, target, data))

    def received(self, wait: float = 0.0) -> Iterator[tuple[Address, Address, bytes]]:
        """What left over the link: source, target and data of each datagram."""
        while select.select([self._tun], [], [], wait)[0]:
            frame = os.read(self._tun, 70_000)
            # Skips IPv6 and ICMP: neither carries a datagram of the tests.
            if frame[0] >> 4 != 4 or frame[9] != socket.IPPROTO_UDP:
                continue
            start = (frame[0] & 0xF) * 4
            ports = struct.unpack("!HH", frame[start : start + 4])
            hosts = [socket.inet_ntoa(frame[at : at + 4]) for at in (12, 16)]
            yield (hosts[0], ports[0]), (hosts[1], ports[1]), frame[start + 8 :]

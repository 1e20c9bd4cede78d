"""System calls that the kernel refuses, by a filter of seccomp(2).

A filter holds for one thread and for the threads that it starts, so a server that is started there
has it, and the test's own thread has not. Must never put a filter on the thread of a test.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from support.waiting import SOON

T = TypeVar("T")

# The numbers of system calls: asm/unistd_64.h, and asm-generic/unistd.h.
NUMBERS = {
    "x86_64": {
        "accept4": 288, "dup3": 292, "epoll_create1": 291, "eventfd2": 290, "fcntl": 72,
        "flock": 73, "getsockopt": 55, "ioctl": 16, "pipe2": 293, "ppoll": 271, "prctl": 157,
        "prlimit64": 302, "recvmmsg": 299, "sendmmsg": 307, "setsockopt": 54, "socket": 41,
        "splice": 275,
    },
    "aarch64": {
        "accept4": 242, "dup3": 24, "epoll_create1": 20, "eventfd2": 19, "fcntl": 25,
        "flock": 32, "getsockopt": 209, "ioctl": 29, "pipe2": 59, "ppoll": 73, "prctl": 167,
        "prlimit64": 261, "recvmmsg": 243, "sendmmsg": 269, "setsockopt": 208, "socket": 198,
        "splice": 76,
    },
}.get(platform.machine(), {})  # fmt: skip

# Calls of which only some are refused: the call, and the values of its arguments by position.
PARTS: dict[str, tuple[str, dict[int, int]]] = {
    "F_SETPIPE_SZ": ("fcntl", {1: 1031}),
    "FIONREAD": ("ioctl", {1: 0x541B}),
    "SIOCOUTQ": ("ioctl", {1: 0x5411}),
    "SIOCOUTQNSD": ("ioctl", {1: 0x894B}),
    "IP_PKTINFO": ("setsockopt", {1: socket.IPPROTO_IP, 2: 8}),
    "IP_RECVERR": ("setsockopt", {1: socket.IPPROTO_IP, 2: 11}),
    "SO_MEMINFO": ("getsockopt", {1: socket.SOL_SOCKET, 2: 55}),
    "SO_PEERCRED": ("getsockopt", {1: socket.SOL_SOCKET, 2: socket.SO_PEERCRED}),
    "SO_REUSEPORT": ("setsockopt", {1: socket.SOL_SOCKET, 2: socket.SO_REUSEPORT}),
    "SO_SNDBUF": ("setsockopt", {1: socket.SOL_SOCKET, 2: socket.SO_SNDBUF}),
    "TCP_CONGESTION": ("getsockopt", {1: socket.IPPROTO_TCP, 2: 13}),
    "TCP_INFO": ("getsockopt", {1: socket.IPPROTO_TCP, 2: socket.TCP_INFO}),
    "netlink": ("socket", {0: socket.AF_NETLINK}),
}

# prctl(2) and its arguments: linux/prctl.h, linux/seccomp.h.
SET_NO_NEW_PRIVS, SET_SECCOMP, MODE_FILTER = 38, 22, 2
# bpf(2), linux/filter.h: load a word of `struct seccomp_data`, jump if equal, return.
LOAD, JUMP_UNLESS, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF_0000, 0x0005_0000


def _filter(call: str, error: int) -> bytes:
    """The program that returns `error` for a call, and lets all others pass."""
    name, arguments = PARTS.get(call, (call, {}))
    # The number comes first, the arguments from byte 16 on; all that is compared fits in a word.
    tests = [(0, NUMBERS[name])] + [(16 + 8 * at, value) for at, value in arguments.items()]
    steps = []
    for number, (offset, value) in enumerate(tests):
        beyond = 2 * (len(tests) - number) - 1
        steps += [(LOAD, 0, offset), (JUMP_UNLESS, beyond, value)]
    steps += [(RETURN, 0, ERRNO | error), (RETURN, 0, ALLOW)]
    return b"".join(struct.pack("=HBBI", code, 0, other, word) for code, other, word in steps)


def _install(call: str, error: int) -> None:
    """Put the filter on the calling thread, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = _filter(call, error)
    memory = ctypes.create_string_buffer(code)
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(memory))
    for arguments in ((SET_NO_NEW_PRIVS, 1, 0, 0, 0), (SET_SECCOMP, MODE_FILTER, program)):
        if libc.prctl(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def refusing(call: str, error: int) -> Iterator[Callable[[Callable[[], T]], T]]:
    """Calls functions on a thread on which the kernel refuses this call with this error.

    `call` is the name of a system call, or of an entry of `PARTS`.
    """
    with ThreadPoolExecutor(1, initializer=_install, initargs=(call, error)) as pool:
        yield lambda function: pool.submit(function).result(2 * SOON)


def can_refuse() -> bool:
    """Whether this machine knows the calls by number, and lets a thread have a filter."""
    if not NUMBERS:
        return False
    try:
        with refusing("dup3", 1) as there:
            there(lambda: None)
    except Exception:
        return False
    return True

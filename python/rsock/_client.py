"""`Client`: the connecting side. What it shares with a server's connections is in `_stream.py`."""

from . import _rsock
from ._stream import StreamMethods

__all__ = ["Client"]


class Client(StreamMethods, _rsock.Client):
    """A real socket, connecting to any server; blocking, like the standard library's.

    `Client(host, port)` or `Client((host, port))` connects, names being resolved by the system and
    every address of theirs tried; without an address the socket is only created, and
    `connect(address)` is a step of its own. It blocks, with the interpreter released, for
    `timeout` seconds at most (None: as long as the kernel tries) and lets signal handlers run.
    It raises `socket.gaierror` for an unknown host, TimeoutError, or the OSError that the last
    address met, such as ConnectionRefusedError.

    Methods with the names of `socket.socket` have its meaning, errors and return values. Beside
    them are `recv_exactly`, `recv_until`, `recv_line`, `abort`, `to_socket`, `five_tuple`,
    `tcp_info` and `record`. A stream has no hidden buffer: what a call does not return stays in
    the kernel.

    `timeout`: seconds that one call may take, as in `settimeout`; None waits for ever.
    `options`: a `SocketOptions`, set before connecting.
    `source_address`: the `(host, port)` to connect from, as in `socket.create_connection`.
    `path`: the Unix socket to connect to, in place of host and port: str, bytes or os.PathLike, or
    an abstract name with a NUL first. `transport="unix"` alone creates a Unix socket, to be
    connected by `connect(path)`.
    `spin`: seconds that `recv` looks again without letting go of the interpreter before it waits
    properly. To let go and come back costs up to 5 ms while another Python thread is busy, so a
    short spin buys many more round trips for a little of everybody's CPU; 0 turns it off.
    `transport`: "tcp", "udp" or "unix", where no `path` says it. On UDP each send is a datagram and
    each receive gives one; connecting sends nothing, and `sendto` and `recvfrom` do without it.

    `with` and `async with` close it at the end.
    """

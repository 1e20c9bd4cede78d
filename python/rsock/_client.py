"""`Client`: the connecting side.

This file owns its class and its docstring. What it shares with a server's connections is in
`_stream.py`, and nothing here may add a method that moves bytes.
"""

from . import _rsock
from ._fault import Fault
from ._fault_view import FaultBlock, FaultView
from ._stream import StreamMethods

__all__ = ["Client"]


class Client(StreamMethods, _rsock.Client):
    """A real socket, connecting to any server; blocking, like the standard library's.

    `Client(host, port)` or `Client((host, port))` connects: the system resolves the name, and each
    of its addresses is tried, IPv6 and IPv4 in turn (RFC 8305). The next one is tried when the one
    before has failed, or has not answered for 250 ms or its share of the time-out; the first that
    answers is connected to. Without an address the socket is only created, and
    `connect(address)` is a separate step. Connecting blocks, with the interpreter released, for at
    most `timeout` seconds (None: as long as the kernel tries) and lets signal handlers run.
    It raises `socket.gaierror` for an unknown host or service name, TimeoutError, or the OSError of
    the first address that failed, such as ConnectionRefusedError. A port of this machine on which
    no socket listens refuses, also where the kernel would connect the socket to itself.

    Methods with the names of `socket.socket` have its meaning, errors and return values. In
    addition there are `recv_exactly`, `recv_until`, `recv_line`, `abort`, `to_socket`,
    `five_tuple`, `tcp_info` and `record`. A stream has no hidden buffer: what a call does not
    return stays in the kernel.

    `timeout`: seconds that one call may take, as in `settimeout`; None waits forever.
    `options`: a `SocketOptions`, set before connecting.
    `source_address`: the `(host, port)` to connect from, as in `socket.create_connection`: of a
    name, the address of the target's family is taken; an empty host is any address.
    `retry`: seconds for which a connect that fails is tried again, because the server may be about
    to start: refused, no such host, no route, no file of a Unix socket, no answer. None does not
    try again. The last error is raised. `rsock.wait_for` only waits.
    `path`: the Unix socket to connect to, instead of host and port: str, bytes or os.PathLike, or
    an abstract name with a leading NUL. `transport="unix"` alone creates a Unix socket, which
    `connect(path)` then connects.
    `spin`: seconds for which `recv` polls the socket without releasing the interpreter before it
    waits. Releasing and reacquiring it costs up to 5 ms while another Python thread is busy, so a
    short spin allows many more round trips for a little CPU time; 0 turns it off.
    `faults`: a list of faults of `rsock.faults`, in force from the first byte. Given, even empty, a
    Rust thread that such clients share serves the connection, and the client has one end of a
    socket pair, so that faults can be added later. `record`, `tcp_info`, addresses and options are
    those of the connection itself. "up" is what the client sends. Not with datagrams, nor with
    `timeout=0` before it is connected.
    `proxy_protocol`: a header of the PROXY protocol that is sent before anything else: "v1" or
    "v2" with the addresses of this connection, or a `ProxyHeader`, which may name others. Not with
    datagrams, nor with `timeout=0` before it is connected.
    `seed`: the seed of the random numbers of faults; None draws one, which `seed` then shows.
    `tls`: True for TLS with the authorities of the system, or a `TLS`. The certificate of the
    server must be valid for the host that is given. Connecting includes the handshake, and raises
    `ssl.SSLError`, or its subclass `ssl.SSLCertVerificationError`; the client is then closed. A
    Rust thread serves the connection, as with `faults`, and the client's descriptor has clear text.
    `transport`: "tcp", "udp" or "unix", if no `path` implies it; or "unix-datagram". On UDP and
    "unix-datagram" each send is a datagram and each receive returns one; connecting sends nothing,
    and `sendto` and `recvfrom` work without it. A Unix datagram client has a name that the system
    chooses, so that it can be answered.

    `with` and `async with` close it at the end.
    """

    @property
    def faults(self) -> FaultView:
        """Its faults: a sequence, with `add`, `remove`, `clear` and `counts`, as `Server.faults`.

        Empty for a client that was made without `faults=`, whose `add` raises ValueError.
        """
        return FaultView(self)

    def fault(self, fault: Fault) -> FaultBlock:
        """Have a fault in force for a block, as `Server.fault`: `with client.fault(Latency(0.2)):`.

        Before the client is connected, it is in force from the first byte on. Raises ValueError for
        a client that was made without `faults=`, of which an empty list is enough.
        """
        return FaultBlock(self, fault)

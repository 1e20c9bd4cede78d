"""The compiled half of rsock, as it is typed.

Owns the signatures that type checkers and editors show; `mypy.stubtest` compares them with the
module. The docstrings are those of the module: `tests/stub_docs.py` writes them. Of the Python half
it must import only the plain values of `_types` and `rfc147`, because everything else is typed
against this file.
"""

from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self, SupportsIndex, final, overload

from typing_extensions import Buffer, disjoint_base

from ._types import (
    Cell,
    Destination,
    Endpoint,
    FiveTuple,
    Function,
    Leg,
    Limits,
    PeerCredentials,
    ProcessLimits,
    Row,
    SocketOptions,
    SocketPath,
    StopReport,
    TcpInfo,
    TextFile,
    Totals,
    Trace,
    TraceEvent,
)
from .rfc147 import SocketPair

__version__: str

__all__ = [
    "Accept",
    "ByConnection",
    "Chargen",
    "Client",
    "Connection",
    "Datagram",
    "Daytime",
    "Discard",
    "Echo",
    "Follower",
    "Forward",
    "Greeting",
    "Handed",
    "Handler",
    "Ledger",
    "LineEcho",
    "Pool",
    "Quote",
    "Record",
    "Server",
    "Service",
    "Stream",
    "Time",
    "__version__",
    "_end_thread",
    "process_limits",
    "raise_fd_limit",
    "stop_all",
]

@disjoint_base
class Service:
    """What a server does with each connection. Made by its subclasses, such as Echo()."""

@final
class Echo(Service):
    """Sends back whatever it receives, until the peer has finished (RFC 862). Served by Rust
    threads alone: it never needs the interpreter.
    """
    def __new__(cls) -> Self: ...

@final
class Forward(Service):
    """Passes each connection on to a target, and what comes back to the client: to a host and port,
    to the `path` of a Unix socket, or to a Server of this process, wherever it is when this one
    starts. Served by Rust threads alone.

    Each direction ends by itself (a FIN is passed on); a reset, or an error of the target, resets
    the client. A name is resolved when the server starts, which raises socket.gaierror where it has
    no address, and again when none of its addresses can be connected to; all are tried in turn, for
    `connect_timeout` seconds together. A client whose target cannot be reached is reset, and its
    record says why. `record.far` is the account of the leg to the target.

    On UDP (`Server(transport="udp")`) each peer has a session, a socket of its own to the target,
    until nothing has gone either way for Limits.idle seconds, or 60 where that is None;
    `connect_timeout` does not matter.

    start() raises ValueError where the target leads back to the server itself, and StateError where
    it is a Server that has no address yet. The target is held for as long as this is.
    """
    def __new__(
        cls,
        host: str | tuple[str, int | str] | Server | None = None,
        port: int | str | None = None,
        *,
        path: SocketPath | None = None,
        connect_timeout: float = 10.0,
    ) -> Self: ...

@final
class LineEcho(Service):
    """Sends whole lines back. The line `quit` (bytes, or a str for its UTF-8) is not echoed and
    closes the connection; None is no such line. A line ends with LF or CR LF, which is sent back
    unless `newline` is False; what has no ending when the peer has finished is a line as well.

    `limit` is for a whole line in bytes, its ending included; the smaller of it and `Limits.line`
    holds, and a longer line ends the connection (`closed_by` "limit"). Raises TypeError and
    ValueError for what cannot be, naming it: a `quit` with an end of a line in it, for example.
    """
    def __new__(
        cls, quit: Buffer | str | None = b"exit", newline: bool = True, limit: int = 65_536
    ) -> Self: ...

@final
class Discard(Service):
    """Reads and throws away, until the peer has finished (RFC 863). It never answers."""
    def __new__(cls) -> Self: ...

@final
class Chargen(Service):
    """Sends the 95 printing characters of ASCII in lines of 72, each line beginning one further,
    without end (RFC 864), as fast as the peer reads. Throws away what it receives; ends when the
    peer does.
    """
    def __new__(cls) -> Self: ...

@final
class Daytime(Service):
    """Sends date and time in UTC as a line for people, and closes (RFC 867):
    `Monday, February 22, 1982 17:37:43-UTC`.
    """
    def __new__(cls) -> Self: ...

@final
class Time(Service):
    """Sends the seconds since 1900 as 32 bits, most significant byte first, and closes (RFC 868).
    In 2036 they begin at 0 again.
    """
    def __new__(cls) -> Self: ...

@final
class Quote(Service):
    """Sends `text` (bytes, or a str for its UTF-8) as it is, and closes: the quote of the day (RFC
    865). ValueError where it is not shorter than 512 bytes.
    """
    def __new__(cls, text: Buffer | str) -> Self: ...

@final
class Greeting(Service):
    """Sends `message` (bytes, or a str for its UTF-8) as it is, of any length, and closes. The peer
    gets all of it, whatever it sends meanwhile.
    """
    def __new__(cls, message: Buffer | str) -> Self: ...

@final
class ByConnection(Service):
    """Serves the first connection with the first of `services`, the second with the second, and so
    on; all later ones with `rest`, or where there is none, with the last of `services`. Which one a
    connection is, is its `id` in the ledger.

    Takes services in Rust only. Raises TypeError for a Handler, a function or Accept(): these are
    handed connections in another way; a handler may look at `conn.id` itself.
    """
    def __new__(cls, *services: Service, rest: Service | None = None) -> Self: ...

@final
class Handler(Service):
    """Serves each connection with one call of a Python function, `function(connection)`, on a
    thread of a pool: as many at a time as Limits.handler_threads, each for as long as it likes.
    When it returns, the connection is closed. On UDP the call is `function(data, address)`, and
    answers with the bytes that it returns, or with nothing for None. A bare function as the service
    of a Server means this.

    The threads are started as they are needed, used again and again, and end when they are not.
    Each call runs in a fresh contextvars context; what is in a threading.local stays with the
    thread. Raises TypeError for what cannot be called so, and for a class or a coroutine function,
    naming what would serve.
    """
    def __new__(cls, function: Function) -> Self: ...
    @property
    def function(self) -> Function:
        """What serves each connection, or answers each datagram."""

@final
class Accept(Service):
    """Leaves each connection in the kernel's queue until `Server.accept()` asks for it."""
    def __new__(cls) -> Self: ...

@disjoint_base
class Server:
    """The compiled half of rsock.Server."""
    def __new__(
        cls,
        host: str | tuple[str, int | str] = "127.0.0.1",
        port: int | str = 0,
        service: Service | Function | None = None,
        *,
        transport: str = "tcp",
        path: SocketPath | None = None,
        fd: int | None = None,
        workers: int | None = None,
        options: SocketOptions | None = None,
        limits: Limits | None = None,
        faults: tuple[()] = (),
        seed: int | None = None,
        trace: bool | Trace = False,
        history: int = 10_000,
        drain: float = 1.0,
        on_error: Literal["log", "raise"] | Callable[[BaseException], object] = "log",
        allow_external: bool = False,
        name: str | None = None,
    ) -> Self: ...
    def create(self) -> Self:
        """Opens the socket: socket(2). Raises OSError, naming the step and the address, and
        socket.gaierror for an unknown host; StateError where that was done already. Blocks only for
        a host name, with the interpreter released. Returns the server, as all steps do.
        """
    def bind(self, address: Destination | None = None) -> Self:
        """Gives the socket its address, creating it first: bind(2). `address` replaces the host and
        port, or the path, of the constructor.

        The file of a Unix socket is made by this, with the permissions of SocketOptions(mode=…)
        from the start. One that a process left which was killed is replaced, under a lock file
        beside it; one whose socket is alive, and a file of another kind, never: EADDRINUSE.

        Raises OSError where the address is taken, foreign or not permitted, and has then closed all
        that it opened; if a Server of this process holds it, the error names it. Where that one is
        just ending, waits for it up to 1 s, with the interpreter released.
        """
    def listen(self, backlog: int | None = None) -> Self:
        """Has the kernel take connections into the queue, doing first what was not done: listen(2).
        They are served from `start` on. `backlog` None is that of the options. Raises as `bind`.
        """
    def start(self) -> Self:
        """Starts serving, doing first what was not done; returns when the port is open. A server
        that serves already is left as it is. Raises as `bind`; StateError for a server that was
        stopped.
        """
    def stop(self, drain: float | None = None) -> StopReport:
        """Stops accepting, delivers what is owed for up to `drain` seconds (None: the server's
        own), then resets what is left; 0 resets at once. Once started, it still serves those that
        wait in the queue. A connection that has sent nothing yet is given 0.25 s for its first
        byte.

        Blocks, with the interpreter released, for at most `drain` and 50 ms. A second call, from
        any thread, takes the earlier deadline and returns the same StopReport. Ctrl-C ends the
        wait, not the stop.
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def wait(self, timeout: float | None = None) -> StopReport:
        """Blocks until the server has stopped, whoever stops it, and returns the StopReport.

        Raises TimeoutError after `timeout` seconds (None waits for ever), StateError where it was
        never started. Releases the interpreter.
        """
    def sendto(self, data: Buffer, address: tuple[str, int | str]) -> int:
        """Sends a datagram from the server's port and returns its length: sendto(2). With a handler
        or `Accept()` on UDP, for answers that are not what a handler returns.

        Never blocks, but for a host that is a name. Raises BlockingIOError where there is no room,
        PermissionError for a peer outside the loopback that would get more than it has sent or than
        its share, OSError EMSGSIZE for what no datagram has room for; StateError while the server
        does not serve; TypeError with any other server.
        """
    def fileno(self) -> int:
        """Number of the listening descriptor; -1 where there is none."""
    # As in typeshed: the type depends on the transport, which the caller knows. The same is true of
    # every `| Any` and plain `Any` below.
    def getsockname(self) -> Any:
        """The listener's own address as socket.getsockname() gives it: a pair, four for IPv6, or
        a path.
        """
    @property
    def address(self) -> tuple[str, int] | Any:
        """The address it is, or was, bound to: always (host, port), an IPv6 scope inside the host;
        of a Unix socket its path, a str. StateError before bind.
        """
    @property
    def host(self) -> str | Any:
        """Host of `address`; before bind, the host that was asked for. None of a Unix socket."""
    @property
    def port(self) -> int | Any:
        """Port of `address`; before bind, the port that was asked for. None of a Unix socket."""
    @property
    def path(self) -> str | None:
        """Path of a Unix socket, a str, also before bind; an abstract name begins with a NUL. None
        of any other transport.
        """
    @property
    def transport(self) -> str:
        """How bytes travel: "tcp", "udp" or "unix"."""
    @property
    def name(self) -> str:
        """Its name in messages."""
    @property
    def state(self) -> str:
        """ "new", "created", "bound", "listening", "serving", "draining" or "stopped"."""
    @property
    def waiting(self) -> int:
        """How many connections have finished their handshake and wait in the kernel's queue to be
        accepted: TCP_INFO of the listener, tcp(7). 0 before listen and after the end. Does not
        block.
        """
    @property
    def service(self) -> Service:
        """What is done with each connection."""
    @property
    def options(self) -> SocketOptions:
        """The SocketOptions it was made with."""
    @property
    def limits(self) -> Limits:
        """The Limits it was made with."""
    @property
    def ledger(self) -> Ledger:
        """Its account of connections."""
    # The rest is for the Python half only.
    def _stop(self, drain: float | None, cause: str) -> StopReport:
        """As `stop`, with the cause that the report is to name. For the Python half."""
    def _begin_stop(self, cause: str) -> None:
        """Begins a stop and returns at once. For handlers that end the program."""
    # An object of `_handlers.Handlers`, which is typed against this file.
    @property
    def _handlers(self) -> Any:
        """What reports the errors of handlers; None with any other service."""
    def _pool(self) -> Pool:
        """What handler threads take their connections from."""
    def _accept(self, timeout: float | None = None) -> tuple[Any, tuple[str, int] | Any]:
        """Waits for the next connection, for the Python half of `accept`."""
    def _abandon(self) -> None:
        """Begins a stop and returns at once. For `__del__`: whoever keeps the warning keeps the
        server.
        """

@final
class Ledger:
    """A server's account of its connections: those that are open, the last ones that were, and
    totals that balance (accepted = open + closed). Iterates over all records it holds, oldest
    first.
    """
    @property
    def open(self) -> list[Record]:
        """Records of the connections open now, oldest first."""
    @property
    def closed(self) -> list[Record]:
        """Records of the last connections that were closed (as many as the server's `history`), in
        the order of their ends.
        """
    @property
    def totals(self) -> Totals:
        """Sums over all connections since the start, whether still held or not."""
    def wait(
        self,
        open: int | None = None,
        closed: int | None = None,
        timeout: float | None = 10.0,
    ) -> list[Record]:
        """Blocks until exactly `open` connections are open and at least `closed` have been closed
        since the start; returns the records held at that moment, oldest first.

        Raises TimeoutError after `timeout` seconds (None waits for ever). Releases the interpreter.
        """
    def follow(self, timeout: float | None = None) -> Follower:
        """An iterator over the records of connections that close from now on, in the order of their
        ends; it blocks until the next one has, and ends when the server has stopped.

        `timeout` is how many seconds it waits for each; TimeoutError is raised then, and it can be
        asked again. None waits for as long as it takes. Releases the interpreter. It keeps only its
        place in the ledger: what the ledger forgets before it is asked for is missed, and counted
        in `missed`. Raises ValueError where the ledger remembers none (history=0).
        """
    def to_dicts(self) -> list[Row]:
        """All records it holds, oldest first, as flat dicts of plain values with the same keys:
        what `pandas.DataFrame` and `csv.DictWriter` take. Times are aware datetimes (UTC), lengths
        of time float seconds; what is not known is None. Does not block.
        """
    def to_columns(self) -> dict[str, list[Cell]]:
        """The same by columns, a dict of lists: what `polars.DataFrame` and `pandas.DataFrame`
        take, however late the first value of a column comes. Does not block.
        """
    @overload
    def to_csv(self, path_or_file: None = None) -> str:
        """The same as CSV (RFC 4180) with a line of names. Written to a path or an open text file;
        returned as a str where none is given. Times are in the notation of ISO 8601, None is empty.

        Raises the OSError of a file that cannot be written.
        """
    @overload
    def to_csv(self, path_or_file: str | PathLike[str] | TextFile) -> None:
        """The same as CSV (RFC 4180) with a line of names. Written to a path or an open text file;
        returned as a str where none is given. Times are in the notation of ISO 8601, None is empty.

        Raises the OSError of a file that cannot be written.
        """
    @overload
    def to_jsonl(self, path_or_file: None = None) -> str:
        """The same as lines of JSON, an object for each record; target and errors as of
        `to_csv`.
        """
    @overload
    def to_jsonl(self, path_or_file: str | PathLike[str] | TextFile) -> None:
        """The same as lines of JSON, an object for each record; target and errors as of
        `to_csv`.
        """
    def __iter__(self) -> Iterator[Record]: ...
    def __len__(self) -> int: ...
    def _repr_html_(self) -> str: ...

@final
class Follower:
    """What `Ledger.follow` returns: gives the record of each connection that closes."""
    def __iter__(self) -> Self: ...
    def __next__(self) -> Record: ...
    @property
    def missed(self) -> int:
        """How many records it has missed: the ledger had forgotten them before they were asked
        for.
        """

@final
class Record:
    """The account of one connection. Its numbers go on counting while the connection is open."""
    @property
    def id(self) -> int:
        """The connection's number in its server, from 1; a client's among those of the process."""
    @property
    def role(self) -> str:
        """Which end ours is: "server" (it was accepted) or "client" (it connected)."""
    @property
    def transport(self) -> str:
        """How its bytes travel: "tcp", "udp" or "unix"."""
    @property
    def peer_credentials(self) -> PeerCredentials | None:
        """The process at the other end of a Unix socket, as the kernel vouches for it: a
        PeerCredentials of pid, uid and gid (SO_PEERCRED, unix(7)). None with any other transport.
        """
    @property
    def local(self) -> Endpoint:
        """The server's side, an Endpoint."""
    @property
    def remote(self) -> Endpoint:
        """The peer's side, an Endpoint. IPv4 peers of a dual-stack port are shown as IPv4."""
    @property
    def opened_at(self) -> float:
        """When it was accepted: seconds since 1970, as time.time()."""
    @property
    def seconds(self) -> float:
        """How many seconds it was, or has been, open."""
    @property
    def messages_in(self) -> int:
        """Receives that carried data; datagrams, also empty ones, on UDP."""
    @property
    def messages_out(self) -> int:
        """Sends that carried data; datagrams, also empty ones, on UDP."""
    @property
    def bytes_in(self) -> int:
        """Bytes received from the peer."""
    @property
    def bytes_out(self) -> int:
        """Bytes sent to the peer, which is to say to the kernel."""
    @property
    def bits_in(self) -> int:
        """Bits received: 8 × `bytes_in`."""
    @property
    def bits_out(self) -> int:
        """Bits sent: 8 × `bytes_out`."""
    @property
    def far(self) -> Leg | None:
        """The account of the leg to the target of a Forward, a Leg; None where there is none, or
        not yet.
        """
    @property
    def closed_by(self) -> str | None:
        """What ended it; None while it is open.

        - "peer": the peer finished first (FIN), and got all that it was owed.
        - "reset": the peer's RST. A client that closes with data unread sends one, too.
        - "local": Python closed it, or its handler returned.
        - "service": a service in Rust ended it; of a Forward, its target finished first.
        - "limit": a limit did; `limit` names it.
        - "error": an error of ours, of the service or of its handler; `error` has its words.
        - "stop": the server stopped, in peace or at the deadline (its StopReport counts each).
        - "detached": its descriptor was given away by `detach()`.
        """
    @property
    def limit(self) -> str | None:
        """The limit that ended it, by its name in Limits; None where none did."""
    @property
    def error(self) -> str | None:
        """The words of the error that ended it, or that its handler raised at its end; None where
        there was none.
        """
    @property
    def closed_at(self) -> float | None:
        """When it ended: seconds since 1970, as time.time(); None while it is open."""
    @property
    def tcp_info(self) -> TcpInfo | None:
        """What the kernel knows of the connection, a TcpInfo: while it is open as it is now,
        afterwards as it was just before the close. None where it is none of TCP's. Does not block.
        """
    @property
    def trace(self) -> list[TraceEvent] | None:
        """What was received and sent, a list of TraceEvent, oldest first: the last ones, as far as
        the server's `trace` reaches. None where the server has none, and of a client.
        """
    @property
    def rfc147(self) -> SocketPair | None:
        """Its numbers after RFC 147, a SocketPair: the socket that receives and the one that sends.
        None on a Unix path, which has no host and no port.
        """
    def to_dict(self) -> Row:
        """The record as a flat dict of plain values: a row of the table that `Ledger.to_dicts`
        gives. Does not block.
        """
    def _repr_html_(self) -> str: ...

@disjoint_base
class Stream:
    """One end of a connection, as a socket: what Client and Connection share."""

    def connect(self, address: Destination) -> None:
        """Connects to (host, port), every address of a name being tried in turn, or to the path of
        a Unix socket (str, bytes or os.PathLike): connect(2). A client is of either kind until it
        is connected.

        Blocks up to the time-out, with the interpreter released. Raises ConnectionRefusedError and
        other OSErrors naming the address, socket.gaierror for an unknown host, TimeoutError;
        ValueError for a path that no socket can have, and for options that a Unix socket has not.
        """
    def connect_ex(self, address: Destination) -> int:
        """As `connect`, but returns errno in place of raising an OSError of the system; 0 is
        success.
        """
    def send(self, data: Buffer, flags: int = 0) -> int:
        """Sends what there is room for and returns how many bytes that was: send(2).

        Blocks while there is no room at all. Raises BrokenPipeError, ConnectionResetError,
        TimeoutError, BlockingIOError (time-out 0).
        """
    def sendall(self, data: Buffer, flags: int = 0) -> None:
        """Sends all of it. The time-out holds for the call as a whole; what ends it early carries
        the number of bytes that were sent as `.sent`. Raises as `send`.
        """
    def recv(self, bufsize: SupportsIndex, flags: int = 0) -> bytes:
        """Receives what is there, at most `bufsize` bytes: recv(2). b"" means that the peer has
        finished.

        Blocks while nothing is there. Raises ConnectionResetError, TimeoutError, BlockingIOError
        (time-out 0), ValueError for a negative size.
        """
    def recv_into(self, buffer: Buffer, nbytes: SupportsIndex = 0, flags: int = 0) -> int:
        """Receives into a writable buffer and returns how many bytes came; 0 means that the peer
        has finished. `nbytes` 0 is the buffer's length. Blocks and raises as `recv`.
        """
    def recv_exactly(self, n: SupportsIndex) -> bytes:
        """Receives exactly `n` bytes; b"" where the peer has finished before the first of them.

        Raises IncompleteRead, with `.partial`, where it finishes within them. TimeoutError and
        KeyboardInterrupt carry what had come as `.partial`. Blocks and raises as `recv`; the
        time-out holds for the call as a whole.
        """
    def recv_until(self, delimiter: Buffer, limit: SupportsIndex = 65_536) -> bytes:
        """Receives up to and with `delimiter`, and nothing behind it; b"" where the peer has
        finished before the first byte.

        Raises ValueError, with what had come as `.partial`, where the delimiter is not within
        `limit` bytes; otherwise as `recv_exactly`.
        """
    def recv_line(self, limit: SupportsIndex = 65_536) -> bytes:
        r"""Receives a line, its b"\n" included: `recv_until(b"\n", limit)`."""
    def shutdown(self, how: int) -> None:
        """Ends one direction or both: shutdown(2), with socket.SHUT_RD, SHUT_WR or SHUT_RDWR. Does
        not block. After SHUT_WR the peer sees the end, and can still be read.
        """
    def close(self) -> None:
        """Closes the stream; the peer gets what was sent, then the end. Calls of other threads end
        with OSError EBADF. Closing twice is closing once. As with any socket, files of `makefile`
        that are still open put it off until the last of them is closed. Blocks only under
        SocketOptions(linger=…).
        """
    def abort(self) -> None:
        """Closes it with a reset (RST): the peer gets ConnectionResetError, and nothing of what was
        not sent yet. Does not block.
        """
    def detach(self) -> int:
        """Gives the descriptor away, open, and returns its number, or -1 if it is
        closed; this object is closed then. OSError
        EBUSY while another thread's call is using it.
        """
    def fileno(self) -> int:
        """Number of the descriptor, which is blocking unless the time-out is 0; -1 once closed."""
    def settimeout(self, value: float | None) -> None:
        """Sets the time-out of every call in seconds; None waits for ever, 0 never."""
    def gettimeout(self) -> float | None:
        """The time-out in seconds, or None."""
    def setblocking(self, flag: bool) -> None:
        """`settimeout(None)` for what is true, `settimeout(0)` for what is not."""
    def getblocking(self) -> bool:
        """Whether calls may wait: False exactly for a time-out of 0."""
    def setsockopt(
        self, level: int, optname: int, value: int | Buffer | None, optlen: int | None = None
    ) -> None:
        """Sets a socket option: setsockopt(2), with an int, bytes, or None and a length."""
    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> int | bytes:
        """A socket option: getsockopt(2). An int, or with `buflen` that many bytes at most."""
    def getpeername(self) -> Any:
        """The peer's address as socket.getpeername() gives it. OSError ENOTCONN where there is
        none.
        """
    def getsockname(self) -> Any:
        """The own address as socket.getsockname() gives it."""
    @property
    def family(self) -> int:
        """Address family as a number: AF_INET, AF_INET6 or AF_UNIX."""
    @property
    def type(self) -> int:
        """Socket type as a number: SOCK_STREAM, or SOCK_DGRAM on UDP."""
    @property
    def proto(self) -> int:
        """Protocol number: IPPROTO_TCP, IPPROTO_UDP, or 0 of a Unix socket."""
    @property
    def timeout(self) -> float | None:
        """The time-out in seconds, or None."""
    @property
    def closed(self) -> bool:
        """Whether it was closed, aborted or detached."""
    @property
    def five_tuple(self) -> FiveTuple:
        """The five things a socket is: descriptor, own host and port, the peer's host and port. Of
        a Unix socket the hosts are the paths ("" where there is none) and the ports 0. OSError
        ENOTCONN before it is connected.
        """
    @property
    def tcp_info(self) -> TcpInfo:
        """What the kernel knows of the connection now: TCP_INFO of tcp(7), as a TcpInfo. Does not
        block. OSError EOPNOTSUPP of a Unix socket, which has no TCP.
        """
    # As in `socket`, the form of a sender's address depends on the family; None on a stream.
    def recvfrom(self, bufsize: SupportsIndex, flags: int = 0) -> tuple[bytes, Any]:
        """As `recv`, with the sender's address behind it, which is None on a stream:
        recvfrom(2).
        """
    def recvfrom_into(
        self, buffer: Buffer, nbytes: SupportsIndex = 0, flags: int = 0
    ) -> tuple[int, Any]:
        """As `recv_into`, with the sender's address behind it, which is None on a stream:
        recvfrom(2).
        """
    def recvmsg(
        self, bufsize: SupportsIndex, ancbufsize: SupportsIndex = 0, flags: int = 0
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """Receives data and control messages: recvmsg(2). Returns (data, [(level, type, data), …],
        flags, the sender's address or None on a stream). Blocks and raises as `recv`.
        """
    def recvmsg_into(
        self, buffers: Iterable[Buffer], ancbufsize: SupportsIndex = 0, flags: int = 0
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        """As `recvmsg`, into writable buffers, filled one after the other. Returns (bytes, [(level,
        type, data), …], flags, sender).
        """
    def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Destination | None = None,
    ) -> int:
        """Sends buffers one after the other as if they were one, with control messages (level,
        type, data): sendmsg(2). Returns how many bytes there was room for. Blocks and raises as
        `send`. `address` is where a datagram goes, if not to whom its client is connected to; a
        stream has its peer: there it is checked, and ignored as the system does.
        """
    def sendto(
        self,
        data: Buffer,
        flags: int | Destination,
        address: Destination | None = None,
        /,
    ) -> int:
        """Sends one datagram to an address, `sendto(data, address)` or `sendto(data, flags,
        address)`: sendto(2). A host that is a name is resolved each time. On a stream it is `send`:
        the address is checked, and ignored as the system does. Blocks and raises as `send`.
        """
    @property
    def record(self) -> Record | None:
        """Its account: of a connection, the one in its server's ledger; of a client, from when it
        is connected (None before). Bytes that go through `fileno()` or `to_socket()` are not
        counted.
        """
    @property
    def id(self) -> int | None:
        """The number of its record: of a connection in its server, of a client among those of this
        process; None before it is connected.
        """
    @property
    def draining(self) -> bool:
        """Whether its server is stopping: reads give what is there, then `b""`. False for a
        client.
        """
    # For the Python half only.
    def _open_file(self) -> None:
        """For `makefile`: one more file is open."""
    def _decref_socketios(self) -> None:
        """What `socket.SocketIO` calls when a file of `makefile` is closed."""
    def _duplicate(self) -> int:
        """For `to_socket`: a second descriptor of the same connection."""
    def _send_file(self, file: int, offset: int, count: int | None) -> int:
        """For the Python half of `sendfile`: sends `count` bytes (None: all) of the regular file
        `file`, a descriptor, from `offset` on, and returns how many it was; `.sent` on what ends it
        early.
        """

class Client(Stream):
    """The compiled half of rsock.Client."""
    def __new__(
        cls,
        host: str | tuple[str, int | str] | None = None,
        port: int | str | None = None,
        *,
        timeout: float | None = None,
        transport: str = "tcp",
        path: SocketPath | None = None,
        options: SocketOptions | None = None,
        source_address: tuple[str, int] | None = None,
        spin: float = 200e-6,
    ) -> Self: ...
    @property
    def server(self) -> None:
        """The server that accepted it: None, for a client was not accepted."""

@disjoint_base
class Connection(Stream):
    """The compiled half of rsock.Connection."""
    def __new__(cls, handed: Handed) -> Self: ...
    @property
    def record(self) -> Record:
        """Its account in the server's ledger. Bytes that go through `fileno()` or `to_socket()` are
        not counted.
        """
    @property
    def id(self) -> int:
        """The number of its record: in its server, from 1."""
    @property
    def server(self) -> Server | None:
        """The server that accepted it; None once nobody holds that any more."""
    # For handler threads only.
    def _returned(self, error: BaseException | None) -> bool:
        """For the pool: its handler has returned, or raised `error`. Closes the connection and says
        whether the error is one to be reported: what the peer caused is only recorded.
        """

@final
class Handed:
    """An accepted stream on its way into a Connection."""

@final
class Datagram:
    """A datagram on its way through a handler. Never seen by its function, which is given what
    is in it.
    """
    @property
    def data(self) -> bytes:
        """What was received."""
    @property
    def address(self) -> tuple[str, int]:
        """Who sent it, as a pair."""
    @property
    def record(self) -> Record:
        """The account of whoever sent it."""
    @property
    def id(self) -> int:
        """The number of that account."""
    @property
    def server(self) -> Server | None:
        """The server; None once nobody holds that any more."""
    def _reply(self, answer: object) -> None:
        """Sends what its handler has returned."""
    def _returned(self, error: BaseException | None) -> bool:
        """For the pool: its handler has returned, or raised `error`, which is to be reported."""

@final
class Pool:
    """What the threads of a pool take their connections from. Keeps no server alive."""
    def next(self) -> Connection | Datagram | None:
        """The next connection or datagram for this thread; None when it is to end. Blocks with the
        interpreter released.
        """
    def wants_thread(self) -> bool:
        """Whether another thread is to be started. It must call `next` until that gives None, and
        then `left`; `missing` where it cannot be started.
        """
    def left(self) -> None:
        """The calling thread ends."""
    def missing(self) -> None:
        """A thread that was wanted could not be started."""
    def should_warn(self) -> bool:
        """Whether connections had to wait for a thread; true once."""
    def name_thread(self, name: str) -> None:
        """Names this thread for debuggers and /proc."""

def process_limits() -> ProcessLimits:
    """The limits of this process, now: descriptors, client ports, accept queue. Does not block.

    Follows getrlimit(2) and proc(5). Raises OSError where the system does not tell.
    """

def raise_fd_limit() -> int:
    """Raises the soft limit of open descriptors to the hard one and returns it. Does not block.

    Follows setrlimit(2). Raises OSError where the system refuses.
    """

def _end_thread(ident: int) -> None:
    """Has SystemExit raised in another thread as soon as that runs Python code again; nothing
    happens where it has ended. For handlers that the interpreter's end does not wait for.
    """

def stop_all(drain: float | None = None) -> list[StopReport]:
    """Stops all servers of this process at once, each for up to `drain` seconds (None: its own),
    and returns their StopReports, oldest server first. Blocks with the interpreter released.
    """

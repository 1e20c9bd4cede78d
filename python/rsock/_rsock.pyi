"""The compiled half of rsock, as it is typed.

Owns the signatures that type checkers and editors show; `mypy.stubtest` compares them with the
module. The docstrings are those of the module: `tests/stub_docs.py` writes them. Of the Python half
it must import only the plain values of `_types` and `rfc147`, because everything else is typed
against this file.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from ssl import SSLContext
from types import TracebackType
from typing import Any, Literal, Self, SupportsIndex, final, overload

from typing_extensions import Buffer, disjoint_base

from ._types import (
    Cell,
    Destination,
    Drawing,
    DriveResult,
    Endpoint,
    Fault,
    FaultEvents,
    FiveTuple,
    Function,
    Leg,
    Limits,
    PeerCredentials,
    ProcessLimits,
    ProxyHeader,
    Recorded,
    RecordedMoment,
    Redact,
    Row,
    ScriptResult,
    Sender,
    SocketOptions,
    SocketPath,
    StopReport,
    TcpInfo,
    TextFile,
    TlsInfo,
    Totals,
    Trace,
    TraceEvent,
)
from .rfc147 import SocketPair

__version__: str

__all__ = [
    "TLS",
    "Accept",
    "ByConnection",
    "Chargen",
    "Client",
    "Connection",
    "Datagram",
    "Daytime",
    "Discard",
    "Echo",
    "FaultBlock",
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
    "Replay",
    "ReplayClient",
    "Script",
    "Server",
    "Service",
    "Stream",
    "Time",
    "Timeline",
    "Watch",
    "__version__",
    "_end_thread",
    "_parse_recording",
    "_read_recording",
    "drive",
    "process_limits",
    "raise_fd_limit",
    "stop_all",
]

@disjoint_base
class Service:
    """The base class of all services: what a server does with each connection.

    Only its subclasses, such as Echo, can be created.
    """

@final
class Echo(Service):
    """A service that sends back all it receives, until the peer has finished (RFC 862).

    Rust threads serve it; it never needs the interpreter.
    """
    def __new__(cls) -> Self: ...

@final
class Forward(Service):
    """A service that forwards each connection to a target, and the answers back to the client.

    The target is a host and port, the `path` of a Unix socket, or a Server of this process, whose
    address is read when the forwarding server starts. Rust threads serve it. A Forward keeps a
    reference to its target.

    Each direction ends separately: a FIN is forwarded. A reset, or an error of the target, resets
    the client. The addresses of a name are tried as in `Client`, for `connect_timeout` seconds
    together. The name is resolved when the server starts, and again if no address could be
    connected to. If the target cannot be reached, the client is reset, and its record names the
    error. `record.far` describes the leg to the target.

    `proxy_protocol` "v1" or "v2" sends a header of the PROXY protocol to the target first, with the
    addresses of the client's connection; with "v2" also the TLVs that a proxy before this server
    has sent. `record.far` counts it. Not on UDP.

    With `tls` (True, or a TLS as in `Client`) the target is reached by TLS, which `connect_timeout`
    covers too; a certificate that is refused resets the client. `Server(tls=…)` is the TLS of the
    clients, so both sides can have TLS, or either.

    On UDP (`Server(transport="udp")`) each peer has a session with its own socket to the target.
    The session ends when nothing has passed in either direction for Limits.idle seconds, or for 60
    seconds if that is None. `connect_timeout` has no effect on UDP.

    `recording` is the path of a file that gets what crosses each connection, in both directions,
    with times: a recording, which `Recording.read` reads. A server opens the file when it starts,
    and replaces an older recording; it is complete when the server has stopped. A thread writes it.
    Where the disk is slower than the connections, they are read more slowly. If a write fails, the
    connections go on, the recording ends there, and `stop`, `wait` or the end of `with` raises the
    OSError.

    `redact` is what the recording must not have: a pattern of bytes, a (pattern, replacement)
    pair, or a list of them. What a pattern matches, or only its groups if it has some, is replaced
    by `[redacted]`, or by the replacement, before anything is written, however the bytes were cut
    on their way. The patterns are those of the crate regex for bytes, like those of the module re
    but without look-around. What is forwarded stays as it is.

    Raises TypeError if there is no target, or more than one, and ValueError for a `connect_timeout`
    of 0 or a wrong pattern. The server's start() raises OSError if the recording cannot be opened,
    is recorded to already, or is a file of another kind, socket.gaierror if the name has no
    address, ValueError if the target leads back to the server itself, and StateError if the target
    is a Server without an address.
    """
    def __new__(
        cls,
        host: str | tuple[str, int | str] | Server | None = None,
        port: int | str | None = None,
        *,
        path: SocketPath | None = None,
        connect_timeout: float = 10.0,
        proxy_protocol: Literal["v1", "v2"] | None = None,
        tls: bool | TLS | None = None,
        recording: SocketPath | None = None,
        redact: Redact = (),
    ) -> Self: ...

@final
class LineEcho(Service):
    """A service that sends back whole lines.

    The line `quit` (bytes, or a str, which is encoded as UTF-8) closes the connection and is
    not echoed; if `quit` is None, no line does. A line ends with LF or CR LF, which is sent
    back unless `newline` is False. Bytes without a line ending count as a line once the peer
    has finished.

    `limit` is the maximum length of a line in bytes, its ending included. The smaller of
    `limit` and `Limits.line` applies; a longer line ends the connection (`closed_by` is
    "limit").

    Raises TypeError or ValueError, naming the argument, for a value that is not allowed, such
    as a `quit` that contains a line ending.
    """
    def __new__(
        cls, quit: Buffer | str | None = b"exit", newline: bool = True, limit: int = 65_536
    ) -> Self: ...

@final
class Discard(Service):
    """A service that reads and discards, until the peer has finished (RFC 863).

    It never answers.
    """
    def __new__(cls) -> Self: ...

@final
class Chargen(Service):
    """A service that sends characters without end, as fast as the peer reads (RFC 864).

    It sends the 95 printing characters of ASCII in lines of 72; each line starts one character
    further on. It discards what it receives, and ends when the peer does.
    """
    def __new__(cls) -> Self: ...

@final
class Daytime(Service):
    """A service that sends the date and time as a line of text, and closes (RFC 867).

    The time is UTC: `Monday, February 22, 1982 17:37:43-UTC`.
    """
    def __new__(cls) -> Self: ...

@final
class Time(Service):
    """A service that sends the number of seconds since 1900, and closes (RFC 868).

    The number has 32 bits, the most significant byte first. It wraps around to 0 in 2036.
    """
    def __new__(cls) -> Self: ...

@final
class Quote(Service):
    """A service that sends `text` unchanged, and closes: the quote of the day (RFC 865).

    `text` is bytes, or a str, which is encoded as UTF-8. Raises ValueError unless it is shorter
    than 512 bytes.
    """
    def __new__(cls, text: Buffer | str) -> Self: ...

@final
class Greeting(Service):
    """A service that sends `message` unchanged, and closes.

    `message` is bytes, or a str, which is encoded as UTF-8; its length is not limited. The peer
    receives all of it, even if it sends data meanwhile.
    """
    def __new__(cls, message: Buffer | str) -> Self: ...

@disjoint_base
class Script(Service):
    """The compiled half of rsock.Script."""
    def __new__(
        cls, text: str = "", _parts: Sequence[Script] = (), _tls: TLS | None = None
    ) -> Self: ...
    @property
    def text(self) -> str:
        """The script in its text form, a step in each line."""
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    @property
    def results(self) -> list[ScriptResult]:
        """How the dialogues with the clients went that have ended, a list of ScriptResult.

        A result is there before the client receives the last bytes of the script, and before the
        ledger shows the end of the connection. They are of all servers
        that were started with this object, one server after the other, and in each the oldest
        first; `Server.script_results` has those of one server. The last 10 000 of each of the last
        1 000 servers are kept.
        """
    def _results_of(self, server: int) -> list[ScriptResult]:
        """Return the results of one server, and where dialogues are that go on. For the Python
        half.
        """
    def _clear_of(self, server: int) -> None:
        """Forget the results of one server so far. For the Python half."""
    def clear(self) -> None:
        """Forget the results so far."""

@disjoint_base
class Replay(Service):
    """The compiled half of rsock.Replay."""
    def __new__(
        cls,
        path: SocketPath,
        *,
        connections: Literal["in order", "repeat"] | int = "in order",
        chunks: Literal["lenient", "exact"] = "lenient",
        speed: float | None = None,
        timeout: float = 10.0,
        carry: Iterable[tuple[int, int]] = (),
        ignore: Buffer | str | Iterable[Buffer | str] = (),
    ) -> Self: ...
    @property
    def transport(self) -> Literal["tcp", "unix", "udp"]:
        """ "tcp", "unix" or "udp": what was recorded."""
    @property
    def path(self) -> str:
        """The path of the recording."""
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    @property
    def results(self) -> list[ScriptResult]:
        """How the dialogues with the clients went that have ended, a list of ScriptResult.

        A result is there before the client receives the last recorded bytes, and before the ledger
        shows the end of the connection; it changes if the client diverges after that. They are of
        all servers that were started with this object, one server after the other, and in each the
        oldest first; `Server.script_results` has those of one server. The last 10 000 of each of
        the last 1 000 servers are kept.
        """
    def _results_of(self, server: int) -> list[ScriptResult]:
        """Return the results of one server, and where dialogues are that go on. For the Python
        half.
        """
    def _clear_of(self, server: int) -> None:
        """Forget the results of one server so far. For the Python half."""
    def _end(self, server: int) -> None:
        """End the dialogues of a server that has ended. For the Python half."""
    def clear(self) -> None:
        """Forget the results so far."""

@final
class ReplayClient:
    """The client's side of a recording, to be played to a server.

    It sends what the client sent, each piece when the server has answered what precedes it in the
    recording, and compares the answers. `connection` is the number of the connection in the
    recording. With `chunks` "lenient" the answers are one stream; with "exact" they must arrive in
    the pieces of the recording, as far as TCP can show. `speed` 1.0 sends as fast as in the
    recording, 2.0 twice as fast, and None at once. The server may take `timeout` seconds longer
    than in the recording for each answer. `ignore` is a regular expression of bytes, or a list of
    them: what they match in the recorded answers may be anything.

    Reads the file. Raises OSError if it cannot be read; ValueError for a file that is no
    recording, naming the line, for a connection that begins TLS, and for an argument that does not
    fit it; TypeError for an argument of the wrong type.
    """
    def __new__(
        cls,
        path: SocketPath,
        connection: int = 1,
        *,
        chunks: Literal["lenient", "exact"] = "lenient",
        speed: float | None = None,
        timeout: float = 10.0,
        ignore: Buffer | str | Iterable[Buffer | str] = (),
    ) -> Self: ...
    @property
    def transport(self) -> Literal["tcp", "unix", "udp"]:
        """ "tcp", "unix" or "udp": what was recorded."""
    @property
    def path(self) -> str:
        """The path of the recording."""
    @property
    def connection(self) -> int:
        """The number of the connection in the recording."""
    def run(self, address: Destination, *, timeout: float = 10.0) -> ScriptResult:
        """Play the client's side to the server at `address`; return a ScriptResult.

        `address` is a (host, port) pair, or the path of a Unix socket. `timeout` is how long the
        connect may take, in seconds. Where the server diverges, `error` of the result is the
        report, and the connection is reset.

        Blocks, with the interpreter released, until everything was played or the server has
        diverged; Ctrl-C ends it. Raises OSError if the connect fails, TimeoutError after `timeout`
        seconds, socket.gaierror for an unknown host, and TypeError or ValueError for a wrong
        argument.
        """

@final
class ByConnection(Service):
    """A service that serves each connection with a service of its own, chosen by its number.

    The first of `services` serves the first connection, the second serves the second, and so on.
    All later connections are served by `rest`, or by the last of `services` if `rest` is None. The
    number of a connection is its `id` in the ledger.

    A service is one in Rust, such as Echo(), or a Handler, or a function, which becomes one.
    Handlers work on TCP and Unix sockets. Raises TypeError for Accept(), which leaves connections
    in the kernel's queue, and for a class.
    """
    def __new__(
        cls, *services: Service | Function, rest: Service | Function | None = None
    ) -> Self: ...
    def _services(self) -> tuple[Any, ...]:
        """The services that were passed, `rest` included. For the Python half."""
    def _function(self, id: int) -> Any:
        """The function that serves connection number `id`; None for a service in Rust."""

@final
class Handler(Service):
    """A service that calls a Python function for each connection: `function(connection)`.

    The calls run on a pool of threads, at most Limits.handler_threads at a time, without a time
    limit. When the function returns, the connection is closed. On UDP the call is
    `function(data, address)`; the bytes that it returns are sent to the peer, and None sends
    nothing. A function passed as the service of a Server is wrapped in a Handler.

    The datagrams of one peer are handled one after the other, in the order in which they arrived;
    those of other peers at the same time. With `ordered=False` one peer's are handled at the same
    time too, in any order. On streams `ordered` has no effect.

    Threads are started as they are needed, are reused, and end when they are no longer needed. Each
    call runs in a fresh contextvars context; the contents of a threading.local stay with the
    thread.

    Raises TypeError, naming what is accepted, for an object that cannot be called with these
    arguments, for a class and for a coroutine function.
    """
    def __new__(cls, function: Function, *, ordered: bool = True) -> Self: ...
    @property
    def function(self) -> Function:
        """The function that serves each connection, or answers each datagram."""
    @property
    def ordered(self) -> bool:
        """Whether the datagrams of one peer are handled one after the other."""

@final
class Accept(Service):
    """A service that leaves connections in the kernel's queue until `Server.accept()` is called."""
    def __new__(cls) -> Self: ...

@disjoint_base
class Server:
    """The compiled half of rsock.Server.

    In a forked child of the process that made it, methods and most properties raise StateError, a
    RuntimeError, and the end of `with` has no effect.
    """
    def __init__(
        self,
        host: str | tuple[str, int | str] = "127.0.0.1",
        port: int | str = 0,
        service: Service | Function | None = None,
        *,
        transport: str = "tcp",
        path: SocketPath | None = None,
        fd: int | str | None = None,
        workers: int | None = None,
        options: SocketOptions | None = None,
        limits: Limits | None = None,
        faults: Iterable[Fault] = (),
        seed: int | None = None,
        trace: bool | Trace = False,
        history: int = 10_000,
        drain: float = 1.0,
        on_error: Literal["log", "raise"] | Callable[[BaseException], object] = "log",
        allow_external: bool = False,
        name: str | None = None,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        replace: bool = False,
        tls: TLS | None = None,
        proxy_protocol: Iterable[str] = (),
    ) -> None: ...
    def create(self) -> Self:
        """Open the socket with socket(2), and return the server, as all steps do.

        Blocks only to resolve a host name, with the interpreter released. Raises OSError, naming
        the step and the address, socket.gaierror for an unknown host, StateError if the socket was
        opened before, and ValueError for an address that the server cannot have, as a UDP server's
        outside the loopback without `allow_external`.
        """
    def bind(self, address: Destination | None = None) -> Self:
        """Bind the socket to its address with bind(2), after `create` if that was not called.

        `address` replaces the host and port, or the path, of the constructor. Returns the server.

        For a Unix socket this creates the file, with the permissions of SocketOptions(mode=…) from
        the start. A file that a killed process left behind is replaced, under a lock file beside
        it. A file whose socket is in use, or a file of another kind, is never replaced
        (EADDRINUSE).

        Raises OSError if the address is in use, not permitted or not one of this host, and the same
        errors as `create`, with StateError if the server is bound; TypeError for an `address` of
        the wrong kind. After OSError, socket.gaierror or ValueError the socket is closed, also one
        that `create` had opened, and the next call begins with a new one. If a Server of this
        process holds the address, the error names that server; if that server is just stopping, the
        call first waits up to 1 s for its end, with the interpreter released.
        """
    def listen(self, backlog: int | None = None) -> Self:
        """Let the kernel queue connections with listen(2), after `bind` if that was not called.

        The connections are served once `start` is called. `backlog` is the capacity of the queue;
        None takes it from the options. Returns the server. Raises the same errors as `bind`.
        """
    def start(self) -> Self:
        """Start serving, after `listen` if that was not called; return once connections are
        accepted.

        Has no effect on a server that is already serving; waits for a start by another thread.
        Returns the server.

        Blocks, with the interpreter released, while the host is resolved and while another server
        that is just stopping still holds the port (at most a second). Raises the same errors as
        `bind`, after closing what was opened, and those that the service names, such as Forward;
        StateError if the server was stopped; RuntimeError if the system has no thread for a
        handler.
        """
    def stop(self, drain: float | None = None) -> StopReport:
        """Stop accepting, deliver pending data for up to `drain` seconds, and return a StopReport.

        Connections that are left after `drain` seconds are reset; 0 resets all of them at once, and
        None takes the server's own value. A server that was started still serves the connections
        that wait in the kernel's queue. A connection that has not sent anything has 0.25 s of
        `drain` for its first byte. A server that was never started just closes its socket.

        Blocks, with the interpreter released, for at most `drain` seconds plus 50 ms. A second
        call, from any thread, applies the earlier deadline and returns the same StopReport. Ctrl-C
        ends the wait, not the stop. Raises TypeError or ValueError for a `drain` that is not a
        number of seconds from 0.
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def wait(self, timeout: float | None = None) -> StopReport:
        """Block until the server has stopped, for any cause, and return the StopReport.

        Raises TimeoutError after `timeout` seconds (None means no time-out), and StateError if the
        server was never started. Releases the interpreter.
        """
    def sendto(self, data: Buffer, address: Destination) -> int:
        """Send a datagram from the server's port with sendto(2), and return its length in bytes.

        For servers of datagrams with a handler or `Accept()`: sends a datagram that is not the
        return value of a handler. Blocks only to resolve a host name.

        Raises BlockingIOError if the system has no room for the datagram, PermissionError if a peer
        outside the loopback would receive more bytes than it has sent or more than its share,
        OSError (EMSGSIZE) if the data is too long for a datagram, socket.gaierror for an unknown
        host, StateError if the server is not serving, and TypeError on any other server.
        """
    def fileno(self) -> int:
        """Return the listening file descriptor; -1 if there is none.

        The server shuts the socket down when it stops, also for a process that has inherited or
        duplicated the descriptor; `hand_over` gives the socket to others.
        """
    def hand_over(self) -> int:
        """Return a new descriptor of the listening socket, for a server that takes over:
        `Server(fd=…)`.

        From then on this server treats its socket as one that others use. Until it is stopped it
        goes on accepting, beside the others. Its end, for whatever reason, then only closes its own
        descriptor, without shutdown(2): clients that connect are never refused while another
        descriptor is open, the connections and datagrams that wait in the queue are left to the
        others, and the file of a Unix socket stays. What this server has accepted is drained as
        usual. Without another open descriptor the end resets what waits in the queue.

        The caller owns the descriptor, and closes it once the other server has its own. It is not
        inheritable: pass it to a child with subprocess' `pass_fds`, or by `socket.send_fds`. On UDP
        with several workers it is the socket of the first; the others end with this server, after
        their datagrams were answered.

        Blocks, with the interpreter released, until a thread of a UDP server has noticed: for
        at most a second. Raises StateError before `bind` and once a stop has begun, OSError
        (EMFILE) if the process is out of descriptors.
        """
    # As in typeshed: the type depends on the transport, which the caller knows. The same is true of
    # every `| Any` and plain `Any` below.
    def getsockname(self) -> Any:
        """Return the listener's address in the form of socket.getsockname(), by getsockname(2).

        A (host, port) tuple, a 4-tuple for IPv6, or the path of a Unix socket. Raises StateError
        before `bind`.
        """
    @property
    def address(self) -> tuple[str, int] | Any:
        """The address that the server is, or was, bound to. Raises StateError before `bind`.

        Always a (host, port) tuple, with an IPv6 scope inside the host; the path of a Unix socket,
        a str.
        """
    @property
    def _reachable(self) -> tuple[str, int] | Any:
        """The address at which a client of this machine reaches the server: for every interface, a
        loopback address that this machine has. For the Python half.
        """
    @property
    def host(self) -> str | Any:
        """The host of `address`; before `bind`, that of the constructor. None for a Unix socket."""
    @property
    def port(self) -> int | Any:
        """The port of `address`; before `bind`, that of the constructor. None for a Unix socket."""
    @property
    def path(self) -> str | None:
        """The path of a Unix socket, a str, also before `bind`. None with any other transport.

        An abstract name starts with a NUL.
        """
    @property
    def transport(self) -> str:
        """The transport: "tcp", "udp", "unix" or "unix-datagram"."""
    @property
    def name(self) -> str:
        """The name of the server in messages."""
    @property
    def state(self) -> str:
        """The state: "new", "created", "bound", "listening", "serving", "draining" or "stopped"."""
    @property
    def waiting(self) -> int:
        """The number of connections that wait in the kernel's queue to be accepted.

        Their handshake is finished. Does not block. The number is read from TCP_INFO of the
        listener, tcp(7); it is 0 before `listen` and once the server has stopped.
        """
    @property
    def tls(self) -> TLS | None:
        """The TLS of new connections; None for clear text.

        Another TLS may be assigned to a server that was created with one, at any time: from then on
        new connections use it, and those that are open go on as they are. Raises TypeError for
        anything else, ValueError for one without a certificate or on a server in clear text.
        """
    @tls.setter
    def tls(self, value: TLS) -> None:
        """The TLS of new connections; None for clear text.

        Another TLS may be assigned to a server that was created with one, at any time: from then on
        new connections use it, and those that are open go on as they are. Raises TypeError for
        anything else, ValueError for one without a certificate or on a server in clear text.
        """
    @property
    def service(self) -> Service:
        """The service that the server was created with."""
    @property
    def options(self) -> SocketOptions:
        """The SocketOptions that the server was created with."""
    @property
    def limits(self) -> Limits:
        """The Limits that the server was created with."""
    @property
    def ledger(self) -> Ledger:
        """The Ledger, which holds a record of each connection."""
    # The rest is for the Python half only.
    def _stop(self, drain: float | None, cause: str) -> StopReport:
        """Do the same as `stop`; `cause` is the cause in the report. For the Python half."""
    @property
    def _left(self) -> float:
        """The seconds that are left to a stop: until its deadline, and 50 ms. For the Python
        half.
        """
    @property
    def seed(self) -> int:
        """The seed of the faults' random numbers.

        With the same seed, faults and traffic, a server has the same faults again. If none was
        given, it was drawn.
        """
    def _add_fault(self, fault: Fault, level: int = 1) -> int:
        """Add a fault and return its number, once every connection has it. For the Python half."""
    def _remove_faults(self, numbers: list[int]) -> int:
        """Remove faults by their numbers, and return how many were there. For the Python half.

        Returns once no connection has them.
        """
    def _list_faults(self) -> list[tuple[int, Fault, int, int]]:
        """Return number, object, connections and events of each fault. For the Python half."""
    def _begin_stop(self, cause: str) -> None:
        """Begin a stop and return at once. For handlers that end the program."""
    def _take_recording_errors(self) -> list[OSError]:
        """Return what went wrong with recordings, once, after the end. For the Python half."""
    @property
    def _number(self) -> int:
        """The server's number in this process. For the Python half."""
    @property
    def _on_error(self) -> Any:
        """What happens to errors, as passed to the constructor. For the Python half."""
    # An object of `_handlers.Handlers`, which is typed against this file.
    @property
    def _handlers(self) -> Any:
        """The object that reports the errors of handlers; None with other services."""
    def _pool(self) -> Pool:
        """Return the Pool from which handler threads take their connections."""
    def _accept(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Wait for the next connection or datagram. For the Python half of `accept`."""
    def _reset(self, timeout: float | None) -> None:
        """End the connections and forget what they did. For the Python half."""
    def _abandon(self) -> None:
        """Begin a stop and return at once. For `__del__`."""

@final
class Ledger:
    """The records of a server's connections, with totals that balance (accepted = open + closed).

    It holds the records of the open connections and of the last ones that were closed. Iteration
    yields all records that it holds, oldest first; len() is their number, and `ledger[-1]` the
    newest.
    """
    @property
    def open(self) -> list[Record]:
        """The records of the open connections, a list, oldest first."""
    @property
    def closed(self) -> list[Record]:
        """The records of the last closed connections, a list, in the order in which they ended.

        At most as many as the server's `history`.
        """
    @property
    def totals(self) -> Totals:
        """Sums over all connections since the start, a Totals.

        They include connections whose records have been dropped.
        """
    def _paths(self) -> list[tuple[list[tuple[float, int]], int, float]]:
        """Histograms of the last TCP_INFO of closed connections: round-trip times in seconds, and
        retransmitted segments. Each is a list of (bound, count), the count above them, and the sum.
        """
    def wait(
        self,
        open: int | None = None,
        closed: int | None = None,
        timeout: float | None = 10.0,
    ) -> list[Record]:
        """Block until given numbers of connections are open and closed, and return the records.

        Waits until exactly `open` connections are open and at least `closed` have been closed since
        the start; None means any number. Returns the records held at that moment, oldest first.
        Releases the interpreter. Raises TimeoutError after `timeout` seconds (None means no
        time-out), and TypeError if neither number is passed.
        """
    async def wait_async(
        self,
        open: int | None = None,
        closed: int | None = None,
        timeout: float | None = 10.0,
    ) -> list[Record]:
        """Wait as `wait` does, in a coroutine: `await ledger.wait_async(open=0)`.

        Blocks no event loop: the loop of asyncio, or of trio, watches a descriptor. The coroutine
        can be cancelled at any time. Raises the same errors as `wait`.
        """
    def follow(self, timeout: float | None = None) -> Follower:
        """Return an iterator over the records of connections that close from now on, a Follower.

        The records are in the order in which the connections end. Each step blocks, with the
        interpreter released, until the next connection has closed; the iterator ends when the
        server has stopped. A step raises TimeoutError after `timeout` seconds (None means no
        time-out); the iterator can be used again after that.

        The iterator stores only a position in the ledger. Records that the ledger drops before they
        are read are counted in `missed`. Raises ValueError if the ledger keeps no closed records
        (history=0).
        """
    def to_dicts(self) -> list[Row]:
        """Return all records that it holds as a list of flat dicts, oldest first. Does not block.

        All dicts have the same keys and plain values, as `pandas.DataFrame` and `csv.DictWriter`
        expect. Times are aware datetimes (UTC), durations are float seconds, and unknown values are
        None.
        """
    def to_columns(self) -> dict[str, list[Cell]]:
        """Return the same values by column, as a dict of lists. Does not block.

        `polars.DataFrame` and `pandas.DataFrame` expect this form; it also works if the first value
        of a column comes late.
        """
    @overload
    def to_csv(self, path_or_file: None = None) -> str:
        """Write the same values as CSV (RFC 4180), with a header line.

        `path_or_file` is a path or an open text file; if it is None, the text is returned as a str.
        Times are in ISO 8601 format, and None is an empty field. Control characters in a text are
        escaped, and a text that a spreadsheet would take for a formula, because it begins with `=`,
        `+`, `-` or `@`, has an apostrophe before it; `to_dicts` has it unchanged. Raises OSError if
        the file cannot be written.
        """
    @overload
    def to_csv(self, path_or_file: str | PathLike[str] | TextFile) -> None:
        """Write the same values as CSV (RFC 4180), with a header line.

        `path_or_file` is a path or an open text file; if it is None, the text is returned as a str.
        Times are in ISO 8601 format, and None is an empty field. Control characters in a text are
        escaped, and a text that a spreadsheet would take for a formula, because it begins with `=`,
        `+`, `-` or `@`, has an apostrophe before it; `to_dicts` has it unchanged. Raises OSError if
        the file cannot be written.
        """
    @overload
    def to_jsonl(self, path_or_file: None = None) -> str:
        """Write the same values as lines of JSON, one object for each record.

        `path_or_file`, the return value and the errors are as for `to_csv`.
        """
    @overload
    def to_jsonl(self, path_or_file: str | PathLike[str] | TextFile) -> None:
        """Write the same values as lines of JSON, one object for each record.

        `path_or_file`, the return value and the errors are as for `to_csv`.
        """
    def to_pandas(self) -> Any:
        """Return the same values as a pandas.DataFrame. Does not block.

        pandas is imported by this call; without it, raises ImportError. Each column has the same
        type in every table, even in an empty one: numbers that may be missing are of pandas' type
        Int64, times are aware (UTC).
        """
    def to_polars(self) -> Any:
        """Return the same values as a polars.DataFrame. Does not block.

        polars is imported by this call; without it, raises ImportError. Each column has the same
        type in every table, even in an empty one.
        """
    def timeline(self) -> Drawing:
        """Draw the connections as bars along the time, by how they ended: a Drawing.

        It has the open connections and the newest closed ones, 30 at most. Does not block.
        """
    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Record: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[Record]: ...
    def __reversed__(self) -> Iterator[Record]: ...
    def __iter__(self) -> Iterator[Record]: ...
    def __len__(self) -> int: ...
    def _repr_html_(self) -> str: ...

@final
class TLS:
    """Certificates and keys for TLS, and what is accepted from the peer.

    `Server(tls=TLS(cert, key))` serves TLS, `Client(tls=TLS(ca=…))` connects by TLS. A file is
    given by its path, as str or os.PathLike; bytes are the content itself. Everything is PEM (RFC
    7468).

    `cert`: the own certificate, followed by those of the authorities between it and the root.
    `key`: its private key; None looks for it in `cert`. RSA, ECDSA (P-256, P-384) or Ed25519.
    `password`: of an encrypted key, as str or bytes.
    `ca`: certificates of authorities that a client trusts, in place of those of the system.
    `client_ca`: those by which a server verifies the certificates of clients; None asks for none.
    `require_client_cert`: whether a client without a certificate is refused.
    `alpn`: names of protocols, the preferred one first, such as `["h2", "http/1.1"]` (RFC 7301).
    `sni`: other certificates of a server, by the name that the client asks for (RFC 6066): a dict
    of names to pairs `(cert, key)` or to TLS objects. `*.example.org` stands for any one label.
    `min_version`: "1.2" or "1.3".
    `server_hostname`: the name that a client verifies, in place of the host that it connects to.

    The object is frozen. Which of these belong to a server and which to a client is checked where
    it is used. Reads the files, and raises the OSError of one that cannot be read; ValueError,
    naming the argument and the path, for one that is not PEM or has nothing in it, for a key that
    does not belong to the certificate, or that is encrypted and has no password.
    """
    def __new__(
        cls,
        cert: str | PathLike[str] | bytes | None = None,
        key: str | PathLike[str] | bytes | None = None,
        *,
        password: str | bytes | None = None,
        ca: str | PathLike[str] | bytes | None = None,
        client_ca: str | PathLike[str] | bytes | None = None,
        require_client_cert: bool = False,
        alpn: Iterable[str | bytes] = (),
        sni: Mapping[
            str,
            TLS | tuple[str | PathLike[str] | bytes, str | PathLike[str] | bytes],
        ]
        | None = None,
        min_version: Literal["1.2", "1.3"] = "1.2",
        server_hostname: str | None = None,
    ) -> Self: ...
    @staticmethod
    def for_tests(
        names: Iterable[str] = ("localhost", "127.0.0.1"),
        *,
        alpn: Iterable[str | bytes] = (),
        min_version: Literal["1.2", "1.3"] = "1.2",
        require_client_cert: bool = False,
    ) -> TLS:
        """Make an authority and a certificate in memory, for tests.

        The certificate is valid for `names`, host names and addresses, and for both roles: the same
        object serves `Server(tls=…)` and `Client(tls=…)`, and a server's `client()` uses it too.
        Other clients trust `ca_pem`. With `require_client_cert`, clients have to show the
        certificate. Blocks for about a millisecond. Raises ValueError for a name that no
        certificate can have.
        """
    @property
    def ca_pem(self) -> str:
        """The certificate of the authority in PEM. Only of `for_tests`; else AttributeError."""
    @property
    def cert_pem(self) -> str:
        """The certificate in PEM. Only of `for_tests`; else AttributeError."""
    @property
    def key_pem(self) -> str:
        """The private key in PEM. Only of `for_tests`; else AttributeError."""
    def client_context(self) -> SSLContext:
        """Return an `ssl.SSLContext` for clients, which trusts the authority. Only of `for_tests`.

        It verifies the host's name, offers `alpn`, and shows the certificate where
        `require_client_cert` is set. Each call makes another one. Of other objects it raises
        AttributeError.
        """
    @property
    def _expiry(self) -> int | None:
        """Until when the own certificates are valid, in seconds since 1970; None where there are
        none. For the Python half.
        """
    def _faults(self) -> list[str]:
        """What is wrong now with the own certificates, a list of sentences. For the Python half."""
    @property
    def _for_tests(self) -> bool:
        """Whether `for_tests` has made it: clients of its server can use it too. For the Python
        half.
        """

@final
class Watch:
    """A condition on a ledger, watched for a coroutine. For the Python half."""
    def __new__(cls, ledger: Ledger, open: int | None, closed: int | None) -> Self: ...
    def fileno(self) -> int | None:
        """Return the descriptor that becomes readable when the condition is met.

        None where the process has no descriptor for it: the caller calls `check` again and again.
        """
    def check(self) -> list[Record] | None:
        """Return the records if the condition is met now; None otherwise."""
    def late(self) -> None:
        """Raise the TimeoutError of a wait that has taken too long."""
    def close(self) -> None:
        """Give the descriptor back."""

@final
class Follower:
    """The iterator of `Ledger.follow`: yields the record of each connection that closes."""
    def __iter__(self) -> Self: ...
    def __next__(self) -> Record: ...
    @property
    def missed(self) -> int:
        """The number of records that the ledger dropped before the iterator read them."""

@final
class Record:
    """The record of one connection. Its numbers keep counting while the connection is open."""
    @property
    def id(self) -> int:
        """The number of the connection, from 1.

        Connections are numbered per server, clients per process.
        """
    @property
    def role(self) -> str:
        """The role of this end: "server" (it was accepted) or "client" (it connected)."""
    @property
    def transport(self) -> str:
        """The transport: "tcp", "udp", "unix" or "unix-datagram"."""
    @property
    def peer_credentials(self) -> PeerCredentials | None:
        """The process at the other end of a Unix socket, a PeerCredentials.

        The kernel supplies pid, uid and gid (SO_PEERCRED, unix(7)). None with other transports.
        """
    @property
    def local(self) -> Endpoint:
        """The address of this end, an Endpoint."""
    @property
    def remote(self) -> Endpoint:
        """The address of the peer, an Endpoint.

        An IPv4 peer of a dual-stack port is shown with its IPv4 address.
        """
    @property
    def proxy(self) -> Endpoint | None:
        """The address of the proxy that has passed the connection on, an Endpoint.

        `remote` is then the client that the proxy names. None without a proxy of
        `Server(proxy_protocol=…)`, or before its header has come.
        """
    @property
    def proxy_header(self) -> ProxyHeader | None:
        """What that proxy says about the connection, a ProxyHeader."""
    @property
    def opened_at(self) -> float:
        """The time at which the connection was opened, in seconds since 1970, as time.time()."""
    @property
    def seconds(self) -> float:
        """The time for which the connection was, or has been, open, in seconds."""
    @property
    def messages_in(self) -> int:
        """The number of receives that carried data; on UDP, of datagrams, including empty ones."""
    @property
    def messages_out(self) -> int:
        """The number of sends that carried data; on UDP, of datagrams, including empty ones."""
    @property
    def bytes_in(self) -> int:
        """The number of bytes received from the peer."""
    @property
    def bytes_out(self) -> int:
        """The number of bytes sent to the peer, counted when the kernel takes them."""
    @property
    def bits_in(self) -> int:
        """The number of bits received: 8 × `bytes_in`."""
    @property
    def bits_out(self) -> int:
        """The number of bits sent: 8 × `bytes_out`."""
    @property
    def far(self) -> Leg | None:
        """With the service Forward: the leg to the target, a Leg. None without such a leg."""
    @property
    def closed_by(self) -> str | None:
        """What ended the connection, a str; None while it is open.

        - "peer": the peer finished first (FIN), and received all pending data.
        - "reset": the peer sent RST, which a client also does if it closes with unread data.
        - "local": Python closed it, or its handler returned.
        - "service": a service in Rust ended it; with Forward, the target finished first.
        - "limit": a limit ended it; `limit` names the limit.
        - "fault": a fault of `rsock.faults` ended it; `fault` names its kind.
        - "error": an error of this side, of the service or of its handler; `error` has the text.
        - "stop": the server stopped; its StopReport counts drained and reset connections.
        - "detached": `detach()` gave its descriptor away.
        """
    @property
    def reset_sent(self) -> bool:
        """Whether this end was closed by RST, a bool; False while it is open.

        A FIN is the orderly end. A RST goes out instead, or behind it, where the connection was
        reset on purpose (`abort()`, SO_LINGER 0, a deadline, some limits and faults, an error), and
        where the end was closed with data that it had not read, which the kernel answers with RST
        (RFC 1122, section 4.2.2.13). Of a Unix socket, whether the peer gets ECONNRESET, which only
        unread data causes. What the kernel answers to data that arrives after the close is not
        counted. A connection that its handler has closed may go on to deliver what was sent; if
        that is cut short, the value changes after the close.
        """
    @property
    def limit(self) -> str | None:
        """The name in Limits of the limit that ended the connection; None if no limit did."""
    @property
    def fault(self) -> str | None:
        """The name of the kind of fault that ended the connection, such as "reset"; None if none
        did.
        """
    @property
    def tls(self) -> TlsInfo | None:
        """What TLS has agreed on, a TlsInfo; None without TLS, or before the handshake is
        complete.
        """
    @property
    def faults(self) -> FaultEvents:
        """What faults have done to the connection, a list of FaultEvent, oldest first.

        It holds the first 256; its attribute `more` is the number of those after them. Empty where
        faults have done nothing.
        """
    @property
    def _fault_count(self) -> int:
        """The number of things that faults have done to the connection. For the Python half."""
    @property
    def error(self) -> str | None:
        """The text of the error that ended the connection, or that its handler raised.

        If a fault ended the connection, its text form. None if there was neither. It may contain
        what the peer sent, control characters included; displays, logs and CSV escape these.
        """
    @property
    def closed_at(self) -> float | None:
        """The time at which the connection ended, in seconds since 1970, as time.time().

        None while it is open.
        """
    @property
    def tcp_info(self) -> TcpInfo | None:
        """The kernel's statistics of the connection, a TcpInfo.

        They are the current ones while the connection is open, and afterwards the last ones before
        the close. None for transports other than TCP. Does not block.
        """
    @property
    def trace(self) -> list[TraceEvent] | None:
        """What was received, sent and done by faults, a list of TraceEvent, oldest first.

        It holds the last events, within the bounds of the server's `trace`. None if the server has
        no trace, and for a client.
        """
    def ladder(self, *, most: int = 40) -> Drawing:
        """Draw what passed on the connection from top to bottom, a Drawing.

        Reads and writes, with their times, are those of `trace`; of more than `most` events the
        first and the last are drawn. The handshake and the ends of TCP are inferred, and drawn as
        such. Does not block. Raises ValueError for a `most` below 2.
        """
    def states(self) -> Drawing:
        """Draw the states of TCP (RFC 9293) with the path of the connection, a Drawing.

        The last state is the kernel's; the others are inferred from how the connection began and
        ended. Does not block. Raises ValueError for another transport.
        """
    def segments(self) -> Drawing:
        """Draw how the bytes of the connection were cut into reads, writes and segments, a Drawing.

        The kernel counts segments; their sizes are computed where they agree with its count. Does
        not block. Raises ValueError for a transport other than TCP.
        """
    @property
    def rfc147(self) -> SocketPair | None:
        """The socket numbers after RFC 147, a SocketPair.

        It holds the receiving socket and the sending one. None for a Unix socket, which has no host
        and no port.
        """
    def to_dict(self) -> Row:
        """Return the record as a flat dict of plain values, as in the list of `Ledger.to_dicts`.

        Does not block.
        """
    def _repr_html_(self) -> str: ...

@disjoint_base
class Stream:
    """The base class of Client and Connection: one end of a connection.

    It has the methods of socket.socket.
    """

    def connect(self, address: Destination) -> None:
        """Connect to an address with connect(2).

        `address` is a (host, port) tuple, or the path of a Unix socket (str, bytes or os.PathLike),
        which a UDP client does not take. Until it is connected, a stream client takes either. All
        addresses of a host name are tried in turn.

        Blocks up to the time-out, with the interpreter released. Raises ConnectionRefusedError or
        another OSError that names the address, socket.gaierror for an unknown host, TimeoutError,
        and ValueError for a path that no socket can have or for options that a Unix socket does not
        have.
        """
    def connect_ex(self, address: Destination) -> int:
        """Connect as `connect` does, but return the errno of an OSError of the system.

        Returns 0 after success, and EAGAIN after a time-out. Blocks as `connect` does, and raises
        its other errors.
        """
    def send(self, data: Buffer, flags: int = 0) -> int:
        """Send as many bytes as the system has room for with send(2), and return their number.

        Blocks while there is no room at all. Raises BrokenPipeError, ConnectionResetError,
        TimeoutError, and BlockingIOError if the time-out is 0.
        """
    def sendall(self, data: Buffer, flags: int = 0) -> None:
        """Send all of `data`.

        Blocks until the system has taken all bytes; the time-out applies to the call as a whole.
        Raises the same errors as `send`; their attribute `sent` is the number of bytes sent.
        """
    def recv(self, bufsize: SupportsIndex, flags: int = 0) -> bytes:
        """Receive the bytes that have arrived, at most `bufsize`, with recv(2).

        Returns b"" once the peer has finished. Blocks until data arrives. Raises
        ConnectionResetError, TimeoutError, BlockingIOError if the time-out is 0, and ValueError if
        `bufsize` is negative.
        """
    def recv_into(self, buffer: Buffer, nbytes: SupportsIndex = 0, flags: int = 0) -> int:
        """Receive into a writable buffer with recv(2), and return the number of bytes.

        At most `nbytes` bytes are received; 0 means the length of the buffer. Returns 0 once the
        peer has finished. Blocks as `recv` does, and raises the same errors; ValueError if `nbytes`
        exceeds the buffer, TypeError if the buffer is read-only.
        """
    def recv_exactly(self, n: SupportsIndex) -> bytes:
        """Receive exactly `n` bytes; return b"" if the peer has finished before the first of them.

        Blocks until all have arrived; the time-out applies to the call as a whole. Raises
        IncompleteRead if the peer finishes after fewer bytes, and the same errors as `recv`. The
        bytes that had arrived are the attribute `partial` of each of these errors, and of
        KeyboardInterrupt: b"" if there were none.
        """
    def recv_until(
        self, delimiter: Buffer | tuple[Buffer, ...], limit: SupportsIndex = 65_536
    ) -> bytes:
        """Receive up to and including `delimiter`, and no byte after it.

        `delimiter` may be a tuple of several, of which the first to end counts. Returns b"" if the
        peer has finished before the first byte. Raises ValueError if the first `limit` bytes do not
        contain the delimiter; its attribute `partial` holds the bytes that had arrived. Blocks as
        `recv_exactly` does, and raises the same errors.
        """
    def recv_line(self, limit: SupportsIndex = 65_536) -> bytes:
        r"""Receive a line, including its b"\n"; the same as `recv_until(b"\n", limit)`.

        A line of more than `limit` bytes is a ValueError. `settimeout` limits the time.
        """
    def recv_frame(self, header: str = ">I", limit: SupportsIndex = 16_777_216) -> bytes | None:
        """Receive the data of one frame: a length of the format `header`, then as many bytes.

        `header` is a format of the struct module with one integer, such as ">I" or "<H". Returns
        None if the peer has finished before a frame, and b"" for a frame without data. Takes no
        byte after the frame. Raises ValueError if the length is above `limit` or negative, and
        IncompleteRead if the peer finishes inside the frame; the bytes that had arrived, with those
        of the header, are the attribute `partial`. Blocks as `recv_exactly` does, and raises the
        same errors.
        """
    def send_frame(self, data: Buffer, header: str = ">I") -> None:
        """Send all of `data` as one frame: its length in the format `header`, then the data.

        `header` is as for `recv_frame`. Frames that several threads send follow each other, as none
        begins while another is being sent; other sends do not wait for that. The time-out applies
        to the call as a whole, the wait for other frames included. Raises ValueError for data that
        is too long for the header, OSError (EDEADLK) in a signal handler that interrupts another
        frame of its thread, and as `sendall`; the attribute `sent` counts the header too.
        """
    def start_tls(
        self, tls: TLS | bool | None = None, *, server_hostname: str | None = None
    ) -> None:
        """Begin TLS on a connection that is in use, and wait for the end of the handshake.

        For protocols that upgrade, such as SMTP (RFC 3207), IMAP and POP3 (RFC 2595), XMPP and
        PostgreSQL. What was sent before goes out in clear text; from the call on, every method, and
        `fileno()`, moves clear text that is protected on the way, and `record.tls` says what was
        agreed on.

        A server's connection needs `tls`, a TLS with a certificate. A client verifies the server by
        `tls`, or by the authorities of the system, as True and None say; the certificate must be
        valid for `server_hostname`, or else for the name in `tls`, or the host that the client has
        connected to.

        Blocks up to the time-out. A handshake that fails resets the connection: ssl.SSLError has
        the peer's alert in words, ssl.SSLCertVerificationError what was refused; TimeoutError.
        Refused with the connection as it was: StateError if TLS is on, if a duplicate of the
        descriptor or a file of `makefile` is open, or if clear text was received that no call has
        read, which must not pass for protected (CVE-2011-0411); ValueError with a time-out of 0,
        and OSError (EOPNOTSUPP) for datagrams.
        """
    def shutdown(self, how: int) -> None:
        """Shut down one or both directions with shutdown(2). Does not block.

        `how` is socket.SHUT_RD, SHUT_WR or SHUT_RDWR. After SHUT_WR the peer reads the end of the
        stream, and data from the peer can still be received. Raises OSError: EINVAL for another
        value, ENOTCONN if the stream is not connected.
        """
    def close(self) -> None:
        """Close the stream with close(2).

        The peer receives the data that was sent, then the end of the stream. Calls that block in
        other threads raise OSError (EBADF). Closing a closed stream has no effect. If files of
        `makefile` are open, the stream is closed with the last of them, as with any socket. Blocks
        only with SO_LINGER, socket(7), and lets other threads run meanwhile. On a server's
        connection, a linger time that a duplicate has set or that its listener had makes no close
        wait.
        """
    def abort(self) -> None:
        """Close the stream with a reset (RST). Does not block.

        Data that was not sent yet is discarded, and the peer gets ConnectionResetError.
        """
    def detach(self) -> int:
        """Close this object without closing its file descriptor, and return the descriptor.

        The caller must close the descriptor. Returns -1 if the stream is closed. Raises OSError
        (EBUSY) while a call in another thread uses the descriptor.
        """
    def fileno(self) -> int:
        """Return the file descriptor; -1 once the stream is closed.

        The descriptor is in blocking mode unless the time-out is 0.
        """
    def settimeout(self, value: float | None) -> None:
        """Set the time-out of each call in seconds.

        None means no time-out; with 0 no call waits. Raises ValueError for a negative number,
        OverflowError for one that is too large, and TypeError for an object that is not a number.
        """
    def gettimeout(self) -> float | None:
        """Return the time-out in seconds, or None if there is none."""
    def setblocking(self, flag: bool) -> None:
        """Do the same as `settimeout(None)` if `flag` is true, otherwise as `settimeout(0)`."""
    def getblocking(self) -> bool:
        """Return whether calls may wait: False if the time-out is 0, otherwise True."""
    def setsockopt(
        self, level: int, optname: int, value: int | Buffer | None, optlen: int | None = None
    ) -> None:
        """Set a socket option with setsockopt(2).

        `value` is an int or a bytes-like object; if it is None, `optlen` is the length of a null
        pointer, in bytes. Raises OSError for an option that the system refuses.
        """
    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> int | bytes:
        """Return the value of a socket option, by getsockopt(2).

        Returns an int, or, if `buflen` is not 0, at most `buflen` bytes (1024 at the most). For
        SO_GET_FILTER the int is the number of instructions. Raises OSError for an option that the
        system refuses.
        """
    def getpeername(self) -> Any:
        """Return the peer's address in the form of socket.getpeername(), by getpeername(2).

        Raises OSError (ENOTCONN) if the stream is not connected.
        """
    def getsockname(self) -> Any:
        """Return the address of this end in the form of socket.getsockname(), by getsockname(2)."""
    @property
    def family(self) -> int:
        """The address family as a number: AF_INET, AF_INET6 or AF_UNIX."""
    @property
    def type(self) -> int:
        """The socket type as a number: SOCK_STREAM, or SOCK_DGRAM for datagrams."""
    @property
    def proto(self) -> int:
        """The protocol number: IPPROTO_TCP, IPPROTO_UDP, or 0 for a Unix socket."""
    @property
    def timeout(self) -> float | None:
        """The time-out in seconds, or None if there is none."""
    @property
    def closed(self) -> bool:
        """Whether the stream was closed, aborted or detached."""
    @property
    def five_tuple(self) -> FiveTuple:
        """The descriptor, with host and port of this end and of the peer, as a FiveTuple.

        For a Unix socket the hosts are the paths ("" if there is none), and the ports are 0. Raises
        OSError (ENOTCONN) before the stream is connected.
        """
    @property
    def tcp_info(self) -> TcpInfo:
        """The kernel's current statistics of the connection: TCP_INFO of tcp(7), as a TcpInfo.

        Does not block. Raises OSError (EOPNOTSUPP) for a Unix socket.
        """
    # As in `socket`, the form of a sender's address depends on the family; None on a stream.
    def recvfrom(self, bufsize: SupportsIndex, flags: int = 0) -> tuple[bytes, Any]:
        """Receive with recvfrom(2); return (data, address), where `address` is that of the sender.

        On a stream `address` is None, or the name of a Unix socket's peer if it has one. Blocks as
        `recv` does, and raises the same errors.
        """
    def recvfrom_into(
        self, buffer: Buffer, nbytes: SupportsIndex = 0, flags: int = 0
    ) -> tuple[int, Any]:
        """Receive into a writable buffer with recvfrom(2); return (number of bytes, address).

        `address` is as for `recvfrom`. Blocks as `recv_into` does, and raises the same errors.
        """
    def recvmsg(
        self, bufsize: SupportsIndex, ancbufsize: SupportsIndex = 0, flags: int = 0
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """Receive data and control messages with recvmsg(2).

        `bufsize` and `ancbufsize` are the maximum sizes in bytes of the data and of the control
        messages. Returns (data, [(level, type, data), …], flags, address), where `address` is as
        for `recvfrom`. Blocks as `recv` does, and raises the same errors.
        """
    def recvmsg_into(
        self, buffers: Iterable[Buffer], ancbufsize: SupportsIndex = 0, flags: int = 0
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        """Receive into writable buffers with recvmsg(2); each is filled before the next.

        Returns (number of bytes, [(level, type, data), …], flags, address), as `recvmsg` does.
        Blocks as `recv` does, and raises the same errors; TypeError for an object that is not a
        writable buffer.
        """
    def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Destination | None = None,
    ) -> int:
        """Send buffers and control messages with sendmsg(2), and return the number of bytes sent.

        The buffers are sent as if they were one. `ancdata` is an iterable of control messages
        (level, type, data). `address` is the destination of a datagram, if it is not the address
        that the client is connected to. On a TCP stream `address` is checked, and then ignored as
        the system does; a Unix socket raises OSError. Blocks as `send` does, and raises the same
        errors.
        """
    def sendto(
        self,
        data: Buffer,
        flags: int | Destination,
        address: Destination | None = None,
        /,
    ) -> int:
        """Send one datagram to an address with sendto(2), and return the number of bytes sent.

        Called as `sendto(data, address)` or `sendto(data, flags, address)`. A host name is resolved
        at each call. A TCP stream checks the address, ignores it as the system does, and sends to
        its peer; a Unix socket raises OSError. Blocks as `send` does, and raises the same errors.
        """
    @property
    def record(self) -> Record | None:
        """The Record of the stream; None for a client that is not connected yet.

        The record of a connection is in its server's ledger. Bytes that pass through `fileno()` or
        `to_socket()` are not counted, and neither are those of a forked child, where the record
        stays as it was at the fork.
        """
    @property
    def id(self) -> int | None:
        """The number of its record; None for a client that is not connected yet.

        Connections are numbered per server, clients per process, from 1.
        """
    @property
    def draining(self) -> bool:
        """Whether the server is stopping. Always False for a client.

        While it is stopping, reads return the data that has arrived, then b"".
        """
    # As in socket.socket; some programs use them.
    @property
    def _io_refs(self) -> int:
        """How many files are open. Some programs count theirs here, as with `socket.socket`."""
    @_io_refs.setter
    def _io_refs(self, value: int) -> None:
        """How many files are open. Some programs count theirs here, as with `socket.socket`."""
    @property
    def _closed(self) -> bool:
        """Whether the stream was closed, as `socket.socket` has it under this name."""
    def _real_close(self) -> None:
        """Close the stream at once, whatever files are open."""
    # For the Python half only.
    @property
    def _inherited(self) -> bool:
        """Whether a process made the stream that has forked this one since. For `__del__`."""
    def _open_file(self) -> None:
        """Count one more open file. For `makefile`."""
    def _close_unawaited(self) -> None:
        """Close the stream without waiting for the peer, whatever SO_LINGER says. For `__del__`."""
    def _decref_socketios(self) -> None:
        """Count one open file less. Called by `socket.SocketIO` when it is closed."""
    def _duplicate(self) -> int:
        """Return a second descriptor of the same connection, by fcntl(2). For `to_socket`."""
    def _send_file(self, file: int, offset: int, count: int | None) -> int:
        """Send `count` bytes of a regular file, and return the number of bytes sent.

        `file` is a file descriptor, and `offset` the position of the first byte; None for `count`
        sends up to the end of the file. Errors have the attribute `sent`. For the Python half of
        `sendfile`.
        """

@disjoint_base
class Client(Stream):
    """The compiled half of rsock.Client."""
    def __init__(
        self,
        host: str | tuple[str, int | str] | None = None,
        port: int | str | None = None,
        *,
        timeout: float | None = None,
        transport: str = "tcp",
        path: SocketPath | None = None,
        options: SocketOptions | None = None,
        source_address: tuple[str, int | str] | None = None,
        spin: float = 200e-6,
        retry: float | None = None,
        faults: Iterable[Fault] | None = None,
        seed: int | None = None,
        tls: bool | TLS | None = None,
        proxy_protocol: Literal["v1", "v2"] | ProxyHeader | None = None,
    ) -> None: ...
    @property
    def seed(self) -> int | None:
        """The seed of the random numbers of its faults; None without faults.

        With the same seed, faults and traffic, a client has the same faults again. If none was
        given, it was drawn.
        """
    def _add_fault(self, fault: Fault, level: int = 1) -> int:
        """Add a fault and return its number, once the connection has it. For the Python half."""
    def _remove_faults(self, numbers: list[int]) -> int:
        """Remove faults by their numbers, and return how many were there. For the Python half.

        Returns once the connection has none of them.
        """
    def _list_faults(self) -> list[tuple[int, Fault, int, int]]:
        """Return number, object, connections and events of each fault. For the Python half."""
    @property
    def server(self) -> None:
        """Always None; a Connection has its server here."""

@disjoint_base
class Connection(Stream):
    """The compiled half of rsock.Connection."""
    def __new__(cls, handed: Handed) -> Self: ...
    @property
    def record(self) -> Record:
        """The Record in the server's ledger.

        It does not count bytes that pass through `fileno()` or `to_socket()`.
        """
    @property
    def id(self) -> int:
        """The number of its record in its server, from 1."""
    @property
    def server(self) -> Server | None:
        """The server that accepted it; None once that object has been deleted."""
    # For handler threads only.
    def _returned(self) -> None:
        """Close the connection after its handler returned. For the pool."""
    def _raised(self, error: BaseException, keep: Callable[[str], object]) -> str | None:
        """Close the connection after its handler raised `error`. For the pool.

        Returns whose error it is: "handler", which must be reported; or "stop" or "peer", for a
        read that a stop of the server or the peer ended in the middle of a message. None for any
        other error that the peer or a stop caused. Unless it is None, `keep` is called with it
        before the connection ends, so that the error is there when its effect can be seen.
        """

@final
class Handed:
    """An accepted stream, the argument of the constructor of Connection. Can be used once."""

@final
class Datagram:
    """A received datagram that a handler serves.

    For the pool: the handler's function receives only the data and the address.
    """
    @property
    def data(self) -> bytes:
        """The received bytes. Raises TypeError once the handler has returned."""
    @property
    def address(self) -> Sender:
        """The sender's address, a (host, port) pair, with the address that the datagram was sent
        to.

        Raises TypeError once the handler has returned.
        """
    @property
    def record(self) -> Record:
        """The Record of the sender."""
    @property
    def id(self) -> int:
        """The number of that record in its server, from 1."""
    @property
    def server(self) -> Server | None:
        """The server that received it; None once that object has been deleted."""
    def _reply(self, answer: object) -> None:
        """Send `answer`, the bytes that the handler returned. Raises TypeError for another type."""
    def _returned(self) -> None:
        """Release the datagram after its handler returned. For the pool."""
    def _raised(self, error: BaseException, keep: Callable[[str], object]) -> str | None:
        """Release the datagram after its handler raised `error`, which is recorded. For the pool.

        Returns whose error it is: "handler". `keep` is called with it before.
        """

@disjoint_base
class FaultBlock:
    """The compiled half of what `Server.fault` and `Client.fault` return."""
    def __new__(cls, owner: Server | Client, fault: Fault) -> Self: ...
    def __enter__(self) -> Fault:
        """Add the fault, and return it once every connection has it."""
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the fault, and return once no connection has it.

        Has no effect if the server has stopped, or if the fault was removed.
        """

@final
class Pool:
    """The queue from which handler threads take their connections. Keeps no server alive."""
    def next(self) -> Connection | Datagram | None:
        """Return the next connection or datagram for this thread; None if the thread must end.

        Blocks with the interpreter released.
        """
    def wants_thread(self) -> bool:
        """Return whether the caller must start another thread.

        The new thread must call `enter`, then `next` until that returns None, and then `left`. If
        the thread cannot be started, the caller must call `missing`.
        """
    def enter(self, name: str) -> None:
        """Take the calling thread into the pool, until the system has ended it.

        `name` is what debuggers and /proc show.
        """
    def left(self) -> None:
        """Report that the calling thread takes no further connections."""
    def missing(self) -> None:
        """Report that a thread which `wants_thread` asked for could not be started."""
    def should_warn(self) -> bool:
        """Return whether connections had to wait for a thread. Returns True only once."""

@final
class Timeline:
    """The moments of a recording in the order of time, read from its file without keeping them. For
    the Python half.

    Raises OSError if the file cannot be read twice, as a pipe, and ValueError as `_read_recording`
    does.
    """
    def __new__(cls, path: SocketPath) -> Self: ...
    def header(self) -> Recorded:
        """What `_read_recording` returns, without connections."""
    def __iter__(self) -> Self: ...
    def __next__(self) -> RecordedMoment: ...

def _parse_recording(data: bytes) -> Recorded:
    """Return what a recording in memory contains. For the Python half."""

def _read_recording(path: SocketPath) -> Recorded:
    """Return what a recording contains, as plain values. For the Python half."""

def process_limits() -> ProcessLimits:
    """Return the current limits of this process, a ProcessLimits. Does not block.

    They concern descriptors, client ports and the accept queue, and are read with getrlimit(2) and
    from proc(5). Raises OSError if the system does not supply them.
    """

def raise_fd_limit() -> int:
    """Raise the soft limit of open descriptors to the hard limit, and return it. Does not block.

    Calls setrlimit(2). Raises OSError if the system refuses.
    """

def _end_thread(ident: int) -> None:
    """Raise SystemExit in another thread, as soon as that thread runs Python code again.

    `ident` is its `threading.get_ident()`. Has no effect if the thread has ended. For handlers that
    the end of the interpreter does not wait for. Does not block.
    """

def stop_all(drain: float | None = None) -> list[StopReport]:
    """Stop all servers of this process at the same time, and return their StopReports.

    `drain` is as for `Server.stop`: each server delivers pending data for up to `drain` seconds;
    None takes the value of each server. The reports are in the order in which the servers were
    created, oldest first. Blocks with the interpreter released.
    """

def drive(
    address: Destination,
    *,
    connections: int = 1,
    messages: int = 1_000,
    size: int = 64,
    message: Buffer | str | None = None,
    answer: int | None = None,
    rate: float | None = None,
    timeout: float = 10.0,
) -> DriveResult:
    """Send messages on several connections at once, and return a DriveResult with the times of the
    answers.

    `address` is a (host, port) pair, or the path of a Unix socket, of a server that echoes.
    `messages` are sent on `connections` connections together; each connection has one message
    under way. `size` is the length of a message in bytes, or `message` is the message itself. The
    answer is the message, byte by byte; or, with `answer`, any bytes of that length.

    With `rate`, that number of messages is begun each second, and the time of an answer counts from
    when its message was due, also when no connection was free for it. Otherwise a connection sends
    its next message as soon as it has the answer.

    A connect or an answer that takes longer than `timeout` seconds, an error or a wrong answer ends
    its connection: `errors` counts the causes, and the others send the messages that are left.

    A thread in Rust does the work. Blocks, with the interpreter released, until all messages are
    answered or no connection is left; Ctrl-C ends it. Raises TypeError or ValueError for a wrong
    argument, socket.gaierror for an unknown host, and OSError if the system has no descriptor.
    """

"""Real sockets for Python, run by Rust threads.

`with Server() as server:` listens and echoes; `server.client()` or `Client(host, port)` talks to
it; `Server(service=function)` serves each connection with a function of yours; `server.ledger` has
the account of every connection.

PYTEST_DONT_REWRITE
"""

# This file owns the list of public names and nothing else; whatever is not in `__all__` may change
# without notice. The last word of the docstring is for pytest, which loads the plugin in here: it
# would else go through all of rsock for assertions, and warn where rsock was imported before.

# A module of its own: its names are few, and of one RFC.
from . import rfc147 as rfc147
from ._client import Client
from ._connection import Connection
from ._exceptions import IncompleteRead, RsockError, StateError
from ._rsock import (
    Accept,
    ByConnection,
    Chargen,
    Daytime,
    Discard,
    Echo,
    Forward,
    Greeting,
    Handler,
    Ledger,
    LineEcho,
    Quote,
    Record,
    Service,
    Time,
    __version__,
    process_limits,
    raise_fd_limit,
    stop_all,
)
from ._server import Server, run_server, servers
from ._types import (
    Endpoint,
    FiveTuple,
    Leg,
    Limits,
    PeerCredentials,
    ProcessLimits,
    SocketOptions,
    StopReport,
    TcpInfo,
    Totals,
    Trace,
    TraceEvent,
)

__all__ = [
    "Accept",
    "ByConnection",
    "Chargen",
    "Client",
    "Connection",
    "Daytime",
    "Discard",
    "Echo",
    "Endpoint",
    "FiveTuple",
    "Forward",
    "Greeting",
    "Handler",
    "IncompleteRead",
    "Ledger",
    "Leg",
    "Limits",
    "LineEcho",
    "PeerCredentials",
    "ProcessLimits",
    "Quote",
    "Record",
    "RsockError",
    "Server",
    "Service",
    "SocketOptions",
    "StateError",
    "StopReport",
    "TcpInfo",
    "Time",
    "Totals",
    "Trace",
    "TraceEvent",
    "__version__",
    "process_limits",
    "raise_fd_limit",
    "run_server",
    "servers",
    "stop_all",
]

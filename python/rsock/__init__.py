"""Real sockets for Python, run by Rust threads.

`with Server() as server:` listens and echoes; `server.client()` or `Client(host, port)` talks to
it; `Server(service=function)` serves each connection with your own function; `server.ledger` has
the account of every connection.

PYTEST_DONT_REWRITE
"""

# This file owns the list of public names and nothing else; every other name may change without
# notice. The last word of the docstring is for pytest, which loads the plugin of this package:
# otherwise it would rewrite the assertions of all of rsock, and warn if rsock was imported before.
#
# The layers of the package, which `tests/test_layers.py` checks. A module imports only from the
# lines below its own.
#
#     __main__
#     _cli
#     pytest_plugin
#     _pytest            used by the package _rsock_pytest
#     __init__
#     _connection
#     _server, _wait_for
#     metrics            the public module of metrics, imported when it is asked for
#     _counts
#     _client, _notify, _signals, _started
#     _fault_view
#     _in_thread, _replay
#     _recording, _script
#     _packets
#     _stream
#     _handlers
#     _handler_check, _handler_errors, _progress, _certificates, _ledger, _awaiting
#     _display
#     _recorded
#     _rsock             the compiled module; its stub imports only _types and rfc147
#     _pcapng
#     _types
#     _proxy
#     _drawing, _endpoint, _settings, _threads
#     faults             the public module of faults, imported when it is asked for
#     _fault
#     _fault_text
#     _checks, _exceptions, _keywords, _printable, _shown, _systemd, rfc147

import typing as _typing

# A public module, because its few names belong to one RFC.
from . import rfc147 as rfc147
from ._client import Client
from ._connection import Connection
from ._endpoint import Endpoint
from ._exceptions import IncompleteRead, RsockError, StateError
from ._proxy import ProxyHeader, ProxyTLS
from ._recorded import RecordedConnection, RecordedEvent, Torn
from ._recording import Recording
from ._replay import Replay
from ._rsock import (
    TLS,
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
    ReplayClient,
    Service,
    Time,
    __version__,
    drive,
    process_limits,
    raise_fd_limit,
    stop_all,
)
from ._script import Captured, Script, ScriptMismatch
from ._server import Server, run_server, servers
from ._settings import Limits, SocketOptions, Trace
from ._types import (
    Certificate,
    Drawing,
    DriveResult,
    FaultCount,
    FaultEvent,
    FiveTuple,
    Latencies,
    Leg,
    PeerCredentials,
    ProcessLimits,
    ScriptResult,
    Sender,
    StopReport,
    TcpInfo,
    TlsInfo,
    Totals,
    TraceEvent,
)
from ._wait_for import wait_for

if _typing.TYPE_CHECKING:
    from . import faults as faults
    from . import metrics as metrics
else:
    # A program without faults or metrics does not load them.
    def __getattr__(name):
        if name in ("faults", "metrics"):
            import importlib

            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), "faults", "metrics"})


__all__ = [
    "TLS",
    "Accept",
    "ByConnection",
    "Captured",
    "Certificate",
    "Chargen",
    "Client",
    "Connection",
    "Daytime",
    "Discard",
    "Drawing",
    "DriveResult",
    "Echo",
    "Endpoint",
    "FaultCount",
    "FaultEvent",
    "FiveTuple",
    "Forward",
    "Greeting",
    "Handler",
    "IncompleteRead",
    "Latencies",
    "Ledger",
    "Leg",
    "Limits",
    "LineEcho",
    "PeerCredentials",
    "ProcessLimits",
    "ProxyHeader",
    "ProxyTLS",
    "Quote",
    "Record",
    "RecordedConnection",
    "RecordedEvent",
    "Recording",
    "Replay",
    "ReplayClient",
    "RsockError",
    "Script",
    "ScriptMismatch",
    "ScriptResult",
    "Sender",
    "Server",
    "Service",
    "SocketOptions",
    "StateError",
    "StopReport",
    "TcpInfo",
    "Time",
    "TlsInfo",
    "Torn",
    "Totals",
    "Trace",
    "TraceEvent",
    "__version__",
    "drive",
    "process_limits",
    "raise_fd_limit",
    "run_server",
    "servers",
    "stop_all",
    "wait_for",
]

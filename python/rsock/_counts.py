"""The counters of the servers of this process, as numbers with names.

It reads ledgers, also those of servers that have stopped, so that a sum never falls. It must never
keep a server alive, nor a ledger once its numbers are final; nor know who reads the numbers.
"""

import contextlib
import os
import re
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from . import _started
from ._rsock import Ledger, Server

__all__ = ["FAMILIES", "Family", "Key", "Numbers", "merged", "numbers", "track"]

# The name of a family and the values of its labels; of a histogram also the bound of a bucket,
# "+Inf" for those above all, or "sum".
Key = tuple[str, ...]
Numbers = dict[Key, float]


class Family(NamedTuple):
    """Numbers of one name. `labels` do not have the bounds of a histogram."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ("server",)


FAMILIES: Final[dict[str, Family]] = {
    "rsock_connections_accepted": Family("counter", "Connections that were accepted."),
    "rsock_connections_open": Family("gauge", "Accepted connections that are open."),
    "rsock_connections_closed": Family(
        "counter", "Accepted connections that have ended, by the cause.", ("server", "closed_by")
    ),
    "rsock_connections_refused": Family(
        "counter", "Connections that were refused, by the rule.", ("server", "kind")
    ),
    "rsock_tls_handshakes": Family(
        "counter", "TLS handshakes that were completed, by the version.", ("server", "version")
    ),
    "rsock_tls_handshakes_resumed": Family(
        "counter", "Completed TLS handshakes that continued an earlier session."
    ),
    "rsock_tls_handshakes_failed": Family(
        "counter", "Connections that ended during the TLS handshake."
    ),
    "rsock_target_tls_handshakes": Family(
        "counter",
        "TLS handshakes with the target of a Forward that were completed, by the version.",
        ("server", "version"),
    ),
    "rsock_target_tls_handshakes_resumed": Family(
        "counter", "Completed TLS handshakes with the target that continued an earlier session."
    ),
    "rsock_target_tls_handshakes_failed": Family(
        "counter", "Connections that ended during the TLS handshake with the target."
    ),
    "rsock_tls_certificate_expiry_timestamp_seconds": Family(
        "gauge", "When the first certificate of the server expires, in seconds since 1970."
    ),
    "rsock_accept_queue_connections": Family(
        "gauge", "Connections that wait in the kernel to be accepted."
    ),
    "rsock_accept_errors": Family("counter", "Failed calls of accept."),
    "rsock_received_bytes": Family("counter", "Payload that was received."),
    "rsock_sent_bytes": Family("counter", "Payload that was sent."),
    "rsock_received_messages": Family("counter", "Receives that had data, or datagrams."),
    "rsock_sent_messages": Family("counter", "Sends that had data, or datagrams."),
    "rsock_datagrams_suspect": Family("counter", "Datagrams not answered for their addresses."),
    "rsock_datagrams_dropped": Family("counter", "Datagrams that were not sent."),
    "rsock_datagrams_truncated": Family("counter", "Datagrams received that were cut."),
    "rsock_handler_threads": Family("gauge", "Threads for handlers."),
    "rsock_handlers_running": Family("gauge", "Handlers that serve a connection."),
    "rsock_handler_waits": Family("counter", "Connections that waited for a handler."),
    "rsock_fault_events": Family(
        "counter", "What faults on purpose have done, by the fault.", ("server", "kind")
    ),
    "rsock_server_ready": Family("gauge", "Servers that clients should be sent to."),
    "rsock_connection_rtt_seconds": Family(
        "histogram", "Smoothed round-trip time at the end of a connection."
    ),
    "rsock_connection_retransmits": Family(
        "histogram", "Segments sent again, at the end of a connection."
    ),
}

_HISTOGRAMS: Final = ("rsock_connection_rtt_seconds", "rsock_connection_retransmits")
# What processes share, and is not added up: the queue of a listener, and a certificate.
_SHARED: Final = frozenset(
    {"rsock_accept_queue_connections", "rsock_tls_certificate_expiry_timestamp_seconds"}
)
# The label of servers whose name was not given, and of those after the first names.
_UNNAMED: Final = "unnamed"
_OTHER: Final = "other"
_MOST_NAMES: Final = 100
_GENERATED: Final = re.compile(r"server-\d+")
# With more servers than this that were started since the numbers were last read, a start looks
# which of them have ended.
_UNREAD: Final = 32


@dataclass(slots=True, eq=False)
class _Entry:
    """A server that was started, and what was read from it."""

    server: "weakref.ref[Server]"
    ledger: Ledger
    label: str
    # By the numbers of its faults, also of those that were removed: kind and events.
    faults: dict[int, tuple[str, int]] = field(default_factory=dict)
    # The last reading after the server was freed without a stop.
    last: Numbers | None = None


class _Tracker:
    """The servers of this process, from when they were started on."""

    def __init__(self) -> None:
        # `append` is one step of the interpreter: a start takes no lock, because a signal handler
        # may start a server at any time.
        self._entries: list[_Entry] = []
        self._past: Numbers = {}
        self._names: set[str] = set()
        self._lock = threading.Lock()
        for server in _started.entered():
            self.enter(server)

    def enter(self, server: Server) -> None:
        if any(entry.server() is server for entry in self._entries):
            return
        entry = _Entry(weakref.ref(server), server.ledger, self._label(server.name))
        self._entries.append(entry)
        if len(self._entries) > _UNREAD and self._lock.acquire(blocking=False):
            try:
                self._sweep()
            finally:
                self._lock.release()

    def read(self) -> Numbers:
        with self._lock:
            return self._sweep()

    def _sweep(self) -> Numbers:
        """The numbers of now. Those of servers that have ended are kept, and nothing else."""
        alive: list[Numbers] = []
        for entry in list(self._entries):
            found = _read(entry)
            if _is_over(entry, found):
                self._entries.remove(entry)
                lasting = {k: v for k, v in found.items() if FAMILIES[k[0]].kind != "gauge"}
                self._past = merged([self._past, lasting])
            else:
                alive.append(found)
        return merged([self._past, *alive])

    def _label(self, name: str) -> str:
        if _GENERATED.fullmatch(name):
            return _UNNAMED
        if name not in self._names and len(self._names) >= _MOST_NAMES:
            return _OTHER
        self._names.add(name)
        return name


def _read(entry: _Entry) -> Numbers:
    totals = entry.ledger.totals
    found: Numbers = {}

    def add(name: str, value: float, *labels: str) -> None:
        key = (name, entry.label, *labels)
        found[key] = found.get(key, 0) + value

    add("rsock_connections_accepted", totals.accepted)
    add("rsock_connections_open", totals.open)
    for cause, number in totals.closed_by.items():
        add("rsock_connections_closed", number, cause)
    for kind, number in totals.refused_by.items():
        add("rsock_connections_refused", number, kind)
    for version, number in totals.tls_handshakes.items():
        add("rsock_tls_handshakes", number, version)
    add("rsock_tls_handshakes_resumed", totals.tls_resumed)
    add("rsock_tls_handshakes_failed", totals.tls_failed)
    for version, number in totals.target_tls_handshakes.items():
        add("rsock_target_tls_handshakes", number, version)
    add("rsock_target_tls_handshakes_resumed", totals.target_tls_resumed)
    add("rsock_target_tls_handshakes_failed", totals.target_tls_failed)
    add("rsock_accept_errors", totals.accept_errors)
    add("rsock_received_bytes", totals.bytes_in)
    add("rsock_sent_bytes", totals.bytes_out)
    add("rsock_received_messages", totals.messages_in)
    add("rsock_sent_messages", totals.messages_out)
    add("rsock_datagrams_suspect", totals.suspects)
    add("rsock_datagrams_dropped", totals.dropped)
    add("rsock_datagrams_truncated", totals.truncated)
    add("rsock_handler_waits", totals.waited)
    for name, (buckets, above, total) in zip(_HISTOGRAMS, entry.ledger._paths(), strict=True):
        for bound, number in buckets:
            add(name, number, f"{bound:g}")
        add(name, above, "+Inf")
        add(name, total, "sum")
    server: Any = entry.server()
    if server is not None:
        _read_server(server, entry, add)
    for kind, events in entry.faults.values():
        add("rsock_fault_events", events, kind)
    return found


def _read_server(server: Any, entry: _Entry, add: Any) -> None:
    add("rsock_accept_queue_connections", server.waiting)
    add("rsock_server_ready", int(server.ready))
    if server.tls is not None and (expiry := server.tls._expiry) is not None:
        add("rsock_tls_certificate_expiry_timestamp_seconds", expiry)
    handlers = server._handlers
    if handlers is not None:
        add("rsock_handler_threads", handlers.thread_count)
        add("rsock_handlers_running", len(handlers.connections))
    for number, fault, _, events in server._list_faults():
        entry.faults[number] = (type(fault)._name, events)


def _is_over(entry: _Entry, found: Numbers) -> bool:
    """Whether the numbers of a server do not change any more."""
    server = entry.server()
    if server is not None:
        return server.state == "stopped"
    # It was freed without a stop, and its threads end on their own.
    still = found == entry.last and found["rsock_connections_open", entry.label] == 0
    entry.last = found
    return still


def merged(several: Iterable[Numbers]) -> Numbers:
    """Return the sums of several readings; of what they share, the largest value."""
    result: Numbers = {}
    for each in several:
        for key, value in each.items():
            before = result.get(key, 0)
            result[key] = max(before, value) if key[0] in _SHARED else before + value
    return result


def track() -> None:
    """Begin to count: servers that are started from now on, and those that exist."""
    global _tracker
    if _tracker is None:
        _tracker = _Tracker()
        _started.on_enter = _tracker.enter


def numbers() -> Numbers:
    """Return the numbers of all servers since `track`. Blocks for no longer than another reader."""
    return {} if _tracker is None else _tracker.read()


def _forget_parent() -> None:
    # The child has none of the servers, and the lock may be held for ever.
    global _tracker
    if _tracker is not None:
        _tracker = None
        with contextlib.suppress(Exception):
            track()


_tracker: _Tracker | None = None
os.register_at_fork(after_in_child=_forget_parent)

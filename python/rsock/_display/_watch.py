"""`server.watch()`: a live view of a server in a notebook.

The view in the browser asks, and this file answers; nothing is sent unasked, and nothing runs
between two questions. Without the package anywidget, and in a page that cannot run the view, the
table of the server is shown instead.
"""

import importlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .. import _rsock
from ._tables import cell
from ._units import seconds, size
from ._views import end, peer, server_address, server_html, server_repr

__all__ = ["View", "answer", "snapshot", "watch"]

# Connections of the view.
_MAX_ROWS: Final = 20
# When a fault acts that ends a connection: at once, because each is older.
_AT_ONCE: Final = 1e-6
# How long the end of a connection is waited for, in seconds.
_PATIENCE: Final = 2.0

_Message = dict[str, Any]


def watch(server: _rsock.Server) -> Any:
    """Return the view of a server, or its table where anywidget is not installed."""
    try:
        anywidget: Any = importlib.import_module("anywidget")
    except ImportError:
        return View(server, "install anywidget for a live view: pip install anywidget")
    return _widget(anywidget, server)


class View:
    """The table of a server, with a note why it is not live."""

    def __init__(self, server: _rsock.Server, note: str) -> None:
        self._server = server
        self._note = note

    def __repr__(self) -> str:
        return f"{server_repr(self._server)}\n{self._note}"

    def _repr_html_(self) -> str:
        return f"{server_html(self._server)}<small>{self._note}</small>"


def _widget(anywidget: Any, server: _rsock.Server) -> Any:
    """Make the widget; its class is made here, because its base may not be installed."""

    class ServerView(anywidget.AnyWidget):  # type: ignore[misc]
        """A live view of one server."""

        _esm = Path(__file__).with_name("_watch.js").read_text(encoding="utf-8")
        _css = Path(__file__).with_name("_watch.css").read_text(encoding="utf-8")

        def __init__(self) -> None:
            super().__init__()
            self.on_msg(self._asked)

        def _asked(self, _widget: object, message: object, _buffers: object) -> None:
            self.send(answer(server, message))

        def _repr_mimebundle_(self, **kwargs: Any) -> Any:
            bundle = super()._repr_mimebundle_(**kwargs)
            # A page that cannot run the view shows one of these instead.
            static = {"text/plain": server_repr(server), "text/html": server_html(server)}
            if isinstance(bundle, tuple):
                data, *rest = bundle
                return ({**data, **static}, *rest)
            return {**(bundle or {}), **static}

        def __repr__(self) -> str:
            return server_repr(server)

    return ServerView()


def answer(server: Any, message: object) -> _Message:
    """Do what a message of the view asks for, and return the state of the server."""
    asked = message if isinstance(message, dict) else {}
    name = str(asked.get("act", ""))
    act = _ACTS.get(name)
    error = ""
    if act is not None:
        try:
            act(server, asked)
        except Exception as wrong:
            # Shown in the view: an error of a button has no cell to be raised in.
            error = cell(f"{type(wrong).__name__}: {wrong}", 200)
    try:
        return {"act": name if act else "ask", "error": error, **snapshot(server)}
    except Exception as wrong:
        return {"act": "ask", "error": cell(f"{type(wrong).__name__}: {wrong}", 200)}


def _add_fault(server: Any, asked: _Message) -> None:
    # Programs without faults do not load them.
    faults = importlib.import_module("rsock.faults")
    server.faults.add(faults.parse(str(asked["fault"])))


def _remove_fault(server: Any, asked: _Message) -> None:
    server._remove_faults([int(asked["number"])])


def _close(server: Any, asked: _Message) -> None:
    """Close one connection: a fault ends it, whatever its service is."""
    number = int(asked["id"])
    faults = importlib.import_module("rsock.faults")
    with server.fault(faults.CloseAfter(after_seconds=_AT_ONCE, connections={number})):
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            if all(record.id != number for record in server.ledger.open):
                return
            time.sleep(0.005)


def _drain(server: Any, _asked: _Message) -> None:
    server._begin_stop("stop")


_ACTS: Final[dict[str, Callable[[Any, _Message], None]]] = {
    "fault": _add_fault,
    "remove": _remove_fault,
    "close": _close,
    "drain": _drain,
}


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def snapshot(server: _rsock.Server) -> _Message:
    """The state of a server as plain values: numbers for rates, and texts for display."""
    ledger = server.ledger
    totals = ledger.totals
    opened = ledger.open
    rows = []
    rtts = []
    for record in reversed(opened[-_MAX_ROWS:]):
        info = record.tcp_info
        if info is not None:
            rtts.append(info.rtt)
        rows.append(
            {
                "id": record.id,
                "peer": cell(peer(record)),
                "open": seconds(record.seconds),
                "in": size(record.bytes_in),
                "out": size(record.bytes_out),
                "rtt": "" if info is None else seconds(info.rtt),
            }
        )
    return {
        "address": server_address(server),
        "name": cell(server.name),
        "state": server.state,
        "service": cell(repr(server.service)),
        "time": time.monotonic(),
        "accepted": totals.accepted,
        "open": totals.open,
        "calls": "reads and writes" if server.transport in ("tcp", "unix") else "datagrams",
        "messages": totals.messages_in + totals.messages_out,
        "octets": totals.bytes_in + totals.bytes_out,
        "rtt": seconds(statistics.median(rtts)) if rtts else "",
        "rows": rows,
        "hidden": len(opened) - len(rows),
        "ended": [cell(f"{record.id}: {end(record)}") for record in ledger.closed[-3:]],
        "faults": [
            {
                "number": number,
                "text": cell(str(fault)),
                "counts": f"{_number(connections, 'connection')}, {_number(events, 'event')}",
            }
            for number, fault, connections, events in server._list_faults()
        ],
    }

"""What rsock's objects look like: one line or a small table, as plain text and as HTML.

This file owns the list of views, which the classes' `__repr__` and `_repr_html_` call; the tables
of plain values, in `_values.py`, are loaded when a notebook asks for one. Nothing in this package
may print, change what it shows, or raise: debuggers, logs and finalizers ask for displays of
objects in any state.
"""

from ._faults import faults_report
from ._views import (
    ledger_html,
    ledger_repr,
    record_html,
    record_repr,
    server_address,
    server_html,
    server_repr,
    stream_html,
    stream_repr,
)

__all__ = [
    "faults_report",
    "ledger_html",
    "ledger_repr",
    "record_html",
    "record_repr",
    "server_address",
    "server_html",
    "server_repr",
    "stream_html",
    "stream_repr",
]

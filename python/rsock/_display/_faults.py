"""What faults do, as text for the views.

Everything here reads an object and returns text that is escaped and of bounded length. It must
never change what it shows, nor know one kind of fault from another.
"""

from collections import Counter
from typing import Final

from .._rsock import Record, Server
from .._types import FaultEvent
from ._tables import cell
from ._units import count, seconds

__all__ = ["done_by_faults", "fault_count", "fault_rows", "faults_in_force", "faults_report"]

# Faults on the line of a server.
_MAX_FAULTS: Final = 2
# The width of a fault that has its counts beside it.
_MAX_TEXT: Final = 32
# Different things that faults did to one connection.
_MAX_DONE: Final = 8
# Connections and events of a report.
_MAX_RECORDS: Final = 5
_MAX_EVENTS: Final = 10


def _counted(server: Server) -> list[tuple[str, str]]:
    """The faults in force, each with what it has done so far."""
    return [
        (
            cell(str(fault), _MAX_TEXT),
            f"{count(connections, 'connection')}, {count(events, 'event')}",
        )
        for _, fault, connections, events in server._list_faults()
    ]


def faults_in_force(server: Server) -> str:
    """Return the faults for the line of a server; "" if it has none."""
    faults = _counted(server)
    shown = [f"{fault} ({counts})" for fault, counts in faults[:_MAX_FAULTS]]
    if len(faults) > _MAX_FAULTS:
        shown.append(f"{len(faults) - _MAX_FAULTS:,} more")
    return "; ".join(shown)


def fault_rows(server: Server) -> list[tuple[str, str]]:
    """Return a row of a table for each fault of a server."""
    rows = [("fault", f"{fault}: {counts}") for fault, counts in _counted(server)]
    return _bounded(rows)


def fault_count(record: Record) -> str:
    """Return how many things faults did to a connection; "" for none."""
    number = record._fault_count
    return count(number, "fault event") if number else ""


def done_by_faults(record: Record) -> list[tuple[str, str]]:
    """Return a row of a table for each thing that a fault did to a connection, with its count."""
    events = record.faults
    done = Counter((event.fault, event.action) for event in events)
    rows = [
        ("fault", f"{cell(fault, _MAX_TEXT)}: {action}" + (f" {many:,} times" * (many > 1)))
        for (fault, action), many in done.items()
    ]
    rows = _bounded(rows)
    if events.more:
        rows.append(("faults", f"{count(events.more, 'later event')} not kept"))
    return rows


def _bounded(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    hidden = len(rows) - _MAX_DONE
    return rows if hidden <= 0 else [*rows[:_MAX_DONE], ("fault", f"… and {hidden:,} more")]


def faults_report(server: Server) -> str:
    """Return what the faults of a server did, for the report of a test; "" without faults."""
    faults = _counted(server)
    records = [record for record in server.ledger if record._fault_count]
    if not faults and not records:
        return ""
    lines = [f"{cell(server.name)}: seed={server.seed} has the same faults again"]
    lines += [f"  {fault}: {counts}" for fault, counts in faults]
    for record in records[-_MAX_RECORDS:]:
        lines.append(f"connection {record.id} from {cell(str(record.remote))}:")
        events = record.faults
        lines += [f"  {_line(event)}" for event in events[:_MAX_EVENTS]]
        hidden = record._fault_count - len(events[:_MAX_EVENTS])
        lines += [f"  … and {count(hidden, 'more event')}"] * (hidden > 0)
    return "\n".join(lines)


def _line(event: FaultEvent) -> str:
    """`1.2 ms: reset at byte 3, down, by reset:after=3`."""
    what = f"{event.action} at {event.offset:,}, {event.direction}, by {cell(event.fault)}"
    return f"{seconds(event.seconds)}: {what}"

"""The steps of a ladder: what happened on a connection, in order.

A ladder draws steps and knows no record, so another source of them, such as captured packets, needs
no other drawing. Here they are made of a record: what its trace has is recorded, and the rest is
inferred from the rules of TCP (RFC 9293) and marked as such. Nothing here may draw.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..._rsock import Record
from ..._types import TraceEvent
from .._faults import fault_count
from .._units import count, seconds, size
from .._views import calls, peer, told_end, traffic_line, transport

__all__ = ["Ladder", "Step", "ladder_of"]


@dataclass(frozen=True)
class Step:
    """One line of a ladder.

    kind: "data" (bytes), "control" (a segment without data, or its counterpart), "reset", "sum"
        (everything that went one way), "here" (something at our end), "fault" or "gap".
    way: "in" (from the peer), "out" (to it), or "" where nothing crosses.
    label: what crosses, or the text of a gap or of a fault.
    known: whether it was recorded; otherwise it is inferred.
    seconds: when it happened at our end, since the connection was opened; None if that is unknown.
    call: what our end did.
    peer_call: what the peer must have done.
    data: the first bytes.
    """

    kind: Literal["data", "control", "reset", "sum", "here", "fault", "gap"]
    way: Literal["in", "out", ""]
    label: str
    known: bool = True
    seconds: float | None = None
    call: str = ""
    peer_call: str = ""
    data: bytes = b""


@dataclass(frozen=True)
class Ladder:
    """What a ladder shows: two ends and the steps between them."""

    title: str
    summary: str
    ours: str
    theirs: str
    # Our end is the one that accepted, and is drawn on the right.
    accepted: bool
    steps: Sequence[Step]
    notes: Sequence[str]


# Limits that reset the connection; the others close it.
_RESETTING = frozenset({"write", "half_close", "per_host"})


def ladder_of(record: Record, most: int) -> Ladder:
    """The ladder of a record, with at most `most` events of its trace."""
    state = f"closed by {told_end(record)} after" if record.closed_by else "open for"
    summary = f"{transport(record)}, {state} {seconds(record.seconds)}; {traffic_line(record)}"
    if record._fault_count:
        summary += f"; {fault_count(record)}"
    if record.far is not None:
        far = record.far
        summary += (
            f"; forwarded to {far.remote}: {size(far.bytes_out)} there, {size(far.bytes_in)} back"
        )
    accepted = record.role == "server"
    who = "connection" if accepted else "client"
    return Ladder(
        f"Ladder of {who} {record.id:,}",
        summary,
        str(record.local),
        peer(record),
        accepted,
        [*_opening(record), *_traffic(record, most), *_closing(record)],
        list(_notes(record)),
    )


def _notes(record: Record) -> Iterator[str]:
    if record.trace is None:
        yield (
            "This end keeps no trace: Server(trace=True) records each read and write with its time."
            if record.role == "server"
            else "A client keeps no trace; the record of its connection at the server may have one."
        )
        return
    if record.transport == "tcp" and (record.messages_in or record.messages_out):
        yield (
            "A solid arrow is a read or a write of this end, not a packet: TCP may have carried its"
            " bytes in several segments, or in one with others."
        )
    if record.tls is not None:
        yield "TLS encrypts the bytes: they are shown as they cross the network."
    bare = sum(event.size > 0 and not event.data and event.fault is None for event in record.trace)
    if bare:
        yield (
            f"Of {count(bare, 'event')} only the size was kept: Server(trace=Trace(bytes=…)) is how"
            f" much data a trace has."
        )


def _opening(record: Record) -> Iterator[Step]:
    """How a connection came to be."""
    accepted = record.role == "server"
    there: Literal["in", "out"] = "in" if accepted else "out"
    back: Literal["in", "out"] = "out" if accepted else "in"
    call = "" if accepted else "connect()"
    if record.transport == "tcp":
        peer_call = "connect()" if accepted else "listen()"
        yield Step("control", there, "SYN", False, call=call, peer_call=peer_call)
        yield Step("control", back, "SYN, ACK", False)
        yield Step("control", there, "ACK", False, peer_call="" if accepted else "accept()")
    elif record.transport == "unix":
        peer_call = "connect()" if accepted else ""
        yield Step("control", there, "connect", False, call=call, peer_call=peer_call)
    if not accepted:
        yield Step("here", "", "", seconds=0.0, call="connected")
    elif record.transport in ("tcp", "unix"):
        yield Step("here", "", "", seconds=0.0, call="accept()")


def _traffic(record: Record, most: int) -> Iterator[Step]:
    """What was received and sent."""
    events = record.trace
    if events is None:
        yield from _totals(record)
        return
    if events and events[0].number > 1:
        yield Step("gap", "", f"{count(events[0].number - 1, 'earlier event')} not kept")
    hidden = len(events) - max(most, 2)
    if hidden <= 0:
        yield from map(_event, events)
        return
    head = max(most, 2) // 2
    yield from map(_event, events[:head])
    between = events[head : head + hidden]
    yield Step("gap", "", f"{count(hidden, 'more event')}: {_summed(between)}")
    yield from map(_event, events[head + hidden :])


def _summed(events: Sequence[TraceEvent]) -> str:
    """What the events that are not drawn have carried."""
    parts = []
    for way in ("in", "out"):
        sizes = [event.size for event in events if event.direction == way]
        if sizes:
            parts.append(f"{len(sizes):,} {way} ({size(sum(sizes))})")
    faults = sum(event.fault is not None for event in events)
    return ", ".join(parts + [count(faults, "fault event")] * bool(faults))


def _event(event: TraceEvent) -> Step:
    if event.fault is not None:
        done = event.fault
        text = f"{done.action} ({done.direction}) by {done.fault}"
        return Step("fault", "", text, seconds=event.seconds)
    way: Literal["in", "out"] = "in" if event.direction == "in" else "out"
    call = "recv" if way == "in" else "send"
    return Step(
        "data",
        way,
        f"{event.size:,} B",
        seconds=event.seconds,
        call=f"{call} {event.size:,} B",
        data=event.data,
    )


def _totals(record: Record) -> Iterator[Step]:
    """Everything that went one way, where no trace has the single events."""
    sums: list[tuple[Literal["in", "out"], int, int]] = [
        ("in", record.messages_in, record.bytes_in),
        ("out", record.messages_out, record.bytes_out),
    ]
    # A client asks first.
    if record.role == "client":
        sums.reverse()
    for way, messages, octets in sums:
        if messages:
            yield Step(
                "sum", way, f"{calls(record.transport, way, messages)}, {size(octets)} in all"
            )


def _closing(record: Record) -> Iterator[Step]:
    """How a connection ended."""
    by = record.closed_by
    if by is None:
        yield Step("here", "", "", seconds=record.seconds, call="still open")
        return
    if record.transport in ("tcp", "unix"):
        yield from _ends(record, by)
    yield Step("here", "", "", seconds=record.seconds, call=f"closed: {by}")


def _ends(record: Record, by: str) -> Iterator[Step]:
    """The ends of both directions, which no trace has."""
    tcp = record.transport == "tcp"
    fin = "FIN" if tcp else "end of stream"
    reset = "RST" if tcp else "reset"
    if by == "peer":
        yield Step("control", "in", fin, False, peer_call="close()")
        yield Step("control", "out", fin, False)
    elif by == "reset":
        yield Step("reset", "in", reset, False)
    elif (by == "fault" and record.fault in ("reset", "abort")) or (
        by == "limit" and record.limit in _RESETTING
    ):
        yield Step("reset", "out", reset, False)
    elif by in ("service", "fault", "limit"):
        yield Step("control", "out", fin, False)
        yield Step("control", "in", fin, False, peer_call="close()")
    elif by in ("local", "stop", "error"):
        # The record does not say whether data was left unread, or whether the call was abort().
        yield Step("control", "out", f"{fin}, or {reset}", False)

"""The steps of a ladder: what happened on a connection, in order.

A ladder draws steps and knows no record, so another source of them, such as captured packets, needs
no other drawing. Here they are made of a record: what its trace has is recorded, and the rest is
inferred from the rules of TCP (RFC 9293) and marked as such. Nothing here may draw.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..._rsock import Record
from ..._types import TraceEvent
from .._faults import fault_count
from .._units import count, seconds, size
from .._views import calls, peer, told_end, traffic_line, transport
from ._ends import FIN_RECEIVED, HAD_ENDED, End, ends_of, is_cut, peers_of

__all__ = ["Ladder", "Step", "ladder_of"]


@dataclass(frozen=True)
class Step:
    """One line of a ladder.

    kind: "data" (bytes), "control" (a segment without data, or its counterpart), "reset", "sum"
        (everything that went one way), "here" (something at our end), "fault" or "gap".
    way: "in" (from the peer), "out" (to it), "both" (each of these, in an order that is not known),
        or "" where nothing crosses.
    leg: "near", between the peer and our end, or "far", between our end and a forwarder's target.
    label: what crosses, or the text of a gap or of a fault.
    known: whether it was recorded; otherwise it is inferred.
    seconds: when it happened at our end, since the connection was opened; None if that is unknown.
    by: of a step without a time, the time by which it had happened; it is drawn below what was
        before that time.
    call: what our end did.
    peer_call: what the peer must have done.
    data: the first bytes.
    """

    kind: Literal["data", "control", "reset", "sum", "here", "fault", "gap"]
    way: Literal["in", "out", "both", ""]
    label: str
    known: bool = True
    seconds: float | None = None
    call: str = ""
    peer_call: str = ""
    data: bytes = b""
    leg: Literal["near", "far"] = "near"
    by: float | None = None


@dataclass(frozen=True)
class Ladder:
    """What a ladder shows: two ends and the steps between them, or three with a target."""

    title: str
    summary: str
    ours: str
    theirs: str
    # Our end is the one that accepted, and is drawn on the right.
    accepted: bool
    steps: Sequence[Step]
    notes: Sequence[str]
    # Where our end forwards to; "" where it does not.
    target: str = ""


# The end of an address of IP; a path of a Unix socket has none.
_PORT = re.compile(r":\d+$")


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
    # Once: the state of an open connection may change between two looks at it.
    ends = ends_of(record)
    closing = list(_closing(record, ends))
    return Ladder(
        f"Ladder of {who} {record.id:,}",
        summary,
        str(record.local),
        peer(record),
        accepted,
        [*_opening(record), *_traffic(record, most), *closing],
        list(_notes(record, ends, closing)),
        _target(record),
    )


def _target(record: Record) -> str:
    """The target of a forwarder: the one that was reached, or the last one that was tried."""
    if record.far is not None:
        return str(record.far.remote)
    events = record.trace or ()
    tried = [event.detail for event in events if event.direction == "far connect"]
    return tried[-1] if tried else ""


def _notes(record: Record, ends: Sequence[End], closing: Sequence[Step]) -> Iterator[str]:
    if record.reset_sent and record.transport == "tcp":
        yield from _unread(record)
    if any(end.kind == "gone" for end in ends):
        yield HAD_ENDED
    if any(step.way == "both" for step in closing):
        yield (
            "Both ends had finished by then. When each of them did, and which was first, is not"
            " recorded."
        )
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


def _unread(record: Record) -> Iterator[str]:
    info = record.tcp_info
    if info is None:
        return
    # The kernel counts the FIN.
    unread = info.bytes_received - record.bytes_in - (info.state in FIN_RECEIVED)
    if unread > 0:
        yield (
            f"{size(unread)} more had arrived than this end has counted as read. A close with data"
            " that is not read sends RST (RFC 1122, section 4.2.2.13)."
        )


def _traffic(record: Record, most: int) -> Iterator[Step]:
    """What was received and sent."""
    events = record.trace
    if events is None:
        yield from _totals(record)
        return
    target = _target(record)
    draw = functools.partial(_event, target=target, reached=record.far is not None)
    if events and events[0].number > 1:
        yield Step("gap", "", f"{count(events[0].number - 1, 'earlier event')} not kept")
    hidden = len(events) - max(most, 2)
    if hidden <= 0:
        for event in events:
            yield from draw(event)
        return
    head = max(most, 2) // 2
    for event in events[:head]:
        yield from draw(event)
    between = events[head : head + hidden]
    yield Step("gap", "", f"{count(hidden, 'more event')}: {_summed(between)}")
    for event in events[head + hidden :]:
        yield from draw(event)


def _summed(events: Sequence[TraceEvent]) -> str:
    """What the events that are not drawn have carried."""
    parts = []
    for way in ("in", "out", "far in", "far out"):
        sizes = [event.size for event in events if event.direction == way]
        if sizes:
            parts.append(f"{len(sizes):,} {way} ({size(sum(sizes))})")
    faults = sum(event.fault is not None for event in events)
    return ", ".join(parts + [count(faults, "fault event")] * bool(faults))


def _event(event: TraceEvent, target: str, reached: bool) -> Iterator[Step]:
    if event.fault is not None:
        done = event.fault
        text = f"{done.action} ({done.direction}) by {done.fault}"
        yield Step("fault", "", text, seconds=event.seconds)
    elif event.detail:
        yield from _connect(event, target, reached)
    else:
        way: Literal["in", "out"] = "in" if event.direction.endswith("in") else "out"
        call = "recv" if way == "in" else "send"
        yield Step(
            "data",
            way,
            f"{event.size:,} B",
            seconds=event.seconds,
            call=f"{call} {event.size:,} B",
            data=event.data,
            leg=event.leg,
        )


def _connect(event: TraceEvent, target: str, reached: bool) -> Iterator[Step]:
    """The steps of a connect to a target: the calls are recorded, and the segments inferred."""
    at, detail = event.seconds, event.detail
    tcp = _PORT.search(target) is not None
    if event.direction == "far connect":
        label = ("SYN" if tcp else "connect") + f" to {detail}" * (detail != target)
        # One that refuses, or does not answer, may not listen.
        call, listen = "connect()", "listen()" * (tcp and reached and detail == target)
        yield Step("control", "out", label, False, at, call, listen, leg="far")
    elif event.direction == "far connected":
        if tcp:
            yield Step("control", "in", "SYN, ACK", False, at, "connected", leg="far")
            yield Step("control", "out", "ACK", False, peer_call="accept()", leg="far")
        else:
            yield Step("here", "", "", seconds=at, call="connected", leg="far")
    else:
        error = detail.rpartition(": ")[2]
        if tcp and error == "Connection refused":
            yield Step("reset", "in", "RST", False, at, error, leg="far")
        else:
            yield Step("here", "", "", seconds=at, call=error, leg="far")


def _totals(record: Record) -> Iterator[Step]:
    """Everything that went one way, where no trace has the single events."""
    sums: list[tuple[Literal["near", "far"], Literal["in", "out"], int, int]] = [
        ("near", "in", record.messages_in, record.bytes_in),
        ("near", "out", record.messages_out, record.bytes_out),
    ]
    # A client asks first.
    if record.role == "client":
        sums.reverse()
    if (far := record.far) is not None:
        sums[1:1] = [
            ("far", "out", far.messages_out, far.bytes_out),
            ("far", "in", far.messages_in, far.bytes_in),
        ]
        if far.remote.transport == "tcp":
            yield Step("control", "out", "SYN", False, peer_call="listen()", leg="far")
            yield Step("control", "in", "SYN, ACK", False, leg="far")
            yield Step("control", "out", "ACK", False, peer_call="accept()", leg="far")
    for leg, way, messages, octets in sums:
        if messages:
            carrier = record.transport if far is None or leg == "near" else far.remote.transport
            label = f"{calls(carrier, way, messages)}, {size(octets)} in all"
            yield Step("sum", way, label, leg=leg)


def _closing(record: Record, ends: Sequence[End]) -> Iterator[Step]:
    """How a connection ended."""
    by, at = record.closed_by, record.seconds
    steps = [replace(step, by=at) for step in _ends(record, ends)]
    if by is None:
        yield from steps
        yield Step("here", "", "", seconds=at, call="still open")
        return
    close = f"closed: {by}"
    reset = next((step for step in steps if step.kind == "reset" and step.known), None)
    if reset is not None:
        # The reset is the close.
        yield from (replace(s, seconds=at, call=close) if s is reset else s for s in steps)
    else:
        yield from steps
        yield Step("here", "", "", seconds=at, call=close)
    if any(end.kind == "unknown" for end in ends):
        yield Step("gap", "", f"{peers_of(record)} not recorded")


def _ends(record: Record, ends: Sequence[End]) -> Iterator[Step]:
    """The ends of all directions, up to the close; a forwarder passes an end on."""
    by = record.closed_by
    near, far = _Side(record.transport, "near"), None
    if by is not None and record.far is not None:
        far = _Side(record.far.remote.transport, "far")
    theirs = [end for end in ends if end.way == "in"]
    rest = [end for end in ends if end.way != "in"]
    if far is None:
        yield from near.steps(ends)
    elif is_cut(record) and by in ("peer", "service"):
        yield from near.steps(ends)
        yield from far.steps([End("both")])
    elif by == "peer":
        yield from near.steps(theirs)
        yield from far.steps([End("fin", "out"), End("fin", "in")])
        yield from near.steps(rest)
    elif by == "reset":
        yield from near.steps(ends)
        yield from far.steps([End("reset", "out")])
    elif by == "service" and not record.reset_sent:
        yield from far.steps([End("fin", "in")])
        yield from near.steps(rest)
        yield from near.steps(theirs)
        yield from far.steps([End("fin", "out")])
    else:
        by_target = by == "error" and _by_target(record.error or "")
        if by_target:
            yield from far.steps([End("reset", "in")])
        yield from near.steps(ends)
        if not by_target:
            yield from far.steps([End("reset" if record.reset_sent else "fin", "out")])


def _by_target(error: str) -> bool:
    """Whether an error of the far leg is a reset by the target."""
    return error.endswith(("Connection reset by peer", "Broken pipe"))


@dataclass(frozen=True)
class _Side:
    """A leg, by which its ends are named."""

    transport: str
    leg: Literal["near", "far"]

    def steps(self, ends: Sequence[End]) -> Iterator[Step]:
        """The steps of ends. Datagrams have none."""
        if self.transport not in ("tcp", "unix"):
            return
        tcp = self.transport == "tcp"
        for end in ends:
            if end.kind == "reset":
                yield Step("reset", end.way, "RST" if tcp else "reset", end.known, leg=self.leg)
            elif end.kind == "fin":
                label = "FIN" if tcp else "end of stream"
                label += ", time unknown" * (not end.timed)
                call = "finished" if end.way == "in" else ""
                yield Step("control", end.way, label, False, peer_call=call, leg=self.leg)
            elif end.kind == "both":
                label = f"{'FIN' if tcp else 'end'} each way, order unknown"
                yield Step("control", "both", label, False, leg=self.leg)
            elif end.kind == "gone":
                yield Step("gap", "", "had ended before")

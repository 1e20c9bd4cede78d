"""The ends of a connection, as far as a record has them.

No program sees a FIN. What is here follows from three things: what ended the connection, whether
this end sent RST, and the last statistics of the kernel before the close. What does not follow from
them is said not to be known. Nothing here may draw.
"""

from dataclasses import dataclass
from typing import Final, Literal

from ..._rsock import Record
from ..._types import TcpInfo

__all__ = ["FIN_RECEIVED", "HAD_ENDED", "End", "ends_of", "is_cut", "peers_of"]


@dataclass(frozen=True)
class End:
    """One thing that ended a connection, or a gap in what is known of it.

    kind: "fin" (one direction has ended), "reset", "both" (each direction has ended, and the order
        is not known), "gone" (the connection no longer was when this end closed it, and how it
        ended is not known) or "unknown" (what the peer did after the close of this end).
    way: "in" (by the peer), "out" (by this end), or "".
    known: whether it was recorded.
    timed: whether it happened at the close, or was noticed then.
    """

    kind: Literal["fin", "reset", "both", "gone", "unknown"]
    way: Literal["in", "out", ""] = ""
    known: bool = False
    timed: bool = True


# What `gone` means, for a note.
HAD_ENDED: Final = (
    "The connection had ended before this end closed it: by RST of the peer, or by a time-out."
)
_BOTH: Final = End("both", timed=False)
_GONE: Final = End("gone")
_UNKNOWN: Final = End("unknown")
# States of the kernel in which a FIN of this end has been sent, and of the peer has come.
_SENT: Final = frozenset({"FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "LAST-ACK"})
FIN_RECEIVED: Final = frozenset({"CLOSE-WAIT", "CLOSING", "LAST-ACK"})
# States after the end of both directions, or after a reset.
_OVER: Final = frozenset({"CLOSED", "TIME-WAIT"})


def ends_of(record: Record) -> list[End]:
    """The ends of a connection with its peer, in their order; none of datagrams."""
    if record.closed_by == "detached" or record.transport not in ("tcp", "unix"):
        return []
    if record.transport == "unix":
        return _without_state(record)
    info = record.tcp_info
    if record.closed_by is None:
        return [] if info is None else _before(record, info.state)
    return _without_state(record) if info is None else _with_state(record, info)


def peers_of(record: Record) -> str:
    """The words for the closes of the others."""
    if record.far is not None:
        return "closes of the other ends"
    return f"{'server' if record.role == 'client' else 'client'}'s close"


def is_cut(record: Record) -> bool:
    """Whether a fault has ended one direction, and has so hidden which end finished first."""
    return any(event.action == "truncated" for event in record.faults)


def _close(record: Record) -> End:
    """The end that the close of this end was."""
    return End("reset", "out", True) if record.reset_sent else End("fin", "out")


def _before(record: Record, state: str) -> list[End]:
    """The FINs before the close, as the state has them."""
    # An end of the peer that this end noticed was noticed at the close.
    came = [End("fin", "in", timed=record.closed_by == "peer")] * (state in FIN_RECEIVED)
    went = [End("fin", "out", timed=False)] * (state in _SENT)
    # In CLOSING, the FINs have crossed.
    return went + came if state == "CLOSING" else came + went


def _with_state(record: Record, info: TcpInfo) -> list[End]:
    by, state = record.closed_by, info.state
    if by == "reset":
        return [End("reset", "in")]
    if state in _OVER:
        return _over(record, info)
    ends = _before(record, state)
    if record.reset_sent:
        return [*ends, _close(record)]
    if state not in _SENT:
        ends.append(_close(record))
    return ends if state in FIN_RECEIVED else [*ends, _UNKNOWN]


def _over(record: Record, info: TcpInfo) -> list[End]:
    """The ends of a connection that the kernel had closed before this end did."""
    # The kernel counts a FIN as a byte and, of the end that connected, the SYN.
    acked = info.bytes_acked - (info.bytes_sent - info.bytes_retransmitted)
    went = acked > (record.role == "client")
    came = info.bytes_received > record.bytes_in
    if went and came:
        return _in_order(record)
    # A RST, or a time-out of the kernel, has ended what the FINs had not.
    return [*[End("fin", "in")] * (record.closed_by == "peer"), _GONE]


def _in_order(record: Record) -> list[End]:
    """The FINs of both ends: a forwarder passes on the one that was first."""
    if record.far is None or is_cut(record) or record.closed_by not in ("peer", "service"):
        return [_BOTH]
    ends = [End("fin", "in"), End("fin", "out")]
    return ends if record.closed_by == "peer" else ends[::-1]


def _without_state(record: Record) -> list[End]:
    """The ends of a Unix socket, which has no statistics."""
    by = record.closed_by
    if by is None:
        return []
    if by == "reset":
        return [End("reset", "in")]
    if by == "peer":
        came = End("fin", "in")
        if record.reset_sent:
            return [came, _close(record)]
        return [_BOTH] if is_cut(record) else [came, _close(record)]
    if by == "service" and record.far is not None and not record.reset_sent:
        return [_BOTH] if is_cut(record) else [_close(record), End("fin", "in")]
    return [_close(record), *[_UNKNOWN] * (not record.reset_sent)]

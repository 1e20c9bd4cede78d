"""Faults: the misbehaviour of networks and peers, on demand.

`Server(faults=[Latency(0.2)])` has them from the first byte on. Each class here is one kind; its
objects are values, checked when they are made, which any number of servers can have.
"""

# This file owns the list of public names and nothing else.
from .._fault import Fault
from ._accepting import AcceptDelay, Full, NeverAccept, Refuse
from ._datagrams import Drop, Duplicate, Reorder
from ._presets import preset, presets
from ._streams import CloseAfter, Garbage, Reset, Slice, SlowClose, SlowReader, Truncate
from ._text import parse
from ._toxics import from_toxic
from ._traffic import Bandwidth, Blackhole, Corrupt, Latency

__all__ = [
    "AcceptDelay",
    "Bandwidth",
    "Blackhole",
    "CloseAfter",
    "Corrupt",
    "Drop",
    "Duplicate",
    "Fault",
    "Full",
    "Garbage",
    "Latency",
    "NeverAccept",
    "Refuse",
    "Reorder",
    "Reset",
    "Slice",
    "SlowClose",
    "SlowReader",
    "Truncate",
    "from_toxic",
    "parse",
    "preset",
    "presets",
]

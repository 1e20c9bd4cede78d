"""Faults of accepting: what happens to connections before the server has accepted them.

Each class checks its parameters. It must never act on a socket: the engine does. A connection that
is not accepted yet has no number and no direction, so these faults have no such arguments.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar

from .._checks import check_seconds
from .._fault import MAX_SECONDS, Direction, Fault
from .._fault_text import Part, Value, seconds
from .._keywords import explained

__all__ = ["AcceptDelay", "Full", "NeverAccept", "Refuse"]


@dataclass(frozen=True, slots=True, repr=False)
class _OfAccepting(Fault):
    """A fault that concerns the listener."""

    _has_scope: ClassVar[bool] = False

    direction: Direction = field(default="both", init=False)
    probability: float = field(default=1.0, init=False)
    connections: int | Collection[int] | None = field(default=None, init=False)
    when: tuple[float, float | None] | None = field(default=None, init=False)


@explained
@dataclass(frozen=True, slots=True, repr=False)
class Refuse(_OfAccepting):
    """Connects are refused (ECONNREFUSED), while the server keeps its port.

    Stream servers only. Connections that are open or in the queue go on. Where several faults of
    accepting are there, the last one that was added holds.

    A server raises ValueError for it if its socket has other owners (`fd=`, `hand_over()`), without
    `SocketOptions(reuse_address=True)`, and on an abstract Unix name.
    """

    _name: ClassVar[str] = "refuse"


@explained
@dataclass(frozen=True, slots=True, repr=False)
class Full(_OfAccepting):
    """The queue of connections is full, so that connects are not answered and time out.

    Stream servers only. Connections that are open go on; those in the queue wait. Where several
    faults of accepting are there, the last one that was added holds.

    A server raises ValueError for it if its socket has other owners (`fd=`, `hand_over()`).
    """

    _name: ClassVar[str] = "full"


@explained
@dataclass(frozen=True, slots=True, repr=False)
class NeverAccept(_OfAccepting):
    """Connections stay in the queue: connects succeed, and nothing answers.

    Stream servers only. `Server.waiting` counts them; when the fault is removed they are served,
    and a stop resets them. Where several faults of accepting are there, the last one that was added
    holds.
    """

    _name: ClassVar[str] = "neveraccept"


@explained
@dataclass(frozen=True, slots=True, repr=False)
class AcceptDelay(_OfAccepting):
    """Each connection stays in the queue for a time.

    seconds: how long, from its arrival; if it waits already when the fault is added, from then.

    Stream servers only. A stop accepts at once what waits. Where several faults of accepting are
    there, the last one that was added holds.
    """

    _name: ClassVar[str] = "acceptdelay"
    _parts: ClassVar[tuple[Part, ...]] = (Value("seconds", seconds),)

    seconds: float

    def _check(self) -> None:
        check_seconds(self, "seconds", 0, MAX_SECONDS, optional=False)

"""Faults of datagrams only: those of UDP sockets, and those of Unix datagram sockets.

Each class checks its parameters. It must never act on traffic: the engine does.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

from .._checks import check_int, check_number
from .._fault import Fault
from .._fault_text import Part, Value, count, rate
from .._keywords import explained

__all__ = ["Drop", "Duplicate", "Reorder"]

# Datagrams that are held back are held in memory.
_MAX_WINDOW: Final = 1_000


@explained
@dataclass(frozen=True, slots=True, repr=False)
class Drop(Fault):
    """Datagrams are lost.

    rate: how likely each one is, from 0 to 1.
    """

    _name: ClassVar[str] = "drop"
    _parts: ClassVar[tuple[Part, ...]] = (Value("rate", rate),)

    rate: float

    def _check(self) -> None:
        check_number(self, "rate", 0, 1)


@explained
@dataclass(frozen=True, slots=True, repr=False)
class Duplicate(Fault):
    """Datagrams arrive twice.

    rate: how likely each one does, from 0 to 1. A peer outside the loopback is sent no more bytes
        than it has sent, so that a second copy may be dropped.
    """

    _name: ClassVar[str] = "duplicate"
    _parts: ClassVar[tuple[Part, ...]] = (Value("rate", rate),)

    rate: float

    def _check(self) -> None:
        check_number(self, "rate", 0, 1)


@explained
@dataclass(frozen=True, slots=True, repr=False)
class Reorder(Fault):
    """Datagrams are overtaken by later ones.

    rate: how likely each one is held back, from 0 to 1.
    window: how many later ones of the same direction go on before it, 1 to 1 000. It is held back
        for at most 0.1 s.
    """

    _name: ClassVar[str] = "reorder"
    _parts: ClassVar[tuple[Part, ...]] = (
        Value("rate", rate),
        Value("window", count, "window"),
    )

    rate: float
    window: int = 3

    def _check(self) -> None:
        check_number(self, "rate", 0, 1)
        check_int(self, "window", 1, _MAX_WINDOW, optional=False)

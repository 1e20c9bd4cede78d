"""Faults: the misbehaviour of networks and peers, on demand.

`Server(faults=[Latency(0.2)])` has them from the first byte on, `with server.fault(...)` for a
time.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ._fault import Fault

__all__ = ["Fault", "Latency", "Reset"]


@dataclass(frozen=True, slots=True)
class Latency(Fault):
    """Everything goes on `seconds` later, in order."""

    _name: ClassVar[str] = "latency"

    seconds: float
    jitter: float = 0.0
    distribution: Literal["uniform", "normal", "lognormal"] = "uniform"


@dataclass(frozen=True, slots=True)
class Reset(Fault):
    """The connection is reset after a number of bytes, or after a time."""

    _name: ClassVar[str] = "reset"

    after_bytes: int | None = None
    after_seconds: float | None = None

"""The base of all faults: what a fault concerns, and its text form.

Its fields are checked when it is made. It must never know one kind of fault from another, nor act
on traffic: the engine does.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar, Literal

__all__ = ["Fault"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something done to traffic on purpose. Use one of its subclasses.

    direction: "down" for what the server sends, "up" for what the client sends, or "both".
    probability: how likely a connection has the fault, from 0 to 1.
    connections: which connections can have it: an int for the first so many that are accepted
        after the fault was added, or the numbers of connections, as `Record.id`; None for all.
    when: when it acts, (start, end) in seconds since the start of the connection; an `end` of None
        is the end of the connection.
    """

    _name: ClassVar[str] = ""

    direction: Literal["down", "up", "both"] = field(default="down", kw_only=True)
    probability: float = field(default=1.0, kw_only=True)
    connections: int | Collection[int] | None = field(default=None, kw_only=True)
    when: tuple[float, float | None] | None = field(default=None, kw_only=True)

    def _parameters(self) -> dict[str, object]:
        """Return the parameters of its kind, for the engine."""
        common = Fault.__dataclass_fields__
        return {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name not in common
        }

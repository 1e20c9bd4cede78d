"""The base of all faults: what a fault concerns, with its text form.

Its fields are checked when it is made. It must never know one kind of fault from another, nor act
on traffic: the engine does.
"""

from collections.abc import Collection
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

from ._checks import bad_value, check_number, check_word, wrong_type
from ._shown import Shown

if TYPE_CHECKING:
    from ._fault_text import Part

__all__ = ["MAX_BYTES", "MAX_SECONDS", "Direction", "Fault"]

Direction: TypeAlias = Literal["down", "up", "both"]

# A time of more than a year is most likely a mistake in the unit.
MAX_SECONDS: Final = 366 * 86_400
# The engine counts in double precision, which is exact up to this number.
MAX_BYTES: Final = 2**53
# Numbers of connections are held in memory by every thread that serves.
_MAX_NUMBERS: Final = 100_000
_MAX_NUMBER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, repr=False)
class Fault(Shown):
    """Something that is done to traffic on purpose. Use one of its subclasses, in `rsock.faults`.

    `str()` is its text form, which `rsock.faults.parse` reads again, and by which records and
    displays name it.

    direction: "down" for what the server sends, "up" for what the client sends, or "both".
    probability: how likely a connection has the fault, from 0 to 1.
    connections: which connections can have it: an int for that many, the next to be accepted after
        the fault was added; or a collection of numbers, as in `Record.id`, which becomes a
        frozenset; None for all.
    when: when the fault acts, (start, end) in seconds since the start of the connection; an `end`
        of None is the end of the connection. None is the whole time.

    Raises TypeError for a value of the wrong type and ValueError for one out of range, naming field
    and value.
    """

    # What the engine and the text form call the kind.
    _name: ClassVar[str] = ""
    # The text form of the parameters of the kind.
    _parts: ClassVar[tuple["Part", ...]] = ()
    # Whether the text form has the fields below.
    _has_scope: ClassVar[bool] = True

    direction: Direction = field(default="down", kw_only=True)
    probability: float = field(default=1.0, kw_only=True)
    connections: int | Collection[int] | None = field(default=None, kw_only=True)
    when: tuple[float, float | None] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not self._name:
            raise TypeError(f"{type(self).__name__} is no fault: use a class of rsock.faults")
        self._check()
        check_word(self, "direction", ("down", "up", "both"))
        check_number(self, "probability", 0, 1)
        self._check_connections()
        self._check_when()

    def __repr__(self) -> str:
        """Return the call that makes an equal fault."""
        words = []
        for each in self._own_first():
            value = getattr(self, each.name)
            if each.default is MISSING:
                words.append(repr(value))
            elif value != each.default:
                words.append(f"{each.name}={value!r}")
        return f"{type(self).__name__}({', '.join(words)})"

    def __str__(self) -> str:
        """Return the text form."""
        # Programs without faults do not load the module.
        from ._fault_text import written

        return written(self._name, self, self._text_parts())

    @classmethod
    def _read(cls, text: str) -> "Fault":
        """Make one of the text behind the name of its kind. Raises ValueError."""
        from ._fault_text import read

        given = read(text, cls._text_parts())
        for each in fields(cls):
            if each.default is MISSING and each.name not in given:
                raise ValueError(f"{each.name} is missing")
        return cls(**given)

    @classmethod
    def _text_parts(cls) -> tuple["Part", ...]:
        from ._fault_text import SCOPE

        return cls._parts + SCOPE if cls._has_scope else cls._parts

    def _check(self) -> None:
        """Check the parameters of its kind. Subclasses override it."""

    def _parameters(self) -> dict[str, Any]:
        """Return the parameters of its kind, for the engine."""
        common = Fault.__dataclass_fields__
        return {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name not in common
        }

    def _own_first(self) -> list[Field[object]]:
        """The fields of its constructor, those of its kind before those of every fault."""
        common = Fault.__dataclass_fields__
        given = [each for each in fields(self) if each.init]
        return sorted(given, key=lambda each: each.name in common)

    def _keep(self, name: str, value: object) -> None:
        """Keep a value in another form than it was given in."""
        object.__setattr__(self, name, value)

    def _check_connections(self) -> None:
        given = self.connections
        if given is None:
            return
        expected = "an int, a collection of ints or None"
        if isinstance(given, bool | str | bytes | bytearray):
            raise wrong_type(self, "connections", expected)
        if isinstance(given, int):
            if not 1 <= given <= _MAX_NUMBER:
                raise bad_value(self, "connections", f"must be between 1 and {_MAX_NUMBER}")
            return
        if not isinstance(given, Collection):
            raise wrong_type(self, "connections", expected)
        if not 1 <= len(given) <= _MAX_NUMBERS:
            rule = f"must have from 1 to {_MAX_NUMBERS} numbers, not {len(given)}"
            raise ValueError(f"{type(self).__name__}: connections {rule}")
        for number in given:
            if isinstance(number, bool) or not isinstance(number, int):
                rule = f"must be ints, which {number!r:.80} is not"
                raise TypeError(f"{type(self).__name__}: connections {rule}")
            if not 1 <= number <= _MAX_NUMBER:
                rule = f"must be numbers from 1, as Record.id, which {number!r:.80} is not"
                raise ValueError(f"{type(self).__name__}: connections {rule}")
        self._keep("connections", frozenset(given))

    def _check_when(self) -> None:
        if self.when is None:
            return
        if not isinstance(self.when, tuple | list) or len(self.when) != 2:
            raise wrong_type(self, "when", "(start, end) in seconds, or None")
        start, end = self.when
        for time in (start, 0 if end is None else end):
            if isinstance(time, bool) or not isinstance(time, int | float):
                raise TypeError(
                    f"{type(self).__name__}(when={self.when!r}): when must be two numbers of"
                    f" seconds, not {type(time).__name__}"
                )
            # Written this way because NaN compares as false with everything, and must be refused.
            if not 0 <= time <= MAX_SECONDS:
                raise bad_value(self, "when", f"must be between 0 and {MAX_SECONDS} seconds")
        if end is not None and end <= start:
            raise bad_value(self, "when", "must end after its start")
        self._keep("when", (start, end))

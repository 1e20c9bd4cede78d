"""Faults of streams: TCP connections, and those of Unix stream sockets.

Each class checks its parameters. It must never act on traffic: the engine does.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Final

from .._checks import bad_value, check_int, check_number, check_seconds, wrong_type
from .._fault import MAX_BYTES, MAX_SECONDS, Direction, Fault
from .._fault_text import After, Bytes, Part, Spread, Value, byte_rate, seconds, size
from .._keywords import explained

__all__ = ["CloseAfter", "Garbage", "Reset", "Slice", "SlowClose", "SlowReader", "Truncate"]

# Garbage goes out as one piece, which is held in memory for each connection.
_MAX_GARBAGE: Final = 2**24
# The bytes themselves are part of the text of a fault, which records show.
_MAX_DATA: Final = 2**16


@explained
@dataclass(frozen=True, slots=True, repr=False)
class Slice(Fault):
    """Bytes go on in small pieces, each sent by a call of its own.

    size: bytes of a piece, at least 1.
    variation: how much larger or smaller a piece can be, less than `size`.
    delay: seconds between two pieces.

    Streams only. The borders depend on the seed alone, not on how the bytes were sent.
    """

    _name: ClassVar[str] = "slice"
    _parts: ClassVar[tuple[Part, ...]] = (
        Spread("size", "variation", size),
        Value("delay", seconds, "delay"),
    )

    size: int
    variation: int = 0
    delay: float = 0.0

    def _check(self) -> None:
        check_int(self, "size", 1, MAX_BYTES, optional=False)
        check_int(self, "variation", 0, MAX_BYTES, optional=False)
        if self.variation >= self.size:
            raise bad_value(self, "variation", f"must be less than size, which is {self.size}")
        check_seconds(self, "delay", 0, MAX_SECONDS, optional=False)


@explained
@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class CloseAfter(Fault):
    """The connection is closed (FIN) after a number of bytes, or after a time. Give one of them.

    after_bytes: bytes that pass first, in either direction that the fault concerns; 0 closes at
        once.
    after_seconds: seconds since the fault began to act, whatever passes.

    Streams only. What has passed is sent before the end.
    """

    _name: ClassVar[str] = "close"
    _parts: ClassVar[tuple[Part, ...]] = (After(),)

    after_bytes: int | None = None
    after_seconds: float | None = None
    direction: Direction = field(default="both")

    def _check(self) -> None:
        _check_after(self)


@explained
@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Reset(Fault):
    """The connection is reset (RST) after a number of bytes, or after a time. Give one of them.

    after_bytes: bytes that pass first, in either direction that the fault concerns; 0 resets at
        once.
    after_seconds: seconds since the fault began to act, whatever passes, on an idle connection too.

    Streams only. The peer's next read raises ConnectionResetError; on a Unix socket, which has no
    reset, it reads the end, or ECONNRESET if it had sent data that was not read (see `unix(7)`).
    """

    _name: ClassVar[str] = "reset"
    _parts: ClassVar[tuple[Part, ...]] = (After(),)

    after_bytes: int | None = None
    after_seconds: float | None = None
    direction: Direction = field(default="both")

    def _check(self) -> None:
        _check_after(self)


def _check_after(fault: CloseAfter | Reset) -> None:
    check_int(fault, "after_bytes", 0, MAX_BYTES)
    check_seconds(fault, "after_seconds", 0, MAX_SECONDS)
    if (fault.after_bytes is None) == (fault.after_seconds is None):
        both = fault.after_bytes is not None
        raise ValueError(
            f"{type(fault).__name__}: give one of after_bytes and after_seconds,"
            f" not {'both' if both else 'neither; after_bytes=0 is at once'}"
        )


@explained
@dataclass(frozen=True, slots=True, repr=False)
class Truncate(Fault):
    """One direction ends cleanly (FIN) in the middle; the rest of it is thrown away.

    after_bytes: bytes that pass first.

    Streams only. The other direction goes on.
    """

    _name: ClassVar[str] = "truncate"
    _parts: ClassVar[tuple[Part, ...]] = (Value("after_bytes", size),)

    after_bytes: int

    def _check(self) -> None:
        check_int(self, "after_bytes", 0, MAX_BYTES, optional=False)


@explained
@dataclass(frozen=True, slots=True, repr=False)
class Garbage(Fault):
    """Something else is sent in place of the answer.

    data: an int for that many random bytes, at most 2**24; or the bytes, at most 65 536.

    Streams only. It goes out once, when the direction first has bytes or its end; all its own bytes
    are thrown away.
    """

    _name: ClassVar[str] = "garbage"
    _parts: ClassVar[tuple[Part, ...]] = (Bytes("data"),)

    data: int | bytes

    def _check(self) -> None:
        if isinstance(self.data, bytearray | memoryview):
            self._keep("data", bytes(self.data))
        if isinstance(self.data, bytes):
            if not 1 <= len(self.data) <= _MAX_DATA:
                rule = f"must have from 1 to {_MAX_DATA} bytes, not {len(self.data)}"
                raise ValueError(f"{type(self).__name__}: data {rule}")
        elif isinstance(self.data, bool) or not isinstance(self.data, int):
            raise wrong_type(self, "data", "bytes, or an int for random ones")
        else:
            check_int(self, "data", 1, _MAX_GARBAGE)

    def _parameters(self) -> dict[str, object]:
        return {"data" if isinstance(self.data, bytes) else "size": self.data}


@explained
@dataclass(frozen=True, slots=True, repr=False)
class SlowClose(Fault):
    """An end (FIN) goes on later; bytes are not delayed.

    seconds: how much later.

    Streams only.
    """

    _name: ClassVar[str] = "slowclose"
    _parts: ClassVar[tuple[Part, ...]] = (Value("seconds", seconds),)

    seconds: float

    def _check(self) -> None:
        check_seconds(self, "seconds", 0, MAX_SECONDS, optional=False)


@explained
@dataclass(frozen=True, slots=True, repr=False)
class SlowReader(Fault):
    """The peer is read slowly, in small pieces, so that its buffers fill and its sends block.

    bytes_per_second: the rate, at least 1.

    Streams only. By default it acts on what the client sends.
    """

    _name: ClassVar[str] = "slowreader"
    _parts: ClassVar[tuple[Part, ...]] = (Value("bytes_per_second", byte_rate),)

    bytes_per_second: float
    direction: Direction = field(default="up", kw_only=True)

    def _check(self) -> None:
        check_number(self, "bytes_per_second", 1, MAX_BYTES)

"""Faults of streams as well as of datagrams.

Each class checks its parameters. It must never act on traffic: the engine does.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from .._checks import bad_value, check_bool, check_number, check_seconds, check_word
from .._fault import MAX_BYTES, MAX_SECONDS, Direction, Fault
from .._fault_text import Flag, Part, Spread, Value, Word, byte_rate, rate, seconds
from .._keywords import explained

__all__ = ["Bandwidth", "Blackhole", "Corrupt", "Latency"]


@explained
@dataclass(frozen=True, slots=True, repr=False)
class Latency(Fault):
    """Everything goes on later, in order.

    seconds: the delay, or its mean.
    jitter: how much the delay varies, in seconds. The delay is never less than 0, and bytes never
        overtake bytes: one that is due earlier than those before it goes on with them.
    distribution: "uniform" from `seconds - jitter` to `seconds + jitter`; "normal" or "lognormal"
        with a mean of `seconds` and a standard deviation of `jitter`.

    Streams and datagrams. Each datagram has a delay of its own, and on a stream each chunk, by the
    offset of its first byte. An end (FIN) is delayed too; the handshake of TCP is not.
    """

    _name: ClassVar[str] = "latency"
    _parts: ClassVar[tuple[Part, ...]] = (
        Spread("seconds", "jitter", seconds),
        Word("distribution", "uniform", "normal", "lognormal"),
    )

    seconds: float
    jitter: float = 0.0
    distribution: Literal["uniform", "normal", "lognormal"] = "uniform"

    def _check(self) -> None:
        check_seconds(self, "seconds", 0, MAX_SECONDS, optional=False)
        check_seconds(self, "jitter", 0, MAX_SECONDS, optional=False)
        check_word(self, "distribution", ("uniform", "normal", "lognormal"))
        if self.distribution == "lognormal" and self.jitter and not self.seconds:
            raise bad_value(self, "seconds", "must be more than 0 for a lognormal distribution")


@explained
@dataclass(frozen=True, slots=True, repr=False)
class Bandwidth(Fault):
    """Bytes go on at a limited rate.

    bytes_per_second: the rate, at least 1. A network's rate is usually given in bits: divide by 8.
    shared: False gives each connection this rate in each direction; True makes the connections that
        have this fault share it, in each direction, as on one cable.

    Streams and datagrams; a datagram goes on as a whole.
    """

    _name: ClassVar[str] = "bandwidth"
    _parts: ClassVar[tuple[Part, ...]] = (
        Value("bytes_per_second", byte_rate),
        Flag("shared"),
    )

    bytes_per_second: float
    shared: bool = False

    def _check(self) -> None:
        check_number(self, "bytes_per_second", 1, MAX_BYTES)
        check_bool(self, "shared")


@explained
@dataclass(frozen=True, slots=True, repr=False)
class Corrupt(Fault):
    """Bytes are changed.

    rate: how likely each byte of a stream is replaced by another value; of datagrams, how likely
        one byte of a datagram is. From 0 to 1.

    Streams and datagrams. The number of bytes stays the same.
    """

    _name: ClassVar[str] = "corrupt"
    _parts: ClassVar[tuple[Part, ...]] = (Value("rate", rate),)

    rate: float

    def _check(self) -> None:
        check_number(self, "rate", 0, 1)


@explained
@dataclass(frozen=True, slots=True, repr=False)
class Blackhole(Fault):
    """Nothing gets through any more, and neither end is told, as with a cut cable.

    after_seconds: when this begins, in seconds after the fault began to act.
    for_seconds: how long it lasts; None is until the fault is removed.

    On a stream nothing is lost: what is held, an end (FIN) included, goes on in order afterwards,
    as TCP sends again once a cable is back. Datagrams are lost.
    """

    _name: ClassVar[str] = "blackhole"
    _parts: ClassVar[tuple[Part, ...]] = (
        Value("after_seconds", seconds, "after"),
        Value("for_seconds", seconds, "for"),
    )

    after_seconds: float = 0.0
    for_seconds: float | None = None
    direction: Direction = field(default="both", kw_only=True)

    def _check(self) -> None:
        check_seconds(self, "after_seconds", 0, MAX_SECONDS, optional=False)
        if check_seconds(self, "for_seconds", 0, MAX_SECONDS) == 0:
            raise bad_value(self, "for_seconds", "must be more than 0; None is until its removal")

"""Faults from the toxics of toxiproxy. It owns what their fields mean, and must open nothing."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from .._fault import Direction, Fault
from ._streams import CloseAfter, Reset, Slice, SlowClose
from ._traffic import Bandwidth, Blackhole, Latency

__all__ = ["from_toxic"]

_STREAMS: Final[dict[str, Direction]] = {"downstream": "down", "upstream": "up"}
_FIELDS: Final = ("type", "stream", "toxicity", "attributes", "name")


def from_toxic(toxic: Mapping[str, Any]) -> list[Fault]:
    """Return the faults that do what a toxic of toxiproxy does, as its HTTP API describes it.

    `{"type": "latency", "stream": "upstream", "toxicity": 0.5, "attributes": {"latency": 200}}` is
    `[Latency(0.2, direction="up", probability=0.5)]`. The types are `latency`, `bandwidth`,
    `slow_close`, `timeout`, `reset_peer`, `slicer` and `limit_data`; a `name` has no meaning here.
    A `timeout` that ends is two faults, every other toxic is one.

    Raises TypeError for a value of the wrong type; and ValueError for an unknown type or field, for
    one out of range, and for a `timeout` that ends with a toxicity below 1: two faults would be
    drawn apart.
    """
    if not isinstance(toxic, Mapping):
        raise TypeError(f"toxic must be a dict, as from JSON, not {type(toxic).__name__}")
    for name in toxic:
        if name not in _FIELDS:
            _unknown("toxic: no field", name, _FIELDS)
    kind = toxic.get("type")
    if not isinstance(kind, str) or kind not in _MADE:
        _unknown("toxic: no type", kind, _MADE)
    stream = toxic.get("stream", "downstream")
    if not isinstance(stream, str) or stream not in _STREAMS:
        _unknown("toxic: no stream", stream, _STREAMS)
    make, known = _MADE[kind]
    attributes = toxic.get("attributes") or {}
    if not isinstance(attributes, Mapping):
        raise TypeError(f"toxic: attributes must be a dict, not {type(attributes).__name__}")
    for name, value in attributes.items():
        if name not in known:
            _unknown(f"toxic {kind!r}: no attribute", name, known)
        if isinstance(value, bool) or not isinstance(value, int | float):
            wrong = type(value).__name__
            raise TypeError(f"toxic {kind!r}: attribute {name!r} must be a number, not {wrong}")
    values = [attributes.get(name, 0) for name in known]
    scope = {"direction": _STREAMS[stream], "probability": toxic.get("toxicity", 1.0)}
    try:
        return make(scope, *values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"toxic {kind!r}: {error}") from None


def _unknown(what: str, name: object, known: Any) -> NoReturn:
    import difflib

    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    raise ValueError(f"{what} {name!r:.80}; {hint}")


# Toxics have times in milliseconds, except for the delay of a slicer, in microseconds.


def _latency(scope: Any, latency: float, jitter: float) -> list[Fault]:
    return [Latency(latency / 1_000, jitter / 1_000, **scope)]


def _bandwidth(scope: Any, rate: float) -> list[Fault]:
    # Its KB are 1000 bytes.
    return [Bandwidth(rate * 1_000, **scope)]


def _slow_close(scope: Any, delay: float) -> list[Fault]:
    return [SlowClose(delay / 1_000, **scope)]


def _timeout(scope: Any, timeout: float) -> list[Fault]:
    if timeout <= 0:
        return [Blackhole(**scope)]
    if scope["probability"] not in (0, 1):
        raise ValueError("with a toxicity below 1 only a timeout of 0 can be had")
    return [CloseAfter(after_seconds=timeout / 1_000, **scope), Blackhole(**scope)]


def _reset_peer(scope: Any, timeout: float) -> list[Fault]:
    if timeout:
        return [Reset(after_seconds=timeout / 1_000, **scope)]
    return [Reset(after_bytes=0, **scope)]


def _slicer(scope: Any, size: int, variation: int, delay: float) -> list[Fault]:
    return [Slice(size, variation, delay / 1_000_000, **scope)]


def _limit_data(scope: Any, size: int) -> list[Fault]:
    return [CloseAfter(after_bytes=size, **scope)]


# Each type with its attributes, in the order of the arguments.
_MADE: Final[dict[str, tuple[Callable[..., list[Fault]], tuple[str, ...]]]] = {
    "latency": (_latency, ("latency", "jitter")),
    "bandwidth": (_bandwidth, ("rate",)),
    "slow_close": (_slow_close, ("delay",)),
    "timeout": (_timeout, ("timeout",)),
    "reset_peer": (_reset_peer, ("timeout",)),
    "slicer": (_slicer, ("average_size", "size_variation", "delay")),
    "limit_data": (_limit_data, ("bytes",)),
}

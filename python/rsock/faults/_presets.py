"""Faults under one name: those of a kind of network.

It owns their figures, with where these come from. It must not know how faults act.
"""

from typing import Final

from .._fault import Fault
from ._datagrams import Drop, Duplicate, Reorder
from ._traffic import Bandwidth, Blackhole, Latency

__all__ = ["described", "preset", "presets"]

_KILOBIT: Final = 1_000 / 8
_MEGABIT: Final = 1_000_000 / 8


def _link(round_trip: float, down: float, up: float) -> list[Fault]:
    """A link with a round-trip time, half of it in each direction, and its rates in bytes/s."""
    return [
        Latency(round_trip / 2, direction="both"),
        # All connections are on the same link.
        Bandwidth(down, shared=True),
        Bandwidth(up, shared=True, direction="up"),
    ]


# The links are those of WebPageTest (connectivity.ini), which browsers' tools have adopted:
# Chrome's and Lighthouse's "Slow 4G" is `3g-fast`. Each with one line about it.
_PRESETS: Final[dict[str, tuple[str, list[Fault]]]] = {
    "dial-up": (
        "49/30 kbit/s, round trip 120 ms (WebPageTest: 56K modem)",
        _link(0.120, 49 * _KILOBIT, 30 * _KILOBIT),
    ),
    "2g": (
        "280/256 kbit/s, round trip 800 ms (WebPageTest: 2G)",
        _link(0.800, 280 * _KILOBIT, 256 * _KILOBIT),
    ),
    "edge": (
        "240/200 kbit/s, round trip 840 ms (WebPageTest: Edge)",
        _link(0.840, 240 * _KILOBIT, 200 * _KILOBIT),
    ),
    "3g-slow": (
        "400/400 kbit/s, round trip 400 ms (WebPageTest: 3G Slow)",
        _link(0.400, 400 * _KILOBIT, 400 * _KILOBIT),
    ),
    "3g": (
        "1.6 Mbit/s and 768 kbit/s, round trip 300 ms (WebPageTest: 3G)",
        _link(0.300, 1.6 * _MEGABIT, 768 * _KILOBIT),
    ),
    "3g-fast": (
        "1.6 Mbit/s and 768 kbit/s, round trip 150 ms (WebPageTest: 3G Fast)",
        _link(0.150, 1.6 * _MEGABIT, 768 * _KILOBIT),
    ),
    "4g": (
        "9/9 Mbit/s, round trip 170 ms (WebPageTest: 4G)",
        _link(0.170, 9 * _MEGABIT, 9 * _MEGABIT),
    ),
    "lte": (
        "12/12 Mbit/s, round trip 70 ms (WebPageTest: LTE)",
        _link(0.070, 12 * _MEGABIT, 12 * _MEGABIT),
    ),
    "dsl": (
        "1.5 Mbit/s and 384 kbit/s, round trip 50 ms (WebPageTest: DSL)",
        _link(0.050, 1.5 * _MEGABIT, 384 * _KILOBIT),
    ),
    "cable": (
        "5/1 Mbit/s, round trip 28 ms (WebPageTest: Cable)",
        _link(0.028, 5 * _MEGABIT, 1 * _MEGABIT),
    ),
    "fibre": (
        "20/5 Mbit/s, round trip 4 ms (WebPageTest: FIOS)",
        _link(0.004, 20 * _MEGABIT, 5 * _MEGABIT),
    ),
    # 260 ms is the figure of ITU-T G.114 for a geostationary satellite, one way.
    "satellite": (
        "25/3 Mbit/s, round trip 520 ms: geostationary (ITU-T G.114)",
        _link(0.520, 25 * _MEGABIT, 3 * _MEGABIT),
    ),
    "flaky-wifi": (
        "20 Mbit/s, mostly 5 ms each way, and a gap of 1 s in a quarter of the connections",
        [
            Latency(0.010, 0.020, "lognormal", direction="both"),
            Bandwidth(20 * _MEGABIT, shared=True),
            Bandwidth(20 * _MEGABIT, shared=True, direction="up"),
            Blackhole(after_seconds=2, for_seconds=1, probability=0.25),
        ],
    ),
    # A retransmission takes Linux 200 ms at least (RFC 6298 says 1 s): about one in seventy delays
    # is longer than that, and half of them are shorter than 4 ms.
    "packet-loss-like": (
        "mostly 4 ms each way, at times 200 ms and more, as a retransmission takes",
        [Latency(0.020, 0.100, "lognormal", direction="both")],
    ),
    "lossy-datagrams": (
        "datagrams only, both ways: 2 % are lost, 1 % overtaken, 0.5 % arrive twice",
        [
            Drop(0.02, direction="both"),
            Reorder(0.01, direction="both"),
            Duplicate(0.005, direction="both"),
        ],
    ),
}


def presets() -> list[str]:
    """Return the names that `preset` knows."""
    return list(_PRESETS)


def described() -> dict[str, str]:
    """Return one line about each."""
    return {name: text for name, (text, _) in _PRESETS.items()}


def preset(name: str) -> list[Fault]:
    """Return the faults of a kind of network, such as `preset("3g")`, for `Server(faults=…)`.

    `presets()` has the names; the guide has their figures, and where these come from. The rates are
    those of the whole link: all connections of the server share them.

    Raises TypeError for what is no str, and ValueError for a name that is none.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str such as '3g', not {type(name).__name__}")
    if name in _PRESETS:
        return list(_PRESETS[name][1])
    import difflib

    close = difflib.get_close_matches(name.lower().replace("_", "-"), _PRESETS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(_PRESETS)}"
    raise ValueError(f"no preset {name!r}; {hint}")

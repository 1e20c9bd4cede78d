"""Bad input to faults is refused where it is given: the error names it, and nothing is opened."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from support import given_back, held

import rsock
from rsock import faults
from rsock.faults import (
    AcceptDelay,
    Bandwidth,
    Blackhole,
    CloseAfter,
    Corrupt,
    Drop,
    Duplicate,
    Fault,
    Full,
    Garbage,
    Latency,
    NeverAccept,
    Refuse,
    Reorder,
    Reset,
    Slice,
    SlowClose,
    SlowReader,
    Truncate,
)

# One fault of each kind, for what all of them have.
ONE_OF_EACH: list[Fault] = [
    Latency(0.1),
    Bandwidth(1_000),
    Slice(10),
    CloseAfter(after_bytes=1),
    Reset(after_seconds=1),
    Blackhole(),
    SlowClose(1),
    SlowReader(1_000),
    Corrupt(0.1),
    Garbage(10),
    Truncate(1),
    Refuse(),
    Full(),
    NeverAccept(),
    AcceptDelay(1),
    Drop(0.1),
    Duplicate(0.1),
    Reorder(0.1),
]
OF_ACCEPTING = (Refuse, Full, NeverAccept, AcceptDelay)
ON_DATAGRAMS_TOO = (Latency, Bandwidth, Corrupt, Blackhole)
ON_DATAGRAMS_ONLY = (Drop, Duplicate, Reorder)

SECONDS: list[tuple[Any, str]] = [
    (Latency, "seconds"),
    (lambda **seconds: Latency(0.1, **seconds), "jitter"),
    (lambda **seconds: Slice(10, **seconds), "delay"),
    (CloseAfter, "after_seconds"),
    (Reset, "after_seconds"),
    (Blackhole, "after_seconds"),
    (Blackhole, "for_seconds"),
    (SlowClose, "seconds"),
    (AcceptDelay, "seconds"),
]
RATES: list[Any] = [Corrupt, Drop, Duplicate, Reorder]
SIZES: list[tuple[Any, str, int]] = [
    (Slice, "size", 1),
    (lambda **size: Slice(10, **size), "variation", 0),
    (CloseAfter, "after_bytes", 0),
    (Reset, "after_bytes", 0),
    (Truncate, "after_bytes", 0),
    (Garbage, "data", 1),
    (lambda **size: Reorder(0.1, **size), "window", 1),
]
BYTE_RATES: list[Any] = [Bandwidth, SlowReader]


def kinds() -> list[type[Fault]]:
    values = [getattr(faults, name) for name in faults.__all__]
    return [value for value in values if isinstance(value, type) and value is not Fault]


def test_the_kinds_here_are_all_kinds() -> None:
    assert {type(fault) for fault in ONE_OF_EACH} == set(kinds())


@pytest.mark.parametrize("number", [-1, -1e-9, math.nan, math.inf, -math.inf, 1e12, 10**400])
@pytest.mark.parametrize(("make", "name"), SECONDS)
def test_seconds_out_of_range_are_a_value_error(make: Any, name: str, number: float) -> None:
    with pytest.raises(ValueError, match=rf"\w+\({name}=.*\): {name} must be between 0 and"):
        make(**{name: number})


@pytest.mark.parametrize("value", ["1", True, [1], 1j, b"1"])
@pytest.mark.parametrize(("make", "name"), SECONDS)
def test_seconds_that_are_no_number_are_a_type_error(make: Any, name: str, value: object) -> None:
    with pytest.raises(TypeError, match=rf"{name} must be a number of seconds.*, not \w+"):
        make(**{name: value})


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan, math.inf, 2, -1])
@pytest.mark.parametrize("kind", RATES)
def test_a_rate_outside_of_0_to_1_is_a_value_error(kind: Any, rate: float) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__}\(rate=.*\): rate must be between 0"):
        kind(rate)


@pytest.mark.parametrize("value", ["0.5", True, None, [0.5]])
@pytest.mark.parametrize("kind", RATES)
def test_a_rate_that_is_no_number_is_a_type_error(kind: Any, value: object) -> None:
    with pytest.raises(TypeError, match="rate must be a number, not"):
        kind(value)


@pytest.mark.parametrize(("make", "name", "lowest"), SIZES)
def test_a_size_out_of_range_is_a_value_error(make: Any, name: str, lowest: int) -> None:
    for number in (lowest - 1, -(10**30), 10**30):
        with pytest.raises(ValueError, match=rf"{name} must be between {lowest} and"):
            make(**{name: number})
    make(**{name: lowest})


@pytest.mark.parametrize("value", [1.0, "1", True, [1]])
@pytest.mark.parametrize(("make", "name", "lowest"), SIZES)
def test_a_size_that_is_no_int_is_a_type_error(
    make: Any, name: str, lowest: int, value: object
) -> None:
    with pytest.raises(TypeError, match=rf"{name} must be"):
        make(**{name: value})


@pytest.mark.parametrize("number", [0, 0.5, -1, math.nan, math.inf])
@pytest.mark.parametrize("kind", BYTE_RATES)
def test_a_rate_of_bytes_below_1_is_a_value_error(kind: Any, number: float) -> None:
    with pytest.raises(ValueError, match="bytes_per_second must be between 1 and"):
        kind(number)


@pytest.mark.parametrize("kind", [CloseAfter, Reset])
def test_after_bytes_and_after_seconds_are_given_one_at_a_time(kind: Any) -> None:
    with pytest.raises(ValueError, match="not neither; after_bytes=0 is at once"):
        kind()
    with pytest.raises(ValueError, match="one of after_bytes and after_seconds, not both"):
        kind(after_bytes=1, after_seconds=1)
    with pytest.raises(TypeError, match=r"keywords only, such as after_bytes=…"):
        kind(1)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Latency(0.1, distribution="gauss"), ValueError, "'uniform', 'normal' or"),  # type: ignore[arg-type]
        (lambda: Latency(0.1, distribution=1), TypeError, "'uniform', 'normal' or"),  # type: ignore[arg-type]
        (lambda: Latency(0, 0.1, "lognormal"), ValueError, "more than 0 for a lognormal"),
        (lambda: Bandwidth(1, shared=1), TypeError, "shared must be True or False"),  # type: ignore[arg-type]
        (lambda: Slice(10, 10), ValueError, "variation must be less than size, which is 10"),
        (lambda: Blackhole(for_seconds=0), ValueError, "for_seconds must be more than 0"),
        (lambda: Garbage(""), TypeError, "data must be bytes, or an int"),  # type: ignore[arg-type]
        (lambda: Garbage(b""), ValueError, "data must have from 1 to 65536 bytes, not 0"),
        (lambda: Garbage(bytes(65_537)), ValueError, "65536 bytes, not 65537"),
        (lambda: Fault(), TypeError, "use a class of rsock.faults"),
        (lambda: Latency(0.1, distrbution="x"), TypeError, "did you mean 'distribution'"),  # type: ignore[call-arg]
        (lambda: Latency(), TypeError, "seconds"),  # type: ignore[call-arg]
    ],
)
def test_a_wrong_parameter_is_named(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize(
    ("named", "error", "text"),
    [
        ({"direction": "left"}, ValueError, "direction must be 'down', 'up' or 'both'"),
        ({"direction": None}, TypeError, "direction must be 'down', 'up' or 'both'"),
        ({"probability": -0.1}, ValueError, "probability must be between 0 and 1"),
        ({"probability": 1.1}, ValueError, "probability must be between 0 and 1"),
        ({"probability": math.nan}, ValueError, "probability must be between 0 and 1"),
        ({"probability": True}, TypeError, "probability must be a number, not bool"),
        ({"connections": 0}, ValueError, "connections must be between 1 and"),
        ({"connections": 2**63}, ValueError, "connections must be between 1 and"),
        ({"connections": True}, TypeError, "connections must be an int, a collection"),
        ({"connections": 1.5}, TypeError, "connections must be an int, a collection"),
        ({"connections": "3"}, TypeError, "connections must be an int, a collection"),
        ({"connections": iter([1])}, TypeError, "connections must be an int, a collection"),
        ({"connections": []}, ValueError, "connections must have from 1 to 100000"),
        ({"connections": range(10**9)}, ValueError, "connections must have from 1 to 100000"),
        ({"connections": [0]}, ValueError, "connections must be numbers from 1"),
        ({"connections": {True}}, TypeError, "connections must be ints, which True is not"),
        ({"connections": ["1"]}, TypeError, "connections must be ints, which '1' is not"),
        ({"when": (2, 2)}, ValueError, "when must end after its start"),
        ({"when": (3, 2)}, ValueError, "when must end after its start"),
        ({"when": (-1, 2)}, ValueError, "when must be between 0 and"),
        ({"when": (0, math.nan)}, ValueError, "when must be between 0 and"),
        ({"when": (0, math.inf)}, ValueError, "when must be between 0 and"),
        ({"when": (None, 2)}, TypeError, "when must be two numbers"),
        ({"when": ("0", 2)}, TypeError, "when must be two numbers"),
        ({"when": 2}, TypeError, r"when must be \(start, end\)"),
        ({"when": (1, 2, 3)}, TypeError, r"when must be \(start, end\)"),
    ],
)
@pytest.mark.parametrize("kind", [Latency, Drop, SlowReader])
def test_a_wrong_scope_is_named(
    kind: Any, named: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"{kind.__name__}.*{text}"):
        kind(1, **named)


@pytest.mark.parametrize("kind", OF_ACCEPTING)
@pytest.mark.parametrize("name", ["direction", "probability", "connections", "when"])
def test_a_fault_of_accepting_has_no_scope(kind: type[Fault], name: str) -> None:
    given = (1.0,) if kind is AcceptDelay else ()
    with pytest.raises(TypeError, match=rf"{kind.__name__}\(\) got an unexpected.*'{name}'"):
        kind(*given, **{name: "up"})  # type: ignore[arg-type]


def servers(**arguments: Any) -> list[Any]:
    """The calls that make a server with these arguments."""
    return [
        lambda: rsock.Server(**arguments),
        lambda: rsock.Server(service=lambda conn: None, **arguments),
        lambda: rsock.Server(service=rsock.Accept(), **arguments),
    ]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (Latency, "faults|a class: give an instance"),
        ([Latency], "Latency is a class: give an instance of it"),
        ([Latency(0.1), Refuse], "Refuse is a class: give an instance of it"),
        (Latency(0.1), r"faults must be a list of faults, as in faults=\[Latency\(0.2\)\]"),
        ("latency:0.1", r"faults.*as in faults=\[Latency\(0.2\)\]"),
        (
            ["latency:0.1"],
            r"faults\[0\] must be a fault of rsock.faults, such as Latency\(0.2\) or parse\('lat",
        ),
        ([None], "faults.*a fault of rsock.faults"),
        ([[Latency(0.1)]], "faults.*a fault of rsock.faults"),
        (5, "faults.*a fault of rsock.faults"),
    ],
)
def test_what_is_no_list_of_faults_is_a_type_error_and_nothing_is_opened(
    given: Any, text: str
) -> None:
    before = held()
    for make in servers(faults=given):
        with pytest.raises(TypeError, match=text):
            make()
    given_back(before)


@pytest.mark.parametrize("fault", ONE_OF_EACH, ids=lambda fault: type(fault).__name__)
def test_a_fault_is_refused_by_a_server_on_which_it_can_do_nothing(
    fault: Fault, directory: Path
) -> None:
    datagrams = isinstance(fault, ON_DATAGRAMS_TOO + ON_DATAGRAMS_ONLY)
    streams = not isinstance(fault, ON_DATAGRAMS_ONLY)
    before = held()
    for transport, fits in [
        ("tcp", streams),
        ("unix", streams),
        ("udp", datagrams),
        ("unix-datagram", datagrams),
    ]:
        named: dict[str, Any] = {"transport": transport}
        if transport.startswith("unix"):
            named["path"] = str(directory / transport)
        if fits:
            assert list(rsock.Server(faults=[fault], **named).faults) == [fault]
            continue
        kind = "streams" if transport in ("tcp", "unix") else "datagrams"
        with pytest.raises(ValueError, match=f"^{re.escape(str(fault))}: not a fault of {kind}"):
            rsock.Server(faults=[fault], **named)
        assert not os.path.exists(named.get("path", ""))
    given_back(before)


@pytest.mark.parametrize(
    ("seed", "error"),
    [("7", TypeError), (True, TypeError), (1.5, TypeError), (-1, ValueError), (2**64, ValueError)],
)
def test_a_seed_is_an_int_of_64_bits(seed: Any, error: type[Exception]) -> None:
    before = held()
    for make in servers(seed=seed):
        with pytest.raises(error, match="seed"):
            make()
    given_back(before)

"""The text form of a fault says all of it, and is read again as the same fault."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import wait_until

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
    parse,
)
from rsock.faults._text import KINDS

SECONDS = st.floats(0, 1e7) | st.integers(0, 10**7) | st.integers(0, 10**6).map(lambda n: n / 1_000)
SIZE = st.integers(1, 2**53) | st.sampled_from([1_000, 1_024, 1_500, 65_536, 10**6, 2**20, 2**30])
BYTE_RATE = st.floats(1, 1e12) | SIZE
RATE = st.floats(0, 1)
SCOPE: dict[str, Any] = {
    "direction": st.sampled_from(["down", "up", "both"]),
    "probability": RATE,
    "connections": st.none()
    | st.integers(1, 2**63 - 1)
    | st.frozensets(st.integers(1, 30) | st.integers(1, 2**63 - 1), min_size=1, max_size=20),
    "when": st.none()
    | st.tuples(SECONDS, SECONDS | st.none()).filter(lambda w: w[1] is None or w[1] > w[0]),
}
AFTER = st.one_of(
    st.fixed_dictionaries({"after_bytes": st.integers(0, 2**53)}),
    st.fixed_dictionaries({"after_seconds": SECONDS}),
)


def of(kind: Any, scope: dict[str, Any] = SCOPE, **named: Any) -> st.SearchStrategy[Fault]:
    """Faults of a kind, each with some of the arguments that have a default."""
    needed = {
        each.name for each in fields(kind) if each.default.__class__.__name__ == "_MISSING_TYPE"
    }
    always = {name: strategy for name, strategy in named.items() if name in needed}
    sometimes = {name: strategy for name, strategy in named.items() if name not in needed} | scope
    return st.fixed_dictionaries(always, optional=sometimes).map(lambda given: kind(**given))


def after(kind: Any) -> st.SearchStrategy[Fault]:
    scope = st.fixed_dictionaries({}, optional=SCOPE)
    return st.tuples(AFTER, scope).map(lambda both: kind(**both[0], **both[1]))


SLICES = st.tuples(SIZE, SIZE).filter(lambda sizes: sizes[1] < sizes[0])
FAULTS: dict[type[Fault], st.SearchStrategy[Fault]] = {
    Latency: of(
        Latency,
        seconds=SECONDS,
        jitter=SECONDS,
        distribution=st.sampled_from(["uniform", "normal"]),
    )
    | of(Latency, seconds=SECONDS.filter(bool), distribution=st.just("lognormal"), jitter=SECONDS),
    Bandwidth: of(Bandwidth, bytes_per_second=BYTE_RATE, shared=st.booleans()),
    Slice: of(Slice, size=SIZE, delay=SECONDS) | SLICES.map(lambda sizes: Slice(*sizes)),
    CloseAfter: after(CloseAfter),
    Reset: after(Reset),
    Blackhole: of(Blackhole, after_seconds=SECONDS, for_seconds=SECONDS.filter(bool)),
    SlowClose: of(SlowClose, seconds=SECONDS),
    SlowReader: of(SlowReader, bytes_per_second=BYTE_RATE),
    Corrupt: of(Corrupt, rate=RATE),
    Garbage: of(Garbage, data=st.integers(1, 2**24) | st.binary(min_size=1, max_size=100)),
    Truncate: of(Truncate, after_bytes=st.integers(0, 2**53)),
    Refuse: of(Refuse, {}),
    Full: of(Full, {}),
    NeverAccept: of(NeverAccept, {}),
    AcceptDelay: of(AcceptDelay, {}, seconds=SECONDS),
    Drop: of(Drop, rate=RATE),
    Duplicate: of(Duplicate, rate=RATE),
    Reorder: of(Reorder, rate=RATE, window=st.integers(1, 1_000)),
}
ANY_FAULT = st.one_of(*FAULTS.values())


def test_faults_of_all_kinds_are_made_here() -> None:
    assert set(FAULTS) == set(KINDS.values())


@settings(database=None, deadline=None, max_examples=300)
@given(ANY_FAULT)
def test_the_text_of_a_fault_is_read_again_as_the_same_fault(fault: Fault) -> None:
    text = str(fault)
    assert parse(text) == fault
    assert str(parse(text)) == text
    assert " " not in text
    assert ";" not in text
    assert text.isprintable()
    assert parse(text.replace("±", "+-")) == fault


@settings(database=None, deadline=None)
@given(ANY_FAULT)
def test_the_repr_of_a_fault_makes_the_same_fault(fault: Fault) -> None:
    assert eval(repr(fault), dict(vars(faults))) == fault


@settings(database=None, deadline=None, max_examples=300)
@given(
    st.sampled_from([*KINDS, "", "latncy"]),
    st.text("0123456789.,:=+-±%~#;eE/ KMiBsmupdownidwhenafterdata'\"\\\n\x00é", max_size=30)
    | st.text(max_size=20),
)
def test_any_text_is_a_fault_or_a_value_error(kind: str, rest: str) -> None:
    try:
        fault = parse(f"{kind}:{rest}")
    except ValueError:
        return
    assert parse(str(fault)) == fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("latency:0.2±0.05,down", Latency(0.2, jitter=0.05)),
        ("latency:200ms+-50ms,normal,up", Latency(0.2, 0.05, "normal", direction="up")),
        ("latency:seconds=0.2,jitter=500us", Latency(0.2, jitter=0.0005)),
        (" latency : 2min , both ", Latency(120, direction="both")),
        ("bandwidth:1MiB/s", Bandwidth(2**20)),
        ("bandwidth:10Mbit/s,shared", Bandwidth(1_250_000, shared=True)),
        ("bandwidth:1.5KB", Bandwidth(1_500)),
        ("slice:100±20,delay=0.01", Slice(100, variation=20, delay=0.01)),
        ("close:after=5s", CloseAfter(after_seconds=5)),
        ("close:1h", CloseAfter(after_seconds=3_600)),
        ("reset:after=64KiB", Reset(after_bytes=65_536)),
        ("reset:after=0B,up", Reset(after_bytes=0, direction="up")),
        ("reset:after_seconds=5", Reset(after_seconds=5)),
        ("blackhole", Blackhole()),
        ("blackhole:after=2,for=500ms", Blackhole(2, 0.5)),
        ("slowclose:0.3ms", SlowClose(0.0003)),
        ("slowreader:10KiB/s", SlowReader(10_240)),
        ("corrupt:0.1%", Corrupt(0.001)),
        ("garbage:64KiB", Garbage(65_536)),
        ("garbage:data=HTTP/1.1%20500%0D%0A", Garbage(b"HTTP/1.1 500\r\n")),
        ("garbage:data=%C3%A9+é", Garbage("é+é".encode())),
        ("truncate:1_000", Truncate(1_000)),
        ("refuse", Refuse()),
        ("acceptdelay:500ms", AcceptDelay(0.5)),
        ("drop:10%,connections=3", Drop(0.1, connections=3)),
        ("drop:1,id=3", Drop(1, connections={3})),
        ("drop:1,id=1+4-6,probability=50%", Drop(1, connections=[1, 4, 5, 6], probability=0.5)),
        ("drop:1,when=2..5", Drop(1, when=(2, 5))),
        ("drop:1,when=500ms..", Drop(1, when=(0.5, None))),
        ("drop:1,when=..2", Drop(1, when=(0, 2))),
        ("reorder:0.1,window=5", Reorder(0.1, window=5)),
    ],
)
def test_a_text_is_read_as_documented(text: str, fault: Fault) -> None:
    assert parse(text) == fault


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Latency(0.2, jitter=0.05), "latency:0.2±0.05"),
        (Latency(5.0), "latency:5"),
        (Slice(1_500, 1_024), "slice:1500±1024"),
        (Bandwidth(1e6), "bandwidth:1MB/s"),
        (Bandwidth(1_234.5), "bandwidth:1234.5B/s"),
        (Reset(after_bytes=65_536), "reset:after=64KiB"),
        (Reset(after_bytes=7), "reset:after=7B"),
        (Reset(after_seconds=7, direction="down"), "reset:after=7s,down"),
        (Garbage(b"a b,c\n"), "garbage:data=a%20b%2Cc%0A"),
        (Drop(0.1, connections=range(1, 101)), "drop:0.1,id=1-100"),
        (Drop(0.1, connections=[3], when=(1, None)), "drop:0.1,id=3,when=1.."),
    ],
)
def test_a_fault_is_written_as_documented(fault: Fault, text: str) -> None:
    assert str(fault) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("latncy:0.2", "no kind 'latncy'; did you mean 'latency'"),
        ("Slow-Close:1", "did you mean 'slowclose'"),
        ("closeafter:5s", "did you mean 'close'"),
        ("", "there are latency, bandwidth"),
        ("qqq", "there are latency, bandwidth"),
        ("latency", "seconds is missing"),
        ("latency:jitter=3", "seconds is missing"),
        ("latency:fast", "no part 'fast'|must be a number of seconds such as 0.2 or 200ms"),
        ("latency:0.2,dwon", "no part 'dwon'; did you mean 'down'"),
        ("latency:dwon", "no part 'dwon'; did you mean 'down'"),
        ("latency:0.2,probabilty=1", "no parameter 'probabilty'; did you mean 'probability'"),
        ("latency:200±50ms", "give both numbers a unit, or none"),
        ("latency:0.2,seconds=3", "seconds is given twice"),
        ("latency:0.2,up,down", "direction is given twice"),
        ("latency:0.2,,up", "a part is missing beside a comma"),
        ("latency:0.2;reset:5s", "one text is one fault"),
        ("latency:-1", r"Latency\(seconds=-1\): seconds must be between"),
        ("latency:0.2kb", "must be a number of seconds.*units are us"),
        ("bandwidth:10mb/s", "must be bytes per second.*units are GiB"),
        ("slice:1.5", "a whole number, not '1.5'"),
        ("reset:after=64", "must have a unit: 64B for bytes, or 64s for seconds"),
        ("reset:after=64q", "must be bytes such as 64KiB or seconds such as 5s"),
        ("reset", "one of after_bytes and after_seconds, not neither"),
        ("reset:after_bytes=1,after_seconds=1", "not both"),
        ("corrupt:120%", r"Corrupt\(rate=1.2\): rate must be between 0 and 1"),
        ("garbage:data=100%", "a % begins an escape such as %2C"),
        ("refuse:up", "no part 'up'; there is none"),
        ("drop:1,id=0", "id: must be numbers from 1"),
        ("drop:1,id=5-3", "id: must be numbers from 1"),
        ("drop:1,id=1-99999999999", "id: must be numbers from 1, at most 100000"),
        ("drop:1,id=a", "id: must be numbers of connections such as 3"),
        ("drop:1,when=2", "when: must be a window of seconds such as 2..5"),
        ("drop:1,when=5..2", "when must end after its start"),
        ("drop:1e999999999", "must be a rate"),
    ],
)
def test_a_wrong_text_is_a_value_error_that_says_what_was_meant(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"^fault .*({hint})"):
        parse(text)


@pytest.mark.parametrize("value", [None, b"latency:1", 1, Latency(1)])
def test_what_is_no_text_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="text must be a str such as 'latency:0.2', not"):
        parse(value)


def test_an_equal_fault_has_an_equal_hash_and_text() -> None:
    assert Latency(1) == Latency(1.0)
    assert hash(Latency(1)) == hash(Latency(1.0))
    assert str(Latency(1)) == str(Latency(1.0))
    assert Latency(math.pi) != Latency(3)


def test_a_record_names_a_fault_by_its_text() -> None:
    fault = Reset(after_bytes=0, connections=1)
    with rsock.Server(faults=[fault]) as server:
        # The reset may come before connect has returned.
        with pytest.raises(ConnectionResetError), server.client() as client:
            client.recv(1)
        wait_until(lambda: server.ledger.closed)
        assert server.ledger.closed[0].closed_by == "fault"
        assert str(fault) in repr(server.ledger.closed[0])

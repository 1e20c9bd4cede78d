"""A toxic of toxiproxy, as its HTTP API describes it, becomes the faults that do the same."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import LATE, dial, read_to_end, was_reset

import rsock
from rsock.faults import (
    Bandwidth,
    Blackhole,
    CloseAfter,
    Fault,
    Latency,
    Reset,
    Slice,
    SlowClose,
    from_toxic,
)


@pytest.mark.parametrize(
    ("toxic", "faults"),
    [
        ('{"type": "latency", "attributes": {"latency": 200}}', [Latency(0.2)]),
        (
            '{"name": "slow", "type": "latency", "stream": "upstream", "toxicity": 0.5,'
            ' "attributes": {"latency": 1000, "jitter": 250}}',
            [Latency(1, 0.25, direction="up", probability=0.5)],
        ),
        ('{"type": "bandwidth", "attributes": {"rate": 20}}', [Bandwidth(20_000)]),
        ('{"type": "slow_close", "attributes": {"delay": 300}}', [SlowClose(0.3)]),
        ('{"type": "timeout", "attributes": {"timeout": 0}}', [Blackhole(direction="down")]),
        ('{"type": "timeout", "toxicity": 0.1}', [Blackhole(direction="down", probability=0.1)]),
        (
            '{"type": "timeout", "stream": "upstream", "attributes": {"timeout": 1500}}',
            [CloseAfter(after_seconds=1.5, direction="up"), Blackhole(direction="up")],
        ),
        ('{"type": "reset_peer"}', [Reset(after_bytes=0, direction="down")]),
        (
            '{"type": "reset_peer", "attributes": {"timeout": 2000}}',
            [Reset(after_seconds=2, direction="down")],
        ),
        (
            '{"type": "slicer",'
            ' "attributes": {"average_size": 64, "size_variation": 32, "delay": 500}}',
            [Slice(64, 32, 0.0005)],
        ),
        (
            '{"type": "limit_data", "attributes": {"bytes": 4096}}',
            [CloseAfter(after_bytes=4_096, direction="down")],
        ),
        (
            '{"type": "latency", "toxicity": 0, "attributes": {}}',
            [Latency(0, probability=0)],
        ),
    ],
)
def test_a_toxic_is_its_faults(toxic: str, faults: list[Fault]) -> None:
    assert from_toxic(json.loads(toxic)) == faults


@pytest.mark.parametrize(
    ("toxic", "error", "hint"),
    [
        ({}, ValueError, "no type None; there are latency"),
        ({"type": "limitdata"}, ValueError, "did you mean 'limit_data'"),
        ({"type": ["latency"]}, ValueError, "no type"),
        ({"type": "latency", "steam": "upstream"}, ValueError, "did you mean 'stream'"),
        ({"type": "latency", "stream": "up"}, ValueError, "no stream 'up'"),
        ({"type": "latency", "stream": None}, ValueError, "no stream None"),
        ({"type": "latency", "attributes": {"delay": 1}}, ValueError, "no attribute 'delay'"),
        ({"type": "latency", "attributes": {"latency": "1"}}, TypeError, "must be a number"),
        ({"type": "latency", "attributes": {"latency": True}}, TypeError, "must be a number"),
        ({"type": "latency", "attributes": [1]}, TypeError, "attributes must be a dict"),
        ({"type": "latency", "attributes": {"latency": -1}}, ValueError, "'latency': Latency"),
        ({"type": "latency", "toxicity": 2}, ValueError, "probability must be between 0 and 1"),
        ({"type": "latency", "toxicity": "1"}, TypeError, "probability must be a number"),
        ({"type": "bandwidth"}, ValueError, "bytes_per_second must be between 1"),
        ({"type": "slicer"}, ValueError, "size must be between 1"),
        (
            {"type": "timeout", "toxicity": 0.5, "attributes": {"timeout": 1}},
            ValueError,
            "with a toxicity below 1 only a timeout of 0",
        ),
        ("latency", TypeError, "toxic must be a dict, as from JSON, not str"),
        (None, TypeError, "toxic must be a dict, as from JSON, not NoneType"),
    ],
)
def test_a_wrong_toxic_is_an_error_that_names_it(
    toxic: Any, error: type[Exception], hint: str
) -> None:
    with pytest.raises(error, match=hint):
        from_toxic(toxic)


@contextmanager
def through(toxic: dict[str, Any]) -> Iterator[socket.socket]:
    """A peer of an echo server behind a forwarder with a toxic."""
    with (
        rsock.Server() as echo,
        rsock.Server(service=rsock.Forward(echo), faults=from_toxic(toxic)) as forward,
        dial(forward.address, timeout=LATE) as peer,
    ):
        yield peer


def test_a_timeout_stops_the_data_and_then_closes_the_connection() -> None:
    # Before the connect: its time begins with the connection.
    began = time.monotonic()
    with through({"type": "timeout", "attributes": {"timeout": 300}}) as peer:
        peer.sendall(b"lost")
        assert read_to_end(peer) == b""
        assert time.monotonic() - began >= 0.3


def test_limit_data_passes_that_many_bytes_and_then_closes_the_connection() -> None:
    with through({"type": "limit_data", "attributes": {"bytes": 100}}) as peer:
        peer.sendall(bytes(1_000))
        assert read_to_end(peer) == bytes(100)


def test_reset_peer_resets_an_idle_connection() -> None:
    with through({"type": "reset_peer", "attributes": {"timeout": 200}}) as peer:
        assert was_reset(peer)


def test_a_slow_close_delays_the_end() -> None:
    with through({"type": "slow_close", "attributes": {"delay": 300}}) as peer:
        began = time.monotonic()
        peer.sendall(b"hello")
        peer.shutdown(socket.SHUT_WR)
        assert read_to_end(peer) == b"hello"
        assert time.monotonic() - began >= 0.3

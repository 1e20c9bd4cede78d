"""The faults of a preset are those that the documentation lists, and the network is like that."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from support.project import ROOT

import rsock
from rsock.faults import Fault, parse, preset, presets

GUIDE = ROOT / "docs" / "guide" / "faults.md"


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_a_list_of_faults(name: str) -> None:
    found = preset(name)
    assert found
    assert all(isinstance(fault, Fault) for fault in found)
    assert [parse(str(fault)) for fault in found] == found
    # A list of its own: a caller may change it.
    found.clear()
    assert preset(name)


def test_the_guide_lists_the_faults_of_each_preset() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \|", GUIDE.read_text(), re.M)
    listed = {name: re.findall(r"`([^`]+)`", faults) for name, faults in rows if name in presets()}
    assert listed == {name: [str(fault) for fault in preset(name)] for name in presets()}


@pytest.mark.parametrize("name", presets())
def test_a_server_takes_a_preset(name: str) -> None:
    transport: Any = {"transport": "udp"} if name == "lossy-datagrams" else {}
    with rsock.Server(faults=preset(name), **transport) as server:
        assert server.state == "serving"


def test_a_round_trip_over_3g_takes_at_least_its_time() -> None:
    with rsock.Server(faults=preset("3g")) as server, server.client(timeout=30) as client:
        began = time.monotonic()
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"
        assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    ("name", "error", "hint"),
    [
        ("3G", ValueError, "no preset '3G'; did you mean '3g'"),
        ("flaky_wifi", ValueError, "did you mean 'flaky-wifi'"),
        ("satelite", ValueError, "did you mean 'satellite'"),
        ("", ValueError, "there are dial-up, 2g"),
        (None, TypeError, "name must be a str such as '3g', not NoneType"),
        (["3g"], TypeError, "name must be a str such as '3g', not list"),
    ],
)
def test_a_wrong_name_is_an_error_that_says_what_was_meant(
    name: Any, error: type[Exception], hint: str
) -> None:
    with pytest.raises(error, match=hint):
        preset(name)

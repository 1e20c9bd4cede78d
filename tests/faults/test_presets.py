"""The faults of a preset are those that the documentation lists, and the network is like that."""

from __future__ import annotations

from typing import Any

import pytest

from rsock.faults import Fault, parse, preset, presets


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_a_list_of_faults(name: str) -> None:
    found = preset(name)
    assert found
    assert all(isinstance(fault, Fault) for fault in found)
    assert [parse(str(fault)) for fault in found] == found
    # A list of its own: a caller may change it.
    found.clear()
    assert preset(name)


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

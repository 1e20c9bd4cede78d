"""Checks of what callers give: the fields of the settings classes, paths.

A check raises TypeError or ValueError; the message has class, field and value as the caller would
write them. It must never change a value. What each field may hold is in `_settings.py`.
"""

import os
from collections.abc import Sequence
from typing import Any

__all__ = [
    "bad_value",
    "check_bool",
    "check_groups",
    "check_int",
    "check_keepalive",
    "check_mode",
    "check_number",
    "check_path",
    "check_seconds",
    "check_word",
    "groups",
    "wrong_type",
]


def bad_value(owner: object, name: str, rule: str) -> ValueError:
    """Return the error for a field whose value breaks `rule`."""
    return ValueError(f"{_spelled(owner, name)}: {name} {rule}")


def wrong_type(owner: object, name: str, expected: str) -> TypeError:
    """Return the error for a field whose value is not of the `expected` type."""
    got = type(getattr(owner, name)).__name__
    return TypeError(f"{_spelled(owner, name)}: {name} must be {expected}, not {got}")


def check_bool(owner: object, name: str, *, optional: bool = False) -> None:
    """Check a bool; with `optional`, None is allowed too."""
    value = getattr(owner, name)
    if not isinstance(value, bool) and not (optional and value is None):
        raise wrong_type(owner, name, "True, False or None" if optional else "True or False")


def check_int(
    owner: object, name: str, lowest: int, highest: int, *, optional: bool = True
) -> None:
    """Check an int between `lowest` and `highest`; with `optional`, None is allowed too."""
    value = getattr(owner, name)
    if optional and value is None:
        return
    # A bool is an int to Python, but a count that is True is a mistake.
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(owner, name, "an int or None" if optional else "an int")
    if not lowest <= value <= highest:
        raise bad_value(owner, name, f"must be between {lowest} and {highest}")


def check_keepalive(owner: object, name: str, highest: tuple[int, int, int]) -> None:
    """Check a bool, or a tuple of three ints from 1 to those of `highest`; None is allowed."""
    value = getattr(owner, name)
    if value is None or isinstance(value, bool):
        return
    if (
        not isinstance(value, tuple)
        or len(value) != 3
        or any(isinstance(part, bool) or not isinstance(part, int) for part in value)
    ):
        rule = "True, False, None or three ints, (idle, interval, count)"
        raise wrong_type(owner, name, rule)
    if not all(1 <= part <= most for part, most in zip(value, highest, strict=True)):
        raise bad_value(owner, name, f"must be from (1, 1, 1) to {highest}")


def check_mode(owner: object, name: str) -> None:
    """Check the permission bits of a file; None is allowed."""
    mode = getattr(owner, name)
    if mode is None:
        return
    if isinstance(mode, bool) or not isinstance(mode, int):
        raise wrong_type(owner, name, "an int such as 0o600, or None")
    if not 0 <= mode <= 0o777:
        # Writing 600 for 0o600 is the usual mistake, so the message shows the value in octal.
        raise bad_value(owner, name, f"must be between 0o0 and 0o777, which {oct(mode)} is not")


def check_groups(owner: object, name: str) -> None:
    """Check multicast groups: one or several, each with or without an interface; or None."""
    value = getattr(owner, name)
    if value is None:
        return
    if not isinstance(value, str | list | tuple):
        raise wrong_type(owner, name, "a multicast group, (group, interface), a list, or None")
    for address, interface in groups(value):
        if not isinstance(address, str) or not isinstance(interface, str | int | None):
            raise wrong_type(owner, name, "a multicast group or (group, interface)")
        if not _is_multicast(address):
            raise bad_value(owner, name, f"must name a multicast group, which {address!r} is not")


def groups(value: Any) -> list[tuple[Any, Any]]:
    """Return multicast groups as pairs of a group and an interface, which may be None.

    `value` is what `check_groups` has found right, or is about to check: one group or several, each
    with or without an interface; or None.
    """
    if value is None:
        return []
    several = [value] if isinstance(value, str) or _is_pair(value) else value
    return [each if _is_pair(each) else (each, None) for each in several]


def _is_pair(value: object) -> bool:
    """Whether this is a group with an interface, and not two groups."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and not isinstance(value[1], tuple)
        and not (isinstance(value[1], str) and _is_multicast(value[1]))
    )


def _is_multicast(text: str) -> bool:
    # Only programs that name a group need the module.
    from ipaddress import ip_address

    try:
        return ip_address(text.partition("%")[0]).is_multicast
    except ValueError:
        return False


def check_seconds(
    owner: object, name: str, lowest: float, highest: int, *, optional: bool = True
) -> float | None:
    """Check a number of seconds and return it; with `optional`, None is allowed too."""
    value = getattr(owner, name)
    if value is None and optional:
        return None
    kind = "a number of seconds or None" if optional else "a number of seconds"
    return check_number(owner, name, lowest, highest, kind=kind, unit=" seconds")


def check_rate(owner: object, name: str, highest: float) -> None:
    """Check a number of events a second; None is allowed, 0 is not."""
    value = getattr(owner, name)
    if value is None:
        return
    if check_number(owner, name, 0, highest, kind="a number or None", unit=" a second") == 0:
        raise bad_value(owner, name, "must be more than 0; None is no limit")


def check_number(
    owner: object,
    name: str,
    lowest: float,
    highest: float,
    *,
    kind: str = "a number",
    unit: str = "",
) -> float:
    """Check an int or a float between `lowest` and `highest`, and return it."""
    value: float = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(owner, name, kind)
    # Written this way because NaN compares as false with everything, and must be refused.
    if not lowest <= value <= highest:
        raise bad_value(owner, name, f"must be between {lowest} and {highest}{unit}")
    return value


def check_path(path: object) -> None:
    """Check the path that a function is given: open() takes a number too, and closes that file."""
    if not isinstance(path, str | bytes | os.PathLike):
        kind = type(path).__name__
        raise TypeError(f"path must be a path: str, bytes or os.PathLike, not {kind}: {path!r:.80}")


def check_word(owner: object, name: str, words: Sequence[str]) -> None:
    """Check one of several words."""
    value = getattr(owner, name)
    *most, last = map(repr, words)
    allowed = f"{', '.join(most)} or {last}"
    if not isinstance(value, str):
        raise wrong_type(owner, name, allowed)
    if value not in words:
        raise bad_value(owner, name, f"must be {allowed}")


def _spelled(owner: object, name: str) -> str:
    return f"{type(owner).__name__}({name}={getattr(owner, name)!r})"

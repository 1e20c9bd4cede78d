"""What a test reads from an exception.

Must never swallow one: a call that raises nothing fails the test.
"""

from __future__ import annotations

from collections.abc import Callable


def error_number(call: Callable[[], object]) -> int | None:
    """The `errno` of the OSError that `call` raises."""
    try:
        call()
    except OSError as error:
        return error.errno
    raise AssertionError("nothing was raised")


def raised(call: Callable[[], object]) -> BaseException:
    """The exception that `call` raises."""
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def partial(error: BaseException) -> bytes:
    """The bytes that a call had received when this exception ended it."""
    name = "partial"
    got = getattr(error, name)
    assert isinstance(got, bytes)
    return got

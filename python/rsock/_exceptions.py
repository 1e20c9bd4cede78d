"""The exceptions rsock raises for what was done to it; the compiled module raises them from here.

What the system says stays an `OSError`, a bad argument a TypeError, ValueError or OverflowError:
neither must ever get a class of its own here.
"""

from typing import Any

__all__ = ["IncompleteRead", "RsockError", "StateError"]


class RsockError(Exception):
    """The base of rsock's own exceptions."""

    # So that a traceback shows the name to be written in `except`.
    __module__ = "rsock"


class StateError(RsockError, RuntimeError):
    """A step that the present state does not allow, such as starting a server that has stopped."""

    __module__ = "rsock"


class IncompleteRead(RsockError, EOFError):
    """The peer finished in the middle of a message.

    `partial` holds what had arrived of it. Those bytes have been taken from the stream.
    """

    __module__ = "rsock"

    partial: bytes

    def __init__(self, message: str, partial: bytes) -> None:
        super().__init__(message)
        self.partial = partial

    # BaseException would rebuild it from the message alone.
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.partial), self.__dict__

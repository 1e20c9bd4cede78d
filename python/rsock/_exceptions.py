"""rsock's own exceptions; the compiled module imports them from here.

An error of the system stays an `OSError`, a bad argument a TypeError, ValueError or OverflowError:
neither must ever get a class here.
"""

from typing import Any

__all__ = ["IncompleteRead", "RsockError", "StateError"]


class RsockError(Exception):
    """The base of rsock's own exceptions."""

    # So that a traceback shows the name that `except` needs.
    __module__ = "rsock"


class StateError(RsockError, RuntimeError):
    """A step that the current state does not allow, such as starting a server that has stopped."""

    __module__ = "rsock"


class IncompleteRead(RsockError, EOFError):
    """The peer finished in the middle of a message.

    `partial` holds the bytes of it that had arrived. They have been taken from the stream.
    """

    __module__ = "rsock"

    partial: bytes

    def __init__(self, message: str, partial: bytes) -> None:
        super().__init__(message)
        self.partial = partial

    # BaseException would unpickle it from the message alone.
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.partial), self.__dict__


class StoppedStarting(BaseException):
    """A signal arrived during the `start()` of `Server.run`. No other code ever sees it."""

"""What a command that forwards makes of its TARGET. It must never connect to it."""

import functools
from typing import Any

from .._rsock import Forward
from ._addresses import Address

__all__ = ["forwarding"]


def forwarding(
    target: Address, timeout: float | None, **settings: Any
) -> functools.partial[Forward]:
    """Return what makes the service: each server that is started gets one of its own.

    `timeout` None is the usual one of Forward; `settings` are further keywords of it.
    """
    if timeout is not None:
        settings["connect_timeout"] = timeout
    if target.path is not None:
        return functools.partial(Forward, path=target.path, **settings)
    return functools.partial(Forward, target.host, target.port, **settings)

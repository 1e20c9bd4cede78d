"""The targets of fixtures that forward. Owns what a target may be; must never connect to one."""

import pathlib
from typing import Any

from .._rsock import Forward

__all__ = ["forward_to"]


def forward_to(target: Any, **options: Any) -> Forward:
    """Return the Forward to a pair, "host:port", a Server, or the Path of a Unix socket."""
    if isinstance(target, str):
        host, colon, port = target.rpartition(":")
        if not colon or "/" in target or not host:
            raise ValueError(
                f"target {target!r}: must be a (host, port) pair, 'host:port', a Server or, of a "
                f"Unix socket, a pathlib.Path"
            )
        number = int(port) if port.isascii() and port.isdigit() else port
        return Forward(host.removeprefix("[").removesuffix("]"), number, **options)
    if isinstance(target, pathlib.PurePath):
        return Forward(path=target, **options)
    return Forward(target, **options)

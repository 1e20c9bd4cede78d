"""What was typed, as the commands get it.

This file owns the names of the values. It must not know how they are parsed.
"""

import argparse
from collections.abc import Callable

from ._addresses import Address

__all__ = ["Arguments"]


class Arguments(argparse.Namespace):
    """The arguments of one run. Each command sets those that it has options for."""

    command: Callable[["Arguments"], int]
    json: bool
    # Of the commands that serve.
    service: str
    listen: Address
    target: Address
    workers: int | None
    drain: float
    name: str | None
    ledger: str | None
    plain: bool
    udp: bool
    allow_external: bool
    # Of the others.
    to: list[str]
    path: str | None
    timeout: float | None
    connections: int

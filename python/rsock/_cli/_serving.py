"""The options of the commands that serve.

This file owns their names and their help. It must not load what only a run needs.
"""

import argparse

from .._fault import Fault
from .._settings import Limits, SocketOptions
from ._addresses import Address
from ._namespace import Arguments
from ._options import Addresses, add_faults, add_fields, count, descriptor, seconds

__all__ = ["Serving", "add_listen", "add_serving"]


class Serving(Arguments):
    """The arguments of a command that serves."""

    listen: list[Address]
    fd: list[int]
    json: bool
    plain: bool
    ledger: str | None
    drain: float
    udp: bool
    allow_external: bool
    workers: int | None
    name: str | None
    faults: list[Fault]
    seed: int | None


def add_listen(parser: argparse.ArgumentParser) -> None:
    """Add the addresses to listen on."""
    parser.add_argument(
        "listen",
        nargs="*",
        action=Addresses,
        default=[],
        metavar="LISTEN",
        help="[HOST:]PORT, or a path with a /; one or more [127.0.0.1:0]",
    )


def add_serving(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command that serves."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object per line")
    form.add_argument(
        "--plain", action="store_true", help="print a line for each connection, as in a pipe"
    )
    parser.add_argument(
        "--ledger",
        metavar="FILE",
        help="append the account of each connection to FILE (JSONL)",
    )
    parser.add_argument(
        "--drain",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="time for open connections to finish after Ctrl-C [1]",
    )
    parser.add_argument(
        "--fd",
        type=descriptor,
        action="append",
        default=[],
        metavar="N",
        help="serve the listening socket N, which this process inherited",
    )
    parser.add_argument(
        "--udp",
        action="store_true",
        help="serve datagrams (outside the loopback: --allow-external)",
    )
    parser.add_argument("--allow-external", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=count, metavar="N", help="threads [as the load requires]")
    parser.add_argument("--name", help="the server's name in error messages")
    add_faults(parser)
    add_fields(parser, Limits, SocketOptions)

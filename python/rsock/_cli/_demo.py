"""`rsock demo`: its arguments. It must not load what only a run needs."""

import argparse

from ._namespace import Arguments as Base
from ._options import count

__all__ = ["Arguments", "add_arguments", "run"]


class Arguments(Base):
    """The arguments of `rsock demo`."""

    connections: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "rsock demo [--connections N]"
    parser.description = (
        "Open many connections at once to a server in this process, echo through\n"
        "each, compare every byte, and show the account."
    )
    parser.add_argument(
        "--connections", type=count, default=1_000, metavar="N", help="how many [1000]"
    )


def run(arguments: Arguments) -> int:
    """Run the demonstration."""
    from ._demonstration import demo

    return demo(arguments.connections)

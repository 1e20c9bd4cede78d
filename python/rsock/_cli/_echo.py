"""`rsock echo`: its arguments. It must not load what only a run needs."""

import argparse

from .._rsock import Echo
from ._serving import Serving as Arguments
from ._serving import add_listen, add_serving

__all__ = ["Arguments", "add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "rsock echo [OPTION ...] [LISTEN ...]"
    parser.description = "Send back all data that arrives (RFC 862), until Ctrl-C."
    add_listen(parser)
    add_serving(parser)


def run(arguments: Arguments) -> int:
    """Echo until a signal; drain, and show the account."""
    from ._running import serve

    return serve(arguments, arguments.listen, Echo)

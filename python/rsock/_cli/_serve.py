"""`rsock serve`: its arguments. It must not load what only a run needs."""

import argparse

from ._options import Print
from ._serving import Serving, add_listen, add_serving

__all__ = ["Arguments", "add_arguments", "run"]


class Arguments(Serving):
    """The arguments of `rsock serve`."""

    service: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "rsock serve [OPTION ...] SERVICE [LISTEN ...]"
    parser.description = "Serve each connection with SERVICE, until Ctrl-C."
    parser.add_argument(
        "service",
        metavar="SERVICE",
        help="a name (see --help-services), a call such as 'Quote(\"hi\")', or"
        " MODULE:FUNCTION, called with each connection",
    )
    parser.add_argument("--help-services", action=Print, text=_services, help=argparse.SUPPRESS)
    add_listen(parser)
    add_serving(parser)


def run(arguments: Arguments) -> int:
    """Serve by a service or a function, until a signal; drain, and show the account."""
    from . import _services
    from ._running import serve

    return serve(arguments, arguments.listen, lambda: _services.find(arguments.service))


def _services() -> str:
    from ._services import explained

    return explained()

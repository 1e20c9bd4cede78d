"""`rsock record`: its arguments. It must not load what only a run needs."""

import argparse

from ._addresses import Address
from ._errors import UsageError
from ._options import add_more, seconds
from ._serving import Serving, add_serving
from ._targets import forwarding

__all__ = ["Arguments", "add_arguments", "run"]


class Arguments(Serving):
    """The arguments of `rsock record`."""

    address: str
    target: str
    file: str
    redact: list[bytes]
    timeout: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "rsock record [OPTION ...] LISTEN TARGET FILE"
    parser.description = (
        "Forward each connection to LISTEN on to TARGET, until Ctrl-C, and write what\n"
        "crosses it to FILE, which `rsock replay` plays."
    )
    parser.add_argument(
        "address", metavar="LISTEN", help="as TARGET: [HOST:]PORT, or a path with a /"
    )
    parser.add_argument("target", metavar="TARGET", help=argparse.SUPPRESS)
    parser.add_argument("file", metavar="FILE", help="the recording; an older one is replaced")
    parser.add_argument(
        "--redact",
        type=str.encode,
        action="append",
        default=[],
        metavar="REGEX",
        help="write [redacted] for what it matches, or for its groups",
    )
    add_more(
        parser,
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        about="how long connecting to TARGET may take [10]",
    )
    add_serving(parser)


def run(arguments: Arguments) -> int:
    """Record until a signal; drain, and show the account."""
    from ._running import serve

    made = forwarding(
        Address.parse(arguments.target),
        arguments.timeout,
        recording=arguments.file,
        redact=arguments.redact,
    )
    try:
        # Before anything is opened: a pattern may be wrong.
        made()
    except ValueError as error:
        raise UsageError(str(error)) from None
    return serve(arguments, [Address.parse(arguments.address)], made)

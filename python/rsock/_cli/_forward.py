"""`rsock forward`: its arguments. It must not load what only a run needs."""

import argparse
from typing import Any, Literal

from ._addresses import Address
from ._errors import UsageError
from ._options import Addresses, add_more, seconds
from ._serving import Serving, add_serving
from ._targets import forwarding

__all__ = ["Arguments", "add_arguments", "run"]


class Arguments(Serving):
    """The arguments of `rsock forward`."""

    addresses: list[Address]
    timeout: float | None
    send_proxy: Literal["v1", "v2"] | None
    tls: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "rsock forward [OPTION ...] LISTEN TARGET"
    parser.description = "Forward each connection to LISTEN on to TARGET, until Ctrl-C."
    parser.add_argument(
        "addresses",
        nargs="*",
        action=Addresses,
        default=[],
        metavar="LISTEN TARGET",
        help="each [HOST:]PORT, or a path with a /; a LISTEN of 0 is a free port",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="how long connecting to TARGET may take [10]",
    )
    add_more(
        parser,
        "--send-proxy",
        choices=("v1", "v2"),
        about="name each client to TARGET, by a header of the PROXY protocol",
    )
    add_more(
        parser,
        "--tls",
        action="store_true",
        about="reach TARGET by TLS, with a certificate that the system's authorities signed",
    )
    add_serving(parser)


def run(arguments: Arguments) -> int:
    """Pass connections on, until a signal; drain, and show the account."""
    from ._running import serve

    # With a descriptor to listen on, LISTEN can be left out.
    number = len(arguments.addresses)
    if number != 2 and not (number == 1 and arguments.fd):
        raise UsageError(f"forward takes LISTEN and TARGET, not {number or 'no'} addresses")
    *listen, target = arguments.addresses
    settings: dict[str, Any] = {}
    if arguments.send_proxy is not None:
        settings["proxy_protocol"] = arguments.send_proxy
    if arguments.tls:
        settings["tls"] = True
    return serve(arguments, listen, forwarding(target, arguments.timeout, **settings))

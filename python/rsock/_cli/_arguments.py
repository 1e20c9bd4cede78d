"""The parser: the commands, their options, and their help.

Each `--help` has to fit a screen of 80 columns and 24 lines. This file must not load a command's
own module before the command runs.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .. import __version__
from .._settings import Limits, SocketOptions
from . import _fields
from ._addresses import Address
from ._errors import UsageError
from ._namespace import Arguments

__all__ = ["parse"]


def parse(argv: Sequence[str]) -> Arguments:
    """Read the arguments. Raises UsageError for wrong ones, and SystemExit after `--help`."""
    return _parser().parse_args(argv, Arguments())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise, where argparse would print the usage and exit: `main` owns the exit code."""
        raise UsageError(f"{message}\nTry '{self.prog} --help'.")


def _parser() -> argparse.ArgumentParser:
    parser = _made(
        _Parser,
        prog="rsock",
        usage="rsock COMMAND [ARGUMENT ...]",
        description="Real sockets, run by Rust threads.",
        epilog="rsock COMMAND --help explains a command. `python -m rsock` works the same.",
    )
    parser.add_argument("--version", action="version", version=f"rsock {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, prog="rsock"
    )

    echo = _made(
        commands.add_parser,
        "echo",
        help="send back all data",
        usage="rsock echo [OPTION ...] [LISTEN]",
        description="Send back all data that arrives (RFC 862), until Ctrl-C.",
    )
    _add_listen(echo)
    _add_serving(echo)
    echo.set_defaults(command=_serve, service="Echo")

    serve = _made(
        commands.add_parser,
        "serve",
        help="serve with a service, or with your own function",
        usage="rsock serve [OPTION ...] SERVICE [LISTEN]",
        description="Serve each connection with SERVICE, until Ctrl-C.",
    )
    serve.add_argument(
        "service",
        metavar="SERVICE",
        help="a name (--help-services lists them), a call such as 'Greeting(\"hello\")', or"
        " MODULE:FUNCTION, which is called with each connection",
    )
    serve.add_argument("--help-services", action=_Print, text=_services, help=argparse.SUPPRESS)
    _add_listen(serve)
    _add_serving(serve)
    serve.set_defaults(command=_serve)

    forward = _made(
        commands.add_parser,
        "forward",
        help="forward connections to another address",
        usage="rsock forward [OPTION ...] LISTEN TARGET",
        description="Forward each connection to LISTEN on to TARGET, until Ctrl-C.",
    )
    forward.add_argument(
        "listen",
        type=_address,
        metavar="LISTEN",
        help="[HOST:]PORT, or a path with a /; 0 is a free port",
    )
    forward.add_argument(
        "target", type=_address, metavar="TARGET", help="[HOST:]PORT, or a path with a /"
    )
    forward.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="how long connecting to TARGET may take [10]",
    )
    _add_serving(forward)
    forward.set_defaults(command=_forward)

    connect = _made(
        commands.add_parser,
        "connect",
        help="talk to a server, from a terminal or in a pipe",
        usage="rsock connect [OPTION ...] HOST PORT",
        description="Send standard input, and print what comes back.\n\n"
        "The end of the input (Ctrl-D) ends our side, not the connection: the command\n"
        "ends when the server has finished, too.",
    )
    connect.add_argument(
        "to", nargs="*", metavar="HOST PORT", help="or one word: HOST:PORT, [::1]:PORT, a path"
    )
    connect.add_argument("--path", help="connect to a Unix socket instead")
    connect.add_argument(
        "--udp", action="store_true", help="send each line or piece of the input as a datagram"
    )
    connect.add_argument(
        "--timeout", type=_some_seconds, metavar="SECONDS", help="how long connecting may take"
    )
    _add_fields(connect, SocketOptions)
    connect.set_defaults(command=_connect)

    limits = _made(
        commands.add_parser,
        "limits",
        help="show the system's limits on a process",
        usage="rsock limits [--json]",
        description="Show how many descriptors, ports and waiting connections are allowed.",
    )
    limits.add_argument("--json", action="store_true", help="print one JSON object")
    limits.set_defaults(command=_limits)

    demo = _made(
        commands.add_parser,
        "demo",
        help="open a thousand connections and check every byte",
        usage="rsock demo [--connections N]",
        description="Open many connections at once to a server in this process, echo through\n"
        "each, compare every byte, and show the account.",
    )
    demo.add_argument(
        "--connections", type=_count, default=1_000, metavar="N", help="how many [1000]"
    )
    demo.set_defaults(command=_demo)
    return parser


def _add_listen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "listen",
        type=_address,
        nargs="?",
        default="127.0.0.1:0",
        metavar="LISTEN",
        help="[HOST:]PORT, or a path with a / in it [a free port of 127.0.0.1]",
    )


def _add_serving(parser: argparse.ArgumentParser) -> None:
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
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="time for open connections to finish after Ctrl-C [1]",
    )
    parser.add_argument("--udp", action="store_true", help="serve datagrams")
    parser.add_argument(
        "--allow-external", action="store_true", help="allow a UDP server outside the loopback"
    )
    parser.add_argument(
        "--workers", type=_count, metavar="N", help="threads [as the load requires]"
    )
    parser.add_argument("--name", help="the server's name in error messages")
    _add_fields(parser, Limits, SocketOptions)


def _add_fields(
    parser: argparse.ArgumentParser, *kinds: type[Limits] | type[SocketOptions]
) -> None:
    """Add an option for each field of these classes, and a line of help on all of them."""
    for kind in kinds:
        prefix = _fields.prefix(kind)
        _fields.add(parser, kind)
        parser.add_argument(
            f"--help-{prefix}",
            action=_Print,
            text=functools.partial(_fields.explanation, kind),
            help=f"list the options --{prefix}-…, those of rsock.{kind.__name__}",
        )


def _made(
    make: Callable[..., argparse.ArgumentParser], *args: Any, **options: Any
) -> argparse.ArgumentParser:
    parser = make(
        *args,
        **options,
        add_help=False,
        # An option that is added later must not change the meaning of `--li`.
        allow_abbrev=False,
        formatter_class=functools.partial(
            argparse.RawDescriptionHelpFormatter, max_help_position=22
        ),
    )
    parser.add_argument("-h", "--help", action="help", help="show this")
    return parser


class _Print(argparse.Action):
    """Print a text, which is made only now, and exit."""

    def __init__(
        self, option_strings: list[str], text: Callable[[], str], help: str | None, **_: object
    ) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)
        self._text = text

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(self._text())
        parser.exit()


# Values.


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, not {text!r}") from None


def _some_seconds(text: str) -> float:
    seconds = _seconds(text)
    if seconds == 0:
        # To a socket a time-out of 0 means that calls do not wait.
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return seconds


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 1, not {text!r}")
    return number


# The commands.


def _serve(arguments: Arguments) -> int:
    from ._serve import serve

    return serve(arguments)


def _forward(arguments: Arguments) -> int:
    from ._serve import forward

    return forward(arguments)


def _connect(arguments: Arguments) -> int:
    from ._connect import connect

    return connect(arguments)


def _limits(arguments: Arguments) -> int:
    from ._limits import limits

    return limits(arguments)


def _demo(arguments: Arguments) -> int:
    from ._demo import demo

    return demo(arguments.connections)


def _services() -> str:
    from ._services import explained

    return explained()

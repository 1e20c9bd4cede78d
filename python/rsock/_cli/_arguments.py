"""What can be typed: the commands, their options, and their help.

Each `--help` has to fit a screen of 80 columns and 24 lines. A command's own module is loaded only
when the command is run.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .. import __version__
from .._types import Limits, SocketOptions
from . import _fields
from ._addresses import Address
from ._errors import UsageError

__all__ = ["Arguments", "parse"]


class Arguments(argparse.Namespace):
    """What was typed. Each command sets those that it has options for."""

    command: Callable[["Arguments"], int]
    json: bool
    # Of those that serve.
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


def parse(argv: Sequence[str]) -> Arguments:
    """Read the arguments. On a mistake and after `--help` it raises SystemExit."""
    return _parser().parse_args(argv, Arguments())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave it to `main` to say so, and to the user to ask for help."""
        raise UsageError(f"{message}\nTry '{self.prog} --help'.")


def _parser() -> argparse.ArgumentParser:
    parser = _made(
        _Parser,
        prog="rsock",
        usage="rsock COMMAND [ARGUMENT ...]",
        description="Real sockets, run by Rust threads.",
        epilog="rsock COMMAND --help tells about each. All of it is `python -m rsock`, too.",
    )
    parser.add_argument("--version", action="version", version=f"rsock {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, prog="rsock"
    )

    echo = _made(
        commands.add_parser,
        "echo",
        help="send back what comes",
        usage="rsock echo [OPTION ...] [LISTEN]",
        description="Send back whatever comes (RFC 862), until Ctrl-C.",
    )
    _add_listen(echo)
    _add_serving(echo)
    echo.set_defaults(command=_serve, service="Echo")

    serve = _made(
        commands.add_parser,
        "serve",
        help="serve by a service, or by a function of yours",
        usage="rsock serve [OPTION ...] SERVICE [LISTEN]",
        description="Serve every connection by SERVICE, until Ctrl-C.",
    )
    serve.add_argument(
        "service",
        metavar="SERVICE",
        help="a name (--help-services lists them), a call such as 'Greeting(\"hello\")', or"
        " MODULE:FUNCTION, which is called with each connection",
    )
    serve.add_argument("--help-services", action=_Tell, text=_services, help=argparse.SUPPRESS)
    _add_listen(serve)
    _add_serving(serve)
    serve.set_defaults(command=_serve)

    forward = _made(
        commands.add_parser,
        "forward",
        help="pass connections on to another address",
        usage="rsock forward [OPTION ...] LISTEN TARGET",
        description="Pass every connection to LISTEN on to TARGET, until Ctrl-C.",
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
        "At the end of the input (Ctrl-D) our side is finished, not the connection:\n"
        "the command ends when the server has finished, too.",
    )
    connect.add_argument(
        "to", nargs="*", metavar="HOST PORT", help="or one word: HOST:PORT, [::1]:PORT, a path"
    )
    connect.add_argument("--path", help="connect to a Unix socket instead")
    connect.add_argument(
        "--udp", action="store_true", help="send a datagram for each line or piece of the input"
    )
    connect.add_argument(
        "--timeout", type=_some_seconds, metavar="SECONDS", help="how long connecting may take"
    )
    _add_fields(connect, SocketOptions)
    connect.set_defaults(command=_connect)

    limits = _made(
        commands.add_parser,
        "limits",
        help="show what the system lets a process have",
        usage="rsock limits [--json]",
        description="Show how many descriptors, ports and waiting connections there can be.",
    )
    limits.add_argument("--json", action="store_true", help="print one JSON object")
    limits.set_defaults(command=_limits)

    demo = _made(
        commands.add_parser,
        "demo",
        help="open a thousand connections and check every byte",
        usage="rsock demo [--connections N]",
        description="Open many connections at once to a server of this process, echo through\n"
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
    """Add what every command that serves understands."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object a line")
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
        help="what Ctrl-C leaves open connections to finish in [1]",
    )
    parser.add_argument("--udp", action="store_true", help="serve datagrams")
    parser.add_argument(
        "--allow-external", action="store_true", help="let strangers reach a UDP server"
    )
    parser.add_argument("--workers", type=_count, metavar="N", help="threads [as load asks]")
    parser.add_argument("--name", help="what error messages call the server")
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
            action=_Tell,
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
        # An option that is added later must not change what `--li` means.
        allow_abbrev=False,
        formatter_class=functools.partial(
            argparse.RawDescriptionHelpFormatter, max_help_position=22
        ),
    )
    parser.add_argument("-h", "--help", action="help", help="show this")
    return parser


class _Tell(argparse.Action):
    """Print a text, which is made only now, and leave."""

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
        # To a socket that would be a call that does not wait.
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

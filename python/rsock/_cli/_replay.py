"""`rsock replay`: its arguments. It must not load what only a run needs."""

import argparse
import sys

from .._replay import Replay
from .._rsock import ReplayClient
from ._addresses import Address
from ._errors import Failure, UsageError
from ._options import Print, count, some_seconds
from ._serving import Serving, add_listen, add_serving

__all__ = ["Arguments", "add_arguments", "run"]

_OPTIONS = """\
The recording, as it is played:

  --client ADDRESS    play the client's side to the server at ADDRESS
  --connection N      play connection N only; to --client it is 1 by default
  --repeat            begin again after the last connection
  --exact             the other side's bytes come in the pieces of the recording
  --speed X           1 as fast as in the recording, 2 twice as fast [at once]
  --timeout SECONDS   how much longer than recorded the other side may take [10]
  --ignore REGEX      what it matches in the other side's bytes may be anything
  --carry START:STOP  of datagrams: these bytes are not compared, and the answer
                      gets them (0:2 for the identifiers of DNS)"""


class Arguments(Serving):
    """The arguments of `rsock replay`."""

    file: str
    client: str | None
    connection: int | None
    repeat: bool
    exact: bool
    speed: float | None
    timeout: float
    ignore: list[bytes]
    carry: list[tuple[int, int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "rsock replay [OPTION ...] FILE [LISTEN ...]"
    parser.description = "Play the server's side of the recording FILE, until Ctrl-C."
    parser.add_argument("file", metavar="FILE", help="what rsock record has written")
    add_listen(parser)
    parser.add_argument("--client", metavar="ADDRESS", help="play the client's side to a server")
    parser.add_argument("--connection", type=count, metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--repeat", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--exact", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--speed", type=_speed, metavar="X", help=argparse.SUPPRESS)
    parser.add_argument(
        "--timeout", type=some_seconds, default=10.0, metavar="SECONDS", help=argparse.SUPPRESS
    )
    parser.add_argument(
        "--ignore",
        type=str.encode,
        action="append",
        default=[],
        metavar="REGEX",
        help=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--carry",
        type=_range,
        action="append",
        default=[],
        metavar="START:STOP",
        help=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--help-replay",
        action=Print,
        text=lambda: _OPTIONS,
        help="list the options of playing: --speed, --exact, --ignore, …",
    )
    add_serving(parser)


def run(arguments: Arguments) -> int:
    """Play a recording, until a signal or to its end."""
    if arguments.client is not None:
        return _run_client(arguments, arguments.client)
    if arguments.connection is not None and arguments.repeat:
        raise UsageError("--connection N plays that one to each client; --repeat plays all in turn")
    from ._running import serve

    try:
        replay = Replay(
            arguments.file,
            connections=arguments.connection or ("repeat" if arguments.repeat else "in order"),
            chunks="exact" if arguments.exact else "lenient",
            speed=arguments.speed,
            timeout=arguments.timeout,
            carry=arguments.carry,
            ignore=arguments.ignore,
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(str(error)) from None
    arguments.udp = arguments.udp or replay.transport == "udp"
    code = serve(arguments, arguments.listen, lambda: replay)
    # The reports are written by the end of the servers.
    return 1 if code == 0 and any(each.error for each in replay.results) else code


def _run_client(arguments: Arguments, text: str) -> int:
    if arguments.listen:
        raise UsageError("--client plays to a server, and takes no LISTEN")
    if arguments.repeat or arguments.carry:
        raise UsageError("--repeat and --carry are for the server's side")
    where = Address.parse(text).destination
    try:
        client = ReplayClient(
            arguments.file,
            arguments.connection or 1,
            chunks="exact" if arguments.exact else "lenient",
            speed=arguments.speed,
            timeout=arguments.timeout,
            ignore=arguments.ignore,
        )
        result = client.run(where)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(str(error)) from None
    if result.error is not None:
        raise Failure(result.error)
    if not arguments.json:
        sys.stdout.write(f"connection {result.connection}: {result.steps} events played\n")
    else:
        import json

        told = {"connection": result.connection, "done": result.done, "steps": result.steps}
        sys.stdout.write(f"{json.dumps(told)}\n")
    return 0


def _speed(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None


def _range(text: str) -> tuple[int, int]:
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be START:STOP, such as 0:2, not {text!r}")
    return int(start), int(stop)

"""`rsock recording`: shows a file, or converts it. It must never play what the file describes."""

import argparse
import sys
from collections.abc import Iterator
from typing import Final

from .._printable import hex_rows, printable
from .._recorded import RecordedConnection, Torn
from .._recording import Recording, write_pcapng_of
from ._errors import Failure, UsageError
from ._namespace import Arguments as Base
from ._options import count

__all__ = ["Arguments", "add_arguments", "run"]

_FILE: Final = "what rsock record has written"


class Arguments(Base):
    """The arguments of `rsock recording`."""

    what: str
    file: str
    connection: int | None
    hex: bool
    pcapng: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "rsock recording show [OPTION ...] FILE"
    parser.description = (
        "Show the dialogues of a recording, or write them as packets with synthesised\n"
        "headers, for Wireshark, tshark and tcpdump."
    )
    parser.add_argument("what", metavar="show", help="what to do with the file")
    # Optional for the parser alone, so that `run` can say which of the two is missing.
    parser.add_argument("file", metavar="FILE", nargs="?", default="", help=_FILE)
    parser.add_argument("--connection", type=count, metavar="N", help="only connection N")
    parser.add_argument("--hex", action="store_true", help="show the bytes as digits, too")
    parser.add_argument(
        "--pcapng",
        metavar="OUT",
        help="write a pcapng file, and show nothing; - for standard output",
    )


def run(arguments: Arguments) -> int:
    """Show a recording; the exit code is 1 where the file is cut."""
    what, file = arguments.what, arguments.file
    problem = None
    if what != "show":
        meant = f"rsock recording show {printable(what)}" if not file else "show"
        problem = f"recording {what!r}: must be show; did you mean {meant}?"
    elif not file:
        problem = "the following arguments are required: FILE"
    if problem is not None:
        raise UsageError(f"{problem}\nTry 'rsock recording --help'.")
    try:
        if arguments.pcapng is not None:
            return _exit_code(arguments, _convert(arguments, arguments.pcapng))
        recording = Recording.read(arguments.file)
    except ValueError as error:
        raise Failure(str(error)) from None
    if arguments.connection is None and not arguments.hex:
        sys.stdout.write(f"{recording}\n")
    else:
        shown = 0
        for connection in recording.connections:
            if arguments.connection in (None, connection.number):
                shown += 1
                sys.stdout.write(f"{connection}\n")
                if arguments.hex:
                    sys.stdout.writelines(_digits(connection))
        if not shown:
            raise _no_connection(arguments)
    return _exit_code(arguments, recording.torn)


def _convert(arguments: Arguments, out: str) -> Torn | None:
    """Write packets. Returns where the recording is cut."""
    if arguments.hex:
        raise UsageError("--hex is for showing, and with --pcapng nothing is shown")
    if out == "-" and sys.stdout.isatty():
        raise UsageError("--pcapng -: packets are not for a terminal; name a file, or use a pipe")
    to = sys.stdout.buffer if out == "-" else out
    try:
        return write_pcapng_of(arguments.file, to, arguments.connection).torn
    except KeyError:
        raise _no_connection(arguments) from None


def _no_connection(arguments: Arguments) -> Failure:
    return Failure(f"{printable(arguments.file)} has no connection {arguments.connection}")


def _exit_code(arguments: Arguments, torn: Torn | None) -> int:
    if torn is not None:
        raise Failure(f"{printable(arguments.file)}: {torn}")
    return 0


def _digits(connection: RecordedConnection) -> Iterator[str]:
    """The bytes of each event in rows, as in `hexdump -C`."""
    for event in connection.events:
        if event.data:
            yield f"\n    {event.seconds:.6f} {event.direction}, {len(event.data):,} bytes\n"
        for start, row in hex_rows(event.data):
            yield f"    {start:08x}  {row}\n"

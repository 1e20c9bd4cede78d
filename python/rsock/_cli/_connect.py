"""`rsock connect`: a client between standard input and standard output.

One loop and no thread: it reads from the side that has data, and holds at most one piece that the
server has not taken yet. It must never change a byte.
"""

import argparse
import contextlib
import os
import select
import socket
import sys
from typing import Any, Final

from .._client import Client
from .._display._units import seconds, size
from .._rsock import TLS
from .._settings import SocketOptions
from . import _fields
from ._addresses import one_of
from ._errors import Failure, UsageError, message
from ._namespace import Arguments as Base
from ._options import add_fields, some_seconds
from ._streams import write
from ._terminal import input_without_waiting

__all__ = ["Arguments", "add_arguments", "run"]

_PIECE: Final = 65_536
# The payload that fits in an Ethernet frame after the headers of IPv4 and UDP.
_DATAGRAM: Final = 1_472
# Seconds without an answer after which an exchange of datagrams is over, once the input has ended.
_SILENCE: Final = 1.0
# Milliseconds of the longest poll without a time-out of its own: a Ctrl-C that arrives just before
# the poll does not interrupt it.
_BACKSTOP: Final = 1_000
_INPUT: Final = 0
_OUTPUT: Final = 1


class Arguments(Base):
    """The arguments of `rsock connect`."""

    to: list[str]
    path: str | None
    tls: bool
    tls_ca: str | None
    keep_open: bool
    udp: bool
    timeout: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "rsock connect [OPTION ...] HOST PORT"
    parser.description = (
        "Send standard input, and print what comes back.\n\n"
        "The end of the input (Ctrl-D) ends our side, not the connection: the command\n"
        "ends when the server has finished, too."
    )
    parser.add_argument(
        "to",
        nargs="*",
        default=[],
        metavar="HOST PORT",
        help="or one word: HOST:PORT, [::1]:PORT, a path",
    )
    parser.add_argument("--path", help="connect to a Unix socket instead")
    parser.add_argument(
        "--keep-open",
        action="store_true",
        help="do not end our side with the input, for a server that would end then",
    )
    parser.add_argument(
        "--udp", action="store_true", help="send each line or piece of the input as a datagram"
    )
    parser.add_argument("--tls", action="store_true", help="connect by TLS")
    parser.add_argument(
        "--tls-ca", metavar="FILE", help="the authorities to trust, in place of the system's"
    )
    parser.add_argument(
        "--timeout",
        type=some_seconds,
        metavar="SECONDS",
        help="how long connecting may take; with --udp, how long to wait for an answer after the"
        " end of the input [1]",
    )
    add_fields(parser, SocketOptions)


def run(arguments: Arguments) -> int:
    """Talk to a server until it has finished."""
    client = _connected(arguments)
    # Only in a terminal: in a pipe there is no output except the server's bytes.
    verbose = os.isatty(_INPUT) and sys.stderr.isatty()
    if verbose:
        record = client.record
        what = "sending to" if arguments.udp else "connected to"
        where = f" {record.remote}" if record is not None else ""
        ends = "" if arguments.keep_open else "Ctrl-D ends our side, "
        _tell(f"{what}{where}; {ends}Ctrl-C {'ends it' if arguments.keep_open else 'all of it'}")
    with client, input_without_waiting(_INPUT) as source:
        if arguments.udp:
            # On UDP there is no sign that the server has finished.
            silence = None if arguments.keep_open else arguments.timeout or _SILENCE
            _converse(client, source, _DATAGRAM, silence, shutdown=False)
        else:
            _converse(client, source, _PIECE, None, shutdown=not arguments.keep_open)
        record = client.record
    if verbose and record is not None:
        _tell(
            f"{size(record.bytes_out)} sent, {size(record.bytes_in)} received"
            f" in {seconds(record.seconds)}"
        )
    return 0


def _connected(arguments: Arguments) -> Client:
    address = one_of("connect", arguments.to, arguments.path)
    target: dict[str, Any] = {"host": address.host, "port": address.port}
    if address.path is not None:
        target = {"path": address.path}
    if arguments.udp:
        target["transport"] = "udp"
    try:
        tls: bool | TLS = arguments.tls
        if arguments.tls_ca is not None:
            tls = TLS(ca=arguments.tls_ca)
        return Client(
            **target,
            tls=tls,
            timeout=arguments.timeout,
            options=_fields.given(arguments, SocketOptions),
        )
    except OSError:
        # Also of a certificate that is refused, which is a ValueError too.
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(str(error)) from None


def _converse(
    client: Client, source: int, piece: int, silence: float | None, *, shutdown: bool
) -> None:
    """Move bytes both ways until the server has finished; neither direction waits for the other.

    What the server sends is printed to its end, whatever becomes of our side. With `silence`, the
    end is also when nothing has come for so long since the input ended; with `shutdown`, the end of
    the input ends our side.
    """
    datagrams = piece == _DATAGRAM
    client.setblocking(False)
    connection = client.fileno()
    reading = True
    unsent = memoryview(b"")
    failed: OSError | None = None
    while True:
        poller = select.poll()
        poller.register(connection, select.POLLIN | (select.POLLOUT if unsent else 0))
        if reading and not unsent:
            poller.register(source, select.POLLIN)
        last = None if reading or silence is None else silence * 1_000
        ready = dict(poller.poll(_BACKSTOP if last is None else last))
        if last is not None and not ready:
            break
        if ready.get(connection, 0) & ~select.POLLOUT:
            received = _received(client)
            if received == b"" and not datagrams:
                break
            write(_OUTPUT, received or b"")
        if source in ready:
            with contextlib.suppress(BlockingIOError):
                unsent = memoryview(os.read(source, piece))
                reading = len(unsent) > 0
        try:
            if unsent:
                unsent = unsent[client.send(unsent) :]
            elif source in ready and shutdown and not reading:
                client.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError as error:
            # The server takes no more data. What it sent before can still be read.
            failed, reading, unsent = error, False, unsent[:0]
    if failed is not None:
        raise Failure(message(failed))


def _received(client: Client) -> bytes | None:
    """What has arrived; b"" at the end of the stream, None if nothing has arrived after all."""
    try:
        return client.recv(_PIECE)
    except BlockingIOError:
        return None
    except OSError as error:
        raise Failure(message(error)) from None


def _tell(text: str) -> None:
    sys.stderr.write(f"rsock: {text}\n")

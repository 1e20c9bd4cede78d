"""`rsock wait`: until a server accepts connections. It must send no byte."""

import argparse

from .._wait_for import wait_for
from ._addresses import one_of
from ._errors import Failure, UsageError, message
from ._namespace import Arguments as Base
from ._options import seconds

__all__ = ["Arguments", "add_arguments", "run"]


class Arguments(Base):
    """The arguments of `rsock wait`."""

    to: list[str]
    path: str | None
    timeout: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "rsock wait [--timeout SECONDS] HOST:PORT"
    parser.description = (
        "Wait until a server accepts connections: exit code 0, or 1 after the time-out.\n\n"
        "The connection is closed at once, without a byte sent."
    )
    parser.add_argument(
        "to", nargs="*", default=[], metavar="HOST:PORT", help="or HOST PORT, [::1]:PORT, a path"
    )
    parser.add_argument("--path", help="wait for a Unix socket instead")
    parser.add_argument(
        "--timeout", type=seconds, default=10.0, metavar="SECONDS", help="how long [10]"
    )


def run(arguments: Arguments) -> int:
    """Wait for a server."""
    address = one_of("wait", arguments.to, arguments.path)
    try:
        wait_for(address.destination, arguments.timeout)
    except TimeoutError as error:
        why = f" ({message(error.__cause__)})" if isinstance(error.__cause__, OSError) else ""
        shown = " ".join(arguments.to) or arguments.path
        raise Failure(
            f"nothing accepts connections at {shown} after {arguments.timeout:g} s{why}"
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(str(error)) from None
    return 0

"""`rsock limits`: the system's limits on a process. It must never change a limit."""

import argparse
import json
from dataclasses import asdict

from .._rsock import process_limits
from ._namespace import Arguments as Base

__all__ = ["Arguments", "add_arguments", "run"]


class Arguments(Base):
    """The arguments of `rsock limits`."""

    json: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "rsock limits [--json]"
    parser.description = "Show how many descriptors, ports and waiting connections are allowed."
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: Arguments) -> int:
    """Print the limits of this process, which every program started from the same shell has."""
    from rich.table import Table

    from ._console import console

    found = process_limits()
    if arguments.json:
        print(json.dumps(asdict(found)))
        return 0
    first, last = found.ephemeral_ports
    table = Table(title="What a process may have here", title_justify="left")
    table.add_column("limit")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("what it means")
    table.add_row(
        "descriptors",
        f"{found.fd_soft:,}",
        "open at once: files, and one for each socket (ulimit -n)",
    )
    table.add_row(
        "… at most", f"{found.fd_hard:,}", "what a program may raise that to (ulimit -Hn)"
    )
    table.add_row("… in use", f"{found.fd_in_use:,}", "by this command")
    table.add_row(
        "ports",
        f"{first}-{last}",
        f"for outgoing connections: {last - first + 1:,} to any one address"
        " (net.ipv4.ip_local_port_range)",
    )
    table.add_row(
        "backlog",
        f"{found.backlog_max:,}",
        "connections waiting to be accepted, at most (net.core.somaxconn)",
    )
    console().print(table)
    return 0

"""The options of the commands that serve.

This file owns their names and their help. It must not load what only a run needs.
"""

import argparse

from .._fault import Fault
from .._settings import Limits, SocketOptions
from ._addresses import Address, parsed
from ._namespace import Arguments
from ._options import (
    Addresses,
    add_faults,
    add_fields,
    add_help_more,
    add_more,
    count,
    descriptor,
    seconds,
)

__all__ = ["Serving", "add_listen", "add_serving"]


class Serving(Arguments):
    """The arguments of a command that serves."""

    listen: list[Address]
    fd: list[int]
    json: bool
    plain: bool
    ledger: str | None
    drain: float
    udp: bool
    allow_external: bool
    allow: list[str]
    deny: list[str]
    proxy_protocol: list[str]
    workers: int | None
    name: str | None
    faults: list[Fault]
    seed: int | None
    systemd: str | None
    linger: float
    log_format: str | None
    log_level: str | None
    access_log: bool
    processes: int | None
    reload: bool
    user: str | None
    group: str | None
    pid_file: str | None
    metrics: Address | None
    tls_cert: str | None
    tls_key: str | None


def add_listen(parser: argparse.ArgumentParser) -> None:
    """Add the addresses to listen on."""
    parser.add_argument(
        "listen",
        nargs="*",
        action=Addresses,
        default=[],
        metavar="LISTEN",
        help="[HOST:]PORT, or a path with a /; one or more [127.0.0.1:0]",
    )


def add_serving(parser: argparse.ArgumentParser) -> None:
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
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="time for open connections to finish after Ctrl-C [1]",
    )
    parser.add_argument(
        "--fd",
        type=descriptor,
        action="append",
        default=[],
        metavar="N",
        help="serve the listening socket N, which this process inherited",
    )
    parser.add_argument(
        "--udp",
        action="store_true",
        help="serve datagrams (outside the loopback: --allow-external)",
    )
    add_more(
        parser,
        "--allow-external",
        action="store_true",
        about="serve datagrams outside the loopback, where addresses of senders can be forged",
    )
    parser.add_argument("--workers", type=count, metavar="N", help="threads [as the load requires]")
    add_more(parser, "--name", metavar="NAME", about="the server's name in messages and metrics")
    add_faults(parser)
    _add_production(parser)
    add_help_more(parser, "list options for production: --processes, --metrics, …")
    add_fields(parser, Limits, SocketOptions)


def _add_production(parser: argparse.ArgumentParser) -> None:
    add_more(
        parser,
        "--allow",
        action="append",
        default=[],
        metavar="NET",
        about="serve only peers of this network: 10.0.0.0/8, ::1, unix; may be given again",
    )
    add_more(
        parser,
        "--deny",
        action="append",
        default=[],
        metavar="NET",
        about="serve no peer of this network; may be given again",
    )
    add_more(
        parser,
        "--proxy-protocol",
        action="append",
        default=[],
        metavar="NET",
        about="peers of this network are proxies, which must name their clients",
    )
    add_more(
        parser,
        "--config",
        metavar="FILE",
        about="a TOML file with options; rsock config --help describes it",
    )
    add_more(
        parser,
        "--systemd",
        nargs="?",
        const="",
        metavar="NAME",
        about="serve the sockets that systemd passes, or those of this name",
    )
    add_more(
        parser,
        "--processes",
        type=count,
        metavar="N",
        about="serve by N processes; SIGHUP replaces them, and one that ends is started again",
    )
    add_more(
        parser,
        "--reload",
        action="store_true",
        about="replace the processes when a Python file of this directory changes",
    )
    add_more(parser, "--user", metavar="NAME", about="become this user once the port is bound")
    add_more(parser, "--group", metavar="NAME", about="become this group once the port is bound")
    add_more(parser, "--pid-file", metavar="FILE", about="write the number of the process to FILE")
    add_more(
        parser,
        "--metrics",
        type=_port,
        metavar="PORT",
        about="serve /metrics for Prometheus, and /ready for probes, on [HOST:]PORT",
    )
    add_more(
        parser,
        "--linger",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        about="after SIGTERM, accept for so long before draining [0]",
    )
    add_more(
        parser,
        "--log-format",
        choices=("text", "json"),
        about="the form of the log on standard error",
    )
    add_more(
        parser,
        "--log-level",
        choices=("debug", "info", "warning", "error", "critical"),
        about="what is logged at least [warning]",
    )
    add_more(
        parser,
        "--tls-cert",
        metavar="FILE",
        about="serve TLS with this certificate, in PEM, followed by those that signed it",
    )
    add_more(
        parser,
        "--tls-key",
        metavar="FILE",
        about="its private key, if that is not in the same file",
    )
    add_more(
        parser,
        "--access-log",
        action="store_true",
        about="log a line for each connection that has ended",
    )


def _port(text: str) -> Address:
    address = parsed([text])[0]
    if address.path is not None:
        raise argparse.ArgumentTypeError(f"must be [HOST:]PORT, not {text!r}")
    return address

"""The output of a serving command: a live table in a terminal, plain lines, or JSON Lines.

It reads and prints, and must never change what it shows.
"""

import sys
import time
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final, Self, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .._display._tables import cell
from .._display._units import count, seconds, size
from .._display._views import end, peer, server_address, sums
from .._ledger import json_line
from .._printable import printable_lines
from .._rsock import Record
from .._server import Server
from .._types import StopReport, Totals
from ._console import console
from ._serving import Serving
from ._streams import write
from ._threads import signals_blocked

__all__ = ["Form", "account", "chosen"]

# A person sees no more at a higher rate.
_PER_SECOND: Final = 4
# The totals that are always shown; the others count what went wrong.
_USUAL: Final = frozenset(
    {"accepted", "open", "closed", "closed_by"}
    | {"messages_in", "messages_out", "bytes_in", "bytes_out"}
)
# The lines of the screen that show no records: address, totals, headings, and empty lines.
_OTHER_LINES: Final = 7


def chosen(arguments: Serving, server: Server, output: TextIO) -> "Form":
    """Return the form that the arguments name or, if they name none, one that suits the output."""
    if arguments.json:
        return Json(server, output)
    terminal = console()
    if arguments.plain or not output.isatty() or terminal.is_dumb_terminal:
        return Plain(server, output)
    return Screen(server, output, terminal)


class Form:
    """How one server is shown."""

    # Whether `closed` is called for each connection that ended, on a thread of its own.
    follows = True

    def __init__(self, server: Server, output: TextIO) -> None:
        self.server = server
        self._output = output

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def listening(self) -> None:
        """Show that the server listens."""

    def closed(self, record: Record) -> None:
        """Show that a connection has ended."""

    def stopped(self, report: StopReport) -> None:
        """Show that the server has stopped; `closed` was called for each connection."""

    def _write(self, line: str) -> None:
        line = printable_lines(line)
        # In one write, so that what handlers print does not get into the line.
        encoding, errors = self._output.encoding, self._output.errors or "strict"
        write(self._output.fileno(), line.encode(encoding, errors))


class Plain(Form):
    """A line for the start, for each end of a connection, and two for the account."""

    def listening(self) -> None:
        self._write(f"listening on {server_address(self.server)}: {self.server.service!r}\n")

    def closed(self, record: Record) -> None:
        self._write(
            f"closed {record.id} {cell(peer(record))} by {end(record)}"
            f" after {seconds(record.seconds)},"
            f" {size(record.bytes_in)} in, {size(record.bytes_out)} out\n"
        )

    def stopped(self, report: StopReport) -> None:
        self._write(f"{_stopped(report)}\n")
        self._write(f"{sums(self.server.ledger)}\n")


class Json(Form):
    """The same events, each as a JSON object on one line; `event` names it."""

    def listening(self) -> None:
        server = self.server
        self._event(
            "listening",
            transport=server.transport,
            address=server.address,
            service=repr(server.service),
            name=server.name,
        )

    def closed(self, record: Record) -> None:
        self._event("closed", **record.to_dict())

    def stopped(self, report: StopReport) -> None:
        self._event("stopped", **asdict(report), totals=asdict(self.server.ledger.totals))

    def _event(self, event: str, **fields: Any) -> None:
        self._write(json_line({"event": event, **fields}))


class Screen(Form):
    """A table that is redrawn while the server runs; the account replaces it at the end."""

    follows = False

    def __init__(self, server: Server, output: TextIO, console: Console) -> None:
        super().__init__(server, output)
        self._console = console
        self._began = time.monotonic()
        self._live = Live(
            console=console,
            get_renderable=self._frame,
            refresh_per_second=_PER_SECOND,
            transient=True,
            # Errors of handlers go above the table, unless they go to a file anyway.
            redirect_stderr=sys.stderr.isatty(),
        )

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def listening(self) -> None:
        self._began = time.monotonic()
        with signals_blocked():
            self._live.start(refresh=True)

    def stopped(self, report: StopReport) -> None:
        self._live.stop()
        totals = self.server.ledger.totals
        self._console.print(f"{server_address(self.server)} {_stopped(report)}")
        self._console.print(account(totals))

    def _frame(self) -> RenderableType:
        server = self.server
        for_long = seconds(time.monotonic() - self._began)
        title = Text.assemble(
            (server_address(server), "bold"),
            f"  {cell(repr(server.service))}  {server.state} for {for_long}, Ctrl-C ends it",
            no_wrap=True,
            overflow="ellipsis",
        )
        rows = max(1, self._console.size.height - _OTHER_LINES)
        # Leave room for the ^C that the terminal echoes, so that it needs no further line.
        return Constrain(
            Group(title, Text(sums(server.ledger)), "", self._records(rows)),
            self._console.size.width - len("^C^C"),
        )

    def _records(self, most: int) -> Table:
        """The newest open connections, and below them the newest that have ended."""
        ledger = self.server.ledger
        newest = ledger.open[::-1][:most]
        newest += ledger.closed[::-1][: most - len(newest)]
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("id", "peer", "lasted", "in", "out", "closed by"):
            # If there is not enough room, the last column is cut.
            right = column in ("id", "lasted", "in", "out")
            last = column == "closed by"
            table.add_column(column, justify="right" if right else "left", no_wrap=not last)
        for record in newest:
            table.add_row(
                str(record.id),
                cell(peer(record)),
                seconds(record.seconds),
                size(record.bytes_in),
                size(record.bytes_out),
                Text(end(record), no_wrap=True, overflow="ellipsis"),
                style="" if record.closed_by is None else "dim",
            )
        return table


def account(totals: Totals) -> Table:
    """The totals of a ledger as a table."""
    ends = ", ".join(
        f"{number:,} by {reason}" for reason, number in totals.closed_by.items() if number
    )
    table = Table(box=box.SIMPLE, show_header=False, show_edge=False)
    table.add_row(
        "accepted", f"{totals.accepted:,} = {totals.open:,} open + {totals.closed:,} closed"
    )
    table.add_row("closed", ends or "none")
    table.add_row("received", f"{totals.bytes_in:,} bytes in {count(totals.messages_in, 'read')}")
    table.add_row("sent", f"{totals.bytes_out:,} bytes in {count(totals.messages_out, 'write')}")
    for name, number in asdict(totals).items():
        # Counts of what went wrong are shown only if they are not 0.
        if number and name not in _USUAL:
            table.add_row(name.replace("_", " "), f"{number:,}")
    return table


def _stopped(report: StopReport) -> str:
    parts = [f"{report.drained:,} drained", f"{report.forced:,} forced"]
    if report.abandoned:
        parts.append(f"{count(report.abandoned, 'handler')} abandoned")
    if report.errors:
        parts.append(count(report.errors, "error"))
    return f"stopped by {report.cause} in {seconds(report.seconds)}: {', '.join(parts)}"

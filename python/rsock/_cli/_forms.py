"""The output of a serving command: a live table in a terminal, plain lines, or JSON Lines.

It shows the servers of one run. It reads and prints, and must never change what it shows.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .._display._tables import cell
from .._display._units import count, seconds, size
from .._display._views import causes, end, peer, server_address, short_end, sums
from .._ledger import json_line
from .._printable import printable_lines
from .._rsock import Ledger, Record
from .._server import Server
from .._types import StopReport
from ._console import console
from ._errors import message
from ._keys import Keys, can_be_read
from ._serving import Serving
from ._streams import write
from ._threads import signals_blocked

if TYPE_CHECKING:
    from ._faults import Faults, Switch

__all__ = ["Form", "account", "chosen", "of_child", "of_parent"]

# A person sees no more at a higher rate.
_PER_SECOND: Final = 4
# The totals that are always shown; the others count what went wrong.
_USUAL: Final = frozenset(
    {"accepted", "open", "closed", "closed_by", "refused_by", "tls_handshakes", "tls_resumed"}
    | {"target_tls_handshakes", "target_tls_resumed"}
    | {"messages_in", "messages_out", "bytes_in", "bytes_out"}
)
# The lines of the screen that show no records, besides those about the servers: the headings with
# their rule, and an empty line before and after the table.
_OTHER_LINES: Final = 4
# Columns of the live table that a narrow terminal has no room for, the first to go first.
_OPTIONAL: Final = (("in", "out"), ("lasted",), ("id",), ("local",), ("peer",))
_RIGHT: Final = frozenset({"id", "lasted", "in", "out"})
_GAP: Final = 2
# The keys that switch faults on and off.
_SWITCHES: Final = "123456789"
# What the last column, which is cut, should have room for: "error (Connection refused)".
_LAST: Final = 28


def chosen(arguments: Serving, servers: Sequence[Server], output: TextIO) -> "Form":
    """Return the form that the arguments name or, if they name none, one that suits the output."""
    faults = None
    if arguments.faults:
        # A run without faults does not load the module.
        from ._faults import Faults

        faults = Faults(servers, arguments.words)
    if arguments.json:
        return Json(servers, output, faults)
    terminal = console()
    if arguments.plain or not output.isatty() or terminal.is_dumb_terminal:
        return Plain(servers, output, faults)
    return Screen(servers, output, faults, terminal)


def of_child(arguments: Serving, servers: Sequence[Server], output: TextIO) -> "Form":
    """Return the form of one of several processes that share an output: lines or JSON."""
    faults = None
    if arguments.faults:
        from ._faults import Faults

        faults = Faults(servers, arguments.words)
    form: Form = Json(servers, output, faults) if arguments.json else Plain(servers, output, faults)
    form.process = os.getpid()
    return form


def of_parent(arguments: Serving, servers: Sequence[Server]) -> "Form":
    """Return the form of a parent, whose processes share its output."""
    form: Form = Json(servers, sys.stdout) if arguments.json else Plain(servers, sys.stdout)
    form.processes = arguments.processes or 1
    return form


class Form:
    """How the servers of a run are shown."""

    # Whether `closed` is called for each connection that ended, on a thread of each server.
    follows = True
    # The number of this process where several share the output; the parent says where they listen.
    process: int | None = None
    # How many processes serve for this one.
    processes: int | None = None

    def __init__(
        self, servers: Sequence[Server], output: TextIO, faults: "Faults | None" = None
    ) -> None:
        self.servers = servers
        self._output = output
        self._faults = faults

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def metrics(self, host: str, port: int) -> None:
        """Show where the metrics are."""

    def listening(self) -> None:
        """Show that the servers listen."""

    def closed(self, server: Server, record: Record) -> None:
        """Show that a connection of a server has ended."""

    def stopped(self, server: Server, report: StopReport) -> None:
        """Show that a server has stopped; `closed` was called for each of its connections."""

    def ended(self) -> None:
        """Show what concerns the whole run; `stopped` was called for each of its servers."""

    def _where(self, server: Server, text: str) -> str:
        """The text, with the address before it if there are several servers."""
        if self.process is not None:
            text = f"process {self.process} {text}"
        return f"{server_address(server)} {text}" if len(self.servers) > 1 else text

    def _switches(self, server: Server) -> "list[Switch]":
        """The faults of a server."""
        return [] if self._faults is None else self._faults.of(server)

    def _write(self, line: str) -> None:
        line = printable_lines(line)
        # In one write, so that what handlers print does not get into the line.
        encoding, errors = self._output.encoding, self._output.errors or "strict"
        write(self._output.fileno(), line.encode(encoding, errors))


class Plain(Form):
    """A line for the start, for each end of a connection, and some for the account."""

    def metrics(self, host: str, port: int) -> None:
        host = f"[{host}]" if ":" in host else host
        self._write(f"metrics on http://{host}:{port}/metrics\n")

    def listening(self) -> None:
        if self.process is not None:
            return
        for server in self.servers:
            what = repr(server.service)
            if self.processes is not None:
                what = "1 process" if self.processes == 1 else f"{self.processes} processes"
            self._write(f"listening on {server_address(server)}: {what}\n")
        if self._faults is not None:
            self._write(f"faults {'; '.join(self._faults.texts())} with seed {self._faults.seed}\n")

    def closed(self, server: Server, record: Record) -> None:
        what = f"{record.id} {cell(peer(record))}"
        if len(self.servers) > 1:
            what += f" at {server_address(server)}"
        self._write(
            f"closed {what} by {end(record)} after {seconds(record.seconds)},"
            f" {size(record.bytes_in)} in, {size(record.bytes_out)} out\n"
        )

    def stopped(self, server: Server, report: StopReport) -> None:
        self._write(f"{self._where(server, _stopped(report))}\n{sums(server.ledger)}\n")
        for cause, number in causes(server.ledger):
            self._write(f"{number:,} by {cause}\n")
        for switch in self._switches(server):
            self._write(f"{switch.text}: {switch.done}\n")

    def ended(self) -> None:
        if self._faults is not None and self.process is None:
            self._write(f"the same again: {self._faults.again()}\n")


class Json(Form):
    """The same events, each as a JSON object on one line; `event` names it."""

    def metrics(self, host: str, port: int) -> None:
        self._event("metrics", address=(host, port))

    def listening(self) -> None:
        if self.process is not None:
            return
        more: dict[str, Any] = {}
        if self._faults is not None:
            more = {"faults": self._faults.texts(), "seed": self._faults.seed}
        if self.processes is not None:
            more = {"processes": self.processes}
        for server in self.servers:
            self._event(
                "listening",
                transport=server.transport,
                address=server.address,
                service=repr(server.service) if self.processes is None else None,
                name=server.name,
                **more,
            )

    def closed(self, server: Server, record: Record) -> None:
        self._event("closed", **record.to_dict(), server=server.name)

    def stopped(self, server: Server, report: StopReport) -> None:
        ledger = server.ledger
        faults: dict[str, Any] = {}
        if self._faults is not None:
            faults["faults"] = {switch.text: switch.done for switch in self._switches(server)}
        self._event(
            "stopped",
            **asdict(report),
            totals=asdict(ledger.totals),
            causes=dict(causes(ledger)),
            server=server.name,
            **faults,
        )

    def _event(self, event: str, **fields: Any) -> None:
        if self.process is not None:
            fields["process"] = self.process
        self._write(json_line({"event": event, **fields}))


class Screen(Form):
    """A table that is redrawn while the servers run; the account replaces it at the end."""

    follows = False

    def __init__(
        self,
        servers: Sequence[Server],
        output: TextIO,
        faults: "Faults | None",
        console: Console,
    ) -> None:
        super().__init__(servers, output, faults)
        self._console = console
        self._keys: Keys | None = None
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
        self._end_live()

    def listening(self) -> None:
        self._began = time.monotonic()
        if self._faults is not None and can_be_read():
            self._keys = Keys(self._pressed)
            self._keys.start()
        with signals_blocked():
            self._live.start(refresh=True)

    def stopped(self, server: Server, report: StopReport) -> None:
        self._end_live()
        self._console.print(f"{server_address(server)} {_stopped(report)}")
        table = account(server.ledger)
        for switch in self._switches(server):
            table.add_row("fault", f"{cell(switch.text)}: {switch.done}")
        self._console.print(table)

    def ended(self) -> None:
        if self._faults is not None:
            # In one piece, so that it can be copied.
            self._console.print(f"the same again: {self._faults.again()}", soft_wrap=True)

    def _end_live(self) -> None:
        if self._keys is not None:
            self._keys.stop()
        self._live.stop()

    def _pressed(self, key: str) -> None:
        """Switch the fault with this number on or off."""
        faults = self._faults
        if faults is not None and key in _SWITCHES and _SWITCHES.index(key) < len(faults):
            try:
                faults.toggle(_SWITCHES.index(key))
            except OSError as error:
                # Such as that of a process without free descriptors.
                self._console.print(f"rsock: {message(error)}")
            self._live.refresh()

    def _frame(self) -> RenderableType:
        lines = [text for server in self.servers for text in self._about(server)]
        lines += self._about_faults()
        width, height = self._console.size
        used = sum(len(text.wrap(self._console, width)) for text in lines)
        table = self._records(max(1, height - used - _OTHER_LINES), width)
        # The last line is empty: there the terminal echoes the ^C.
        return Group(*lines, "", table, "")

    def _about(self, server: Server) -> list[Text]:
        state = server.state
        if state == "serving":
            for_long = seconds(time.monotonic() - self._began)
            state = f"serving for {for_long}, Ctrl-C ends it"
        elif state == "draining":
            state = "draining, a second Ctrl-C ends it at once"
        title = Text.assemble(
            (server_address(server), "bold"),
            f"  {cell(repr(server.service))}  {state}",
            no_wrap=True,
            overflow="ellipsis",
        )
        return [title, Text(sums(server.ledger))]

    def _about_faults(self) -> list[Text]:
        if self._faults is None:
            return []
        switches = self._faults.all()
        shown, hidden = switches[: len(_SWITCHES)], len(switches) - len(_SWITCHES)
        keys = "" if self._keys is None else "; a number switches its fault on or off"
        lines = [Text(f"faults with seed {self._faults.seed}{keys}")]
        width = max(len(cell(switch.text)) for switch in shown)
        for number, switch in zip(_SWITCHES, shown, strict=False):
            text = f"{number} {'on ' if switch.on else 'off'} {cell(switch.text):{width}}  "
            lines.append(Text(text + switch.done, style="" if switch.on else "dim"))
        if hidden > 0:
            lines.append(Text(f"… and {count(hidden, 'more fault')}"))
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return lines

    def _records(self, most: int, width: int) -> Table:
        """The newest open connections, and below them the newest that have ended."""
        newest: list[Record] = []
        for part in ("open", "closed"):
            each = [getattr(server.ledger, part)[::-1][:most] for server in self.servers]
            found = [record for records in each for record in records]
            newest += sorted(found, key=lambda record: record.opened_at, reverse=True)
        rows = [self._row(record) for record in newest[:most]]
        columns = _fitting(rows, width) if rows else list(_HEADINGS)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP, 0, 0))
        for column in columns:
            # If there is not enough room, the last column is cut.
            last = column == columns[-1]
            justify: JustifyMethod = "right" if column in _RIGHT else "left"
            table.add_column(column, justify=justify, no_wrap=not last)
        for record, row in zip(newest, rows, strict=False):
            cells = (row[column] for column in columns)
            table.add_row(
                *(Text(text, no_wrap=True, overflow="ellipsis") for text in cells),
                style="" if record.closed_by is None else "dim",
            )
        return table

    def _row(self, record: Record) -> dict[str, str]:
        row = {"id": str(record.id), "peer": cell(peer(record))}
        if len(self.servers) > 1:
            row["local"] = cell(str(record.local))
        return row | {
            "lasted": seconds(record.seconds),
            "in": size(record.bytes_in),
            "out": size(record.bytes_out),
            "closed by": short_end(record),
        }


_HEADINGS: Final = ("id", "peer", "lasted", "in", "out", "closed by")


def _fitting(rows: Sequence[Mapping[str, str]], width: int) -> list[str]:
    """The columns for which a terminal of this width has room, in their order."""
    columns = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    widths[columns[-1]] = min(widths[columns[-1]], _LAST)
    for group in _OPTIONAL:
        if sum(widths[name] + _GAP for name in columns) - _GAP <= width:
            break
        columns = [name for name in columns if name not in group]
    return columns


def account(ledger: Ledger) -> Table:
    """The totals of a ledger as a table, with what limits and errors ended."""
    totals = ledger.totals
    ends = ", ".join(
        f"{number:,} by {reason}" for reason, number in totals.closed_by.items() if number
    )
    table = Table(box=box.SIMPLE, show_header=False, show_edge=False)
    table.add_row(
        "accepted", f"{totals.accepted:,} = {totals.open:,} open + {totals.closed:,} closed"
    )
    table.add_row("closed", ends or "none")
    for cause, number in causes(ledger):
        table.add_row("", f"{number:,} by {cause}")
    table.add_row("received", f"{totals.bytes_in:,} bytes in {count(totals.messages_in, 'read')}")
    table.add_row("sent", f"{totals.bytes_out:,} bytes in {count(totals.messages_out, 'write')}")
    for name, number in asdict(totals).items():
        # Counts of what went wrong are shown only if they are not 0.
        if number and name not in _USUAL:
            table.add_row(name.replace("_", " "), f"{number:,}")
    for kind, number in totals.refused_by.items():
        if number:
            table.add_row("", f"{number:,} refused by {kind}")
    return table


def _stopped(report: StopReport) -> str:
    parts = [f"{report.drained:,} drained", f"{report.forced:,} forced"]
    if report.abandoned:
        parts.append(f"{count(report.abandoned, 'handler')} abandoned")
    if report.errors:
        parts.append(count(report.errors, "error"))
    return f"stopped by {report.cause} in {seconds(report.seconds)}: {', '.join(parts)}"

"""The demonstration: a thousand real sockets, open at the same time, served by Rust threads.

It starts a server, connects the clients from a few threads, sends messages through each and
compares every byte that comes back; then it shows the server's ledger. It must not succeed unless
every byte was right and the ledger balances.
"""

import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .. import (
    Client,
    Ledger,
    Record,
    RsockError,
    Server,
    StopReport,
    Totals,
    process_limits,
    raise_fd_limit,
)
from ._console import console
from ._errors import Failure, message
from ._forms import account

__all__ = ["demo"]

# From one word to more than a segment holds, even on the loopback interface.
MESSAGE_SIZES = (5, 64, 1_500, 100_000)
THREADS = 4
# Seconds that any single step may take; on an idle machine all of them together take about one.
PATIENCE = 30.0
# Descriptors left for everything else in this process.
SPARE_DESCRIPTORS = 64


class Wrong(Exception):
    """A result of the demonstration is wrong."""


def demo(wanted: int) -> int:
    """Run the demonstration with `wanted` connections, or as many as the system allows."""
    try:
        demonstrate(console(), wanted)
    except (Wrong, RsockError, OSError) as error:
        raise Failure(f"demo: {message(error) if isinstance(error, OSError) else error}") from None
    return 0


def demonstrate(terminal: Console, wanted: int) -> None:
    """Run the demonstration. Raises Wrong if a result is wrong."""
    count = affordable(terminal, wanted)
    began = time.perf_counter()
    with Server() as server, ThreadPoolExecutor(THREADS) as pool:
        terminal.print(f"{server!r}\n")
        clients: list[Client] = []
        try:
            with progress_bar(terminal) as progress:

                def step(title: str, total: int, work: Callable[..., object]) -> None:
                    """Do `work(i, advance)` for i in range(THREADS), a thread each."""
                    task = progress.add_task(title, total=total)
                    each = (
                        pool.submit(work, i, lambda: progress.advance(task)) for i in range(THREADS)
                    )
                    for future in list(each):
                        future.result()

                def connect(part: int, advance: Callable[[], None]) -> None:
                    for _ in range(part, count, THREADS):
                        clients.append(server.client(timeout=PATIENCE))
                        advance()

                def talk(part: int, advance: Callable[[], None]) -> None:
                    for number in range(part, count, THREADS):
                        converse(clients[number], number)
                        advance()

                def close(part: int, advance: Callable[[], None]) -> None:
                    for client in clients[part::THREADS]:
                        client.close()
                        advance()

                step("connecting", count, connect)
                # Wait until the server has counted all of them as open, too.
                server.ledger.wait(open=count, timeout=PATIENCE)
                step("echoing", count, talk)
                while_open = server.ledger.totals
                step("closing", count, close)
                records = server.ledger.wait(open=0, closed=count, timeout=PATIENCE)
        finally:
            for client in clients:
                client.close()
        report = server.stop()
        totals = server.ledger.totals
    took = time.perf_counter() - began
    show(terminal, server.ledger, records, report)
    check(count, while_open, totals, report)
    messages = count * len(MESSAGE_SIZES)
    terminal.print(
        f"{count:,} connections open at once, {messages:,} messages, every byte compared:"
        f" {took:.2f} s."
    )


def affordable(terminal: Console, wanted: int) -> int:
    """Raise the descriptor limit, and return how many connections it allows."""
    raise_fd_limit()
    limits = process_limits()
    # Both ends of each connection are in this process.
    room = max(1, (limits.fd_soft - limits.fd_in_use - SPARE_DESCRIPTORS) // 2)
    first, last = limits.ephemeral_ports
    room = min(room, last - first)
    if room < wanted:
        terminal.print(f"{wanted:,} connections are more than this system allows: making {room:,}.")
    return min(wanted, room)


def converse(client: Client, number: int) -> None:
    """Send messages that no other connection sends, and compare what comes back."""
    source = random.Random(number)
    for size in MESSAGE_SIZES:
        sent = source.randbytes(size)
        client.sendall(sent)
        if client.recv_exactly(size) != sent:
            raise Wrong(f"connection {number} got other bytes back than the {size} it sent")


def check(count: int, while_open: Totals, totals: Totals, report: StopReport) -> None:
    """Compare the totals of the ledger with what was done."""
    for moment, found in (("with all connections open", while_open), ("at the end", totals)):
        if found.accepted != found.open + found.closed:
            raise Wrong(
                f"the ledger does not balance {moment}: {found.accepted} accepted,"
                f" {found.open} open, {found.closed} closed"
            )
        if found.accepted != count:
            raise Wrong(f"{found.accepted} connections in the ledger {moment}, {count} were made")
    if while_open.open != count:
        raise Wrong(f"only {while_open.open} of {count} connections were open at the same time")
    # Checked only at the end: a byte may reach its reader before the server has counted it.
    volume = count * sum(MESSAGE_SIZES)
    if (totals.bytes_in, totals.bytes_out) != (volume, volume):
        raise Wrong(f"{totals.bytes_in} bytes in, {totals.bytes_out} out; {volume} were sent")
    if totals.open or report.forced or report.errors:
        raise Wrong(f"the end was not orderly: {totals.open} left open, {report}")


def show(terminal: Console, ledger: Ledger, records: Iterable[Record], report: StopReport) -> None:
    """Print the totals, the stop and the newest records."""
    terminal.print("\nThe server's ledger", style="italic")
    terminal.print(account(ledger))
    terminal.print(f"Stopped in {report.seconds * 1_000:.1f} ms, {report.forced} by force.\n")

    newest = sorted(records, key=lambda record: record.id)[-5:]
    table = Table(title="The newest records", title_justify="left")
    for column in ("id", "peer", "seconds", "bytes in", "bytes out", "closed by"):
        table.add_column(column, justify="left" if column in ("peer", "closed by") else "right")
    for record in newest:
        table.add_row(
            str(record.id),
            str(record.remote),
            f"{record.seconds:.3f}",
            f"{record.bytes_in:,}",
            f"{record.bytes_out:,}",
            record.closed_by or "still open",
        )
    terminal.print(table)
    terminal.print()


def progress_bar(terminal: Console) -> Progress:
    """Return a progress bar that counts connections."""
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=terminal,
    )

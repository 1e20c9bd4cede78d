"""The section of rsock in the report of a test: the line of cause, then what the servers saw.

Owns the order and the bounds of the section; must never change what it shows, nor show a byte
unescaped.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from .. import _display
from .._display._tables import text_table
from .._display._units import seconds, size
from .._printable import printable
from .._server import Server
from ._cause import cause
from ._scene import Scene, Talk, look, settle
from ._text import dump

__all__ = ["section"]

# Connections in the table of one server, and of those whose bytes are shown.
_MOST_ROWS: Final = 8
_MOST_TALKS: Final = 2
# Bytes each way.
_TAIL: Final = 48
_COLUMNS: Final = ("#", "client", "in", "out", "lasted", "closed by")
_RIGHT: Final = ("#", "in", "out", "lasted")


def section(
    servers: Sequence[Server], error: BaseException | None, when: str, seed: int, again: str
) -> str:
    """Return the text of the section. `when`: "setup", "call" or "teardown"."""
    if when == "call":
        settle(servers)
    scenes = [look(server) for server in servers]
    lines = []
    if error is not None:
        lines.append(printable(cause(error, scenes)))
    for scene in scenes:
        lines += _server(scene)
    lines.append(f"seed {seed}; once more: {printable(again)}")
    return "\n".join(lines)


def _server(scene: Scene) -> Iterator[str]:
    title = f"{printable(scene.name)} {printable(scene.address)} {printable(scene.service)}"
    hidden = len(scene.talks) - _MOST_ROWS
    title += f", {scene.state}, {scene.accepted:,} accepted"
    title += f", {scene.refused:,} refused" * (scene.refused > 0)
    title += f", {scene.waiting:,} in the queue" * (scene.waiting > 0)
    shown = scene.talks[-_MOST_ROWS:]
    if shown:
        rows = [_row(talk) for talk in shown]
        notes = [f"… and {hidden:,} before them"] if hidden > 0 else []
        yield text_table(title, _COLUMNS, rows, notes, _RIGHT)
    else:
        yield title
    for talk in _told(scene)[:_MOST_TALKS]:
        if talk.is_tls:
            yield f"connection {talk.number}: {_of_tls(talk)}"
        else:
            yield from _bytes(talk, "from the client", talk.inward, talk.record.bytes_in)
            yield from _bytes(talk, "to the client", talk.outward, talk.record.bytes_out)
        if talk.handler is not None:
            place = f"{printable(talk.handler.code)} ({printable(str(talk.handler))})"
            yield f"connection {talk.number}: the handler is in {place}"
        if talk.script is not None:
            yield from _script(talk)
    faults = _display.faults_report(scene.server)
    if faults:
        yield faults


def _told(scene: Scene) -> list[Talk]:
    """The connections whose bytes are shown: those that did not end well, the newest first.

    Those for which nothing was recorded follow from one before them.
    """
    bad = [talk for talk in scene.talks if talk.record.closed_by != "peer"]
    bad.sort(key=lambda talk: not talk.is_unrecorded)
    good = [talk for talk in scene.talks if talk.record.closed_by == "peer"]
    return [*reversed(bad), *reversed(good)]


def _row(talk: Talk) -> tuple[str, ...]:
    record = talk.record
    end = "open" if record.closed_by is None else record.closed_by
    if record.limit or record.fault:
        end = f"{end}: {record.limit or record.error or record.fault}"
    return (
        str(record.id),
        str(record.remote),
        f"{record.messages_in:,} ({size(record.bytes_in)})",
        f"{record.messages_out:,} ({size(record.bytes_out)})",
        seconds(record.seconds),
        end,
    )


def _of_tls(talk: Talk) -> str:
    record, info = talk.record, talk.record.tls
    total = f"{size(record.bytes_in)} from the client and {size(record.bytes_out)} to it"
    if info is None:
        return f"{total}, of a handshake of TLS that is not complete"
    return f"{total}, in {info.version}"


def _bytes(talk: Talk, way: str, data: bytes, total: int) -> Iterator[str]:
    head = f"connection {talk.number}, {way}: {size(total)}"
    tail = data[-_TAIL:]
    if not total:
        yield f"{head}, nothing"
        return
    if len(tail) < total:
        head += f", of which the last {len(tail)} are" if tail else ", not kept"
    yield head
    yield from dump(tail, total - len(tail))


def _script(talk: Talk) -> Iterator[str]:
    result = talk.script
    assert result is not None
    noun = "recording" if talk.is_replay else "script"
    if result.position is not None:
        yield f"connection {talk.number}: the {noun} waits at {printable(result.position)}"
        return
    if result.error is None:
        yield f"connection {talk.number}: the {noun} was played, {result.steps} steps"
        return
    first, *rest = result.error.splitlines()
    if first.startswith("connection "):
        yield printable(first)
    else:
        yield f"connection {talk.number}: the {noun} is at {printable(first)}"
    yield from (f"  {printable(line.strip())}" for line in rest)

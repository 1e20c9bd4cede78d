"""What the servers of a test saw: a snapshot, for the line of cause and the section of a report.

Owns the reading of servers, which may still serve; must never change one, nor draw a conclusion.
"""

import linecache
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType, TracebackType
from typing import Any, Final

from .. import _handlers
from .._fault import Fault
from .._rsock import Record, Replay
from .._server import Server
from .._types import FaultEvent, ScriptResult, TraceEvent

__all__ = ["Place", "Raised", "Scene", "Talk", "look", "place_of", "settle", "shorter"]

# How long a report waits for the servers to notice what their clients did last.
_SETTLE: Final = 0.25
_LOOK: Final = 0.002
# Records that are looked at.
_MOST: Final = 200
# A note of a handler's error.
_CONNECTION: Final = re.compile(r"in the handler of connection (\d+) ")
_SERVE: Final = _handlers._serve.__code__


@dataclass
class Place:
    """A line of the test, and the expression in it that runs: `conn.recv_exactly(10)`."""

    file: str
    line: int
    code: str

    def __str__(self) -> str:
        """`test_mail.py:12`."""
        return f"{self.file}:{self.line}"


@dataclass
class Raised:
    """What a handler raised, or, with `waited`, the end of what it waited for."""

    error: BaseException
    connection: int | None
    place: Place | None


@dataclass
class Talk:
    """One connection: its record, with what was read of it.

    With `is_tls` the bytes of the trace are records of TLS, which tell nothing: there are none.
    """

    record: Record
    is_tls: bool
    inward: bytes
    outward: bytes
    sends: int
    last: TraceEvent | None
    faults: list[FaultEvent]
    script: ScriptResult | None
    # The script is a recording.
    is_replay: bool
    handler: Place | None

    @property
    def number(self) -> int:
        """The number of the connection."""
        return self.record.id

    @property
    def is_unrecorded(self) -> bool:
        """Whether its recording has no connection for it, such as for one attempt too many."""
        error = self.script.error if self.script is not None else None
        return error is not None and error.endswith(" and no more")


@dataclass
class Scene:
    """One server with its connections."""

    server: Server
    name: str
    address: str
    port: int | None
    state: str
    service: str
    talks: list[Talk]
    accepted: int
    refused: int
    refused_by: dict[str, int]
    waiting: int
    faults: list[tuple[Fault, int, int]]
    raised: list[Raised] = field(default_factory=list)
    waited: list[Raised] = field(default_factory=list)


def settle(servers: Sequence[Server]) -> None:
    """Wait briefly until the servers have noticed what their clients did last.

    A client that has failed has often closed its socket a moment ago.
    """
    end = time.monotonic() + _SETTLE
    before: object = None
    while time.monotonic() < end:
        now = [_state(server) for server in servers]
        if before == now and not any(is_busy for _, is_busy in now):
            return
        before = now
        time.sleep(_LOOK)


def _state(server: Server) -> tuple[object, bool]:
    """The counts of a server, and whether a client has left that it still serves."""
    if server.state != "serving":
        return None, False
    totals, left = server.ledger.totals, False
    if server.transport == "tcp":
        states = (_tcp_state(record) for record in server.ledger.open[:_MOST])
        left = any(state == "CLOSE-WAIT" for state in states)
    handlers = server._handlers
    serving = len(handlers.connections) if handlers is not None else 0
    is_behind = handlers is not None and serving > totals.open
    counts = (totals.bytes_in, totals.bytes_out, totals.open, totals.closed, serving)
    return counts, left or is_behind


def _tcp_state(record: Record) -> str | None:
    info = record.tcp_info
    return None if info is None else info.state


def look(server: Server) -> Scene:
    """Return what a server saw so far."""
    address = server.address if server.state != "new" else ("", 0)
    is_pair = isinstance(address, tuple)
    totals = server.ledger.totals
    results = {result.connection: result for result in server.script_results}
    # Of several services that are chosen by connection, the report itself tells.
    is_replay = isinstance(server.service, Replay)
    places = dict(_places(server))
    records = server.ledger[-_MOST:]
    handlers = server._handlers
    errors = [] if handlers is None else handlers.errors.kept
    waited = [] if handlers is None else handlers.errors.waited
    return Scene(
        server=server,
        name=server.name,
        address=f"{address[0]}:{address[1]}" if is_pair else str(address),
        port=address[1] if is_pair else None,
        state=server.state,
        service=repr(server.service),
        talks=[
            _talk(
                record,
                server.tls is not None,
                results.get(record.id),
                is_replay,
                places.get(record.id),
            )
            for record in records
        ],
        accepted=totals.accepted,
        refused=totals.refused,
        refused_by=totals.refused_by,
        waiting=server.waiting if server.state == "serving" else 0,
        faults=[(fault, conns, events) for _, fault, conns, events in server._list_faults()],
        raised=[_raised(error) for error in errors],
        waited=[_raised(error) for error in waited],
    )


def _talk(
    record: Record,
    is_tls: bool,
    script: ScriptResult | None,
    is_replay: bool,
    handler: Place | None,
) -> Talk:
    trace = () if is_tls else record.trace or ()
    events = [event for event in trace if event.direction in ("in", "out")]
    return Talk(
        record=record,
        is_tls=is_tls,
        inward=b"".join(event.data for event in events if event.direction == "in"),
        outward=b"".join(event.data for event in events if event.direction == "out"),
        sends=sum(event.direction == "out" for event in events),
        last=events[-1] if events else None,
        faults=list(record.faults),
        script=script,
        is_replay=is_replay,
        handler=handler,
    )


def _raised(error: BaseException) -> Raised:
    notes = "\n".join(map(str, getattr(error, "__notes__", ())))
    found = _CONNECTION.search(notes)
    return Raised(error, int(found[1]) if found else None, place_of(error.__traceback__))


def _places(server: Server) -> Iterator[tuple[int, Place]]:
    """Where the handlers are that serve now, by the numbers of their connections."""
    for frame in sys._current_frames().values():
        chain = list(_outwards(frame))
        for at, each in enumerate(chain):
            if each.f_code is not _SERVE:
                continue
            conn: Any = each.f_locals.get("conn")
            # Below it are `_call` and the handler's own frames.
            inner = [one for one in chain[:at] if one.f_code.co_filename != _SERVE.co_filename]
            number = getattr(conn, "id", None)
            if number is not None and conn.server is server and inner:
                yield number, _place(inner[-1].f_code, inner[-1].f_lineno, inner[-1].f_lasti)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def place_of(traceback: TracebackType | None) -> Place | None:
    """Where the outermost frame of a traceback is."""
    if traceback is None:
        return None
    return _place(traceback.tb_frame.f_code, traceback.tb_lineno, traceback.tb_lasti)


def _place(code: CodeType, line: int | None, instruction: int) -> Place:
    line = line or code.co_firstlineno
    file = code.co_filename
    text = linecache.getline(file, line)
    # The columns of the expression, where Python knows them; they count bytes.
    positions = list(code.co_positions())
    at = instruction // 2
    if 0 <= at < len(positions):
        first, last, begin, end = positions[at]
        if first == last == line and begin is not None and end is not None:
            text = text.encode()[begin:end].decode(errors="replace")
    return Place(shorter(file), line, text.strip())


def shorter(file: str) -> str:
    """Return a path as it is from here, if it is below."""
    path = os.path.relpath(file) if os.path.isabs(file) else file
    return file if path.startswith("..") else path

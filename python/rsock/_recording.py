"""Recordings: what a file says that crossed the connections of a server.

The compiled half reads the file. Nothing here may touch a socket.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Self, cast

from . import _rsock
from ._endpoint import Endpoint
from ._printable import hex_rows, printable
from ._shown import Shown
from ._types import Recorded, RecordedClient, SocketPath

__all__ = ["RecordedConnection", "RecordedEvent", "Recording", "Torn"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Bytes that are taken for text if no more than one in this many is none.
_SOME: Final = 8
_ARROWS: Final = {"up": ">", "down": "<"}


@dataclass(frozen=True, slots=True)
class RecordedEvent(Shown):
    """Something that crossed a recorded connection.

    seconds: when, since the start of the recording.
    direction: "up" from the client to the server, "down" back.
    kind: "data"; "end", the side that it comes from has finished; or "reset".
    data: the bytes, of a stream as they came together, on UDP of one datagram; empty for an end.
    any: the parts of `data` that stand for any bytes, each from an index to another: what was
        redacted.
    """

    seconds: float
    direction: Literal["up", "down"]
    kind: Literal["data", "end", "reset"]
    data: bytes = b""
    any: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedConnection(Shown):
    """A recorded connection, or on UDP what a peer and the server sent each other.

    number: the number of its record on the server that recorded it.
    client: the client's Endpoint.
    seconds: when it was opened, since the start of the recording.
    events: what crossed it, in the order of time.
    """

    number: int
    client: Endpoint
    seconds: float
    events: list[RecordedEvent]

    @property
    def up(self) -> bytes:
        """All that the client sent."""
        return b"".join(event.data for event in self.events if event.direction == "up")

    @property
    def down(self) -> bytes:
        """All that the server sent."""
        return b"".join(event.data for event in self.events if event.direction == "down")

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"connection {self.number} of {self.client}, opened at {self.seconds:.6f}"
        for event in self.events:
            head = f"{event.seconds:12.6f} {_ARROWS[event.direction]} "
            if event.kind != "data":
                yield head + event.kind
                continue
            for line in _lines_of(event):
                yield head + line
                head = " " * len(head)


@dataclass(frozen=True, slots=True)
class Torn(Shown):
    """Where a recording is cut.

    line: the number of the first line that is missing or not complete.
    offset: where that line starts in the file, in bytes.
    what: what there is of it.
    """

    line: int
    offset: int
    what: str

    def __str__(self) -> str:
        return f"cut at line {self.line}, byte {self.offset}: {printable(self.what)}"


@dataclass(frozen=True, slots=True, repr=False)
class Recording(Shown):
    """A recording, as `Forward(…, recording=path)` writes it.

    transport: "tcp", "udp" or "unix", by which the server was reached.
    started: when the recording started, in UTC; None where the file is cut in front of this.
    target: where the server forwarded to.
    connections: the connections, in the order in which they were accepted.
    seconds: when it stopped, since its start; None where the file is cut.
    torn: where the file is cut, a Torn; None if it is complete.

    `print(recording)` shows the dialogues.
    """

    transport: Literal["tcp", "udp", "unix"]
    started: datetime | None
    target: str
    connections: list[RecordedConnection]
    seconds: float | None
    torn: Torn | None

    @classmethod
    def read(cls, path: SocketPath) -> Self:
        """Read a recording from a file.

        A file that is cut is read up to the line that is cut, which `torn` tells. Raises OSError
        if the file cannot be read, and ValueError, which names the path and the line, if it is no
        recording, or one of a later version. Blocks for as long as the file system takes, with
        the interpreter released.
        """
        return cls._of(_rsock._read_recording(path))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a recording from memory. Raises ValueError as `read` does."""
        return cls._of(_rsock._parse_recording(data))

    @classmethod
    def _of(cls, read: Recorded) -> Self:
        transport, started, target, connections, seconds, torn = read
        return cls(
            cast(Literal["tcp", "udp", "unix"], transport),
            None if started is None else _EPOCH + timedelta(microseconds=started),
            target,
            [_connection(each) for each in connections],
            seconds,
            None if torn is None else Torn(*torn),
        )

    def __repr__(self) -> str:
        count = len(self.connections)
        text = f"<Recording of {printable(self.target) or 'no target'} by {self.transport}: "
        text += f"{count} connection{'' if count == 1 else 's'}"
        return f"{text}, torn>" if self.torn else f"{text}>"

    def __str__(self) -> str:
        started = "" if self.started is None else f", started {self.started:%Y-%m-%d %H:%M:%S} UTC"
        head = f"recording of {printable(self.target) or 'no target'} by {self.transport}{started}"
        parts = [head, *map(str, self.connections)]
        if self.torn is not None:
            parts.append(str(self.torn))
        return "\n\n".join(parts)


def _connection(read: RecordedClient) -> RecordedConnection:
    number, transport, address, seconds, events = read
    client = Endpoint(cast(Literal["tcp", "udp", "unix"], transport), address)
    return RecordedConnection(number, client, seconds, [_event(*each) for each in events])


def _event(
    seconds: float, direction: str, kind: str, data: bytes, parts: tuple[tuple[int, int], ...]
) -> RecordedEvent:
    return RecordedEvent(
        seconds,
        cast(Literal["up", "down"], direction),
        cast(Literal["data", "end", "reset"], kind),
        data,
        parts,
    )


def _lines_of(event: RecordedEvent) -> Iterator[str]:
    """The bytes of an event: lines of text, or of hex where they are no text."""
    data = event.data
    if not data:
        yield "nothing" if not event.any else "(any bytes)"
        return
    odd = sum((byte < 32 and byte not in b"\t\n\r") or byte > 126 for byte in data)
    if odd * _SOME <= len(data):
        for line in data.splitlines(keepends=True):
            yield _literal(line)
    else:
        for start, row in hex_rows(data):
            yield f"{start:08x}  {row}"


def _literal(data: bytes) -> str:
    """Bytes as in a literal, without its quotes."""
    return repr(data + b'"')[2:-2]

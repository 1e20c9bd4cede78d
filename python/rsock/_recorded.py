"""Parts of a recording: its connections, with what crossed them.

Plain values. Nothing here may read a file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, Self, cast

from ._endpoint import Endpoint
from ._printable import hex_rows, printable
from ._shown import Shown
from ._types import RecordedClient, RecordedParts

__all__ = ["RecordedConnection", "RecordedEvent", "Torn"]

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

    @classmethod
    def _of(cls, read: RecordedParts) -> Self:
        seconds, direction, kind, data, parts = read
        return cls(
            seconds,
            cast(Literal["up", "down"], direction),
            cast(Literal["data", "end", "reset"], kind),
            data,
            parts,
        )


@dataclass(frozen=True, slots=True)
class RecordedConnection(Shown):
    """A recorded connection, or on UDP what a peer and the server sent each other.

    number: the number of its record on the server that recorded it.
    client: the client's Endpoint.
    seconds: when it was opened, since the start of the recording.
    events: what crossed it, in the order of time.
    local: the server's Endpoint; None where an older version of rsock has recorded.
    """

    number: int
    client: Endpoint
    seconds: float
    events: list[RecordedEvent]
    local: Endpoint | None = None

    @classmethod
    def _of(cls, read: RecordedClient) -> Self:
        number, transport, address, seconds, events, local = read
        return cls(
            number,
            Endpoint(transport, address),
            seconds,
            [RecordedEvent._of(each) for each in events],
            None if local is None else Endpoint(transport, local),
        )

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
        to = "" if self.local is None else f" to {self.local}"
        yield f"connection {self.number} of {self.client}{to}, opened at {self.seconds:.6f}"
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

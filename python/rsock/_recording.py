"""Recordings: what a file says that crossed the connections of a server.

The compiled half reads the file. Nothing here may touch a socket.
"""

import dataclasses
import heapq
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, Final, Literal, Self, cast

from . import _rsock
from ._printable import printable
from ._recorded import RecordedConnection, RecordedEvent, Torn
from ._shown import Shown
from ._types import Recorded, RecordedMoment, SocketPath

__all__ = ["Recording", "write_pcapng_of"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Something of a moment: when, the number of its connection, and the connection if it is opened
# then, or an event.
_Moment = tuple[float, int, RecordedConnection | RecordedEvent]


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
            [RecordedConnection._of(each) for each in connections],
            seconds,
            None if torn is None else Torn(*torn),
        )

    def write_pcapng(self, path: SocketPath) -> None:
        """Write the connections as a packet capture, for Wireshark, tshark and tcpdump.

        The file is pcapng (draft-ietf-opsawg-pcapng). Its packets have the payload, the addresses,
        the ports and the times of the recording; their headers are synthesised, with handshakes,
        sequence numbers and acknowledgements that fit. A connection by Unix sockets has addresses
        and ports that are made up. A comment in the file says so.

        Replaces an older capture. Raises FileExistsError for a file of another kind, and OSError
        if the file cannot be written. Blocks for as long as the file system takes.
        """
        from ._pcapng import replaced

        with replaced(path) as file:
            _write(file, self, self._moments())

    def _moments(self) -> Iterator[_Moment]:
        return heapq.merge(*map(_moments_of, self.connections), key=lambda moment: moment[0])

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


def write_pcapng_of(
    path: SocketPath, out: SocketPath | BinaryIO, number: int | None = None
) -> Recording:
    """Write a recording as `Recording.write_pcapng` does, without keeping it in memory.

    `number` is that of the only connection to write. Returns the recording without connections.
    Raises KeyError for a connection that there is not; nothing is written then.
    """
    moments: Iterator[_Moment]
    if os.path.isfile(path):
        timeline = _rsock.Timeline(path)
        head, moments = Recording._of(timeline.header()), map(_moment, timeline)
    else:
        # What may not be there a second time, such as a pipe.
        head = Recording.read(path)
        moments = head._moments()
    chosen: Iterator[_Moment] = (
        moment for moment in moments if number is None or moment[1] == number
    )
    if number is not None:
        # Before anything is opened.
        for first in chosen:
            chosen = itertools.chain([first], chosen)
            break
        else:
            raise KeyError(number)
    head = dataclasses.replace(head, connections=[])
    if isinstance(out, str | bytes | os.PathLike):
        from ._pcapng import replaced

        with replaced(out) as file:
            _write(file, head, chosen)
    else:
        _write(out, head, chosen)
    return head


def _moments_of(connection: RecordedConnection) -> Iterator[_Moment]:
    yield connection.seconds, connection.number, connection
    for event in connection.events:
        yield event.seconds, connection.number, event


def _moment(read: RecordedMoment) -> _Moment:
    number, opened, event = read
    if opened is not None:
        connection = RecordedConnection._of(opened)
        return connection.seconds, number, connection
    assert event is not None, "a moment is one of the two"
    return event[0], number, RecordedEvent._of(event)


def _write(file: BinaryIO, head: Recording, moments: Iterable[_Moment]) -> None:
    # Not needed by those who only read.
    from ._packets import TcpFlow, UdpFlow, flow_of
    from ._pcapng import PcapngFile

    out = PcapngFile(file, f"rsock {_rsock.__version__}", _comment(head))
    started = 0 if head.started is None else (head.started - _EPOCH) // timedelta(microseconds=1)
    flows: dict[int, TcpFlow | UdpFlow] = {}
    for seconds, number, what in moments:
        if isinstance(what, RecordedConnection):
            flow = flows[number] = flow_of(what, head.transport == "udp", head.target)
            packets = flow.opened()
        else:
            packets = flows[number].event(what)
        at = max(0, started + round(seconds * 1_000_000))
        for packet in packets:
            out.packet(at, *packet)


def _comment(head: Recording) -> str:
    """What the file says of itself."""
    lines = [
        f"A recording of {printable(head.target[:200]) or 'no target'} by {head.transport}.",
        "The headers of IP, TCP and UDP are synthesised: handshakes, sequence numbers,",
        "acknowledgements, windows and the sizes of segments are not what crossed the network.",
        "Payload, times, ends and, but for Unix sockets, addresses and ports are as recorded.",
    ]
    if head.started is None:
        lines.append("When it started is not known.")
    if head.torn is not None:
        lines.append(f"The recording is {head.torn}.")
    return "\n".join(lines)

"""A forwarder on uvloop: two Protocols, each of which writes to the other's transport.

Must never buffer more than a transport does: a side that does not read pauses the other.
"""

import asyncio
import sys
from typing import cast

import uvloop

BACKLOG = 4096


class Side(asyncio.Protocol):
    """One side of a connection; `other` is the side that its bytes go to."""

    def __init__(self) -> None:
        self.other: Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        assert self.other is not None
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        assert self.other is not None
        self.other.transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


class Near(Side):
    """The accepted side: reads nothing before the target is connected."""

    def __init__(self, target: int) -> None:
        super().__init__()
        self._target = target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self._task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, far = await loop.create_connection(Side, "127.0.0.1", self._target)
        self.other, far.other = far, self
        self.transport.resume_reading()


async def _main(target: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Near(target), "127.0.0.1", 0, backlog=BACKLOG)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(int(sys.argv[1])))

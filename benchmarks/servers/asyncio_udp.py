"""The datagram echo server of asyncio: a DatagramProtocol that sends back what it receives.

Also runs on any other event loop (`serve`). Must never slow it down.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any, cast


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports have asyncio's methods but not its types.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._transport.sendto(data, addr)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    print(transport.get_extra_info("sockname")[1], flush=True)
    await ended.wait()


def serve(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Echoes on a loop of that kind until standard input ends."""
    # As in `asyncio_echo`: asyncio allocates 256 KiB for each receive.
    bytearray(1 << 20)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_main())


if __name__ == "__main__":
    serve(asyncio.new_event_loop)

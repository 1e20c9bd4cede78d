"""The echo server of asyncio: a Protocol that writes back what it receives.

Also runs on any other event loop, and by TLS (`serve`): an argument names the folder with the
certificate. Must never slow it down: of two equally simple versions this is the faster.
"""

import asyncio
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

# Longer than asyncio's 100, so that thousands of clients can connect at once.
BACKLOG = 4096


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports have asyncio's methods but not its types.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


def _tls(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def _main() -> None:
    loop = asyncio.get_running_loop()
    tls = _tls(Path(sys.argv[1])) if sys.argv[1:] else None
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=BACKLOG, ssl=tls)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()


def _raise_mmap_threshold() -> None:
    """Frees one large block, as most programs do early on.

    asyncio allocates 256 KiB for each receive. Until glibc has seen a larger block freed, it maps
    and unmaps every one of them, and a message costs three times as much.
    """
    bytearray(1 << 20)


def serve(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Echoes on a loop of that kind until standard input ends."""
    _raise_mmap_threshold()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_main())


if __name__ == "__main__":
    serve(asyncio.new_event_loop)

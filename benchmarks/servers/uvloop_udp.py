"""The datagram echo server of uvloop: asyncio's very DatagramProtocol, on uvloop's event loop.

Must never differ from `asyncio_udp` in anything but the loop.
"""

import uvloop

from servers.asyncio_udp import serve

if __name__ == "__main__":
    serve(uvloop.new_event_loop)

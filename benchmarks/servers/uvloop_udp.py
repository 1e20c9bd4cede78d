"""The datagram echo server of uvloop: asyncio's DatagramProtocol on uvloop's event loop.

The Protocol is the same class. Must never differ from `asyncio_udp` in anything but the loop.
"""

import uvloop

from servers.asyncio_udp import serve

if __name__ == "__main__":
    serve(uvloop.new_event_loop)

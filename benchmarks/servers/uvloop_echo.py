"""The echo server of uvloop: the same Protocol as asyncio's, on uvloop's event loop.

Must never differ from `asyncio_echo` in anything but the loop.
"""

import uvloop

from servers.asyncio_echo import serve

if __name__ == "__main__":
    serve(uvloop.new_event_loop)

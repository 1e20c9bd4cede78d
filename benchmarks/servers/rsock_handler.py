"""The handler on rsock with its defaults: `Server(service=handle)`.

Must never set an option, because the figures are of what a user gets.
"""

import sys

from rsock import Server
from servers.handler import handle

if __name__ == "__main__":
    with Server(service=handle) as server:
        print(server.port, flush=True)
        sys.stdin.read()

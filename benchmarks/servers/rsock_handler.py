"""The handler on rsock, as it comes: `Server(service=handle)`.

Must never set an option: what is measured is what a user gets.
"""

import sys

from rsock import Server
from servers.handler import handle

if __name__ == "__main__":
    with Server(service=handle) as server:
        print(server.port, flush=True)
        sys.stdin.read()

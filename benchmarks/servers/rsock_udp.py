"""The datagram echo server of rsock with its defaults: `Server(transport="udp")`.

Its service is Echo. Must never set another option, because the figures are of what a user gets.
"""

import sys

from rsock import Server

if __name__ == "__main__":
    with Server(transport="udp") as server:
        print(server.port, flush=True)
        sys.stdin.read()

"""The datagram echo server of rsock, as it comes: `Server(transport="udp")`, whose service is Echo.

Must never set another option: what is measured is what a user gets.
"""

import sys

from rsock import Server

if __name__ == "__main__":
    with Server(transport="udp") as server:
        print(server.port, flush=True)
        sys.stdin.read()

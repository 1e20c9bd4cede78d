"""The forwarder of rsock, as it comes: `Server(service=Forward(host, port))`.

Must never set an option: what is measured is what a user gets.
"""

import sys

from rsock import Forward, Server

if __name__ == "__main__":
    with Server(service=Forward("127.0.0.1", int(sys.argv[1]))) as server:
        print(server.port, flush=True)
        sys.stdin.read()

"""The forwarder of rsock with its defaults: `Server(service=Forward(host, port))`.

Must never set an option, because the figures are of what a user gets.
"""

import sys

from rsock import Forward, Server

if __name__ == "__main__":
    with Server(service=Forward("127.0.0.1", int(sys.argv[1]))) as server:
        print(server.port, flush=True)
        sys.stdin.read()

"""An echo server. Run it, then try `ncat 127.0.0.1 8080`; Ctrl-C stops it."""

import sys

from rsock import Server

port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
server = Server("127.0.0.1", port).listen()
print(f"echoing on {server.host} port {server.port}", flush=True)
print(server.run())

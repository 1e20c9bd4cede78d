"""An echo server. Run it, then try `ncat 127.0.0.1 8080`; Ctrl-C stops it."""

import argparse

from rsock import Server

arguments = argparse.ArgumentParser()
arguments.add_argument("port", nargs="?", type=int, default=8080)
port = arguments.parse_args().port
server = Server("127.0.0.1", port).listen()
print(f"echoing on {server.host} port {server.port}", flush=True)
print(server.run())

"""A server that greets each client and closes, as examples/c/greeting_server.c does.

It sends the bytes of the C string, including the final NUL. Run it, then
`python examples/greeting_client.py 127.0.0.1 8080`; Ctrl-C stops it.
"""

import argparse

from rsock import Greeting, Server

arguments = argparse.ArgumentParser()
arguments.add_argument("port", nargs="?", type=int, default=8080)
port = arguments.parse_args().port
server = Server("127.0.0.1", port, Greeting(b"Hello, Client!\0")).listen()
print(f"listening on port {server.port}", flush=True)
print(server.run())

"""The usual first server, a loop of accept, receive and close, written with rsock.

Connections that have not been accepted yet wait in the kernel's queue; `server.waiting` is their
number. Run it, then try `echo hello | ncat 127.0.0.1 8080`; Ctrl-C stops it.
"""

import argparse
import contextlib

from rsock import Accept, Server


def run_server(host: str, port: int) -> None:
    """Print the first data of each client."""
    server = Server(host, port, Accept())
    with server:
        print(f"listening on port {server.port}", flush=True)
        for conn, (peer_host, peer_port) in server:
            with contextlib.suppress(ConnectionError):  # A reset must not end the server.
                message = conn.recv(1024)
                print(f"{peer_host} port {peer_port} says {message!r}", flush=True)
            conn.close()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("port", nargs="?", type=int, default=8080)
    port = arguments.parse_args().port
    with contextlib.suppress(KeyboardInterrupt):
        run_server("127.0.0.1", port)

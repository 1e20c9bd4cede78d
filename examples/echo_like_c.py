"""The echo server of examples/c/echo_server.c, written with rsock: the same loops and answers.

It serves one client at a time. A message is the result of one `recv`, up to 99 bytes, treated as a
C string: it ends at the first NUL, and a newline at its end is removed. b"exit" ends the
connection; everything else is sent back. Run it, then try `ncat 127.0.0.1 8080`; Ctrl-C stops it.
For a protocol of lines, use the service `LineEcho()`.
"""

import argparse
import contextlib

from rsock import Accept, Connection, Server


def serve(conn: Connection) -> None:
    """Answer the messages of one client."""
    while message := conn.recv(99):
        text = message.partition(b"\0")[0].removesuffix(b"\n")
        if text == b"exit":
            print("the client asked to close", flush=True)
            return
        conn.sendall(text)
    print("the client left", flush=True)


def main() -> None:
    """Serve one client after the other."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("port", nargs="?", type=int, default=8080)
    port = arguments.parse_args().port
    with Server("127.0.0.1", port, Accept()) as server:
        print(f"listening on port {server.port}", flush=True)
        for conn, _ in server:
            # A client that resets its connection must not end the server.
            with conn, contextlib.suppress(OSError):
                serve(conn)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

"""The echo server of examples/c/echo_server.c, in rsock: the same loops, the same answers.

One client at a time. A message is what one `recv` gives, up to 99 bytes, taken as a C string: it
ends at the first NUL, and a newline at its end is removed. b"exit" ends the connection; everything
else is sent back. Run it, then try `ncat 127.0.0.1 8080`; Ctrl-C ends it. Where lines are meant,
`LineEcho()` is the service.
"""

import contextlib
import sys

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
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    with Server("127.0.0.1", port, Accept()) as server:
        print(f"listening on port {server.port}", flush=True)
        for conn, _ in server:
            # A client that vanishes is its own affair.
            with conn, contextlib.suppress(OSError):
                serve(conn)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

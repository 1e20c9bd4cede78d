"""The application of the examples of deployment: a handler, as `rsock serve app:shout` takes it."""

from rsock import Connection


def shout(conn: Connection) -> None:
    """Send each line back in capitals."""
    while line := conn.recv_line():
        conn.sendall(line.upper())

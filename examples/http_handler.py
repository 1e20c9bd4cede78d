"""A small HTTP/1.1 server as a handler. Run it, then try `curl http://127.0.0.1:8080/`.

h11 implements the protocol, the handler transfers the bytes. Requires `pip install h11`.
"""

import argparse
from email.utils import formatdate

import h11

from rsock import Connection, Server

PATIENCE, LARGEST = 30.0, 1 << 20  # Seconds that a client may be silent; bytes of a body.
PAGES = {b"/": (b"GET", b"HEAD"), b"/echo": (b"POST",)}  # The methods of each page.


def serve(conn: Connection) -> None:
    """Answer one request after the other, until either side closes."""
    conn.settimeout(PATIENCE)  # A TimeoutError then ends the handler; it is not reported.
    http = h11.Connection(h11.SERVER)
    while True:
        try:
            request, body = read_request(conn, http)
        except h11.RemoteProtocolError as error:
            # The start of the next request is unknown: send an answer and close.
            return respond(conn, http, b"", error.error_status_hint, b"no such request\n")
        if request is None:
            return None
        path, method = request.target.partition(b"?")[0], request.method
        if path not in PAGES:
            respond(conn, http, method, 404, b"no such page\n")
        elif method not in PAGES[path]:
            respond(conn, http, method, 405, b"not here\n", b", ".join(PAGES[path]))
        elif len(body) > LARGEST:
            respond(conn, http, method, 413, b"too large\n")
        else:
            respond(conn, http, method, 200, body if path == b"/echo" else b"hello from rsock\n")
        if http.our_state is not h11.DONE:
            return None  # HTTP/1.0, or "Connection: close".
        http.start_next_cycle()


def read_request(conn: Connection, http: h11.Connection) -> tuple[h11.Request | None, bytes]:
    """The next request and its body; None if the client has finished."""
    request, body = None, bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                conn.sendall(http.send(go_on) or b"")
            # b"" means that the client has finished or the server is stopping; h11 accepts it.
            http.receive_data(conn.recv(65_536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            # One byte over the limit shows that the body is too large; the rest is dropped.
            body += event.data[: LARGEST + 1 - len(body)]
        else:
            return request, bytes(body)  # EndOfMessage, or ConnectionClosed.


def respond(
    conn: Connection, http: h11.Connection, method: bytes, status: int, body: bytes, *allow: bytes
) -> None:
    """Send an answer in one call; an answer to HEAD has the length of the body, but no body."""
    headers = [(b"Date", formatdate(usegmt=True).encode()), (b"Content-Length", b"%d" % len(body))]
    headers += [(b"Allow", methods) for methods in allow]
    events = [h11.Response(status_code=status, headers=headers), h11.EndOfMessage()]
    if method != b"HEAD":
        events.insert(1, h11.Data(data=body))
    conn.sendall(b"".join(http.send(event) or b"" for event in events))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", nargs="?", type=int, default=8080)
    server = Server("127.0.0.1", parser.parse_args().port, serve).listen()
    print(f"serving {server.url('http')}", flush=True)
    print(server.run())

"""The HTTP endpoint of `--metrics`: /metrics for Prometheus, /ready for a probe.

It reads numbers and states. It must never delay what serves, nor be loaded without the option.
"""

import contextlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from ._addresses import Address
from ._errors import Failure, message
from ._threads import signals_blocked

__all__ = ["endpoint"]

_MISSING: Final = (
    "--metrics needs the package prometheus-client: pip install prometheus-client,"
    " or in a clone pip install '.[metrics]'"
)
# How many seconds a client of the endpoint may be silent.
_SILENCE: Final = 10.0


@contextlib.contextmanager
def endpoint(
    address: Address | None,
    registry: Callable[[], Any],
    ready: Callable[[], bool],
    said: Callable[[str, int], None],
) -> Iterator[None]:
    """Serve metrics during a block; without an address this does nothing.

    `registry` makes the registry once; `said` is called with the host and the port. Raises Failure
    if the package is missing, or the address cannot be bound.
    """
    if address is None:
        yield
        return
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise Failure(_MISSING) from None
    try:
        server = _Server(address, registry(), ready)
    except OSError as error:
        where = f"{address.host}:{address.port}"
        raise Failure(f"--metrics: bind {where}: {message(error)}") from None
    with server:
        said(*server.server_address[:2])  # type: ignore[arg-type]
        with signals_blocked():
            thread = threading.Thread(
                target=server.serve_forever, args=(0.1,), name="rsock-metrics", daemon=True
            )
            thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, address: Address, registry: Any, ready: Callable[[], bool]) -> None:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        self.address_family = found[0][0]
        self.registry = registry
        self.ready = ready
        super().__init__(found[0][4][:2], _Answer)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:
        # A client that goes away early.
        pass


class _Answer(http.server.BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENCE
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/", "/metrics"):
            from prometheus_client import exposition

            encode, kind = exposition.choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, encode(self.server.registry), kind)
        elif path == "/ready":
            ready = self.server.ready()
            self._answer(200 if ready else 503, b"ready\n" if ready else b"not ready\n")
        elif path == "/live":
            self._answer(200, b"live\n")
        else:
            self._answer(404, b"/metrics, /ready, /live\n")

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        # Scrapes and probes are no news.
        pass

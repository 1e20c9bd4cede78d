"""Fixtures for pytest, found through the `pytest11` entry point of the package.

This file owns the way a test gets its servers and the way they end. pytest loads it in every run
of every project that has rsock installed: importing it must load nothing that pytest and `import
rsock` have not loaded, open nothing and start nothing. `-p no:rsock` leaves it out.
"""

from collections.abc import Iterator
from typing import Protocol, Unpack

import pytest

from ._connection import Function
from ._rsock import Service
from ._server import Server, _ServerOptions

__all__ = ["MakeServer"]


class _Options(_ServerOptions, total=False):
    host: str | tuple[str, int | str]
    port: int | str


class MakeServer(Protocol):
    """The type of the fixture `make_rsock_server`, for annotations."""

    def __call__(
        self,
        service: Service | Function | None = None,
        **options: Unpack[_Options],
    ) -> Server:
        """Return a started `Server`; the arguments are those of `Server`."""


@pytest.fixture
def rsock_server(make_rsock_server: MakeServer) -> Server:
    """A `rsock.Server` that echoes on a free port of 127.0.0.1.

    It listens before the test begins and is gone after it. `rsock_server.address` is the
    `(host, port)` to connect to, `rsock_server.ledger` the account of what came.
    """
    return make_rsock_server()


@pytest.fixture
def make_rsock_server() -> Iterator[MakeServer]:
    """Make servers: `make_rsock_server(service=None, **options)` returns a started `rsock.Server`.

    `service` is a function of one connection, or a service such as `Accept()`; None echoes. The
    options are the keywords of `Server`, `host` and `port` among them. All servers are stopped
    after the test, the last one first. What a handler raises is then an error of the test, unless
    `on_error` says otherwise. The type to annotate with is `rsock.pytest_plugin.MakeServer`.
    """
    servers: list[Server] = []

    def make_rsock_server(
        service: Service | Function | None = None,
        **options: Unpack[_Options],
    ) -> Server:
        options.setdefault("on_error", "raise")
        server = Server(service=service, **options)
        # Before it starts: an exception that a signal raises now must not leave it behind.
        servers.append(server)
        return server.start()

    yield make_rsock_server
    _stop(servers)


def _stop(servers: list[Server]) -> None:
    """Stop them, the last one first and each whatever the others raise; then raise all of it."""
    errors: list[BaseException] = []
    interrupt: KeyboardInterrupt | None = None
    while servers:
        server = servers.pop()
        try:
            # What the end of a `with` does: in order, or at once where it is left by an exception,
            # as it is after Ctrl-C; a forked child leaves its parent's server alone.
            server.__exit__(type(interrupt) if interrupt else None, interrupt, None)
        except KeyboardInterrupt as error:
            interrupt = error
        except BaseExceptionGroup as error:
            # What handlers raised. Each has its own traceback; that of the group is only ours.
            errors.append(error.with_traceback(None))
        except BaseException as error:
            errors.append(error)
    if interrupt is not None:
        # By itself: as part of a group it would not end the run.
        raise interrupt
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup(f"{len(errors)} servers ended with errors", errors)

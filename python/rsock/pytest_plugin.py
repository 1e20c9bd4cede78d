"""Fixtures for pytest, found through the `pytest11` entry point of the package.

This file owns the servers of a test, from their start to their stop. pytest loads it in each run
of each project that has rsock installed: importing it must load nothing that pytest and `import
rsock` have not loaded, open nothing and start nothing. `-p no:rsock` disables it.
"""

from collections.abc import Iterator
from typing import Final, Protocol, Unpack

import pytest

from . import _display
from ._printable import printable
from ._rsock import Service
from ._server import Server, ServerOptions
from ._types import Function

__all__ = ["MakeServer"]


class _Options(ServerOptions, total=False):
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

    It listens before the test begins and is stopped after it. `rsock_server.address` is the
    `(host, port)` to connect to, `rsock_server.ledger` the account of its connections.
    """
    return make_rsock_server()


# Whether the body of a test has failed.
_FAILED: Final = pytest.StashKey[bool]()
# The servers of a test, also when they have been stopped.
_SERVERS: Final = pytest.StashKey[list[Server]]()


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Note that a test has failed, for its fixtures; report what the faults of its servers did."""
    servers = item.stash.get(_SERVERS, [])
    if call.excinfo is not None:
        if call.when == "call":
            item.stash[_FAILED] = True
        reports = [report for server in servers if (report := _faults_report(server))]
        if reports:
            item.add_report_section(call.when, "faults of rsock", "\n\n".join(reports))
    if call.when == "teardown":
        # pytest keeps the items until the end of the run.
        servers.clear()


def _faults_report(server: Server) -> str:
    try:
        return _display.faults_report(server)
    except Exception as error:
        # Such as that of a forked child; a report must not fail the run.
        return f"{server!r}: {printable(str(error))}"


@pytest.fixture
def make_rsock_server(request: pytest.FixtureRequest) -> Iterator[MakeServer]:
    """Make servers: `make_rsock_server(service=None, **options)` returns a started `rsock.Server`.

    `service` is a function of one connection, or a service such as `Accept()`; None echoes. The
    options are the keywords of `Server`, including `host` and `port`. All servers are stopped
    after the test, the last one first. An exception that a handler raises is then an error of the
    test, unless `on_error` says otherwise. If the test fails, an exception of a read that waited
    for the rest of a message is one, too: it tells what the server waited for. The type for
    annotations is
    `rsock.pytest_plugin.MakeServer`. The report of a failed test tells what the faults of its
    servers did, and the seed that repeats them.
    """
    servers: list[Server] = []
    reported = request.node.stash.setdefault(_SERVERS, [])

    def make_rsock_server(
        service: Service | Function | None = None,
        **options: Unpack[_Options],
    ) -> Server:
        options.setdefault("on_error", "raise")
        server = Server(service=service, **options)
        # Before it starts, so that it is stopped even if a signal raises an exception now.
        servers.append(server)
        reported.append(server)
        return server.start()

    yield make_rsock_server
    _stop(servers, request.node.stash.get(_FAILED, False))


def _stop(servers: list[Server], failed: bool) -> None:
    """Stop all servers, the last one first, whatever the others raise; then raise the errors."""
    errors: list[BaseException] = []
    interrupt: KeyboardInterrupt | None = None
    while servers:
        server = servers.pop()
        try:
            # As at the end of a `with`: with a drain, or at once after an exception, as Ctrl-C is;
            # in a forked child it does nothing to the parent's server.
            server.__exit__(type(interrupt) if interrupt else None, interrupt, None)
        except KeyboardInterrupt as error:
            interrupt = error
        except BaseExceptionGroup as error:
            # What handlers raised. Each has its own traceback; the group's has only our frames.
            errors.append(error.with_traceback(None))
        except BaseException as error:
            errors.append(error)
        else:
            if failed:
                errors += _waited(server)
    if interrupt is not None:
        # Not in a group, where it would not end the run.
        raise interrupt
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup(f"{len(errors)} servers ended with errors", errors)


def _waited(server: Server) -> list[BaseExceptionGroup[Exception]]:
    """The group of what the server's handlers waited for; empty if they waited for nothing."""
    handlers = server._handlers
    waited = [] if handlers is None else handlers.errors.waited
    if not waited:
        return []
    return [ExceptionGroup(f"handlers of {server.name} waited for the rest of a message", waited)]

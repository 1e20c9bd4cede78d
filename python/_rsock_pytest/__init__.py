"""The plugin of rsock for pytest: its options, its fixtures, its part of a report.

PYTEST_DONT_REWRITE
"""

# pytest loads this package in each run of each project that has rsock installed, so it lies beside
# `rsock` and imports nothing of it: `rsock._pytest` does the work, and is imported by the first
# test that uses a fixture. Must never open or start anything by itself. `-p no:rsock` disables it.
#
# The last word of the docstring is for pytest, which would otherwise rewrite the assertions of this
# package, of which there are none.

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from rsock import TLS, Server
    from rsock._pytest._servers import ServersOfTest
    from rsock.pytest_plugin import MakeProxy, MakeRecording, MakeServer

__all__: list[str] = []

# The title of our section in a report.
_TITLE: Final = "rsock"
_SERVERS: Final = pytest.StashKey["ServersOfTest"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command line and of the configuration."""
    group = parser.getgroup("rsock", "the servers of rsock")
    group.addoption(
        "--rsock-seed",
        type=_seed,
        metavar="N",
        help="the seed of the faults of each test; the report of a failed test names it",
    )
    group.addoption(
        "--rsock-show",
        action="store_true",
        help="show what the servers did for tests that pass, too",
    )
    group.addoption(
        "--rsock-strict",
        action="store_true",
        default=None,
        help="a connection that a test leaves open is an error of the test, not a warning",
    )
    group.addoption(
        "--rsock-not-strict",
        action="store_false",
        dest="rsock_strict",
        help="the opposite, whatever the configuration says",
    )
    group.addoption(
        "--rsock-record",
        metavar="DIR",
        help="record what the real servers of `rsock_recording` say into DIR, in place of playing "
        "the recordings",
    )
    parser.addini(
        "rsock_recordings",
        "the folder of the recordings that are played, relative to this file; otherwise "
        "`recordings` beside the test, or beside a folder above it",
        type="string",
        default="",
    )
    parser.addini(
        "rsock_redact",
        "patterns that no recording may have, one a line: what they match, or their groups if they "
        "have some, is replaced by [redacted]",
        type="linelist",
        default=[],
    )
    parser.addini("rsock_strict", "as --rsock-strict", type="bool", default=False)


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**64:
        # argparse reports it with the name of the option and the text.
        raise ValueError
    return seed


_seed.__name__ = "seed (0 to 2**64 - 1)"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "rsock(service=None, *, strict=None, redact=(), **options): the service and the options of "
        "the server of `rsock_server` and `rsock_udp`: any keyword of `rsock.Server`; `tls=True` "
        "makes a certificate. `seed` and `strict` hold for all servers of the test, `redact` for "
        "its recordings.",
    )


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say that this run records."""
    folder = config.getoption("rsock_record")
    return [] if folder is None else [f"rsock: records to {folder!r}"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check the marker, also of a test that uses no fixture."""
    if item.get_closest_marker("rsock") is not None:
        from rsock._pytest import _marks

        _marks.options_of(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the section of the servers to the report of a test that failed."""
    servers = item.stash.get(_SERVERS, None)
    if servers is None:
        return (yield)
    servers.hide_frames()
    report = yield
    text = servers.section(call, report)
    if text:
        report.sections.append((_TITLE, text))
    if call.when == "teardown":
        # pytest keeps the items until the end of the run.
        del item.stash[_SERVERS]
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """With --rsock-show, write the sections of tests that passed."""
    if not config.getoption("rsock_show"):
        return
    for reports in terminalreporter.stats.values():
        for report in reports:
            if not isinstance(report, pytest.TestReport) or not report.passed:
                continue
            for title, text in report.sections:
                if title == _TITLE:
                    terminalreporter.write_sep("_", f"rsock: {report.nodeid}")
                    terminalreporter.write_line(text)


def _is_hidden(excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
    # pytest 8 ends the run with an internal error where no frame of a group is left to be shown.
    return pytest.version_tuple >= (9,) or not isinstance(excinfo.value, BaseExceptionGroup)


@pytest.fixture
def _rsock_servers(request: pytest.FixtureRequest) -> Iterator[ServersOfTest]:
    from rsock._pytest._servers import ServersOfTest

    __tracebackhide__ = _is_hidden
    servers = ServersOfTest(request.node)
    request.node.stash[_SERVERS] = servers
    yield servers
    servers.stop()


@pytest.fixture
def rsock_server(_rsock_servers: ServersOfTest) -> Server:
    """A `rsock.Server` that echoes on a free port of 127.0.0.1.

    It listens before the test begins and is stopped after it. `rsock_server.address` is the
    `(host, port)` to connect to, `rsock_server.ledger` the account of its connections, with traces.
    `@pytest.mark.rsock(service=…, faults=[…], …)` gives it a service and any keyword of `Server`.
    """
    __tracebackhide__ = True
    return _rsock_servers.marked()


@pytest.fixture
def rsock_udp(_rsock_servers: ServersOfTest) -> Server:
    """A `rsock.Server` that echoes datagrams on a free UDP port of 127.0.0.1.

    As `rsock_server` otherwise, the marker included.
    """
    __tracebackhide__ = True
    return _rsock_servers.marked(transport="udp")


@pytest.fixture
def make_rsock_server(_rsock_servers: ServersOfTest) -> MakeServer:
    """Make servers: `make_rsock_server(service=None, **options)` returns a started `rsock.Server`.

    `service` is a function of one connection, or a service such as `Script()` or `Accept()`; None
    echoes. The options are the keywords of `Server`, including `host` and `port`; `trace` is on.
    All servers are stopped after the test, the last one first. An exception that a handler raises,
    and a client that diverges from a script, are then errors of the test, unless `on_error` says
    otherwise. The report of a failed test begins with what went wrong, and has what the
    servers saw. The type for annotations is `rsock.pytest_plugin.MakeServer`.
    """
    return _rsock_servers.make


@pytest.fixture
def rsock_proxy(_rsock_servers: ServersOfTest) -> MakeProxy:
    """Put a server before another: `rsock_proxy(target, **options)` returns a started server.

    It forwards each connection to `target`: a `(host, port)` pair, "host:port", a `rsock.Server`,
    or a `pathlib.Path` of a Unix socket. The options are the keywords of `Server`, such as
    `faults=[…]`. It is one of the servers of the test, as those of `make_rsock_server`. The type
    for annotations is `rsock.pytest_plugin.MakeProxy`.
    """
    return _rsock_servers.proxy


@pytest.fixture
def rsock_recording(_rsock_servers: ServersOfTest) -> MakeRecording:
    """Replay a server: `rsock_recording(target, **options)` returns a started `rsock.Server`.

    It plays what the real server at `target` has said when this test was recorded: the test needs
    the real one only with `--rsock-record=DIR`, which forwards to it and records. Each test has
    its own file, `recordings/<module>/<test>.rec` beside the test, or below `rsock_recordings` of
    the configuration. `target` is as in `rsock_proxy`, or a function that returns it, which is
    called only to record. `redact` keeps secrets out of the file; `ignore`, `carry`, `chunks`,
    `speed`, `connections` and `timeout` are those of `rsock.Replay`, `target_tls` the `tls` of
    `rsock.Forward`, and the others keywords of `rsock.Server`. The type for annotations is
    `rsock.pytest_plugin.MakeRecording`.
    """
    return _rsock_servers.recording


@pytest.fixture(scope="session")
def rsock_tls(pytestconfig: pytest.Config) -> TLS:
    """The `rsock.TLS` of servers with `tls=True`: one certificate for localhost and 127.0.0.1.

    `rsock_tls.client_context()` is an `ssl.SSLContext` that trusts it, `rsock_tls.ca_pem` the
    authority as text; `rsock_ca_file` is a file of it.
    """
    from rsock._pytest._session import tls_of

    return tls_of(pytestconfig)


@pytest.fixture(scope="session")
def rsock_ca_file(rsock_tls: TLS, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file of the authority of `rsock_tls`, for clients that take a path."""
    file = tmp_path_factory.mktemp("rsock") / "ca.pem"
    file.write_text(rsock_tls.ca_pem)
    return file

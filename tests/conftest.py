"""Fixtures for every test, and the check that a test leaves nothing behind."""

from __future__ import annotations

import gc
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from support import compiled, fds, full_listener, threads
from support.project import TESTS
from support.roles import OURS, ROLES, Pair, connected

from rsock import Client, Server

# A shell starts its background jobs with SIGINT ignored, and every process started from here would
# inherit that. With a handler installed they start with the default action.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PEERS = TESTS / "peers"


def pytest_collection_finish() -> None:
    """What thousands of collected tests consist of is left out of each later garbage collection."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Hypothesis, first imported for the summary, warns of objects that a collection cannot see."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread of rsock, no socket and no poller outlives a test."""
    threads_before, fds_before = threads(), fds()
    yield
    end = time.monotonic() + 10.0
    while True:
        new_threads = {n: name for n, name in threads().items() if n not in threads_before}
        new_fds: Counter[str] = fds() - fds_before
        if not new_threads and not new_fds:
            return
        if time.monotonic() >= end:
            break
        gc.collect()
        time.sleep(0.01)
    pytest.fail(f"left behind: threads {new_threads}, descriptors {dict(new_fds)}")


@pytest.fixture(params=[1, 2], ids=["one-worker", "two-workers"])
def workers(request: pytest.FixtureRequest) -> int:
    """A single worker accepts by itself; with several workers a separate thread accepts."""
    number: int = request.param
    return number


@pytest.fixture(params=ROLES)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A stream in each role, or a plain socket, and the socket at its other end."""
    with connected(request.param) as pair:
        yield pair


@pytest.fixture(params=OURS)
def ours(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A stream in each role, and the plain socket at its other end."""
    with connected(request.param) as pair:
        yield pair


@pytest.fixture
def echo() -> Iterator[Server]:
    """A started echo server."""
    with Server() as server:
        yield server


@pytest.fixture
def echo_pair(echo: Server) -> Iterator[tuple[Server, Client]]:
    """A started echo server and a client connected to it."""
    with echo.client(timeout=5.0) as client:
        yield echo, client


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory with a name short enough for Unix sockets; empty again at the end."""
    with tempfile.TemporaryDirectory(prefix="rsock-") as name:
        yield Path(name)
        assert list(Path(name).iterdir()) == []


@pytest.fixture
def path(directory: Path) -> str:
    """Where a Unix socket can be bound; its file must not outlive the test."""
    return str(directory / "x.sock")


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGUSR1 raises KeyboardInterrupt as SIGINT would, without ending the test run."""

    def raise_it(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, raise_it)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture(scope="session")
def echo_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain C client of `peers/echo_client.c`, compiled."""
    return compiled(PEERS / "echo_client.c", tmp_path_factory.mktemp("peers"))


@pytest.fixture(name="full_listener")
def full_listener_fixture() -> Iterator[tuple[str, int]]:
    """A listener whose queue is full: handshakes with it do not finish."""
    with full_listener() as address:
        yield address

"""The suite's processes.

Owns how a child starts, is called and ends, and how many resources it holds. A child runs
`reliability.child` with the interpreter of the suite: functions of the scenario's module are called
there by name. It never outlives the `with` block that started it.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from support import wait_until
from support.project import TESTS

from reliability.figures import Figure, equal

# How long a child may take to start and to end on a busy machine.
PATIENCE = 60.0
# How long a server may take to release its resources.
GIVEN_BACK = 5.0


class Held(NamedTuple):
    """The resources of a process."""

    fds: int
    threads: int


def held(pid: int | str = "self") -> Held:
    proc = Path(f"/proc/{pid}")
    return Held(len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir())))


def back_to(before: Held, pid: int | str = "self") -> bool:
    """Whether the process holds what it did before; a joined thread may be listed for a moment."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: held(pid) == before, GIVEN_BACK)
    return held(pid) == before


def resident_bytes(pid: int | str = "self") -> int:
    """The resident memory of a process. (Not from statm, which is only approximate.)"""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise LookupError("/proc/PID/smaps_rollup has no line Rss")


class Child:
    """A process in which functions of a module are called, one after another.

    Their arguments and results must be serializable as JSON.
    """

    def __init__(self, *options: str) -> None:
        self._options = options
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, *self._options, "-m", "reliability.child"],
            cwd=TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A file, because a pipe that is not read meanwhile would fill up.
            stderr=self._said,
            text=True,
            # Ctrl-C is for the suite, which then ends its children.
            process_group=0,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()
        if error is not None and (said := self.said()):
            error.add_note(f"the child said: {said}")
        self._said.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def begin(self, function: Callable[..., Any], *arguments: object) -> None:
        """Make the child call the function; `result()` waits for the outcome."""
        assert self.process.stdin is not None
        name = f"{function.__module__}:{function.__qualname__}"
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()

    def result(self) -> Any:
        assert self.process.stdout is not None
        # The child's end is also an outcome, should it never answer.
        timer = threading.Timer(PATIENCE * 10, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise RuntimeError(f"the child ended with {self.process.wait()}: {self.said()}")
        answer = json.loads(line)
        if "raised" in answer:
            raise RuntimeError(f"in the child: {answer['raised']}")
        return answer["returned"]

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call the function in the child and wait for its result."""
        self.begin(function, *arguments)
        return self.result()

    def said(self) -> str:
        """What the child has written to standard error so far."""
        self._said.seek(0)
        return self._said.read().strip()

    def end(self) -> int:
        """Let the child end by itself; return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(PATIENCE)
        self.process.stdin = None
        return code


class Served(Child):
    """A child that runs a server, made by a function of the scenario's module.

    `with Served(make, …) as served:` calls `make(…)` in the child and starts the server. Functions
    called there get it as their first argument.
    """

    def __init__(
        self, make: Callable[..., object], *arguments: object, options: tuple[str, ...] = ()
    ) -> None:
        super().__init__(*options)
        self._make = make
        self._arguments = arguments

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            # Modules imported once, and parts of the first server that stay, are not counted as the
            # server's.
            super().call(warm_up)
            self.before = held(self.pid)
            made = f"{self._make.__module__}:{self._make.__qualname__}"
            self.address = tuple(super().call(_start, made, self._arguments))
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def call_with_server(self, function: Callable[..., Any], *arguments: object) -> Any:
        """`function(server, …)` in the child."""
        name = f"{function.__module__}:{function.__qualname__}"
        return self.call(_with_server, name, arguments)

    def stop(self, drain: float | None = None) -> dict[str, Any]:
        """Stop the server in the child; return its report, with its totals as `totals`."""
        report: dict[str, Any] = self.call(_stop, drain)
        return report

    def begin_stop(self, drain: float | None = None) -> None:
        """The same, but `result()` returns the report."""
        self.begin(_stop, drain)

    def left(self) -> list[int]:
        """Descriptors and threads more than before the server, after a moment."""
        back_to(self.before, self.pid)
        now = held(self.pid)
        return [now.fds - self.before.fds, now.threads - self.before.threads]

    def afterwards(self, *, silent: bool = True) -> Iterator[Figure]:
        """After `stop`: the figures that every scenario ends with. Ends the child."""
        yield equal("descriptors, threads left", self.left(), [0, 0])
        yield equal("exit code", self.end(), 0)
        if silent:
            yield equal("written to standard error", self.said(), "")


# Functions called by name in the child.

_server: Any = None


def warm_up() -> None:
    """Allocate what the first servers of a process leave behind."""
    from rsock import Server

    with Server(service=lambda conn: conn.close()) as server, server.client(timeout=5) as client:
        client.recv(1)
    with Server() as server, server.client(timeout=5) as client:
        client.sendall(b"x")
        client.recv(1)
    # A thread that has been joined may still be listed for a moment.
    wait_until(lambda: held().threads == 1, PATIENCE)


def _start(name: str, arguments: list[Any]) -> tuple[str, int]:
    from reliability.child import named

    global _server
    _server = named(name)(*arguments)
    address: tuple[str, int] = _server.start().address
    return address


def _with_server(name: str, arguments: list[Any]) -> Any:
    from reliability.child import named

    return named(name)(_server, *arguments)


def _stop(drain: float | None) -> dict[str, Any]:
    import dataclasses

    global _server
    report = dataclasses.asdict(_server.stop(drain))
    totals = _server.ledger.totals
    names = ("accepted", "open", "closed", "messages_in", "bytes_in", "messages_out", "bytes_out")
    report["totals"] = {name: getattr(totals, name) for name in names}
    report["closed_by"] = dict(totals.closed_by)
    _server = None
    return report

"""Waiting for a condition, with a deadline.

A test waits for what it needs and never sleeps for a fixed time. Must never know what the condition
is about.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")
# The longest wait of a test for something that should happen at once. Far longer than it takes,
# because on a busy machine a thread may not run for seconds.
SOON = 15.0
# How much later than promised a stop may return, for the same reason. The promise is 50 ms, which
# the reliability suite checks; this value only tells a stop that hangs from one that does not.
LATE = 5.0
# How long a call may continue after a signal: 0.2 s in the reliability suite.
AT_ONCE = 5.0


def wait_until(condition: Callable[[], object], deadline: float = SOON, what: str = "") -> None:
    """Return as soon as `condition()` is true; fail if it is not by the deadline."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline} s: {what or condition}")
        time.sleep(0.002)


def state_of(thread: int | None, process: int | str = "self") -> str:
    """The state of a thread in one letter, as in proc_pid_stat(5); "" if there is none."""
    try:
        stat = Path(f"/proc/{process}/task/{thread}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def sleeping(thread: int | None, process: int | str = "self") -> bool:
    """Whether a thread stays asleep (blocked, not between two steps)."""
    for _ in range(5):
        if state_of(thread, process) != "S":
            return False
        time.sleep(0.002)
    return True


def all_sleeping(numbers: Iterable[int]) -> bool:
    """The same of several threads of this process at once."""
    threads = list(numbers)
    for _ in range(3):
        if any(state_of(thread) != "S" for thread in threads):
            return False
        time.sleep(0.002)
    return True


class Background(Generic[T]):
    """A call that runs on its own thread; `result()` waits for it with a deadline."""

    def __init__(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._values: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._values.append(self._function(*self._args, **self._kwargs))
        except BaseException as error:
            self._error = error
        finally:
            del self._function, self._args, self._kwargs

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def ident(self) -> int:
        """Its thread, as `threading` numbers it."""
        assert self._thread.ident is not None
        return self._thread.ident

    def asleep(self) -> bool:
        """Whether the call is blocked in the kernel."""
        return self.running and sleeping(self._thread.native_id)

    def result(self, deadline: float = SOON) -> T:
        self._thread.join(deadline)
        assert not self._thread.is_alive(), f"the call did not return within {deadline} s"
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._values.pop()


class Arrivals:
    """Records threads that reach a line, each of which then blocks in the next one."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def here(self) -> None:
        """Called by each thread that arrives."""
        self.threads.append(threading.get_native_id())

    def until(self, count: int = 1) -> None:
        """Wait until `count` threads have arrived and all of them are blocked behind that line."""
        wait_until(lambda: len(self.threads) >= count, what=f"{count} arrive")
        wait_until(lambda: all_sleeping(self.threads), what=f"all {count} wait")

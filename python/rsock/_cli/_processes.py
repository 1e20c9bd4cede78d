"""The parent of the processes that serve: it holds their listeners.

Each child is the same command, started anew, which serves on the inherited sockets. The parent must
never accept a connection, nor import what the children serve.
"""

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from .. import _counts
from .._display._views import server_address
from .._server import Server
from ._child import VARIABLE, Word, unpacked
from ._errors import Failure
from ._hangup import Terminal
from ._serving import Serving
from ._threads import signals_blocked

__all__ = ["FIRST_DELAY", "LONGEST_DELAY", "SERVED_LONG", "Parent", "same_command"]

logger: Final = logging.getLogger("rsock")

# Seconds before a child that has ended is replaced: the first time, and at most. They double until
# a child has served for long enough.
FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 10.0
SERVED_LONG: Final = 10.0
# How many seconds a child may take until it serves.
_START: Final = 60.0
# How many seconds after its time to drain a child is killed, and after a second signal.
_SLACK: Final = 5.0
# How long a scrape waits for the numbers of the children.
_ANSWER: Final = 2.0
_FORCED: Final = {signal.SIGINT: 130, signal.SIGTERM: 143}
# What children must not have: it concerns the parent, as the service manager knows it.
_MANAGED: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS")


class _Process:
    """A child, as the parent sees it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, slot: int) -> None:
        self.process = process
        self.control = control
        self.slot = slot
        self.state = "starting"
        self.since = time.monotonic()
        # When it is killed; None while it may go on.
        self.deadline: float | None = self.since + _START
        self.numbers: _counts.Numbers = {}
        self._received = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; without effect once it has ended.

        `Popen.send_signal` would take the exit code of a process that has ended, and `waitpid`
        in `Parent` would then never return this process.
        """
        if self.process.returncode is None:
            # Until its exit code is taken, no other process can have this number.
            os.kill(self.pid, number)

    def say(self, word: str) -> None:
        """Ask something of it."""
        with contextlib.suppress(OSError):
            self.control.send(f"{word}\n".encode())

    def hear(self) -> list[dict[str, Any]] | None:
        """Return what it has said; None after its end."""
        try:
            data = self.control.recv(1 << 20)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def drain(self, patience: float) -> None:
        """Let it serve what it has, for as long as its servers drain."""
        if self.state == "starting":
            # It may not listen to us yet.
            self.send_signal(signal.SIGTERM)
        self.say(Word.DRAIN)
        self.state = "draining"
        self.deadline = time.monotonic() + patience + _SLACK

    def force(self) -> None:
        """Reset what it still has."""
        self.say(Word.FORCE)
        self.state = "draining"
        self.deadline = time.monotonic() + _SLACK


class _Slot:
    """The place of one child, and of the one that replaces it."""

    def __init__(self) -> None:
        self.current: _Process | None = None
        self.following: _Process | None = None
        # How often in a row a child has ended early, and when the next one starts.
        self.ends = 0
        self.restart: float | None = None


class _Scrape:
    """One reading of all numbers, for which a thread waits."""

    def __init__(self) -> None:
        self.awaited: set[int] | None = None
        self.done = threading.Event()


class Parent:
    """Runs children until a signal; `run` returns the exit code."""

    def __init__(
        self,
        arguments: Serving,
        servers: Sequence[Server],
        command: Sequence[str],
        notifier: Any,
        said: Callable[[], None],
        release: Callable[[], None],
    ) -> None:
        self._arguments = arguments
        self._servers = servers
        self._command = command
        self._notifier = notifier
        self._said = said
        self._release = release
        self._slots = [_Slot() for _ in range(arguments.processes or 1)]
        self._children: dict[int, _Process] = {}
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._signals: deque[int] = deque()
        self._terminal = Terminal()
        # The slots whose children are still to be replaced.
        self._rolling: deque[_Slot] = deque()
        self._reloading = False
        self._again = False
        # From the first time on at which all children serve.
        self._began = False
        self._leaving: signal.Signals | None = None
        self._drains_at: float | None = None
        self._stopping = False
        self._code = 0
        self._past: _counts.Numbers = {}
        self._restarts = 0
        self._scrapes: deque[_Scrape] = deque()
        self._asked: list[_Scrape] = []

    # What other threads call.

    @property
    def ready(self) -> bool:
        """Whether clients should be sent here."""
        serving = any(each.state == "serving" for each in list(self._children.values()))
        return serving and self._leaving is None

    def numbers(self) -> _counts.Numbers:
        """Return the sums of all children, also of those that have ended. Blocks for a moment."""
        scrape = _Scrape()
        self._scrapes.append(scrape)
        self._wake()
        scrape.done.wait(_ANSWER)
        return _counts.merged([self._past, *(each.numbers for each in self._all())])

    def counts(self) -> tuple[int, int]:
        """Return how many children serve, and how many were replaced after an unexpected end."""
        serving = [each for each in self._all() if each.state == "serving"]
        return len(serving), self._restarts

    def reload(self) -> None:
        """Replace all children by new ones, as SIGHUP does."""
        self._signals.append(signal.SIGHUP)
        self._wake()

    def _all(self) -> list[_Process]:
        return list(self._children.values())

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    # The loop.

    def run(self) -> int:
        """Serve until a signal, and return the exit code."""
        for end in (self._waker, self._woken):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        with self._heard_signals(), self._watched_files():
            try:
                for slot in self._slots:
                    slot.current = self._start(slot)
                while self._children or not self._stopping:
                    self._turn()
            finally:
                for child in self._all():
                    child.process.kill()
                    child.process.wait()
                    self._forget(child)
                self._selector.close()
                self._waker.close()
                self._woken.close()
                self._answer_all()
        return self._code

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            if key.data is not None:
                self._hear(key.data)
            else:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4_096)
        while self._signals:
            self._signal(signal.Signals(self._signals.popleft()))
        self._reap()
        self._ask()
        self._at_their_times()

    def _patience(self) -> float | None:
        times = [each.deadline for each in self._all()]
        times += [slot.restart for slot in self._slots]
        times.append(self._drains_at)
        due = [each for each in times if each is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _at_their_times(self) -> None:
        now = time.monotonic()
        for child in self._all():
            if child.deadline is not None and child.deadline <= now:
                what = "serve" if child.state == "starting" else "end"
                logger.warning("process %d does not %s in time, and is killed", child.pid, what)
                child.deadline = None
                child.send_signal(signal.SIGKILL)
        if self._drains_at is not None and self._drains_at <= now:
            self._drain()
        for slot in self._slots:
            if slot.restart is not None and slot.restart <= now:
                slot.restart = None
                slot.current = self._start(slot)

    # Children.

    def _start(self, slot: _Slot) -> _Process:
        ours, its = socket.socketpair()
        sockets = [server.fileno() for server in self._servers]
        told = {
            "sockets": sockets,
            "control": its.fileno(),
            "counts": self._arguments.metrics is not None,
        }
        environment = {k: v for k, v in os.environ.items() if k not in _MANAGED}
        try:
            process = subprocess.Popen(
                self._command,
                env={**environment, VARIABLE: json.dumps(told)},
                pass_fds=(*sockets, its.fileno()),
                stdin=subprocess.DEVNULL,
                # Ctrl-C in a terminal concerns the parent, which drains the children.
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        ours.setblocking(False)
        child = _Process(process, ours, self._slots.index(slot))
        self._children[process.pid] = child
        self._selector.register(ours, selectors.EVENT_READ, child)
        logger.debug("process %d started", child.pid)
        return child

    def _hear(self, child: _Process) -> None:
        heard = child.hear()
        if heard is None:
            self._selector.unregister(child.control)
            child.control.close()
            return
        for said in heard:
            if "numbers" in said:
                child.numbers = unpacked(said["numbers"])
                self._answered(child)
            if "serving" in said and child.state == "starting":
                self._serves(child)

    def _serves(self, child: _Process) -> None:
        child.state, child.since, child.deadline = "serving", time.monotonic(), None
        slot = self._slots[child.slot]
        if slot.following is child:
            before, slot.current, slot.following = slot.current, child, None
            if before is not None:
                before.drain(self._arguments.drain)
            self._replace_next()
        elif not self._began and all(
            each.current is not None and each.current.state == "serving" for each in self._slots
        ):
            self._began = True
            self._said()
            self._tell_ready()

    def _tell_ready(self) -> None:
        if self._notifier is not None:
            where = ", ".join(server_address(server) for server in self._servers)
            self._notifier.ready(f"{len(self._slots)} processes serve on {where}")

    def _reap(self) -> None:
        """Take the exit codes of all that has ended; as process 1, of orphans too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.get(pid)
            if child is not None:
                child.process.returncode = os.waitstatus_to_exitcode(status)
                # Its last words, before it is forgotten.
                while child.control.fileno() >= 0:
                    self._hear(child)
                self._ended(child)

    def _ended(self, child: _Process) -> None:
        self._forget(child)
        code = child.process.returncode
        slot = self._slots[child.slot]
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        if child is slot.following:
            slot.following = None
            self._rolling.clear()
            self._reloading = self._again = False
            logger.error("the new process %d %s; those before it serve on", child.pid, how)
            self._tell_ready()
            if slot.current is None and not self._stopping:
                self._restart_later(slot, child)
        elif child is slot.current:
            slot.current = None
            if self._stopping:
                return
            if not self._began:
                # It has said why. It will not be otherwise the next time.
                self._code = code if code in (1, 2) else 1
                logger.debug("process %d %s before it served", child.pid, how)
                self._drain()
            elif slot.following is None:
                logger.warning("process %d %s", child.pid, how)
                self._restarts += 1
                self._restart_later(slot, child)

    def _restart_later(self, slot: _Slot, child: _Process) -> None:
        long = child.state == "serving" and time.monotonic() - child.since >= SERVED_LONG
        slot.ends = 0 if long else slot.ends
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(slot.ends, 20))
        slot.ends += 1
        slot.restart = time.monotonic() + delay
        logger.warning("another process starts in %g s", delay)

    def _forget(self, child: _Process) -> None:
        lasting = {
            key: value
            for key, value in child.numbers.items()
            if _counts.FAMILIES[key[0]].kind != "gauge"
        }
        # In this order: a thread that reads meanwhile must not find a sum that is too small.
        self._past = _counts.merged([self._past, lasting])
        del self._children[child.pid]
        self._answered(child)
        if child.control.fileno() >= 0:
            self._selector.unregister(child.control)
            child.control.close()

    # Signals.

    def _signal(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP and self._terminal.is_gone():
            number = signal.SIGTERM
        if number == signal.SIGHUP:
            if self._leaving is None and self._began:
                self._begin_reload()
        elif self._leaving is None:
            self._leaving = number
            if self._notifier is not None:
                self._notifier.stopping()
            self._rolling.clear()
            linger = self._arguments.linger if number == signal.SIGTERM and self._began else 0.0
            self._drains_at = time.monotonic() + linger
        else:
            self._code = _FORCED[number]
            self._drain()
            for child in self._all():
                child.force()

    def _begin_reload(self) -> None:
        if self._reloading:
            self._again = True
            return
        self._reloading, self._again = True, False
        if self._notifier is not None:
            self._notifier.reloading()
        self._rolling.extend(self._slots)
        self._replace_next()

    def _replace_next(self) -> None:
        if self._rolling:
            slot = self._rolling.popleft()
            slot.restart = None
            slot.ends = 0
            slot.following = self._start(slot)
            return
        if self._reloading:
            self._reloading = False
            logger.info("all processes were replaced")
            self._tell_ready()
            if self._again:
                self._begin_reload()

    def _drain(self) -> None:
        self._stopping, self._drains_at = True, None
        for slot in self._slots:
            slot.restart = None
        for child in self._all():
            if child.state != "draining":
                child.drain(self._arguments.drain)
        # From the end of the last child's drain on, clients that connect are refused.
        self._release()

    @contextlib.contextmanager
    def _heard_signals(self) -> Iterator[None]:
        """Have the numbers of signals in `_signals`; what was found is put back."""

        def note(number: int, _frame: object) -> None:
            self._signals.append(number)

        with contextlib.ExitStack() as stack:
            wakeup = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
            stack.callback(signal.set_wakeup_fd, wakeup)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                found = signal.getsignal(number)
                if found is not None and found is not signal.SIG_IGN:
                    stack.callback(signal.signal, number, found)
                    signal.signal(number, note)
            stack.callback(signal.signal, signal.SIGCHLD, signal.getsignal(signal.SIGCHLD))
            # Its number alone wakes the loop.
            signal.signal(signal.SIGCHLD, lambda *_: None)
            yield

    @contextlib.contextmanager
    def _watched_files(self) -> Iterator[None]:
        if not self._arguments.reload:
            yield
            return
        try:
            import watchfiles
        except ImportError:
            raise Failure(
                "--reload needs the package watchfiles: pip install watchfiles,"
                " or in a clone pip install '.[cli]'"
            ) from None
        end = threading.Event()

        def watch() -> None:
            changes = watchfiles.watch(
                ".",
                watch_filter=watchfiles.PythonFilter(),
                stop_event=end,
                raise_interrupt=False,
            )
            for found in changes:
                names = ", ".join(sorted(os.path.relpath(path) for _, path in found)[:3])
                logger.warning("%s changed: new processes start", names)
                self.reload()

        with signals_blocked():
            thread = threading.Thread(target=watch, name="rsock-reload", daemon=True)
            thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    # Numbers for metrics.

    def _ask(self) -> None:
        while self._scrapes:
            scrape = self._scrapes.popleft()
            scrape.awaited = set()
            for child in self._all():
                if child.state != "starting":
                    scrape.awaited.add(child.pid)
                    child.say(Word.NUMBERS)
            self._asked.append(scrape)
            self._settle()

    def _answered(self, child: _Process) -> None:
        for scrape in self._asked:
            if scrape.awaited is not None:
                scrape.awaited.discard(child.pid)
        self._settle()

    def _settle(self) -> None:
        for scrape in list(self._asked):
            if not scrape.awaited:
                self._asked.remove(scrape)
                scrape.done.set()

    def _answer_all(self) -> None:
        for scrape in (*self._asked, *self._scrapes):
            scrape.done.set()


def same_command(words: Sequence[str]) -> list[str]:
    """Return the command line by which the interpreter runs this command again."""
    original = sys.orig_argv[1:]
    # Another program may have called `main` with words of its own.
    if list(words) == original[len(original) - len(words) :]:
        return [sys.executable, *original]
    return [sys.executable, "-m", "rsock", *words]

"""What the tests share: waiting with a deadline, raw peers, fresh interpreters.

Nothing here knows how rsock works inside; a peer is always a plain `socket.socket`.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
# No test waits longer than this for something that should happen at once. Far longer than it takes:
# on a machine that is busy with other things a thread may not run for seconds.
SOON = 15.0
# How much later than it should, for the same reason, a stop may return. The promise is 50 ms, which
# the campaign holds; here it tells a stop that hangs from one that does not.
LATE = 5.0
# How long a call may go on after a signal: 0.2 s in the campaign.
AT_ONCE = 5.0


class Stream(Protocol):
    """What a `socket.socket` and a `Client` have in common, as far as the tests go."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes: ...
    def sendall(self, data: bytes, flags: int = 0, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...


# --- waiting -------------------------------------------------------------------------------


def wait_until(condition: Callable[[], object], deadline: float = SOON, what: str = "") -> None:
    """Return as soon as `condition()` is true; fail when it is not by the deadline."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline} s: {what or condition}")
        time.sleep(0.002)


class Background(Generic[T]):
    """A call that runs on a thread of its own; `result()` waits for it with a deadline."""

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

    def asleep(self) -> bool:
        """Whether the call has gone to sleep in the kernel."""
        return self.running and sleeping(self._thread.native_id)

    def result(self, deadline: float = SOON) -> T:
        self._thread.join(deadline)
        assert not self._thread.is_alive(), f"the call did not return within {deadline} s"
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._values.pop()


def sleeping(thread: int | None, process: int | str = "self") -> bool:
    """Whether a thread stays asleep (a wait, not a pause between two steps)."""
    stat = Path(f"/proc/{process}/task/{thread}/stat")
    for _ in range(5):
        try:
            state = stat.read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state != "S":
            return False
        time.sleep(0.002)
    return True


# --- what a process holds ------------------------------------------------------------------


def threads() -> dict[int, str]:
    """The threads of this process that belong to rsock: number and name."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            name = (task / "comm").read_text().strip()
            if name.startswith("rsock-"):
                found[int(task.name)] = name
    return found


def fds() -> Counter[str]:
    """The sockets, pipes, eventfds, pollers and timers that this process holds."""
    found: Counter[str] = Counter()
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            link = os.readlink(entry.path)
            if link.startswith(("socket:", "pipe:", "anon_inode:")):
                found[link] += 1
    return found


Held = tuple[dict[int, str], Counter[str]]


def held() -> Held:
    """What of rsock this process has now; for `given_back`."""
    return threads(), fds()


def given_back(before: Held, deadline: float = SOON) -> None:
    """Wait until nothing is left that was not there before."""

    def back() -> bool:
        gc.collect()
        return threads().keys() <= before[0].keys() and not fds() - before[1]

    wait_until(back, deadline, "threads and descriptors are given back")


def rss() -> int:
    """Bytes of memory this process has in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- peers ---------------------------------------------------------------------------------


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def dial(address: tuple[str, int], *, timeout: float | None = SOON) -> socket.socket:
    """A plain connected socket. A hang shows as a TimeoutError, not as a stuck run."""
    peer = socket.create_connection(address, timeout=SOON)
    peer.settimeout(timeout)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def dial_path(path: str | bytes, *, timeout: float = 10.0) -> socket.socket:
    """The same with a Unix socket."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(timeout)
    try:
        peer.connect(path)
    except BaseException:
        peer.close()
        raise
    return peer


def leave_stale(path: str | Path) -> None:
    """Leave what a killed process does: the file of a Unix socket that nobody has."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()


def refused(address: tuple[str, int]) -> bool:
    """Whether nobody listens there (any more)."""
    try:
        dial(address).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        # Just while the listener closes.
        return False
    return False


def dial_narrow(address: tuple[str, int], size: int = 2304) -> socket.socket:
    """A connected socket that takes in little before its peer must wait."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    peer.settimeout(SOON)
    peer.connect(address)
    return peer


@contextlib.contextmanager
def listener(host: str = LOOPBACK, backlog: int = 16) -> Iterator[socket.socket]:
    """A plain listening socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind((host, 0))
        listening.listen(backlog)
        listening.settimeout(SOON)
        yield listening


@contextlib.contextmanager
def full_listener() -> Iterator[tuple[str, int]]:
    """The address of a listener whose queue is full: handshakes with it do not finish."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(listener(backlog=0))
        address = listening.getsockname()
        for _ in range(20):
            peer = stack.enter_context(socket.socket())
            peer.setblocking(False)
            peer.connect_ex(address)
            if not select.select([], [peer], [], 0.1)[1]:
                break
        else:
            raise AssertionError("the queue of a listener has no end here")
        yield address


@contextlib.contextmanager
def closed_port() -> Iterator[tuple[str, int]]:
    """An address that refuses: held, so that nobody else can listen there meanwhile."""
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        yield holder.getsockname()


def reset(peer: socket.socket) -> None:
    """Close with RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def payload(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def read_exactly(stream: Stream, size: int) -> bytes:
    """`size` bytes, or fewer when the stream ended before."""
    parts = []
    while size:
        part = stream.recv(min(size, 1 << 16))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_to_end(stream: Stream) -> bytes:
    parts = []
    while part := stream.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def says_back(stream: Stream, data: bytes = b"hello") -> bool:
    """Whether the other side echoes."""
    stream.sendall(data)
    return read_exactly(stream, len(data)) == data


def all_say_back(streams: Iterable[Stream]) -> bool:
    """Whether each of them is echoed to; all are asked, also after one that is not."""
    return {says_back(stream) for stream in streams} <= {True}


def exchange(stream: Stream, data: bytes) -> bytes:
    """Send everything, finish the sending side, and return what came back until the end."""

    def send() -> None:
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)

    sender = Background(send)
    got = read_to_end(stream)
    sender.result()
    return got


def arrived(peer: socket.socket) -> None:
    """Wait until all that was sent has been acknowledged by the other side's system."""

    def unsent() -> int:
        answer = fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])

    wait_until(lambda: unsent() == 0, what="everything sent is acknowledged")


def unread(peer: socket.socket) -> int | None:
    """Bytes that the other side's system holds for its program; None where its socket is gone.

    Asked of sock_diag(7) for that one socket: /proc/net/tcp would list all there are. IPv4 only.
    """

    def spelled(address: tuple[str, int]) -> tuple[bytes, bytes]:
        return struct.pack("!H", address[1]), socket.inet_aton(address[0]).ljust(16, b"\0")

    theirs, ours = spelled(peer.getpeername()), spelled(peer.getsockname())
    name = theirs[0] + ours[0] + theirs[1] + ours[1] + bytes(4) + b"\xff" * 8  # No cookie.
    request = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFF) + name
    by_family, sock_diag, is_request = 20, 4, 1
    header = struct.pack("=IHHII", 16 + len(request), by_family, is_request, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, sock_diag) as kernel:
        kernel.sendto(header + request, (0, 0))
        answer = kernel.recv(4096)
    if struct.unpack_from("=H", answer, 4)[0] != by_family:
        return None
    return int(struct.unpack_from("=I", answer, 16 + 4 + 48 + 4)[0])


def send_until_stuck(peer: socket.socket, data: bytes, patience: float = 0.3) -> int:
    """Send without reading until nothing more is taken for a while; how much was taken."""
    view = memoryview(data)
    sent = 0
    peer.settimeout(patience)
    try:
        while sent < len(data):
            sent += peer.send(view[sent : sent + (1 << 16)])
    except TimeoutError:
        pass
    finally:
        peer.settimeout(SOON)
    return sent


def error_number(call: Callable[[], object]) -> int | None:
    """The `errno` of the OSError that `call` raises."""
    try:
        call()
    except OSError as error:
        return error.errno
    raise AssertionError("nothing was raised")


def drop(held: list[Any]) -> None:
    """Let go of what is in the list, cycles included."""
    held.clear()
    gc.collect()


# --- a signal at the right moment ----------------------------------------------------------


class Signal:
    """Sends a signal to the main thread once that is asleep in the call under test.

    `with Signal(SIGUSR1) as sent: call()`; afterwards `sent.after` is how long the call went
    on after the signal.
    """

    def __init__(self, number: signal.Signals = signal.SIGUSR1, times: int = 1) -> None:
        assert threading.current_thread() is threading.main_thread()
        self._number = number
        self._times = times
        self._main = threading.main_thread().native_id
        self._left = threading.Event()
        self._sent_at: float | None = None
        self._thread = threading.Thread(target=self._send, daemon=True)
        self.after = float("inf")

    def _send(self) -> None:
        for _ in range(self._times):
            while not sleeping(self._main):
                if self._left.is_set():
                    return
            self._sent_at = time.monotonic()
            os.kill(os.getpid(), self._number)

    def __enter__(self) -> Signal:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        now = time.monotonic()
        self._left.set()
        self._thread.join(SOON)
        if self._sent_at is not None:
            self.after = now - self._sent_at


def partial(error: BaseException) -> bytes:
    """What a call had taken when it was ended by this exception."""
    name = "partial"
    got = getattr(error, name)
    assert isinstance(got, bytes)
    return got


def compiled(source: Path, folder: Path) -> Path:
    """The program of a C source, in `folder`."""
    program = folder / source.stem
    subprocess.run(
        ["cc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, source],
        check=True,
    )
    return program


# --- fresh interpreters --------------------------------------------------------------------


def run_script(
    code: str,
    *args: str,
    options: tuple[str, ...] = (),
    prefix: tuple[str, ...] = (),
    deadline: float = 20.0,
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter to its end."""
    return subprocess.run(
        [*prefix, sys.executable, *options, "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
    )


def output_of(
    code: str, *args: str, options: tuple[str, ...] = (), prefix: tuple[str, ...] = ()
) -> str:
    """What `code` prints in a fresh interpreter, which must succeed and say nothing else."""
    done = run_script(code, *args, options=options, prefix=prefix)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


class Script:
    """`code` running in a fresh interpreter beside the test."""

    def __init__(
        self,
        code: str,
        *args: str,
        options: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, *options, "-c", code, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, errors = self.process.communicate()
            raise AssertionError(f"the script ended early: {errors}")
        return line.strip()

    def tell(self, line: str = "") -> None:
        """Give it a line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def asleep(self) -> bool:
        """Whether its main thread has gone to sleep in the kernel."""
        return sleeping(self.process.pid, self.process.pid)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, deadline: float = SOON) -> tuple[int, str, str]:
        """Wait for its end: exit code, the rest of its output, its errors."""
        out, err = self.process.communicate(timeout=deadline)
        return self.process.returncode, out, err


# --- handlers ------------------------------------------------------------------------------


class Arrivals:
    """Threads that come to a certain line, each to wait in the one behind it."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def here(self) -> None:
        """Said by whoever comes."""
        self.threads.append(threading.get_native_id())

    def until(self, count: int = 1) -> None:
        """Wait until `count` have come, and all of them sleep in what is behind that line."""
        wait_until(lambda: len(self.threads) >= count, what=f"{count} arrive")
        wait_until(lambda: all_sleeping(self.threads), what=f"all {count} wait")


def all_sleeping(numbers: Iterable[int]) -> bool:
    """`sleeping` of several threads of this process at once."""
    stats = [Path(f"/proc/self/task/{number}/stat") for number in numbers]
    for _ in range(3):
        for stat in stats:
            try:
                state = stat.read_text().rpartition(")")[2].split()[0]
            except OSError:
                return False
            if state != "S":
                return False
        time.sleep(0.002)
    return True


def ended(peer: socket.socket) -> bool:
    """Whether what comes next is the end: a clean one, nothing before it."""
    return peer.recv(1) == b""


def was_reset(peer: socket.socket) -> bool:
    """Whether what comes next is a reset."""
    try:
        peer.recv(1)
    except ConnectionResetError:
        return True
    return False

"""Scenario 20: the notebook.

A cell that starts a server is run again and again; calls are interrupted as JupyterLab's button
does it; the kernel is restarted with connections open. Must never use Jupyter in the suite's own
process.
"""

import contextlib
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import dial, says_back, wait_until
from support.kernels import Kernel

from reliability.figures import Figure, at_most, equal, only_shown
from reliability.process import Child
from reliability.scenario import Scenario, Size

# Each blocking call: a cell before it, the cell that blocks, and a cell that shows that its object
# can still be used.
CALLS = {
    "wait": (
        "server = rsock.Server().start()",
        "server.wait()",
        "with server.client(timeout=30) as c: c.sendall(b'x'); c.recv_exactly(1)",
    ),
    "accept": (
        "server = rsock.Server(service=rsock.Accept()).start()",
        "server.accept()",
        "with server.client(timeout=30) as c: server.accept(30)[0].close()",
    ),
    "iteration": (
        "server = rsock.Server(service=rsock.Accept()).start()",
        "for conn, address in server: pass",
        "with server.client(timeout=30) as c: server.accept(30)[0].close()",
    ),
    "recv": (
        "server = rsock.Server().start(); client = server.client()",
        "client.recv(10)",
        "client.sendall(b'x'); assert client.recv_exactly(1) == b'x'; client.close()",
    ),
    "ledger.wait": (
        "server = rsock.Server().start()",
        "server.ledger.wait(closed=1)",
        "with server.client(timeout=30) as c: c.sendall(b'x'); c.recv_exactly(1)",
    ),
}

# A function of the kernel: how many threads of rsock it has, and how many sockets and the like.
HELD = "def held(): return len(support.threads()), support.fds().total()\n"


def interrupt(kernel: Kernel, times: int) -> dict[str, Any]:
    """Interrupt each call that number of times."""
    raised, slowest = 0, (0.0, "")
    for name, (before, call, after) in CALLS.items():
        kernel.run(before)
        for _ in range(times):
            message = kernel.begin(f"print('here')\n{call}")
            assert "here" in kernel.printed(message)
            kernel.wait_blocked()
            sent = time.monotonic()
            kernel.interrupt()
            error = kernel.reply(message)
            slowest = max(slowest, (time.monotonic() - sent, name))
            raised += error.startswith("KeyboardInterrupt")
        kernel.run(f"{after}\nserver.stop(0)")
    return {"raised": raised, "slowest": slowest}


def drain(kernel: Kernel, times: int) -> dict[str, Any]:
    """Interrupt `run()` while a handler works: it accepts no more, and waits for the handler."""
    slowest, causes = 0.0, []
    kernel.run("def handler(conn):\n    conn.sendall(b'x'); conn.recv(1); conn.sendall(b'end')\n")
    for _ in range(times):
        port = int(kernel.run("server = rsock.Server(service=handler).bind(); print(server.port)"))
        message = kernel.begin("print('here')\nserver.run().cause")
        assert "here" in kernel.printed(message)
        kernel.wait_blocked()
        with dial(("127.0.0.1", port)) as peer:
            assert peer.recv(1) == b"x"
            sent = time.monotonic()
            kernel.interrupt()
            wait_until(lambda: not _accepted(port, 0.05), 30.0, "it accepts no more")  # noqa: B023
            slowest = max(slowest, time.monotonic() - sent)
            assert not _accepted(port, 30.0)
            peer.sendall(b".")
            assert peer.recv(3, socket.MSG_WAITALL) == b"end"
        causes.append(kernel.end(message).text.replace("here", "").strip())
    return {"slowest": slowest, "causes": sorted(set(causes))}


def _accepted(port: int, timeout: float) -> bool:
    # While a listener is being closed its system drops what arrives, so that it is not reset; a
    # client's system asks again after a second, and is refused then.
    with socket.socket() as probe:
        probe.settimeout(timeout)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def cell_again(kernel: Kernel, times: int) -> dict[str, Any]:
    """Run a cell that starts a server on one port, again and again."""
    cell = "server = rsock.Server(port=%d, name='mine').start(); print(server.port)"
    port = int(kernel.run(cell % 0))
    named = 0
    for _ in range(times - 1):
        error = kernel.end(kernel.begin(cell % port)).error
        named += "'mine' of this process; its stop()" in error.replace('"', "'")
    with dial(("127.0.0.1", port)) as peer:
        serves = says_back(peer)
    replacing = f"server = rsock.Server(port={port}, replace=True).start()"
    kernel.run(f"import support\n{HELD}{replacing}")
    # A thread that has just been started has its name a moment later.
    with dial(("127.0.0.1", port)) as peer:
        assert says_back(peer)
    kernel.run("before = held()")
    for _ in range(times - 1):
        kernel.run(replacing)
    # The kernel's own sockets are counted as well, and it opens some of them late. A server that
    # leaves something leaves one descriptor a run.
    left = f"held()[0] <= before[0] and held()[1] < before[1] + {times - 1}"
    kernel.run(f"support.wait_until(lambda: {left})")
    kernel.run("assert rsock.servers() == [server]; server.stop(0)")
    return {"named": named, "serves": serves}


def restart(kernel: Kernel, count: int) -> dict[str, Any]:
    """Restart the kernel with that number of connections open, some held by handlers."""
    kernel.run("def hold(conn):\n    conn.sendall(conn.recv(100)); conn.recv(1)\n")
    ports = [
        int(kernel.run(f"{name} = rsock.Server(service={service}).start(); print({name}.port)"))
        for name, service in (("one", "None"), ("two", "hold"))
    ]
    handlers = min(count // 5, 200)
    with contextlib.ExitStack() as stack:
        peers = []
        for port, number in zip(ports, (count - handlers, handlers), strict=True):
            peers += [stack.enter_context(dial(("127.0.0.1", port))) for _ in range(number)]
        assert all([says_back(peer) for peer in peers])
        seconds = kernel.restart()
        ended = 0
        for peer in peers:
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(1) == b""
            ended += 1
    kernel.run(f"import rsock; server = rsock.Server(port={ports[0]}).start(); server.stop()")
    return {"seconds": seconds, "ended": ended}


def notebook(times: int, again: int, count: int) -> dict[str, Any]:
    """Runs in the child."""
    with tempfile.TemporaryDirectory(prefix="rsock-") as folder, Kernel(Path(folder)) as kernel:
        # Of the time of a restart, most is that of a new interpreter.
        alone = kernel.restart() if times > 1 else 0.0
        kernel.run("import rsock")
        return {
            "alone": alone,
            "again": cell_again(kernel, again),
            "interrupt": interrupt(kernel, times),
            "drain": drain(kernel, times),
            "restart": restart(kernel, count),
        }


def run(size: Size) -> Iterator[Figure]:
    times, again, count = size.of(brief=(1, 3, 50), short=(5, 50, 1_000), long=(50, 50, 1_000))
    with Child() as child:
        found = child.call(notebook, times, again, count)
        yield equal(f"a cell run {again} ×: named the server", found["again"]["named"], again - 1)
        yield equal("the first server serves on", found["again"]["serves"], True)
        yield equal(
            f"{times} × interrupt in {len(CALLS)} calls: raised",
            found["interrupt"]["raised"],
            times * len(CALLS),
        )
        seconds, name = found["interrupt"]["slowest"]
        yield at_most(f"slowest to end ({name})", seconds, 0.2, "s")
        yield equal(f"{times} × interrupt in run(): cause", found["drain"]["causes"], ["'SIGINT'"])
        yield at_most("slowest to accept no more", found["drain"]["slowest"], 0.2, "s")
        yield at_most(
            f"restarted with {count:,} connections", found["restart"]["seconds"], 3.0, "s"
        )
        if found["alone"]:
            yield only_shown("a kernel without rsock restarted", found["alone"], "s")
        yield equal("connections that saw the end", found["restart"]["ended"], count)
        yield equal("exit code, standard error", (child.end(), child.said()), (0, ""))


SCENARIO = Scenario("20", "a notebook: a cell run again, interrupts, restarts", run)

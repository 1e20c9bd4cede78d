"""Three rsock commands behind HAProxy: replaced one by one, then killed one by one, under load.

A program of its own, because it makes network namespaces: in a namespace of its own, each command
gets another one behind it; else each has an address of the loopback. It prints what happened as
JSON. It must never judge that, which the test does.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

PATIENCE: Final = 60.0
SBIN: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
NAMES: Final = ("a", "b", "c")
CLIENTS: Final = 4
HELD: Final = 30
# Every how many connections one has pauses between its messages, and how long they are together.
SLOW: Final = 50
PAUSES: Final = (0.05, 0.1)

APP: Final = """
import os
def named(conn):
    conn.sendall(os.environ["NODE"].encode() + b"\\n")
    while data := conn.recv(65_536):
        conn.sendall(data)
"""

CONFIG: Final = """
global
    maxconn 4000
    stats socket {folder}/haproxy.sock level admin
defaults
    mode tcp
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout check 2s
    retries 3
    option redispatch 1
listen balanced
    bind 127.0.0.1:{port}
    balance roundrobin
    option httpchk GET /ready
    default-server check inter 100ms fall 2 rise 1 send-proxy-v2
"""


@dataclass
class Node:
    """One command, with the namespace that it runs in."""

    name: str
    host: str
    port: int
    metrics: int
    # The network that HAProxy connects from.
    proxy: str
    prefix: list[str]
    folder: Path
    # Seconds to serve on after SIGTERM, while HAProxy learns of it.
    linger: float
    process: subprocess.Popen[bytes] | None = None
    accounts: list[Path] = field(default_factory=list)

    def start(self) -> None:
        account = self.folder / f"{self.name}-{len(self.accounts)}.txt"
        command = [sys.executable, "-m", "rsock", "serve", "app:named", f"{self.host}:{self.port}"]
        command += ["--proxy-protocol", self.proxy, "--metrics", f"{self.host}:{self.metrics}"]
        command += ["--linger", f"{self.linger}", "--drain", "30", "--name", self.name]
        with account.open("wb") as output:
            self.process = subprocess.Popen(
                [*self.prefix, *command],
                cwd=self.folder,
                env={**os.environ, "NODE": self.name},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.accounts.append(account)

    def restart(self, proxy: HAProxy) -> None:
        """Start a new command, and wait until HAProxy has it."""
        self.start()
        # Until then a signal would end it as the system does, and HAProxy may not have noticed the
        # end of the last one.
        account = self.accounts[-1]
        wait_until(lambda: "listening on" in account.read_text(), "the new command listens")
        wait_until(lambda: proxy.up() == set(NAMES), "the new command is up")

    def end(self, number: signal.Signals) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def accepted(self) -> int:
        """How many connections all its commands have accepted, that were not killed."""
        found = (
            re.search(r"^([\d,]+) accepted = 0 open", each.read_text(), re.MULTILINE)
            for each in self.accounts
        )
        return sum(int(each[1].replace(",", "")) for each in found if each)


def tool(name: str) -> str:
    path = shutil.which(name, path=SBIN)
    if path is None:
        sys.exit(f"{name} is not installed")
    return path


def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def nodes(folder: Path, own: bool, linger: float) -> Iterator[list[Node]]:
    """The commands, each with its address; with `own` in a namespace of its own."""
    made: list[Node] = []
    with contextlib.ExitStack() as stack:
        if own:
            ip("link", "set", "lo", "up")
        for number, name in enumerate(NAMES, 1):
            if own:
                prefix, host, proxy = namespace(number, stack)
                port, metrics = 7000, 9100
            else:
                prefix, host, proxy = [], f"127.0.77.{number}", "127.0.0.0/8"
                port, metrics = free_port(host), free_port(host)
            made.append(Node(name, host, port, metrics, proxy, prefix, folder, linger))
        try:
            for node in made:
                node.start()
            yield made
        finally:
            for node in made:
                if node.process is not None:
                    node.process.kill()
                    node.process.wait()


def ip(*words: str, prefix: tuple[str, ...] = ()) -> None:
    done = subprocess.run([*prefix, tool("ip"), *words], capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"ip {' '.join(words)}: {done.stderr.decode()}")


def namespace(number: int, stack: contextlib.ExitStack) -> tuple[list[str], str, str]:
    """A network namespace with one link to this one: what enters it, its address, and ours."""
    holder = stack.enter_context(
        subprocess.Popen([tool("unshare"), "--net", "cat"], stdin=subprocess.PIPE)
    )
    stack.callback(holder.kill)
    path = f"/proc/{holder.pid}/ns/net"
    ours = os.readlink("/proc/self/ns/net")
    wait_until(lambda: os.readlink(path) != ours, "a namespace")
    inside = (tool("nsenter"), f"--net={path}", "--")
    ip("link", "add", f"v{number}", "type", "veth", "peer", "name", f"w{number}")
    ip("link", "set", f"w{number}", "netns", str(holder.pid))
    ip("addr", "add", f"10.77.{number}.1/30", "dev", f"v{number}")
    ip("link", "set", f"v{number}", "up")
    ip("addr", "add", f"10.77.{number}.2/30", "dev", f"w{number}", prefix=inside)
    ip("link", "set", f"w{number}", "up", prefix=inside)
    ip("link", "set", "lo", "up", prefix=inside)
    return list(inside), f"10.77.{number}.2", f"10.77.{number}.1"


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class HAProxy:
    """A HAProxy in front of the nodes."""

    def __init__(self, folder: Path, made: list[Node]) -> None:
        self.address = ("127.0.0.1", free_port("127.0.0.1"))
        self._socket = folder / "haproxy.sock"
        config = folder / "haproxy.cfg"
        servers = [
            f"    server {node.name} {node.host}:{node.port} port {node.metrics}\n" for node in made
        ]
        text = CONFIG.format(folder=folder, port=self.address[1])
        config.write_text(text + "".join(servers))
        self._output = folder / "haproxy.txt"
        self._command = [tool("haproxy"), "-db", "-f", str(config)]

    def __enter__(self) -> HAProxy:
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output)
        wait_until(lambda: self.up() == set(NAMES), f"all servers are up: {self._output}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def stats(self) -> dict[str, dict[str, str]]:
        """The statistics of each server."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(PATIENCE)
            try:
                control.connect(str(self._socket))
            except OSError:
                if self._process.poll() is not None:
                    sys.exit(self._output.read_text())
                return {}
            control.sendall(b"show stat\n")
            with control.makefile(encoding="ascii") as lines:
                text = lines.read().removeprefix("# ")
        return {row["svname"]: row for row in csv.DictReader(text.splitlines())}

    def up(self) -> set[str]:
        """The servers that get connections."""
        stats = self.stats()
        return {name for name in NAMES if name in stats and stats[name]["status"] == "UP"}

    def sum(self, column: str) -> int:
        stats = self.stats()
        return sum(int(stats[name][column] or 0) for name in NAMES)


@dataclass
class Failure:
    """A connection of the load that did not go as it should."""

    why: str
    began: float
    # Which command served it; None if none had said so.
    node: str | None


class Load:
    """Clients that connect one after the other, each with a few messages."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.done = 0
        self.slowest = 0.0
        self.nodes: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait(self, number: int) -> None:
        """Wait until this many more connections were made."""
        enough = self.done + number
        last, moved = self.done, time.monotonic()
        while (done := self.done) < enough:
            now = time.monotonic()
            if done != last:
                last, moved = done, now
            elif now - moved > PATIENCE:
                raise TimeoutError(f"no connection ends within {PATIENCE} s")
            time.sleep(0.01)

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            seen: list[str] = []
            failure = None
            try:
                self._visit(seen, slow=self.done % SLOW == 0)
            except (OSError, ValueError) as error:
                failure = Failure(repr(error), began, seen[0] if seen else None)
            with self._lock:
                self.done += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.nodes.update(seen)
                if failure is not None:
                    self.failures.append(failure)

    def _visit(self, seen: list[str], slow: bool) -> None:
        with socket.create_connection(self._address, timeout=PATIENCE) as peer:
            with peer.makefile("rb") as lines:
                seen.extend(named(lines.readline()))
                for number in range(2):
                    message = b"%d %d\n" % (threading.get_ident(), number)
                    peer.sendall(message)
                    if (answer := lines.readline()) != message:
                        raise ValueError(f"{answer!r} in place of {message!r}")
                    if slow:
                        time.sleep(PAUSES[number])
                peer.shutdown(socket.SHUT_WR)
                if rest := lines.read():
                    raise ValueError(f"{rest!r} in place of the end")


def named(line: bytes) -> list[str]:
    name = line.decode().rstrip("\n")
    if name not in NAMES:
        raise ValueError(f"{line!r} in place of a name")
    return [name]


def rolling(
    made: list[Node], proxy: HAProxy, load: Load, number: int, times: int
) -> dict[str, Any]:
    """Replace all commands, one after the other, while `number` connections are made."""
    began, before = time.monotonic(), load.done
    codes = []
    for node in made * times:
        load.wait(number // (2 * len(made) * times))
        codes.append(node.end(signal.SIGTERM))
        node.restart(proxy)
    load.wait(max(1, number - (load.done - before)))
    return {
        "connections": load.done - before,
        "failed": [vars(each) for each in load.failures],
        "codes": codes,
        "seconds": round(time.monotonic() - began, 1),
        "slowest": round(load.slowest, 3),
        "by_node": dict(load.nodes),
    }


class HeldConnection:
    """A connection that stays open, and knows who serves it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self._lines = self.socket.makefile("rb")
        self.node = named(self._lines.readline())[0]

    def works(self) -> bool:
        try:
            self.socket.sendall(b"still\n")
            return self._lines.readline() == b"still\n"
        except OSError:
            return False

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


def kill(node: Node, proxy: HAProxy, load: Load, number: int) -> dict[str, Any]:
    """Kill one command beside open connections, and start it again after `number` others."""
    assert node.process is not None
    retries, redispatches = proxy.sum("wretr"), proxy.sum("wredis")
    before, failures = load.done, len(load.failures)
    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(contextlib.closing(HeldConnection(proxy.address)))
            for _ in range(HELD)
        ]
        node.end(signal.SIGKILL)
        dead_at = time.monotonic()
        load.wait(number)
        works = {name: [each.works() for each in held if each.node == name] for name in NAMES}
    own = load.failures[failures:]
    done = load.done - before
    node.restart(proxy)
    return {
        "node": node.name,
        "connections": done,
        "held_of_it": len(works[node.name]),
        "held_of_it_that_work": sum(works.pop(node.name)),
        "held_of_others": sum(map(len, works.values())),
        "held_of_others_that_work": sum(sum(each) for each in works.values()),
        "failed": [vars(each) for each in own],
        "failed_that_began_later": sum(each.began > dead_at for each in own),
        "failed_of_others": sum(each.node not in (node.name, None) for each in own),
        "retries": proxy.sum("wretr") - retries,
        "redispatches": proxy.sum("wredis") - redispatches,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--rolls", type=int, required=True)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--linger", type=float, default=2.0)
    parser.add_argument("--own-namespaces", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder
    (folder / "app.py").write_text(APP)
    with (
        nodes(folder, arguments.own_namespaces, arguments.linger) as made,
        HAProxy(folder, made) as proxy,
    ):
        with Load(proxy.address) as load:
            rolled = rolling(made, proxy, load, arguments.connections, arguments.rolls)
        sessions = proxy.sum("stot")
        with Load(proxy.address) as load:
            killed = [
                kill(node, proxy, load, arguments.connections // 50)
                for node in made[: arguments.kills]
            ]
        ends = [node.end(signal.SIGTERM) for node in made]
    result = {
        "namespaces": arguments.own_namespaces,
        "rolling": {**rolled, "sessions": sessions},
        "kills": killed,
        "last_codes": ends,
        "accepted": sum(node.accepted() for node in made),
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()

"""Under a service manager: the sockets that it passes, and what it is told.

The manager is Debian's systemd-socket-activate, or a plain socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import SOON, Script, dial_path, output_of, says_back, wait_until
from support.command_line import COMMAND

from rsock import Server

ACTIVATE = "systemd-socket-activate"
needs_systemd = pytest.mark.skipif(shutil.which(ACTIVATE) is None, reason=f"needs {ACTIVATE}")


@contextlib.contextmanager
def activated(paths: list[Path], names: str, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A program that is started when the first client connects."""
    for path in paths:
        path.unlink(missing_ok=True)
    listens = [word for path in paths for word in ("-l", str(path))]
    process = subprocess.Popen(
        [ACTIVATE, *listens, *([f"--fdname={names}"] if names else []), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # It removes a socket file and makes it anew.
        wait_until(lambda: all(is_socket(path) for path in paths), what="the sockets are there")
        yield process
    finally:
        process.kill()
        process.communicate()
        for path in paths:
            path.unlink(missing_ok=True)


def is_socket(path: Path) -> bool:
    """Whether a stream socket is bound there; no listener notices the question."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(str(path)) == errno.EPROTOTYPE


# --- sockets that are passed ---------------------------------------------------------------

SERVES = """
import sys
from rsock import Quote, Server
with Server(fd="systemd:admin", service=Quote("admin")) as admin:
    Server(fd="systemd:web").run()
"""


@needs_systemd
def test_named_sockets_are_found_by_their_names_at_each_start(directory: Path) -> None:
    web, admin = directory / "web", directory / "admin"
    program = [sys.executable, "-c", SERVES]
    for _ in range(2):
        with activated([web, admin], "web:admin", *program) as process:
            with dial_path(str(web)) as peer:
                assert says_back(peer)
            with dial_path(str(admin)) as peer:
                assert peer.recv(100) == b"admin"
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON) == 0


@needs_systemd
def test_without_a_name_each_server_has_the_next_socket(directory: Path) -> None:
    first, second = directory / "first", directory / "second"
    code = """
from rsock import Quote, Server
with Server(fd="systemd", service=Quote("1")), Server(fd="systemd", service=Quote("2")) as last:
    try:
        Server(fd="systemd")
    except ValueError as error:
        print(error, flush=True)
    last.wait()
"""
    with activated([first, second], "", sys.executable, "-c", code) as process:
        for path, answer in ((first, b"1"), (second, b"2")):
            with dial_path(str(path)) as peer:
                assert peer.recv(100) == answer
        assert process.stdout is not None
        assert "all 2 sockets are in use" in process.stdout.readline()


@needs_systemd
def test_the_command_line_serves_all_sockets_that_were_passed(directory: Path) -> None:
    one, two = directory / "one", directory / "two"
    with activated([one, two], "a:b", *COMMAND, "echo", "--systemd", "--plain") as process:
        for path in (one, two):
            with dial_path(str(path)) as peer:
                assert says_back(peer)
        # A client of a socket that was passed can be served before the command says so.
        unsaid = {f"listening on {path}: Echo()" for path in (one, two)}
        assert process.stdout is not None
        while unsaid:
            line = process.stdout.readline()
            assert line, unsaid
            unsaid = {text for text in unsaid if text not in line}
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SOON)
    assert process.returncode == 0


# Puts a listener at 3 and tells the truth about it, or not.
PASSED = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
os.dup2(listener.fileno(), 3, inheritable=True) if listener.fileno() != 3 else None
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.environ.pop("LISTEN_FDNAMES", None)
from rsock import Server
def tried(fd="systemd", **environment):
    before = dict(os.environ)
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        print(Server(fd=fd).state)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
    os.environ.clear()
    os.environ.update(before)
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("LISTEN_PID=None", "LISTEN_PID is not set: no service manager has passed a socket"),
        ("LISTEN_PID='1'", "LISTEN_PID=1: the sockets are for another process"),
        ("LISTEN_PID='x'", "LISTEN_PID='x': must be a number from 1"),
        ("LISTEN_FDS='0'", "LISTEN_FDS='0': must be a number from 1"),
        ("LISTEN_FDS='99999999'", "LISTEN_FDS='99999999': must be a number from 1"),
        ("LISTEN_FDNAMES='a:b'", "LISTEN_FDNAMES='a:b': must have 1 names, as LISTEN_FDS says"),
        ("'systemd:web'", "fd 'systemd:web': no socket has this name; there are 'unknown'"),
        ("'systemd:'", "fd 'systemd:': must be a descriptor, 'systemd' or 'systemd:NAME'"),
        ("'systemd-web'", "fd 'systemd-web': must be a descriptor, 'systemd' or 'systemd:NAME'"),
    ],
)
def test_a_socket_that_was_not_passed_is_an_error_of_the_constructor(
    arguments: str, said: str
) -> None:
    [line] = output_of(f"{PASSED}\ntried({arguments})").splitlines()
    assert line.startswith("ValueError: fd '")
    assert said in line


def test_the_variables_stay_and_children_inherit_no_socket() -> None:
    code = """
tried()
import fcntl, subprocess
print(os.environ["LISTEN_FDS"], fcntl.fcntl(3, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)
"""
    assert output_of(PASSED + code) == "new\n1 1\n"


def test_a_socket_of_a_server_that_was_never_started_can_be_had_again() -> None:
    code = """
tried()
tried()
server = Server(fd="systemd")
tried()
del server
with Server(fd="systemd") as server:
    print(server.state)
del server
tried()
"""
    new, again, held, serving, over = output_of(PASSED + code).splitlines()
    assert (new, again, serving) == ("new", "new", "serving")
    assert held.endswith("the socket is in use by a server, or closed")
    assert over == held


# --- what the manager is told --------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, directory: Path) -> Iterator[socket.socket]:
    """The manager's end of NOTIFY_SOCKET."""
    path = directory / "notify"
    address = str(path) if request.param == "path" else f"\0rsock-{os.getpid()}-{directory.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(address)
        end.settimeout(SOON)
        yield end
    path.unlink(missing_ok=True)


def notify_socket(manager: socket.socket) -> str:
    name = manager.getsockname()
    return name if isinstance(name, str) else "@" + name[1:].decode()


RUNS = """
import os, sys
os.environ.update(NOTIFY_SOCKET=sys.argv[1])
if len(sys.argv) > 2:
    os.environ.update(WATCHDOG_USEC=sys.argv[2], WATCHDOG_PID=str(os.getpid()))
from rsock import Server
print(Server(name="web").run().cause)
"""


def test_the_manager_is_told_of_the_start_and_of_the_stop(manager: socket.socket) -> None:
    with Script(RUNS, notify_socket(manager)) as script:
        ready, status = manager.recv(1_000).decode().split("\n")
        assert ready == "READY=1"
        assert status.startswith("STATUS=serving Echo() on 127.0.0.1:")
        script.signal(signal.SIGTERM)
        assert manager.recv(1_000) == b"STOPPING=1"
        assert script.end() == (0, "SIGTERM\n", "")


def test_the_watchdog_is_fed_at_half_its_time(manager: socket.socket) -> None:
    with Script(RUNS, notify_socket(manager), "200000") as script:
        assert manager.recv(1_000).startswith(b"READY=1")
        for _ in range(3):
            assert manager.recv(1_000) == b"WATCHDOG=1"
        script.signal(signal.SIGTERM)
        wait_until(lambda: manager.recv(1_000) == b"STOPPING=1")
        assert script.end()[0] == 0


def test_the_manager_is_told_of_a_reload_of_processes(manager: socket.socket) -> None:
    environment = {**os.environ, "NOTIFY_SOCKET": notify_socket(manager)}
    command = [*COMMAND, "echo", "--processes", "2", "--plain"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        assert manager.recv(1_000).startswith(b"READY=1\nSTATUS=2 processes serve on 127.0.0.1:")
        process.send_signal(signal.SIGHUP)
        reloading, moment = manager.recv(1_000).decode().split("\n")
        assert reloading == "RELOADING=1"
        assert int(moment.removeprefix("MONOTONIC_USEC=")) > 0
        assert manager.recv(1_000).startswith(b"READY=1\n")
        process.send_signal(signal.SIGTERM)
        assert manager.recv(1_000) == b"STOPPING=1"
        assert process.wait(SOON) == 0
    finally:
        process.kill()
        process.wait()


def test_a_watchdog_of_another_process_is_not_fed() -> None:
    code = """
import os
from rsock._notify import watchdog_interval
mine = str(os.getpid())
for usec, process in (("100", None), ("100", mine), ("100", "1"), ("0", None), ("x", None)):
    os.environ.update(WATCHDOG_USEC=usec, WATCHDOG_PID=process or "")
    if process is None:
        del os.environ["WATCHDOG_PID"]
    print(watchdog_interval())
"""
    assert output_of(code).split() == ["5e-05", "5e-05", "None", "None", "None"]


@pytest.mark.parametrize("address", ["/nowhere/notify", "@rsock-has-no-manager", "vsock:2:1"])
def test_a_manager_that_cannot_be_reached_is_logged_once(address: str) -> None:
    with Script(RUNS.replace("from rsock", "import signal\nfrom rsock"), address) as script:
        wait_until(script.asleep)
        script.signal(signal.SIGTERM)
        code, out, err = script.end()
    assert (code, out) == (0, "SIGTERM\n")
    assert err.startswith("the service manager is not told: ")
    assert address in err
    assert err.count("\n") == 1


def test_a_program_without_a_manager_loads_nothing_for_it() -> None:
    code = """
import sys
from rsock import Server
print(Server().run().cause, "rsock._notify" in sys.modules, "rsock._systemd" in sys.modules)
"""
    with Script(code) as script:
        wait_until(script.asleep)
        script.signal(signal.SIGTERM)
        assert script.end() == (0, "SIGTERM False False\n", "")


# --- lingering -----------------------------------------------------------------------------

LINGERS = """
import sys, threading
from rsock import Server
server = Server()
def tell():
    for line in sys.stdin:
        print(server.ready, server.state, flush=True)
threading.Thread(target=tell, daemon=True).start()
server.start()
print(*server.address, flush=True)
try:
    print(server.run(linger=float(sys.argv[1])).cause)
except KeyboardInterrupt:
    print("forced")
"""


def asked(script: Script) -> str:
    script.tell()
    return script.line()


def echoes(address: tuple[str, int]) -> bool:
    with socket.create_connection(address, timeout=SOON) as peer:
        return says_back(peer)


def test_a_server_that_lingers_accepts_and_is_not_ready(manager: socket.socket) -> None:
    os.environ["NOTIFY_SOCKET"] = notify_socket(manager)
    try:
        script = Script(LINGERS, "1.5")
    finally:
        del os.environ["NOTIFY_SOCKET"]
    with script:
        host, port = script.line().split()
        assert manager.recv(1_000).startswith(b"READY=1")
        assert asked(script) == "True serving"
        script.signal(signal.SIGTERM)
        assert manager.recv(1_000) == b"STOPPING=1"
        assert asked(script) == "False serving"
        assert echoes((host, int(port)))
        code, out, err = script.end()
    assert (code, out, err) == (0, "SIGTERM\n", "")


def test_ctrl_c_does_not_linger() -> None:
    with Script(LINGERS, "600") as script:
        script.line()
        wait_until(script.asleep)
        script.signal(signal.SIGINT)
        assert script.end() == (0, "SIGINT\n", "")


def test_a_second_signal_ends_the_lingering() -> None:
    with Script(LINGERS, "600") as script:
        host, port = script.line().split()
        wait_until(script.asleep)
        script.signal(signal.SIGTERM)
        wait_until(lambda: asked(script) == "False serving")
        assert echoes((host, int(port)))
        script.signal(signal.SIGTERM)
        assert script.end() == (0, "forced\n", "")


SIGNALLED = """
import signal, sys, threading
from rsock import Server
place = sys.argv[1]
def at(here):
    if here == place:
        signal.raise_signal(signal.SIGTERM)
class Early(Server):
    def start(self):
        at("before the start")
        super().start()
        at("after the start")
class Errors:
    def write(self, text):
        print("said", *server.address, flush=True)
        at("during the announcement")
    def flush(self):
        pass
sys.stderr = Errors()
def tell():
    for line in sys.stdin:
        print(server.ready, server.state, flush=True)
threading.Thread(target=tell, daemon=True).start()
server = Early()
try:
    print(server.run(linger=600, announce=True).cause)
except KeyboardInterrupt:
    print("forced")
"""


@pytest.mark.parametrize("place", ["after the start", "during the announcement"])
def test_a_server_lingers_after_a_signal_that_came_before_it_was_announced(place: str) -> None:
    with Script(SIGNALLED, place) as script:
        said, host, port = script.line().split()
        assert said == "said"
        wait_until(lambda: asked(script) == "False serving")
        assert echoes((host, int(port)))
        script.signal(signal.SIGTERM)
        assert script.end() == (0, "forced\n", "")


def test_a_server_that_has_not_started_does_not_linger() -> None:
    with Script(SIGNALLED, "before the start") as script:
        assert script.end() == (0, "SIGTERM\n", "")


# The terminal or the pipe takes the line, and the signal comes before the command goes on.
COMMAND_SIGNALLED = """
import os, signal, sys
from rsock._cli import main
write = os.write
def write_and_signal(number, data):
    written = write(number, data)
    if b"listening" in bytes(data):
        signal.raise_signal(signal.SIGTERM)
    return written
os.write = write_and_signal
sys.exit(main(["echo", "--linger", "600"]))
"""


def test_a_command_lingers_and_shows_connections_after_a_signal_at_its_first_line() -> None:
    with Script(COMMAND_SIGNALLED) as script:
        found = re.match(r"listening on ([\d.]+):(\d+): ", script.line())
        assert found is not None
        with socket.create_connection((found[1], int(found[2])), timeout=SOON) as peer:
            assert says_back(peer)
            client = peer.getsockname()
        assert f"{client[0]}:{client[1]}" in script.line()
        script.signal(signal.SIGTERM)
        assert script.end()[0] == 143


@pytest.mark.parametrize(
    ("linger", "error"),
    [(-1, ValueError), (float("nan"), ValueError), (1e9, ValueError), ("5", TypeError)],
)
def test_a_wrong_time_to_linger_is_refused_before_the_start(
    linger: float, error: type[Exception]
) -> None:
    server = Server()
    with pytest.raises(error, match="linger"):
        server.run(linger=linger)
    assert server.state == "new"


def test_a_server_is_ready_while_it_serves() -> None:
    server = Server()
    assert not server.ready
    with server:
        assert server.ready
    assert not server.ready

"""Several processes on one listener: replaced without loss, started again, drained together."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import LOOPBACK, SOON, dial, dial_path, refused, says_back, wait_until
from support.command_line import PATIENCE, Running, run
from support.waiting import state_of

# The long form: RSOCK_TEST_LONG=1 makes 100 000 connections while processes are replaced.
CONNECTIONS = 100_000 if os.environ.get("RSOCK_TEST_LONG") else 1_500
RELOADS = 10 if os.environ.get("RSOCK_TEST_LONG") else 2
LONG = 20 * PATIENCE if os.environ.get("RSOCK_TEST_LONG") else PATIENCE

APP = """
import os
def who(conn):
    conn.sendall(f"{os.getpid()}\\n".encode())
def hold(conn):
    conn.sendall(b"%d\\n" % os.getpid())
    conn.sendall(conn.recv(100))
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@contextlib.contextmanager
def serving(*arguments: str, cwd: Path | None = None) -> Iterator[Running]:
    """A command with processes; its children end with it."""
    with Running(*arguments, cwd=cwd) as command:
        yield command


def address_of(command: Running, number: int) -> tuple[str, int]:
    found = re.fullmatch(r"listening on ([\d.]+):(\d+): (\d+) process(?:es)?", command.line())
    assert found is not None
    assert int(found[3]) == number
    return found[1], int(found[2])


def children(command: Running) -> list[int]:
    pid = command.process.pid
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def answer(address: tuple[str, int]) -> int:
    """The number of the process that serves a new connection."""
    with dial(address) as peer, peer.makefile("rb") as lines:
        return int(lines.readline())


def ended(command: Running, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
    command.signal(number)
    code, out, err = command.end()
    return code, out, err


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_processes_serve_on_one_listener_and_drain_together(
    number: signal.Signals, app: Path
) -> None:
    with serving("serve", "app:who", "0", "--processes", "2", cwd=app) as command:
        address = address_of(command, 2)
        pids = children(command)
        assert len(pids) == 2
        for _ in range(20):
            assert answer(address) in pids
        code, out, err = ended(command, number)
        assert (code, err) == (0, "")
        assert gone(pids)
    for pid in pids:
        assert f"process {pid} stopped by SIGTERM" in out
    accepted = re.findall(r"^(\d+) accepted = 0 open", out, re.MULTILINE)
    assert sum(map(int, accepted)) == 20


def test_processes_serve_a_unix_socket_and_remove_its_file(app: Path, directory: Path) -> None:
    path = directory / "x.sock"
    with serving("serve", "app:who", str(path), "--processes", "2", cwd=app) as command:
        assert command.line() == f"listening on {path}: 2 processes"
        with dial_path(str(path)) as peer:
            assert int(peer.recv(100)) in children(command)
        assert ended(command)[0] == 0
    assert not path.exists()


@pytest.mark.timeout(1_800 if os.environ.get("RSOCK_TEST_LONG") else 120)
def test_a_signal_replaces_the_processes_while_clients_connect_and_none_fails(app: Path) -> None:
    with serving("echo", "0", "--processes", "2", "--drain", "5", cwd=app) as command:
        address = address_of(command, 2)
        before = children(command)
        done, failed = 0, []
        over = threading.Event()
        lines: list[str] = []
        # A process waits while its output is not read.
        output = command.process.stdout
        assert output is not None
        reader = threading.Thread(target=lambda: lines.extend(map(bytes.decode, output)))
        reader.start()

        def visit() -> None:
            nonlocal done
            while not over.is_set():
                try:
                    with socket.create_connection(address, timeout=LONG) as peer:
                        if not says_back(peer):
                            failed.append("cut short")
                except OSError as error:
                    failed.append(repr(error))
                done += 1

        clients = [threading.Thread(target=visit) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            seen = set(before)
            for number in range(1, RELOADS + 1):
                command.signal(signal.SIGHUP)
                replaced, enough = 2 + 2 * number, CONNECTIONS * number // RELOADS
                wait_for(lambda: len(seen_now(command, seen)), replaced)
                wait_for(lambda: done, enough)
        finally:
            over.set()
            for client in clients:
                client.join()
        assert failed == []
        wait_until(functools.partial(gone, before), LONG)
        command.signal(signal.SIGTERM)
        reader.join()
        assert command.process.wait(LONG) == 0
    accepted = [
        int(line.split()[0].replace(",", "")) for line in lines if " accepted = 0 open " in line
    ]
    assert sum(accepted) == done >= CONNECTIONS


def wait_for(count: Callable[[], int], number: int) -> None:
    """Wait until a count has reached a number."""
    wait_until(lambda: count() >= number, LONG)


def seen_now(command: Running, seen: set[int]) -> set[int]:
    """All children that there were so far."""
    seen.update(children(command))
    return seen


def test_an_open_connection_is_served_to_its_end_by_the_process_that_is_replaced(
    app: Path,
) -> None:
    with serving("serve", "app:hold", "0", "--processes", "1", "--drain", "60", cwd=app) as command:
        address = address_of(command, 1)
        [old] = children(command)
        with dial(address) as peer:
            assert int(peer.recv(100)) == old
            peer.sendall(b"x")
            assert peer.recv(100) == b"x"
            with dial(address) as slow:
                assert int(slow.recv(100)) == old
                command.signal(signal.SIGHUP)
                wait_until(lambda: children(command) and answer_of_new(address, old), PATIENCE)
        wait_until(lambda: gone([old]), PATIENCE)
        assert ended(command)[0] == 0


def answer_of_new(address: tuple[str, int], old: int) -> bool:
    with dial(address) as peer:
        number = int(peer.recv(100))
        peer.sendall(b"x")
        return number != old and peer.recv(100) == b"x"


def test_a_process_that_is_killed_ten_times_is_replaced_with_back_off(app: Path) -> None:
    with serving("serve", "app:who", "0", "--processes", "2", cwd=app) as command:
        address = address_of(command, 2)
        for _ in range(10):
            # One of the two always serves.
            wait_until(lambda: len(children(command)) == 2, PATIENCE)
            pid = answer(address)
            os.kill(pid, signal.SIGKILL)
            wait_until(functools.partial(gone, [pid]), PATIENCE)
            assert answer(address) != pid
        wait_until(lambda: len(children(command)) == 2, PATIENCE)
        code, _, err = ended(command)
    assert code == 0
    assert err.count("was ended by SIGKILL") == 10
    delays = [float(text) for text in re.findall(r"another process starts in ([\d.]+) s", err)]
    assert delays.count(0.1) == 2
    assert max(delays) >= 1.6
    assert set(delays) <= {0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0}


def test_a_new_process_that_does_not_start_leaves_the_old_ones_serving(app: Path) -> None:
    with serving("serve", "app:who", "0", "--processes", "2", cwd=app) as command:
        address = address_of(command, 2)
        before = children(command)
        (app / "app.py").write_text("def who(conn:\n")
        command.signal(signal.SIGHUP)
        assert command.process.stderr is not None
        said = ""
        while "those before it serve on" not in said:
            said = command.process.stderr.readline().decode()
        assert children(command) == before
        assert answer(address) in before
        assert ended(command)[0] == 0


@pytest.mark.parametrize(
    ("service", "code", "said"),
    [("app:nothing", 2, "app has no 'nothing'"), ("broken:f", 1, "ZeroDivisionError")],
)
def test_processes_that_cannot_start_at_all_end_the_command(
    service: str, code: int, said: str, app: Path
) -> None:
    (app / "broken.py").write_text("1 / 0\n")
    found, out, err = run("serve", service, "0", "--processes", "2", cwd=app)
    assert (found, out) == (code, "")
    assert said in err


BROKEN_LATER = """
import os, time
while not os.path.exists("go"):
    time.sleep(0.01)
1 / 0
"""


def test_processes_that_end_at_the_same_time_end_the_command(app: Path) -> None:
    (app / "broken.py").write_text(BROKEN_LATER)
    with serving("serve", "broken:f", "0", "--processes", "2", cwd=app) as command:
        wait_until(lambda: len(children(command)) == 2, PATIENCE)
        pids = children(command)
        # The parent finds both at once: it asks the second to end while it handles the first.
        command.signal(signal.SIGSTOP)
        (app / "go").touch()
        wait_until(lambda: {state_of(pid, pid) for pid in pids} == {"Z"}, PATIENCE)
        command.signal(signal.SIGCONT)
        code, out, err = command.end()
    assert (code, out) == (1, "")
    assert err.count("ZeroDivisionError") == 2
    assert "is killed" not in err


def test_a_second_signal_resets_what_is_open(app: Path) -> None:
    with serving(
        "serve", "app:hold", "0", "--processes", "2", "--drain", "600", cwd=app
    ) as command:
        address = address_of(command, 2)
        pids = children(command)
        with dial(address) as peer:
            assert peer.recv(100)
            command.signal(signal.SIGTERM)
            wait_until(lambda: refused(address))
            command.signal(signal.SIGTERM)
            code, _, _ = command.end()
        assert code == 143
        assert gone(pids)


def test_children_end_when_their_parent_is_killed(app: Path) -> None:
    with serving("serve", "app:who", "0", "--processes", "2", cwd=app) as command:
        address_of(command, 2)
        pids = children(command)
        command.process.kill()
        command.process.wait()
        wait_until(lambda: gone(pids), PATIENCE)


def test_datagrams_are_not_spread_over_processes() -> None:
    code, _, err = run("echo", "--udp", "--processes", "2")
    assert code == 2
    assert "--processes" in err


def test_the_output_for_programs_names_the_process(app: Path) -> None:
    with serving(
        "serve", "app:who", "0", "--processes", "2", "--json", "--name", "web", cwd=app
    ) as command:
        started = json.loads(command.line())
        assert (started["event"], started["processes"]) == ("listening", 2)
        pids = children(command)
        pid = answer(tuple(started["address"]))
        closed = json.loads(command.line())
        assert (closed["event"], closed["process"], closed["server"]) == ("closed", pid, "web")
        stopped = [json.loads(line) for line in ended(command)[1].splitlines()]
    assert {each["process"] for each in stopped} == set(pids)


def test_a_changed_file_replaces_the_processes(app: Path) -> None:
    pytest.importorskip("watchfiles")
    with serving("serve", "app:who", "0", "--reload", cwd=app) as command:
        address = address_of(command, 1)
        text = "def who(conn):\n    conn.sendall(b'7\\n')\n"

        def changed() -> bool:
            # Again each time: the watch may begin only now.
            (app / "app.py").write_text(text)
            return answer(address) == 7

        wait_until(changed, PATIENCE)
        code, _, err = ended(command)
    assert code == 0
    assert "app.py changed: new processes start" in err


def test_without_watchfiles_reload_says_what_to_install(app: Path) -> None:
    (app / "watchfiles.py").write_text("raise ImportError\n")
    code, _, err = run("serve", "app:who", "0", "--reload", cwd=app)
    assert code == 1
    assert "pip install watchfiles" in err


# --- pid file and user ---------------------------------------------------------------------


def test_a_pid_file_has_the_number_while_the_command_runs(tmp_path: Path) -> None:
    path = tmp_path / "rsock.pid"
    path.write_text("1\n")  # of a process that was killed
    with Running("echo", "--pid-file", str(path)) as command:
        command.address()
        assert path.read_text() == f"{command.process.pid}\n"
        code, _, err = run("echo", "--pid-file", str(path))
        assert code == 1
        assert f"process {command.process.pid} is running" in err
        assert ended(command)[0] == 0
    assert not path.exists()


def runs_as_another_user() -> bool:
    """Whether another user can start this interpreter, as a parent does after it has changed."""
    command = [sys.executable, "-c", "import rsock"]
    try:
        return subprocess.run(command, user=65534, group=65534, extra_groups=[]).returncode == 0
    except PermissionError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_the_user_changes_once_the_port_is_bound(
    processes: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(
        "import os\n"
        "def who(conn):\n"
        "    conn.sendall(f'{os.getuid()} {os.getgid()} {os.getgroups()}'.encode())\n"
    )
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    if processes and not runs_as_another_user():
        pytest.skip("the interpreter is in a directory that only root can enter")
    arguments = ("serve", "app:who", "0", "--user", "65534", *processes)
    with Running(*arguments, cwd=tmp_path) as command:
        line = command.line()
        port = int(re.search(r":(\d+): ", line)[1])  # type: ignore[index]
        with dial((LOOPBACK, port)) as peer:
            uid, gid, groups = peer.recv(100).decode().split(" ", 2)
        assert uid == "65534"
        assert gid == "65534"
        assert groups == "[65534]"
        assert ended(command)[0] == 0


@pytest.mark.parametrize(("option", "kind"), [("--user", "user"), ("--group", "group")])
def test_an_unknown_user_or_group_is_named(option: str, kind: str) -> None:
    code, _, err = run("echo", option, "no-such-one")
    assert (code, err.splitlines()[0]) == (2, f"rsock: {option} 'no-such-one': no such {kind}")


# --- metrics and readiness -----------------------------------------------------------------


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=SOON) as answered:
            return answered.status, answered.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def sample(port: int, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", get(port, "/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else -1.0


def metrics_port(command: Running) -> int:
    found = re.fullmatch(r"metrics on http://127\.0\.0\.1:(\d+)/metrics", command.line())
    assert found is not None
    return int(found[1])


ACCEPTED = 'rsock_connections_accepted_total{server="web"}'


def test_metrics_are_the_sums_of_all_processes_and_never_fall(app: Path) -> None:
    with serving(
        "serve",
        "app:who",
        "0",
        "--processes",
        "2",
        "--metrics",
        "0",
        "--name",
        "web",
        cwd=app,
    ) as command:
        port = metrics_port(command)
        address = address_of(command, 2)
        for _ in range(30):
            answer(address)
        assert sample(port, ACCEPTED) == 30
        assert sample(port, "rsock_processes") == 2
        before = set(children(command))
        command.signal(signal.SIGHUP)
        wait_until(lambda: not before & set(children(command)), PATIENCE)
        for _ in range(10):
            answer(address)
        assert sample(port, ACCEPTED) == 40
        os.kill(answer(address), signal.SIGKILL)
        wait_until(lambda: sample(port, "rsock_process_restarts_total") == 1, PATIENCE)
        assert 40 <= sample(port, ACCEPTED) <= 41
        assert ended(command)[0] == 0


@pytest.mark.parametrize("processes", [(), ("--processes", "1")])
def test_a_probe_is_told_that_a_server_which_lingers_is_not_ready(
    processes: tuple[str, ...],
) -> None:
    with Running("echo", "--linger", "600", "--metrics", "0", *processes) as command:
        port = metrics_port(command)
        found = re.search(r":(\d+): ", command.line())
        assert found is not None
        wait_until(lambda: get(port, "/ready") == (200, "ready\n"))
        assert get(port, "/live")[0] == 200
        assert get(port, "/nothing")[0] == 404
        command.signal(signal.SIGTERM)
        wait_until(lambda: get(port, "/ready") == (503, "not ready\n"))
        with dial((LOOPBACK, int(found[1]))) as peer:
            assert says_back(peer)
        code, _, _ = ended(command)
    assert code == 143


def test_a_taken_port_of_metrics_is_named() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        code, _, err = run("echo", "--metrics", str(port))
    assert code == 1
    assert f"--metrics: bind 127.0.0.1:{port}: Address already in use" in err

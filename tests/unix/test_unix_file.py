"""The file of a Unix socket: created, replaced where stale, and removed only by its server."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import stat
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from support import (
    Background,
    Script,
    dial_path,
    error_number,
    leave_stale,
    output_of,
    run_script,
    says_back,
    wait_until,
)

from rsock import (
    Accept,
    Connection,
    Server,
    SocketOptions,
)

LONG = 10.0


# --- the file ------------------------------------------------------------------------------


def test_the_file_goes_with_the_server_and_no_lock_stays(directory: Path, path: str) -> None:
    server = Server(path=path)
    server.bind()
    assert [entry.name for entry in directory.iterdir()] == ["x.sock"]
    assert error_number(lambda: dial_path(path)) == 111, "not listening yet"
    server.listen()
    with dial_path(path) as early:
        server.start()
        assert says_back(early)
    assert server.stop().cause == "stop"
    assert list(directory.iterdir()) == []
    assert error_number(lambda: dial_path(path)) == 2


def test_a_server_that_was_only_bound_removes_its_file(directory: Path, path: str) -> None:
    server = Server(path=path).bind()
    server.stop()
    assert list(directory.iterdir()) == []


def test_a_dropped_server_removes_its_file(directory: Path, path: str) -> None:
    for step in ("bind", "listen", "start"):
        server = getattr(Server(path=path), step)()
        assert server.state != "new"
        with pytest.warns(ResourceWarning, match="never stopped"):
            del server
            gc.collect()
        wait_until(lambda: not os.path.exists(path), LONG, "the file is gone")


def test_a_relative_path_is_found_again_from_elsewhere(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    with Server(path="x.sock") as server:
        assert server.address == "x.sock"
        with server.client(timeout=LONG) as client:
            assert says_back(client)
        monkeypatch.chdir("/")
    assert list(directory.iterdir()) == []


def test_a_stale_file_is_replaced(directory: Path, path: str) -> None:
    leave_stale(path)
    with Server(path=path) as server, server.client(timeout=LONG) as client:
        assert says_back(client)
        assert [entry.name for entry in directory.iterdir()] == ["x.sock"]
    assert list(directory.iterdir()) == []


def test_what_a_killed_server_leaves_is_replaced(directory: Path, path: str) -> None:
    code = """
import sys, rsock
server = rsock.Server(path=sys.argv[1]).start()
print("up", flush=True)
sys.stdin.read()
"""
    with Script(code, path) as script:
        assert script.line() == "up"
        script.signal(signal.SIGKILL)
        script.process.wait(LONG)
    assert os.path.exists(path)
    with Server(path=path) as server, server.client(timeout=LONG) as client:
        assert says_back(client)


def test_a_live_socket_is_never_replaced_nor_troubled(directory: Path, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        for listening in (False, True):
            if listening:
                other.listen()
            with pytest.raises(OSError, match="already in use .a live socket has it") as caught:
                Server(path=path).start()
            assert caught.value.errno == 98
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
        other.setblocking(True)
        with dial_path(path) as peer:
            conn, _ = other.accept()
            conn.close()
            assert peer.recv(1) == b""
    assert stat.S_ISSOCK(os.stat(path).st_mode), "the file was not removed"
    os.unlink(path)


@pytest.mark.parametrize("kind", ["dgram", "seqpacket"])
def test_a_live_socket_of_another_type_is_never_replaced(path: str, kind: str) -> None:
    type_ = socket.SOCK_DGRAM if kind == "dgram" else socket.SOCK_SEQPACKET
    with socket.socket(socket.AF_UNIX, type_) as other:
        other.bind(path)
        with pytest.raises(OSError, match="a live socket has it"):
            Server(path=path).start()
    os.unlink(path)


@pytest.mark.parametrize("kind", ["regular file", "directory", "symbolic link", "pipe"])
def test_another_kind_of_file_is_never_replaced(directory: Path, path: str, kind: str) -> None:
    if kind == "regular file":
        Path(path).write_bytes(b"precious")
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        # Even a link that leads to a stale socket.
        leave_stale(directory / "target")
        os.symlink("target", path)
    before = os.lstat(path)
    with pytest.raises(OSError, match=f"a {kind} is there, which is never replaced") as caught:
        Server(path=path).start()
    assert caught.value.errno == 98
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_size,
        before.st_mtime_ns,
    )
    for entry in directory.iterdir():
        entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def test_a_holder_of_this_process_is_named(path: str) -> None:
    with Server(path=path, name="the first") as first:
        hard = path + "2"
        os.link(path, hard)
        for name in (path, hard):
            with pytest.raises(OSError, match='held by the Server "the first".*stop..') as caught:
                Server(path=name).start()
            assert caught.value.errno == 98
        with first.client(timeout=LONG) as client:
            assert says_back(client)
        os.unlink(hard)


def test_a_holder_that_is_just_ending_is_waited_for(path: str) -> None:
    def linger(conn: Connection) -> None:
        conn.recv(1)
        release.wait(LONG)

    for _ in range(20):
        release = threading.Event()
        first = Server(path=path, service=linger, drain=LONG).start()
        with dial_path(path) as peer:
            peer.sendall(b"x")
            first.ledger.wait(open=1)
            ending = Background(first.stop)
            wait_until(lambda: first.state != "serving", LONG)  # noqa: B023
            with Server(path=path) as second, second.client(timeout=LONG) as client:
                assert says_back(client)
                release.set()
                ending.result(LONG)
                assert os.path.exists(path), "the first one left the second one's file alone"


def test_only_our_own_file_is_removed(directory: Path, path: str) -> None:
    with Server(path=path):
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            ours = os.stat(path).st_ino
            other.listen()
    assert os.stat(path).st_ino == ours
    os.unlink(path)
    with Server(path=path):
        os.unlink(path)
        Path(path).write_text("another program's")
    assert Path(path).read_text() == "another program's"
    os.unlink(path)
    with Server(path=path):
        os.unlink(path)


def test_a_stale_file_that_cannot_be_removed_is_said_to_be_so(directory: Path, path: str) -> None:
    if os.geteuid() == 0:
        code = (
            "import os, sys, rsock\n"
            "os.setegid(65534); os.seteuid(65534)\n"
            "try: rsock.Server(path=sys.argv[1]).start()\n"
            "except OSError as error: print(error.errno, error)\n"
        )
        os.chmod(directory, 0o755)
        leave_stale(path)
        os.chmod(path, 0o777)
        said = output_of(code, path)
        assert said.startswith(
            f"98 [Errno 98] bind {path}: Address already in use (its file may be"
        )
        assert "Permission denied" in said
        os.unlink(path)


def test_many_servers_that_start_at_once_are_one(directory: Path, path: str) -> None:
    """Of several processes that find a stale file, exactly one gets the path each time."""
    code = """
import sys, rsock
for line in sys.stdin:
    server = rsock.Server(path=sys.argv[1])
    try:
        server.start()
    except OSError as error:
        print("lost" if error.errno == 98 else error, flush=True)
    else:
        print("won", flush=True)
        sys.stdin.readline()
        server.stop(0)
        print("gone", flush=True)
"""
    scripts = [Script(code, path) for _ in range(4)]
    try:
        for _ in range(15):
            leave_stale(path)
            for script in scripts:
                script.tell("go")
            said = [script.line() for script in scripts]
            assert sorted(said) == ["lost", "lost", "lost", "won"], said
            assert [entry.name for entry in directory.iterdir()] == ["x.sock"]
            with dial_path(path) as peer:
                assert says_back(peer)
            winner = scripts[said.index("won")]
            winner.tell("stop")
            assert winner.line() == "gone"
            assert list(directory.iterdir()) == []
    finally:
        for script in scripts:
            script.__exit__()


def is_locked(path: str) -> bool:
    """Whether a process holds the lock of this file: proc(5), /proc/locks."""
    try:
        number = os.stat(path).st_ino
    except FileNotFoundError:
        return False
    return f":{number} " in Path("/proc/locks").read_text()


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_a_new_file_is_never_taken_for_the_stale_one(directory: Path, path: str) -> None:
    """While one server is slow to remove a stale file, another must not bind the name."""
    code = """
import sys, rsock
try:
    with rsock.Server(path=sys.argv[1]):
        print("won", flush=True)
        sys.stdin.readline()
except OSError as error:
    print(error.errno)
"""
    calls = "?unlink,unlinkat"
    slow = ("strace", "-f", "-o", os.devnull, f"-etrace={calls}")
    slowly = (f"-einject={calls}:delay_enter=400000",)
    leave_stale(path)
    with Script(code, path, prefix=(*slow, *slowly)) as first:
        wait_until(lambda: is_locked(path + ".lock"), LONG, "it is about to remove the file")
        with Script(code, path) as second:
            # Either may bind the name; the other finds it in use and leaves the new file alone.
            said = {first: first.line(), second: second.line()}
            assert sorted(said.values()) == ["98", "won"]
            winner = next(script for script, line in said.items() if line == "won")
            with dial_path(path) as peer:
                assert says_back(peer)
            winner.tell()
            assert winner.end(LONG)[0] == 0


def test_a_lock_that_another_process_holds_is_waited_for(directory: Path, path: str) -> None:
    holder = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
os.unlink(sys.argv[1])
"""
    leave_stale(path)
    with Script(holder, path + ".lock") as script:
        assert script.line() == "held"
        with pytest.raises(OSError, match=r"its lock .*x\.sock\.lock cannot be had") as caught:
            Server(path=path).start()
        assert caught.value.errno == 98
        starting = Background(lambda: Server(path=path).start())
        wait_until(starting.asleep, LONG, "it waits")
        script.tell()
        with starting.result(LONG) as server, server.client(timeout=LONG) as client:
            assert says_back(client)


def test_a_directory_that_goes_while_its_lock_is_waited_for_is_an_error(directory: Path) -> None:
    """In an interpreter of its own: a call that spins would stop this one."""
    code = """
import fcntl, os, shutil, sys, threading
from rsock import Server
path = sys.argv[1]
lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)

def start():
    try:
        Server(path=path).start()
    except OSError as error:
        print(error)

starting = threading.Thread(target=start, daemon=True)
starting.start()
print("waiting", flush=True)
sys.stdin.readline()
# Again where the other thread creates its lock file meanwhile.
while os.path.exists(os.path.dirname(path)):
    shutil.rmtree(os.path.dirname(path), ignore_errors=True)
os.close(lock)
starting.join(10)
"""
    path = str(directory / "goes" / "x.sock")
    os.mkdir(directory / "goes")
    leave_stale(path)
    with Script(code, path) as script:
        assert script.line() == "waiting"
        script.tell()
        said = f"[Errno 2] bind {path}: No such file or directory\n"
        assert script.end(2 * LONG) == (0, said, "")


def replaced_after_the_bind(path: str, mode: str, replacement: Callable[[], object]) -> list[str]:
    """What a server says whose file is replaced between its bind and the setting of the mode."""
    code = """
import os, sys
from rsock import Server, SocketOptions
os.umask(0o777)
try:
    with Server(path=sys.argv[1], options=SocketOptions(mode=int(sys.argv[2], 8))):
        print("started")
except OSError as error:
    print("refused", error.errno)
"""
    slow = ("strace", "-f", "-o", os.devnull, "-etrace=bind", "-einject=bind:delay_exit=300000")
    with Script(code, path, mode, prefix=slow) as script:
        wait_until(lambda: Path(path).is_socket(), LONG, "it is bound")
        replacement()
        return script.end(LONG)[1].split()


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_the_mode_is_set_on_no_file_but_the_socket_of_the_server(
    directory: Path, path: str
) -> None:
    victim = directory / "victim"
    victim.write_text("secret")
    victim.chmod(0o600)
    assert replaced_after_the_bind(path, "777", lambda: victim.rename(path)) == ["refused", "2"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert Path(path).read_text() == "secret"
    os.unlink(path)


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_the_socket_of_another_server_at_the_path_is_neither_changed_nor_removed(
    directory: Path, path: str
) -> None:
    with Server(path=directory / "other", options=SocketOptions(mode=0o600)):
        said = replaced_after_the_bind(path, "777", lambda: os.rename(directory / "other", path))
        assert said == ["refused", "2"]
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with dial_path(path) as peer:
            assert says_back(peer)
    os.unlink(path)


def test_a_lock_file_of_another_program_is_left_alone(directory: Path, path: str) -> None:
    lock = Path(path + ".lock")
    lock.write_text("pid 1\n")
    leave_stale(path)
    with Server(path=path):
        pass
    assert lock.read_text() == "pid 1\n"
    lock.unlink()
    # A server that is killed between two steps leaves an empty lock of mode 600.
    lock.touch(0o600)
    leave_stale(path)
    with Server(path=path):
        assert not lock.exists()
    lock.mkdir()
    leave_stale(path)
    with pytest.raises(OSError, match="its lock"):
        Server(path=path).start()
    lock.rmdir()
    os.unlink(path)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777], ids=oct)
def test_the_files_permissions_are_those_asked_for(path: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        for mode in (0o600, 0o666, 0o660, 0o000, 0o777):
            with Server(path=path, options=SocketOptions(mode=mode)):
                assert stat.S_IMODE(os.stat(path).st_mode) == mode
        with Server(path=path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o777 & ~umask
    finally:
        os.umask(before)


def test_the_account_of_a_path_is_a_row_like_any_other(path: str) -> None:
    with Server(path=path, trace=True) as server:
        with server.client(timeout=LONG) as client:
            assert says_back(client, b"hello")
            [record] = server.ledger.open
            assert client.record is not None
            assert client.record.to_dict()["remote"] == path
        server.ledger.wait(open=0, closed=1)
        assert (record.tcp_info, record.rfc147) == (None, None)
        assert record.trace is not None
        assert [(e.direction, e.data) for e in record.trace] == [
            ("in", b"hello"),
            ("out", b"hello"),
        ]
        [row] = server.ledger.to_dicts()
        expected = {
            "transport": "unix",
            "local": path,
            "local_host": None,
            "local_port": None,
            "peer_pid": os.getpid(),
            "peer_uid": os.getuid(),
            "bytes_in": 5,
            "closed_by": "peer",
            "rfc147_sends": None,
            "tcp_rtt": None,
        }
        assert {name: row[name] for name in expected} == expected
        assert server.ledger.to_csv().count(path) == 1


def test_who_waits_at_a_path_is_counted(path: str) -> None:
    with Server(path=path, service=Accept()) as server:
        assert server.waiting == 0
        with server.client(timeout=LONG), server.client(timeout=LONG):
            assert server.waiting == 2
            connection, _ = server.accept(LONG)
            with connection:
                assert server.waiting == 1


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_there_is_no_moment_of_wider_permissions(directory: Path, path: str) -> None:
    trace = str(directory / "trace")
    code = (
        "import os, sys, rsock\n"
        "os.umask(0)\n"
        "with rsock.Server(path=sys.argv[1], options=rsock.SocketOptions(mode=0o600)):\n"
        "    print(oct(os.stat(sys.argv[1]).st_mode))\n"
    )
    said = output_of(
        code, path, prefix=("strace", "-f", "-o", trace, "-e", "trace=fchmod,bind,chmod,fchmodat")
    )
    assert said == "0o140600\n"
    calls = [line.split(maxsplit=1)[1] for line in Path(trace).read_text().splitlines()]
    named = [
        call.partition("(")[0] for call in calls if call.startswith(("fchmod", "bind", "chmod"))
    ]
    # The permissions are set on the socket before it has a file, so the file needs no change.
    assert named == ["fchmod", "bind"], calls
    os.unlink(trace)


def test_the_file_goes_when_the_interpreter_does(directory: Path, path: str) -> None:
    for start in ("server.start()", "server.listen()", "server.bind()"):
        for end in ("", "sys.exit(3)", "raise ValueError"):
            code = f"import sys, rsock\nserver = rsock.Server(path=sys.argv[1])\n{start}\n{end}\n"
            assert run_script(code, path).returncode == {"": 0, "sys.exit(3)": 3}.get(end, 1)
            assert list(directory.iterdir()) == [], (start, end)


def test_sigterm_in_run_removes_the_file(directory: Path, path: str) -> None:
    code = "import sys, rsock; print(rsock.Server(path=sys.argv[1]).run().cause)"
    with Script(code, path) as script:
        wait_until(lambda: os.path.exists(path), LONG)
        wait_until(script.asleep, LONG)
        script.signal(signal.SIGTERM)
        assert script.end(LONG) == (0, "SIGTERM\n", "")


def test_a_forked_child_never_removes_the_file(path: str) -> None:
    with Server(path=path) as server:
        for how in ("exit", "collect", "leave"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                try:
                    if how == "collect":
                        del server
                        gc.collect()
                    elif how == "leave":
                        server.__exit__(None, None, None)
                finally:
                    os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            assert os.path.exists(path)
            with server.client(timeout=LONG) as client:
                assert says_back(client)
    # A child that runs to the end of the interpreter.
    code = """
import os, sys, rsock
with rsock.Server(path=sys.argv[1]) as server:
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    os.waitpid(pid, 0)
    with server.client(timeout=10) as client:
        client.sendall(b"x")
        print(client.recv(1))
"""
    assert run_script(code, path, options=("-W", "ignore")).stdout == "b'x'\n"


def test_a_child_keeps_no_client_hanging(path: str) -> None:
    """A child closes the listener's descriptors, and the connections end whatever it holds."""
    server = Server(path=path).start()
    with dial_path(path) as peer:
        assert says_back(peer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            signal.pause()
        try:
            server.stop()
            assert peer.recv(1) == b""
            assert error_number(lambda: dial_path(path)) == 2
            with Server(path=path) as next_one, next_one.client(timeout=LONG) as client:
                assert says_back(client)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_listener_given_by_number_keeps_its_file(path: str) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    duplicate = listening.dup()
    server = Server(fd=listening.detach())
    assert (server.transport, server.path, server.host) == ("unix", path, None)
    with server:
        assert server.address == path
        with server.client(timeout=LONG) as client:
            assert says_back(client)
        with pytest.raises(OSError, match="held by the Server"):
            Server(path=path).start()
    assert os.path.exists(path)
    # Only closed, not shut down: its other owner continues to use it.
    duplicate.settimeout(LONG)
    with duplicate, dial_path(path) as peer:
        conn, _ = duplicate.accept()
        with conn:
            peer.sendall(b"x")
            assert conn.recv(1) == b"x"
    os.unlink(path)


def test_what_a_number_is_must_fit(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as tcp:
        with pytest.raises(ValueError, match=r"transport='tcp'.*is a Unix socket"):
            Server(fd=unix.fileno(), transport="tcp")
        with pytest.raises(ValueError, match="it is no Unix socket"):
            Server(fd=tcp.fileno(), transport="unix")
        with pytest.raises(ValueError, match="not ours to change"):
            Server(fd=unix.fileno(), options=SocketOptions(mode=0o600))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dgram:
            with pytest.raises(ValueError, match="not a Unix stream socket"):
                Server(fd=dgram.fileno()).create()
        with pytest.raises(ValueError, match="has no address; give one"):
            Server(fd=unix.dup().detach()).bind()
        server = Server(fd=unix.detach())
        with server.bind(path), server.client(timeout=LONG) as client:
            assert says_back(client)

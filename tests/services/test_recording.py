"""Recordings: what crosses a forwarder, in a file."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import SOON, closed_port, output_of, run_script, threads, wait_until

from rsock import (
    Accept,
    ByConnection,
    Client,
    Echo,
    Endpoint,
    Forward,
    Greeting,
    Handler,
    RecordedConnection,
    RecordedEvent,
    Recording,
    Server,
    faults,
)


def only(recording: Recording) -> RecordedConnection:
    assert recording.torn is None
    [connection] = recording.connections
    return connection


def told(connection: RecordedConnection) -> list[tuple[str, bytes | str]]:
    """Directions with bytes, or with ends; chunks of one direction that follow are joined."""
    found: list[tuple[str, bytes | str]] = []
    for event in connection.events:
        what: bytes | str = event.data if event.kind == "data" else event.kind
        before = found[-1] if found else ("", "")
        if (
            before[0] == event.direction
            and isinstance(what, bytes)
            and isinstance(before[1], bytes)
        ):
            what = before[1] + what
            found.pop()
        found.append((event.direction, what))
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.rec"


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {} if request.param == "tcp" else {"path": tmp_path / "proxy.sock"}


@pytest.mark.parametrize("workers", [1, 2])
def test_both_directions_are_recorded_with_their_ends(
    path: Path, address: dict[str, Any], workers: int
) -> None:
    before = datetime.now(UTC)
    with Server() as target:
        service = Forward(*target.address, recording=path)
        with Server(**address, service=service, workers=workers) as proxy:
            with proxy.client(timeout=SOON) as client:
                client.sendall(b"one\n")
                assert client.recv_exactly(4) == b"one\n"
                client.sendall(b"\x00\xff")
                client.shutdown(socket.SHUT_WR)
                assert client.recv_exactly(2) == b"\x00\xff"
                assert client.recv(1) == b""
                own = client.getsockname()
            wait_until(lambda: "rsock-record" in threads().values())
        wait_until(lambda: "rsock-record" not in threads().values())
    recording = Recording.read(path)
    assert recording.transport == ("unix" if address else "tcp")
    assert recording.target == "{}:{}".format(*target.address)
    assert recording.started is not None
    assert timedelta(0) <= recording.started - before < timedelta(seconds=60)
    connection = only(recording)
    assert connection.client.address == own or address
    assert connection.local is not None
    assert connection.local.address == proxy.address
    assert (connection.local.transport, connection.client.transport) == (recording.transport,) * 2
    assert told(connection)[:2] == [("up", b"one\n"), ("down", b"one\n")]
    assert (connection.up, connection.down) == (b"one\n\x00\xff", b"one\n\x00\xff")
    kinds = [(each.direction, each.kind) for each in connection.events if each.kind != "data"]
    assert sorted(kinds) == [("down", "end"), ("up", "end")]
    times = [connection.seconds, *(each.seconds for each in connection.events)]
    assert times == sorted(times)
    assert recording.seconds is not None
    assert times[-1] <= recording.seconds


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_the_address_that_a_client_reached_is_recorded(path: Path, transport: str) -> None:
    with (
        Server(transport=transport) as target,
        Server(
            "::",
            transport=transport,
            allow_external=True,
            service=Forward(*target.address, recording=path),
        ) as proxy,
    ):
        for host in ("127.0.0.1", "::1"):
            with Client(host, proxy.port, transport=transport, timeout=SOON) as client:
                client.send(b"x")
                assert client.recv(10) == b"x"
    locals_ = [connection.local for connection in Recording.read(path).connections]
    assert [local and local.address for local in locals_] == [
        ("127.0.0.1", proxy.port),
        ("::1", proxy.port),
    ]


def test_a_recording_without_the_servers_address_is_read(path: Path) -> None:
    data = (
        b"rsock recording 1\ntransport unix\nstarted 2026-11-28T09:05:00.000001Z\n"
        b'target x:1\n1 0.0 open b""\n2 0.0 open b"" b"/a b"\nstop 1\n'
    )
    older, newer = Recording.parse(data).connections
    assert (older.local, newer.local) == (None, Endpoint("unix", "/a b"))
    assert str(older) == "connection 1 of (unnamed), opened at 0.000000"
    assert str(newer) == "connection 2 of (unnamed) to /a b, opened at 0.000000"


def test_resets_are_recorded(path: Path) -> None:
    with (
        Server() as target,
        Server(service=Forward(*target.address, recording=path)) as proxy,
    ):
        client = proxy.client(timeout=SOON)
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        client.abort()
        proxy.ledger.wait(open=0, timeout=SOON)
    assert told(only(Recording.read(path))) == [("up", b"x"), ("down", b"x"), ("up", "reset")]


def test_a_target_that_cannot_be_reached_is_a_reset_of_the_client(path: Path) -> None:
    with closed_port() as port, Server(service=Forward(*port, recording=path)) as proxy:
        # The reset may come before the connect returns.
        with pytest.raises(ConnectionError), proxy.client(timeout=SOON) as client:
            client.recv(1)
        proxy.ledger.wait(closed=1, timeout=SOON)
    assert told(only(Recording.read(path)))[0] == ("down", "reset")


def test_a_connection_that_a_stop_resets_is_one_in_the_recording(path: Path) -> None:
    with (
        Server(service=Accept()) as target,
        Server(service=Forward(*target.address, recording=path)) as proxy,
        proxy.client(timeout=SOON) as client,
    ):
        client.sendall(b"x")
        conn, _ = target.accept(timeout=SOON)
        with conn:
            assert conn.recv(1) == b"x"
            assert proxy.stop(drain=0).forced == 1
    assert told(only(Recording.read(path))) == [("up", b"x"), ("down", "reset")]


def test_megabytes_are_recorded_whole(path: Path) -> None:
    data = os.urandom(3_000_000)
    with (
        Server(service=Greeting(data)) as target,
        Server(service=Forward(*target.address, recording=path)) as proxy,
        proxy.client(timeout=SOON) as client,
    ):
        assert client.recv_exactly(len(data)) == data
    assert only(Recording.read(path)).down == data


def test_datagrams_are_recorded_one_by_one(path: Path) -> None:
    sent = [b"a", b"", b"\x00" * 40_000, b"my secret"]
    with (
        Server(transport="udp") as target,
        Server(
            transport="udp",
            service=Forward(*target.address, recording=path, redact=rb"s.*t"),
        ) as proxy,
        proxy.client(timeout=SOON) as client,
    ):
        for data in sent:
            client.send(data)
            assert client.recv(65_535) == data
        own = client.getsockname()
    recording = Recording.read(path)
    connection = only(recording)
    assert (recording.transport, connection.client.address) == ("udp", own)
    assert connection.local is not None
    assert (connection.local.transport, connection.local.address) == ("udp", proxy.address)
    expected = [*sent[:-1], b"my [redacted]"]
    assert [each.data for each in connection.events if each.direction == "up"] == expected
    assert [each.data for each in connection.events if each.direction == "down"] == expected
    assert connection.events[-1].any == ((3, 13),)


def test_what_faults_do_is_in_the_recording(path: Path) -> None:
    with (
        Server(service=Greeting(b"hello world")) as target,
        Server(
            service=Forward(*target.address, recording=path),
            faults=[faults.CloseAfter(after_bytes=5)],
        ) as proxy,
        proxy.client(timeout=SOON) as client,
    ):
        assert client.recv_exactly(5) == b"hello"
        assert client.recv(1) == b""
    assert only(Recording.read(path)).down == b"hello"


def test_a_fault_that_is_added_later_leaves_the_recorder_in_its_place(path: Path) -> None:
    with (
        Server() as target,
        Server(service=Forward(*target.address, recording=path)) as proxy,
        proxy.client(timeout=SOON) as client,
    ):
        for data in (b"a", b"b", b"c"):
            client.sendall(data)
            if data == b"b":
                with proxy.fault(faults.Slice(1)):
                    assert client.recv(1) == data
            else:
                assert client.recv(1) == data
    assert only(Recording.read(path)).down == b"abc"


def test_a_secret_never_reaches_the_disk(path: Path) -> None:
    rules: list[Any] = [
        (rb"password=(\w+)", b"***"),
        re.compile(rb"(?P<all>token [q-z]+)", re.IGNORECASE),
    ]
    with (
        Server() as target,
        Server(service=Forward(*target.address, recording=path, redact=rules)) as proxy,
        proxy.client(timeout=SOON) as client,
    ):
        for part in (b"password=hun", b"ter2&to", b"KEN qrs", b"uvw\n"):
            client.sendall(part)
            assert client.recv_exactly(len(part)) == part
            assert b"hun" not in path.read_bytes()
    data = path.read_bytes()
    assert not re.search(rb"hun|ter2|qrs|uvw", data)
    connection = only(Recording.read(path))
    assert connection.up == connection.down == b"password=***&[redacted]\n"
    up = [each for each in connection.events if (each.direction, each.kind) == ("up", "data")]
    assert [each.any for each in up] == [
        ((9, 12),),
        ((0, 0), (1, 11)),
        ((0, 0),),
        ((0, 0),),
    ]


@pytest.mark.parametrize("cut", [True, False])
def test_a_file_that_is_still_written_is_torn(path: Path, cut: bool) -> None:
    with (
        Server() as target,
        Server(service=Forward(*target.address, recording=path)) as proxy,
        proxy.client(timeout=SOON) as client,
    ):
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        wait_until(lambda: b'< b"x"' in path.read_bytes())
        data = path.read_bytes()
        part = data[:-3] if cut else data
        recording = Recording.parse(part)
        assert recording.torn is not None
        start = part.rindex(b"\n") + 1
        assert (recording.torn.line, recording.torn.offset) == (part.count(b"\n") + 1, start)
        assert ("cut" if cut else "no stop line") in recording.torn.what
        assert len(recording.connections[0].events) == 1 + (not cut)
        assert recording.seconds is None


def test_only_the_forwarders_connections_of_by_connection_are_recorded(path: Path) -> None:
    seen: list[bytes] = []
    with Server() as target:
        recorded = Forward(*target.address, recording=path)
        handler = Handler(lambda conn: seen.append(conn.recv(1)))
        service = ByConnection(recorded, Echo(), handler, rest=recorded)
        with Server(service=service) as proxy:
            for number, data in enumerate((b"1", b"2", b"3", b"4"), 1):
                with proxy.client(timeout=SOON) as client:
                    client.sendall(data)
                    assert client.recv(1) == (b"" if number == 3 else data)
    assert seen == [b"3"]
    recording = Recording.read(path)
    assert [(each.number, each.up) for each in recording.connections] == [(1, b"1"), (4, b"4")]


def test_connections_are_told_apart(path: Path) -> None:
    with Server() as target, Server(service=Forward(*target.address, recording=path)) as proxy:
        clients = [proxy.client(timeout=SOON) for _ in range(50)]
        for round_ in range(10):
            for number, client in enumerate(clients):
                client.sendall(b"%d %d\n" % (number, round_))
            for number, client in enumerate(clients):
                assert client.recv_line() == b"%d %d\n" % (number, round_)
        for client in clients:
            client.close()
    recording = Recording.read(path)
    assert len(recording.connections) == 50
    for number, connection in enumerate(recording.connections):
        expected = b"".join(b"%d %d\n" % (number, round_) for round_ in range(10))
        assert connection.up == connection.down == expected


def test_a_server_that_is_made_again_records_again(path: Path) -> None:
    with Server() as target:
        service = Forward(*target.address, recording=path)
        for data in (b"first", b"2"):
            with Server(service=service) as proxy, proxy.client(timeout=SOON) as client:
                client.sendall(data)
                assert client.recv_exactly(len(data)) == data
            assert only(Recording.read(path)).up == data


def test_connections_behind_a_reset_have_numbers_of_their_own(path: Path) -> None:
    with Server() as target, Server(service=Forward(*target.address, recording=path)) as proxy:
        for data in (b"1", b"2"):
            with proxy.client(timeout=SOON) as client:
                client.sendall(data)
                assert client.recv(1) == data
            proxy.reset()
    recording = Recording.read(path)
    assert [(each.number, each.up) for each in recording.connections] == [(1, b"1"), (2, b"2")]


def test_a_path_that_cannot_be_recorded_to_is_an_error_of_the_start(tmp_path: Path) -> None:
    text = tmp_path / "program.py"
    text.write_text("import os\n")
    for path, error, words in [
        (tmp_path / "none" / "x.rec", FileNotFoundError, "open"),
        (tmp_path, IsADirectoryError, "open"),
        (text, FileExistsError, "no recording"),
        (Path("/dev/full"), OSError, "No space left"),
    ]:
        server = Server(service=Forward("127.0.0.1", 9, recording=path))
        with pytest.raises(error, match=words) as raised:
            server.start()
        assert raised.value.filename == str(path)
        assert server.state == "new"
    assert text.read_text() == "import os\n"


def test_two_servers_cannot_record_to_one_file(path: Path) -> None:
    service = Forward("127.0.0.1", 9, recording=path)
    with Server(service=service):
        with pytest.raises(OSError, match="another server") as raised:
            Server(service=service).start()
        assert raised.value.filename == str(path)
    with Server(service=service):
        pass


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"recording": 7}, TypeError, "recording must be a path"),
        ({"recording": ""}, ValueError, "recording ''"),
        ({"recording": "a\0b"}, ValueError, "NUL"),
        ({"redact": rb"a"}, TypeError, "recording="),
        ({"recording": "x", "redact": "text"}, TypeError, "redact must be a pattern of bytes"),
        ({"recording": "x", "redact": re.compile("text")}, TypeError, "pattern of bytes"),
        ({"recording": "x", "redact": [b"a", 7]}, TypeError, "not int: 7"),
        ({"recording": "x", "redact": [(b"a", "b")]}, TypeError, "not tuple"),
        ({"recording": "x", "redact": b"("}, ValueError, r'pattern "\(": unclosed group'),
        ({"recording": "x", "redact": rb"a(?=b)"}, ValueError, "look-around"),
        ({"recording": "x", "redact": (b"a", b"b" * 2_000)}, ValueError, "replacement"),
        ({"recording": "x", "redact": re.compile(rb"a", re.LOCALE)}, ValueError, "LOCALE"),
    ],
)
def test_wrong_arguments_are_named(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Forward("127.0.0.1", 9, **options)


def test_the_flags_of_a_compiled_pattern_hold(path: Path) -> None:
    rules = [
        re.compile(rb"^b.$", re.MULTILINE),
        re.compile(rb"x.y", re.DOTALL),
        re.compile(rb"q w  # not the space", re.VERBOSE),
        re.compile(b"\xff\\\xfe"),
    ]
    with (
        Server() as target,
        Server(service=Forward(*target.address, recording=path, redact=rules)) as proxy,
        proxy.client(timeout=SOON) as client,
    ):
        data = b"b1\nab1 x\ny qw q w\n\xff\xfe."
        client.sendall(data)
        assert client.recv_exactly(len(data)) == data
    r = b"[redacted]"
    assert only(Recording.read(path)).up == r + b"\nab1 " + r + b" " + r + b" q w\n" + r + b"."


def test_a_full_disk_ends_the_recording_and_not_the_connections(path: Path) -> None:
    """RLIMIT_FSIZE is a disk that is full for one process."""
    script = f"""
        import resource
        from rsock import Forward, Server
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        target = Server().start()
        server = Server(service=Forward(*target.address, recording={str(path)!r}))
        server.start()
        with server.client(timeout=20) as client:
            for _ in range(100):
                client.sendall(b"x" * 5_000)
                assert client.recv_exactly(5_000) == b"x" * 5_000
        try:
            server.stop()
        except OSError as error:
            print(error.errno, error.filename, error.strerror)
        print(server.stop().errors, server.state)
    """
    result = run_script(textwrap.dedent(script))
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"27 {path} write"), result
    assert lines[1:] == ["1 stopped"], result
    recording = Recording.read(path)
    assert recording.torn is not None
    assert recording.connections[0].up.startswith(b"x" * 5_000)


def test_the_end_of_with_raises_what_went_wrong(path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with Server() as target:
        with pytest.raises(BrokenPipeError) as raised:
            with Server(service=Forward(*target.address, recording=path)) as proxy:
                os.close(reader)
                with proxy.client(timeout=SOON) as client:
                    client.sendall(b"x")
                    assert client.recv(1) == b"x"
        assert raised.value.filename == str(path)
        # What the body raises is more important.
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(ZeroDivisionError) as other:
            with Server(service=Forward(*target.address, recording=path)) as proxy:
                os.close(reader)
                with proxy.client(timeout=SOON) as client:
                    client.sendall(b"x")
                    assert client.recv(1) == b"x"
                    raise ZeroDivisionError
        assert any("Broken pipe" in note for note in other.value.__notes__)


def test_a_slow_reader_of_a_pipe_slows_the_connections_down(path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    size = 8_000_000
    with (
        Server(service=Greeting(b"x" * size)) as target,
        Server(service=Forward(*target.address, recording=path)) as proxy,
        proxy.client(timeout=SOON) as client,
    ):
        received = 0
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while True:
                received += len(client.recv(65_536))
        # The queue, the pipe and the buffers of the sockets.
        assert 0 < received < size - 1_000_000
        client.settimeout(SOON)
        os.set_blocking(reader, True)
        with open(reader, "rb") as file:
            text = b""
            client.setblocking(False)
            while received < size:
                text += file.read1(1_000_000)
                with contextlib.suppress(BlockingIOError):
                    received += len(client.recv(1_000_000))
            client.close()
            proxy._begin_stop("stop")
            while more := file.read1(1_000_000):
                text += more
            assert proxy.stop().errors == 0
    assert len(only(Recording.parse(text)).down) == size


def test_the_program_may_close_the_descriptor_of_the_file(path: Path, tmp_path: Path) -> None:
    with Server() as target:
        with pytest.raises(OSError, match="Bad file descriptor"):
            with Server(service=Forward(*target.address, recording=path)) as proxy:
                links = {
                    int(number): os.readlink(f"/proc/self/fd/{number}")
                    for number in os.listdir("/proc/self/fd")
                    if os.path.exists(f"/proc/self/fd/{number}")
                }
                [number] = [number for number, link in links.items() if link == str(path)]
                other = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
                os.dup2(other, number)
                with proxy.client(timeout=SOON) as client:
                    client.sendall(b"x")
                    assert client.recv(1) == b"x"
        # The other file is neither written nor closed.
        assert os.fstat(number).st_size == 0
        os.close(number)
        os.close(other)


def test_a_forked_child_has_no_copy_of_the_file(path: Path) -> None:
    script = f"""
        import os, warnings
        from rsock import Forward, Server, Recording
        warnings.simplefilter("ignore")
        target = Server().start()
        def opened():
            names = [f"/proc/self/fd/{{number}}" for number in os.listdir("/proc/self/fd")]
            return sum(os.readlink(name) == {str(path)!r} for name in names if os.path.exists(name))
        with Server(service=Forward(*target.address, recording={str(path)!r})) as proxy:
            with proxy.client(timeout=20) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
                print(opened(), flush=True)
                child = os.fork()
                if not child:
                    print(opened(), flush=True)
                    os._exit(0)
                os.waitpid(child, 0)
                client.sendall(b"y")
                assert client.recv(1) == b"y"
        print(Recording.read({str(path)!r}).connections[0].up)
        target.stop()
    """
    assert output_of(textwrap.dedent(script)).split() == ["1", "0", "b'xy'"]


def test_a_process_that_is_killed_leaves_what_it_has_recorded(path: Path) -> None:
    script = f"""
        import os, signal
        from rsock import Forward, Server
        target = Server().start()
        proxy = Server(service=Forward(*target.address, recording={str(path)!r})).start()
        client = proxy.client(timeout=20)
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        while b"<" not in open({str(path)!r}, "rb").read():
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_script(textwrap.dedent(script)).returncode == -9
    recording = Recording.read(path)
    assert recording.torn is not None
    assert told(recording.connections[0]) == [("up", b"x"), ("down", b"x")]


def test_a_recording_that_was_never_stopped_ends_with_the_program(path: Path) -> None:
    script = f"""
        from rsock import Forward, Server
        target = Server().start()
        proxy = Server(service=Forward(*target.address, recording={str(path)!r})).start()
        client = proxy.client(timeout=20)
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    """
    output_of(textwrap.dedent(script))
    assert only(Recording.read(path)).up == b"x"


def test_what_a_recording_shows() -> None:
    text = (
        b"rsock recording 1\ntransport tcp\nstarted 2026-11-28T09:05:00.000001Z\n"
        b"target 127.0.0.1:6379\n1 0.000000 open 127.0.0.1:53422\n"
        b'1 0.000123 > b"AUTH " any b"[redacted]" b"\\r\\nPING\\r\\n"\n'
        b'1 0.000345 < b"\\x00\\x01\\x02\\x03A"\n1 0.1 > end\n1 0.1001 < reset\nstop 2\n'
    )
    recording = Recording.parse(text)
    assert repr(recording) == "<Recording of 127.0.0.1:6379 by tcp: 1 connection>"
    assert str(recording).splitlines() == [
        "recording of 127.0.0.1:6379 by tcp, started 2026-11-28 09:05:00 UTC",
        "",
        "connection 1 of 127.0.0.1:53422, opened at 0.000000",
        r"    0.000123 > AUTH [redacted]\r\n",
        r"               PING\r\n",
        "    0.000345 < 00000000  00 01 02 03 41                                   ....A",
        "    0.100000 > end",
        "    0.100100 < reset",
    ]
    event = RecordedEvent(0.000123, "up", "data", b"AUTH [redacted]\r\nPING\r\n", ((5, 15),))
    assert recording.connections[0].events[0] == event
    torn = Recording.parse(text[:-2])
    assert repr(torn).endswith("1 connection, torn>")
    assert str(torn).endswith('cut at line 10, byte 272: a line that is cut: "stop 2"') or torn.torn


def test_what_is_no_recording_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.rec"
    path.write_text("rsock recording 9\n")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}, line 1: version 9"):
        Recording.read(path)
    with pytest.raises(FileNotFoundError) as raised:
        Recording.read(os.fsencode(tmp_path / "none"))
    assert raised.value.filename == str(tmp_path / "none")
    with pytest.raises(ValueError, match="recording, line 1"):
        Recording.parse(b"hello\n")
    with pytest.raises(TypeError, match="path must be a path"):
        Recording.read(7)  # type: ignore[arg-type]

"""A recording becomes a packet capture, which tshark and tcpdump read without a complaint."""

from __future__ import annotations

import errno
import os
import socket
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support import SOON, output_of
from support.captures import assert_flawless, fields, followed, needs_tools

from rsock import Forward, RecordedConnection, Recording, Server

HEAD = """\
rsock recording 1
transport {}
started 2026-11-28T09:05:00.250000Z
target redis.example:6379
"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "x.pcapng"


def parsed(*lines: str, transport: str = "tcp") -> Recording:
    text = HEAD.format(transport) + "\n".join(lines) + "\nstop 9.000000\n"
    return Recording.parse(text.encode())


def joined(parts: list[tuple[str, bytes]], direction: str) -> bytes:
    return b"".join(data for side, data in parts if side == direction)


def recorded(tmp_path: Path, data: bytes, **options: Any) -> Recording:
    """A real dialogue: the client says something, and gets it back, twice."""
    path = tmp_path / "x.rec"
    with (
        Server() as target,
        Server(service=Forward(*target.address, recording=path), **options) as proxy,
        proxy.client(timeout=SOON) as client,
    ):
        for part in (data, b"bye\n"):
            client.sendall(part)
            assert client.recv_exactly(len(part)) == part
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    return Recording.read(path)


def only(recording: Recording) -> RecordedConnection:
    [connection] = recording.connections
    return connection


@needs_tools
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_stream_is_followed_as_it_was_recorded(tmp_path: Path, out: Path, host: str) -> None:
    data = os.urandom(200_001)
    recording = recorded(tmp_path, data, host=host)
    recording.write_pcapng(out)
    connection = only(recording)
    ends, parts = followed(out)
    address = connection.client.address
    assert isinstance(address, tuple)
    assert ends == [str(connection.client), str(connection.local)]
    assert joined(parts, "up") == joined(parts, "down") == data + b"bye\n"
    # In the order and in the pieces of the recording.
    sides = [event.direction for event in connection.events if event.kind == "data"]
    assert [side for side, _ in parts] == [
        event.direction
        for event in connection.events
        for _ in range(0, len(event.data), 1460 if host == "127.0.0.1" else 1440)
    ]
    pushed = fields(out, "tcp.srcport", where="tcp.flags.push == 1")
    assert [port == [str(address[1])] for port in pushed] == [side == "up" for side in sides]
    assert_flawless(out)


@needs_tools
def test_times_and_ends_are_those_of_the_recording(tmp_path: Path, out: Path) -> None:
    recording = recorded(tmp_path, b"hello\n")
    recording.write_pcapng(out)
    connection = only(recording)
    started = recording.started
    assert started is not None

    def epoch(seconds: float) -> str:
        at = started + timedelta(seconds=seconds)
        return f"{int(at.timestamp())}.{at.microsecond:06d}000"

    [syn] = fields(out, "frame.time_epoch", "frame.comment", where="tcp.flags == 2")
    assert syn == [epoch(connection.seconds), "connection 1 of the recording"]
    fins = fields(out, "frame.time_epoch", "tcp.srcport", where="tcp.flags.fin == 1")
    ports = {"up": connection.client.port, "down": connection.local and connection.local.port}
    assert fins == [
        [epoch(event.seconds), str(ports[event.direction])]
        for event in connection.events
        if event.kind == "end"
    ]
    assert len(fins) == 2
    data = fields(out, "frame.time_epoch", where="tcp.len > 0")
    assert data == [[epoch(each.seconds)] for each in connection.events if each.kind == "data"]


@needs_tools
def test_a_unix_connection_has_made_up_addresses_and_says_so(tmp_path: Path, out: Path) -> None:
    recording = recorded(tmp_path, b"hello\n", path=tmp_path / "proxy.sock")
    recording.write_pcapng(out)
    ends, parts = followed(out)
    target = recording.target.rpartition(":")[2]
    assert ends == ["127.0.0.1:49152", f"127.0.0.1:{target}"]
    assert joined(parts, "up") == joined(parts, "down") == b"hello\nbye\n"
    [[comment]] = fields(out, "frame.comment", where="tcp.flags == 2")
    assert f"to {tmp_path}/proxy.sock by Unix sockets; addresses and ports are made up" in comment
    assert_flawless(out)


@needs_tools
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_each_datagram_is_a_packet(tmp_path: Path, out: Path, host: str) -> None:
    path = tmp_path / "x.rec"
    sent = [b"a", b"", os.urandom(40_001), b"bc"]
    with (
        Server(transport="udp") as target,
        Server(
            host=host, transport="udp", service=Forward(*target.address, recording=path)
        ) as proxy,
        proxy.client(timeout=SOON) as client,
    ):
        for data in sent:
            client.send(data)
            assert client.recv(65_535) == data
    recording = Recording.read(path)
    recording.write_pcapng(out)
    connection = only(recording)
    assert connection.local is not None
    port = str(connection.client.port)
    seen = fields(out, "udp.srcport", "udp.dstport", "udp.payload")
    assert [bytes.fromhex(payload) for source, _, payload in seen if source == port] == sent
    assert [bytes.fromhex(payload) for _, target, payload in seen if target == port] == sent
    assert {*seen[0][:2]} == {port, str(connection.local.port)}
    assert_flawless(out)


@needs_tools
def test_a_reset_is_one_of_the_side_that_it_came_from(out: Path) -> None:
    recording = parsed(
        "1 0.1 open 192.0.2.1:50001 192.0.2.9:7",
        '1 0.2 > b"a"',
        "1 0.3 > reset",
        "2 0.1 open [2001:db8::1]:50001 [2001:db8::9]:7",
        '2 0.2 > b"a"',
        "2 0.2 > end",
        "2 0.3 < reset",
    )
    recording.write_pcapng(out)
    rows = fields(out, "tcp.stream", "tcp.srcport", where="tcp.flags.reset == 1")
    assert sorted(rows) == [["0", "50001"], ["1", "7"]]
    assert_flawless(out)


@needs_tools
def test_connections_are_in_the_order_of_time_and_told_apart(out: Path) -> None:
    # Also those from the same port, one after the other.
    lines = [f"{n} 0.{n} open 127.0.0.1:5000 127.0.0.1:7" for n in (1, 2, 3)]
    lines += [f'{n} 0.{n}5 {sign} b"{sign}{n}"' for n in (1, 2, 3) for sign in "><"]
    lines += [f"{n} 0.{n}6 {sign} end" for n in (1, 2, 3) for sign in "><"]
    parsed(*lines).write_pcapng(out)
    for n in (1, 2, 3):
        assert followed(out, n - 1)[1] == [("up", b">%d" % n), ("down", b"<%d" % n)]
    times = [float(time) for [time] in fields(out, "frame.time_epoch")]
    assert times == sorted(times)


@needs_tools
def test_what_is_redacted_is_said(out: Path) -> None:
    recording = parsed(
        "1 0.1 open 127.0.0.1:50001 127.0.0.1:7",
        '1 0.2 > b"AUTH " any b"[redacted]" b"\\r\\n" any b""',
        '1 0.3 > b"x" any b"' + "y" * 2000 + '" b"z"',
        '1 0.4 > any b""',
        '1 0.5 < b"ok"',
    )
    recording.write_pcapng(out)
    assert joined(followed(out)[1], "up") == recording.connections[0].up
    comments = [row[0] for row in fields(out, "frame.comment", where="tcp.len > 0")]
    start = "redacted, a mark is in place of what crossed: "
    assert comments == [
        f"{start}bytes 5 to 15, at byte 17",
        f"{start}bytes 1 to 1460",
        f"{start}bytes 0 to 541",
        "",
    ]
    assert_flawless(out)


@needs_tools
def test_a_datagram_that_no_packet_can_have_is_cut_and_says_so(out: Path) -> None:
    recording = parsed(
        "1 0.1 open 127.0.0.1:50001 127.0.0.1:9",
        f'1 0.2 > b"{"a" * 65_507}"',
        f'1 0.3 > b"{"a" * 65_508}"',
        "1 0.4 < reset",
        transport="udp",
    )
    recording.write_pcapng(out)
    rows = fields(out, "udp.length", "frame.comment")
    assert [row[0] for row in rows] == ["65515", "65515"]
    assert rows[0][1] == "connection 1 of the recording"
    assert rows[1][1] == "cut: 65508 bytes are more than a datagram has"
    assert_flawless(out)


@needs_tools
@pytest.mark.parametrize(
    ("client", "port"), [("127.0.0.1:5", 6379), ("[::1]:5", 6379), ("127.0.0.1:6379", 49_151)]
)
def test_a_server_that_an_older_recording_does_not_name_has_the_port_of_the_target(
    out: Path, client: str, port: int
) -> None:
    recording = parsed(f"1 0.1 open {client}", '1 0.2 > b"PING"')
    assert recording.connections[0].local is None
    recording.write_pcapng(out)
    ends, parts = followed(out)
    host = client.rpartition(":")[0]
    assert (ends[1], parts) == (f"{host}:{port}", [("up", b"PING")])
    [[comment]] = fields(out, "frame.comment", where="tcp.flags == 2")
    assert "does not say the server's address" in comment


def test_the_file_says_that_its_headers_are_synthesised(out: Path) -> None:
    recording = parsed("1 0.1 open 127.0.0.1:5")
    recording.write_pcapng(out)
    data = out.read_bytes()
    assert b"The headers of IP, TCP and UDP are synthesised" in data
    assert b"A recording of redis.example:6379 by tcp." in data
    torn = Recording.parse(HEAD.format("tcp").encode() + b'1 0.1 > b"')
    torn.write_pcapng(out)
    assert b"The recording is cut at line 5" in out.read_bytes()


def test_only_an_older_capture_is_replaced(tmp_path: Path, out: Path) -> None:
    recording = parsed("1 0.1 open 127.0.0.1:5")
    path = tmp_path / "x.rec"
    path.write_text("rsock recording 1\n")
    with pytest.raises(FileExistsError, match="another kind") as raised:
        recording.write_pcapng(path)
    assert raised.value.filename == str(path)
    assert path.read_text() == "rsock recording 1\n"
    out.touch()
    recording.write_pcapng(out)
    first = out.read_bytes()
    parsed("1 0.1 open 127.0.0.1:5", '1 0.2 > b"more"').write_pcapng(os.fsencode(out))
    assert len(out.read_bytes()) > len(first)
    recording.write_pcapng(out)
    assert out.read_bytes() == first


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    recording = parsed("1 0.1 open 127.0.0.1:5")
    for path, number in [
        (tmp_path / "none" / "x.pcapng", errno.ENOENT),
        (tmp_path, errno.EISDIR),
        (Path("/dev/full"), errno.ENOSPC),
    ]:
        with pytest.raises(OSError, match=os.strerror(number)) as raised:
            recording.write_pcapng(path)
        assert (raised.value.errno, raised.value.filename) == (number, str(path))


def test_the_number_of_a_descriptor_is_no_path(tmp_path: Path) -> None:
    recording = parsed("1 0.1 open 127.0.0.1:5")
    with (tmp_path / "file").open("wb") as file:
        number: Any = file.fileno()
        with pytest.raises(TypeError, match=f"path must be a path: .*, not int: {number}"):
            recording.write_pcapng(number)
        # Neither written nor closed.
        file.write(b"mine")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_large_file_is_written_with_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.rec"
    chunk = "x" * 65_000
    with path.open("w") as file:
        file.write(HEAD.format("tcp") + "1 0 open 127.0.0.1:5 127.0.0.1:7\n")
        # A few lines are late, as behind a redaction.
        for at in range(1_600):
            file.write(f'1 {at - at % 7}.0 {"><"[at % 3 == 0]} b"{chunk}"\n')
        file.write("stop 2000\n")
    assert path.stat().st_size > 100_000_000
    script = """
        import resource, sys
        from rsock._recording import write_pcapng_of

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        with open("/dev/null", "wb") as file:
            write_pcapng_of(sys.argv[1], file, 1)
            before = peak()
            write_pcapng_of(sys.argv[2], file, 1)
        print(peak() - before)
    """
    small = tmp_path / "small.rec"
    small.write_text(
        HEAD.format("tcp") + f'1 0 open 127.0.0.1:5\n1 0 > b"{chunk}"\n1 0 < b"{chunk}"\nstop 2\n'
    )
    kib = int(output_of(textwrap.dedent(script), str(small), str(path)))
    assert kib < 16 * 1024, f"{kib} KiB"

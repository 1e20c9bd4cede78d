"""Bytes and ends of Unix streams: what differs from TCP, and what must not.

The other side is a plain `socket.socket`, or socat.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    Arrivals,
    Background,
    Signal,
    dial_path,
    error_number,
    exchange,
    fds,
    leave_stale,
    output_of,
    payload,
    read_to_end,
    says_back,
    wait_until,
)

from rsock import (
    Accept,
    Client,
    Connection,
    Discard,
    Limits,
    Server,
    SocketOptions,
    StateError,
)

LONG = 10.0


# --- bytes ---------------------------------------------------------------------------------


def test_nothing_is_lost_cut_or_doubled(path: str) -> None:
    data = payload(3_000_001)
    with Server(path=path) as server:
        with dial_path(path) as peer:
            assert exchange(peer, data) == data
        with server.client(timeout=LONG) as client:
            assert exchange(client, data) == data
        records = server.ledger.wait(open=0, closed=2, timeout=LONG)
    assert [record.closed_by for record in records] == ["peer", "peer"]
    assert {record.bytes_in for record in records} == {len(data)}
    assert {record.bytes_out for record in records} == {len(data)}


@pytest.mark.skipif(shutil.which("socat") is None, reason="no socat")
def test_socat_is_a_peer_like_any_other(path: str) -> None:
    data = payload(2_000_000, seed=7)
    with Server(path=path) as server:
        done = subprocess.run(
            ["socat", "-t", "10", "-", f"UNIX-CONNECT:{path}"],
            input=data,
            capture_output=True,
            timeout=LONG * 3,
            check=True,
        )
        assert (done.stdout, done.stderr) == (data, b"")
        [record] = server.ledger.wait(open=0, closed=1, timeout=LONG)
    assert (record.closed_by, record.bytes_in, record.bytes_out) == ("peer", len(data), len(data))


@pytest.mark.skipif(shutil.which("socat") is None, reason="no socat")
@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_a_client_talks_to_socat(directory: Path, path: str, kind: str) -> None:
    name = path if kind == "file" else f"\0rsock-socat-{os.getpid()}"
    where = f"UNIX-LISTEN:{path}" if kind == "file" else f"ABSTRACT-LISTEN:{name[1:]}"
    listening = subprocess.Popen(["socat", where, "EXEC:cat"], stderr=subprocess.PIPE)
    try:
        data = payload(300_000)
        client = Client(transport="unix", timeout=LONG)
        wait_until(lambda: client.connect_ex(name) == 0, LONG, "socat listens")
        with client:
            assert exchange(client, data) == data
        assert listening.wait(LONG) == 0
    finally:
        listening.kill()
        listening.communicate()


def test_messages_with_descriptors_do_not_hold_up_what_follows(path: str) -> None:
    """A read of a Unix socket ends after each such message, and no event reports what is left."""
    server = Server(path=path, service=Discard()).listen()
    with dial_path(path) as peer:
        for _ in range(20):
            socket.send_fds(peer, [b"ab"], [peer.fileno()])
        before = fds()
        server.start()
        server.ledger.wait(open=1, timeout=LONG)
        [record] = server.ledger
        wait_until(lambda: record.bytes_in == 40, LONG, "all of them are read")
        taken = [link for link in fds() - before if link.startswith("socket:") and link in before]
        assert not taken, "the passed descriptors were not received"
    server.stop()


def test_descriptors_are_passed_both_ways(path: str) -> None:
    with Server(path=path, service=Accept()) as server, server.client(timeout=LONG) as client:
        conn, _ = server.accept(LONG)
        read, write = os.pipe()
        with conn:
            for giver, taker in ((client, conn), (conn, client)):
                socket.send_fds(giver, [b"take it"], [write])  # type: ignore[arg-type]
                data, passed, _, _ = socket.recv_fds(taker, 100, 1)  # type: ignore[arg-type]
                assert data == b"take it"
                os.write(passed[0], b"x")
                os.close(passed[0])
                assert os.read(read, 1) == b"x"
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("size", [9, 1 << 20], ids=["short", "long"])
def test_a_receive_of_all_ends_behind_descriptors_and_loses_none(size: int) -> None:
    room = socket.CMSG_SPACE(4)

    def received(stream: Any, peer: socket.socket) -> list[tuple[bytes, int]]:
        read, write = os.pipe()
        socket.send_fds(peer, [b"abc"], [write])
        peer.sendall(b"def")
        socket.send_fds(peer, [b"ghi"], [write])
        peer.shutdown(socket.SHUT_WR)
        os.close(write)
        got = []
        for _ in range(3):
            data, control, _, _ = stream.recvmsg(size, room, socket.MSG_WAITALL)
            passed = [int.from_bytes(each, sys.byteorder) for _, _, each in control]
            got.append((data, len(passed)))
            for number in passed:
                os.close(number)
        # The end: the other end of the pipe is closed everywhere.
        assert os.read(read, 1) == b""
        os.close(read)
        return got

    plain, other = socket.socketpair()
    with plain, other:
        expected = received(plain, other)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(b"\0" + os.urandom(8).hex().encode())
        listening.listen()
        with Client(path=listening.getsockname(), timeout=LONG) as client:
            peer, _ = listening.accept()
            with peer:
                assert received(client, peer) == expected
    assert expected == [(b"abc", 1), (b"defghi", 1), (b"", 0)]


@pytest.mark.parametrize("limit", [None, 4096], ids=["default", "small"])
def test_accepted_connections_have_the_buffers_that_were_asked_for(
    path: str, limit: int | None
) -> None:
    """They do not inherit their listener's buffers."""
    options = SocketOptions(send_buffer=limit)
    with Server(path=path, service=Accept(), options=options) as server:
        with server.client() as client:
            conn, _ = server.accept(LONG)
            with conn:
                size = conn.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
                plain = client.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
                assert isinstance(size, int)
                assert (size == plain) == (limit is None)
                assert limit is None or size <= 4 * limit
        with Client(path=path, options=options) as client:
            size = client.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            assert isinstance(size, int)
            assert (size == plain) == (limit is None)


# --- ends ----------------------------------------------------------------------------------


def test_a_peer_that_leaves_bytes_unread_has_reset_it(path: str) -> None:
    with Server(path=path) as server:
        with dial_path(path) as peer:
            peer.sendall(b"hello")
            wait_until(lambda: peer.recv(5, socket.MSG_PEEK) == b"hello", LONG)
        [record] = server.ledger.wait(open=0, closed=1, timeout=LONG)
        assert (record.closed_by, record.bytes_out) == ("reset", 5)
    with Server(path=path, service=Accept()) as server, dial_path(path) as peer:
        conn, _ = server.accept(LONG)
        conn.sendall(b"unread")
        peer.close()
        with conn, pytest.raises(ConnectionResetError, match=f"recv {path}: Connection reset"):
            conn.recv(1)
        assert conn.record.closed_by == "reset"


@pytest.mark.parametrize("unread", [True, False], ids=["unread", "read"])
def test_an_abort_is_a_reset_where_bytes_were_left_unread(path: str, unread: bool) -> None:
    """The kernel has no other signal for an abort; what was sent stays sent."""
    with Server(path=path, service=Accept()) as server, dial_path(path) as peer:
        conn, _ = server.accept(LONG)
        conn.sendall(b"last words")
        if unread:
            peer.sendall(b"never read")
        conn.abort()
        assert peer.recv(10) == b"last words"
        if unread:
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        else:
            assert peer.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            peer.sendall(b"x")


def test_half_a_close_leaves_the_other_half(path: str) -> None:
    def answer_at_the_end(conn: Connection) -> None:
        data = read_to_end(conn)
        conn.sendall(data[::-1])

    with Server(path=path, service=answer_at_the_end) as server:
        with server.client(timeout=LONG) as client:
            client.sendall(b"abc")
            client.shutdown(socket.SHUT_WR)
            assert read_to_end(client) == b"cba"
        [record] = server.ledger.wait(open=0, closed=1, timeout=LONG)
    assert record.closed_by == "peer"


@pytest.mark.parametrize("adopted", [False, True], ids=["own", "adopted"])
def test_who_waits_in_the_queue_at_the_stop_is_served(path: str, adopted: bool) -> None:
    """All that are queued at the time, though a Unix listener has no TCP_INFO to count them."""
    number = None
    if adopted:
        with socket.socket(socket.AF_UNIX) as plain:
            plain.bind(path)
            plain.listen()
            number = plain.detach()
    where: dict[str, Any] = {"path": path} if number is None else {"fd": number}
    limits = Limits(connections=1)
    server = Server(**where, limits=limits, drain=LONG).start()
    first = dial_path(path)
    assert says_back(first)
    queued = [dial_path(path) for _ in range(20)]
    for number, peer in enumerate(queued):
        peer.sendall(b"%02d" % number)
    wait_until(lambda: server.waiting == 20, LONG, "they wait")
    # The limit holds, so the server leaves all but the first to the kernel, which resets them.
    report = server.stop()
    assert first.recv(1) == b""
    assert report.forced == 0
    for peer in queued:
        with pytest.raises(ConnectionResetError):
            assert peer.recv(2) == b""
    for peer in (first, *queued):
        peer.close()
    if adopted:
        os.unlink(path)


def test_a_stop_takes_the_queue_along(path: str) -> None:
    server = Server(path=path, drain=LONG).listen()
    queued = [dial_path(path) for _ in range(50)]
    for number, peer in enumerate(queued):
        peer.sendall(b"%02d" % number)
    assert server.waiting == 50
    stopping = threading.Thread(target=server.stop)
    server.start()
    stopping.start()
    for number, peer in enumerate(queued):
        assert read_to_end(peer) == b"%02d" % number
        peer.close()
    stopping.join(LONG)
    report = server.stop()
    assert (report.forced, server.ledger.totals.closed) == (0, 50)


def test_accept_leaves_the_queue_to_be_reset(path: str) -> None:
    server = Server(path=path, service=Accept()).start()
    queued = [dial_path(path) for _ in range(3)]
    conn, address = server.accept(LONG)
    assert (address, server.waiting) == ("", 2)
    with conn:
        waiting = Background(server.stop)
        report = waiting.result(LONG)
    assert report.forced == 2
    assert queued[0].recv(1) == b""
    for peer in queued[1:]:
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
    for peer in queued:
        peer.close()
    with pytest.raises(StateError):
        server.accept(0)


def test_unread_input_is_no_clean_end(path: str) -> None:
    """In a process that has not forked: one that has shuts a socket down before every close."""
    code = """
import socket, sys, threading
from rsock import Accept, Server
for _ in range(20):
    server = Server(path=sys.argv[1], service=Accept()).start()
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(sys.argv[1])
    conn, _ = server.accept()
    peer.sendall(b"never read")
    ends = []
    def read():
        try:
            ends.append(peer.recv(1))
        except OSError as error:
            ends.append(type(error))
    reading = threading.Thread(target=read)
    reading.start()
    assert server.stop().forced == 1
    reading.join()
    assert ends == [ConnectionResetError], ends
    assert conn.record.closed_by == "stop"
    peer.close()
"""
    assert output_of(code, path) == ""


def test_handlers_see_the_end_as_on_tcp(path: str) -> None:
    arrivals = Arrivals()
    seen: list[tuple[bytes, bool]] = []

    def wait_for_more(conn: Connection) -> None:
        arrivals.here()
        first = conn.recv(100)
        seen.append((first, conn.draining))
        if first:
            arrivals.here()
            seen.append((conn.recv(100), conn.draining))
            conn.sendall(b"bye")

    with Server(path=path, service=wait_for_more, drain=LONG) as server:
        with dial_path(path) as spoken, dial_path(path) as silent, dial_path(path) as late:
            spoken.sendall(b"hello")
            arrivals.until(4)
            stopping = Background(server.stop)
            # At once, because the server has received from it.
            assert read_to_end(spoken) == b"bye"
            # The server has received nothing yet and waits for a quarter of a second.
            late.sendall(b"in time")
            assert read_to_end(late) == b"bye"
            assert read_to_end(silent) == b""
            report = stopping.result(LONG)
    assert report.forced == report.abandoned == 0
    assert sorted(seen) == sorted(
        [(b"hello", False), (b"", True), (b"in time", True), (b"", True), (b"", True)]
    )


def test_idle_connections_end_at_once(path: str) -> None:
    server = Server(path=path, drain=LONG).start()
    peers = [dial_path(path) for _ in range(20)]
    for peer in peers:
        assert says_back(peer)
    report = server.stop()
    assert (report.drained, report.forced) == (20, 0)
    assert report.seconds < 1
    for peer in peers:
        assert peer.recv(1) == b""
        peer.close()


@pytest.mark.parametrize("overflow", ["wait", "refuse"])
def test_the_limit_of_connections_holds(path: str, overflow: Any) -> None:
    with Server(path=path, limits=Limits(connections=1, overflow=overflow)) as server:
        with dial_path(path) as first, dial_path(path) as second:
            assert says_back(first)
            if overflow == "refuse":
                assert second.recv(1) == b""
                assert server.ledger.totals.refused == 1
            else:
                wait_until(lambda: server.waiting == 1, LONG)
                first.close()
                assert says_back(second)


# --- a full queue --------------------------------------------------------------------------


@pytest.fixture
def full(path: str) -> Iterator[socket.socket]:
    """A listener at `path` whose queue is full; on Linux poll(2) cannot wait for room in it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(0)
        peers = [dial_path(path)]
        try:
            yield listening
        finally:
            for peer in peers:
                peer.close()
            os.unlink(path)


def test_a_connect_waits_for_room_in_the_queue(full: socket.socket, path: str) -> None:
    with Client(transport="unix", timeout=0.2) as client:
        with pytest.raises(TimeoutError, match=f"connect {path}: timed out"):
            client.connect(path)
        client.settimeout(0)
        with pytest.raises(BlockingIOError):
            client.connect(path)
        assert client.connect_ex(path) == 11
        client.settimeout(LONG)
        connecting = Background(client.connect, path)
        wait_until(connecting.asleep, LONG, "it waits")
        taken, _ = full.accept()
        connecting.result(LONG)
        taken.close()
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == bytes(16)
        conn, _ = full.accept()
        with conn:
            client.sendall(b"x")
            assert conn.recv(1) == b"x"


def test_no_time_out_is_so_short_that_it_is_none(full: socket.socket, path: str) -> None:
    def connect() -> None:
        for tenths in range(2000):
            with Client(transport="unix", timeout=(1 + tenths % 100) * 1e-7) as client:
                with pytest.raises(TimeoutError):
                    client.connect(path)

    # One without a time limit would not return at all.
    Background(connect).result(6 * LONG)


def test_a_connect_that_waits_ends_with_its_client(full: socket.socket, path: str) -> None:
    client = Client(transport="unix")
    connecting = Background(client.connect, path)
    wait_until(connecting.asleep, LONG, "it waits")
    client.close()
    with pytest.raises(OSError, match="closed") as caught:
        connecting.result(LONG)
    assert caught.value.errno == 9


def test_ctrl_c_ends_a_connect_that_waits(full: socket.socket, path: str, interrupts: None) -> None:
    with Client(transport="unix") as client:
        with Signal() as sent, pytest.raises(KeyboardInterrupt):
            client.connect(path)
        assert sent.after < 2
        taken, _ = full.accept()
        taken.close()
        client.settimeout(LONG)
        client.connect(path)


# --- same as a plain socket ----------------------------------------------------------------


def test_errors_are_those_of_a_socket(directory: Path, path: str) -> None:
    plain = str(directory / "plain")
    Path(plain).touch()
    stale = str(directory / "stale")
    leave_stale(stale)
    dgram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dgram.bind(path)
    for name in (str(directory / "none"), plain, stale, path, str(directory)):
        with socket.socket(socket.AF_UNIX) as reference:
            expected = error_number(lambda: reference.connect(name))  # noqa: B023
        with Client(transport="unix") as client, pytest.raises(OSError, match=name) as caught:
            client.connect(name)
        assert caught.value.errno == expected
        with Client() as client:
            assert client.connect_ex(name) == expected
    dgram.close()
    for name in (plain, stale, path):
        os.unlink(name)


def test_an_address_beside_the_data_is_refused_as_by_a_socket(path: str) -> None:
    with Server(path=path) as server:
        ours = server.client(timeout=LONG)
        for stream in (ours, dial_path(path)):
            with stream:
                assert error_number(lambda: stream.sendto(b"x", path)) == 106  # noqa: B023
                assert error_number(lambda: stream.sendmsg([b"x"], [], 0, path)) == 106  # noqa: B023
                stream.sendall(b"abc")
                assert stream.recvfrom(1) == (b"a", path)
                assert stream.recvfrom_into(bytearray(1)) == (1, path)
                assert stream.recvmsg(1)[::3] == (b"c", path)
                stream.shutdown(socket.SHUT_WR)
                assert stream.recvfrom(1) == (b"", None)
        for made in (Client(transport="unix"), socket.socket(socket.AF_UNIX)):
            with made:
                assert made.getsockname() == ""
                assert error_number(lambda: made.sendto(b"x", path)) == 95  # noqa: B023
                assert error_number(made.getpeername) == 107


def test_files_and_calls_of_every_kind_work(directory: Path, path: str) -> None:
    part = directory / "file"
    part.write_bytes(payload(100_000))
    with Server(path=path) as server, server.client(timeout=LONG) as client:
        with client.makefile("rwb") as file:
            file.write(b"line one\nline two\n")
            file.flush()
            assert file.readline() == b"line one\n"
            assert file.readline() == b"line two\n"
        client.sendall(b"abcdef\n")
        assert client.recv_exactly(3) == b"abc"
        assert client.recv_line() == b"def\n"
        os.write(client.fileno(), b"raw")
        assert os.read(client.fileno(), 3) == b"raw"
        with part.open("rb") as source:
            sending = Background(client.sendfile, source)
            assert client.recv_exactly(100_000) == part.read_bytes()
            assert sending.result() == 100_000
    part.unlink()

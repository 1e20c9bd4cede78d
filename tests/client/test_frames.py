"""Messages with a delimiter or a length: no byte beyond what is returned is taken."""

from __future__ import annotations

import signal
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support import SOON, Background, arrived, partial, payload, read_exactly, wait_until
from support.roles import Pair, Stream, connected, handled

from rsock import Client, Connection, IncompleteRead, Server

# Headers with the number 3 in each.
HEADERS = [
    "B",
    ">B",
    ">H",
    "<H",
    "!H",
    ">I",
    "<I",
    "=I",
    "@I",
    "I",
    ">L",
    "L",
    "<q",
    ">Q",
    "n",
    "N",
]
every_header = pytest.mark.parametrize("header", HEADERS)


# --- lines ---------------------------------------------------------------------------------


def test_lines_end_with_the_peer(ours: Pair) -> None:
    stream, peer = ours
    peer.sendall(b"one\n\nthree\r\n")
    peer.close()
    assert list(stream.lines()) == [b"one\n", b"\n", b"three\r\n"]
    assert list(stream.lines()) == []


def test_a_line_is_taken_when_it_is_asked_for(ours: Pair) -> None:
    stream, peer = ours
    peer.sendall(b"one\ntwo\nthree")
    arrived(peer)
    lines = stream.lines()
    assert next(lines) == b"one\n"
    assert stream.recv(2) == b"tw"
    assert next(lines) == b"o\n"
    peer.close()
    with pytest.raises(IncompleteRead) as caught:
        next(lines)
    assert partial(caught.value) == b"three"


def test_a_line_over_the_limit_is_a_value_error(ours: Pair) -> None:
    stream, peer = ours
    peer.sendall(b"four\nlonger\n")
    lines = stream.lines(limit=5)
    assert next(lines) == b"four\n"
    with pytest.raises(ValueError, match="limit of 5") as caught:
        next(lines)
    assert partial(caught.value) == b"longe"


def test_a_handler_iterates_over_the_lines_of_its_connection() -> None:
    def shout(conn: Connection) -> None:
        for line in conn.lines():
            conn.sendall(line.upper())

    with handled(shout) as server, server.client(timeout=SOON) as client:
        client.sendall(b"a\nb\n")
        assert client.recv_line() == b"A\n"
        assert client.recv_line() == b"B\n"


# --- several delimiters --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delimiters", "sent", "expected"),
    [
        ((b"\r\n", b"\n"), b"a\r\nb\nc", [b"a\r\n", b"b\n"]),
        ((b"\n", b"\r\n"), b"a\r\nb\nc", [b"a\r\n", b"b\n"]),
        # The first to end, not the first to begin.
        ((b"abcd", b"c"), b"abcd.c", [b"abc", b"d.c"]),
        ((b"long delimiter", b"!"), b"x long delimiter!", [b"x long delimiter", b"!"]),
        ((b";",), b"a;b;", [b"a;", b"b;"]),
        ((bytearray(b";"), memoryview(b",")), b"a,b;", [b"a,", b"b;"]),
    ],
)
@pytest.mark.parametrize("slowly", [False, True])
def test_the_first_delimiter_to_end_counts(
    ours: Pair, delimiters: tuple[bytes, ...], sent: bytes, expected: list[bytes], slowly: bool
) -> None:
    stream, peer = ours
    for part in [sent] if not slowly else [sent[at : at + 1] for at in range(len(sent))]:
        peer.sendall(part)
    reading = Background(lambda: [stream.recv_until(delimiters) for _ in expected])
    assert reading.result() == expected
    rest = sent[sum(map(len, expected)) :]
    assert stream.recv_exactly(len(rest)) == rest


def test_the_limit_has_room_for_the_shortest_delimiter(ours: Pair) -> None:
    stream, peer = ours
    peer.sendall(b"a;b;")
    assert stream.recv_until((b"long", b";"), 2) == b"a;"
    with pytest.raises(ValueError, match="limit of 1") as caught:
        stream.recv_until((b"long", b";"), 1)
    assert partial(caught.value) == b"b"


@pytest.mark.parametrize(
    ("delimiters", "error"),
    [
        ((), ValueError),
        ((b";", b""), ValueError),
        ((b"ab", b"abc"), ValueError),
        ((b";", ","), TypeError),
        ((b";", 5), TypeError),
        ([b";"], TypeError),
    ],
    ids=str,
)
def test_delimiters_that_are_none_are_refused(
    ours: Pair, delimiters: Any, error: type[Exception]
) -> None:
    stream, _ = ours
    with pytest.raises(error):
        stream.recv_until(delimiters, 1)


# --- frames --------------------------------------------------------------------------------


@every_header
def test_a_frame_is_a_length_and_as_many_bytes(ours: Pair, header: str) -> None:
    stream, peer = ours
    stream.send_frame(b"abc", header)
    stream.send_frame(bytearray(), header=header)
    packed = struct.pack(header, 3) + b"abc" + struct.pack(header, 0)
    assert read_exactly(peer, len(packed)) == packed
    peer.sendall(packed + b"rest")
    arrived(peer)
    assert stream.recv_frame(header) == b"abc"
    assert stream.recv_frame(header=header) == b""
    assert stream.recv(100) == b"rest"
    peer.close()
    assert stream.recv_frame(header) is None


def test_the_default_header_is_four_bytes_in_network_order(ours: Pair) -> None:
    stream, peer = ours
    stream.send_frame(b"abc")
    assert read_exactly(peer, 7) == b"\0\0\0\3abc"
    peer.sendall(b"\0\0\0\2xy")
    assert stream.recv_frame() == b"xy"


@pytest.mark.parametrize(
    ("sent", "header"),
    [(b"\0\0\0", ">I"), (b"\0\0\0\3ab", ">I"), (b"\0\0\0\3", ">I"), (b"\1", ">H")],
    ids=str,
)
def test_a_frame_cut_short_is_an_incomplete_read(ours: Pair, sent: bytes, header: str) -> None:
    stream, peer = ours
    peer.sendall(sent)
    peer.close()
    with pytest.raises(IncompleteRead) as caught:
        stream.recv_frame(header)
    assert partial(caught.value) == sent
    assert stream.recv_frame(header) is None


@pytest.mark.parametrize(
    ("length", "header", "limit"),
    [
        (11, ">I", 10),
        (1 << 31, ">I", 1 << 30),
        ((1 << 64) - 1, "<Q", 1 << 40),
        (-1, ">i", 10),
        (-128, "b", 10),
    ],
)
def test_a_frame_over_its_limit_is_a_value_error(
    ours: Pair, length: int, header: str, limit: int
) -> None:
    stream, peer = ours
    packed = struct.pack(header, length)
    peer.sendall(packed + b"data")
    with pytest.raises(ValueError, match=str(length)) as caught:
        stream.recv_frame(header, limit)
    # Nothing but the header was taken.
    assert partial(caught.value) == packed
    assert stream.recv(10) == b"data"


def test_the_default_limit_is_sixteen_mebibytes(ours: Pair) -> None:
    stream, peer = ours
    peer.sendall(struct.pack(">I", (16 << 20) + 1))
    with pytest.raises(ValueError, match="limit"):
        stream.recv_frame()


@pytest.mark.parametrize(
    ("header", "size"), [("B", 256), ("b", 128), (">H", 65_536), (">h", 32_768)]
)
def test_data_too_long_for_the_header_is_a_value_error(ours: Pair, header: str, size: int) -> None:
    stream, peer = ours
    with pytest.raises(ValueError, match=f"{size} bytes"):
        stream.send_frame(bytes(size), header)
    sending = Background(stream.send_frame, bytes(size - 1), header)
    stream.settimeout(SOON)
    whole = read_exactly(peer, struct.calcsize(header) + size - 1)
    assert whole == struct.pack(header, size - 1) + bytes(size - 1)
    sending.result()


@pytest.mark.parametrize(
    "header", ["", ">", ">II", "4s", "f", ">d", ">n", "?", "x", ">3I", "é", "I ", 4, b">I"]
)
def test_a_header_that_is_none_is_refused(ours: Pair, header: Any) -> None:
    stream, _ = ours
    with pytest.raises((ValueError, TypeError), match="header"):
        stream.recv_frame(header)
    with pytest.raises((ValueError, TypeError), match="header"):
        stream.send_frame(b"x", header)


def test_the_timeout_holds_for_a_frame_as_a_whole(ours: Pair) -> None:
    stream, peer = ours
    stream.settimeout(0.3)
    over = threading.Event()

    def drip() -> None:
        peer.sendall(b"\0\0\1\0")
        while not over.wait(0.02):
            peer.sendall(b"x")

    dripping = Background(drip)
    begun = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        stream.recv_frame()
    assert time.monotonic() - begun < SOON / 2
    over.set()
    dripping.result()
    assert partial(caught.value).startswith(b"\0\0\1\0")


def test_a_large_frame_arrives_whole(ours: Pair) -> None:
    stream, peer = ours
    data = payload(5 << 20)
    sending = Background(stream.send_frame, data)
    assert read_exactly(peer, len(data) + 4) == struct.pack(">I", len(data)) + data
    sending.result()
    sending = Background(peer.sendall, struct.pack(">I", len(data)) + data)
    assert stream.recv_frame() == data
    sending.result()


def test_frames_of_several_threads_do_not_mix(ours: Pair) -> None:
    stream, peer = ours
    # Larger than the buffers of the socket: each takes several sends.
    frames = [bytes([number]) * ((6 << 20) + number) for number in range(4)]
    senders = [Background(stream.send_frame, frame) for frame in frames]
    got = []
    for _ in frames:
        [length] = struct.unpack(">I", read_exactly(peer, 4))
        got.append(read_exactly(peer, length))
    for sender in senders:
        sender.result()
    assert sorted(got) == frames


def stuck(stream: Stream) -> Background[None]:
    """A thread inside a frame that the peer does not read."""
    sending = Background(stream.send_frame, bytes(32 << 20))
    wait_until(sending.asleep)
    return sending


def test_the_wait_for_another_frame_ends_by_timeout_close_and_signal(
    ours: Pair, interrupts: None
) -> None:
    stream, _ = ours
    sending = stuck(stream)
    stream.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        stream.send_frame(b"x")
    stream.settimeout(0.05)
    with pytest.raises(TimeoutError) as caught:
        stream.send_frame(b"x")
    assert caught.value.sent == 0  # type: ignore[attr-defined]
    stream.settimeout(None)
    main = threading.main_thread().ident
    timer = threading.Timer(0.1, signal.pthread_kill, [main, signal.SIGUSR1])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        stream.send_frame(b"x")
    timer.join()
    waiting = Background(stream.send_frame, b"x")
    wait_until(waiting.asleep)
    stream.close()
    for each in (sending, waiting):
        with pytest.raises(OSError, match="closed"):
            each.result()


def test_a_frame_inside_another_one_of_its_thread_is_an_error() -> None:
    with connected("Client") as (client, peer):
        errors: list[BaseException] = []

        def send_inside(*_: object) -> None:
            try:
                client.send_frame(b"inside")
            except OSError as error:
                errors.append(error)

        before = signal.signal(signal.SIGUSR1, send_inside)
        try:
            data = bytes(32 << 20)
            main = threading.main_thread().ident
            assert main is not None
            timer = threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGUSR1])
            timer.start()

            def read() -> bytes:
                wait_until(lambda: errors)
                return read_exactly(peer, len(data) + 4)

            reading = Background(read)
            client.send_frame(data)
            assert reading.result() == struct.pack(">I", len(data)) + data
            timer.join()
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert "EDEADLK" in str(errors) or "deadlock" in str(errors).lower()


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.recv_frame(),
        lambda client: client.send_frame(b"x"),
        lambda client: next(client.lines()),
    ],
    ids=["recv_frame", "send_frame", "lines"],
)
def test_datagrams_have_no_frames(call: Callable[[Client], object]) -> None:
    with Server(transport="udp") as server, server.client() as client:
        with pytest.raises(OSError, match="datagram"):
            call(client)


def test_frames_are_counted(ours: Pair) -> None:
    stream, peer = ours
    stream.send_frame(b"12345")
    peer.sendall(b"\0\0\0\2xy")
    assert stream.recv_frame() == b"xy"
    assert (stream.record.bytes_out, stream.record.bytes_in) == (9, 6)


def test_a_length_that_does_not_fit_into_its_header_is_told_with_both_sizes(ours: Pair) -> None:
    stream, _ = ours
    with pytest.raises(ValueError, match="data of 300 bytes: .* a header of 1 byte$"):
        stream.send_frame(bytes(300), ">B")

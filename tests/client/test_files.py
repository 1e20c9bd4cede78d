"""Files of streams: `makefile`, the standard library's modules on top of it, and `sendfile`."""

from __future__ import annotations

import errno
import ftplib
import gc
import http.client
import http.server
import io
import os
import select
import signal
import smtplib
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from support import (
    LATE,
    SOON,
    Background,
    Signal,
    arrived,
    error_number,
    payload,
    read_exactly,
    read_to_end,
    reset,
    sleeping,
    wait_until,
)
from support.roles import OURS, ROLES, Pair, Stream, connected, handled, outcome

from rsock import Client, Connection

MODES = ["r", "w", "rw", "wr", "", "rr", "rb", "br", "b", "wb", "bw", "rwb", "brw", "wrb"]
TEN_MIB = payload(10 << 20, seed=10)


@pytest.fixture(params=OURS)
def beside(request: pytest.FixtureRequest) -> Iterator[tuple[Pair, Pair]]:
    """A plain socket and a stream, each with its peer: the stream must behave like the socket."""
    with connected("socket") as plain, connected(request.param) as ours:
        yield plain, ours


# --- modes ---------------------------------------------------------------------------------


def described(file: Any, stream: Stream) -> dict[str, object]:
    """What can be observed of a file without using it."""
    return {
        "class": type(file),
        "raw class": type(getattr(getattr(file, "buffer", file), "raw", None)),
        "mode": outcome(lambda: file.mode),
        "readable": file.readable(),
        "writable": file.writable(),
        "seekable": file.seekable(),
        "terminal": file.isatty(),
        "closed": file.closed,
        "its descriptor": outcome(lambda: file.fileno() == stream.fileno()),
        "its name": outcome(lambda: file.name == stream.fileno()),
        "line buffering": getattr(file, "line_buffering", None),
        "encoding": getattr(file, "encoding", None),
        "errors": getattr(file, "errors", None),
    }


@pytest.mark.parametrize("buffering", [None, -1, 0, 1, 2, 4096, -5])
@pytest.mark.parametrize("mode", MODES)
def test_a_file_is_what_its_mode_says(
    beside: tuple[Pair, Pair], mode: str, buffering: int | None
) -> None:
    def made(stream: Stream) -> object:
        with stream.makefile(mode, buffering) as file:
            return described(file, stream)

    (plain, _), (stream, _) = beside
    assert outcome(lambda: made(stream)) == outcome(lambda: made(plain))


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("a",), {}),
        (("x",), {}),
        (("r+",), {}),
        (("rt",), {}),
        (("R",), {}),
        (("U",), {}),
        (("r", 0), {}),
        (("w", 0), {}),
        ((None,), {}),
        ((5,), {}),
        (("rb", "many"), {}),
        (("r", -1, "utf-8"), {}),
        (("r",), {"encoding": "no such thing"}),
        (("r",), {"encoding": 5}),
        (("r",), {"newline": "x"}),
        (("r",), {"closefd": False}),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_is_refused(
    beside: tuple[Pair, Pair], arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    (plain, _), (stream, _) = beside
    refused = outcome(lambda: stream.makefile(*arguments, **options))
    assert refused == outcome(lambda: plain.makefile(*arguments, **options))
    assert isinstance(refused, tuple)
    stream.close()
    # A refused call keeps nothing open.
    assert stream.fileno() == -1


def test_a_file_without_arguments_reads_text(pair: Pair) -> None:
    stream, peer = pair
    with stream.makefile() as file:
        peer.sendall(b"text\n")
        assert file.readline() == "text\n"


# --- bytes and text ------------------------------------------------------------------------


def test_files_of_bytes_go_both_ways(pair: Pair) -> None:
    stream, peer = pair
    with stream.makefile("rwb") as file:
        peer.sendall(b"a line\nsix by")
        assert file.readline() == b"a line\n"
        assert file.read(6) == b"six by"
        assert file.write(b"back") == 4
        file.flush()
        assert read_exactly(peer, 4) == b"back"
        peer.sendall(b"1\n2\n3\nthe rest")
        peer.shutdown(socket.SHUT_WR)
        assert [next(file), next(file)] == [b"1\n", b"2\n"]
        buffer = bytearray(4)
        assert file.readinto(buffer) == 4
        assert buffer == b"3\nth"
        assert file.read() == b"e rest"
        assert file.read() == b""


def test_a_file_may_read_ahead_and_gives_that_to_its_own_readers(pair: Pair) -> None:
    stream, peer = pair
    with stream.makefile("rb") as file:
        peer.sendall(b"one\ntwo\n")
        arrived(peer)
        assert file.readline() == b"one\n"
        with pytest.raises(BlockingIOError):
            stream.recv(1, socket.MSG_DONTWAIT)
        assert file.peek() == b"two\n"
        assert file.read1(2) == b"tw"


def test_an_unbuffered_file_takes_what_is_there(pair: Pair) -> None:
    stream, peer = pair
    with stream.makefile("rwb", buffering=0) as file:
        peer.sendall(b"abcdef")
        arrived(peer)
        assert file.read(4) == b"abcd"
        assert file.read(100) == b"ef"
        # Nothing waits for a flush.
        assert file.write(b"at once") == 7
        assert read_exactly(peer, 7) == b"at once"


def test_what_is_written_waits_for_the_flush(pair: Pair) -> None:
    stream, peer = pair
    with stream.makefile("wb") as file:
        file.write(b"kept")
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(10)
        peer.settimeout(SOON)
        file.flush()
        assert read_exactly(peer, 4) == b"kept"


def test_a_buffer_of_one_byte_keeps_nothing_of_a_longer_write(pair: Pair) -> None:
    stream, peer = pair
    with stream.makefile("wb", buffering=1) as file:
        file.write(b"gone already")
        assert read_exactly(peer, 12) == b"gone already"


def test_text_of_buffering_1_waits_for_the_flush_all_the_same(pair: Pair) -> None:
    stream, peer = pair
    with stream.makefile("w", buffering=1) as file:
        file.write("a line\n")
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(10)
        peer.settimeout(SOON)
        file.flush()
        assert read_exactly(peer, 7) == b"a line\n"


ENCODED = "Grüße\r\n你好\rend\n"


@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "gb18030"])
def test_text_is_decoded_as_a_file_on_disk_would_be(
    pair: Pair, encoding: str, newline: str | None
) -> None:
    stream, peer = pair
    data = ENCODED.encode(encoding)
    expected = io.TextIOWrapper(io.BytesIO(data), encoding=encoding, newline=newline).readlines()
    peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)
    with stream.makefile("r", encoding=encoding, newline=newline) as file:
        assert file.readlines() == expected


@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "gb18030"])
def test_text_is_encoded_as_a_file_on_disk_would_be(
    pair: Pair, encoding: str, newline: str | None
) -> None:
    stream, peer = pair
    expected = io.BytesIO()
    wrapped = io.TextIOWrapper(expected, encoding=encoding, newline=newline, write_through=True)
    wrapped.write(ENCODED)
    wrapped.flush()
    with stream.makefile("w", encoding=encoding, newline=newline) as file:
        assert file.write(ENCODED) == len(ENCODED)
    assert read_exactly(peer, len(expected.getvalue())) == expected.getvalue()


def test_what_cannot_be_decoded_is_treated_as_errors_says(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"caf\xe9\ncaf\xe9\n")
    peer.shutdown(socket.SHUT_WR)
    with stream.makefile("r", encoding="ascii", errors="replace") as file:
        assert file.readline() == "caf\N{REPLACEMENT CHARACTER}\n"
    with stream.makefile("w", encoding="ascii") as file, pytest.raises(UnicodeEncodeError):
        file.write("café")


def test_print_writes_to_a_stream(pair: Pair) -> None:
    stream, peer = pair
    with stream.makefile("w", encoding="utf-8", newline="\r\n") as file:
        print("status", 200, sep="=", file=file, flush=True)
        assert read_exactly(peer, 12) == b"status=200\r\n"
        print("kept until the file is closed", file=file)
    assert read_exactly(peer, 31) == b"kept until the file is closed\r\n"


def test_a_dialogue_of_lines(pair: Pair) -> None:
    stream, peer = pair

    def answer() -> None:
        for _ in range(3):
            peer.sendall(peer.recv(100).upper())

    answers = Background(answer)
    with stream.makefile("rw", encoding="utf-8") as file:
        for line in ("one\n", "two\n", "three\n"):
            file.write(line)
            file.flush()
            assert file.readline() == line.upper()
    answers.result()


def test_ten_mebibytes_through_a_file_are_the_same_bytes(pair: Pair) -> None:
    stream, peer = pair
    echoing = Background(lambda: peer.sendall(read_exactly(peer, len(TEN_MIB))))
    with stream.makefile("rwb") as file:
        file.write(TEN_MIB)
        file.flush()
        assert file.read(len(TEN_MIB)) == TEN_MIB
    echoing.result()


@pytest.mark.parametrize("role", OURS)
def test_bytes_of_files_are_counted(role: str) -> None:
    with connected(role) as (stream, peer):
        with stream.makefile("rwb") as file:
            file.write(b"seven b")
            file.flush()
            peer.sendall(b"three")
            assert file.read(5) == b"three"
        assert (stream.record.bytes_in, stream.record.bytes_out) == (5, 7)


# --- the end -------------------------------------------------------------------------------


def test_closing_waits_for_the_files(pair: Pair) -> None:
    stream, peer = pair
    reading, writing = stream.makefile("rb"), stream.makefile("wb")
    stream.close()
    stream.close()
    assert stream.fileno() >= 0
    peer.sendall(b"read")
    assert reading.read(4) == b"read"
    writing.write(b"written")
    reading.close()
    reading.close()
    assert stream.fileno() >= 0
    writing.close()
    assert stream.fileno() == -1
    assert read_to_end(peer) == b"written"


def test_the_end_of_with_waits_for_the_files_too(pair: Pair) -> None:
    stream, peer = pair
    with stream.makefile("w", encoding="utf-8") as file:
        with stream:
            file.write("before, ")
        file.write("after")
    assert stream.fileno() == -1
    assert read_to_end(peer) == b"before, after"


def test_closing_a_file_leaves_the_stream_open(pair: Pair) -> None:
    stream, peer = pair
    for mode in ("r", "w", "rw", "rb", "wb", "rwb"):
        stream.makefile(mode).close()
    stream.makefile("rwb", 0).close()
    stream.sendall(b"open")
    assert read_exactly(peer, 4) == b"open"


def test_an_unreferenced_file_is_closed(pair: Pair) -> None:
    stream, peer = pair
    file = stream.makefile("rb")
    stream.close()
    assert stream.fileno() >= 0
    del file
    gc.collect()
    assert stream.fileno() == -1
    assert peer.recv(1) == b""


def test_a_file_keeps_an_otherwise_unreferenced_stream(pair: Pair) -> None:
    stream, peer = pair
    files = [stream.makefile("rb")]
    stream.close()
    del stream
    gc.collect()
    peer.sendall(b"here")
    assert files[0].read(4) == b"here"
    files.pop().close()


def test_files_of_a_closed_stream_read_nothing(pair: Pair) -> None:
    stream, _ = pair
    stream.close()
    with stream.makefile("rb") as file:
        assert error_number(lambda: file.read(1)) == errno.EBADF
    assert stream.fileno() == -1


def test_a_closed_file_is_a_value_error(pair: Pair) -> None:
    stream, _ = pair
    file = stream.makefile("rb")
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        file.read(1)


def test_detaching_waits_for_no_file(pair: Pair) -> None:
    stream, peer = pair
    with stream.makefile("rb") as file:
        number = stream.detach()
        assert error_number(lambda: file.read(1)) == errno.EBADF
    with socket.socket(fileno=number) as plain:
        plain.sendall(b"lives")
        assert read_exactly(peer, 5) == b"lives"


@pytest.mark.parametrize("role", OURS)
def test_an_abort_waits_for_no_file(role: str) -> None:
    with connected(role) as (stream, peer), stream.makefile("rb") as file:
        reading = Background(file.read, 1)
        wait_until(reading.asleep)
        stream.abort()
        assert error_number(reading.result) == errno.EBADF
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


@pytest.mark.parametrize("role", ROLES)
def test_a_raw_file_made_by_hand_does_not_keep_a_stream_open(role: str) -> None:
    with connected(role) as (stream, _):
        socket.SocketIO(stream, "rb").close()
        stream.close()
        assert stream.fileno() == -1


def test_the_end_of_the_peer_is_the_end_of_the_file(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"one\ntwo")
    peer.close()
    with stream.makefile("r", encoding="utf-8") as file:
        assert list(file) == ["one\n", "two"]
        assert file.read() == ""


def test_a_reset_reaches_the_reader_of_a_file(pair: Pair) -> None:
    stream, peer = pair
    with stream.makefile("rb") as file:
        reset(peer)
        with pytest.raises(ConnectionResetError):
            file.read(1)


def test_a_broken_pipe_reaches_the_writer_of_a_file(pair: Pair) -> None:
    stream, peer = pair
    file = stream.makefile("wb", buffering=0)
    peer.close()

    def write() -> None:
        for _ in range(1_000):
            file.write(b"x" * 1_000)

    with file, pytest.raises((BrokenPipeError, ConnectionResetError)):
        write()


# --- time-outs -----------------------------------------------------------------------------


def test_a_file_cannot_be_read_after_a_timeout_but_its_stream_can(pair: Pair) -> None:
    stream, peer = pair
    stream.settimeout(0.05)
    with stream.makefile("rb") as file:
        with pytest.raises(TimeoutError):
            file.read(1)
        peer.sendall(b"late")
        arrived(peer)
        with pytest.raises(OSError, match="cannot read from timed out object"):
            file.read(1)
    assert stream.recv(10) == b"late"
    # Another file object does not share the buffer.
    with stream.makefile("rb") as file:
        peer.sendall(b"anew")
        assert file.read(4) == b"anew"


def test_a_write_out_of_time_is_a_timeout_error(pair: Pair) -> None:
    stream, _ = pair
    stream.settimeout(0.05)
    with stream.makefile("wb", buffering=0) as file:

        def write() -> None:
            while True:
                file.write(TEN_MIB)

        with pytest.raises(TimeoutError):
            write()


def test_a_file_of_a_stream_that_does_not_wait_says_none(pair: Pair) -> None:
    stream, peer = pair
    stream.setblocking(False)
    with stream.makefile("rb", buffering=0) as raw, stream.makefile("rb") as buffered:
        assert raw.read(1) is None
        assert raw.readinto(bytearray(1)) is None
        assert buffered.read(1) is None
        peer.sendall(b"ab")
        arrived(peer)
        assert raw.read(1) == b"a"
        assert buffered.read(10) == b"b"


def test_a_full_stream_that_does_not_wait_says_so_to_its_writers(pair: Pair) -> None:
    stream, peer = pair
    stream.setblocking(False)
    with stream.makefile("wb", buffering=0) as raw:
        while raw.write(TEN_MIB) is not None:
            pass
    file = stream.makefile("wb")
    with pytest.raises(BlockingIOError) as caught:
        file.write(TEN_MIB)
    assert 0 < caught.value.characters_written <= io.DEFAULT_BUFFER_SIZE
    # The bytes it buffered are sent when there is room again.
    stream.settimeout(None)
    reading = Background(read_to_end, peer)
    file.close()
    stream.close()
    reading.result()


# --- modules built on files ----------------------------------------------------------------


class Page(http.server.BaseHTTPRequestHandler):
    """The standard library's HTTP server on one of rsock's connections."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(f"this is {self.path}".encode(), "endless" not in self.path)

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes, length: bool = True) -> None:
        self.send_response(200)
        if length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""


def pages(conn: Connection) -> None:
    Page(cast(Any, conn), conn.getpeername(), cast(Any, None))


def test_http_client_speaks_through_a_client_with_http_server_on_a_connection() -> None:
    with handled(pages) as server:
        http_connection = http.client.HTTPConnection(*server.address)
        http_connection.sock = server.client(timeout=SOON)
        for number in range(20):
            http_connection.request("GET", f"/{number}")
            assert http_connection.getresponse().read() == f"this is /{number}".encode()
        http_connection.request("POST", "/", body=TEN_MIB)
        assert http_connection.getresponse().read() == TEN_MIB
        http_connection.close()
        server.ledger.wait(open=0, closed=1)
        [record] = server.ledger.closed
        assert record.closed_by == "peer"
        assert record.bytes_in > len(TEN_MIB)


def test_an_answer_without_a_length_is_read_after_its_client_was_closed() -> None:
    with handled(pages) as server:
        http_connection = http.client.HTTPConnection(*server.address)
        http_connection.sock = client = server.client(timeout=SOON)
        http_connection.request("GET", "/endless")
        answer = http_connection.getresponse()
        # http.client has closed its socket by now; the response's file still reads.
        assert client.closed
        assert answer.read() == b"this is /endless"
        assert client.fileno() == -1


@pytest.mark.parametrize("buffering", [0, -1], ids=["sends at once", "sends at the end"])
def test_a_handler_of_socketserver_runs_on_a_connection(buffering: int) -> None:
    class Shout(socketserver.StreamRequestHandler):
        timeout = SOON
        disable_nagle_algorithm = True
        wbufsize = buffering

        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.upper())

    def shout(conn: Connection) -> None:
        Shout(cast(Any, conn), conn.getpeername(), cast(Any, None))

    with handled(shout) as server, server.client(timeout=SOON) as client:
        client.sendall(b"one\ntwo\nthree")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"ONE\nTWO\nTHREE"


def mail(conn: Connection, taken: list[str]) -> None:
    """The part of RFC 5321 that smtplib needs."""
    with conn.makefile("rw", encoding="ascii", newline="\r\n") as file:

        def say(text: str) -> None:
            print(text, file=file, flush=True)

        say("220 here")
        for line in file:
            verb = line[:4].upper().rstrip()
            if verb == "DATA":
                say("354 go on")
                taken.extend(iter(file.readline, ".\r\n"))
            say("221 bye" if verb == "QUIT" else "250 fine")
            if verb == "QUIT":
                return


def test_smtplib_speaks_through_a_client() -> None:
    class Mail(smtplib.SMTP):
        def _get_socket(self, host: str, port: int, timeout: float) -> Client:
            return Client(host, port, timeout=timeout)

    taken: list[str] = []
    with handled(lambda conn: mail(conn, taken)) as server:
        with Mail(server.host, server.port, "me.example", SOON) as smtp:
            assert isinstance(smtp.sock, Client)
            smtp.sendmail("a@b.example", "c@d.example", "Subject: hello\n\n.dotted\nlast")
        server.ledger.wait(open=0, closed=1)
    assert taken == ["Subject: hello\r\n", "\r\n", "..dotted\r\n", "last\r\n"]


def test_ftplib_speaks_through_a_client() -> None:
    answers = {"USER": "331 and?", "PASS": "230-many\n words\n230 in", "PWD": '257 "/pub"'}

    def files(conn: Connection) -> None:
        with conn.makefile("rw", encoding="utf-8", newline="\r\n") as file:
            print("220 here", file=file, flush=True)
            for line in file:
                print(answers.get(line.split()[0], "221 bye"), file=file, flush=True)

    class Files(ftplib.FTP):
        def connect(self, *_: Any, **__: Any) -> str:
            self.sock = cast(Any, server.client(timeout=SOON))
            self.file = cast(Any, self.sock).makefile("r", encoding=self.encoding)
            self.welcome = self.getresp()
            return self.welcome

    with handled(files) as server, Files("here") as ftp:
        assert ftp.welcome == "220 here"
        assert ftp.login("me", "secret") == "230-many\n words\n230 in"
        assert ftp.pwd() == "/pub"


def test_what_a_handler_left_in_a_file_is_sent_when_it_returns() -> None:
    def greet(conn: Connection) -> None:
        print("never flushed", file=conn.makefile("w", encoding="ascii"))

    with handled(greet) as server, server.client(timeout=SOON) as client:
        assert read_to_end(client) == b"never flushed\n"


def test_a_handlers_return_ends_its_connection_whatever_files_are_open() -> None:
    kept: list[Any] = []
    with handled(lambda conn: kept.append(conn.makefile("rb"))) as server:
        with server.client(timeout=SOON) as client:
            assert client.recv(1) == b""
        server.ledger.wait(open=0, closed=1)
        with kept.pop() as file:
            assert error_number(lambda: file.read(1)) == errno.EBADF


def test_a_handler_that_reads_a_file_finds_its_end_when_the_server_stops() -> None:
    lines: list[str] = []
    reading: list[int] = []

    def read(conn: Connection) -> None:
        with conn.makefile("r", encoding="ascii") as file:
            reading.append(threading.get_native_id())
            lines.extend(file)

    with handled(read) as server, server.client(timeout=SOON) as client:
        client.sendall(b"one\ntwo\nhal")
        arrived(cast(Any, client))
        wait_until(lambda: reading and sleeping(reading[0]))
        report = server.stop(SOON)
        assert (report.forced, report.abandoned) == (0, 0)
        assert report.seconds < LATE
        assert lines == ["one\n", "two\n", "hal"]
        assert client.recv(1) == b""


# --- sendfile ------------------------------------------------------------------------------


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")
    return path


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "big"
    path.write_bytes(TEN_MIB)
    return path


def sent(pair: Pair, file: Any, *arguments: Any) -> tuple[object, object, bytes]:
    """What `sendfile` returns, the file's position afterwards, and what the peer received."""
    stream, peer = pair
    result = outcome(lambda: stream.sendfile(file, *arguments))
    stream.shutdown(socket.SHUT_WR)
    return result, outcome(file.tell), read_to_end(peer)


# Valid and invalid offsets and counts.
PARTS: list[tuple[Any, ...]] = [
    *((), (0,), (3,), (10,), (100,), (True,), (-1,), (-1 << 70,)),
    *((1.0,), ("1",), (1 << 40,), ((1 << 63) - 20,), ((1 << 63) - 1,), (1 << 63,), (1 << 70,)),
    *((0, None), (0, 4), (3, 4), (3, 400), (0, 10), (0, True), (0, False), (0, 0), (0, -1)),
    *((0, 1.0), (0, "4"), (0, (1 << 63) - 1), (0, 1 << 63), (2, 1 << 64), (0, 1 << 70)),
    *(((1 << 63) - 1, 1 << 63), (-1, 0), (1 << 70, 1 << 70)),
]
FILES: dict[str, Callable[[Path], Any]] = {
    "buffered": lambda path: path.open("rb"),
    "unbuffered": lambda path: path.open("rb", buffering=0),
    "in memory": lambda path: io.BytesIO(path.read_bytes()),
    "for writing only": lambda path: path.open("ab"),
}


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
@pytest.mark.parametrize("role", OURS)
def test_offset_and_count_mean_what_they_mean_to_a_socket(
    role: str, digits: Path, make: Callable[[Path], Any]
) -> None:
    def sent_by(role: str, arguments: tuple[Any, ...]) -> object:
        with connected(role) as pair, make(digits) as file:
            if file.readable():
                file.read(4)
            return sent(pair, file, *arguments)

    for part in PARTS:
        as_socket = part
        if sys.version_info < (3, 13) and len(part) == 2 and isinstance(part[1], int):
            # Before that version a socket rejects a count larger than any file can be.
            as_socket = (part[0], min(part[1], (1 << 63) - 1))
        assert sent_by(role, part) == sent_by("socket", as_socket), part


def test_a_file_in_memory_is_sent_from_where_it_stands(pair: Pair) -> None:
    file = io.BytesIO(b"0123456789")
    file.seek(6)
    assert sent(pair, file)[::2] == (4, b"6789")


def test_a_file_that_can_only_be_read_is_sent(pair: Pair) -> None:
    class OnlyRead:
        parts = iter([b"one ", b"two ", b"three", b""])

        def read(self, _size: int) -> bytes:
            return next(self.parts)

    stream, peer = pair
    assert stream.sendfile(OnlyRead()) == 13
    assert read_exactly(peer, 13) == b"one two three"


@pytest.mark.parametrize("in_memory", [False, True], ids=["on disk", "in memory"])
def test_text_cannot_be_sent(beside: tuple[Pair, Pair], digits: Path, in_memory: bool) -> None:
    outcomes = []
    for pair in beside:
        with io.StringIO("text") if in_memory else digits.open() as file:
            outcomes.append(sent(pair, file)[::2])
    assert outcomes[1] == outcomes[0]
    assert outcomes[0][1] == b""


@pytest.mark.parametrize("file", [None, 5, "name", b"bytes"])
def test_what_is_no_file_cannot_be_sent(beside: tuple[Pair, Pair], file: Any) -> None:
    (plain, _), (stream, _) = beside
    assert outcome(lambda: stream.sendfile(file)) == outcome(lambda: plain.sendfile(file))


def test_a_closed_file_cannot_be_sent(pair: Pair, digits: Path) -> None:
    stream, _ = pair
    file = digits.open("rb")
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        stream.sendfile(file)


def test_nothing_is_sent_by_a_stream_that_does_not_wait(pair: Pair, digits: Path) -> None:
    stream, _ = pair
    stream.settimeout(0)
    with digits.open("rb") as file, pytest.raises(ValueError, match="non-blocking"):
        stream.sendfile(file)
    with pytest.raises(ValueError, match="non-blocking"):
        stream.sendfile(io.BytesIO(b"data"))


@pytest.mark.parametrize("role", OURS)
def test_what_a_file_of_pythons_has_sent_is_on_the_exception(role: str) -> None:
    with connected(role) as (stream, peer):
        stream.settimeout(0.2)
        file = io.BytesIO(payload(32 << 20))
        with pytest.raises(TimeoutError) as caught:
            stream.sendfile(file)
        reading = Background(read_to_end, peer)
        stream.shutdown(socket.SHUT_WR)
        arrived = len(reading.result())
        assert caught.value.sent == file.tell() == arrived  # type: ignore[attr-defined]


def test_datagrams_are_no_place_for_a_file() -> None:
    with Client(transport="udp") as client, pytest.raises(ValueError, match="SOCK_STREAM"):
        client.sendfile(io.BytesIO(b"data"))


@pytest.mark.parametrize("role", OURS)
def test_a_closed_stream_sends_no_file(role: str, digits: Path) -> None:
    # A plain socket raises ValueError here, because it calls select() first.
    with connected(role) as (stream, _), digits.open("rb") as file:
        stream.close()
        assert error_number(lambda: stream.sendfile(file)) == errno.EBADF
        assert error_number(lambda: stream.sendfile(io.BytesIO(b"data"))) == errno.EBADF
        assert file.tell() == 0


@pytest.mark.parametrize("role", OURS)
def test_what_has_no_size_is_sent_to_its_end(role: str) -> None:
    # A plain socket uses the size that fstat reports, 0, and sends nothing.
    with connected(role) as (stream, peer):
        reading, writing = os.pipe()
        os.write(writing, b"through a pipe")
        os.close(writing)
        with open(reading, "rb") as file:
            assert stream.sendfile(file, count=7) == 7
            assert stream.sendfile(file) == 7
        with open("/proc/self/comm", "rb") as file:
            name = file.read()
            assert stream.sendfile(file) == len(name)
        assert read_exactly(peer, 14 + len(name)) == b"through a pipe" + name


@pytest.mark.parametrize("in_memory", [False, True], ids=["on disk", "in memory"])
@pytest.mark.parametrize("timeout", [None, 30.0])
def test_ten_mebibytes_are_sent_byte_for_byte(
    pair: Pair, big: Path, timeout: float | None, in_memory: bool
) -> None:
    stream, peer = pair
    stream.settimeout(timeout)
    with io.BytesIO(TEN_MIB) if in_memory else big.open("rb") as file:
        sending = Background(stream.sendfile, file, 12_345)
        assert read_exactly(peer, len(TEN_MIB) - 12_345) == TEN_MIB[12_345:]
        assert sending.result() == len(TEN_MIB) - 12_345
        assert file.tell() == len(TEN_MIB)


@pytest.mark.parametrize("role", OURS)
def test_bytes_of_a_file_are_counted(role: str, digits: Path) -> None:
    with connected(role) as (stream, _), digits.open("rb") as file:
        stream.sendfile(file, 2)
        stream.sendfile(io.BytesIO(b"abc"))
        assert stream.record.bytes_out == 11


@pytest.mark.parametrize("in_memory", [False, True], ids=["on disk", "in memory"])
@pytest.mark.parametrize("role", OURS)
def test_a_reset_in_the_middle_leaves_the_file_behind_what_was_sent(
    role: str, big: Path, in_memory: bool
) -> None:
    file: Any = io.BytesIO(TEN_MIB) if in_memory else big.open("rb")
    with file, connected(role) as (stream, peer):
        sending = Background(stream.sendfile, file, 5)
        assert read_exactly(peer, 100_000) == TEN_MIB[5:100_005]
        reset(peer)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            sending.result()
        assert 100_005 <= file.tell() < len(TEN_MIB)
        assert stream.record.bytes_out == file.tell() - 5


def test_a_file_out_of_time_stands_behind_what_was_sent(pair: Pair, big: Path) -> None:
    stream, peer = pair
    stream.settimeout(0.05)
    with big.open("rb") as file:
        with pytest.raises(TimeoutError):
            stream.sendfile(file, 7)
        stream.close()
        assert len(read_to_end(peer)) == file.tell() - 7


@pytest.mark.parametrize("role", OURS)
def test_the_timeout_holds_for_a_file_as_a_whole(role: str, big: Path) -> None:
    # A plain socket restarts the time-out for each part.
    with connected(role) as (stream, peer), big.open("rb") as file:
        stream.settimeout(0.2)
        sending = Background(stream.sendfile, file)
        while sending.running:
            # There is room from time to time, but never for long.
            peer.recv(1 << 16)
            select.select([], [], [], 0.005)
        with pytest.raises(TimeoutError):
            sending.result()


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("role", OURS)
def test_ctrl_c_ends_a_file_behind_what_was_sent(role: str, big: Path) -> None:
    with connected(role) as (stream, peer), big.open("rb") as file:
        with pytest.raises(KeyboardInterrupt), Signal(signal.SIGUSR1) as interrupt:
            stream.sendfile(file)
        assert interrupt.after < 0.5
        stream.close()
        assert len(read_to_end(peer)) == file.tell()

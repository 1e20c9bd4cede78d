"""The private names of `socket.socket` that libraries use: paramiko, urllib3, and their kin."""

from __future__ import annotations

import errno
import io
import socket
from typing import Any, cast

from support import error_number, read_exactly, read_to_end
from support.roles import Pair

# Every private name of the class, but those that only a listener has, or that are steps of
# `sendfile`, which is another one here.
NAMES = {
    name
    for name in vars(socket.socket)
    if name.startswith("_")
    and not name.startswith(("__", "_accept", "_sendfile", "_check_sendfile"))
}


def test_every_private_name_is_there(pair: Pair) -> None:
    stream, _ = pair
    assert {"_closed", "_io_refs", "_real_close", "_decref_socketios"} <= NAMES
    for name in NAMES:
        assert hasattr(stream, name), name


def test_closed_is_true_from_the_close_on(pair: Pair) -> None:
    stream, _ = pair
    assert stream._closed is False
    file = stream.makefile("rb")
    stream.close()
    assert stream._closed is True
    assert stream.fileno() > 2
    file.close()
    assert stream._closed is True
    assert stream.fileno() == -1


def test_closed_is_true_after_detach(pair: Pair) -> None:
    stream, _ = pair
    with socket.socket(fileno=stream.detach()):
        assert stream._closed is True


def test_files_are_counted(pair: Pair) -> None:
    stream, _ = pair
    assert stream._io_refs == 0
    with stream.makefile("rb"), stream.makefile("wb"):
        assert stream._io_refs == 2
    assert stream._io_refs == 0


def test_a_file_that_a_program_counts_itself_keeps_the_stream_open(pair: Pair) -> None:
    # As urllib3 does for the socket under its TLS.
    stream, peer = pair
    raw = socket.SocketIO(cast(Any, stream), "rw")
    stream._io_refs += 1
    file = io.BufferedRWPair(raw, raw)
    stream.close()
    file.write(b"still open")
    file.flush()
    assert read_exactly(peer, 10) == b"still open"
    file.close()
    assert stream.fileno() == -1
    assert read_to_end(peer) == b""


def test_a_real_close_waits_for_no_file(pair: Pair) -> None:
    stream, peer = pair
    file = stream.makefile("rb")
    stream._real_close()
    assert stream.fileno() == -1
    assert read_to_end(peer) == b""
    assert error_number(lambda: stream.recv(1)) == errno.EBADF
    file.close()

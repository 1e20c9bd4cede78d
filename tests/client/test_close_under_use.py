"""A stream that one thread closes while another receives: what has been received is not lost."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support import (
    SOON,
    Background,
    error_number,
    partial,
    wait_until,
)

from rsock import Accept, Client, Server

Stream = Any
Receive = Callable[[Stream], bytes]


def filled(call: Callable[[bytearray], int]) -> bytes:
    buffer = bytearray(3)
    assert call(buffer) == 3
    return bytes(buffer)


# Every call that receives; each returns b"abc".
RECEIVES: dict[str, Receive] = {
    "recv": lambda stream: stream.recv(3),
    "recv of much": lambda stream: stream.recv(1 << 20),
    "recv of all": lambda stream: stream.recv(3, socket.MSG_WAITALL),
    "recv_into": lambda stream: filled(stream.recv_into),
    "recvfrom": lambda stream: stream.recvfrom(3)[0],
    "recvfrom_into": lambda stream: filled(lambda buffer: stream.recvfrom_into(buffer)[0]),
    "recvmsg": lambda stream: stream.recvmsg(3)[0],
    "recvmsg_into": lambda stream: filled(lambda buffer: stream.recvmsg_into([buffer])[0]),
    "recv_exactly": lambda stream: stream.recv_exactly(3),
}


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    path = "\0" + os.urandom(8).hex() if request.param == "unix" else None
    with Server(path=path, service=Accept()) as server:
        yield server


@pytest.fixture(params=["Client", "Connection"])
def ends(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[Stream, Stream]]:
    """The stream under test, and its peer, whose calls keep the interpreter: no other thread of
    Python runs between a send and the close after it."""
    with ExitStack() as stack:
        client = stack.enter_context(server.client())
        conn, _ = server.accept(SOON)
        stack.enter_context(conn)
        yield (client, conn) if request.param == "Client" else (conn, client)


@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
def test_bytes_received_before_a_close_are_returned(
    ends: tuple[Stream, Stream], receive: Receive
) -> None:
    stream, peer = ends
    reading = Background(receive, stream)
    wait_until(reading.asleep)
    peer.sendall(b"abc")
    stream.close()
    assert reading.result() == b"abc"
    assert error_number(lambda: receive(stream)) == errno.EBADF


@pytest.mark.parametrize("flags", [0, socket.MSG_WAITALL], ids=["some", "all"])
@pytest.mark.parametrize("size", [9, 1 << 20], ids=["short", "long"])
@pytest.mark.parametrize("role", ["Client", "Connection"])
def test_descriptors_received_before_a_close_are_returned(role: str, size: int, flags: int) -> None:
    read, write = os.pipe()
    name = "\0" + os.urandom(8).hex()
    with Server(path=name, service=Accept()) as server, server.client() as client:
        conn, _ = server.accept(SOON)
        with conn:
            stream, peer = (client, conn) if role == "Client" else (conn, client)
            reading = Background(stream.recvmsg, size, socket.CMSG_SPACE(4), flags)
            wait_until(reading.asleep)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, write.to_bytes(4, sys.byteorder))
            peer.sendmsg([b"abc"], [rights])
            stream.close()
            data, control, _, _ = reading.result()
            assert (data, len(control)) == (b"abc", 1)
            os.close(int.from_bytes(control[0][2], sys.byteorder))
    os.close(write)
    # No copy of the pipe's other end is left.
    assert os.read(read, 1) == b""
    os.close(read)


def test_a_datagram_received_before_a_close_is_returned() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as peer, Client(transport="udp") as other:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(SOON)
        for sent in (b"abc", b""):
            client = Client(*peer.getsockname(), transport="udp")
            client.sendto(b"here", peer.getsockname())
            _, address = peer.recvfrom(10)
            with socket.socket(fileno=os.dup(client.fileno())) as plain:
                # Heard from anywhere.
                plain.connect(("0.0.0.0", 0))
            reading = Background(client.recvfrom, 10)
            wait_until(reading.asleep)
            other.sendto(sent, address)
            client.close()
            assert reading.result()[0] == sent


@pytest.mark.parametrize(
    "receive",
    [
        lambda stream: stream.recv_exactly(9),
        lambda stream: stream.recv(9, socket.MSG_WAITALL),
        lambda stream: stream.recv(1 << 20, socket.MSG_WAITALL),
    ],
    ids=["recv_exactly", "recv of all", "recv of all of much"],
)
def test_a_call_that_a_close_cut_short_names_what_it_had(receive: Receive) -> None:
    with Server(service=Accept()) as server, server.client() as client:
        conn, _ = server.accept(SOON)
        with conn:
            reading = Background(receive, client)
            wait_until(reading.asleep)
            conn.sendall(b"abc")
            client.close()
            with pytest.raises(OSError, match="closed") as caught:
                reading.result()
            assert partial(caught.value) == b"abc"

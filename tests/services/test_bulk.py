"""Bulk data is moved inside the kernel, with the same bytes as a copy."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
from collections.abc import Iterator

import pytest
from support import (
    Background,
    dial,
    exchange,
    fds,
    output_of,
    payload,
    read_exactly,
    says_back,
    send_until_stuck,
    wait_until,
)
from support.project import TESTS

from rsock import Echo, Forward, Limits, Server, Trace

MIB = 1 << 20


def pipes() -> int:
    """The pipe ends that this process has open."""
    return sum(count for link, count in fds().items() if link.startswith("pipe:"))


@contextlib.contextmanager
def served(kind: str, limits: Limits | None = None) -> Iterator[Server]:
    """An echo server, or a forwarder to an echo server that copies."""
    if kind == "echo":
        with Server(service=Echo(), limits=limits) as server:
            yield server
    else:
        with (
            Server(limits=Limits(write_buffer=16_384)) as echo,
            Server(service=Forward(echo), limits=limits) as server,
        ):
            yield server


KINDS = ["echo", "forward"]


@pytest.mark.parametrize("kind", KINDS)
def test_bulk_is_in_a_pipe_and_small_talk_is_not(kind: str) -> None:
    before = pipes()
    with served(kind) as server, dial(server.address) as peer:
        for _ in range(100):
            assert says_back(peer)
        assert pipes() == before
        data = payload(32 * MIB)
        sent = send_until_stuck(peer, data)
        assert pipes() > before, "a pipe holds what is in flight"
        # All bytes come back, whether each part was copied or spliced.
        assert read_exactly(peer, sent) == data[:sent]
        for number in range(100):
            assert says_back(peer, b"%d" % number)
    assert pipes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_write_buffer_is_never_exceeded_by_a_pipe(kind: str) -> None:
    before = pipes()
    with served(kind, Limits(write_buffer=32_768)) as server, dial(server.address) as peer:
        sent = send_until_stuck(peer, payload(32 * MIB))
        assert pipes() == before
        [record] = server.ledger.open
        outward = record.far.bytes_out if record.far else record.bytes_out
        assert record.bytes_in - outward <= 32_768
        assert len(read_exactly(peer, sent)) == sent


def test_who_does_not_read_has_bounded_bytes_in_a_pipe(echo: Server) -> None:
    with dial(echo.address) as peer:
        sent = send_until_stuck(peer, payload(64 * MIB))
        [record] = echo.ledger.open
        assert 0 < record.bytes_in - record.bytes_out <= 256 * 1024
        assert len(read_exactly(peer, sent)) == sent


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_bulk_and_small_talk_in_turns_is_exact(kind: str, seed: int) -> None:
    """The order holds where copied bytes meet bytes in a pipe."""
    draw = random.Random(seed)
    sizes = [int(2 ** draw.uniform(0, 20)) for _ in range(60)]
    data = payload(sum(sizes), seed)

    def send(peer: socket.socket) -> None:
        view = memoryview(data)
        for size in sizes:
            peer.sendall(view[:size])
            view = view[size:]
        peer.shutdown(socket.SHUT_WR)

    with served(kind) as server, dial(server.address) as peer:
        peer.settimeout(20.0)
        sending = Background(send, peer)
        digest = hashlib.sha256()
        got = 0
        while part := peer.recv(draw.choice([100, 5_000, 65_536, MIB])):
            digest.update(part)
            got += len(part)
        sending.result(20.0)
        assert got == len(data)
        assert digest.digest() == hashlib.sha256(data).digest()
        [record] = server.ledger.wait(open=0, closed=1)
        assert (record.bytes_in, record.bytes_out) == (got, got)


@pytest.mark.parametrize("kind", KINDS)
def test_urgent_data_does_not_stop_what_is_behind_it(kind: str) -> None:
    """splice(2) stops at the urgent mark as a read does, and from then on returns only EAGAIN."""
    before, behind = payload(MIB, 1), payload(MIB, 2)

    def send(peer: socket.socket) -> None:
        peer.sendall(before)
        peer.send(b"!", socket.MSG_OOB)
        peer.sendall(behind)
        peer.shutdown(socket.SHUT_WR)

    with served(kind) as server, dial(server.address) as peer:
        sending = Background(send, peer)
        assert read_exactly(peer, 2 * MIB) == before + behind
        sending.result()
        server.ledger.wait(open=0, closed=1)


def test_a_trace_has_the_bulk_in_it() -> None:
    data = payload(2 * MIB)
    with Server(trace=Trace(bytes=16 * MIB, events=100_000)) as server:
        with dial(server.address) as peer:
            assert exchange(peer, data) == data
        [record] = server.ledger.wait(open=0, closed=1)
        assert record.trace is not None
        sent = b"".join(event.data for event in record.trace if event.direction == "in")
        assert sent == data


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_descriptor_to_spare_bulk_is_copied(kind: str) -> None:
    code = """
import os, resource, socket, sys
sys.path.insert(0, sys.argv[2])
from support import exchange, payload
from rsock import Forward, Server
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
data = payload(8 << 20)
with Server() as echo, Server(service=Forward(echo)) as forward:
    server = echo if sys.argv[1] == "echo" else forward
    with socket.create_connection(server.address) as peer:
        peer.settimeout(20.0)
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        assert exchange(peer, data) == data
        for number in held:
            os.close(number)
print("exact")
"""
    assert output_of(code, kind, str(TESTS)) == "exact\n"


def test_few_idle_pipes_are_kept() -> None:
    data = payload(MIB)
    with Server(workers=1) as server, contextlib.ExitStack() as stack:
        before = pipes()
        peers = [stack.enter_context(dial(server.address)) for _ in range(12)]
        sent = [0] * len(peers)

        def fill() -> bool:
            for number, peer in enumerate(peers):
                sent[number] += send_until_stuck(peer, data * 16, 0.01)
            if pipes() > before + 8 * 2:
                return True
            # On a busy machine some got stuck before the first full read, after which bytes are
            # moved through a pipe: what they take back lets them go on.
            for number, peer in enumerate(peers):
                sent[number] -= len(peer.recv(MIB))
            return False

        wait_until(fill, 10.0, "more than eight pipes are in use")
        for peer, size in zip(peers, sent, strict=True):
            read_exactly(peer, size)
        # An empty pipe belongs to no connection; eight of them are kept for reuse.
        wait_until(lambda: pipes() <= before + 8 * 2)

"""Forward passes everything on, in both directions, and reproduces each kind of end."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import random
import socket
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import (
    LATE,
    LOOPBACK,
    Background,
    closed_port,
    dial,
    ended,
    exchange,
    listener,
    output_of,
    payload,
    read_exactly,
    read_to_end,
    reset,
    says_back,
    send_until_stuck,
    wait_until,
    was_reset,
)

from rsock import Forward, Limits, Server, StateError

# The first buffer is too small for a full read of 64 KiB, so the bytes are always copied.
WAYS = {"copy": Limits(write_buffer=16_384), "splice": Limits()}
BULK = 1 << 20


@pytest.fixture(params=sorted(WAYS))
def limits(request: pytest.FixtureRequest) -> Limits:
    return WAYS[request.param]


@contextlib.contextmanager
def through(limits: Limits | None = None) -> Iterator[tuple[Server, socket.socket, socket.socket]]:
    """A forwarder, a client of it, and the target's end of the connection."""
    with (
        listener() as target,
        Server(service=Forward(*target.getsockname()), limits=limits) as server,
        dial(server.address) as near,
    ):
        far, _ = target.accept()
        with far:
            far.settimeout(10.0)
            near.settimeout(10.0)
            yield server, near, far


def end_of(server: Server) -> str | None:
    [record] = server.ledger.wait(open=0, closed=1)
    return record.closed_by


def turned_away(address: tuple[str, int]) -> bool:
    """Whether a connection is reset, possibly while the client still connects."""
    try:
        with dial(address) as near:
            return was_reset(near)
    except ConnectionResetError:
        return True


# --- both directions -----------------------------------------------------------------------


def test_what_reaches_one_port_goes_on_to_the_other() -> None:
    """The study notes' port 80 to port 8080, with ports that need no privileges."""
    with Server() as inner, Server(service=Forward(*inner.address)) as outer:
        with outer.client() as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv_exactly(18) == b"GET / HTTP/1.0\r\n\r\n"
            port = client.getpeername()[1]
        [seen] = inner.ledger.wait(open=0, closed=1)
        [record] = outer.ledger.wait(open=0, closed=1)
        assert port == outer.port != inner.port
        assert record.far is not None
        # Both records are of the same connection.
        assert (record.far.local, record.far.remote) == (seen.remote, seen.local)


def test_the_record_knows_both_legs() -> None:
    with through() as (server, near, far):
        near.sendall(b"twelve bytes")
        assert read_exactly(far, 12) == b"twelve bytes"
        far.sendall(b"five!")
        assert read_exactly(near, 5) == b"five!"
        [record] = server.ledger.open
        # Counted when the send returns, which may be after the bytes have arrived.
        wait_until(lambda: record.bytes_out == 5)
        assert record.bytes_in == 12
        leg = record.far
        assert leg is not None
        assert leg.remote.address == far.getsockname()
        assert leg.local.address == far.getpeername()
        assert (leg.bytes_in, leg.bytes_out, leg.messages_in, leg.messages_out) == (5, 12, 1, 1)
        assert str(leg.remote) in repr(record)
    with Server() as plain, plain.client() as client:
        assert says_back(client)
        assert plain.ledger.open[0].far is None


def test_a_server_of_this_process_is_found_by_itself() -> None:
    with Server("0.0.0.0", name="inner") as inner, Server(service=Forward(inner)) as outer:
        assert repr(outer.service) == "Forward(<Server inner>)"
        with outer.client() as client:
            assert says_back(client)


def test_a_server_that_is_forwarded_to_lives_as_long() -> None:
    inner = Server().start()
    found = weakref.ref(inner)
    with Server(service=Forward(inner)) as outer:
        del inner
        gc.collect()
        with outer.client() as client:
            assert says_back(client)
        held = found()
        assert held is not None
        held.stop()
    del outer, held
    gc.collect()
    assert found() is None


def test_a_server_without_an_address_is_no_target_yet() -> None:
    inner = Server(name="inner")
    outer = Server(service=Forward(inner))
    with pytest.raises(StateError, match="inner"):
        outer.start()
    assert outer.state == "new"
    with inner:
        outer.start()
        with outer.client() as client:
            assert says_back(client)
        outer.stop()


def test_the_client_is_served_when_the_server_speaks_first() -> None:
    with through() as (_, near, far):
        far.sendall(b"220 ready\r\n")
        assert read_exactly(near, 11) == b"220 ready\r\n"


# --- ends ----------------------------------------------------------------------------------


def finish(first: socket.socket, second: socket.socket) -> None:
    """`first` sends and finishes, which `second` sees; what that sends afterwards still arrives."""
    request, answer = payload(BULK, 1), payload(BULK, 2)
    reading = Background(read_to_end, second)
    first.sendall(request)
    first.shutdown(socket.SHUT_WR)
    assert reading.result(10.0) == request
    sending = Background(second.sendall, answer)
    assert read_exactly(first, BULK) == answer
    sending.result()


def test_the_client_finishes_and_is_still_answered(limits: Limits) -> None:
    with through(limits) as (server, near, far):
        finish(near, far)
        far.shutdown(socket.SHUT_WR)
        assert ended(near)
        assert end_of(server) == "peer"


def test_the_target_finishes_and_still_receives_from_the_client(limits: Limits) -> None:
    with through(limits) as (server, near, far):
        finish(far, near)
        near.shutdown(socket.SHUT_WR)
        assert ended(far)
        assert end_of(server) == "service"


@pytest.mark.parametrize("bulk", [0, BULK], ids=["idle", "bulk"])
def test_a_reset_of_the_client_is_a_reset_for_the_target(limits: Limits, bulk: int) -> None:
    with through(limits) as (server, near, far):
        reading = Background(read_exactly, far, bulk)
        near.sendall(payload(bulk))
        assert len(reading.result(10.0)) == bulk
        reset(near)
        assert was_reset(far)
        assert end_of(server) == "reset"


@pytest.mark.parametrize("bulk", [0, BULK], ids=["idle", "bulk"])
def test_a_reset_of_the_target_is_a_reset_for_the_client(limits: Limits, bulk: int) -> None:
    with through(limits) as (server, near, far):
        address = f"{far.getsockname()[0]}:{far.getsockname()[1]}"
        # The server has also noticed that it is connected.
        wait_until(lambda: server.ledger.open[0].far is not None)
        reading = Background(read_exactly, near, bulk)
        far.sendall(payload(bulk))
        assert len(reading.result(10.0)) == bulk
        reset(far)
        assert was_reset(near)
        [record] = server.ledger.wait(open=0, closed=1)
        assert record.closed_by == "error"
        assert record.error == f"recv {address}: Connection reset by peer"


def test_a_blocked_sender_is_woken_by_the_targets_reset(limits: Limits) -> None:
    with through(limits) as (server, near, far):
        blocked = Background(near.sendall, payload(64 * BULK))
        wait_until(blocked.asleep, what="the sender is blocked")
        reset(far)
        with pytest.raises(ConnectionError):
            blocked.result(10.0)
        assert end_of(server) == "error"


def test_a_reset_is_seen_although_the_other_side_takes_nothing(limits: Limits) -> None:
    """The forwarder does not read from the client then, so no read can report the reset."""
    with through(limits) as (server, near, far):
        send_until_stuck(near, payload(64 * BULK))
        reset(near)
        assert end_of(server) == "reset"
        with pytest.raises(ConnectionResetError):
            read_to_end(far)


@pytest.mark.parametrize("speaker", ["client", "target"])
def test_a_reply_arrives_although_its_sender_closed_with_unread_bytes(
    limits: Limits, speaker: str
) -> None:
    """Closing with unread bytes is a reset, which the forwarder may first see when it sends."""
    words = payload(20_000)
    for _ in range(15):
        with through(limits) as (server, near, far):
            one, other = (near, far) if speaker == "client" else (far, near)
            sending = Background(other.sendall, payload(BULK))
            one.recv(1)
            one.sendall(words)
            one.close()
            with contextlib.suppress(ConnectionError):
                sending.result(10.0)
            got = bytearray()
            with contextlib.suppress(ConnectionResetError):
                while data := other.recv(65_536):
                    got += data
            assert bytes(got) == words
            assert end_of(server) == ("reset" if speaker == "client" else "error")


def test_a_reply_is_not_kept_for_ever_for_a_client_that_does_not_read() -> None:
    with through(Limits(half_close=0.2, write=None)) as (server, near, far):
        speaking = Background(send_until_stuck, far, payload(64 * BULK))
        send_until_stuck(near, payload(64 * BULK))
        speaking.result(10.0)
        reset(far)
        [record] = server.ledger.wait(open=0, closed=1, timeout=10.0)
        assert record.closed_by in {"error", "limit"}


def test_a_target_may_take_longer_than_half_close_to_answer(limits: Limits) -> None:
    with through(dataclasses.replace(limits, half_close=0.2)) as (server, near, far):
        near.sendall(b"question")
        near.shutdown(socket.SHUT_WR)
        assert read_to_end(far) == b"question"
        for part in (b"an", b"swer"):
            # Longer than the limit, from the end of the question and between the parts.
            time.sleep(0.5)
            assert server.ledger.totals.open == 1
            far.sendall(part)
            assert read_exactly(near, len(part)) == part
        far.shutdown(socket.SHUT_WR)
        assert ended(near)
        assert end_of(server) == "peer"


def test_an_answer_that_does_not_come_is_waited_for_as_long_as_idle() -> None:
    with through(Limits(half_close=0.1, idle=0.6)) as (server, near, far):
        began = time.monotonic()
        near.shutdown(socket.SHUT_WR)
        assert ended(far)
        [record] = server.ledger.wait(open=0, closed=1)
        assert (record.closed_by, record.limit) == ("limit", "idle")
        assert time.monotonic() - began > 0.5


def test_a_client_that_does_not_end_after_the_target_is_given_up_after_half_close() -> None:
    with through(Limits(half_close=0.2)) as (server, near, far):
        far.sendall(b"good bye")
        far.shutdown(socket.SHUT_WR)
        assert read_to_end(near) == b"good bye"
        [record] = server.ledger.wait(open=0, closed=1)
        assert (record.closed_by, record.limit) == ("limit", "half_close")
        with contextlib.suppress(ConnectionResetError):
            assert ended(far)


# --- bytes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_duplex_in_random_chunks_is_exact(limits: Limits, seed: int) -> None:
    up, down = payload(BULK, seed), payload(BULK, seed + 100)

    def talk(stream: socket.socket, data: bytes, number: int) -> None:
        draw = random.Random(number)
        view = memoryview(data)
        while view:
            size = int(2 ** draw.uniform(0, 17))
            stream.sendall(view[:size])
            view = view[size:]
        stream.shutdown(socket.SHUT_WR)

    with through(limits) as (server, near, far):
        talking = [Background(talk, near, up, seed), Background(talk, far, down, seed + 1)]
        hearing = Background(read_to_end, far)
        assert read_to_end(near) == down
        assert hearing.result(20.0) == up
        for each in talking:
            each.result(20.0)
        [record] = server.ledger.wait(open=0, closed=1)
        leg = record.far
        assert leg is not None
        assert (record.bytes_in, leg.bytes_out) == (BULK, BULK)
        assert (leg.bytes_in, record.bytes_out) == (BULK, BULK)


def test_who_does_not_read_is_not_sent_more_than_buffers_hold(limits: Limits) -> None:
    """Back-pressure passes from the target through the forwarder to the client."""
    data = payload(256 * BULK // 4)
    with (
        listener() as target,
        Server(service=Forward(*target.getsockname()), limits=limits) as server,
        dial(server.address) as near,
    ):
        far, _ = target.accept()
        with far:
            sent = send_until_stuck(near, data)
            assert sent < len(data), "the client was not delayed"
            [record] = server.ledger.open
            assert record.far is not None
            held = record.bytes_in - record.far.bytes_out
            assert held <= max(limits.write_buffer, BULK)
            sending = Background(near.sendall, memoryview(data)[sent:])
            far.settimeout(20.0)
            assert read_exactly(far, len(data)) == data
            sending.result(20.0)


# --- an absent target ----------------------------------------------------------------------


def test_a_target_that_refuses_resets_the_client() -> None:
    with closed_port() as address, Server(service=Forward(*address)) as server:
        assert turned_away(server.address)
        [record] = server.ledger.wait(open=0, closed=1)
        assert record.closed_by == "error"
        assert record.error == f"connect {address[0]}:{address[1]}: Connection refused"
        assert record.far is None


def test_a_target_that_does_not_answer_is_given_up_in_time(full_listener: tuple[str, int]) -> None:
    service = Forward(*full_listener, connect_timeout=0.3)
    with Server(service=service) as server, dial(server.address) as near:
        assert was_reset(near)
        [record] = server.ledger.wait(open=0, closed=1)
        assert record.error == f"connect {full_listener[0]}:{full_listener[1]}: timed out"
        assert 0.3 <= record.seconds < 5.0


def test_a_client_that_resets_meanwhile_is_not_kept(full_listener: tuple[str, int]) -> None:
    with Server(service=Forward(*full_listener)) as server:
        with dial(server.address) as near:
            server.ledger.wait(open=1)
            reset(near)
            assert end_of(server) == "reset"


def test_a_name_that_does_not_resolve_is_said_at_start() -> None:
    server = Server(service=Forward("no-such-host.invalid", 80))
    with pytest.raises(socket.gaierror):
        server.start()
    assert server.state == "new"
    assert server.fileno() == -1


def test_the_target_may_come_later() -> None:
    with closed_port() as address:
        server = Server(service=Forward("localhost", address[1])).start()
        assert turned_away(server.address)
    with socket.socket() as target:
        target.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        target.bind(address)
        target.listen()
        target.settimeout(10.0)
        with dial(server.address) as near:
            far, _ = target.accept()
            with far:
                near.sendall(b"at last")
                assert read_exactly(far, 7) == b"at last"
    server.stop()


# --- loops ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "target"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "127.1.2.3"),
        ("127.0.0.1", "0.0.0.0"),
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "::ffff:127.0.0.1"),
        ("::", "127.0.0.1"),
        ("::1", "::1"),
    ],
)
def test_a_forwarder_to_itself_does_not_start(own: str, target: str) -> None:
    with closed_port() as (_, port):
        pass
    server = Server(own, port, Forward(target, port))
    with pytest.raises(ValueError, match=rf"leads back to this server.*{port}"):
        server.start()
    assert server.state == "new"


def test_a_circle_of_forwarders_does_not_close() -> None:
    with closed_port() as (_, port):
        pass
    with (
        Server(service=Forward(LOOPBACK, port)) as first,
        Server(service=Forward(first)) as second,
        pytest.raises(ValueError, match="leads back"),
    ):
        Server(LOOPBACK, port, Forward(second)).start()


# --- several connections, and the stop -----------------------------------------------------


@pytest.mark.parametrize("count", [1_000])
def test_many_short_connections(count: int) -> None:
    with Server() as inner, Server(service=Forward(inner)) as outer:

        def some(number: int) -> None:
            for each in range(number, count, 4):
                with dial(outer.address) as peer:
                    assert exchange(peer, b"%d" % each) == b"%d" % each

        for each in [Background(some, number) for number in range(4)]:
            each.result(50.0)
        records = outer.ledger.wait(open=0, closed=count)
        inner.ledger.wait(open=0, closed=count)
        assert {record.closed_by for record in records} == {"peer"}
        assert outer.ledger.totals.bytes_in == outer.ledger.totals.bytes_out


def test_an_idle_forwarder_stops_at_once() -> None:
    with Server() as inner, Server(service=Forward(inner)) as outer:
        with outer.client() as client:
            assert says_back(client)
            report = outer.stop(drain=10.0)
            assert (report.drained, report.forced) == (1, 0)
            assert report.seconds < 5.0
            assert client.recv(1) == b""
        inner.ledger.wait(open=0, closed=1)


def test_a_stop_waits_for_the_targets_answer() -> None:
    with through() as (server, near, far):
        near.sendall(b"question")
        assert read_exactly(far, 8) == b"question"
        stopping = Background(server.stop, 10.0)
        wait_until(lambda: server.state == "draining")
        near.settimeout(0.1)
        with pytest.raises(TimeoutError):
            near.recv(1)
        near.settimeout(10.0)
        far.sendall(b"answer")
        assert read_to_end(near) == b"answer"
        assert ended(far)
        report = stopping.result(10.0)
        assert (report.drained, report.forced) == (1, 0)


def test_a_stop_waits_for_the_end_of_an_answer_to_one_who_has_finished() -> None:
    with through() as (server, near, far):
        near.sendall(b"question")
        near.shutdown(socket.SHUT_WR)
        assert read_to_end(far) == b"question"
        far.sendall(b"one ")
        assert read_exactly(near, 4) == b"one "
        stopping = Background(server.stop, 10.0)
        wait_until(lambda: server.state == "draining")
        far.sendall(b"two")
        far.shutdown(socket.SHUT_WR)
        assert read_to_end(near) == b"two"
        report = stopping.result(10.0)
        assert (report.drained, report.forced) == (1, 0)


def test_a_stop_resets_both_legs_at_its_deadline() -> None:
    with through() as (server, near, far):
        near.sendall(b"question")
        assert read_exactly(far, 8) == b"question"
        report = server.stop(drain=0.3)
        assert (report.drained, report.forced) == (0, 1)
        assert was_reset(near)
        assert was_reset(far)


def test_a_stop_resets_who_waits_for_a_target(full_listener: tuple[str, int]) -> None:
    with Server(service=Forward(*full_listener)) as server, dial(server.address) as near:
        server.ledger.wait(open=1)
        report = server.stop(drain=0.2)
        assert report.forced == 1
        assert report.seconds < LATE
        assert was_reset(near)


def test_sigpipe_does_no_harm() -> None:
    """Also where the program has left SIGPIPE at its default, which ends the process."""
    code = """
import signal, socket
from rsock import Forward, Server
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
with socket.create_server(("127.0.0.1", 0)) as target:
    with Server(service=Forward(*target.getsockname())) as server:
        for _ in range(20):
            with socket.create_connection(server.address) as near:
                far, _ = target.accept()
                far.close()
                try:
                    for _ in range(64):
                        near.sendall(bytes(1 << 17), socket.MSG_NOSIGNAL)
                except ConnectionError:
                    pass
        server.ledger.wait(open=0, closed=20)
print("alive")
"""
    assert output_of(code) == "alive\n"


# --- Unix sockets --------------------------------------------------------------------------


@contextlib.contextmanager
def unix_listener(path: str | bytes, backlog: int = 16) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(backlog)
        listening.settimeout(10.0)
        yield listening


def test_a_port_leads_to_a_unix_socket_and_back(limits: Limits, tmp_path: Path) -> None:
    path = str(tmp_path / "target")
    with (
        unix_listener(path) as target,
        Server(service=Forward(path=path), limits=limits) as server,
        dial(server.address) as near,
    ):
        far, _ = target.accept()
        with far:
            far.settimeout(10.0)
            finish(near, far)
        assert ended(near)
        [record] = server.ledger.wait(open=0, closed=1)
        assert record.far is not None
        assert (record.far.remote.transport, record.far.remote.address) == ("unix", path)
        assert (record.far.bytes_out, record.far.bytes_in) == (BULK, BULK)


def test_a_unix_socket_leads_to_a_port(tmp_path: Path) -> None:
    path = str(tmp_path / "own")
    with Server() as echo, Server(path=path, service=Forward(echo)) as server:
        with server.client(timeout=10.0) as client:
            data = payload(BULK)
            sending = Background(client.sendall, data)
            assert client.recv_exactly(BULK) == data
            sending.result()
    with Server(path=path) as echo, Server(service=Forward(echo)) as server:
        with server.client(timeout=10.0) as client:
            assert says_back(client)


def test_a_unix_target_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "absent")
    with Server(service=Forward(path=path)) as server:
        assert turned_away(server.address)
        [record] = server.ledger.wait(open=0, closed=1)
        assert record.error == f"connect {path}: No such file or directory"


def test_a_unix_target_whose_queue_is_full_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "busy")
    with unix_listener(path, 0) as target, Server(service=Forward(path=path)) as server:
        with contextlib.ExitStack() as stack:
            waiting = []
            while True:
                peer = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                peer.setblocking(False)
                if peer.connect_ex(path):
                    break
                waiting.append(peer)
            near = stack.enter_context(dial(server.address))
            near.sendall(b"patience")
            server.ledger.wait(open=1)
            for _ in waiting:
                target.accept()[0].close()
            far, _ = target.accept()
            with far:
                assert read_exactly(far, 8) == b"patience"


def test_a_unix_forwarder_to_itself_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "own"
    server = Server(path=path, service=Forward(path=path))
    with pytest.raises(ValueError, match="leads back"):
        server.start()
    with pytest.raises(ValueError, match="a Unix socket is for streams"):
        Server(transport="udp", service=Forward(path=path)).start()


# --- what is said to a wrong target ---------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("127.0.0.1", 0), ValueError),
        (("127.0.0.1", 65_536), OverflowError),
        (("127.0.0.1",), TypeError),
        (("", 80), ValueError),
        ((None, 80), TypeError),
        ((80,), TypeError),
        ((), TypeError),
    ],
    ids=repr,
)
def test_a_target_that_can_be_none_is_refused_at_once(
    arguments: tuple[object, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Forward(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1"], ids=repr)
def test_a_connect_timeout_is_a_time(timeout: object) -> None:
    with pytest.raises((TypeError, ValueError), match="connect_timeout"):
        Forward("127.0.0.1", 80, connect_timeout=timeout)  # type: ignore[arg-type]


def test_services_and_hosts_may_be_names_and_pairs() -> None:
    assert repr(Forward("localhost", "http")) == "Forward('localhost', 80)"
    assert repr(Forward(("::1", 8080))) == "Forward('::1', 8080)"
    assert repr(Forward(path="/tmp/x")) == "Forward(path='/tmp/x')"
    with pytest.raises(TypeError, match="path="):
        Forward("localhost", 80, path="/tmp/x")

"""Faults on datagrams: each kind, on every kind of server, in both directions."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from support import LATE, SOON, Background, wait_until
from support.on_a_wire import on_a_wire, wired

from rsock import Accept, Discard, Forward, Handler, Limits, Server
from rsock.faults import Bandwidth, Blackhole, Corrupt, Drop, Duplicate, Latency, Reorder

# The receive buffers of all sockets hold this many.
BURST = 50


def echo(data: bytes, address: object) -> bytes:
    return data


def serve_calls(server: Server) -> None:
    """Echo what `server.accept()` returns, until the server ends."""
    for data, address in server:
        server.sendto(data, address)


@contextlib.contextmanager
def plain_echo() -> Iterator[tuple[str, int]]:
    """An echo server made of a plain socket."""

    def answer(peer: socket.socket) -> None:
        while (received := peer.recvfrom(70_000))[0] != b"end":
            peer.sendto(*received)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        answering = Background(answer, peer)
        try:
            yield peer.getsockname()
        finally:
            peer.sendto(b"end", peer.getsockname())
            answering.result()


Serving = Callable[..., contextlib.AbstractContextManager[Server]]


def serving(shape: str) -> Serving:
    """What starts a server that echoes: `serving(shape)(transport="udp", **settings)`."""

    @contextlib.contextmanager
    def start(**settings: Any) -> Iterator[Server]:
        with contextlib.ExitStack() as stack:
            service: Any = None
            if shape == "handler":
                service = echo
            elif shape == "accept":
                service = Accept()
            elif shape == "forward":
                service = Forward(*stack.enter_context(plain_echo()))
            server = stack.enter_context(Server(service=service, **settings))
            if shape == "accept":
                accepting = Background(serve_calls, server)
                stack.callback(accepting.result)
                stack.callback(server.stop)
            yield server

    return start


SHAPES = ["service", "handler", "accept", "forward"]
# A forwarder of datagrams serves UDP alone.
ON_UNIX = [f"{shape}-unix" for shape in SHAPES if shape != "forward"]


@pytest.fixture(params=[*SHAPES, *ON_UNIX])
def started(request: pytest.FixtureRequest, path: str) -> Serving:
    """What starts an echo server, in each shape and over both transports."""
    shape, _, unix = request.param.partition("-")
    place = {"path": path, "transport": "unix-datagram"} if unix else {"transport": "udp"}

    def start(**settings: Any) -> contextlib.AbstractContextManager[Server]:
        return serving(shape)(**place, **settings)

    return start


@contextlib.contextmanager
def plain(server: Server) -> Iterator[socket.socket]:
    """A plain socket that is connected to a server."""
    unix = server.transport != "udp"
    family = socket.AF_UNIX if unix else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.settimeout(SOON)
        peer.bind("" if unix else ("127.0.0.1", 0))
        peer.connect(server.address)
        yield peer


def struck(server: Server) -> int:
    """How often the faults of a server have done something."""
    return sum(count.events for count in server.faults.counts())


def arriving(peer: socket.socket, is_complete: Callable[[int], bool]) -> list[bytes]:
    """What a peer receives until there is as much as it waits for."""
    got: list[bytes] = []

    def enough() -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                got.append(peer.recv(70_000))
        return is_complete(len(got))

    peer.settimeout(0.0)
    wait_until(enough)
    peer.settimeout(SOON)
    return got


def exchange(
    server: Server, count: int, expected: Callable[[int, int], int] = lambda sent, events: sent
) -> list[int]:
    """The numbers that come back of those that a peer sends, in their order.

    `expected(sent, events)` is how many datagrams come back of `sent` where faults have struck
    `events` times.
    """
    numbers: list[int] = []
    with plain(server) as peer:
        for start in range(0, count, BURST):
            end = min(start + BURST, count)
            for number in range(start, end):
                peer.send(number.to_bytes(4))

            before = len(numbers)
            wait_until(partial(has_received, server, end))

            def is_complete(got: int, sent: int = end, before: int = before) -> bool:
                return before + got == expected(sent, struck(server))

            numbers += [int.from_bytes(data) for data in arriving(peer, is_complete)]
        return numbers


def has_received(server: Server, count: int) -> bool:
    return server.ledger.totals.messages_in == count


def lost(sent: int, events: int) -> int:
    return sent - events


def doubled(sent: int, events: int) -> int:
    return sent + events


def events(server: Server) -> list[tuple[str, str, int]]:
    """What the records of a server have of its faults."""
    records = [*server.ledger.open, *server.ledger.closed]
    return [(one.action, one.direction, one.offset) for it in records for one in it.faults]


# --- Drop, Duplicate, Reorder --------------------------------------------------------------


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_the_seed_alone_says_which_datagrams_are_lost(started: Serving, direction: Any) -> None:
    fault = Drop(0.3, direction=direction)
    with started(faults=[fault], seed=5) as server:
        kept = exchange(server, 200, lost)
    with serving("service")(transport="udp", faults=[fault], seed=5) as other:
        assert exchange(other, 200, lost) == kept, "the shape of a server changes nothing"
    with serving("service")(transport="udp", faults=[fault], seed=6) as other:
        assert exchange(other, 200, lost) != kept
    # Four standard deviations of the binomial distribution and more.
    share = 0.7 if direction != "both" else 0.49
    assert 200 * share - 30 < len(kept) < 200 * share + 30
    assert kept == sorted(kept)


def test_what_is_lost_is_in_the_record(started: Serving) -> None:
    with started(faults=[Drop(1.0, direction="up")]) as server, plain(server) as peer:
        peer.send(b"one")
        peer.send(b"")
        wait_until(lambda: struck(server) == 2)
        totals = server.ledger.totals
        assert (totals.messages_in, totals.messages_out) == (2, 0)
        assert events(server) == [("dropped", "up", 0), ("dropped", "up", 1)]
        (record,) = server.ledger.open
        assert [event.size for event in record.faults] == [3, 0]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_seed_alone_says_which_datagrams_arrive_twice(started: Serving, direction: Any) -> None:
    fault = Duplicate(0.3, direction=direction)
    with started(faults=[fault], seed=5) as server:
        numbers = exchange(server, 200, doubled)
        record = server.ledger.open[0]
        # A datagram is counted after it has been sent.
        wait_until(lambda: record.messages_out == len(numbers))
        assert {event.action for event in record.faults} == {"duplicated"}
    twice = [number for number, copies in itertools.groupby(numbers) if len([*copies]) == 2]
    assert 30 < len(twice) < 90
    assert len(numbers) == 200 + len(twice)
    assert sorted(set(numbers)) == list(range(200))
    with serving("service")(transport="udp", faults=[fault], seed=5) as other:
        assert exchange(other, 200, doubled) == numbers


def test_twice_in_both_directions_makes_four(started: Serving) -> None:
    with started(faults=[Duplicate(1.0, direction="both")]) as server, plain(server) as peer:
        peer.send(b"x")
        assert arriving(peer, lambda count: count == 4) == [b"x"] * 4
        assert server.ledger.totals.messages_in == 1, "one has come over the network"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_reorder_loses_nothing_and_holds_within_its_window(
    started: Serving, direction: Any
) -> None:
    with started(faults=[Reorder(0.2, window=2, direction=direction)], seed=7) as server:
        numbers = exchange(server, 4 * BURST)
        assert ("reordered", direction) in {event[:2] for event in events(server)}
    assert sorted(numbers) == list(range(4 * BURST))
    assert numbers != sorted(numbers)
    assert max(at - number for at, number in enumerate(numbers)) <= 2


def test_a_datagram_that_none_follows_is_held_for_a_tenth_of_a_second(started: Serving) -> None:
    with started(faults=[Reorder(1.0)]) as server, plain(server) as peer:
        before = time.monotonic()
        peer.send(b"alone")
        assert peer.recv(100) == b"alone"
        assert time.monotonic() - before >= 0.1


# --- Latency, Bandwidth --------------------------------------------------------------------


@pytest.mark.parametrize(("direction", "ways"), [("up", 1), ("down", 1), ("both", 2)])
def test_no_datagram_comes_early_or_out_of_order(
    started: Serving, direction: Any, ways: int
) -> None:
    with started(faults=[Latency(0.05, direction=direction)]) as server:
        with plain(server) as peer:
            before = time.monotonic()
            for number in range(20):
                peer.send(bytes([number]))
            peer.send(b"")
            numbers = arriving(peer, lambda count: count == 21)
            assert time.monotonic() - before >= 0.05 * ways
            assert numbers == [*(bytes([number]) for number in range(20)), b""]
            assert {event[0] for event in events(server)} == {"delayed"}


@pytest.mark.parametrize("direction", ["up", "down"])
def test_datagrams_go_at_the_pace_of_the_line_and_whole(started: Serving, direction: Any) -> None:
    sent = [bytes([number]) * 500 for number in range(10)]
    with started(faults=[Bandwidth(50_000, direction=direction)]) as server, plain(server) as peer:
        before = time.monotonic()
        for data in sent:
            peer.send(data)
        assert arriving(peer, lambda count: count == 10) == sent
        assert time.monotonic() - before >= 0.1


def test_what_is_held_is_not_sent_yet_for_the_books(started: Serving) -> None:
    with started(faults=[Latency(60)]) as server, plain(server) as peer:
        peer.send(b"held")
        wait_until(lambda: struck(server) == 1)
        totals = server.ledger.totals
        assert (totals.messages_in, totals.messages_out) == (1, 0)
        server.stop(drain=0)


def test_a_handler_gets_a_delayed_datagram_later() -> None:
    called: list[tuple[float, bytes]] = []

    def note(data: bytes, address: object) -> None:
        called.append((time.monotonic(), data))

    faults = [Latency(0.05, jitter=0.04, direction="up")]
    with Server(service=Handler(note, ordered=True), transport="udp", faults=faults) as server:
        with plain(server) as peer:
            before = time.monotonic()
            for number in range(20):
                peer.send(bytes([number]))
            wait_until(lambda: len(called) == 20)
    assert called[0][0] - before >= 0.01
    assert [data for _, data in called] == [bytes([number]) for number in range(20)]


# --- Corrupt, Blackhole --------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["up", "down"])
def test_one_byte_of_a_corrupted_datagram_is_another_one(started: Serving, direction: Any) -> None:
    data = bytes(100)
    with started(faults=[Corrupt(1.0, direction=direction)]) as server, plain(server) as peer:
        for number in range(20):
            peer.send(data)
            got = peer.recv(200)
            assert len(got) == 100
            assert sum(one != other for one, other in zip(data, got, strict=True)) == 1
            wait_until(partial(is_noted, server, ("corrupted", direction, number)))
        peer.send(b"")
        assert peer.recv(10) == b"", "there is no byte to change"


def is_noted(server: Server, event: tuple[str, str, int]) -> bool:
    return event in events(server)


def test_a_black_hole_loses_datagrams_and_gives_none_back(started: Serving) -> None:
    with started() as server, plain(server) as peer:
        peer.send(b"before")
        assert peer.recv(10) == b"before"
        with server.fault(Blackhole()):
            for _ in range(5):
                peer.send(b"lost")
            wait_until(lambda: struck(server) == 5)
        peer.send(b"after")
        assert peer.recv(10) == b"after"


def test_a_window_of_time_ends_by_itself_and_what_was_held_goes_on(started: Serving) -> None:
    with started(faults=[Latency(60, when=(0, 0.2))]) as server, plain(server) as peer:
        before = time.monotonic()
        peer.send(b"held")
        assert peer.recv(10) == b"held"
        # From the start of the peer's record, which is later than that.
        assert time.monotonic() - before >= 0.2
        peer.send(b"after")
        assert peer.recv(10) == b"after"


# --- the peers that a fault concerns -------------------------------------------------------


def test_only_the_first_peers_have_a_fault_that_is_for_them(started: Serving) -> None:
    with started(faults=[Drop(1.0, connections=1)]) as server:
        with plain(server) as first, plain(server) as second:
            first.send(b"lost")
            wait_until(lambda: struck(server) == 1)
            second.send(b"kept")
            assert second.recv(10) == b"kept"
            first.settimeout(0.0)
            with pytest.raises(BlockingIOError):
                first.recv(10)


def test_each_peer_has_draws_of_its_own() -> None:
    with Server(transport="udp", faults=[Drop(0.5, direction="up")], seed=1) as server:
        for peers in (1, 2):
            with plain(server) as peer:
                for number in range(BURST):
                    peer.send(bytes([number]))
                wait_until(partial(has_received, server, peers * BURST))
        one, other = ([event.offset for event in it.faults] for it in server.ledger.open)
    assert one != other
    assert all(10 < len(struck) < 40 for struck in (one, other))


# --- on a running server -------------------------------------------------------------------


def test_a_peer_has_a_fault_once_it_was_added_and_no_longer_than_that(started: Serving) -> None:
    with started() as server, plain(server) as known, plain(server) as new:
        known.send(b"before")
        assert known.recv(10) == b"before"
        for peer in (known, new):
            with server.fault(Latency(0.05)):
                before = time.monotonic()
                peer.send(b"within")
                assert peer.recv(10) == b"within"
                assert time.monotonic() - before >= 0.05
        with server.fault(Drop(1.0, direction="up")):
            known.send(b"lost")
            wait_until(lambda: ("dropped", "up", 0) in events(server))
        known.send(b"after")
        assert known.recv(10) == b"after"


def test_what_a_removed_fault_holds_goes_on_in_order(started: Serving) -> None:
    with started() as server, plain(server) as peer:
        with server.fault(Latency(60, direction="up")), server.fault(Latency(60)):
            for number in range(10):
                peer.send(bytes([number]))
            wait_until(lambda: has_received(server, 10))
        peer.send(b"last")
        got = arriving(peer, lambda count: count == 11)
        assert got == [*(bytes([number]) for number in range(10)), b"last"]


def test_datagrams_keep_their_order_while_faults_come_and_go(started: Serving) -> None:
    with started() as server, plain(server) as peer:
        got: list[bytes] = []

        def receive() -> None:
            for _ in range(600):
                got.append(peer.recv(10))

        def is_behind(number: int) -> bool:
            return number - len(got) < 30

        receiving = Background(receive)
        done = threading.Event()

        def disturb() -> None:
            while not done.is_set():
                with server.fault(Latency(0.002, jitter=0.002, direction="both")):
                    pass

        disturbing = Background(disturb)
        for number in range(600):
            # No more on their way than every buffer holds.
            wait_until(partial(is_behind, number))
            peer.send(number.to_bytes(4))
        receiving.result()
        done.set()
        disturbing.result()
    assert [int.from_bytes(data) for data in got] == list(range(600))


def test_every_worker_has_the_fault_when_the_call_returns() -> None:
    with Server(transport="udp", workers=2) as server:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(plain(server)) for _ in range(16)]
            for peer in peers:
                peer.send(b"x")
                peer.recv(10)
            with server.fault(Drop(1.0)):
                for peer in peers:
                    peer.send(b"x")
                wait_until(lambda: struck(server) == 16)
            for peer in peers:
                peer.send(b"y")
                assert peer.recv(10) == b"y"


def test_many_changes_at_once_are_all_confirmed() -> None:
    with Server(transport="udp") as server, plain(server) as peer:

        def change() -> None:
            for _ in range(50):
                with server.fault(Latency(0.0)):
                    pass

        changing = [Background(change) for _ in range(4)]
        for one in changing:
            one.result()
        peer.send(b"x")
        assert peer.recv(10) == b"x"


def test_replies_of_a_handler_in_any_order_are_lost_as_well() -> None:
    service = Handler(echo, ordered=False)
    with Server(service=service, transport="udp", faults=[Drop(0.3)]) as server:
        numbers = exchange(server, 2 * BURST, lost)
    assert 40 < len(set(numbers)) == len(numbers) < 100


# --- the end -------------------------------------------------------------------------------


def test_a_stop_waits_for_replies_that_are_held(started: Serving) -> None:
    with started(faults=[Latency(0.2)]) as server, plain(server) as peer:
        before = time.monotonic()
        peer.send(b"held")
        wait_until(lambda: struck(server) == 1)
        report = server.stop(drain=SOON)
        assert peer.recv(10) == b"held"
        assert time.monotonic() - before >= 0.2
        assert (report.drained, report.forced) == (1, 0)


@pytest.mark.parametrize("shape", ["service", "handler", "forward"])
def test_a_stop_waits_for_datagrams_on_their_way_to_the_service(shape: str) -> None:
    faults = [Latency(0.1, direction="both")]
    with serving(shape)(transport="udp", faults=faults) as server, plain(server) as peer:
        peer.send(b"held")
        wait_until(lambda: has_received(server, 1))
        report = server.stop(drain=SOON)
        assert peer.recv(10) == b"held"
        assert (report.drained, report.forced) == (1, 0)


def test_a_stop_discards_what_no_call_of_accept_has_asked_for() -> None:
    faults = [Latency(60, direction="up")]
    with Server(service=Accept(), transport="udp", faults=faults) as server:
        with plain(server) as peer:
            peer.send(b"held")
            wait_until(lambda: server.ledger.totals.messages_in == 1 or accepts_nothing(server))
            before = time.monotonic()
            server.stop(drain=SOON)
            assert time.monotonic() - before < LATE
    assert server.ledger.totals.dropped == 1


def accepts_nothing(server: Server) -> bool:
    """Whether a call of accept() finds nothing to return. It receives, as no other thread does."""
    try:
        server.accept(timeout=0.01)
    except TimeoutError:
        return False
    return True


def test_a_stop_forces_what_is_held_at_the_deadline(started: Serving) -> None:
    with started(faults=[Latency(60)]) as server, plain(server) as peer:
        peer.send(b"held")
        wait_until(lambda: struck(server) == 1)
        before = time.monotonic()
        report = server.stop(drain=0.2)
        assert 0.2 <= time.monotonic() - before < 0.2 + LATE
        assert (report.drained, report.forced) == (0, 1)
        assert server.ledger.totals.dropped == 1


def test_a_second_stop_ends_the_wait_of_the_first() -> None:
    with Server(transport="udp", faults=[Latency(60)]) as server, plain(server) as peer:
        peer.send(b"held")
        wait_until(lambda: struck(server) == 1)
        stopping = Background(server.stop, drain=SOON)
        wait_until(lambda: server.state == "draining")
        server.stop(drain=0)
        assert stopping.result().forced == 1


# --- limits --------------------------------------------------------------------------------


def test_a_peer_of_which_something_is_held_is_not_idle(started: Serving) -> None:
    limits = Limits(idle=0.05)
    with started(faults=[Latency(0.3)], limits=limits) as server, plain(server) as peer:
        peer.send(b"held")
        assert peer.recv(10) == b"held"
        (record,) = server.ledger.wait(open=0, closed=1)
        assert (record.closed_by, record.limit, record.messages_out) == ("limit", "idle", 1)


def test_a_peer_that_makes_room_for_another_loses_what_is_held() -> None:
    limits = Limits(connections=1)
    with Server(transport="udp", faults=[Latency(60, connections=1)], limits=limits) as server:
        with plain(server) as first, plain(server) as second:
            first.send(b"held")
            wait_until(lambda: struck(server) == 1)
            second.send(b"served")
            assert second.recv(10) == b"served"
            assert server.ledger.totals.dropped == 1


def test_what_is_held_of_a_peer_is_bounded() -> None:
    faults = [Latency(60, direction="up")]
    with Server(transport="udp", service=Discard(), faults=faults) as server:
        with plain(server) as peer:
            # 17 of them are less than 1 MiB.
            for number in range(20):
                peer.send(bytes(60_000))
                wait_until(partial(has_received, server, number + 1))
            assert server.ledger.totals.dropped == 3
        with plain(server) as peer:
            for number in range(100):
                for _ in range(BURST):
                    peer.send(b"")
                wait_until(partial(has_received, server, 20 + BURST * (number + 1)))
            assert server.ledger.totals.dropped == 3 + 100 * BURST - 4096
        server.stop(drain=0)


def test_a_sender_without_a_name_gets_no_answer(path: str) -> None:
    with Server(path=path, transport="unix-datagram", faults=[Latency(0.01)]) as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.connect(path)
            peer.send(b"from no one")
            wait_until(lambda: server.ledger.totals.dropped == 1)
        with plain(server) as peer:
            peer.send(b"from someone")
            assert peer.recv(100) == b"from someone"


@wired
@pytest.mark.parametrize(
    ("service", "dropped"),
    # The second call of a handler may send nothing: its one reply is lost before it is doubled.
    [("None", 3), ("lambda data, address: data", 2)],
    ids=["service", "handler"],
)
def test_outside_the_loopback_no_more_bytes_are_sent_than_have_come(
    service: str, dropped: int
) -> None:
    on_a_wire(
        f"""
from rsock.faults import Duplicate
with serve({service}, faults=[Duplicate(1.0, direction="both")]) as server:
    wire.send(FORGED, (HOST, server.port), b"as much out as in")
    wait_until(lambda: server.ledger.totals.dropped == {dropped})
    assert server.ledger.totals.messages_out == 1
"""
    )


# --- calls of accept -----------------------------------------------------------------------


def test_accept_returns_a_delayed_datagram_in_its_time() -> None:
    faults = [Latency(0.2, direction="up")]
    with Server(service=Accept(), transport="udp", faults=faults) as server:
        with plain(server) as peer:
            before = time.monotonic()
            peer.send(b"later")
            with pytest.raises(TimeoutError):
                server.accept(timeout=0.05)
            data, address = server.accept(timeout=SOON)
            assert time.monotonic() - before >= 0.2
            assert (data, address) == (b"later", peer.getsockname())


def test_a_call_that_waits_gets_what_another_call_has_received() -> None:
    faults = [Latency(0.1, direction="up")]
    with Server(service=Accept(), transport="udp", faults=faults) as server:
        calls = [Background(server.accept, timeout=SOON) for _ in range(3)]
        wait_until(lambda: all(call.asleep() for call in calls))
        with plain(server) as peer:
            for number in range(3):
                peer.send(bytes([number]))
            got = [call.result()[0] for call in calls]
    assert sorted(got) == [b"\0", b"\1", b"\2"]

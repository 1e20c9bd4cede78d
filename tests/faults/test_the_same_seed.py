"""The same seed gives the same faults, event for event, whatever else differs between two runs."""

from __future__ import annotations

import contextlib
import random
import socket
from itertools import accumulate
from typing import Any, NamedTuple

import pytest
from support import SOON, Background, dial, says_back

from rsock import Accept, Connection, Forward, Handler, Record, Server
from rsock.faults import CloseAfter, Corrupt, Fault, Garbage, Latency, Reset, Slice, Truncate

DATA = random.Random(1).randbytes(6_000)
# Each of them draws: how long, how large, which bytes, which connections.
WHOLE: list[Fault] = [
    Latency(0.0005, jitter=0.0005, distribution="normal", direction="both"),
    Slice(500, 300, direction="both"),
    Corrupt(0.005, direction="both"),
]
# All in one direction: how much has gone the other way when a connection ends is a matter of time.
ENDING: list[Fault] = [
    Latency(0.0005, jitter=0.0005, distribution="lognormal"),
    Slice(500, 300),
    Corrupt(0.005),
    Reset(after_bytes=4_000, direction="down", probability=0.3),
    CloseAfter(after_bytes=2_500, direction="down", probability=0.3),
    Truncate(1_500, probability=0.3),
    Garbage(300, probability=0.2),
]
CONNECTIONS = 8


class Event(NamedTuple):
    """An event of a fault without its time."""

    fault: str
    direction: str
    offset: int
    size: int
    action: str


class Outcome(NamedTuple):
    """What came of one connection."""

    received: bytes
    was_reset: bool
    closed_by: str | None
    fault: str | None
    events: list[Event]


def events_of(record: Record) -> list[Event]:
    assert record.faults.more == 0
    # Which of two directions comes first is a matter of time.
    return sorted(
        Event(event.fault, event.direction, event.offset, event.size, event.action)
        for event in record.faults
    )


def chunks_of(chunking: random.Random) -> list[bytes]:
    """The data in chunks: of one size, or of many."""
    sizes = chunking.choice([[len(DATA)], [97], [1_000], [1, 2_000], [13, 700, 3_000]])
    ends = list(accumulate(chunking.choices(sizes, k=len(DATA))))
    starts = [0, *(end for end in ends if end < len(DATA))]
    return [DATA[a:b] for a, b in zip(starts, [*starts[1:], len(DATA)], strict=True)]


def talk(server: Server, number: int, chunks: list[bytes]) -> Outcome:
    """One connection: everything is sent in chunks, and everything is read."""
    got, was_reset = bytearray(), False
    with dial(server.address) as client:

        def send() -> bool:
            # Faults end connections. The system tells of a reset once: the reader, or this thread.
            try:
                for chunk in chunks:
                    client.sendall(chunk)
                client.shutdown(socket.SHUT_WR)
            except ConnectionResetError:
                return True
            except OSError:
                pass
            return False

        sending = Background(send)
        try:
            while part := client.recv(65_536):
                got += part
        except ConnectionResetError:
            was_reset = True
        was_reset |= sending.result()
    records = server.ledger.wait(open=0, closed=number, timeout=SOON)
    record = next(record for record in records if record.id == number)
    return Outcome(bytes(got), was_reset, record.closed_by, record.fault, events_of(record))


def run(server: Server, chunking: random.Random) -> tuple[list[Outcome], list[Any]]:
    outcomes = [talk(server, n, chunks_of(chunking)) for n in range(1, CONNECTIONS + 1)]
    return outcomes, server.faults.counts()


def differences(one: list[Outcome], other: list[Outcome]) -> list[str]:
    """What two runs differ in, for the message of an assertion."""
    found = []
    for number, (a, b) in enumerate(zip(one, other, strict=True), 1):
        found += [
            f"{number}.{name}: {x!r:.300} for {y!r:.300}"
            for name, x, y in zip(Outcome._fields, a, b, strict=True)
            if x != y
        ]
    return found


@pytest.mark.parametrize("faults", [WHOLE, ENDING], ids=["whole", "ending"])
def test_a_hundred_runs_are_the_same_however_the_client_chunks_and_workers_share(
    faults: list[Fault],
) -> None:
    with Server(faults=faults, seed=6) as server:
        first, counts = run(server, random.Random(0))
    if faults is ENDING:
        # Every fault struck, and none of them everywhere.
        assert {None, "reset", "close"} <= {outcome.fault for outcome in first}
        assert len({event.action for outcome in first for event in outcome.events}) == len(faults)
    for number in range(100):
        with Server(faults=faults, seed=6, workers=[1, 2, 4][number % 3]) as server:
            again, other_counts = run(server, random.Random(number))
        assert again == first, differences(again, first)
        assert other_counts == counts


def test_another_seed_gives_other_faults() -> None:
    def outcomes(seed: int) -> list[Outcome]:
        with Server(faults=WHOLE, seed=seed) as server:
            return run(server, random.Random(0))[0]

    assert outcomes(15) != outcomes(14)


def echo(conn: Connection) -> None:
    with contextlib.suppress(OSError):
        while data := conn.recv(1_000):
            conn.sendall(data)


def accept_all(server: Server) -> None:
    for conn, _ in server:
        with conn:
            echo(conn)


@pytest.mark.parametrize("shape", ["forward", "handler", "accept"])
def test_every_service_has_the_same_faults_of_a_seed(shape: str) -> None:
    def of_faults(outcomes: list[Outcome]) -> list[tuple[bytes, list[Event]]]:
        return [(outcome.received, outcome.events) for outcome in outcomes]

    with Server(faults=WHOLE, seed=3) as server:
        expected = of_faults(run(server, random.Random(0))[0])
    for number in range(10):
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(Server())
            service = {
                "forward": Forward(*target.address),
                "handler": Handler(echo),
                "accept": Accept(),
            }
            server = stack.enter_context(Server(service=service[shape], faults=WHOLE, seed=3))
            if shape == "accept":
                accepting = Background(accept_all, server)
                stack.callback(accepting.result)
                stack.callback(server.stop)
            outcomes, _ = run(server, random.Random(number))
        assert of_faults(outcomes) == expected


def test_a_seed_that_was_drawn_can_be_used_again() -> None:
    with Server(faults=WHOLE) as server:
        first, _ = run(server, random.Random(1))
    seed = server.stop().seed
    assert seed == server.seed
    with Server(faults=WHOLE, seed=seed) as server:
        again, _ = run(server, random.Random(2))
    assert again == first, differences(again, first)


def test_servers_without_a_seed_draw_different_ones() -> None:
    assert len({Server().seed for _ in range(20)}) == 20


def test_a_fault_added_later_draws_by_its_number_in_the_order_of_adding() -> None:
    def corrupted(before: int) -> list[Event]:
        with Server(seed=5) as server, dial(server.address) as client:
            assert says_back(client)
            for _ in range(before):
                with server.fault(Latency(0.0)):
                    pass
            with server.fault(Corrupt(0.05)):
                client.sendall(bytes(500))
                got = bytearray()
                while len(got) < 500:
                    got += client.recv(500)
                [record] = server.ledger.open
                events = events_of(record)
            assert [event.offset for event in events] == [i for i, byte in enumerate(got) if byte]
            return events

    assert corrupted(1) == corrupted(1)
    assert corrupted(1) != corrupted(2)

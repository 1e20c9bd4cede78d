"""The ledger: every connection accounted for, and books that balance."""

from __future__ import annotations

import contextlib
import time

import pytest
from support import (
    LOOPBACK,
    Background,
    dial,
    payload,
    read_exactly,
    reset,
    says_back,
    wait_until,
)

from rsock import Client, Endpoint, Ledger, Record, Server, Totals


def test_a_new_ledger_is_empty() -> None:
    with Server() as server:
        ledger = server.ledger
        assert isinstance(ledger, Ledger)
        assert (ledger.open, ledger.closed, list(ledger), len(ledger)) == ([], [], [], 0)
        totals = ledger.totals
        assert isinstance(totals, Totals)
        assert (totals.accepted, totals.open, totals.closed, totals.refused) == (0, 0, 0, 0)


def test_a_record_counts_messages_bytes_and_bits(echo_pair: tuple[Server, Client]) -> None:
    server, client = echo_pair
    for size in (5, 10, 100):
        client.sendall(payload(size))
        assert client.recv_exactly(size) == payload(size)
    [record] = server.ledger.open
    # What was sent is counted once the system has taken it, which a fast peer may see before.
    wait_until(lambda: record.bytes_out == 115)
    assert (record.messages_in, record.messages_out) == (3, 3)
    assert (record.bytes_in, record.bytes_out) == (115, 115)
    assert (record.bits_in, record.bits_out) == (920, 920)


def test_a_record_knows_both_ends(echo_pair: tuple[Server, Client]) -> None:
    server, client = echo_pair
    assert says_back(client)
    [record] = server.ledger.open
    assert isinstance(record, Record)
    assert record.transport == "tcp"
    assert record.local == Endpoint("tcp", server.address)
    assert record.remote == Endpoint("tcp", client.getsockname()[:2])
    assert record.remote.host == LOOPBACK
    assert str(record.local) == f"{LOOPBACK}:{server.port}"


def test_a_record_knows_its_time(echo: Server) -> None:
    before = time.time()
    with dial(echo.address) as peer:
        assert says_back(peer)
        [record] = echo.ledger.open
        assert before - 0.1 <= record.opened_at <= time.time() + 0.1
        first = record.seconds
        assert 0.0 <= first < 5.0
        assert says_back(peer)
        assert record.seconds > first
    echo.ledger.wait(open=0)
    [record] = echo.ledger.closed
    final = record.seconds
    time.sleep(0.01)
    assert record.seconds == final
    assert record.opened_at + final <= time.time() + 0.1


def test_a_record_of_an_open_connection_is_live(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer, b"12345")
        [record] = echo.ledger.open
        assert (record.bytes_in, record.closed_by, record.limit, record.error) == (
            5,
            None,
            None,
            None,
        )
        assert says_back(peer, b"12345")
        [again] = echo.ledger.open
        assert again.id == record.id
        assert again.bytes_in == 10
    echo.ledger.wait(open=0)
    [closed] = echo.ledger.closed
    assert (closed.id, closed.closed_by) == (record.id, "peer")


def test_every_end_that_there_is_has_its_name() -> None:
    server = Server().start()
    with dial(server.address) as leaves:
        assert says_back(leaves)
    server.ledger.wait(open=0)
    resets = dial(server.address)
    assert says_back(resets)
    reset(resets)
    server.ledger.wait(open=0)
    with dial(server.address) as stays:
        assert says_back(stays)
        server.stop()
    assert [record.closed_by for record in server.ledger.closed] == ["peer", "reset", "stop"]
    ends = server.ledger.totals.closed_by
    assert (ends["peer"], ends["reset"], ends["stop"], sum(ends.values())) == (1, 1, 1, 3)


def test_totals_balance_at_every_moment(echo: Server) -> None:
    def come_and_go() -> None:
        for _ in range(40):
            with dial(echo.address) as peer:
                assert says_back(peer)

    clients = [Background(come_and_go) for _ in range(4)]
    while any(client.running for client in clients):
        totals = echo.ledger.totals
        assert totals.accepted == totals.open + totals.closed
        assert totals.closed == sum(totals.closed_by.values())
    for client in clients:
        client.result()
    echo.ledger.wait(open=0, closed=160)
    totals = echo.ledger.totals
    assert (totals.accepted, totals.open, totals.closed) == (160, 0, 160)
    assert (totals.bytes_in, totals.bytes_out) == (800, 800)
    assert (totals.messages_in, totals.messages_out) == (160, 160)
    assert (totals.bits_in, totals.bits_out) == (6_400, 6_400)
    assert totals.accept_errors == 0


def test_totals_count_what_open_connections_have_moved(echo_pair: tuple[Server, Client]) -> None:
    server, client = echo_pair
    assert says_back(client, b"1234567")
    wait_until(lambda: server.ledger.totals.bytes_out == 7)
    totals = server.ledger.totals
    assert (totals.bytes_in, totals.open) == (7, 1)


def test_ids_increase_from_one_connection_to_the_next(echo: Server) -> None:
    for _ in range(10):
        with dial(echo.address) as peer:
            assert says_back(peer)
    echo.ledger.wait(open=0)
    ids = [record.id for record in echo.ledger.closed]
    assert ids == sorted(set(ids))
    assert len(ids) == 10


def test_history_is_bounded_and_the_totals_are_not() -> None:
    with Server(history=5) as server:
        for _ in range(12):
            with dial(server.address) as peer:
                assert says_back(peer)
            server.ledger.wait(open=0)
        closed = server.ledger.closed
        assert len(closed) == len(server.ledger) == 5
        ids = [record.id for record in closed]
        assert ids == list(range(ids[0], ids[0] + 5))
        totals = server.ledger.totals
        assert (totals.accepted, totals.closed, totals.bytes_in) == (12, 12, 60)


def test_a_history_of_none_keeps_only_the_totals() -> None:
    with Server(history=0) as server:
        for _ in range(3):
            with dial(server.address) as peer:
                assert says_back(peer)
        server.ledger.wait(open=0, closed=3)
        assert (server.ledger.closed, len(server.ledger)) == ([], 0)
        assert server.ledger.totals.closed == 3


def test_a_ledger_is_iterated_closed_and_open(echo: Server) -> None:
    for _ in range(3):
        with dial(echo.address) as peer:
            assert says_back(peer)
    echo.ledger.wait(open=0, closed=3)
    with dial(echo.address) as peer:
        assert says_back(peer)
        ledger = echo.ledger
        assert len(ledger) == 4
        assert len(list(ledger)) == 4
        assert {record.id for record in ledger} == {
            record.id for record in [*ledger.closed, *ledger.open]
        }
        for _ in ledger:
            # To change it meanwhile is no error.
            with dial(echo.address) as other:
                assert says_back(other)


def test_a_ledger_can_be_read_after_its_server_has_gone() -> None:
    server = Server().start()
    with dial(server.address) as peer:
        assert says_back(peer)
        ledger = server.ledger
        server.stop()
    del server
    assert ledger.totals.accepted == 1
    assert [record.closed_by for record in ledger] == ["stop"]


# --- waiting for it ------------------------------------------------------------------------


def test_wait_returns_at_once_when_it_is_so_already(echo: Server) -> None:
    assert echo.ledger.wait(open=0, closed=0, timeout=0) == []
    with dial(echo.address) as peer:
        assert says_back(peer)
        [record] = echo.ledger.wait(open=1, timeout=0)
        assert record.closed_by is None


def test_wait_wakes_promptly(echo: Server) -> None:
    for _ in range(20):
        waiting = Background(echo.ledger.wait, 1, None, 5.0)
        with dial(echo.address):
            began = time.monotonic()
            waiting.result()
            assert time.monotonic() - began < 0.3
            waiting = Background(echo.ledger.wait, 0, None, 5.0)
        began = time.monotonic()
        waiting.result()
        assert time.monotonic() - began < 0.3


def test_wait_for_open_means_exactly_so_many(echo: Server) -> None:
    with dial(echo.address) as first, dial(echo.address) as second:
        assert says_back(first)
        assert says_back(second)
        with pytest.raises(TimeoutError):
            echo.ledger.wait(open=1, timeout=0.05)
        assert len(echo.ledger.wait(open=2)) == 2


def test_wait_for_closed_means_at_least_so_many_since_the_start() -> None:
    with Server(history=1) as server:
        for _ in range(3):
            with dial(server.address) as peer:
                assert says_back(peer)
        server.ledger.wait(closed=3)
        server.ledger.wait(closed=1, timeout=0)
        with pytest.raises(TimeoutError):
            server.ledger.wait(closed=4, timeout=0.05)


def test_wait_names_what_did_not_come(echo: Server) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        echo.ledger.wait(open=3, closed=7, timeout=0.1)
    assert 0.09 < time.monotonic() - began < 1.0
    assert "3" in str(caught.value)
    assert "7" in str(caught.value)


def test_several_threads_may_wait_at_once(echo: Server) -> None:
    waiting = [Background(echo.ledger.wait, None, number) for number in (1, 2, 3)]
    for _ in range(3):
        with dial(echo.address) as peer:
            assert says_back(peer)
    for call in waiting:
        call.result()


def test_wait_ends_when_the_server_stops() -> None:
    server = Server().start()
    with dial(server.address) as peer:
        assert says_back(peer)
        waiting = Background(server.ledger.wait, 0, 1, None)
        server.stop()
    waiting.result()


@pytest.mark.parametrize("bad", [{"open": -1}, {"closed": -1}, {"timeout": -1.0}])
def test_wait_refuses_numbers_below_zero(echo: Server, bad: dict[str, int]) -> None:
    with pytest.raises((ValueError, OverflowError)):
        echo.ledger.wait(**{"open": 0, **bad})


def test_many_short_connections_are_all_counted(echo: Server) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(150):
            peer = stack.enter_context(dial(echo.address))
            peer.sendall(b"x")
            if number % 3 == 0:
                assert read_exactly(peer, 1) == b"x"
                peer.close()
            elif number % 3 == 1:
                reset(peer)
    echo.ledger.wait(open=0, closed=150)
    totals = echo.ledger.totals
    assert (totals.accepted, totals.closed) == (150, 150)
    assert totals.closed_by["peer"] + totals.closed_by["reset"] == 150

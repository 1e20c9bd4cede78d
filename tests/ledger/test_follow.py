"""Following a ledger: it yields each connection as that closes."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator

import pytest
from support import LATE, Background, Signal, dial, fds, output_of, reset, says_back, wait_until

from rsock import Accept, Record, Server


def come_and_go(server: Server, times: int = 1) -> None:
    for _ in range(times):
        with dial(server.address) as peer:
            assert says_back(peer)
        server.ledger.wait(open=0)


def test_connections_are_yielded_in_the_order_of_their_ends(echo: Server) -> None:
    records = echo.ledger.follow(timeout=5.0)
    first, second = dial(echo.address), dial(echo.address)
    assert says_back(first)
    assert says_back(second)
    second.close()
    one = next(records)
    reset(first)
    two = next(records)
    assert [type(one), type(two)] == [Record, Record]
    assert (one.closed_by, two.closed_by) == ("peer", "reset")
    assert one.id > two.id
    assert one == echo.ledger.closed[0]


def test_what_closed_before_is_not_yielded(echo: Server) -> None:
    come_and_go(echo, 3)
    records = echo.ledger.follow(timeout=5.0)
    come_and_go(echo)
    assert next(records).id == 4


def test_following_ends_with_the_server() -> None:
    server = Server().start()
    yielded = Background(list[Record], server.ledger.follow())
    come_and_go(server, 3)
    with dial(server.address) as peer:
        assert says_back(peer)
        server.stop()
    records = yielded.result()
    assert [record.id for record in records] == [1, 2, 3, 4]
    assert records[-1].closed_by == "stop"
    # It also ends where the server has stopped before.
    assert list(server.ledger.follow()) == []


def test_following_ends_though_the_server_was_never_started() -> None:
    stopped, dropped = Server(), Server()
    yielded = [Background(list[Record], s.ledger.follow()) for s in (stopped, dropped)]
    stopped.stop()
    del dropped
    gc.collect()
    assert [each.result() for each in yielded] == [[], []]


def test_following_goes_on_when_a_start_has_failed() -> None:
    with Server() as holder:
        server = Server(*holder.address)
        records = server.ledger.follow(timeout=5.0)
        with pytest.raises(OSError, match="bind"):
            server.start()
    with server:
        come_and_go(server)
        assert next(records).id == 1
    assert list(records) == []


def test_handlers_and_accepted_connections_are_yielded_too() -> None:
    with Server(service=lambda connection: None) as server:
        records = server.ledger.follow(timeout=5.0)
        with dial(server.address):
            assert next(records).closed_by == "local"
    with Server(service=Accept()) as server:
        records = server.ledger.follow(timeout=5.0)
        with dial(server.address):
            connection, _ = server.accept(5.0)
            connection.close()
            assert next(records).closed_by == "local"


def test_a_wait_for_the_next_one_ends_in_time_and_can_be_repeated(echo: Server) -> None:
    records = echo.ledger.follow(timeout=0.1)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="follow"):
        next(records)
    assert 0.09 < time.monotonic() - began < LATE
    come_and_go(echo)
    assert next(records).id == 1
    with pytest.raises(TimeoutError):
        next(records)


def test_who_waits_is_woken_promptly(echo: Server) -> None:
    records = echo.ledger.follow()
    for number in range(1, 11):
        waiting = Background(next, records)
        with dial(echo.address) as peer:
            assert says_back(peer)
            wait_until(waiting.asleep)
            began = time.monotonic()
        assert waiting.result().id == number
        assert time.monotonic() - began < LATE


def test_each_follower_gets_all(echo: Server) -> None:
    followers = [echo.ledger.follow() for _ in range(3)]
    yielded = [Background(list[Record], itertools.islice(each, 5)) for each in followers]
    come_and_go(echo, 5)
    for each in yielded:
        assert [record.id for record in each.result()] == [1, 2, 3, 4, 5]


def test_threads_that_share_a_follower_share_the_records(echo: Server) -> None:
    records = echo.ledger.follow()

    def take() -> list[int]:
        return [record.id for record in records]

    yielded = [Background(take) for _ in range(4)]
    come_and_go(echo, 40)
    echo.stop()
    parts = [each.result() for each in yielded]
    assert sorted(itertools.chain(*parts)) == list(range(1, 41))
    assert all(part == sorted(part) for part in parts)


def test_what_the_ledger_has_forgotten_is_missed_and_counted() -> None:
    with Server(history=3) as server:
        records = server.ledger.follow(timeout=5.0)
        come_and_go(server, 2)
        assert (next(records).id, records.missed) == (1, 0)
        come_and_go(server, 8)
        assert [next(records).id for _ in range(3)] == [8, 9, 10]
        assert records.missed == 6


def test_a_ledger_that_remembers_nothing_cannot_be_followed() -> None:
    with pytest.raises(ValueError, match="history=0"):
        Server(history=0).ledger.follow()


@pytest.mark.parametrize(
    ("bad", "error"), [(-1.0, ValueError), ("soon", TypeError)], ids=["negative", "text"]
)
def test_a_timeout_that_is_none_is_refused(echo: Server, bad: float, error: type) -> None:
    with pytest.raises(error, match="timeout"):
        echo.ledger.follow(timeout=bad)


@pytest.fixture
def quiet(interrupts: None) -> Iterator[Server]:
    with Server() as server:
        yield server


def test_an_interrupt_ends_the_wait_and_nothing_else(quiet: Server) -> None:
    records = quiet.ledger.follow()
    with Signal() as sent:
        with pytest.raises(KeyboardInterrupt):
            next(records)
    assert sent.after < 1.0
    come_and_go(quiet)
    assert next(records).id == 1


def test_following_holds_no_descriptor_while_no_call_waits(echo: Server) -> None:
    before = fds()
    records = echo.ledger.follow(timeout=0.05)
    assert fds() == before
    with pytest.raises(TimeoutError):
        next(records)
    assert fds() == before


def test_a_forked_child_gets_an_error_that_names_the_owner() -> None:
    code = """
import os, rsock
with rsock.Server() as server:
    with server.client() as client:
        client.sendall(b"x")
        client.recv_exactly(1)
        [record] = server.ledger.open
        records = server.ledger.follow()
        child = os.fork()
        if not child:
            said = []
            for use in (lambda: next(records), lambda: record.tcp_info, lambda: record.trace):
                try:
                    use()
                except RuntimeError as error:
                    said.append(str(os.getppid()) in str(error))
            print(said, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(record.tcp_info.state)
"""
    said = output_of(code, options=("-W", "ignore::DeprecationWarning"))
    assert said == "[True, True, True]\nESTABLISHED\n"

"""`server.faults` and `server.fault(…)`: faults that are added to a server, and removed again."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import SOON, Background, output_of, says_back, wait_until
from support.interrupts import InterruptAt

import rsock
from rsock import Client, FaultCount, Server, StateError
from rsock.faults import Fault, Latency, Reset

# Long enough to be told from an answer at once, on a busy machine as well.
LATE = 0.25


@pytest.fixture
def served() -> Iterator[tuple[Server, Client]]:
    with Server(seed=42) as server, server.client(timeout=SOON) as client:
        assert says_back(client)
        yield server, client


def seconds_of_an_answer(client: Client) -> float:
    started = time.monotonic()
    assert says_back(client)
    return time.monotonic() - started


def test_a_block_has_its_fault_in_force_on_open_and_new_connections(
    served: tuple[Server, Client],
) -> None:
    server, client = served
    with server.fault(Latency(LATE)) as fault:
        assert fault == Latency(LATE)
        assert server.faults == [fault]
        assert seconds_of_an_answer(client) >= LATE
        with server.client(timeout=SOON) as another:
            assert seconds_of_an_answer(another) >= LATE
        assert server.faults.counts() == [FaultCount(fault, 2, 2)]
    assert server.faults == []
    assert seconds_of_an_answer(client) < LATE


def test_a_block_removes_its_fault_when_its_body_raises(served: tuple[Server, Client]) -> None:
    server, client = served
    with pytest.raises(ZeroDivisionError), server.fault(Latency(LATE)):
        _ = 1 / 0
    assert len(server.faults) == 0
    assert seconds_of_an_answer(client) < LATE


def test_what_a_removed_fault_holds_goes_on_at_once(served: tuple[Server, Client]) -> None:
    server, client = served
    with server.fault(Latency(3600)):
        client.sendall(b"held")
        wait_until(lambda: server.ledger.totals.bytes_in >= 9)
    assert client.recv_exactly(4) == b"held"


def test_a_block_ends_quietly_when_the_server_has_stopped() -> None:
    with Server() as server, server.fault(Latency(0.0)):
        server.stop()
    assert server.faults == []


def test_blocks_of_one_object_may_be_nested(served: tuple[Server, Client]) -> None:
    server, client = served
    block = server.fault(Latency(LATE))
    with block, block:
        assert server.faults == [Latency(LATE)] * 2
        assert seconds_of_an_answer(client) >= 2 * LATE
    assert server.faults == []


def test_a_fault_removed_inside_its_block_is_no_error(served: tuple[Server, Client]) -> None:
    server, _ = served
    with server.fault(Latency(1.0)) as fault:
        server.faults.remove(fault)
    with server.fault(Latency(1.0)):
        server.faults.clear()
    assert server.faults == []


def test_an_asynchronous_block_does_not_hold_up_the_loop(served: tuple[Server, Client]) -> None:
    server, client = served

    async def main() -> None:
        async with server.fault(Latency(LATE)) as fault:
            assert fault in server.faults
            assert await asyncio.to_thread(seconds_of_an_answer, client) >= LATE
        assert server.faults == []

    asyncio.run(main())


def test_a_cancelled_asynchronous_block_leaves_no_fault(served: tuple[Server, Client]) -> None:
    server, _ = served

    async def block() -> None:
        async with server.fault(Latency(1.0)):
            await asyncio.sleep(SOON)

    async def main(turns: int) -> None:
        task = asyncio.create_task(block())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for turns in range(8):
        asyncio.run(main(turns))
        assert server.faults == []


def test_the_view_is_a_sequence_in_the_order_of_adding(served: tuple[Server, Client]) -> None:
    server, _ = served
    first, second, third = Latency(0.001), Latency(0.002), Reset(after_seconds=3600)
    faults = server.faults
    assert [faults.add(fault) for fault in (first, second, third)] == [first, second, third]
    assert list(faults) == [first, second, third]
    assert list(reversed(faults)) == [third, second, first]
    assert (faults[0], faults[-1], faults[1:]) == (first, third, [second, third])
    assert len(faults) == 3
    assert second in faults
    assert Latency(0.003) not in faults
    assert faults.index(third) == 2
    faults.remove(second)
    assert faults == [first, third]
    faults.clear()
    assert not faults
    assert faults == server.faults == ()


def test_the_same_object_may_be_there_twice_and_one_is_removed_at_a_time(
    served: tuple[Server, Client],
) -> None:
    server, client = served
    fault = Latency(LATE)
    server.faults.add(fault)
    server.faults.add(fault)
    assert server.faults.count(fault) == 2
    assert seconds_of_an_answer(client) >= 2 * LATE
    server.faults.remove(fault)
    assert server.faults == [fault]
    assert seconds_of_an_answer(client) >= LATE
    server.faults.remove(fault)
    with pytest.raises(ValueError, match=r"Latency\(0\.25\) is not one of the faults of server-"):
        server.faults.remove(fault)


def test_an_equal_fault_is_removed_and_this_very_one_first(served: tuple[Server, Client]) -> None:
    server, _ = served
    one, other = Latency(0.001), Latency(0.001)
    server.faults.add(one)
    server.faults.add(other)
    server.faults.remove(other)
    assert server.faults[0] is one
    server.faults.remove(Latency(0.001))
    assert server.faults == []


def test_faults_of_the_constructor_are_there_and_can_be_removed() -> None:
    with Server(faults=[Latency(LATE), Latency(0.0)]) as server, server.client() as client:
        assert server.faults == [Latency(LATE), Latency(0.0)]
        assert seconds_of_an_answer(client) >= LATE
        server.faults.remove(Latency(LATE))
        assert seconds_of_an_answer(client) < LATE


def test_a_fault_added_before_the_start_is_in_force_from_the_first_byte() -> None:
    server = Server()
    with server.fault(Latency(LATE)):
        with server.start(), server.client(timeout=SOON) as client:
            assert seconds_of_an_answer(client) >= LATE
        assert server.state == "stopped"


@pytest.mark.parametrize("change", ["add", "remove", "clear"])
def test_the_faults_of_a_stopped_server_cannot_be_changed(change: str) -> None:
    fault = Latency(0.0)
    with Server(faults=[fault]) as server:
        pass
    assert server.faults == [fault]
    call = getattr(server.faults, change)
    with pytest.raises(StateError, match="fault: the server is stopped"):
        call() if change == "clear" else call(fault)
    with pytest.raises(StateError), server.fault(fault):
        pytest.fail("the block began")
    assert server.faults == [fault]


@pytest.mark.parametrize("wrong", [None, 5, "latency", Latency, object()])
def test_what_is_no_fault_is_refused_before_anything_is_changed(
    served: tuple[Server, Client], wrong: object
) -> None:
    server, _ = served
    calls: list[Callable[[Any], object]] = [server.faults.add, server.fault]
    for call in calls:
        with pytest.raises(TypeError, match="fault|Latency is a class"):
            call(wrong)
    assert server.faults == []


def test_a_fault_of_streams_cannot_be_added_to_datagrams() -> None:
    with Server(transport="udp") as server:
        with pytest.raises(ValueError, match="not a fault of datagrams"):
            server.faults.add(Reset(after_bytes=1))
        assert server.faults == []


def test_displays_name_the_faults_and_the_seed(served: tuple[Server, Client]) -> None:
    server, _ = served
    assert "seed" not in repr(server)
    with server.fault(Latency(0.001)):
        assert repr(server).endswith(", seed 42>")
        assert repr(server.faults) == f"<FaultView [Latency(0.001)] of {server.name}, seed 42>"
        assert repr(server.fault(Latency(1.0))) == "<FaultBlock Latency(1.0)>"


def test_the_report_of_a_stop_has_the_seed_of_a_server_with_faults() -> None:
    with Server(faults=[Latency(0.0)]) as server:
        drawn = server.seed
    assert server.stop().seed == drawn
    with Server(faults=[Latency(0.0)], seed=7) as server:
        server.faults.clear()
    assert server.stop().seed == 7
    with Server(seed=7) as server:
        pass
    assert server.stop().seed is None
    with Server(faults=[Latency(0.0)], seed=8) as server:
        reports = rsock.stop_all()
    assert [report.seed for report in reports] == [8]


def test_threads_may_change_the_faults_at_once(workers: int) -> None:
    with Server(workers=workers) as server, server.client(timeout=SOON) as client:
        over = threading.Event()

        def change(fault: Fault) -> None:
            while not over.is_set():
                server.faults.add(fault)
                with server.fault(fault):
                    server.faults.counts()
                server.faults.remove(fault)

        threads = [Background(change, Latency(number / 10_000)) for number in range(4)]
        for _ in range(200):
            assert says_back(client)
        over.set()
        for thread in threads:
            thread.result()
        assert server.faults == []
        assert seconds_of_an_answer(client) < SOON


def test_a_handler_may_change_the_faults_of_its_own_server() -> None:
    def handler(conn: rsock.Connection) -> None:
        with server.fault(Latency(LATE)):
            conn.sendall(b"late")

    with Server(service=handler, faults=[]) as server, server.client(timeout=SOON) as client:
        assert client.recv_exactly(4) == b"late"
        server.ledger.wait(open=0, timeout=SOON)
        assert server.faults == []


def test_an_interrupt_at_any_step_leaves_a_block_with_its_fault_or_without() -> None:
    with Server() as server, server.client(timeout=SOON) as client:
        for step in range(1, 1000):
            at = InterruptAt(step)
            try:
                with at, server.fault(Latency(0.0)):
                    assert len(server.faults) == 1
            except KeyboardInterrupt:
                pass
            assert server.faults == []
            if not at.happened:
                break
        assert step > 2
        assert says_back(client)


def test_an_interrupt_at_any_step_of_a_change_leaves_the_view_usable() -> None:
    with Server() as server, server.client(timeout=SOON) as client:
        for step in range(1, 1000):
            at = InterruptAt(step)
            try:
                with at:
                    server.faults.add(Latency(0.0))
                    server.faults.remove(Latency(0.0))
                    server.faults.add(Latency(0.0))
                    server.faults.clear()
            except KeyboardInterrupt:
                pass
            assert len(server.faults) in (0, 1)
            server.faults.clear()
            if not at.happened:
                break
        assert step > 4
        assert says_back(client)


FORKED = """
import os, sys, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from rsock import Server
from rsock.faults import Latency

def refused(call):
    try:
        call()
    except RuntimeError as error:
        return str(os.getppid()) in str(error)
    return False

with Server() as server:
    view = server.faults
    with server.fault(Latency(0.0)):
        child = os.fork()
        if child == 0:
            calls = [
                lambda: server.faults, lambda: view.add(Latency(0.0)), lambda: list(view),
                view.clear, lambda: view.remove(Latency(0.0)), view.counts,
                server.fault(Latency(0.0)).__enter__,
            ]
            code = 0 if all(refused(call) for call in calls) and repr(view) else 5
    if child == 0:
        # The block has ended quietly in the child.
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(server.faults))
"""


def test_a_forked_child_cannot_change_the_faults_of_its_parent() -> None:
    assert output_of(FORKED) == "0 0\n"


def test_a_server_with_faults_and_a_block_that_is_kept_are_collected() -> None:
    server = Server(faults=[Latency(0.0)])
    block = server.fault(Latency(0.0))
    gone = weakref.ref(server)
    del server, block
    gc.collect()
    assert gone() is None

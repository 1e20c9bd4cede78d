"""pymodbus behind faults: a device whose answers are late, in pieces, or cut.

The device is a handler that answers Modbus/TCP requests for holding registers; the register with
the address n has the value n, so that each answer tells which request it is for.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator

import pytest
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException
from support import SOON

from rsock import Connection, Server
from rsock.faults import CloseAfter, Fault, Latency, Reset, Slice

# Transaction, protocol (0), length of the rest, unit; then function, first register, count.
HEAD = struct.Struct(">HHHB")
QUESTION = struct.Struct(">BHH")
READ_HOLDING_REGISTERS = 3


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """pymodbus logs what the tests provoke."""
    logger = logging.getLogger("pymodbus")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def device(connection: Connection) -> None:
    while head := connection.recv_exactly(HEAD.size):
        transaction, _, _, unit = HEAD.unpack(head)
        function, first, count = QUESTION.unpack(connection.recv_exactly(QUESTION.size))
        assert function == READ_HOLDING_REGISTERS
        values = struct.pack(f">{count}H", *range(first, first + count))
        answer = bytes([function, len(values)]) + values
        connection.sendall(HEAD.pack(transaction, 0, len(answer) + 1, unit) + answer)


def faulty(*faults: Fault) -> Server:
    return Server(service=device, faults=faults, seed=1, on_error="raise")


def client_of(server: Server, *, timeout: float = SOON, retries: int = 0) -> ModbusTcpClient:
    host, port = server.address
    return ModbusTcpClient(host, port=port, timeout=timeout, retries=retries)


def registers(client: ModbusTcpClient, first: int, count: int) -> list[int]:
    answer = client.read_holding_registers(first, count=count)
    assert not answer.isError()
    return list(answer.registers)


def test_an_answer_in_pieces_of_one_byte_is_one_answer() -> None:
    with faulty(Slice(1)) as server, client_of(server) as client:
        for first in range(0, 500, 100):
            assert registers(client, first, 100) == list(range(first, first + 100))


def test_a_question_in_pieces_reaches_the_device_whole() -> None:
    with faulty(Slice(3, variation=2, direction="up")) as server, client_of(server) as client:
        for first in range(20):
            assert registers(client, first, 2) == [first, first + 1]


def test_the_answer_to_a_repeated_question_is_not_taken_for_the_next_one() -> None:
    # For 0.5 s every answer is held, so that the first question is asked three times at least.
    with faulty(Latency(3.0, when=(0.0, 0.5))) as server:
        with client_of(server, timeout=0.15, retries=20) as client:
            for first in range(100, 110):
                assert registers(client, first, 1) == [first]
            [record] = server.ledger
            assert [event.action for event in record.faults] == ["delayed"]
            # Some of the answers were to no question any more.
            assert record.messages_out > 10


@pytest.mark.parametrize("cut", [CloseAfter, Reset])
def test_an_answer_that_is_cut_is_an_error_and_the_client_connects_again(
    cut: type[CloseAfter | Reset],
) -> None:
    fault = cut(after_bytes=30, direction="down", connections=1)
    with faulty(fault) as server, client_of(server, timeout=1.0) as client:
        assert registers(client, 7, 1) == [7]
        with pytest.raises((ModbusException, OSError)):
            registers(client, 100, 100)
        client.close()
        assert registers(client, 100, 100) == list(range(100, 200))
        first, _ = server.ledger.wait(open=1, closed=1)
        assert first.closed_by == "fault"
        assert first.bytes_out == 30

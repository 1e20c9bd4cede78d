"""Socket numbers of RFC 147, and the numbers of records."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support import dial, has_ipv6, reserved_port, says_back

from rsock import Accept, Server
from rsock.rfc147 import SocketNumber, SocketPair, pair


def test_the_parts_are_where_the_rfc_has_them() -> None:
    number = SocketNumber(home=0x12, user=0x3456, plug=0x3C, polarity=1)
    assert number.pack() == int(number) == 0x12_3456_79
    assert number.tag == 0x79
    assert SocketNumber.unpack(0x12_3456_79) == number


@pytest.mark.parametrize(
    ("parts", "number"),
    [((0, 0, 0, 0), 0), ((255, 65_535, 127, 1), 2**32 - 1), ((1, 0, 0, 0), 1 << 24)],
    ids=["least", "most", "home"],
)
def test_the_whole_range_is_used(parts: tuple[int, int, int, int], number: int) -> None:
    assert SocketNumber(*parts).pack() == number
    assert SocketNumber.unpack(number) == SocketNumber(*parts)


def test_packing_and_unpacking_lose_nothing() -> None:
    numbers = random.Random(147)
    for _ in range(1_000):
        number = numbers.getrandbits(32)
        assert SocketNumber.unpack(number).pack() == number


def test_even_numbers_receive_and_odd_ones_send() -> None:
    for number in (0, 1, 2, 3, 0xFFFF_FFFE, 0xFFFF_FFFF):
        socket = SocketNumber.unpack(number)
        assert (socket.receives, socket.sends) == (number % 2 == 0, number % 2 == 1)
        assert socket.partner.pack() == number ^ 1
        assert socket.partner.partner == socket


def test_they_sort_as_their_numbers_do() -> None:
    numbers = [random.Random(1).getrandbits(32) for _ in range(100)]
    assert [s.pack() for s in sorted(map(SocketNumber.unpack, numbers))] == sorted(numbers)


@pytest.mark.parametrize(
    ("name", "bad"),
    [("home", 256), ("home", -1), ("user", 65_536), ("plug", 128), ("polarity", 2)],
    ids=lambda value: str(value),
)
def test_a_part_out_of_range_is_named(name: str, bad: int) -> None:
    parts: dict[str, Any] = {"home": 1, "user": 2, "plug": 3, "polarity": 0, name: bad}
    with pytest.raises(ValueError, match=f"{name} {bad}"):
        SocketNumber(**parts)


@pytest.mark.parametrize("bad", [-1, 2**32], ids=["below", "above"])
def test_a_number_without_32_bits_is_refused(bad: int) -> None:
    with pytest.raises(ValueError, match=f"number {bad}"):
        SocketNumber.unpack(bad)


@pytest.mark.parametrize("bad", [True, 1.0, "1", None], ids=repr)
def test_what_is_no_int_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="plug must be an int"):
        SocketNumber(1, 2, bad, 0)
    with pytest.raises(TypeError, match="number must be an int"):
        SocketNumber.unpack(bad)


def test_a_record_has_the_pair_of_its_connection(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        [record] = echo.ledger.open
        numbers = record.rfc147
        assert isinstance(numbers, SocketPair)
        assert numbers == (
            SocketNumber(1, echo.port, record.id % 128, 0),
            SocketNumber(1, echo.port, record.id % 128, 1),
        )
        assert (numbers.receives.receives, numbers.sends.sends) == (True, True)
        assert record.to_dict()["rfc147_sends"] == numbers.sends.pack()
        assert record.rfc147 == numbers
    echo.ledger.wait(open=0)
    assert echo.ledger.closed[0].rfc147 == numbers


def test_used_again_for_the_same_purpose_the_numbers_are_the_same() -> None:
    pairs = []
    with reserved_port() as port:
        for _ in range(2):
            with Server("127.0.0.1", port, Accept()) as server:
                for _ in range(3):
                    with dial(server.address):
                        connection, _ = server.accept()
                        connection.close()
                pairs.append([record.rfc147 for record in server.ledger.closed])
    assert pairs[0] == pairs[1]
    assert len(set(pairs[0])) == 3


def test_both_ends_of_a_connection_have_pairs_of_their_own(echo: Server) -> None:
    with echo.client() as client:
        assert says_back(client)
        assert client.record is not None
        mine, theirs = client.record.rfc147, echo.ledger.open[0].rfc147
        assert mine is not None
        assert theirs is not None
        assert mine.sends.user == client.getsockname()[1]
        assert theirs.sends.user == echo.port


def test_the_home_is_the_last_octet_of_the_address() -> None:
    assert pair("192.0.2.77", 80, 1).receives.home == 77
    assert pair("2001:db8::1:fe", 80, 1).receives.home == 0xFE
    assert pair("fe80::5%lo", 80, 1).receives.home == 5
    assert pair("127.0.0.1", 80, 128 + 7).receives.plug == 7
    with pytest.raises(ValueError, match="localhost"):
        pair("localhost", 80, 1)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_record_of_ipv6_has_a_pair_too() -> None:
    with Server("::1") as server, server.client() as client:
        assert says_back(client)
        numbers = server.ledger.open[0].rfc147
        assert numbers is not None
        assert (numbers.receives.home, numbers.receives.user) == (1, server.port)

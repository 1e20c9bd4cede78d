"""The ledger: every connection is accounted for, and the totals balance."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support import (
    LATE,
    LOOPBACK,
    Background,
    dial,
    payload,
    read_exactly,
    reset,
    says_back,
    wait_until,
)

from rsock import Client, Connection, Endpoint, Ledger, Record, Server, Totals


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
    # Sent bytes are counted once the system has taken them, which a fast peer may see earlier.
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
            # Changing the ledger during the iteration is no error.
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


# --- waiting for the ledger ----------------------------------------------------------------


def test_wait_returns_at_once_when_it_is_so_already(echo: Server) -> None:
    assert echo.ledger.wait(open=0, closed=0, timeout=0) == []
    with dial(echo.address) as peer:
        assert says_back(peer)
        [record] = echo.ledger.wait(open=1, timeout=0)
        assert record.closed_by is None


def test_wait_wakes_promptly(echo: Server) -> None:
    for _ in range(20):
        waiting = Background(echo.ledger.wait, 1, None, 30.0)
        with dial(echo.address):
            began = time.monotonic()
            waiting.result()
            assert time.monotonic() - began < LATE
            waiting = Background(echo.ledger.wait, 0, None, 30.0)
        began = time.monotonic()
        waiting.result()
        assert time.monotonic() - began < LATE


def test_wait_for_open_means_exactly_that_number(echo: Server) -> None:
    with dial(echo.address) as first, dial(echo.address) as second:
        assert says_back(first)
        assert says_back(second)
        with pytest.raises(TimeoutError):
            echo.ledger.wait(open=1, timeout=0.05)
        assert len(echo.ledger.wait(open=2)) == 2


def test_wait_for_closed_means_at_least_that_number_since_the_start() -> None:
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
    assert 0.09 < time.monotonic() - began < LATE
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


# --- tables --------------------------------------------------------------------------------


def test_a_row_says_what_its_record_says(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
        here = peer.getsockname()
    [record] = echo.ledger.wait(open=0, closed=1)
    [row] = echo.ledger.to_dicts()
    assert row == record.to_dict()
    expected = {
        "id": 1,
        "role": "server",
        "transport": "tcp",
        "local": f"{LOOPBACK}:{echo.port}",
        "local_host": LOOPBACK,
        "local_port": echo.port,
        "remote": f"{here[0]}:{here[1]}",
        "remote_port": here[1],
        "opened_at": datetime.fromtimestamp(record.opened_at, UTC),
        "seconds": record.seconds,
        "messages_in": 1,
        "bytes_out": 5,
        "bits_in": 40,
        "closed_by": "peer",
        "limit": None,
        "error": None,
        "tcp_state": "CLOSE-WAIT",
        "tcp_data_segments_in": 1,
    }
    assert {name: row[name] for name in expected} == expected
    assert record.closed_at == pytest.approx(record.opened_at + record.seconds)


def test_a_row_of_an_open_connection_is_live(echo_pair: tuple[Server, Client]) -> None:
    server, client = echo_pair
    assert says_back(client)
    [row] = server.ledger.to_dicts()
    assert (row["closed_by"], row["closed_at"], row["tcp_state"]) == (None, None, "ESTABLISHED")
    [record] = server.ledger.open
    assert record.closed_at is None
    assert client.record is not None
    assert client.record.to_dict().keys() == row.keys()


def test_a_row_that_says_how_it_ended_has_what_was_so_at_the_end(
    echo_pair: tuple[Server, Client],
) -> None:
    server, client = echo_pair
    assert says_back(client)
    (record,) = server.ledger.open

    class Ending:
        """A record whose connection ends just after its first attribute is read."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(record, name)
            if record.closed_by is None:
                client.abort()
                server.ledger.wait(open=0)
            return value

    ending: Any = Ending()
    row = importlib.import_module("rsock._ledger").to_dict(ending)
    assert record.closed_by == "reset"
    assert row["closed_by"] is None


def test_a_row_of_a_peer_on_udp_has_nothing_of_tcp() -> None:
    with Server(transport="udp") as server, server.client(timeout=5.0) as client:
        client.send(b"hello")
        assert client.recv(100) == b"hello"
        [row] = server.ledger.to_dicts()
        assert (row["transport"], row["bytes_in"]) == ("udp", 5)
        assert {row[name] for name in row if name.startswith("tcp_")} == {None}
        assert server.waiting == 0


def test_an_empty_ledger_is_a_table_without_rows(echo: Server) -> None:
    assert echo.ledger.to_dicts() == []
    assert set(map(len, echo.ledger.to_columns().values())) == {0}
    assert echo.ledger.to_jsonl() == ""
    [names] = csv.reader(io.StringIO(echo.ledger.to_csv()))
    assert names == list(echo.ledger.to_columns())


def test_csv_and_json_have_every_row(tmp_path: Path) -> None:
    def stumble(connection: Connection) -> None:
        raise ValueError('a comma, a "quote"\nand a line')

    with Server(service=stumble, on_error=lambda error: None) as server:
        for _ in range(3):
            dial(server.address).close()
        server.ledger.wait(open=0, closed=3)
        ledger = server.ledger
        rows = ledger.to_dicts()
        text = ledger.to_csv()
        read = list(csv.DictReader(io.StringIO(text, newline="")))
        assert [row["id"] for row in read] == ["1", "2", "3"]
        assert [row["error"] for row in read] == [row["error"] for row in rows]
        assert [row["limit"] for row in read] == ["", "", ""]
        opened = [datetime.fromisoformat(row["opened_at"]) for row in read]
        assert opened == [row["opened_at"] for row in rows]

        lines = ledger.to_jsonl()
        loaded = [json.loads(line) for line in lines.splitlines()]
        for one, row in zip(loaded, rows, strict=True):
            assert list(one) == list(row)
            assert {name for name in row if one[name] != row[name]} == {"opened_at", "closed_at"}
            assert datetime.fromisoformat(one["closed_at"]) == row["closed_at"]

        # To a path, as str or Path, and to a file object, which stays open.
        ledger.to_csv(tmp_path / "ledger.csv")
        assert (tmp_path / "ledger.csv").read_bytes() == text.encode()
        ledger.to_jsonl(str(tmp_path / "ledger.jsonl"))
        assert (tmp_path / "ledger.jsonl").read_text() == lines
        with io.StringIO(newline="") as file:
            ledger.to_csv(file)
            ledger.to_jsonl(file)
            assert file.getvalue() == text + lines
        with pytest.raises(FileNotFoundError, match=r"ledger\.csv"):
            ledger.to_csv(tmp_path / "nowhere" / "ledger.csv")

        # Also where there is nothing to write.
        number: Any = 3
        for ledger_of_120 in (ledger, Server().ledger):
            for write in (ledger_of_120.to_csv, ledger_of_120.to_jsonl):
                with pytest.raises(TypeError, match="path_or_file must be a path, .* not int: 3"):
                    write(number)


@pytest.fixture(scope="module")
def ledger_of_120() -> Ledger:
    """More than a hundred records, of which only the last has an error."""

    def serve(connection: Connection) -> None:
        if connection.recv(1) == b"!":
            raise ValueError("what was asked for")

    with Server(service=serve, on_error=lambda error: None) as server:
        for number in range(120):
            with dial(server.address) as peer:
                peer.sendall(b"!" if number == 119 else b".")
                server.ledger.wait(open=0, closed=number + 1)
        return server.ledger


def test_pandas_takes_the_table_as_it_is(ledger_of_120: Ledger) -> None:
    pandas: Any = importlib.import_module("pandas")
    for table in (
        pandas.DataFrame(ledger_of_120.to_dicts()),
        pandas.DataFrame(ledger_of_120.to_columns()),
    ):
        assert table.shape == (120, len(ledger_of_120.to_columns()))
        assert table["bytes_in"].sum() == 120
        assert table["seconds"].dtype == table["tcp_rtt"].dtype == "float64"
        assert table["messages_in"].dtype == table["tcp_retransmits"].dtype == "int64"
        for name in ("opened_at", "closed_at"):
            assert str(table[name].dt.tz) == "UTC"
        assert (table["closed_at"] >= table["opened_at"]).all()
        assert table["error"].isna().sum() == 119
        assert table.groupby("closed_by").size().to_dict() == {"local": 119, "error": 1}


@pytest.fixture(scope="module")
def polars() -> Any:
    """The module, which opens pollers when data is first passed to it."""
    module: Any = importlib.import_module("polars")
    module.DataFrame({"time": [datetime.now(UTC)]})
    return module


def test_polars_takes_the_table_as_it_is(polars: Any, ledger_of_120: Ledger) -> None:
    # Given columns, because polars looks only at the first hundred rows to decide what type a
    # column has.
    for table in (
        polars.DataFrame(ledger_of_120.to_columns()),
        polars.DataFrame(ledger_of_120.to_dicts(), infer_schema_length=None),
    ):
        assert table.shape == (120, len(ledger_of_120.to_columns()))
        assert table["bytes_in"].sum() == 120
        assert table.schema["seconds"] == table.schema["tcp_rtt"] == polars.Float64
        assert table.schema["messages_in"] == table.schema["tcp_retransmits"] == polars.Int64
        assert table.schema["closed_at"] == polars.Datetime("us", "UTC")
        assert table["error"].null_count() == 119
        assert table["error"][119] == "ValueError: what was asked for"
    with Server() as server:
        with dial(server.address) as peer:
            assert says_back(peer)
        server.ledger.wait(open=0, closed=1)
        # For a short ledger both forms work.
        assert polars.DataFrame(server.ledger.to_dicts())["closed_by"].to_list() == ["peer"]

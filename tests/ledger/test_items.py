"""A ledger by index and by slice, and as a table of pandas or polars."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import pytest
from support import dial, output_of, run_script, says_back

from rsock import Ledger, Server
from rsock.faults import Reset


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    """Use both packages once, because polars keeps pollers from its first use on."""
    pytest.importorskip("pandas")
    with Server() as server, server.client() as client:
        client.sendall(b"x")
        server.ledger.wait(open=1)
        pytest.importorskip("polars")
        server.ledger.to_polars()["id"].to_list()


@pytest.fixture
def five(echo: Server) -> Iterator[Ledger]:
    """A ledger of four closed connections and an open one, which is the third."""
    with dial(echo.address) as one, dial(echo.address) as two:
        assert says_back(one)
        assert says_back(two)
    echo.ledger.wait(open=0, closed=2)
    with dial(echo.address) as third:
        assert says_back(third)
        for _ in range(2):
            with dial(echo.address) as peer:
                assert says_back(peer)
        echo.ledger.wait(open=1, closed=4)
        yield echo.ledger


def test_an_index_is_a_record_and_a_slice_is_a_list(five: Ledger) -> None:
    records = list(five)
    assert [record.id for record in records] == [1, 2, 3, 4, 5]
    assert five[0] == records[0]
    assert five[-1] == records[-1]
    assert five[-1].id == 5
    assert five[2].closed_by is None
    for number in range(-5, 5):
        assert five[number] == records[number]
    starts, ends, steps = (None, -9, -2, 0, 1, 9), (None, -1, 3), (None, -1, 2, -3)
    for part in itertools.starmap(slice, itertools.product(starts, ends, steps)):
        assert five[part] == records[part], part
    assert isinstance(five[:2], list)
    assert list(reversed(five)) == records[::-1]


def test_an_index_without_a_record_is_an_error(five: Ledger) -> None:
    for number in (5, -6, 10**30):
        with pytest.raises(IndexError, match="it holds 5 records"):
            five[number]
    for wrong in ("1", 1.0, None):
        with pytest.raises(TypeError, match="an int or a slice"):
            five[wrong]  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="zero"):
        five[::0]


def test_an_empty_ledger_has_no_last_record() -> None:
    with Server() as server:
        with pytest.raises(IndexError):
            server.ledger[-1]
        assert server.ledger[:] == []


def columns_of(ledger: Ledger) -> dict[str, list[Any]]:
    return {name: list(values) for name, values in ledger.to_columns().items()}


def test_a_table_of_pandas_has_all_values_and_their_types(five: Ledger) -> None:
    pandas = pytest.importorskip("pandas")
    table = five.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    expected = columns_of(five)
    assert list(table.columns) == list(expected)
    assert len(table) == 5
    for name in ("id", "remote", "local_port", "bytes_in", "closed_by", "tcp_state"):
        found = [None if pandas.isna(value) else value for value in table[name]]
        assert found == expected[name], name
    assert table["closed_at"].isna().tolist() == [False, False, True, False, False]
    assert table["opened_at"].dt.tz is UTC or str(table["opened_at"].dt.tz) == "UTC"
    assert table.groupby("closed_by")["bytes_in"].sum().to_dict() == {"peer": 20}
    # A column without a value has its type all the same.
    assert str(table["peer_pid"].dtype) == "Int64"


def test_a_table_of_polars_has_all_values_and_their_types(five: Ledger) -> None:
    polars = pytest.importorskip("polars")
    table = five.to_polars()
    assert isinstance(table, polars.DataFrame)
    expected = columns_of(five)
    for name in ("id", "remote", "local_port", "closed_by", "peer_pid", "error", "opened_at"):
        assert table[name].to_list() == expected[name], name
    assert table.schema["peer_pid"] == polars.Int64
    assert table.schema["error"] == polars.String


def test_an_empty_table_has_the_types_of_a_full_one(five: Ledger) -> None:
    with Server() as server:
        for make in (Ledger.to_pandas, Ledger.to_polars):
            pytest.importorskip(make.__name__.removeprefix("to_"))
            empty, full = make(server.ledger), make(five)
            assert list(empty.dtypes) == list(full.dtypes)


def test_a_table_of_unix_sockets_has_its_processes(path: str) -> None:
    pandas = pytest.importorskip("pandas")
    with Server(path=path) as server:
        with server.client() as client:
            assert says_back(client)
        server.ledger.wait(open=0, closed=1)
        table = server.ledger.to_pandas()
    assert table["peer_pid"][0] > 0
    assert pandas.isna(table["local_port"][0])
    assert pandas.isna(table["tcp_rtt"][0])


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_table_has_the_fault_that_ended_a_connection(package: str) -> None:
    with Server(faults=[Reset(after_bytes=3)]) as server:
        with dial(server.address) as peer:
            peer.sendall(b"hello")
            server.ledger.wait(open=0, closed=1)
        table = getattr(server.ledger, f"to_{package}")()
    assert list(table["closed_by"]) == ["fault"]
    assert list(table["fault"]) == ["reset"]
    assert list(table["fault_events"]) == [1]


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_table_of_a_missing_package_says_how_to_get_it(package: str) -> None:
    code = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "import rsock\n"
        "getattr(rsock.Server().ledger, 'to_' + sys.argv[1])()"
    )
    done = run_script(code, package)
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        f"ModuleNotFoundError: to_{package}() needs the package {package}: pip install {package}"
    )


def test_the_packages_are_imported_only_when_a_table_is_made() -> None:
    code = (
        "import sys, rsock; rsock.Server().ledger.to_dicts();"
        "print({'pandas', 'polars'} & set(sys.modules))"
    )
    assert output_of(code) == "set()\n"

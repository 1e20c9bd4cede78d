"""Tables of the records of a ledger: dicts, columns, CSV and JSON Lines.

Everything here only reads. A table is a list of flat dicts with the same keys in the same order,
and the values of a column have one type, or are None: pandas and polars take such a table without
conversion.
"""

import csv
import importlib
import io
import json
import os
import typing
from collections.abc import Callable, Iterable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Final

from . import rfc147
from ._printable import spreadsheet_safe
from ._rsock import Ledger, Record
from ._types import Cell, Row, TcpInfo, TextFile

__all__ = [
    "COLUMNS",
    "Target",
    "json_line",
    "rfc147_pair",
    "to_columns",
    "to_csv",
    "to_dict",
    "to_dicts",
    "to_jsonl",
    "to_pandas",
    "to_polars",
]

# Where a table is written: a path, an open file, or None for a str.
Target = str | os.PathLike[str] | TextFile | None

_TCP: Final = tuple(field.name for field in fields(TcpInfo))


_TCP_KINDS: Final = {
    f"tcp_{field.name}": next(
        kind for kind in (float, int, str) if kind in (typing.get_args(field.type) or (field.type,))
    )
    for field in fields(TcpInfo)
}

# The columns of every table, in their order.
COLUMNS: Final = (
    "id",
    "role",
    "transport",
    "local",
    "local_host",
    "local_port",
    "remote",
    "remote_host",
    "remote_port",
    "peer_pid",
    "peer_uid",
    "peer_gid",
    "opened_at",
    "closed_at",
    "seconds",
    "messages_in",
    "messages_out",
    "bytes_in",
    "bytes_out",
    "bits_in",
    "bits_out",
    "closed_by",
    "limit",
    "fault",
    "fault_events",
    "error",
    "reset_sent",
    "forwarded_to",
    "forwarded_bytes_in",
    "forwarded_bytes_out",
    "rfc147_receives",
    "rfc147_sends",
    *(f"tcp_{name}" for name in _TCP),
)


# The columns that have a value in each row; of the others any value may be None.
_TEXTS: Final = frozenset({"role", "transport", "local", "remote"})
_NUMBERS: Final = frozenset(
    {"id", "messages_in", "messages_out", "bytes_in", "bytes_out", "bits_in", "bits_out"}
    | {"fault_events"}
)
# Columns of texts that may have none.
_MAYBE_TEXTS: Final = frozenset({"closed_by", "limit", "fault", "error", "forwarded_to"})


def _kind(name: str) -> type:
    """The type of the values of a column, apart from None."""
    if name in _TCP_KINDS:
        return _TCP_KINDS[name]
    if name in ("opened_at", "closed_at"):
        return datetime
    if name == "seconds":
        return float
    if name == "reset_sent":
        return bool
    text = name.endswith("_host") or name in _MAYBE_TEXTS
    return str if text or name in _TEXTS else int


def rfc147_pair(record: Record) -> rfc147.SocketPair | None:
    """Return the socket numbers of a record; None for one of a Unix socket."""
    host, port = record.local.host, record.local.port
    return None if host is None or port is None else rfc147.pair(host, port, record.id)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def to_dict(record: Record) -> Row:
    """Return a record as one row of a table."""
    # Read first, so that a row that says how the connection ended has the final values.
    closed_by = record.closed_by
    local, remote, pair, info = record.local, record.remote, record.rfc147, record.tcp_info
    far, process = record.far, record.peer_credentials
    values: tuple[Cell, ...] = (
        record.id,
        record.role,
        record.transport,
        str(local),
        local.host,
        local.port,
        str(remote),
        remote.host,
        remote.port,
        None if process is None else process.pid,
        None if process is None else process.uid,
        None if process is None else process.gid,
        _time(record.opened_at),
        _time(None if closed_by is None else record.closed_at),
        record.seconds,
        record.messages_in,
        record.messages_out,
        record.bytes_in,
        record.bytes_out,
        record.bits_in,
        record.bits_out,
        closed_by,
        record.limit,
        record.fault,
        record._fault_count,
        record.error,
        record.reset_sent,
        None if far is None else str(far.remote),
        None if far is None else far.bytes_in,
        None if far is None else far.bytes_out,
        None if pair is None else pair.receives.pack(),
        None if pair is None else pair.sends.pack(),
        *(None if info is None else getattr(info, name) for name in _TCP),
    )
    return dict(zip(COLUMNS, values, strict=True))


def to_dicts(ledger: Ledger) -> list[Row]:
    """Return the records that a ledger holds as rows."""
    return [to_dict(record) for record in ledger]


def to_columns(ledger: Ledger) -> dict[str, list[Cell]]:
    """Return the records that a ledger holds as columns."""
    rows = to_dicts(ledger)
    return {name: [row[name] for row in rows] for name in COLUMNS}


def _text(value: Cell) -> Cell:
    """A value as it is written to CSV and JSON: a time in the notation of ISO 8601."""
    return value.isoformat() if isinstance(value, datetime) else value


def _csv(rows: Iterable[Row], file: TextFile) -> None:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows({name: _csv_cell(value) for name, value in row.items()} for row in rows)


def _csv_cell(value: Cell) -> Cell:
    """A value for CSV, which people open in a terminal or in a spreadsheet."""
    return spreadsheet_safe(value) if isinstance(value, str) else _text(value)


def json_line(row: Row) -> str:
    """Return a row as a line of JSON Lines."""
    return json.dumps(row, default=_text) + "\n"


def _jsonl(rows: Iterable[Row], file: TextFile) -> None:
    for row in rows:
        file.write(json_line(row))


def _write(
    form: Callable[[Iterable[Row], TextFile], None], ledger: Ledger, target: Target
) -> str | None:
    is_path = isinstance(target, str | os.PathLike)
    if not (target is None or is_path or callable(getattr(target, "write", None))):
        wanted = "a path, an open text file or None"
        kind = type(target).__name__
        raise TypeError(f"path_or_file must be {wanted}, not {kind}: {target!r:.80}")
    rows = to_dicts(ledger)
    if target is None:
        text = io.StringIO(newline="")
        form(rows, text)
        return text.getvalue()
    if isinstance(target, str | os.PathLike):
        # Line ends are not translated: the csv module writes its own.
        with open(target, "w", encoding="utf-8", newline="") as file:
            form(rows, file)
    else:
        form(rows, target)
    return None


def to_csv(ledger: Ledger, target: Target) -> str | None:
    """Write the records that a ledger holds as CSV, with a header line."""
    return _write(_csv, ledger, target)


def to_jsonl(ledger: Ledger, target: Target) -> str | None:
    """Write the records that a ledger holds as JSON Lines."""
    return _write(_jsonl, ledger, target)


def to_pandas(ledger: Ledger) -> Any:
    """Return the records that a ledger holds as a pandas.DataFrame."""
    pandas = _imported("pandas")
    kinds = {
        str: object,
        float: "float64",
        int: "Int64",
        bool: "bool",
        datetime: "datetime64[us, UTC]",
    }
    return pandas.DataFrame(
        {
            name: pandas.Series(values, dtype="int64" if name in _NUMBERS else kinds[_kind(name)])
            for name, values in to_columns(ledger).items()
        }
    )


def to_polars(ledger: Ledger) -> Any:
    """Return the records that a ledger holds as a polars.DataFrame."""
    polars = _imported("polars")
    time = polars.Datetime("us", "UTC")
    kinds = {str: polars.String, float: polars.Float64, int: polars.Int64, bool: polars.Boolean}
    kinds[datetime] = time
    return polars.DataFrame(
        to_columns(ledger), schema={name: kinds[_kind(name)] for name in COLUMNS}
    )


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # One of the packages that it needs is missing.
        if error.name != name:
            raise
        text = f"to_{name}() needs the package {name}: pip install {name}"
        raise ModuleNotFoundError(text, name=name) from None

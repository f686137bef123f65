"""DuckDB: a private in-memory session, and versions of tables as its views."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from mainspring.core.errors import Corrupt, MainspringError, StorageFull
from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.ids import new_id
from mainspring.core.schema import DType
from mainspring.data.arrow import no_rows
from mainspring.data.model import TableScan

DUCK_TYPES = {
    DType.String: "VARCHAR",
    DType.Boolean: "BOOLEAN",
    DType.Int32: "INTEGER",
    DType.Int64: "BIGINT",
    DType.Float32: "FLOAT",
    DType.Float64: "DOUBLE",
    DType.Timestamp: "TIMESTAMP WITH TIME ZONE",
    DType.Duration: "BIGINT",
}


def connect(
    memory_limit: str = "2GB", temp: Path | None = None, *, threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """Return a session of its own: UTC, no extension is ever fetched, what exceeds the memory goes to `temp`.

    Args:
        memory_limit: As DuckDB writes it: "2GB", "500MB".
        temp: The folder for what does not fit in memory, made when needed and removed at the end; by default one in
            the machine's temporary folder.
    """
    spill = temp or Path(tempfile.gettempdir()) / f"mainspring-{new_id()}"
    con = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": memory_limit,
            "temp_directory": str(spill),
            "TimeZone": "UTC",
            "autoinstall_known_extensions": "false",
        },
    )
    con.execute("SET enable_progress_bar = false")
    return con


def register(con: duckdb.DuckDBPyConnection, name: str, scan: TableScan) -> None:
    """Make one version of a table readable as `name`, with every column of its schema; null in files that lack one.

    Raises:
        Corrupt: A file cannot be read.
    """
    if scan.rows is not None:
        con.register(name, _filled(scan.rows, scan.schema))
        return
    if not scan.files:
        con.register(name, _nothing(scan))
        return
    files = f"read_parquet([{', '.join(map(quote_text, scan.files))}], union_by_name = true, hive_partitioning = false)"
    with duck_errors(name):
        present = {row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {files}").fetchall()}
        columns = ["*"]
        if scan.schema is not None:
            con.register(f"{name} without rows", _nothing(scan))
            types = con.execute(f"DESCRIBE SELECT * FROM {quote_name(f'{name} without rows')}").fetchall()
            con.unregister(f"{name} without rows")
            columns += [f"NULL::{kind} AS {quote_name(column)}" for column, kind, *_ in types if column not in present]
        con.execute(f"CREATE OR REPLACE TEMP VIEW {quote_name(name)} AS SELECT {', '.join(columns)} FROM {files}")


def _filled(rows: pa.Table, schema: pa.Schema | None) -> pa.Table:
    for column in schema or ():
        if column.name not in rows.column_names:
            rows = rows.append_column(column, pa.nulls(len(rows), column.type))
    return rows


def _nothing(scan: TableScan) -> pa.Table:
    if scan.schema is None:
        raise Corrupt(f"Version {scan.version} of a table has neither files nor a schema.")
    return no_rows(scan.schema)


def one_row(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    """Return the only row of a query."""
    (row,) = con.execute(sql).fetchall()
    return tuple(row)


@contextmanager
def duck_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong with storage inside the block into our errors, which name `name`."""
    try:
        yield
    except duckdb.Error as error:
        translated = _translated(error, name)
        if translated is None:
            raise
        raise translated from error


def _translated(error: duckdb.Error, name: str) -> MainspringError | None:
    what = str(error).splitlines()[0]
    if "No space left" in what or "max_temp_directory_size" in what or "File too large" in what:
        return StorageFull(f"No space left while reading {name}.", fix="free some space and run the command again.")
    if isinstance(error, duckdb.OutOfMemoryException):
        return StorageFull(f"{name} does not fit: {what}", fix="free some memory and run the command again.")
    if isinstance(error, (duckdb.IOException, duckdb.InvalidInputException)):
        return Corrupt(
            f"A file of {name} cannot be read: {what}", fix="run `mainspring doctor`, or restore it from a backup."
        )
    return None

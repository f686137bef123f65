"""DuckDB: a private in-memory session, and versions of tables as its views."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from mainspring.core.errors import Corrupt, Invalid, MainspringError, NotFound, StorageFull
from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.files import disk_errors
from mainspring.core.ids import new_id
from mainspring.core.memory import NO_MEMORY, left_bytes
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

BATCH_ROWS = 1 << 14  # of whole rows in one batch of Arrow: a column of it holds 2 GiB of text, 128 KiB a row
SPILL = "spill-"  # then a process: a folder of that name beside goes once that process is dead
_FULL = ("No space left", "max_temp_directory_size", "File too large", "Disk quota")
_MEMORY = "parse_formatted_bytes(current_setting('memory_limit'))"
_THREAD_BYTES = 125_000_000
_GONE = ("No files found that match", "No such file")


def connect(
    memory_limit: str = "2GB", temp: Path | None = None, *, threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """Return a session of its own: UTC, no extension is ever fetched, what exceeds the memory goes to `temp`.

    Args:
        memory_limit: As DuckDB writes it: "2GB", "500MB"; at most half of what a limited address space leaves.
        temp: Where the session makes a folder for what does not fit in memory, once it must, and removes it at its
            end; what a killed process left there goes too. By default the machine's temporary folder.
        threads: How many it uses, by default one a core, and fewer where each would have less than 125 MB.

    Raises:
        Invalid: `memory_limit` or `threads` is nothing that DuckDB understands.
    """
    config: dict[str, Any] = {
        "memory_limit": memory_limit,
        "temp_directory": str(_spill(temp)),
        "TimeZone": "UTC",
        "autoinstall_known_extensions": "false",
        "parquet_metadata_cache": "true",  # a file of the lake never changes
        # Statistics in files leave NaN out; without this, `isnan` is folded to false where they have no room for one.
        "parquet_can_have_nan": "true",
        # Where nearly every column is read, a whole group of rows would be fetched at once, whatever the memory.
        "disable_parquet_prefetching": "true",
    }
    if threads is not None:
        config["threads"] = threads
    try:
        con = duckdb.connect(":memory:", config=config)
    except (duckdb.ParserException, duckdb.InvalidInputException, duckdb.SyntaxException) as error:
        raise Invalid(
            f"DuckDB does not take memory_limit {memory_limit!r} with threads {threads!r}: {_first_line(error)}",
            fix="write it as '500MB' or '2GB', and threads as a number from 1 on.",
        ) from None
    if one_row(con, "SELECT current_setting('enable_progress_bar')")[0]:  # in a notebook it is off, and may not be set
        con.execute("SET enable_progress_bar = false")
    left = left_bytes()
    if left is not None:  # it spills to disk before the other half, of whatever else allocates, is gone too
        con.execute(f"SET memory_limit = '{min(left // 2, one_row(con, f'SELECT {_MEMORY}')[0])}B'")
    if threads is None:
        # Each sorts and joins in buffers of its own: with less it fails instead of spilling.
        affordable = one_row(con, f"SELECT current_setting('threads'), {_MEMORY} // {_THREAD_BYTES}")
        con.execute(f"SET threads = {max(1, min(affordable))}")
    return con


def _spill(temp: Path | None) -> Path:
    if temp is None:
        return Path(tempfile.gettempdir()) / f"mainspring-{new_id()}"
    with disk_errors(temp):
        temp.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in temp.glob(f"{SPILL}*"):
            if not alive(left.name.split("-")[1]):
                shutil.rmtree(left, ignore_errors=True)
    return temp / f"{SPILL}{os.getpid()}-{new_id()}"


def alive(process: str) -> bool:
    """Return whether there is such a process, by its number as text."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True  # it is somebody else's
    return True


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
    with duck_errors("the lake", scan):
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
def duck_errors(name: str, scan: TableScan | None = None) -> Iterator[None]:
    """Turn what goes wrong with storage inside the block into our errors, which name `name`.

    Args:
        scan: What is read, so that a damaged file is found where DuckDB does not say which it was.
    """
    try:
        yield
    except MemoryError as error:  # pyarrow's too
        raise out_of_memory(name, str(error) or "an allocation failed") from error
    except duckdb.Error as error:
        translated = _translated(error, name, (scan and scan.files) or ())
        if translated is None:
            raise
        raise translated from error


def out_of_memory(name: str, what: str) -> StorageFull:
    """Return the error for an allocation that failed while `name` was read or written; nothing is damaged."""
    return StorageFull(
        f"There is not enough memory for {name}: {what}",
        fix="give the process more memory (ulimit -v, the container's limit), or end others.",
    )


def _translated(error: duckdb.Error, name: str, files: Sequence[str]) -> MainspringError | None:
    what = _first_line(error)
    if any(sign in str(error) for sign in NO_MEMORY):
        return out_of_memory(name, what)
    if any(sign in str(error) for sign in _FULL):
        return StorageFull(f"No space left while reading {name}: {what}", fix="free some space and run it again.")
    if isinstance(error, duckdb.OutOfMemoryException):
        return StorageFull(
            f"{name} cannot be read within the memory limit: {what}", fix="raise memory_limit, or use fewer threads."
        )
    if isinstance(error, duckdb.IOException) and any(sign in what for sign in _GONE):
        return NotFound(
            f"A file of {name} is gone: {what}", fix="run it again: a version that nobody keeps may have been vacuumed."
        )
    # What a thrift parser says of damaged bytes comes as the root of all errors.
    if isinstance(error, (duckdb.IOException, duckdb.InvalidInputException)) or type(error) is duckdb.Error:
        if not any(file in what for file in files) and (damaged := _damaged(files)) is not None:
            what = f"{damaged}: {what}"
        return Corrupt(
            f"A file of {name} cannot be read: {what}", fix="run `mainspring doctor`, or restore it from a backup."
        )
    return None


def _damaged(files: Sequence[str]) -> str | None:
    """Return the first file that cannot be read."""
    with duckdb.connect(":memory:") as con:
        for file in files:
            try:
                con.sql(f"SELECT max(hash(COLUMNS(*))) FROM read_parquet({quote_text(file)})").fetchall()
            except duckdb.Error:
                return file
    return None


def _first_line(error: duckdb.Error) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

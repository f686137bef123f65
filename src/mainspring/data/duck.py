"""DuckDB: private in-memory sessions, with table versions as views."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from duckdb.func import ARROW, SPECIAL

from mainspring.core.errors import Corrupt, Invalid, MainspringError, NotFound, StorageFull
from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.files import disk_errors
from mainspring.core.ids import new_id
from mainspring.core.memory import NO_MEMORY, left_bytes
from mainspring.data.arrow import no_rows
from mainspring.data.model import SEALED_PREFIX, TableScan

BATCH_ROWS = 1 << 14  # rows per Arrow batch: a text column of a batch holds at most 2 GiB, 128 KiB per row
SPILL = "spill-"  # prefix of spill folders, followed by a pid; removed once the process is dead
_FULL = ("No space left", "max_temp_directory_size", "File too large", "Disk quota")
_MEMORY = "parse_formatted_bytes(current_setting('memory_limit'))"
_THREAD_BYTES = 125_000_000
_SESSIONS = 50  # of a kept database, which remembers what is in each file that they read
_REMEMBERED = 20_000  # files, which never change
_GONE = ("No files found that match", "No such file")

Columns = tuple[tuple[str, str], ...]  # name and type


def connect(
    memory_limit: str = "2GB", temp: Path | None = None, *, threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a private session: UTC, no extension downloads, spilling to `temp`.

    Args:
        memory_limit: In DuckDB's notation: "2GB", "500MB"; capped at half of the free address space if that is limited.
        temp: Parent folder of the session's spill folder, which is created on demand and removed at the end; spill
            folders of dead processes are removed too. By default the machine's temporary folder.
        threads: Number of threads; by default one per core, fewer if each would have less than 125 MB.

    Raises:
        Invalid: DuckDB does not accept `memory_limit` or `threads`.
    """
    config: dict[str, Any] = {
        "memory_limit": memory_limit,
        "temp_directory": str(_spill(temp)),
        "TimeZone": "UTC",
        "autoinstall_known_extensions": "false",
        "parquet_metadata_cache": "true",  # files of the lake are immutable
        # Statistics in files ignore NaN; without this setting, DuckDB may fold `isnan` to false because of them.
        "parquet_can_have_nan": "true",
        # If nearly every column is read, prefetching would load a whole row group at once, regardless of memory.
        "disable_parquet_prefetching": "true",
    }
    if threads is not None:
        config["threads"] = threads
    try:
        con = duckdb.connect(":memory:", config=config)
    except (duckdb.ParserException, duckdb.InvalidInputException, duckdb.SyntaxException) as error:
        raise Invalid(
            f"DuckDB does not accept memory_limit {memory_limit!r} with threads {threads!r}: {_first_line(error)}",
            fix="write it as '500MB' or '2GB', and threads as a number of at least 1.",
        ) from None
    if one_row(con, "SELECT current_setting('enable_progress_bar')")[0]:  # it is off, and cannot be set, in a notebook
        con.execute("SET enable_progress_bar = false")
    left = left_bytes()
    if left is not None:  # spill before other allocations exhaust the other half
        con.execute(f"SET memory_limit = '{min(left // 2, one_row(con, f'SELECT {_MEMORY}')[0])}B'")
    if threads is None:
        # Each thread has its own sort and join buffers: with less memory DuckDB fails instead of spilling.
        affordable = one_row(con, f"SELECT current_setting('threads'), {_MEMORY} // {_THREAD_BYTES}")
        con.execute(f"SET threads = {max(1, min(affordable))}")
    return con


@contextmanager
def session(threads: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Context with a private session for a short read, which changes no setting and creates only temporary tables.

    It belongs to a database that the process keeps for other such sessions: to open one costs more than most reads.

    Args:
        threads: As of `connect`.
    """
    database, left = _kept.pop(threads, (None, _SESSIONS))
    database = database or connect(threads=threads)
    connection = database.cursor()
    if left > 1:
        _kept[threads] = (database, left - 1)
    try:
        yield connection
    finally:
        connection.close()


_kept: dict[int | None, tuple[duckdb.DuckDBPyConnection, int]] = {}  # by threads: a database, and how often it opens


def _after_fork() -> None:
    """Forget what the parent keeps and never close it: its threads are not in this process."""
    for database, _ in _kept.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(database))
    _kept.clear()


os.register_at_fork(after_in_child=_after_fork)


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
    """Return whether a process with this pid (as text) exists."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True  # it belongs to another user
    return True


def register(con: duckdb.DuckDBPyConnection, name: str, scan: TableScan) -> None:
    """Create a view `name` of one table version, with every column of its schema; null in files that lack one.

    Raises:
        Corrupt: A file cannot be read.
    """
    if scan.rows is not None:
        con.register(name, _filled(scan.rows, scan.schema))
        return
    if not scan.files:
        con.register(name, _nothing(scan))
        return
    listed = ", ".join(map(quote_text, scan.files))
    columns = ["*"]
    with duck_errors("the lake", scan):
        schemas = {_schema(file) for file in scan.files}
        alike = len(schemas) == 1 and None not in schemas
        names = {name for schema in schemas for name, _ in schema or ()}
        # Where they differ, each statement that names the view opens all files.
        files = f"read_parquet([{listed}], union_by_name = {str(not alike).lower()}, hive_partitioning = false)"
        opens: dict[str, str] = {}
        if scan.schema is not None and (scan.opens or not (alike and names.issuperset(scan.schema.names))):
            present = {row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {files}").fetchall()}
            con.register(f"{name} without rows", _nothing(scan))
            types = con.execute(f"DESCRIBE SELECT * FROM {quote_name(f'{name} without rows')}").fetchall()
            con.unregister(f"{name} without rows")
            columns += [f"NULL::{kind} AS {quote_name(column)}" for column, kind, *_ in types if column not in present]
            kinds = {column: kind for column, kind, *_ in types}
            opens = {each: kinds[each] for each in scan.opens if SEALED_PREFIX + each in present}
        rows = f"SELECT {', '.join(columns)} FROM {files}"
        if opens:
            rows = _opened(con, rows, scan, opens)
        con.execute(f"CREATE OR REPLACE TEMP VIEW {quote_name(name)} AS {rows}")


def batches(scan: TableScan, columns: Sequence[str] | None = None, where: str = "true") -> Iterator[pa.RecordBatch]:
    """Yield the rows of a scan, in bounded memory; encrypted values only of what is asked for are opened.

    Args:
        columns: Columns of the table; by default all.
        where: Condition on the rows, SQL.
    """
    with session() as con, duck_errors("the lake", scan):
        register(con, "wanted", scan)
        listed = "*" if columns is None else ", ".join(map(quote_name, columns))
        yield from con.sql(f"SELECT {listed} FROM wanted WHERE {where}").to_arrow_reader(BATCH_ROWS)


def confine(con: duckdb.DuckDBPyConnection, scans: Iterable[TableScan]) -> None:
    """Refuse all access to files, except to those of scans."""
    files = ", ".join(quote_text(file) for scan in scans for file in scan.files or ())
    con.execute(f"SET allowed_paths = [{files}]")
    con.execute("SET enable_external_access = false")


def _opened(con: duckdb.DuckDBPyConnection, rows: str, scan: TableScan, kinds: dict[str, str]) -> str:
    """Return a query of rows with the values of encrypted columns, which are opened only where a reader needs them.

    Args:
        kinds: Column -> its type.
    """
    opened = []
    for column, kind in kinds.items():
        # The database keeps the function, so that no other ever has its number there.
        function = f"open_{id(scan.opens[column])}"
        with suppress(duckdb.CatalogException, duckdb.NotImplementedException):  # it is there already
            con.create_function(
                function,
                scan.opens[column],
                [con.sqltype("BLOB")],
                con.sqltype(kind),
                type=ARROW,
                null_handling=SPECIAL,
            )
        sealed = quote_name(SEALED_PREFIX + column)
        opened.append(f"coalesce({function}({sealed}), {quote_name(column)}) AS {quote_name(column)}")
    without = ", ".join(quote_name(SEALED_PREFIX + column) for column in kinds)
    return f"SELECT * EXCLUDE ({without}) REPLACE ({', '.join(opened)}) FROM ({rows})"


def _schema(file: str) -> Columns | None:
    """Return the columns of a Parquet file; None if it cannot be read: DuckDB will say why."""
    try:
        return _read_schema(file)
    except (OSError, pa.ArrowException):
        return None


@lru_cache(maxsize=_REMEMBERED)
def _read_schema(file: str) -> Columns:
    return _once(tuple((field.name, str(field.type)) for field in pq.read_schema(file)))


@lru_cache(maxsize=_REMEMBERED)
def _once(schema: Columns) -> Columns:
    """Return the first of equal schemas, so that many files do not keep many of them."""
    return schema


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
    """Return the only row of a query's result."""
    (row,) = con.execute(sql).fetchall()
    return tuple(row)


@contextmanager
def duck_errors(name: str, scan: TableScan | None = None) -> Iterator[None]:
    """Translate DuckDB's errors inside the block into Mainspring's, which name `name`.

    Args:
        scan: The scan being read, to find a damaged file that DuckDB does not name.
    """
    try:
        yield
    except MemoryError as error:  # also raised by pyarrow
        raise out_of_memory(name, str(error) or "an allocation failed") from error
    except duckdb.Error as error:
        translated = _translated(error, name, (scan and scan.files) or ())
        if translated is None:
            raise
        raise translated from error


def out_of_memory(name: str, what: str) -> StorageFull:
    """Return the `StorageFull` for an allocation that failed while `name` was read or written; nothing is damaged."""
    return StorageFull(
        f"There is not enough memory for {name}: {what}",
        fix="give the process more memory (ulimit -v, the container's limit), or stop other processes.",
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
            f"A file of {name} is missing: {what}",
            fix="run the command again: an unreferenced version may have been vacuumed.",
        )
    # An error of the thrift parser on damaged bytes has DuckDB's root error type.
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

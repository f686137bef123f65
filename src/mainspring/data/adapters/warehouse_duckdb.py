"""A file of DuckDB as a warehouse. It is only read, and not locked against others that read it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa

from mainspring.core.errors import Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.files import disk_errors
from mainspring.core.ids import new_id
from mainspring.core.nearest import meant
from mainspring.core.settings import Url
from mainspring.data import duck
from mainspring.data.warehouse.ports import Estimate, Ran, UnloadedFile
from mainspring.data.warehouse.types import read_as, reader, schema_read

_TABLES = """SELECT table_schema, table_name FROM information_schema.tables
WHERE table_catalog = 'warehouse' ORDER BY ALL"""
_LONGEST = 500  # characters of a message of DuckDB's
_FILE_BYTES = "256MB"  # after which another file begins


class DuckdbWarehouse:
    """Tables of a DuckDB file.

    Args:
        path: The file; whoever writes to it must have closed it while it is read.
        temp: Folder to which large reads spill.
    """

    dialect = "duckdb"

    def __init__(self, path: Path, temp: Path | None = None) -> None:
        self._path, self._temp = path, temp

    def ping(self) -> str:
        with self._errors():
            return f"DuckDB {duck.one_row(self._con, 'SELECT version()')[0]}"

    def columns(self, table: str) -> Mapping[str, pa.DataType]:
        quoted = _quoted(table)
        with self._errors():
            known = [f"{schema}.{name}" for schema, name in self._con.execute(_TABLES).fetchall()]
        if f"main.{table}" not in known and table not in known:
            named = [each.removeprefix("main.") for each in known]
            raise NotFound(f"There is no table {table!r} in {self._path}.", fix=meant(table, named))
        with self._errors(), self._con.cursor() as cursor:
            cursor.execute("USE warehouse")
            schema = cursor.sql(f"SELECT * FROM {quoted} LIMIT 0").to_arrow_reader().schema
        read = {field.name: read_as(field.type) for field in schema}
        return {name: kind for name, kind in read.items() if kind is not None}

    @contextmanager
    def read(self, statement: str) -> Iterator[pa.RecordBatchReader]:
        with self._errors():
            cursor = self._con.cursor()
        with cursor:
            with self._errors():
                cursor.execute("USE warehouse")
                query = cursor.sql(statement)
                if query is None:
                    raise Invalid(f"This is no SELECT: {statement[:_LONGEST]}", fix="correct the statement.")
                found = query.to_arrow_reader(duck.BATCH_ROWS)
            try:
                yield reader(self._told(found), schema_read(found.schema))
            finally:
                cursor.interrupt()

    def _told(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with self._errors():
            yield from batches

    @contextmanager
    def loaded(self, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[str]:
        name, failed = f"memory.main.rows_{new_id()}", list[Exception]()
        try:
            with self._errors(), self._con.cursor() as cursor:
                cursor.register("_rows", pa.RecordBatchReader.from_batches(schema, _kept(rows, failed)))
                cursor.execute(f"CREATE TABLE {_quoted(name)} AS FROM _rows")
        except MainspringError:
            if failed:  # DuckDB has made a text of it
                raise failed[0] from None
            raise
        try:
            yield name
        finally:
            self._con.execute(f"DROP TABLE {_quoted(name)}")

    def estimate(self, statement: str) -> Estimate | None:
        with self._errors(), self._con.cursor() as cursor:
            cursor.execute("USE warehouse")
            cursor.execute(f"EXPLAIN {statement}")
        return None  # a plan has rows, not bytes

    def unload(self, statement: str, to: Url) -> list[UnloadedFile]:
        if to.scheme != "file":
            raise Invalid(f"DuckDB does not write to {to.shown}.", fix="name a folder of this machine.")
        folder = to.path / new_id()
        with disk_errors(folder):
            folder.mkdir(parents=True)
        options = f"FORMAT parquet, FILE_SIZE_BYTES '{_FILE_BYTES}', RETURN_STATS"
        with self._errors(), self._con.cursor() as cursor:
            cursor.execute("USE warehouse")
            copied = cursor.sql(f"COPY ({statement}) TO {quote_text(str(folder))} ({options})")
            names, found = copied.columns, copied.fetchall()
        stats = [dict(zip(names, row, strict=True)) for row in found]
        files = [UnloadedFile(each["filename"], each["count"], each["file_size_bytes"]) for each in stats]
        if not any(each.rows for each in files):
            shutil.rmtree(folder)
        return [each for each in files if each.rows]

    def last(self) -> Ran | None:
        return None

    def close(self) -> None:
        if "_con" in vars(self):
            self._con.close()
            del self._con

    @cached_property
    def _con(self) -> duckdb.DuckDBPyConnection:
        if not self._path.is_file():
            raise NotFound(f"There is no file {self._path}.", fix="correct the url of the warehouse in the profile.")
        con = duck.connect(temp=self._temp)
        try:
            con.execute(f"ATTACH {quote_text(str(self._path))} AS warehouse (READ_ONLY)")
        except duckdb.Error:
            con.close()
            raise
        return con

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with duck.duck_errors(f"the warehouse {self._path}"):
            try:
                yield
            except duckdb.Error as error:
                translated = _translated(error, self._path)
                if translated is None:
                    raise
                raise translated from error


def _kept(rows: Iterable[pa.RecordBatch], failed: list[Exception]) -> Iterator[pa.RecordBatch]:
    try:
        yield from rows
    except Exception as error:
        failed.append(error)
        raise


def _quoted(table: str) -> str:
    parts = table.split(".")
    if not all(parts):
        raise Invalid(f"{table!r} is not a table's name.", fix="write name, schema.name or catalog.schema.name.")
    return ".".join(map(quote_name, parts))


def _translated(error: duckdb.Error, path: Path) -> MainspringError | None:
    """Return the error of the file or of a statement; `None` for others, such as those of memory."""
    said = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, duckdb.IOException) and "lock on file" in said:
        return Unavailable(f"{path} is being written: {said}", fix="close it there, and run the command again.")
    if isinstance(error, duckdb.IOException) and "not a valid DuckDB database" in said:
        return Invalid(f"{path} is not a file of DuckDB.", fix="correct the url of the warehouse in the profile.")
    if isinstance(error, duckdb.CatalogException) and "does not exist" in said:
        return NotFound(f"A name in the statement is not in {path}: {said}", fix="correct `tables` in the profile.")
    if isinstance(error, (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError)):
        return Invalid(f"DuckDB rejects the statement for {path}: {said}", fix="correct the statement.")
    return None

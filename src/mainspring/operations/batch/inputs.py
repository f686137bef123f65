"""Input of a batch run: a table of the lake, Parquet files, or a query, as Parquet files of known rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.errors import Conflict, Invalid, InvalidData, NotFound
from mainspring.core.expr.sql import quote_name
from mainspring.core.files import disk_errors, make_folder, sync_file
from mainspring.core.ids import ID_PATTERN
from mainspring.data import duck
from mainspring.data.model import SUPERSEDED_AT, TableScan
from mainspring.serving.batch.plan import InputFile, Plan
from mainspring.serving.batch.reading import described, plain_type

if TYPE_CHECKING:
    from mainspring.data.ports import LakeTables

_QUERY = re.compile(r"\s*(select|with|from)\s", re.IGNORECASE)
_NAME = re.compile(ID_PATTERN)
_GROUP_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Given:
    """An input's files with the columns of each.

    Attributes:
        columns: The columns that can be read: of files those of the first, of a table its own.
        table, version: The lake's table, if it is one; columns that its files lack are null.
    """

    files: tuple[tuple[InputFile, pa.Schema], ...]
    columns: pa.Schema
    table: str = ""
    version: int | None = None

    def schema(self, names: Iterable[str], owner: str) -> pa.Schema:
        """Return columns by name with the types that they are read in.

        Raises:
            InvalidData: A column is missing, or files differ in its type.
        """
        fields = []
        for name in names:
            if name not in self.columns.names:
                raise InvalidData(
                    f"{owner[:1].upper()}{owner[1:]} has no column {name!r}; it has {self.columns.names}.",
                    fix="add the column.",
                )
            kind = plain_type(self.columns.field(name).type)
            for file, schema in self.files:
                if name in schema.names and plain_type(schema.field(name).type).equals(kind):
                    continue
                if name in schema.names:
                    other = plain_type(schema.field(name).type)
                    raise InvalidData(
                        f"Column {name!r} is {other} in {file.path}, but {kind} in {self.files[0][0].path}.",
                        fix="write the files with one schema, or read each kind into an output of its own.",
                    )
                if not self.table:
                    raise InvalidData(
                        f"{file.path} has no column {name!r}; it has {schema.names}.",
                        fix="write the files with one schema, or read each kind into an output of its own.",
                    )
            fields.append(pa.field(name, kind))
        return pa.schema(fields)


@dataclass(frozen=True, slots=True)
class Reader:
    """Opens inputs.

    Attributes:
        scratch: Folder for a copy of an input that is not in Parquet files of this machine.
        confined: Folder outside of which no file is read, as for who may not read the machine's files; a query then
            reads tables alone. `None` for no limit.
    """

    lake: LakeTables
    scratch: Path
    confined: Path | None = None

    def open(self, source: str, run: str, earlier: Collection[Plan] | None = None) -> Given | None:
        """Return an input, of which a copy is named by the run.

        Args:
            earlier: Runs whose rows are left out; `None` to read all.

        Returns:
            `None` if there is nothing but what earlier runs read.

        Raises:
            NotFound: There is no such table or file.
            Invalid: It is a query that cannot be run, or of which one cannot tell what is new.
            Conflict: The rows of a table that earlier runs read were changed.
        """
        if _QUERY.match(source):
            if earlier:
                raise Invalid(
                    "What is new among the rows of a query is not known.",
                    fix="name a table or files with --new, or write the query's rows into another output.",
                )
            return self._query(source, run)
        if _is_path(source):
            return self._files(source, earlier)
        return self._table(source, run, earlier)

    def _files(self, source: str, earlier: Collection[Plan] | None) -> Given | None:
        found = [described(path) for path in sorted(_paths(self._allowed(source)))]
        if not found:
            raise NotFound(
                f"No Parquet file matches {source}.", fix="name a Parquet file, a folder with some, or a pattern."
            )
        seen = {file for plan in earlier or () for file in plan.files}
        left = [each for each in found if each[0] not in seen]
        by_path = {file.path for file in seen}
        if changed := [file.path for file, _ in left if file.path in by_path]:
            raise Conflict(
                f"{changed[0]} was changed since an earlier run read it.",
                fix="write new rows into new files, or read all of them into another output.",
            )
        return Given(tuple(left), left[0][1]) if left else None

    def _allowed(self, source: str) -> Path:
        path = (Path() if self.confined is None else self.confined).absolute() / source
        if self.confined is not None and not path.resolve().is_relative_to(self.confined.resolve()):
            raise Invalid(
                f"A job reads no file outside of the project's folder, such as {source!r}.",
                fix="name a table, or files below the project's folder.",
            )
        return path

    def _table(self, name: str, run: str, earlier: Collection[Plan] | None) -> Given | None:
        if self.lake.version(name) is None:
            raise NotFound(
                f"There is no table {name!r}, and no such file.",
                fix=f"the lake has {', '.join(self.lake.tables()) or 'no table'}; a file's path has a slash.",
            )
        if not earlier:
            return self._scanned(name, run, self.lake.scan(name))
        since = max(plan.table_version or 0 for plan in earlier)
        if since == self.lake.version(name):
            return None
        scan = self.lake.appended(name, since)
        if scan is None:
            raise Conflict(
                f"Rows of table {name!r} were changed since version {since}, so what is new is not known.",
                fix="write all of its rows into another output.",
            )
        given = self._scanned(name, run, scan)
        return given if sum(file.rows for file, _ in given.files) else None

    def _scanned(self, name: str, run: str, scan: TableScan) -> Given:
        schema = scan.schema if scan.schema is not None else pa.schema([])
        own = pa.schema([field for field in schema if not field.name.startswith("_")])
        local = scan.files is not None and not scan.opens and all(Path(file).is_file() for file in scan.files)
        if local and SUPERSEDED_AT not in schema.names:
            files = tuple(described(Path(file)) for file in scan.files or ())
            return Given(files, own, name, scan.version)
        with duck.connect() as con, duck.duck_errors(name, scan):
            duck.register(con, "rows", scan)
            columns = ", ".join(quote_name(column) for column in own.names)
            # Only the newest version of a fact is scored.
            where = f" WHERE {SUPERSEDED_AT} IS NULL" if SUPERSEDED_AT in schema.names else ""
            rows = con.sql(f"SELECT {columns} FROM rows{where}").to_arrow_reader(_GROUP_ROWS)
            copied = self._copied(run, rows.schema, rows)
        return Given(copied.files, copied.columns, name, scan.version)

    def _query(self, sql: str, run: str) -> Given:
        with duck.connect() as con:
            try:
                statements = con.extract_statements(sql)
                if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                    raise Invalid("The query is no single SELECT statement.", fix='write "SELECT ... FROM table".')
                scans = {each: self.lake.scan(each) for each in con.get_table_names(sql) & {*self.lake.tables()}}
                for table, scan in scans.items():
                    duck.register(con, table, scan)
                con.execute("SET python_enable_replacements = false")
                if self.confined is not None:
                    duck.confine(con, scans.values())
                con.execute("SET lock_configuration = true")
                rows = con.sql(sql).to_arrow_reader(_GROUP_ROWS)
                return self._copied(run, rows.schema, rows)
            except duckdb.Error as error:
                raise Invalid(
                    f"The query cannot be run: {(str(error).splitlines() or ['unknown'])[0]}",
                    fix=f"the tables are {', '.join(self.lake.tables()) or 'none'}.",
                ) from error

    def _copied(self, run: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Given:
        """Write rows into a file of this run, so that an interrupted run reads the same ones again."""
        make_folder(self.scratch)
        path = self.scratch / f"{run}.input.parquet"
        with disk_errors(path):
            with pq.ParquetWriter(path, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            sync_file(path)
        found = described(path)
        return Given((found,), found[1])


def _is_path(text: str) -> bool:
    return "/" in text or "*" in text or text.endswith(".parquet") or not _NAME.fullmatch(text) or Path(text).exists()


def _paths(path: Path) -> Iterator[Path]:
    fixed = next(parent for parent in (path, *path.parents) if not has_magic(str(parent)))
    if path.is_dir():
        for found in path.rglob("*.parquet"):
            if not any(part.startswith(("_", ".")) for part in found.relative_to(path).parts):
                yield found
    elif fixed != path:
        yield from fixed.glob(str(path.relative_to(fixed)))
    else:
        yield path

"""Tables without some of their rows, as if these had never been ingested.

What other rows decide about a row is decided anew: which version of a fact counts, and which rows are last values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.data import duck
from mainspring.data.arrow import keyings_of, widened
from mainspring.data.keyings import declared, flagged
from mainspring.data.model import BATCH, SEQUENCE, Source, TableScan
from mainspring.data.versions import open_judged

if TYPE_CHECKING:
    import duckdb

Scan = Callable[[str], TableScan]
BATCH_ID = f"regexp_replace({BATCH}, '[.][0-9]+$', '')"  # SQL: `_batch` without the number of the load
_FORM = re.compile(r"(?P<source>[A-Za-z_][\w-]*)(?:@(?P<batch>.+)|\.(?P<column>\w+)=(?P<value>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Without:
    """Rows of a source to leave out: of a batch, with a value in a column, or all.

    Attributes:
        column: Empty if it does not matter; `_batch` for a batch, by its id.
        value: As text.
    """

    source: str
    column: str = ""
    value: str = ""

    def __str__(self) -> str:
        if not self.column:
            return self.source
        return f"{self.source}@{self.value}" if self.column == BATCH else f"{self.source}.{self.column}={self.value}"

    @property
    def sql(self) -> str:
        """The condition that a row is to be left out."""
        if not self.column:
            return "true"
        if self.column == BATCH:
            return f"{BATCH_ID} = {quote_text(self.value)}"
        return f"CAST({quote_name(self.column)} AS VARCHAR) = {quote_text(self.value)}"


def read(text: str) -> Without:
    """Return what `SOURCE`, `SOURCE@BATCH` or `SOURCE.COLUMN=VALUE` leaves out.

    Raises:
        Invalid: The text has none of these forms.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise Invalid(f"{text!r} names no rows of a source.", fix="write SOURCE, SOURCE@BATCH, or SOURCE.COLUMN=VALUE.")
    if form["batch"] is not None:
        return Without(form["source"], BATCH, form["batch"])
    return Without(form["source"], form["column"] or "", form["value"] or "")


class Remaining:
    """Scans of tables without some of their rows, which are held in memory; other tables are as they were.

    Args:
        scan: Scans of the tables with all rows.
        sources: Those that are read, by name, and those that they are computed from.
        parents: Computed source -> the source that it is computed from, and its column with `_seq` of that one's rows.

    Attributes:
        counts: What is left out -> number of rows of its source.

    Raises:
        Invalid: A source is not among them, or has no such column.
        InvalidData: A source has no such rows.
    """

    def __init__(
        self,
        scan: Scan,
        sources: Mapping[str, Source],
        without: Sequence[Without],
        parents: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        self._scan, self._sources, self._without, self._parents = scan, sources, without, parents or {}
        self._made: dict[str, TableScan] = {}
        self._left_out: dict[str, pa.Table] = {}
        self.counts = {each: self._count(each) for each in without}

    def __call__(self, table: str) -> TableScan:
        if table not in self._made:
            self._made[table] = self._remaining(table)
        return self._made[table]

    def _count(self, without: Without) -> int:
        source = self._sources.get(without.source)
        if source is None:
            raise Invalid(
                f"No rows are read from a source {without.source!r}.", fix=f"name one of {sorted(self._sources)}."
            )
        if without.column not in ("", BATCH, *source.columns):
            raise Invalid(
                f"Source {source.name!r} has no column {without.column!r}.",
                fix=f"name one of {sorted(source.columns)}.",
            )
        with duck.session() as con, duck.duck_errors(source.name):
            duck.register(con, "landed", widened(self._scan(source.name), source))
            count = int(duck.one_row(con, f"SELECT count(*) FROM landed WHERE {without.sql}")[0])
        if not count:
            raise InvalidData(f"No row is in {str(without)!r}.", fix="see its rows: `mainspring data show`.")
        return count

    def _conditions(self, table: str) -> list[str]:
        found = [f"({each.sql})" for each in self._without if each.source == table]
        if table in self._parents:
            parent, column = self._parents[table]
            if len(self._sequences(parent)):
                found.append(f"{quote_name(column)} IN (SELECT {SEQUENCE} FROM parents)")
        return found

    def _sequences(self, table: str) -> pa.Table:
        """Return the `_seq` of the rows of a table that are left out."""
        if table not in self._left_out:
            conditions = self._conditions(table)
            found = pa.table({SEQUENCE: pa.array([], pa.int64())})
            if conditions:
                with duck.session() as con, duck.duck_errors(table):
                    self._open(con, table)
                    where = f"coalesce({' OR '.join(conditions)}, false)"
                    found = con.sql(f"SELECT {SEQUENCE} FROM every WHERE {where}").to_arrow_table()
            self._left_out[table] = found
        return self._left_out[table]

    def _open(self, con: duckdb.DuckDBPyConnection, table: str) -> TableScan:
        scan = widened(self._scan(table), self._sources[table])
        duck.register(con, "every", scan)
        if table in self._parents:
            con.register("parents", self._sequences(self._parents[table][0]))
        return scan

    def _remaining(self, table: str) -> TableScan:
        if table not in self._sources or not len(self._sequences(table)):
            return self._scan(table)
        source = self._sources[table]
        with duck.session() as con, duck.duck_errors(table):
            scan = self._open(con, table)
            schema = scan.schema or pa.schema([])
            con.register("left_out", self._sequences(table))
            con.execute(
                f"CREATE OR REPLACE TEMP VIEW landed AS SELECT * FROM every ANTI JOIN left_out USING ({SEQUENCE})"
            )
            old = open_judged(con, source, schema)
            batches, made = flagged(con, source, declared(source, keyings_of(schema)), old, duck.BATCH_ROWS)
            rows = pa.Table.from_batches(list(batches), made)
        return TableScan(scan.version, rows=rows, schema=made)


def groups(scan: TableScan, source: Source, column: str = BATCH, most: int = 10) -> dict[Without, int]:
    """Return the groups of a source's rows by their values of a column with the number of rows, the largest first.

    Args:
        column: By default each batch is a group.

    Raises:
        Invalid: The source has no such column.
    """
    if column not in (BATCH, *source.columns):
        raise Invalid(f"Source {source.name!r} has no column {column!r}.", fix=f"name one of {sorted(source.columns)}.")
    value = BATCH_ID if column == BATCH else f"CAST({quote_name(column)} AS VARCHAR)"
    with duck.session() as con, duck.duck_errors(source.name):
        duck.register(con, "landed", widened(scan, source))
        found = con.execute(
            f"SELECT {value} AS v, count(*) AS n FROM landed WHERE v IS NOT NULL GROUP BY v "
            f"ORDER BY n DESC, v LIMIT {int(most)}"
        ).fetchall()
    return {Without(source.name, column, value): count for value, count in found}


def told(counts: Mapping[Without, int]) -> Iterable[str]:
    """Yield a sentence on each of the rows that are left out."""
    for each, count in counts.items():
        yield f"{count:,} rows of {each.source} were left out: {each}."

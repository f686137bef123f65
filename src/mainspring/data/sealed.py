"""Encryption of columns in front of a lake.

A column `email` that is encrypted is null in the files, and its values are in a column beside it, `_sealed_email`: an
envelope a value, for the table and the column. So a table may have rows of both kinds, and versions from before are
read as they are. The log of a table has bounds of neither. Readers of this package open a column where they need it
(`data.duck.register`); others see the nulls and the envelopes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import Conflict
from mainspring.core.expr.sql import quote_name
from mainspring.data import duck
from mainspring.data.arrow import Where
from mainspring.data.model import SEALED_PREFIX, Erased, TableScan, TableVersion
from mainspring.data.ports import NO_MARKS, LakeTables
from mainspring.security import envelopes
from mainspring.security.ports import Keys

LAKE = "lake"  # purpose of the data keys, and name of the store in envelopes
_BATCH_ROWS = 100_000
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode


class SealedLake:
    """`LakeTables` of `lake`, in which columns of some tables are encrypted.

    Args:
        columns: Returns which of a table's columns are encrypted in what is written, given the table and its columns;
            what is encrypted is read in any case.
    """

    def __init__(self, lake: LakeTables, keys: Keys, columns: Callable[[str, Sequence[str]], Collection[str]]) -> None:
        self._lake = lake
        self._keys = keys
        self._columns = columns
        self._opens: dict[tuple[str, pa.DataType], Callable[[Any], Any]] = {}  # one for each record and type
        self.restore, self.has, self.marks = lake.restore, lake.has, lake.marks
        self.version, self.tables, self.readable, self.expire = lake.version, lake.tables, lake.readable, lake.expire
        self.forget, self.shorten, self.recover = lake.forget, lake.shorten, lake.recover
        self.damage, self.vacuum = lake.damage, lake.vacuum

    def append(
        self,
        table: str,
        rows: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        *,
        key: str,
        marks: Mapping[str, int] = NO_MARKS,
    ) -> int | None:
        return self._lake.append(table, *self._sealed(table, rows, schema), key=key, marks=marks)

    def rewrite(
        self,
        table: str,
        rows: pa.Table,
        changes: pa.Table,
        on: str,
        *,
        key: str,
        marks: Mapping[str, int] = NO_MARKS,
    ) -> int | None:
        sealed = [
            pa.Table.from_batches(*self._sealed(table, each.to_batches(), each.schema)) for each in (rows, changes)
        ]
        return self._lake.rewrite(table, sealed[0], sealed[1], on, key=key, marks=marks)

    def replace(self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str) -> int | None:
        return self._lake.replace(table, *self._sealed(table, rows, schema), key=key)

    def fold(
        self,
        table: str,
        column: str,
        since: int,
        until: int,
        change: Callable[[pa.Table], pa.Table | None],
        *,
        key: str,
    ) -> int | None:
        def within(rows: pa.Table) -> pa.Table | None:
            changed = change(open_columns(rows, self._opens_of(table, rows.schema)))
            if changed is None:
                return None
            sealed = pa.Table.from_batches(*self._sealed(table, changed.to_batches(), changed.schema))
            for lacking in (each for each in rows.schema if each.name not in sealed.column_names):
                sealed = sealed.append_column(lacking, pa.nulls(len(sealed), lacking.type))
            return sealed

        return self._lake.fold(table, column, since, until, within, key=key)

    def scan(self, table: str, version: int | None = None) -> TableScan:
        return self._readable(table, self._lake.scan(table, version))

    def appended(self, table: str, since: int, until: int | None = None) -> TableScan | None:
        found = self._lake.appended(table, since, until)
        return None if found is None else self._readable(table, found)

    def describe(self, table: str, version: int | None = None) -> TableVersion:
        found = self._lake.describe(table, version)
        return replace(found, schema=_without(found.schema))

    def erase(self, table: str, where: Where, *, dry_run: bool = False) -> Erased:
        names = self._lake.describe(table).schema.names
        for column in where:
            if SEALED_PREFIX + column in names:
                raise Conflict(
                    f"Rows of table {table!r} are found by {column!r}, which is encrypted in some of them.",
                    fix=f"run `mainspring encryption rewrite {table}`, which leaves keys in clear.",
                )
        return self._lake.erase(table, where, dry_run=dry_run)

    def _sealed(
        self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema
    ) -> tuple[Iterable[pa.RecordBatch], pa.Schema]:
        """Return batches and their schema with the columns that are to be encrypted in both forms."""
        chosen = [name for name in schema.names if name in self._columns(table, schema.names)]
        if not chosen:
            return rows, schema
        both = schema
        for name in chosen:
            both = both.append(pa.field(SEALED_PREFIX + name, pa.binary()))
        seal = partial(self._seal_batch, table, chosen, both)
        return [*map(seal, rows)] if isinstance(rows, Sequence) else map(seal, rows), both

    def _seal_batch(self, table: str, chosen: Sequence[str], both: pa.Schema, batch: pa.RecordBatch) -> pa.RecordBatch:
        places = {name: batch.schema.get_field_index(name) for name in chosen}
        columns = batch.columns
        for name, place in places.items():
            values = columns[place]
            columns[place] = pa.nulls(len(batch), values.type)
            columns.append(self._seal(f"{table}/{name}", values))
        return pa.RecordBatch.from_arrays(columns, schema=both)

    def _seal(self, record: str, values: pa.Array[Any]) -> pa.Array[Any]:
        plain = [_encode(each) for each in _plain(values.drop_null()).to_pylist()]
        sealed = iter(envelopes.seal_each(self._keys.newest(LAKE), LAKE, [record] * len(plain), plain) if plain else ())
        found = [next(sealed) if there else None for there in values.is_valid().to_pylist()]
        return pa.array(found, pa.binary())

    def _open(self, record: str, kind: pa.DataType, sealed: pa.Array[Any]) -> pa.Array[Any]:
        """Return the values of a column of envelopes."""
        there = [each for each in sealed.to_pylist() if each is not None]
        opened = iter(envelopes.unseal_each(self._secret, LAKE, [record] * len(there), there))
        values = [_decode(next(opened)) if valid else None for valid in sealed.is_valid().to_pylist()]
        stored = _stored_type(kind)
        found: pa.Array[Any] = pa.array(values, stored)
        return found if stored == kind else found.cast(kind)

    def _opens_of(self, table: str, schema: pa.Schema) -> dict[str, Callable[[Any], Any]]:
        names = [each.removeprefix(SEALED_PREFIX) for each in schema.names if each.startswith(SEALED_PREFIX)]
        return {name: self._opener(f"{table}/{name}", schema.field(name).type) for name in names}

    def _opener(self, record: str, kind: pa.DataType) -> Callable[[Any], Any]:
        """Return always the same function for a column: a database keeps each that it was given."""
        # Not a partial function: DuckDB would evaluate the annotations.
        return self._opens.setdefault((record, kind), lambda sealed: self._open(record, kind, sealed))

    def _secret(self, key_id: str) -> bytes:
        return self._keys.secrets([key_id])[0]

    def _readable(self, table: str, scan: TableScan) -> TableScan:
        there = scan.schema if scan.rows is None else scan.rows.schema
        opens = {} if there is None else self._opens_of(table, there)
        if there is None or not opens:
            return scan
        self._keys.newest(LAKE)  # a key service that is away is noticed here, not by a reader in the middle
        if scan.rows is None:
            return replace(scan, schema=_without(there), opens=opens)
        return replace(scan, rows=open_columns(scan.rows, opens), schema=scan.schema and _without(scan.schema))


def fits(stored: TableScan, columns: Collection[str]) -> bool:
    """Return whether just these columns are encrypted in all rows of a version.

    Args:
        stored: Scan of the lake below `SealedLake`.
    """
    names = [] if stored.schema is None else stored.schema.names
    sealed = {name: name.removeprefix(SEALED_PREFIX) for name in names if name.startswith(SEALED_PREFIX)}
    wrong = [name for name in names if name in columns or sealed.get(name, name) not in {name, *columns}]
    if not wrong or stored.files == ():
        return True
    with duck.session() as con, duck.duck_errors("the lake", stored):
        duck.register(con, "stored", stored)
        counted = ", ".join(f"count({quote_name(name)})" for name in wrong)
        return not any(duck.one_row(con, f"SELECT {counted} FROM stored"))


def write_anew(lake: LakeTables, table: str) -> None:
    """Replace the rows of a table by the same ones, in bounded memory."""
    scan = lake.scan(table)
    schema = scan.schema
    assert schema is not None
    with duck.session() as con, duck.duck_errors(table, scan):
        duck.register(con, "anew", scan)
        listed = ", ".join(map(quote_name, schema.names))
        reader = con.sql(f"SELECT {listed} FROM anew").to_arrow_reader(_BATCH_ROWS)
        batches = (each for batch in reader for each in pa.Table.from_batches([batch]).cast(schema).to_batches())
        lake.replace(table, batches, schema, key=f"anew.{scan.version}")


def open_columns(rows: pa.Table, opens: Mapping[str, Callable[[Any], Any]]) -> pa.Table:
    """Return rows of files as those who read them expect: with values in place of envelopes."""
    for name, opened in opens.items():
        beside = SEALED_PREFIX + name
        if beside in rows.column_names:
            place = rows.column_names.index(name)
            values = pa.chunked_array([opened(chunk) for chunk in rows[beside].chunks], rows.schema.field(name).type)
            rows = rows.set_column(place, rows.schema.field(name), pc.coalesce(values, rows[name]))
            rows = rows.drop_columns([beside])
    return rows


def _without(schema: pa.Schema) -> pa.Schema:
    """Return a schema without the columns of envelopes."""
    kept = [each for each in schema if not each.name.startswith(SEALED_PREFIX)]
    return pa.schema(kept).with_metadata(schema.metadata)


def _stored_type(kind: pa.DataType) -> pa.DataType:
    """Return the type by which values of a type are in envelopes."""
    if pa.types.is_timestamp(kind):
        return pa.int64()
    return pa.string() if pa.types.is_string_view(kind) else kind


def _plain(values: pa.Array[Any]) -> pa.Array[Any]:
    stored = _stored_type(values.type)
    return values if stored == values.type else values.cast(stored)

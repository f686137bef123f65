"""Parquet files of an export: plain types, and metadata that says what a column is, its unit and its mark."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from mainspring.data.arrow import no_rows
from mainspring.data.model import BATCH, SEQUENCE, SUPERSEDED_AT, SUPERSEDED_BY, VISIBLE_AT, TableScan
from mainspring.operations.leaving.folder import ExportFolder
from mainspring.project import Project

_GROUP_ROWS = 1 << 17
Told = Callable[[str, float, float | None, str], None]  # stage, done, total, note

_ABOUT = {
    VISIBLE_AT: "earliest time at which the row could be known",
    SEQUENCE: "order of arrival",
    BATCH: "the batch that brought the row",
    SUPERSEDED_AT: "time at which a newer version of the fact could be known",
    SUPERSEDED_BY: f"{SEQUENCE} of that version",
}


class ParquetFiles:
    """Writer of Parquet files of an export, from the lake as it was at the export's beginning.

    Args:
        told: Called with the progress.
    """

    def __init__(self, project: Project, folder: ExportFolder, told: Told) -> None:
        self.project, self.folder, self._told = project, folder, told
        self.versions = folder.begun.tables
        self.reveal = folder.begun.reveal

    def scan(self, table: str) -> TableScan:
        """Return a scan of a table; of a derived one, which is not exported, the newest version."""
        return self.project.lake.scan(table, self.versions.get(table))

    def schema_of(self, table: str, *, without: Callable[[str], bool]) -> pa.Schema:
        """Return the columns of a table but some."""
        found = self.project.lake.describe(table, self.versions[table]).schema
        return pa.schema([each for each in found if not without(each.name)])

    def write(
        self, path: str, about: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema, masked: Collection[str] = ()
    ) -> None:
        """Write a file of the columns of a schema, with nulls for masked ones, unless it is there."""
        stage = path.partition("/")[0]
        self._told(stage, 0, None, path)

        def told(rows: int) -> None:
            self._told(stage, rows, None, f"{path}: {rows:,} rows")

        self.folder.table(path, about, _fitted(batches, schema, masked), masked=masked, told=told)


def described(
    schema: pa.Schema,
    about: str,
    *,
    personal: Collection[str] = (),
    masked: Collection[str] = (),
    documents: Collection[str] = (),
    types: Mapping[str, str] | None = None,
) -> pa.Schema:
    """Return a schema whose metadata has units and marks.

    Args:
        personal: Columns that identify a person.
        documents: Columns with JSON.
        types: Column -> its type as it is declared.
    """
    declared = types or {}
    fields = []
    for field in schema:
        notes = {"description": _ABOUT[field.name]} if field.name in _ABOUT else {}
        if field.name in declared:
            notes["type"] = declared[field.name]
        if pa.types.is_timestamp(field.type):
            notes["unit"] = "microseconds since 1970-01-01T00:00:00Z"
        elif field.name.endswith("_us") or declared.get(field.name) == "duration":
            notes["unit"] = "microseconds"
        if field.name in documents:
            notes["content"] = "application/json"
        if field.name in personal:
            notes["personal"] = "masked" if field.name in masked else "revealed"
        metadata: Any = notes or None
        fields.append(pa.field(field.name, _plain(field.type), metadata=metadata))
    return pa.schema(fields, metadata={"description": about})


def with_texts(batch: pa.RecordBatch, columns: Mapping[str, list[Any]]) -> pa.RecordBatch:
    """Return a batch with other texts in some columns."""
    arrays: list[Any] = [
        pa.array(columns[field.name], pa.string()) if field.name in columns else batch[field.name]
        for field in batch.schema
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that every reader of Parquet has for a type."""
    return pa.string() if pa.types.is_string_view(kind) or pa.types.is_large_string(kind) else kind


def _fitted(batches: Iterable[pa.RecordBatch], schema: pa.Schema, masked: Collection[str]) -> Iterator[pa.Table]:
    """Yield the columns of a schema, a table for each group of rows in the file; at least one."""
    none, held, rows = True, list[pa.RecordBatch](), 0
    for batch in batches:
        columns: list[Any] = [
            pa.nulls(len(batch), field.type) if field.name in masked else batch[field.name].cast(field.type)
            for field in schema
        ]
        held.append(pa.RecordBatch.from_arrays(columns, schema=schema))
        none, rows = False, rows + len(batch)
        if rows >= _GROUP_ROWS:
            yield pa.Table.from_batches(held)
            held, rows = [], 0
    if held or none:
        yield pa.Table.from_batches(held) if held else no_rows(schema)

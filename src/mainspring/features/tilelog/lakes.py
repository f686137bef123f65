"""Port of the lake for materialisation, and a read-only lake of versions of sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import pyarrow as pa

from mainspring.data.model import TableScan, TableVersion


class TileTables(Protocol):
    """The part of `data.ports.LakeTables` that materialisation needs: it reads sources, and reads and writes tiles."""

    def append(self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str) -> int | None: ...

    def replace(self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str) -> int | None: ...

    def version(self, table: str) -> int | None: ...

    def scan(self, table: str) -> TableScan: ...

    def appended(self, table: str, since: int, until: int | None = None) -> TableScan | None: ...

    def describe(self, table: str, version: int | None = None) -> TableVersion | None: ...

    def vacuum(self, table: str, keep: Sequence[int]) -> int: ...


class BorrowedLake:
    """Lake over a function that returns sources; tiles stay in this process."""

    def __init__(self, source: Callable[[str], TableScan]) -> None:
        self._source = source
        self._tables: dict[str, pa.Table] = {}
        self._versions: dict[str, int] = {}
        self._keys: set[tuple[str, str]] = set()

    def append(self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str) -> int | None:
        if (table, key) in self._keys:
            return None
        arrived = pa.Table.from_batches(rows, schema)
        held = self._tables.get(table)
        return self._write(table, arrived if held is None else pa.concat_tables([held, arrived]), key)

    def replace(self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str) -> int | None:
        return None if (table, key) in self._keys else self._write(table, pa.Table.from_batches(rows, schema), key)

    def version(self, table: str) -> int | None:
        return self._versions.get(table)

    def scan(self, table: str) -> TableScan:
        held = self._tables.get(table)
        return self._source(table) if held is None else TableScan(self._versions[table], rows=held, schema=held.schema)

    def appended(self, table: str, since: int, until: int | None = None) -> TableScan | None:  # noqa: ARG002 - as below
        return None

    def describe(self, table: str, version: int | None = None) -> TableVersion | None:  # noqa: ARG002 - only a look at the rows tells
        return None

    def vacuum(self, table: str, keep: Sequence[int]) -> int:  # noqa: ARG002 - no version stays
        return 0

    def _write(self, table: str, rows: pa.Table, key: str) -> int:
        self._tables[table] = rows
        self._keys.add((table, key))
        self._versions[table] = self._versions.get(table, -1) + 1
        return self._versions[table]

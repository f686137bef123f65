"""In-memory tables, for Mainspring's tests and for users' tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import NotFound
from mainspring.core.ids import check_id, new_id
from mainspring.data.arrow import Where, check_types, expect_columns, matching
from mainspring.data.model import Erased, TableScan, TableVersion
from mainspring.data.ports import NO_MARKS
from mainspring.data.write_keys import limbs, marks_of, stored_as


@dataclass(slots=True)
class _Version:
    rows: pa.Table | None  # None once vacuumed
    known: TableVersion
    parent: int | None  # the version that it derives from
    keys: dict[str, int]  # numbers of keys and marks that it set


@dataclass(slots=True)
class _Table:
    versions: list[_Version] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)

    def keys_of(self, version: int | None) -> dict[str, int]:
        """Return the numbers of keys and marks at a version; see `data.write_keys`."""
        found: dict[str, int] = {}
        while version is not None:
            made = self.versions[version]
            found = {**made.keys, **found}
            version = made.parent
        return found


class MemoryLake:
    """Thread-safe `LakeTables` in this process."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}
        self._lock = threading.RLock()

    def append(
        self,
        table: str,
        rows: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        *,
        key: str,
        marks: Mapping[str, int] = NO_MARKS,
    ) -> int | None:
        arrived = pa.Table.from_batches(rows, schema)
        with self._lock:
            if self.has(table, key):
                return None
            return self._write(table, _joined(table, self._newest(table), arrived), key, marks)

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
        with self._lock:
            if self.has(table, key):
                return None
            return self._write(table, _joined(table, _changed(self._required(table), changes, on), rows), key, marks)

    def replace(self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str) -> int | None:
        arrived = pa.Table.from_batches(rows, schema)
        with self._lock:
            return None if self.has(table, key) else self._write(table, arrived, key)

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
        with self._lock:
            rows = self._required(table)
            if self.has(table, key):
                return None
            least, end = (pa.scalar(each, rows[column].type) for each in (since, until))
            inside = (pc.field(column) >= least) & (pc.field(column) < end)
            changed = change(rows.filter(inside))
            if changed is None:
                return None
            return self._write(
                table, pa.concat_tables([rows.filter(~inside | pc.field(column).is_null()), changed]), key
            )

    def restore(self, table: str, version: int | None) -> int | None:
        with self._lock:
            newest = self._required(table)
            rows = newest.slice(0, 0) if version is None else self.scan(table, version).rows
            kept = self._tables[table]
            keys = kept.keys_of(version)
            if rows is None or (keys == kept.keys and rows.equals(newest, check_metadata=True)):
                return None
            kept.keys = keys
            return self._add(table, rows, version, {}, restored=len(kept.versions))

    def has(self, table: str, key: str) -> bool:
        name, number = stored_as(key)
        return table in self._tables and self._tables[table].keys.get(name, 0) >= number

    def marks(self, table: str, names: Iterable[str]) -> dict[str, int]:
        with self._lock:
            numbers = self._tables[table].keys if table in self._tables else {}
            return marks_of(names, numbers.get)

    def version(self, table: str) -> int | None:
        return len(self._tables[table].versions) - 1 if table in self._tables else None

    def tables(self) -> list[str]:
        return sorted(self._tables)

    def scan(self, table: str, version: int | None = None) -> TableScan:
        check_id(table, "table")
        with self._lock:
            newest = self.version(table)
            if newest is None:
                raise NotFound(f"There is no table {table!r}.", fix=f"the lake has {self.tables()}.")
            wanted = newest if version is None else version
            rows = self._tables[table].versions[wanted].rows if 0 <= wanted <= newest else None
        if rows is None:
            raise NotFound(
                f"Table {table!r} does not have version {wanted}; it never existed, or was vacuumed.",
                fix=f"its newest version is {newest}.",
            )
        return TableScan(wanted, rows=rows, schema=rows.schema)

    def readable(self, table: str, versions: Iterable[int]) -> list[int]:
        with self._lock:
            there = self._tables[table].versions if table in self._tables else []
            return [each for each in versions if 0 <= each < len(there) and there[each].rows is not None]

    def appended(self, table: str, since: int, until: int | None = None) -> TableScan | None:
        with self._lock:
            newest = self.scan(table, until)
            versions = self._tables[table].versions
            before = versions[since].rows if 0 <= since < len(versions) else None
        assert newest.rows is not None
        if before is None or not newest.rows.slice(0, len(before)).equals(before):
            return None
        return TableScan(newest.version, rows=newest.rows.slice(len(before)), schema=newest.schema)

    def describe(self, table: str, version: int | None = None) -> TableVersion:
        with self._lock:
            newest = self.scan(table).version
            wanted = newest if version is None else version
            if not 0 <= wanted <= newest:
                raise NotFound(f"Table {table!r} never had a version {wanted}.", fix=f"its newest version is {newest}.")
            return self._tables[table].versions[wanted].known

    def expire(self, table: str, column: str, before: int) -> int:
        with self._lock:
            rows = self._required(table)
            kind = rows[column].type
            left = rows.filter(pc.greater_equal(rows[column], pa.scalar(before, kind)))
            if len(left) < len(rows):
                newest = self._tables[table].versions[-1].known
                self._add(table, left, newest.version, {}, newest.restored)
        return len(rows) - len(left)

    def erase(self, table: str, where: Where, *, dry_run: bool = False) -> Erased:
        expect_columns(where)
        with self._lock:
            rows, versions = self._required(table), self._tables[table].versions
            doomed = matching(rows, where)
            there = [each.rows for each in versions[:-1] if each.rows is not None]
            past = sum(bool(pc.any(matching(each, where)).as_py()) for each in there)
            found = Erased(int(pc.sum(doomed).as_py() or 0), past)
            if found and not dry_run:
                if found.rows:
                    newest = versions[-1].known
                    self._add(table, rows.filter(pc.invert(doomed)), newest.version, {}, newest.restored)
                self.forget(table)
            return found

    def forget(self, table: str) -> None:
        self.vacuum(table, [])

    def shorten(self, *_: object, **__: object) -> int:
        return 0

    def recover(self, table: str) -> bool:  # noqa: ARG002
        return False

    def damage(self, table: str) -> list[str]:  # noqa: ARG002
        return []

    def vacuum(
        self,
        table: str,
        keep: Sequence[int],
        *,
        dry_run: bool = False,
        replaced_before: int | None = None,  # noqa: ARG002  versions have no timestamps here
    ) -> int:
        with self._lock:
            self.scan(table)
            versions = self._tables[table].versions
            kept = {*keep, len(versions) - 1}
            doomed = [n for n, made in enumerate(versions) if made.rows is not None and n not in kept]
            if not dry_run:
                for number in doomed:
                    versions[number].rows = None
        return len(doomed)

    def _newest(self, table: str) -> pa.Table | None:
        return self._tables[table].versions[-1].rows if table in self._tables else None

    def _required(self, table: str) -> pa.Table:
        rows = self.scan(table).rows
        assert rows is not None
        return rows

    def _write(self, table: str, rows: pa.Table, key: str, marks: Mapping[str, int] = NO_MARKS) -> int:
        kept = self._tables.setdefault(check_id(table, "table"), _Table())
        keys = dict([stored_as(key)])
        for name, mark in marks.items():
            keys |= limbs(name, mark, kept.keys.get)
        kept.keys |= keys
        before = kept.versions[-1].known if kept.versions else None
        parent, restored = (None, None) if before is None else (before.version, before.restored)
        return self._add(table, rows, parent, keys, restored)

    def _add(self, table: str, rows: pa.Table, parent: int | None, keys: dict[str, int], restored: int | None) -> int:
        versions = self._tables[table].versions
        known = TableVersion(len(versions), len(rows), rows.schema, restored, (new_id(),))
        versions.append(_Version(rows, known, parent, keys))
        return known.version


def _joined(table: str, old: pa.Table | None, new: pa.Table) -> pa.Table:
    if old is None:
        return new
    check_types(table, old.schema, new.schema)
    return pa.concat_tables([old, new], promote_options="default")


def _changed(rows: pa.Table, changes: pa.Table, on: str) -> pa.Table:
    place = pc.index_in(rows[on], changes[on].combine_chunks())
    for name in changes.column_names:
        if name != on:
            index = rows.schema.get_field_index(name)
            changed = pc.take(changes[name].combine_chunks(), place)
            column = pc.if_else(pc.is_valid(changed), changed, rows[name])
            rows = rows.set_column(index, rows.schema.field(index), column)
    return rows

"""The embedded online store: one SQLite file in WAL mode, read by many processes while one writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from mainspring.core.sqlite_file import SqliteFile
from mainspring.features.model import EntityState, Mark

# A slot has the states and the mark of one view. A slot without a view was replaced: its states are to be deleted.
# (`state` and `mark` are tables of an earlier layout; their content is computed from the lake again.)
# The table has a rowid, unlike in files of 0.1.0: without, a state of more than a kilobyte takes a page of its own.
_SCHEMA = """
DROP TABLE IF EXISTS state;
DROP TABLE IF EXISTS mark;
CREATE TABLE IF NOT EXISTS slot (
    id INTEGER PRIMARY KEY, view TEXT UNIQUE, position INTEGER, landed INTEGER, newest INTEGER, until INTEGER
);
CREATE TABLE IF NOT EXISTS entity (
    slot INTEGER NOT NULL, key BLOB NOT NULL, position INTEGER NOT NULL, landed INTEGER NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (slot, key)
);
"""
_WRITE = """
INSERT INTO entity (slot, key, position, landed, payload) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (slot, key) DO UPDATE
SET position = excluded.position, landed = excluded.landed, payload = excluded.payload
WHERE (excluded.position, excluded.landed) >= (position, landed)
"""
_ADVANCE = """
INSERT INTO slot (view, position, landed, newest, until) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (view) DO UPDATE
SET position = excluded.position, landed = excluded.landed, newest = excluded.newest, until = excluded.until
WHERE position IS NULL
   OR (excluded.position, excluded.landed, excluded.newest, excluded.until) >= (position, landed, newest, until)
"""
# A left join scans its left side in order, so the rows are in the requested order.
_READ = """
SELECT {columns} FROM (VALUES {rows})
LEFT JOIN slot ON view = column1 LEFT JOIN entity ON slot = id AND key = column2
"""
_READ_ONE_VIEW = """
SELECT {columns} FROM (VALUES {rows})
LEFT JOIN entity ON slot = (SELECT id FROM slot WHERE view = ?) AND key = column1
"""
_AFTER = """
SELECT key, position, payload, landed FROM entity
WHERE slot = (SELECT id FROM slot WHERE view = ?) AND key {after} ? ORDER BY key LIMIT ?
"""
_DELETE = "DELETE FROM entity WHERE slot = (SELECT id FROM slot WHERE view = ?) AND key = ?"
_COPIED_AT_ONCE = 1_000
_SWEPT_AT_ONCE = 10_000
_SWEEP = (
    f"DELETE FROM entity WHERE slot = ?1 AND key IN (SELECT key FROM entity WHERE slot = ?1 LIMIT {_SWEPT_AT_ONCE})"
)
_AT_ONCE = 10_000  # keys per statement; SQLite allows 32,766 parameters, and a key needs two


class SqliteOnlineStore:
    """States in one file, private to its owner. Each thread has its own connection; `close` closes them all.

    Raises:
        Corrupt: The file is not a database.
        Unavailable: It cannot be opened.
    """

    remote = False
    longest_key: int | None = None

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(
            path,
            what="online store",
            damaged=f"stop Mainspring, delete {path} and run `mainspring materialize`: the store is rebuilt from the "
            "lake.",
            # A power cut may lose the last writes: the states are computed from the lake again.
            # Pages wait in the log until it has 64 MB: a stream's batch writes nearly all of them anew.
            pragmas=("synchronous=NORMAL", "mmap_size=268435456", "temp_store=MEMORY", "wal_autocheckpoint=16384"),
        )
        self._file.create(_SCHEMA)

    def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
        with self._file.transaction() as connection:
            connection.execute("INSERT INTO slot (view) VALUES (?) ON CONFLICT DO NOTHING", (view,))
            (slot,) = connection.execute("SELECT id FROM slot WHERE view = ?", (view,)).fetchone()
            connection.executemany(
                _WRITE, [(slot, key, state.position, state.landed, state.payload) for key, state in rows]
            )

    def read(self, wanted: Sequence[tuple[str, bytes]]) -> list[EntityState | None]:
        return [
            None if payload is None else EntityState(position, payload, landed)
            for position, payload, landed in self._rows(wanted, "entity.position, payload, entity.landed")
        ]

    def payloads(self, wanted: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        return [payload for (payload,) in self._rows(wanted, "payload")]

    def mark(self, view: str) -> Mark | None:
        with self._file.errors():
            row = (
                self._file.connection()
                .execute("SELECT position, landed, newest, until FROM slot WHERE view = ?", (view,))
                .fetchone()
            )
        return None if row is None or row[0] is None else Mark(*row)

    def position(self, view: str) -> int | None:
        mark = self.mark(view)
        return None if mark is None else mark.position

    def advance(self, view: str, mark: Mark) -> None:
        with self._file.transaction() as connection:
            connection.execute(_ADVANCE, (view, mark.position, mark.landed, mark.newest, mark.until))

    def clear(self, view: str) -> None:
        with self._file.transaction() as connection:
            connection.execute("UPDATE slot SET view = NULL WHERE view = ?", (view,))
        self._sweep()

    def delete(self, names: Sequence[tuple[str, bytes]]) -> int:
        if not names:
            return 0
        with self._file.errors():
            self._file.connection().execute("PRAGMA secure_delete = ON")
        try:
            with self._file.transaction() as connection:
                deleted = connection.executemany(_DELETE, names).rowcount
        finally:
            self._file.connection().execute("PRAGMA secure_delete = OFF")
        self._file.rewrite()
        return deleted

    def swap(self, view: str, by: str) -> None:
        with self._file.transaction() as connection:
            connection.execute("UPDATE slot SET view = NULL WHERE view = ?", (view,))
            connection.execute("UPDATE slot SET view = ? WHERE view = ?", (view, by))
        self._sweep()

    def views(self) -> list[str]:
        something = "position IS NOT NULL OR EXISTS (SELECT 1 FROM entity WHERE slot = id)"
        with self._file.errors():
            rows = self._file.connection().execute(f"SELECT view FROM slot WHERE view IS NOT NULL AND ({something})")
            return sorted(view for (view,) in rows)

    def entities(self, view: str) -> Iterator[list[tuple[bytes, EntityState]]]:
        newest, after = b"", ">="
        while True:
            with self._file.errors():
                query = _AFTER.format(after=after)
                rows = self._file.connection().execute(query, (view, newest, _COPIED_AT_ONCE)).fetchall()
            if not rows:
                return
            newest, after = rows[-1][0], ">"
            yield [(key, EntityState(position, payload, landed)) for key, position, payload, landed in rows]

    def ping(self) -> None:
        with self._file.errors():
            self._file.connection().execute("SELECT 1 FROM slot LIMIT 1").fetchall()

    def _sweep(self) -> None:
        """Delete the states of dropped slots, in pieces between which other processes can write."""
        with self._file.errors():
            doomed = self._file.connection().execute("SELECT id FROM slot WHERE view IS NULL").fetchall()
        for (slot,) in doomed:
            deleted = _SWEPT_AT_ONCE
            while deleted == _SWEPT_AT_ONCE:
                with self._file.transaction() as connection:
                    deleted = connection.execute(_SWEEP, (slot,)).rowcount
                    if deleted < _SWEPT_AT_ONCE:
                        connection.execute("DELETE FROM slot WHERE id = ? AND view IS NULL", (slot,))

    def close(self) -> None:
        self._file.close()

    def _rows(self, wanted: Sequence[tuple[str, bytes]], columns: str) -> list[tuple[Any, ...]]:
        try:
            connection = self._file.connection()
            if len(wanted) <= _AT_ONCE:
                return _fetch(connection, wanted, columns)
            connection.execute("BEGIN")  # one snapshot: a write is seen completely or not at all
            try:
                rows: list[tuple[Any, ...]] = []
                for start in range(0, len(wanted), _AT_ONCE):
                    rows += _fetch(connection, wanted[start : start + _AT_ONCE], columns)
            finally:
                connection.execute("COMMIT")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._file.translated(error) from error
        return rows


def _fetch(connection: sqlite3.Connection, wanted: Sequence[tuple[str, bytes]], columns: str) -> list[tuple[Any, ...]]:
    if not wanted:
        return []
    if len(wanted) == 1:
        ((view, key),) = wanted
        return connection.execute(_one_view(1, columns), (key, view)).fetchall()
    views, keys = zip(*wanted)  # noqa: B905  (it costs time)
    count = _rounded(len(keys))
    padding = count - len(keys)
    view = views[0]
    if views.count(view) == len(views):
        rows = connection.execute(_one_view(count, columns), (*keys, *(None,) * padding, view)).fetchall()
    else:
        arguments = [*chain.from_iterable(wanted), *(None, None) * padding]
        rows = connection.execute(_views(count, columns), arguments).fetchall()
    return rows[: len(keys)] if padding else rows


def _rounded(count: int) -> int:
    """Round up to one of a few sizes, so that their statements stay prepared: at most an eighth more."""
    step: int = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


@lru_cache(maxsize=256)
def _one_view(count: int, columns: str) -> str:
    return _READ_ONE_VIEW.format(columns=columns, rows="(?)" + ",(?)" * (count - 1))


@lru_cache(maxsize=256)
def _views(count: int, columns: str) -> str:
    return _READ.format(columns=columns, rows="(?,?)" + ",(?,?)" * (count - 1))

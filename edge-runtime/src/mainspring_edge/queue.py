"""Predictions and profiles that wait for the control plane: a bounded queue on disk.

It is a SQLite file: a cut of the power loses at most the last moments, and never more. When it is full, the oldest
records are dropped, and counted.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainspring_edge.files import make_folder

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (seq INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Depth:
    """What waits (`rows`, `size_bytes`), and what never will: `dropped` for room, `lost` with damaged files."""

    rows: int
    size_bytes: int
    dropped: int
    lost: int


class Queue:
    """A bounded queue in a file. Thread-safe.

    Args:
        path: Its file.
        most_bytes: The largest sum of the records' sizes; the file is somewhat larger.

    Attributes:
        id: Identity of the queue: with a record's number it identifies the record for ever.
    """

    def __init__(self, path: Path, *, most_bytes: int = 16 << 20) -> None:
        make_folder(path.parent)
        self._path, self._most_bytes, self._lock = path, most_bytes, threading.Lock()
        try:
            self._database = self._opened()
        except sqlite3.DatabaseError:
            self._set_aside()
            self._database = self._opened()
            self._count("lost", 1)
            self._database.commit()
        self.id = self._identity()
        self._size: int = self._one("SELECT COALESCE(SUM(size), 0) FROM records")

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append records, dropping the oldest where there is no room."""
        bodies = [json.dumps(record, separators=(",", ":"), sort_keys=True).encode() for record in records]
        with self._lock, self._database:
            self._database.executemany(
                "INSERT INTO records (size, body) VALUES (?, ?)", [(len(body), body) for body in bodies]
            )
            self._size += sum(map(len, bodies))
            if self._size > self._most_bytes:
                self._drop()

    def oldest(self, count: int) -> list[tuple[int, dict[str, Any]]]:
        """Return up to `count` records with their numbers, oldest first."""
        with self._lock:
            found = self._database.execute("SELECT seq, body FROM records ORDER BY seq LIMIT ?", (count,)).fetchall()
        return [(seq, json.loads(body)) for seq, body in found]

    def done(self, until: int) -> None:
        """Remove the records up to a number: the control plane has them."""
        with self._lock, self._database:
            self._database.execute("DELETE FROM records WHERE seq <= ?", (until,))
            self._size = self._one("SELECT COALESCE(SUM(size), 0) FROM records")

    def depth(self) -> Depth:
        """Return what waits and what was dropped."""
        with self._lock:
            counters = dict(self._database.execute("SELECT name, value FROM counters"))
            rows = self._one("SELECT COUNT(*) FROM records")
        return Depth(rows, self._size, counters.get("dropped", 0), counters.get("lost", 0))

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _drop(self) -> None:
        """Drop the oldest records until a tenth is free, so that not every further record drops one."""
        target, last, dropped = self._most_bytes * 9 // 10, 0, 0
        for seq, size in self._database.execute("SELECT seq, size FROM records ORDER BY seq"):
            if self._size <= target:
                break
            self._size -= size
            last, dropped = seq, dropped + 1
        self._database.execute("DELETE FROM records WHERE seq <= ?", (last,))
        self._count("dropped", dropped)

    def _count(self, name: str, by: int) -> None:
        self._database.execute(
            "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (name, by),
        )

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, check_same_thread=False, timeout=10.0)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(_SCHEMA)
            database.execute("SELECT COUNT(*), SUM(LENGTH(body)) FROM records").fetchone()
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    def _set_aside(self) -> None:
        """Keep a damaged file under another name, the newest only."""
        for ending in ("", "-wal", "-shm"):
            path = self._path.with_name(self._path.name + ending)
            with suppress(FileNotFoundError):
                path.replace(path.with_name(f"damaged-{path.name}"))

    def _identity(self) -> str:
        with self._lock, self._database:
            self._database.execute("INSERT OR IGNORE INTO about VALUES ('id', ?)", (os.urandom(8).hex(),))
            return str(self._one("SELECT value FROM about WHERE name = 'id'"))

    def _one(self, query: str) -> Any:
        return self._database.execute(query).fetchone()[0]

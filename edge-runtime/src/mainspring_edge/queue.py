"""Predictions and profiles that wait for the control plane: a bounded queue on disk.

It is a SQLite file: a cut of the power loses at most the last moments, and never more. When it is full, the oldest
records are dropped, and counted. Predictions that are dropped, or were not chosen to be uploaded, are added to the
sketch of their version and hour, which is uploaded in their place: each row is in one of them, and in no other.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainspring_edge.files import make_folder
from mainspring_edge.sketches import Ruler, Sketch

HOUR_US = 3_600_000_000
_KEPT_RULERS = 8  # versions whose predictions can still be sketched
_MOST_SKETCHES = 1000  # hours
_AT_ONCE = 500  # predictions that wait in memory to be sketched

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (seq INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rulers (version INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sketches (
    version INTEGER, boot TEXT, hour INTEGER, mono_us INTEGER NOT NULL, at INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (version, boot, hour)
);
"""


@dataclass(frozen=True, slots=True)
class Depth:
    """What waits (`rows`, `size_bytes`), and what never will: `dropped` for room, `lost` with damaged files.

    Dropped predictions are in a sketch if their package has a `sketch.json`.
    """

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
        self._rulers, self._skipped = dict[int, Ruler | None](), list[Mapping[str, Any]]()
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
            self._insert(bodies)
            if self._size > self._most_bytes:
                self._drop()

    def know(self, version: int, content: bytes) -> None:
        """Keep the `sketch.json` of a version, by which its predictions are sketched. Raises `Refused`."""
        ruler = Ruler(content)
        with self._lock, self._database:
            self._rulers[version] = ruler
            self._database.execute("INSERT OR REPLACE INTO rulers VALUES (?, ?)", (version, content))
            self._database.execute(
                "DELETE FROM rulers WHERE version NOT IN (SELECT version FROM rulers ORDER BY version DESC LIMIT ?) "
                "AND version != ?",
                (_KEPT_RULERS, version),
            )

    def skip(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Sketch predictions that are not to be uploaded. They wait in memory for `flush`, or until there are many."""
        with self._lock:
            self._skipped += records
            if len(self._skipped) < _AT_ONCE:
                return
        self.flush()

    def flush(self) -> None:
        """Write the sketches of skipped predictions."""
        with self._lock, self._database:
            skipped, self._skipped = self._skipped, []
            self._fold(skipped, dropped=0)

    def pack(self, hour: int) -> None:
        """Append the sketches of other hours than this as records, to be uploaded."""
        self.flush()
        with self._lock, self._database:
            found = self._database.execute(
                "DELETE FROM sketches WHERE hour != ? RETURNING version, boot, mono_us, at, body", (hour,)
            ).fetchall()
            for version, boot, mono_us, at, body in sorted(found, key=lambda row: row[3]):
                record = {
                    "kind": "sketch", "id": os.urandom(16).hex(), "version": version, "boot": boot,
                    "mono_us": mono_us, "at": at, **json.loads(body),
                }  # fmt: skip
                self._insert([json.dumps(record, separators=(",", ":"), sort_keys=True).encode()])

    def oldest(self, count: int) -> list[tuple[int, dict[str, Any]]]:
        """Return up to `count` records with their numbers, oldest first."""
        with self._lock:
            found = self._database.execute("SELECT seq, body FROM records ORDER BY seq LIMIT ?", (count,)).fetchall()
        return [(seq, json.loads(body)) for seq, body in found]

    def sending(self, until: int) -> None:
        """Note that the records up to a number are on their way. Until `done` they are not dropped: were they sketched
        too, and the control plane had them, they would count twice.
        """
        with self._lock, self._database:
            last = max(until, self._sending())
            self._database.execute("INSERT OR REPLACE INTO about VALUES ('sending', ?)", (str(last),))

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
        self.flush()
        with self._lock:
            self._database.close()

    def _sending(self) -> int:
        return int(self._one("SELECT COALESCE(MAX(value), 0) FROM about WHERE name = 'sending'"))

    def _insert(self, bodies: Sequence[bytes]) -> None:
        self._database.executemany(
            "INSERT INTO records (size, body) VALUES (?, ?)", [(len(body), body) for body in bodies]
        )
        self._size += sum(map(len, bodies))

    def _drop(self) -> None:
        """Drop the oldest records until a tenth is free, so that not every further record drops one."""
        target, dropped = self._most_bytes * 9 // 10, list[tuple[int, bytes]]()
        first = self._sending()
        for seq, size, body in self._database.execute(
            "SELECT seq, size, body FROM records WHERE seq > ? ORDER BY seq", (first,)
        ):
            if self._size <= target:
                break
            self._size -= size
            dropped.append((seq, body))
        if dropped:
            self._database.execute("DELETE FROM records WHERE seq > ? AND seq <= ?", (first, dropped[-1][0]))
            self._count("dropped", len(dropped))
            self._fold([json.loads(body) for _, body in dropped], dropped=1)

    def _fold(self, records: Iterable[Mapping[str, Any]], *, dropped: int) -> None:
        """Add records to the sketches of their versions and hours; those that cannot be sketched are left out.

        Args:
            dropped: What each prediction adds to the count of dropped rows.
        """
        groups: dict[tuple[int, str, int], list[Mapping[str, Any]]] = {}
        for each in records:
            if each.get("kind") in ("prediction", "sketch") and self._ruler(each["version"]) is not None:
                groups.setdefault((each["version"], each["boot"], each["at"] // HOUR_US), []).append(each)
        for key, found in groups.items():
            ruler = self._ruler(key[0])
            assert ruler is not None
            made = _sketched(ruler, [each for each in found if each["kind"] == "prediction"], dropped)
            for each in found:
                if each["kind"] == "sketch":
                    made += ruler.read(each)
            mine = "version = ? AND boot = ? AND hour = ?"
            before = self._database.execute(f"SELECT body FROM sketches WHERE {mine}", key).fetchone()
            if before is not None:
                made += ruler.read(json.loads(before[0]))
            first = min(found, key=lambda each: int(each["mono_us"]))
            self._database.execute(
                "INSERT INTO sketches VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body",
                (*key, first["mono_us"], first["at"], json.dumps(made.record()).encode()),
            )
        old = self._one("SELECT COUNT(*) FROM sketches") - _MOST_SKETCHES
        if old > 0:
            self._database.execute(
                "DELETE FROM sketches WHERE rowid IN (SELECT rowid FROM sketches ORDER BY at LIMIT ?)", (old,)
            )
            self._count("lost", old)

    def _ruler(self, version: int | None) -> Ruler | None:
        if version is not None and version not in self._rulers:
            found = self._database.execute("SELECT content FROM rulers WHERE version = ?", (version,)).fetchone()
            self._rulers[version] = None if found is None else Ruler(found[0])
        return None if version is None else self._rulers[version]

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


def _sketched(ruler: Ruler, records: Sequence[Mapping[str, Any]], dropped: int) -> Sketch:
    if not records:
        return ruler.empty()
    names = records[0]["features"]
    return ruler.sketch(
        {name: [each["features"].get(name) for each in records] for name in names},
        [next(iter(each["outputs"].values()), None) for each in records],
        [each["latency_us"] for each in records],
        dropped * len(records),
    )

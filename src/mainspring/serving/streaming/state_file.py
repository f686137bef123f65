"""States of a stream endpoint in files of this machine, a SQLite database a partition."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from mainspring.core.errors import Conflict, Corrupt, NotFound, StorageFull, Unavailable
from mainspring.core.sqlite_file import rewrite
from mainspring.serving.streaming.progress import (
    BatchRecord,
    Progress,
    decode_progress,
    decode_record,
    decode_starts,
    encode_progress,
    encode_record,
    encode_starts,
)
from mainspring.serving.streaming.state import (
    LARGEST_BYTES,
    Commit,
    Erased,
    Erasure,
    Waiting,
    died,
    fresh_numbers,
)

FORMAT = 2
_WAIT_S = 30.0
_SIZES = ("page_size", "page_count", "freelist_count")
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS states (key BLOB PRIMARY KEY, last INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS states_last ON states (last);
CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, sinks INTEGER NOT NULL,
    body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sinks (id TEXT PRIMARY KEY, number INTEGER NOT NULL, done INTEGER NOT NULL,
    note BLOB NOT NULL DEFAULT x'') WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (number INTEGER PRIMARY KEY, accepted_at INTEGER NOT NULL, body BLOB NOT NULL);
"""


class StateFiles:
    """`StateStore` in a folder. Who writes has the partition's lock, so no epoch is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def place(self) -> str:
        return str(self._folder)

    def partitions(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("*.db") if path.stem.isdigit())

    def starts(self, find: Callable[[], Mapping[int, int]]) -> dict[int, int]:
        with closing(StateFile(self._folder / "starts.db")) as file:
            return file.starts(find)

    def open(self, partition: int, epoch: int | None = None, *, durable: bool = True) -> StateFile:  # noqa: ARG002
        return StateFile(self._folder / f"{partition}.db", durable=durable)


class StateFile:
    """`PartitionState` in a file.

    Raises:
        Corrupt: The file is damaged, or of another version.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self._durable = durable
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _errors(path):
            self._db = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            if found not in (0, FORMAT):
                fix = "upgrade Mainspring." if found > FORMAT else "move the file away, to begin anew without states."
                raise Corrupt(f"{path} has the format {found}; this version reads {FORMAT}.", fix=fix)
            self._db.executescript(_TABLES + f"PRAGMA user_version = {FORMAT};")

    def close(self) -> None:
        self._db.close()

    def starts(self, find: Callable[[], Mapping[int, int]]) -> dict[int, int]:
        """Do the store's `starts` in a file of its own."""
        if (known := self._meta("starts")) is None:
            found = encode_starts(find())
            with self._transaction():
                self._db.execute("INSERT OR IGNORE INTO meta VALUES ('starts', ?)", (found,))
            known = self._meta("starts")
        return decode_starts(known or b"")

    # Progress

    def progress(self) -> Progress | None:
        found = self._meta("progress")
        return None if found is None else decode_progress(found)

    def begin(self, progress: Progress) -> None:
        with self._transaction():
            self._put("progress", encode_progress(progress))

    def states(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with _errors(self.path):
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                found.update(self._db.execute(f"SELECT key, value FROM states WHERE key IN ({marks})", part))
        return found

    def all_states(self) -> dict[bytes, bytes]:
        with _errors(self.path):
            return dict(self._db.execute("SELECT key, value FROM states"))

    def commit(self, made: Commit) -> None:
        with self._transaction():
            if made.erasures not in (None, self.erasures()):
                raise Erased(str(self.path))
            if made.expired is not None:
                self._expire(made, made.expired)
            self._db.executemany(
                "INSERT OR REPLACE INTO states VALUES (?, ?, ?)",
                [(key, last, value) for key, (last, value) in made.states.items()],
            )
            self._db.executemany(
                "INSERT INTO outbox VALUES (?, ?, ?, ?)",
                [(each.seq, each.kind, each.sinks, each.body) for each in made.outbox],
            )
            self._db.execute(
                "INSERT INTO batches VALUES (?, ?, ?)",
                (made.progress.batch, made.progress.accepted_at, encode_record(made.record)),
            )
            self._put("progress", encode_progress(made.progress))
            self._forget(made)

    def erasures(self) -> int:
        return int(self._meta("erasures") or 0)

    def erase(self, erasure: Erasure, *, dry_run: bool = False) -> int:
        with self.snapshot() if dry_run else self._transaction():
            keys = [key for (key,) in self._db.execute("SELECT key FROM states") if erasure.has(key)]
            batches = [
                (encode_record(left), number)
                for number, body in self._db.execute("SELECT number, body FROM batches")
                if (left := erasure.batch(decode_record(body))) is not None
            ]
            entries = [
                (entry.sinks, entry.body, entry.seq)
                for row in self._db.execute("SELECT seq, kind, sinks, body FROM outbox")
                if (entry := erasure.entry(Waiting(*row))) is not None
            ]
            count = len(keys) + len(batches) + len(entries)
            if count and not dry_run:
                self._db.executemany("DELETE FROM states WHERE key = ?", [(key,) for key in keys])
                self._db.executemany("UPDATE batches SET body = ? WHERE number = ?", batches)
                self._db.executemany("UPDATE outbox SET sinks = ?, body = ? WHERE seq = ?", entries)
                self._put("erasures", b"%d" % (self.erasures() + 1))
        if not dry_run:  # also where nothing is left: free pages have what was forgotten before
            rewrite(self.path)
        return count

    def _expire(self, made: Commit, before: int) -> None:
        gone = self._db.execute("SELECT key, value FROM states WHERE last < ? LIMIT 1000", (before,)).fetchall()
        for key, value in gone:
            if key not in made.states:
                made.record.undo.setdefault(key, value)
                self._db.execute("DELETE FROM states WHERE key = ?", (key,))

    def _forget(self, made: Commit) -> None:
        done = self._db.execute("SELECT min(done) FROM sinks WHERE number >= 0").fetchone()[0]
        if done is not None:
            self._db.execute("DELETE FROM outbox WHERE seq <= ?", (done,))
        logged = self._db.execute("SELECT min(done) FROM sinks WHERE number < 0").fetchone()[0]
        large = self._bytes() > LARGEST_BYTES
        for number, accepted_at in self._db.execute("SELECT number, accepted_at FROM batches ORDER BY number LIMIT 4"):
            if (accepted_at >= made.kept_since and not large) or (logged is not None and number > logged):
                break
            self._db.execute("DELETE FROM batches WHERE number = ?", (number,))

    def _bytes(self) -> int:
        size, pages, free = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in _SIZES)
        return int(size * (pages - free))

    # Batches

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with _errors(self.path):
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")

    def batches(self, after: int = 0, *, limit: int = -1) -> Iterator[tuple[int, BatchRecord]]:
        with _errors(self.path):
            rows = self._db.execute(
                "SELECT number, body FROM batches WHERE number > ? ORDER BY number LIMIT ?", (after, limit)
            )
            for number, body in rows:
                yield number, decode_record(body)

    def newest_batches(self) -> Iterator[tuple[int, BatchRecord]]:
        with _errors(self.path):
            for number, body in self._db.execute("SELECT number, body FROM batches ORDER BY number DESC"):
                yield number, decode_record(body)

    # Sinks

    def enlist(self, outputs: Sequence[str], batches: Sequence[str] = ()) -> dict[str, int]:
        progress = self.progress()
        seq, batch = (progress.seq, progress.batch) if progress else (0, 0)
        with self._transaction():
            numbers: dict[str, int] = dict(self._db.execute("SELECT id, number FROM sinks"))
            for id_ in numbers.keys() - {*outputs, *batches}:
                self._db.execute("DELETE FROM sinks WHERE id = ?", (id_,))
                del numbers[id_]  # another may have the number: it begins behind what was meant for this one
            for id_, number in fresh_numbers(dict(numbers), outputs, batches):
                numbers[id_] = number
                done = batch if number < 0 else seq
                self._db.execute("INSERT INTO sinks (id, number, done) VALUES (?, ?, ?)", (id_, number, done))
        return numbers

    def sinks(self) -> dict[str, int]:
        with _errors(self.path):
            return dict(self._db.execute("SELECT id, number FROM sinks"))

    def number(self, sink: str) -> int:
        with _errors(self.path):
            found = self._db.execute("SELECT number FROM sinks WHERE id = ?", (sink,)).fetchone()
        if found is None:
            raise NotFound(f"{self.path} has no sink {sink!r}.")
        return int(found[0])

    def done(self, sink: str) -> int:
        with _errors(self.path):
            found = self._db.execute("SELECT done FROM sinks WHERE id = ?", (sink,)).fetchone()
        return 0 if found is None else int(found[0])

    def note(self, sink: str) -> bytes:
        with _errors(self.path):
            found = self._db.execute("SELECT note FROM sinks WHERE id = ?", (sink,)).fetchone()
        return b"" if found is None else bytes(found[0])

    def deliver(self, sink: str, done: int | None = None, note: bytes | None = None, *, durable: bool = False) -> None:
        if durable and not self._durable:
            self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            if done is not None:
                self._db.execute("UPDATE sinks SET done = ? WHERE id = ?", (done, sink))
            if note is not None:
                self._db.execute("UPDATE sinks SET note = ? WHERE id = ?", (note, sink))
        if durable and not self._durable:
            self._db.execute("PRAGMA synchronous = NORMAL")

    def waiting(self, after: int, limit: int = 1000, until: int = (1 << 62)) -> list[Waiting]:
        query = "SELECT seq, kind, sinks, body FROM outbox WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        with _errors(self.path):
            return [Waiting(*row) for row in self._db.execute(query, (after, until, limit))]

    def delivered(self) -> int:
        with _errors(self.path):
            (done,) = self._db.execute("SELECT min(done) FROM sinks WHERE number >= 0").fetchone()
        return int(done or 0)

    def undelivered(self) -> int:
        progress = self.progress()
        return 0 if progress is None else progress.seq - self.delivered()

    # Deaths

    def opened(self) -> tuple[bool, int]:
        found = died(self._meta("running"), self._place())
        self.attempt(found[1])
        return found

    def attempt(self, number: int) -> None:
        with self._transaction():
            self._put("running", b"%d %s" % (number, self._place()))

    def _place(self) -> bytes:
        progress = self.progress()
        return b"" if progress is None else progress.next.encode()

    def survived(self) -> None:
        with self._transaction():
            self._db.execute("DELETE FROM meta WHERE name = 'running'")

    def _meta(self, name: str) -> bytes | None:
        with _errors(self.path):
            found = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    def _put(self, name: str, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "full" in text:
            raise StorageFull(f"{path} cannot grow: {text}.", fix="free disk space.") from error
        if "locked" in text:
            raise Conflict(f"{path} is in use: {text}.", fix="let one process run the stream endpoint.") from error
        raise Unavailable(f"{path} cannot be used: {text}.", fix="see the disk's state.") from error
    except sqlite3.DatabaseError as error:
        raise Corrupt(f"{path} is damaged: {error}.", fix="restore it from a backup.") from error

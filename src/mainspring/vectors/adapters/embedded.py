"""Embedded indexes: a folder each, with entries in SQLite, and above a size a graph beside it.

The database alone is believed. The graph is made from it, and is used only while it is as it was written: a search
reads what came later from memory, row by row. So writes never wait for the graph, and `compact` makes it anew.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from mainspring.core.errors import Conflict, Invalid, StorageFull
from mainspring.core.expr.evaluate import vector
from mainspring.core.expr.tree import Node
from mainspring.core.files import make_folder, sync_folder
from mainspring.core.ids import check_id
from mainspring.core.locks import FileLocks
from mainspring.core.sqlite_file import SqliteFile
from mainspring.vectors.adapters.embedded_format import SCHEMA, bring_up, page_bytes
from mainspring.vectors.adapters.embedded_reading import Reader, graphs
from mainspring.vectors.adapters.embedded_state import State, packed, unpacked
from mainspring.vectors.adapters.mark import Mark
from mainspring.vectors.columns import check_entries, check_search, check_where, passing, storable
from mainspring.vectors.model import Entries, Floats, Hit, IndexSpec, checked, no_index, other_spec
from mainspring.vectors.nearest import Places, unit

APPROXIMATE_ABOVE = 20_000
_FILE, _MARK = "entries.db", "changes"
_KEPT_REMOVALS = 100_000  # numbers of deleted entries, for those who search by the graph before
_PAGE = 1_000
_NEWER_SHARE = 8  # of the entries in the graph: fewer newer ones are compared one by one
_LEAST_LIVE = 0.9  # of the places of a graph; it is built from the beginning where fewer have an entry
_WAIT_S = 3600.0  # for another process that builds a graph
_NO_ROOM_S = 60.0  # after a graph that found no room, before writes try again
_LAST = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'entry'), 0)"
_NEWER = f"""
{_LAST} - coalesce((SELECT last FROM graph), 0), coalesce((SELECT length(numbers) / 8 FROM graph), 0)
"""


_log = logging.getLogger(__name__)


class EmbeddedVectorIndex:
    """An index in a folder.

    Args:
        approximate_above: Entries above which there is a graph; `None`: never, every search is exact.

    Raises:
        NotFound: There is none.
        Corrupt: Its database is damaged, or of another format.
    """

    def __init__(self, folder: Path, *, approximate_above: int | None = APPROXIMATE_ABOVE) -> None:
        self._folder, self._above = folder, approximate_above
        try:
            self._held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # so its number is given to no other folder
        except (FileNotFoundError, NotADirectoryError):
            raise no_index(folder.name) from None
        weakref.finalize(self, os.close, self._held)
        self._file = _database(folder)
        if not self._file.path.is_file():
            raise no_index(folder.name)
        self._mark, self._graph_from = Mark(folder / _MARK), 0.0
        bring_up(self._file)
        with self._file.errors():
            (spec,) = self._file.connection().execute("SELECT json FROM spec").fetchone()
        self.spec = msgspec.json.decode(spec, type=IndexSpec)
        self._reader = Reader(
            folder, self.spec, self._mark, database=partial(_database, folder), file=self._file,
            check=self._check_there, approximate=approximate_above is not None,
        )  # fmt: skip

    # Writing

    def upsert(self, entries: Entries) -> None:
        ids, vectors, columns = check_entries(self.spec, entries)
        if not ids:
            return
        stored = unit(vectors) if self.spec.metric == "cosine" else vectors
        fields = list(zip(*(column.to_list() for column in columns.values()), strict=True)) or [()] * len(ids)
        self._check_there()
        with self._file.transaction() as connection:
            _remove(connection, ids)
            (last,) = connection.execute(_LAST).fetchone()
            numbers = range(last + 1, last + 1 + len(ids))
            rows = zip(numbers, ids, map(packed, fields), strict=True)
            connection.executemany("INSERT INTO entry (number, id, fields) VALUES (?, ?, ?)", rows)
            blobs = zip(numbers, (row.tobytes() for row in stored), strict=True)
            connection.executemany("INSERT INTO vector (number, vector) VALUES (?, ?)", blobs)
        self._mark.change()
        self._build_if_due()

    def _build_if_due(self) -> None:
        """Make the graph where too many of the entries are not in it. Without room for it they are stored all the
        same, and a later write makes it."""
        if self._above is None or graphs() is None or time.monotonic() < self._graph_from:
            return
        try:
            self._build_graph(self._above)
        except StorageFull as error:
            self._graph_from = time.monotonic() + _NO_ROOM_S
            _log.warning("The graph of %s was not made, so searches in it are slower: %s", self._folder, error)

    def _build_graph(self, above: int) -> None:
        with self._file.errors():
            newer, indexed = self._file.connection().execute(_NEWER).fetchone()
        if newer <= max(above, indexed // _NEWER_SHARE):
            return
        with suppress(Conflict), self._building(wait_s=0.0):  # unless another process does already
            state = self._newest()
            if len(state.tail) > max(above, state.indexed // _NEWER_SHARE):
                self._write_graph(state)

    def delete(self, ids: Sequence[str]) -> int:
        self._check_there()
        with self._file.transaction() as connection:
            count = _remove(connection, [each for each in dict.fromkeys(ids) if storable(each)])
        self._mark.change()
        return count

    def compact(self) -> None:
        with self._building(_WAIT_S):
            with self._file.errors():
                (cleaned,) = self._file.connection().execute("SELECT cleaned FROM version").fetchone()
            state = self._newest()
            if state.change > cleaned or len(state.tail) > state.indexed // _NEWER_SHARE:
                self._write_graph(state)
            if state.change > cleaned:
                self._file.rewrite()
                with self._file.transaction() as connection:
                    connection.execute("UPDATE version SET cleaned = ?", (state.change,))

    def _building(self, wait_s: float) -> AbstractContextManager[None]:
        self._check_there()  # a lock makes its folder
        return FileLocks(self._folder).hold("graph", wait_s=wait_s)

    def _newest(self) -> State:
        """Return the entries with the graph that is in use, whose builder must be this one: that before is deleted."""
        self._reader.renew()
        return self._state()

    def _write_graph(self, state: State) -> None:
        """Make the graph of a state's entries, where there are enough of them, and forget what was removed before."""
        new = self._folder / f"{os.urandom(8).hex()}.graph"
        try:
            made = self._made(state, new)
            if made is None and state.live.all() and state.graph is None:
                return
            sync_folder(self._folder)
            self._check_there()
            with self._file.transaction() as connection:
                connection.execute("DELETE FROM graph")
                if made is not None:
                    digest, numbers = made
                    row = (new.name, digest, int(numbers[-1]), numbers.tobytes())
                    connection.execute("INSERT INTO graph VALUES (1, ?, ?, ?, ?)", row)
                connection.execute("DELETE FROM removed WHERE change <= ?", (state.change - _KEPT_REMOVALS,))
                connection.execute("UPDATE version SET epoch = epoch + 1, writes = writes + 1")
            self._mark.change()
        finally:
            self._sweep()
        self._reader.renew()

    def _made(self, state: State, path: Path) -> tuple[str, Places] | None:
        """Write the graph of a state's entries, and return its digest and its numbers; `None` where there is none."""
        module, rows = None if self._above is None else graphs(), np.flatnonzero(state.live)
        if module is None or len(rows) <= (self._above or 0):
            return None
        if not module.has_graph(self.spec.metric, np.concatenate([state.graph_squares, state.tail_squares])[rows]):
            return None
        there = state.live[: state.indexed]
        if state.graph is None or np.count_nonzero(there) < _LEAST_LIVE * len(there):
            return module.write_graph(path, state.vectors_of(rows)), state.numbers[rows]
        newer = rows[rows >= state.indexed]
        numbers = np.concatenate([state.numbers[: state.indexed], state.numbers[newer]])
        return module.renew_graph(state.graph.path, path, there, state.vectors(newer)), numbers

    def _sweep(self) -> None:
        """Delete graphs that are not in use; their readers keep them until they look again."""
        with self._file.errors():
            used = {file for (file,) in self._file.connection().execute("SELECT file FROM graph")}
        for path in self._folder.glob("*.graph"):
            if path.name not in used:
                path.unlink(missing_ok=True)

    @property
    def there(self) -> bool:
        """True if the index was neither dropped, nor dropped and created anew."""
        try:
            return os.path.samestat(self._folder.stat(), os.fstat(self._held))
        except FileNotFoundError:
            return False

    def _check_there(self) -> None:
        if not self.there:
            raise no_index(self._folder.name)

    # Reading

    def search(self, vectors: Floats, k: int, *, where: Node | None = None, effort: float = 1.0) -> list[list[Hit]]:
        queries = checked(self.spec, vectors, "A query")
        check_search(self.spec, k, None, effort)
        return self._state().search(queries, k, where, effort)

    def get(self, ids: Sequence[str]) -> Entries:
        asked, found = [each for each in dict.fromkeys(ids) if storable(each)], dict[str, tuple[bytes, bytes]]()
        self._check_there()
        with self._file.transaction("DEFERRED") as connection:
            for start in range(0, len(asked), _PAGE):
                some = asked[start : start + _PAGE]
                marks = ", ".join("?" * len(some))
                rows = connection.execute(
                    f"SELECT id, vector, fields FROM entry JOIN vector USING (number) WHERE id IN ({marks})", some
                )
                found |= {each: (row, values) for each, row, values in rows}
        there = [each for each in ids if each in found]
        vectors = np.frombuffer(b"".join(found[each][0] for each in there), np.float32)
        values = [unpacked(found[each][1]) for each in there]
        fields = {name: [row[place] for row in values] for place, name in enumerate(self.spec.fields)}
        return Entries(there, vectors.reshape(-1, self.spec.dimension), fields)

    def ids(self, *, after: str = "", count: int = 1000, where: Node | None = None) -> list[str]:
        check_where(self.spec, where)
        if not storable(after):
            raise Invalid(f"{after[:80]!r} is no id after which others come.")
        self._check_there()
        found: list[str] = []
        page = count if where is None else max(count, _PAGE)
        while len(found) < count:
            with self._file.errors():
                rows = (
                    self._file.connection()
                    .execute("SELECT id, fields FROM entry WHERE id > ? ORDER BY id LIMIT ?", (after, page))
                    .fetchall()
                )
            values = [unpacked(row) for _, row in rows]
            columns = {
                name: vector([row[place] for row in values], dtype)
                for place, (name, dtype) in enumerate(self.spec.fields.items())
            }
            kept = passing(where, columns, self.spec, len(rows))
            found += [each for (each, _), passes in zip(rows, kept, strict=True) if passes]
            if len(rows) < page:
                break
            after = rows[-1][0]
        return found[:count]

    def count(self, where: Node | None = None) -> int:
        check_where(self.spec, where)
        return int(np.count_nonzero(self._state().passing(where).mask))

    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._folder.iterdir() if path.is_file())

    def close(self) -> None:
        self._reader.forget()
        self._file.close()

    def _state(self) -> State:
        return self._reader.state()


class EmbeddedVectorStore:
    """Indexes in the folders of one folder.

    Args:
        approximate_above: As of `EmbeddedVectorIndex`.
    """

    def __init__(self, folder: Path, *, approximate_above: int | None = APPROXIMATE_ABOVE) -> None:
        self._folder, self._above = folder, approximate_above
        self._opened: dict[str, EmbeddedVectorIndex] = {}
        self._lock = threading.Lock()

    def create(self, name: str, spec: IndexSpec) -> EmbeddedVectorIndex:
        path = self._folder / check_id(name, "index")
        if not (path / _FILE).exists():
            self._make(path, spec)
        index = self.open(name)
        if index.spec != spec:
            raise other_spec(name)
        return index

    def _make(self, path: Path, spec: IndexSpec) -> None:
        """Create an index beside its place, so that it is there whole or not at all."""
        make_folder(self._folder)
        beside = self._folder / f".{path.name}.{os.urandom(8).hex()}.partial"
        made = _database(beside, f"page_size={page_bytes(spec.dimension)}")
        made.create(SCHEMA)
        with made.transaction() as connection:
            connection.execute("INSERT INTO spec VALUES (1, ?)", (msgspec.json.encode(spec),))
        made.close()
        try:
            beside.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another was faster
                raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        sync_folder(self._folder)

    def open(self, name: str) -> EmbeddedVectorIndex:
        """Open an index; those who open it by one store share what it has in memory."""
        with self._lock:
            index = self._opened.get(check_id(name, "index"))
            if index is None or not index.there:
                index = EmbeddedVectorIndex(self._folder / name, approximate_above=self._above)
                self._opened[name] = index
            return index

    def names(self) -> list[str]:
        return sorted(path.parent.name for path in self._folder.glob(f"[!.]*/{_FILE}"))

    def drop(self, name: str) -> None:
        path = self._folder / check_id(name, "index")
        with self._lock:
            opened = self._opened.pop(name, None)
        if opened is not None:
            opened.close()
        doomed = self._folder / f".{name}.{os.urandom(8).hex()}.partial"
        with suppress(FileNotFoundError):
            path.rename(doomed)
            Mark(doomed / _MARK).change()
            sync_folder(self._folder)
        for left in self._folder.glob(f".{name}.*.partial"):  # of a killed process too
            shutil.rmtree(left, ignore_errors=True)


def _database(folder: Path, *pragmas: str) -> SqliteFile:
    return SqliteFile(
        folder / _FILE,
        what="vector index",
        damaged=f"stop Mainspring, delete {folder} and build the index anew, or restore it from a backup.",
        pragmas=("synchronous=FULL", "mmap_size=268435456", "journal_size_limit=67108864", *pragmas),
    )


def _remove(connection: sqlite3.Connection, ids: Sequence[str]) -> int:
    """Delete entries, note it for those who read, and return how many were there."""
    names = [(each,) for each in ids]
    connection.executemany("INSERT INTO removed (number) SELECT number FROM entry WHERE id = ?", names)
    connection.executemany("DELETE FROM vector WHERE number = (SELECT number FROM entry WHERE id = ?)", names)
    there = connection.executemany("DELETE FROM entry WHERE id = ?", names).rowcount
    connection.execute("UPDATE version SET writes = writes + 1")
    return there

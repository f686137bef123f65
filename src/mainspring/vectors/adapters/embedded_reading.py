"""Entries of an embedded index as they are now, for searches: read once, and followed write by write.

Where another graph was written, searches go on with the one before, and with what was written since, until the new one
is read.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import MainspringError
from mainspring.core.sqlite_file import SqliteFile
from mainspring.vectors.adapters.embedded_state import Loaded, Row, State
from mainspring.vectors.adapters.mark import Mark
from mainspring.vectors.model import IndexSpec

if TYPE_CHECKING:
    from mainspring.vectors.adapters.graph import Graph

_BELIEVED_S = 0.1  # a writer that was killed between its commit and the mark is seen after that
_RETRY_S = 1.0  # between attempts to read another graph
_VERSION = "SELECT epoch, writes FROM version"
_LAST_CHANGE = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'removed'), 0)"
_ADDED = "SELECT number, id, vector, fields FROM entry JOIN vector USING (number) WHERE number > ? ORDER BY number"
_INDEXED = "SELECT number, id, fields FROM entry WHERE number <= ? ORDER BY number"
_log = logging.getLogger(__name__)


class Reader:
    """State of one index, which threads share.

    Args:
        database: Open the index's database.
        check: Raise if the index was dropped.
        approximate: Whether there may be a graph.
    """

    def __init__(
        self, folder: Path, spec: IndexSpec, mark: Mark, *, database: Callable[[], SqliteFile], file: SqliteFile,
        check: Callable[[], None], approximate: bool,
    ) -> None:  # fmt: skip
        self._folder, self._spec, self._mark, self._check = folder, spec, mark, check
        self._database, self._file, self._approximate = database, file, approximate
        self._lock, self._renewing = threading.Lock(), threading.Lock()
        self._renewal: threading.Thread | None = None
        self._renewal_from = 0.0  # no other begins before
        self._loaded: Loaded | None = None
        self._seen: State | None = None
        self._known: tuple[State, bytes, float] | None = None  # for which mark, and until when, a state is the newest

    def forget(self) -> None:
        """Release what is in memory."""
        with self._lock:
            self._known = self._seen = self._loaded = None

    def state(self) -> State:
        """Return the entries as they are now."""
        mark, asked_at = self._mark.value(), time.monotonic()
        if (known := self._known) is not None and known[1] == mark and asked_at < known[2]:
            return known[0]
        self._check()
        with self._file.errors():
            now = self._file.connection().execute(_VERSION).fetchone()
        state = self._seen
        if state is None or (state.epoch, state.writes) != now:
            state = self._followed()
        self._known = (state, mark, asked_at + _BELIEVED_S)
        return state

    def _followed(self) -> State:
        """Return the entries, with those that were written since they were read before."""
        with self._lock, self._file.transaction("DEFERRED") as connection:
            epoch, writes = connection.execute(_VERSION).fetchone()
            (change,) = connection.execute(_LAST_CHANGE).fetchone()
            state, loaded = self._seen, self._loaded
            if state is None or loaded is None:
                self._loaded, self._seen = self._read(connection)
                return self._seen
            rows = connection.execute("SELECT number FROM removed WHERE change > ?", (state.change,)).fetchall()
            if state.epoch != epoch and len(rows) < change - state.change:  # what was removed is not known any more
                self._loaded, self._seen = self._read(connection)
                return self._seen
            if state.epoch != epoch:
                self._begin_renewal()
            if state.writes != writes:
                last = int(state.numbers[-1]) if len(state.numbers) else 0
                added: list[Row] = connection.execute(_ADDED, (last,)).fetchall()
                removed = [number for (number,) in rows]
                self._seen = state = loaded.state(state.epoch, writes, change, added, removed)
        return state

    def _begin_renewal(self) -> None:
        now = time.monotonic()
        if now >= self._renewal_from and (self._renewal is None or not self._renewal.is_alive()):
            self._renewal_from = now + _RETRY_S
            self._renewal = threading.Thread(target=self._renew_beside, name=f"index-{self._folder.name}", daemon=True)
            self._renewal.start()

    def _renew_beside(self) -> None:
        try:
            self.renew()
        except MainspringError as error:
            _log.warning("The graph of %s was not read; the one before is used: %s", self._folder, error)

    def renew(self) -> None:
        """Read all entries anew, if there is another graph. Searches go on meanwhile."""
        with self._renewing, closing(self._database()) as file, file.transaction("DEFERRED") as connection:
            (epoch, _) = connection.execute(_VERSION).fetchone()
            if self._seen is None or self._seen.epoch == epoch:
                return
            loaded, state = self._read(connection)
            with self._lock:
                self._loaded, self._seen, self._known = loaded, state, None

    def _read(self, connection: sqlite3.Connection) -> tuple[Loaded, State]:
        """Return all entries: those of the graph, if it is used, and the others."""
        epoch, writes = connection.execute(_VERSION).fetchone()
        (change,) = connection.execute(_LAST_CHANGE).fetchone()
        row = connection.execute("SELECT file, digest, numbers FROM graph").fetchone()
        graph = None if row is None or not self._approximate else self._opened(self._folder / row[0], row[1])
        if graph is None:
            last, loaded = 0, Loaded(self._spec, None, np.empty(0, np.int64), [])
        else:
            numbers = np.frombuffer(row[2], np.int64)
            last = int(numbers[-1])
            loaded = Loaded(self._spec, graph, numbers, connection.execute(_INDEXED, (last,)))
        return loaded, loaded.state(epoch, writes, change, connection.execute(_ADDED, (last,)).fetchall(), [])

    def _opened(self, path: Path, digest: str) -> Graph | None:
        """Return a graph from its file; `None` if it is not as it was written, or FAISS is missing."""
        module = graphs()
        if module is None:
            return None
        try:
            content = module.mapped(path)
            if module.digest_of(content) == digest:
                graph: Graph = module.Graph(path, content, self._spec.dimension)
                return graph
            why = "its content is not what was written"
        except FileNotFoundError:
            why = "it is missing"
        _log.warning("%s is not used: %s. Searches are exact until the index is compacted.", path, why)
        return None


@cache
def graphs() -> Any:
    """Return the module of graphs; `None`, said once, if FAISS is not installed."""
    try:
        return import_module("mainspring.vectors.adapters.graph")
    except ModuleNotFoundError as error:
        if error.name != "faiss":
            raise
        _log.warning("FAISS is not installed: searches are exact, at any size. `pip install 'mainspring[vectors]'`")
        return None

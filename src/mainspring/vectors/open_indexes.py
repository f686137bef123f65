"""Indexes that a process searches: each is opened once, and again where a build made another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from mainspring.core.errors import Conflict, Invalid, Unavailable
from mainspring.core.locks import Locks
from mainspring.data.ports import LakeTables
from mainspring.vectors.declaring import Collection
from mainspring.vectors.indexed_words import Words
from mainspring.vectors.model import Build
from mainspring.vectors.ports import TextIndex, TextStore, VectorIndex, VectorStore


class OpenIndexes:
    """Open indexes of collections; threads may share them.

    One that was lost is made again from the table of chunks, and one of words from that of vectors. Lake and locks are
    opened for that alone, so that searches go on where they are away.
    """

    def __init__(
        self,
        lake: Callable[[], LakeTables],
        store: VectorStore,
        locks: Callable[[], Locks],
        texts: Callable[[], TextStore] | None = None,
    ) -> None:
        self._lake, self._store, self._locks, self._texts = lake, store, locks, texts
        self._words: dict[str, tuple[str, Words]] = {}
        self._open: dict[str, tuple[Build, VectorIndex]] = {}
        self._former: dict[str, VectorIndex] = {}  # that searches may still be in
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}  # one that is made again keeps no other waiting

    def of(self, collection: Collection, build: Build, *, restoring: bool = True) -> VectorIndex:
        """Return the index of a build.

        Args:
            restoring: Whether one that was lost is made again.

        Raises:
            NotFound: It was lost, and is not made again.
        """
        with self._lock_of(collection):
            of, index = self._open.get(collection.name, (None, None))
            if index is not None and of == build:
                return index
            if restoring:
                from mainspring.vectors.building import restore

                made = restore(self._lake(), self._store, self._locks(), collection, build)
            else:
                made = self._store.open(build.index)
            self._open[collection.name] = (build, made)
            if index is not None and index is not made:
                if (older := self._former.pop(collection.name, None)) is not None:
                    older.close()
                self._former[collection.name] = index
            return made

    def forget(self, collection: Collection) -> None:
        """Open the index of a collection anew the next time: the open one is gone."""
        with self._lock_of(collection):
            self._open.pop(collection.name, None)
            self._words.pop(collection.name, None)

    def words_of(self, collection: Collection, build: Build) -> TextIndex:
        """Return the index of words of a build.

        Raises:
            Invalid: It has none.
        """
        if not build.words or self._texts is None:
            raise Invalid(
                f"Collection {collection.name!r} is not found by words.",
                fix=f"declare it with words=True, then run `mainspring collections build {collection.name}`.",
            )
        vectors = self.of(collection, build)
        with self._lock_of(collection):
            name, words = self._words.get(collection.name, ("", None))
            if words is None or name != build.index:
                words = Words(self._texts(), build.index, collection.filters)
                # A build does it itself; and without the catalog, whose locks are away with it, there is none.
                with suppress(Conflict, Unavailable), self._locks().hold(f"collection.{collection.name}", wait_s=0):
                    words.bring(vectors)
                self._words[collection.name] = (build.index, words)
            return words.index

    def _lock_of(self, collection: Collection) -> threading.Lock:
        with self._lock:
            return self._opening.setdefault(collection.name, threading.Lock())

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for index in (*(each for _, each in self._open.values()), *self._former.values()):
                index.close()
            self._open.clear()
            self._former.clear()
            for _, words in self._words.values():
                words.close()
            self._words.clear()

"""Indexes that a process searches: each is opened once, and again where a build made another."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mainspring.core.errors import Invalid
from mainspring.data.ports import LakeTables
from mainspring.vectors.building import Words, restore
from mainspring.vectors.declaring import Collection
from mainspring.vectors.model import Build
from mainspring.vectors.ports import TextIndex, TextStore, VectorIndex, VectorStore


class OpenIndexes:
    """Open indexes of collections; threads may share them.

    One that was lost is made again from the table of chunks, and one of words from that of vectors.
    """

    def __init__(self, lake: LakeTables, store: VectorStore, texts: Callable[[], TextStore] | None = None) -> None:
        self._lake, self._store, self._texts = lake, store, texts
        self._words: dict[str, tuple[str, Words]] = {}
        self._open: dict[str, tuple[str, VectorIndex]] = {}
        self._former: dict[str, VectorIndex] = {}  # that searches may still be in
        self._lock = threading.Lock()

    def of(self, collection: Collection, build: Build) -> VectorIndex:
        """Return the index of a build."""
        with self._lock:
            name, index = self._open.get(collection.name, ("", None))
            if index is not None and name == build.index:
                return index
            made = restore(self._lake, self._store, collection, build)
            self._open[collection.name] = (build.index, made)
            if index is not None:
                if (older := self._former.pop(collection.name, None)) is not None:
                    older.close()
                self._former[collection.name] = index
            return made

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
        with self._lock:
            name, words = self._words.get(collection.name, ("", None))
            if words is None or name != build.index:
                words = Words(self._texts(), build.index, collection.filters)
                words.bring(vectors)
                self._words[collection.name] = (build.index, words)
            return words.index

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

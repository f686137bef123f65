"""Index of words beside an index of vectors, which says what is in both."""

from __future__ import annotations

from collections.abc import Iterator

from mainspring.core.schema import Schema
from mainspring.vectors.chunking.model import headed
from mainspring.vectors.declaring import PATH, TEXT, path_of
from mainspring.vectors.model import Entries
from mainspring.vectors.ports import TextStore, VectorIndex

ENTRIES_AT_ONCE = 1_000


class Words:
    """Index of words beside an index of vectors: each change is made here first."""

    def __init__(self, texts: TextStore, name: str, fields: Schema) -> None:
        self._texts, self._name, self._fields = texts, name, fields
        self.index = texts.create(name, fields)

    def upsert(self, entries: Entries) -> None:
        """Add the texts of entries, each below its headings."""
        fields = {name: entries.fields[name] for name in self._fields}
        self.index.upsert(entries.ids, indexed_texts(entries), fields)

    def bring(self, vectors: VectorIndex) -> None:
        """Make it anew from an index of vectors where it has another number of entries: it was lost, or a build was
        killed between the two.
        """
        if self.index.count() != vectors.count():
            self.index.close()
            self._texts.drop(self._name)
            self.index = self._texts.create(self._name, self._fields)
            self.take(vectors)

    def take(self, vectors: VectorIndex) -> None:
        """Add all entries of an index of vectors."""
        for ids in pages_of(vectors, ENTRIES_AT_ONCE):
            self.upsert(vectors.get(ids))

    def close(self) -> None:
        self.index.close()


def indexed_texts(entries: Entries) -> list[str]:
    """Return the texts of entries as they are found by words: each below its headings."""
    paths, texts = entries.fields[PATH], entries.fields[TEXT]
    return [headed(*each) for each in zip(map(path_of, paths), texts, strict=True)]


def pages_of(index: VectorIndex, count: int) -> Iterator[list[str]]:
    """Yield the ids of an index, sorted; those of a piece may be deleted before the next."""
    last = ""
    while ids := index.ids(after=last, count=count):
        last = ids[-1]
        yield ids

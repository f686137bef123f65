"""Passages from the build of a collection that searches use."""

from __future__ import annotations

from collections.abc import Callable

from mainspring.core.expr.tree import Node
from mainspring.llm.answers.model import Passage, Retrieved
from mainspring.vectors.declaring import Collection
from mainspring.vectors.model import Build, Mode
from mainspring.vectors.ports import Encoder, TextIndex, VectorIndex
from mainspring.vectors.searching import search

Opened = Callable[[], tuple[Build, VectorIndex, Encoder, TextIndex | None]]


class CollectionRetrieving:
    """A search in a collection.

    Args:
        opened: Returns the build that searches use now, its index, the encoder that it was built with, and its index of
            words where the mode needs that.
    """

    def __init__(self, collection: Collection, opened: Opened, mode: Mode = "vectors") -> None:
        self._collection, self._opened, self._mode = collection, opened, mode

    def retrieve(self, query: str, k: int, *, where: Node | None = None, tenant: str | None = None) -> Retrieved:
        build, index, encoder, words = self._opened()
        (found,) = search(
            self._collection,
            build,
            index,
            encoder,
            [query],
            k,
            where=where,
            tenant=tenant,
            words=words,
            mode=self._mode,
        )
        passages = tuple(
            Passage(
                id=each.id,
                score=each.score,
                document=each.document,
                start=each.start,
                end=each.end,
                text=each.text,
                path=each.path,
                similarity=each.similarity,
            )
            for each in found
        )
        return Retrieved(passages=passages, version=f"{build.index}.{build.table_version}")

"""Passages from the build of a collection that searches use."""

from __future__ import annotations

from collections.abc import Callable

from mainspring.core.expr.tree import Node
from mainspring.llm.answers.model import Passage, Retrieved
from mainspring.vectors.declaring import Collection
from mainspring.vectors.model import Build
from mainspring.vectors.ports import Encoder, VectorIndex
from mainspring.vectors.searching import search

Opened = Callable[[], tuple[Build, VectorIndex, Encoder]]


class CollectionRetrieving:
    """A search in a collection.

    Args:
        opened: Returns the build that searches use now, its index, and the encoder that it was built with.
    """

    def __init__(self, collection: Collection, opened: Opened) -> None:
        self._collection, self._opened = collection, opened

    def retrieve(self, query: str, k: int, *, where: Node | None = None, tenant: str | None = None) -> Retrieved:
        build, index, encoder = self._opened()
        (found,) = search(self._collection, build, index, encoder, [query], k, where=where, tenant=tenant)
        passages = tuple(
            Passage(
                id=each.id,
                score=each.score,
                document=each.document,
                start=each.start,
                end=each.end,
                text=each.text,
                path=each.path,
            )
            for each in found
        )
        return Retrieved(passages=passages, version=f"{build.index}.{build.table_version}")

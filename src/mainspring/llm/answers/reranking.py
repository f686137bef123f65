"""Reranking of passages: by their words, without a model, and by a cross-encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

from mainspring.llm.answers.model import Passage
from mainspring.vectors.bm25 import ranked
from mainspring.vectors.chunking.model import headed
from mainspring.vectors.fusion import fuse
from mainspring.vectors.model import Hit
from mainspring.vectors.ports import CrossEncoder
from mainspring.vectors.words import asked_words, words


class WordReranker:
    """Fuses the order of the search with that of BM25 among the passages that it found, by reciprocal ranks."""

    digest = "words-2"

    def score(self, query: str, passages: Sequence[Passage]) -> list[float]:
        texts = {each.id: Counter(words(headed(each.path, each.text))) for each in passages}
        (asked,) = asked_words([query], len(passages))
        found = {
            "search": [Hit(each.id, each.score) for each in passages],
            "words": ranked(texts, asked, set(texts)),
        }
        scores = {hit.id: hit.score for hit in fuse(found, len(passages))}
        return [scores[each.id] for each in passages]


class ModelReranker:
    """Orders passages by a cross-encoder, which reads each below its headings.

    Args:
        opened: Returns the cross-encoder; called for the first query, and again while it fails.
        within_s: Time for all passages of a query.
    """

    def __init__(self, opened: Callable[[], CrossEncoder], within_s: float) -> None:
        self._opened, self._within_s = opened, within_s

    @cached_property
    def _encoder(self) -> CrossEncoder:
        return self._opened()

    @property
    def digest(self) -> str:
        return self._encoder.digest

    def score(self, query: str, passages: Sequence[Passage]) -> list[float]:
        texts = [headed(each.path, each.text) for each in passages]
        return self._encoder.score(query, texts, within_s=self._within_s)

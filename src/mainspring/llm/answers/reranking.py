"""Reranking of passages by their words, without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mainspring.llm.answers.model import Passage
from mainspring.vectors.bm25 import ranked
from mainspring.vectors.fusion import fuse
from mainspring.vectors.model import Hit
from mainspring.vectors.words import asked_words, words


class WordReranker:
    """Fuses the order of the search with that of BM25 among the passages that it found, by reciprocal ranks."""

    digest = "words-1"

    def score(self, query: str, passages: Sequence[Passage]) -> list[float]:
        texts = {each.id: Counter(words(each.text)) for each in passages}
        (asked,) = asked_words([query], len(passages))
        found = {
            "search": [Hit(each.id, each.score) for each in passages],
            "words": ranked(texts, asked, set(texts)),
        }
        scores = {hit.id: hit.score for hit in fuse(found, len(passages))}
        return [scores[each.id] for each in passages]

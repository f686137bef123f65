"""BM25 computed from its formula, text by text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from mainspring.vectors.model import Hit

K1, B = 1.2, 0.75  # how fast further occurrences of a word count less, and how much a long text does


def ranked(texts: Mapping[str, Counter[str]], query: Sequence[str], within: set[str]) -> list[Hit]:
    """Return the texts that have words of a query, the best first, ties by id; `ports.TextIndex` has the formula.

    Args:
        texts: Id -> its words, counted.
        query: Different words.
        within: Ids that may be found; the others count in the statistics alone.
    """
    lengths = {id: counts.total() for id, counts in texts.items()}
    mean = sum(lengths.values()) / max(len(texts), 1)
    scores: dict[str, float] = {}
    for word in query:
        held = [id for id, counts in texts.items() if word in counts]
        rarity = math.log(1 + (len(texts) - len(held) + 0.5) / (len(held) + 0.5))
        for id in within.intersection(held):
            times = texts[id][word]
            share = times * (K1 + 1) / (times + K1 * (1 - B + B * lengths[id] / mean))
            scores[id] = scores.get(id, 0.0) + rarity * share
    return sorted((Hit(id, score) for id, score in scores.items()), key=lambda hit: (-hit.score, hit.id))

"""Rows that nearly repeat an earlier row, found by locality-sensitive hashing and confirmed by their similarity.

The similarity of two rows is the mean over their columns (Gower, Biometrics 27, 1971): of equal categories 1 and else
0; of numbers 1 less their distance in the column's spread, at least 0; of texts of several words the Jaccard similarity
of their sets of word pairs. Two nulls agree, a null and a value do not.

Each kind of column has hashes that agree with just this probability: of the category, of the number's cell in a grid
that is shifted at random, and of the set's minimum under a random order (Broder 1997). So a hash of a column that is
drawn at random agrees with the probability of the rows' similarity s. Rows are compared if they agree in all of `DRAWS`
such hashes in one of several bands (Indyk and Motwani 1998): with the probability 1 - (1 - s^DRAWS)^bands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.stats.text_hash import text_hash

DRAWS = 16  # hashes of a band
RECALL = 0.995  # probability that a pair at the threshold is compared
MOST_COMPARED = 64  # rows before each that share a band with it, besides the first
_WORDS = 4  # mean words of a text from which a column is no category
_PRIME = np.uint64((1 << 31) - 1)
_PIECE = 1 << 18  # pairs compared at once

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Hash = Callable[[np.random.Generator], npt.NDArray[np.uint64]]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows that nearly repeat an earlier one, in their order; all of shape (repeats,).

    Attributes:
        rows: The rows.
        of: For each the first of the earlier rows that it repeats.
        similarity: Of the two.
    """

    rows: Ints
    of: Ints
    similarity: Floats


def find(columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]], threshold: float, seed: int = 0) -> Repeats:
    """Return the rows that have a similarity of at least `threshold` with an earlier row.

    A row that is equal to an earlier one is always found. Where very many rows share a band, some are not compared.

    Args:
        columns: Name -> shape (rows,): numbers, or texts with None for null.
        threshold: In (0, 1].
        seed: Of the hashes.
    """
    measured = [_column(np.asarray(values)) for values in columns.values()]
    rows = len(next(iter(columns.values()), ()))
    if not measured or rows < 2:
        return Repeats(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    codes = np.column_stack([each.codes for each in measured])
    _, firsts, group = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    equal = firsts[group.reshape(-1)].astype(np.int64)
    distinct = np.sort(firsts).astype(np.int64)
    of = np.arange(rows)
    rng = np.random.default_rng(seed)
    for _ in range(bands(threshold)) if threshold < 1 else ():
        later, earlier = _pairs(_band(measured, rng)[distinct])
        for start in range(0, len(later), _PIECE):
            pair = distinct[later[start : start + _PIECE]], distinct[earlier[start : start + _PIECE]]
            near = _similarity(measured, *pair) >= threshold
            np.minimum.at(of, pair[0][near], pair[1][near])
    of = of[equal]
    found = np.flatnonzero(of < np.arange(rows))
    return Repeats(found, of[found], _similarity(measured, found, of[found]))


def bands(threshold: float) -> int:
    """Return the number of bands by which pairs at the threshold are compared with the probability `RECALL`."""
    return math.ceil(math.log(1 - RECALL) / math.log(1 - threshold**DRAWS))


@dataclass(frozen=True, slots=True)
class _Column:
    """A column's exact codes, a draw of its hashes, and the similarity of pairs of rows."""

    codes: Ints
    draw: Hash
    similarity: Callable[[Ints, Ints], Floats]


def _column(values: npt.NDArray[Any]) -> _Column:
    if values.dtype.kind in "biuf":
        return _numbers(values.astype(np.float64))
    texts = [None if each is None else str(each) for each in values.tolist()]
    known = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    codes = np.array([known[text] for text in texts], np.int64)
    present = [text for text in known if text is not None]
    if sum(len(text.split()) for text in present) < _WORDS * len(present) or not present:
        return _Column(
            codes, lambda rng: _mixed(codes, rng), lambda one, two: (codes[one] == codes[two]).astype(np.float64)
        )
    return _texts(codes, list(known))


def _numbers(values: Floats) -> _Column:
    finite = values[np.isfinite(values)]
    quarters = np.quantile(finite, (0.25, 0.75)) if finite.size else np.zeros(2)
    spread = float(quarters[1] - quarters[0]) / 1.349 or (float(finite.std()) if finite.size else 0.0) or 1.0
    scaled = values / spread
    strange = ~np.isfinite(scaled)
    scaled = np.where(strange, 0.0, np.clip(scaled, -1e12, 1e12))
    kind = np.where(np.isnan(values), 1, np.where(strange, 2 + (values > 0), 0)).astype(np.int64)
    codes = np.unique(np.column_stack([kind, scaled.view(np.int64)]), axis=0, return_inverse=True)[1].reshape(-1)

    def draw(rng: np.random.Generator) -> npt.NDArray[np.uint64]:
        cells = np.floor(scaled + rng.random()).astype(np.int64)
        return _mixed(np.where(kind == 0, cells, (1 << 50) + kind), rng)

    def similarity(one: Ints, two: Ints) -> Floats:
        near = np.maximum(0.0, 1.0 - np.abs(scaled[one] - scaled[two]))
        found: Floats = np.where(kind[one] == kind[two], near, 0.0)
        return found

    return _Column(codes.astype(np.int64), draw, similarity)


def _texts(codes: Ints, known: Sequence[str | None]) -> _Column:
    """Return a column of texts, as sets of pairs of words."""
    sets = [frozenset[int]() if text is None else _word_pairs(text) for text in known]
    members = np.fromiter((each for some in sets for each in sorted(some)), np.uint64)
    sizes = np.array([len(some) for some in sets])
    filled = np.flatnonzero(sizes)
    begins = (np.cumsum(sizes) - sizes)[filled]

    def draw(rng: np.random.Generator) -> npt.NDArray[np.uint64]:
        least = np.full(len(sets), _PRIME, np.uint64)  # of null
        least[filled] = np.minimum.reduceat(_permuted(members, rng), begins)
        return _mixed(least.astype(np.int64)[codes], rng)

    def similarity(one: Ints, two: Ints) -> Floats:
        pairs, place = np.unique(np.column_stack([codes[one], codes[two]]), axis=0, return_inverse=True)
        return np.array([_jaccard(sets[a], sets[b]) for a, b in pairs.tolist()])[place.reshape(-1)]

    return _Column(codes, draw, similarity)


def _word_pairs(text: str) -> frozenset[int]:
    words = text.casefold().split()
    return frozenset(text_hash(" ".join(pair)) for pair in zip(words, words[1:] or words, strict=False)) or frozenset(
        {0}
    )


def _jaccard(one: frozenset[int], two: frozenset[int]) -> float:
    union = len(one | two)
    return len(one & two) / union if union else 1.0


def _permuted(members: npt.NDArray[np.uint64], rng: np.random.Generator) -> npt.NDArray[np.uint64]:
    """Return members of 32 bits under a random order, below `_PRIME`."""
    by, plus = (np.uint64(each) for each in rng.integers(1, int(_PRIME), 2))
    return (members % _PRIME * by + plus) % _PRIME


def _mixed(values: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.uint64]:
    """Return 64-bit hashes of integers by a random odd multiplier (splitmix64's finaliser)."""
    found = values.view(np.uint64) + np.uint64(rng.integers(0, 1 << 63))
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return found ^ (found >> np.uint64(31))


def _band(measured: Sequence[_Column], rng: np.random.Generator) -> npt.NDArray[np.uint64]:
    """Return hashes of shape (rows,), each of `DRAWS` hashes of columns that are drawn with replacement."""
    total = np.zeros(len(measured[0].codes), np.uint64)
    for column in rng.integers(0, len(measured), DRAWS).tolist():
        total = total * np.uint64(0x9E3779B97F4A7C15) + measured[column].draw(rng)
    return total


def _pairs(hashes: npt.NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """Return pairs (later, earlier) of places with equal hashes: each place with the first and those before it."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    first = np.searchsorted(ordered, ordered)
    far = np.flatnonzero(np.arange(len(order)) - first > MOST_COMPARED)
    later, earlier = [order[far]], [order[first[far]]]
    for back in range(1, min(MOST_COMPARED, len(order) - 1) + 1):
        same = np.flatnonzero(ordered[back:] == ordered[:-back])
        if not same.size:
            break
        later.append(order[same + back])
        earlier.append(order[same])
    return np.concatenate(later), np.concatenate(earlier)


def _similarity(measured: Sequence[_Column], one: Ints, two: Ints) -> Floats:
    found: Floats = sum((each.similarity(one, two) for each in measured), np.zeros(len(one))) / len(measured)
    return found

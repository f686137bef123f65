"""Retrieval metrics: how well ranked lists of ids answer queries, given the ids that are relevant and their grades.

A metric of a query is in [0, 1], and NaN where nothing is relevant. It looks at the first `k` ids; a rank without an id
counts as one that is not relevant. An id that stands twice counts at its first rank, and takes the other in vain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.stats.distributions import student_quantile
from mainspring.stats.intervals import Interval

KINDS = ("recall", "precision", "ndcg", "mrr", "hit_rate")
MOST_RANKS = 10_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RetrievalMetric:
    """A metric of the first `k` ids of a ranked list. More is better.

    Attributes:
        kind: "recall": share of the relevant ids that are among them. "precision": share of the `k` that are relevant.
            "hit_rate": 1 if any is relevant. "mrr": reciprocal of the first relevant rank, else 0. "ndcg": discounted
            cumulative gain as a share of the best possible (Järvelin and Kekäläinen, ACM TOIS 20, 2002): the gain of an
            id is its grade, its discount the binary logarithm of 1 + rank.
    """

    kind: str
    k: int

    @property
    def name(self) -> str:
        return f"{self.kind}@{self.k}"


def retrieval_metric(name: str) -> RetrievalMetric | None:
    """Return the metric of a name such as "recall@10"; `None` if there is none."""
    kind, _, k = name.partition("@")
    if kind not in KINDS or not k.isascii() or not k.isdecimal() or k.startswith("0") or len(k) > 5:
        return None
    return RetrievalMetric(kind, int(k)) if int(k) <= MOST_RANKS else None


@dataclass(frozen=True, slots=True)
class Gains:
    """Grades by rank.

    Attributes:
        found: Grade of the id at each rank of each query, shape (queries, ranks); 0 where it is not relevant.
        ideal: Grades of the relevant ids of each query, the best first, then zeros, shape (queries, most relevant).
    """

    found: Floats
    ideal: Floats


def gains(rankings: Sequence[Sequence[str]], relevant: Sequence[Mapping[str, float]]) -> Gains:
    """Return the grades of ranked lists.

    Args:
        rankings: Ids that were found for each query, the best first.
        relevant: Grade of each relevant id of each query. An id of grade 0 is not relevant.

    Raises:
        Invalid: The numbers of queries differ, or a grade is no finite number of at least 0.
    """
    if len(rankings) != len(relevant):
        raise Invalid(f"There are {len(rankings)} ranked lists, and judgements of {len(relevant)} queries.")
    unfit = [grade for grades in relevant for grade in grades.values() if not (math.isfinite(grade) and grade >= 0)]
    if unfit:
        raise Invalid(f"A grade of a relevant id is {unfit[0]!r}.", fix="give a finite number of at least 0.")
    found = [
        [grades.get(each, 0.0) if new else 0.0 for each, new in _marked(ranking)]
        for ranking, grades in zip(rankings, relevant, strict=True)
    ]
    return Gains(_padded(found), _padded([sorted(grades.values(), reverse=True) for grades in relevant]))


def _marked(ranking: Sequence[str]) -> list[tuple[str, bool]]:
    """Return each id, and whether it stands here for the first time."""
    first = {each: rank for rank, each in reversed(list(enumerate(ranking)))}
    return [(each, first[each] == rank) for rank, each in enumerate(ranking)]


def _padded(rows: Sequence[Sequence[float]]) -> Floats:
    padded = np.zeros((len(rows), max(map(len, rows), default=0)))
    for at, row in enumerate(rows):
        padded[at, : len(row)] = row
    return padded


def measured(metric: RetrievalMetric, given: Gains) -> Floats:
    """Return the metric of each query, shape (queries,)."""
    found, ideal = given.found[:, : metric.k], given.ideal
    hits, relevant = found > 0, (ideal > 0).sum(axis=1)
    known = np.where(relevant > 0, relevant, math.nan)
    values: Any
    if metric.kind == "recall":
        values = hits.sum(axis=1) / known
    elif metric.kind == "precision":
        values = hits.sum(axis=1) / metric.k
    elif metric.kind == "hit_rate":
        values = hits.any(axis=1).astype(np.float64)
    elif metric.kind == "mrr":
        values = (hits / np.arange(1, hits.shape[1] + 1)).max(axis=1, initial=0.0)
    else:
        scale = np.where(relevant > 0, ideal.max(axis=1, initial=0.0), 1.0)[:, None]  # no sum overflows
        best = _discounted((ideal / scale)[:, : metric.k])
        values = np.minimum(_discounted(found / scale) / np.where(best > 0, best, 1.0), 1.0)
    return np.asarray(np.where(np.isnan(known), math.nan, values))


def _discounted(grades: Floats) -> Floats:
    return np.asarray((grades / np.log2(np.arange(2, grades.shape[1] + 2))).sum(axis=1))


@dataclass(frozen=True, slots=True)
class Mean:
    """A metric's mean over queries, or the mean difference of two.

    Attributes:
        value: NaN without a query.
        interval: `None` without a query.
        queries: Number of queries that count: something is relevant to them.
    """

    value: float
    interval: Interval | None
    queries: int


def mean(values: npt.ArrayLike, *, confidence: float = 0.95, low: float = 0.0, high: float = 1.0) -> Mean:
    """Return the mean of queries' values in [low, high] with its interval, which takes queries as drawn independently.

    It is Student's t interval of the values and two more, one at each end of their range (Agresti and Caffo, The
    American Statistician 54, 2000, for shares), cut to the range: so twenty queries without a fault are no proof that
    none ever fails, as they are in a t interval and in a bootstrap.

    Args:
        values: Shape (queries,); NaN counts as no query.

    Raises:
        Invalid: A value is out of the range, or `confidence` is not in (0, 1).
    """
    each = np.asarray(values, dtype=np.float64)
    each = each[~np.isnan(each)]
    if not 0 < confidence < 1:
        raise Invalid(f"{confidence} is no confidence.", fix="give a probability such as 0.95.")
    if each.size and not (low <= each.min() and each.max() <= high):
        raise Invalid(f"A query's value is outside [{low:g}, {high:g}].")
    if not each.size:
        return Mean(math.nan, None, 0)
    more = np.r_[each, low, high]
    reach = student_quantile((1 + confidence) / 2, more.size - 1) * float(more.std(ddof=1)) / math.sqrt(more.size)
    bounds = max(low, float(more.mean()) - reach), min(high, float(more.mean()) + reach)
    return Mean(float(each.mean()), Interval(*bounds, confidence), each.size)


def mean_difference(values: npt.ArrayLike, others: npt.ArrayLike, *, confidence: float = 0.95) -> Mean:
    """Return the mean of `values - others`, paired by query, with its interval (see `mean`).

    Args:
        values: A metric of the queries, shape (queries,), with one retriever.
        others: The metric of the same queries with another.

    Raises:
        Invalid: The numbers of queries differ.
    """
    first, second = np.asarray(values, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if first.shape != second.shape:
        raise Invalid(f"The values of {first.size} queries cannot be paired with those of {second.size}.")
    return mean(first - second, confidence=confidence, low=-1.0)


def unpaired_difference(values: npt.ArrayLike, others: npt.ArrayLike, *, confidence: float = 0.95) -> Mean:
    """Return the difference of two means, each over queries of its own, with its interval: Welch's, of the values and
    two more on either side (see `mean`).

    Args:
        values, others: In [0, 1]; NaN counts as no query.

    Raises:
        Invalid: As of `mean`.
    """
    first, second = mean(values, confidence=confidence), mean(others, confidence=confidence)
    if not first.queries or not second.queries:
        return Mean(math.nan, None, 0)
    centres, variances, freedom = [], [], []
    for each in (values, others):
        known = np.asarray(each, dtype=np.float64)
        more = np.r_[known[~np.isnan(known)], 0.0, 1.0]
        centres.append(float(more.mean()))
        variances.append(float(more.var(ddof=1)) / more.size)
        freedom.append(more.size - 1)
    spread = sum(variances)
    degrees = spread**2 / sum(each**2 / count for each, count in zip(variances, freedom, strict=True))
    reach = student_quantile((1 + confidence) / 2, max(1, int(degrees))) * math.sqrt(spread)
    bounds = max(-1.0, centres[0] - centres[1] - reach), min(1.0, centres[0] - centres[1] + reach)
    return Mean(first.value - second.value, Interval(*bounds, confidence), first.queries + second.queries)

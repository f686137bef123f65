"""Measures of a search by the queries of an evaluation set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np

from mainspring.core.errors import Invalid
from mainspring.stats.retrieval import (
    KINDS,
    Floats,
    Mean,
    RetrievalMetric,
    gains,
    mean,
    mean_difference,
    measured,
    retrieval_metric,
)
from mainspring.vectors.evaluation.declaring import DOCUMENT
from mainspring.vectors.evaluation.judgements import JudgedQuery, Judgements


class Ranked(Protocol):
    """A chunk that was found."""

    @property
    def id(self) -> str:
        """Name of the chunk."""
        ...

    @property
    def document(self) -> str:
        """Key of its document."""
        ...


class Search(Protocol):
    """A search that is measured."""

    def __call__(self, queries: Sequence[str], k: int, tenant: str | None) -> Sequence[Sequence[Ranked]]:
        """Return the best `k` chunks of each query, or all that there are, the best first."""
        ...


METRICS = ("recall@10", "ndcg@10", "mrr@10", "precision@5", "hit_rate@1")
UNANSWERED, FALSE_HITS = "unanswered", "false_hits"  # shares, of which less is better
_BATCH = 256  # queries
MOST_CHUNKS = 1_000  # that are searched for the documents of a query


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over queries, with the interval that contains the true one with a probability of 95 %.

    Attributes:
        value, low, high: `None` without a query.
        queries: Number of queries that count.
    """

    value: float | None
    low: float | None
    high: float | None
    queries: int


class QueryResult(msgspec.Struct, frozen=True, kw_only=True):
    """One query's measures.

    Attributes:
        key: Of the query with its judgements; see `JudgedQuery.key`.
        values: In the order of the evaluation's metrics; `None` where nothing is relevant.
        hits: Number of ids that were found.
        text, found: Its text, and the ids, the best first; empty where the result was stored.
    """

    key: str
    values: tuple[float | None, ...]
    hits: int
    tags: tuple[str, ...] = ()
    text: str = ""
    found: tuple[str, ...] = ()


class SearchEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of a search.

    Attributes:
        set, set_version, set_digest: Name, version and digest of the evaluation set.
        metrics: Names of the metrics of `queries`.
        figures: Metric -> its mean. "unanswered" is the share of queries for which nothing was found although
            something is relevant, "false_hits" the share of those without a relevant id for which something was.
        by_tag: Tag -> the same for its queries.
    """

    set: str
    set_version: int
    set_digest: str
    metrics: tuple[str, ...]
    figures: Mapping[str, Figure]
    by_tag: Mapping[str, Mapping[str, Figure]]
    queries: tuple[QueryResult, ...]

    @property
    def recall(self) -> tuple[str, Figure | None]:
        """Name and mean of the first metric of recall; an empty name and `None` if there is none."""
        found = ((name, figure) for name, figure in self.figures.items() if name.startswith("recall@"))
        return next(found, ("", None))

    def stored(self) -> SearchEvaluation:
        """Return the evaluation without texts and ids, which may be personal."""
        kept = tuple(msgspec.structs.replace(each, text="", found=()) for each in self.queries)
        return msgspec.structs.replace(self, queries=kept)

    def values(self, name: str, tag: str = "") -> Floats:
        """Return a figure's value for each query, or for those with a tag; NaN where it has none.

        Raises:
            Invalid: It was not measured.
        """
        chosen = [each for each in self.queries if not tag or tag in each.tags]
        if name in (UNANSWERED, FALSE_HITS):
            counts = [(each.values[0] is None) == (name == FALSE_HITS) for each in chosen]
            shown = [(each.hits > 0) == (name == FALSE_HITS) for each in chosen]
            return np.array([float(one) if counted else math.nan for counted, one in zip(counts, shown, strict=True)])
        if name not in self.metrics:
            raise Invalid(f"The metric {name!r} was not measured.", fix=f"name one of {', '.join(self.metrics)}.")
        at = self.metrics.index(name)
        return np.array([math.nan if (value := each.values[at]) is None else value for each in chosen])

    def worst(self, count: int = 10) -> list[QueryResult]:
        """Return the queries with the lowest nDCG, or first metric; among equals by key. No other than with a loss."""
        by = next((name for name in self.metrics if name.startswith("ndcg")), self.metrics[0])
        order = [(value, each.key, at) for at, each in enumerate(self.queries) if (value := self._value(each, by)) < 1]
        return [self.queries[at] for _, _, at in sorted(order)[:count]]

    def _value(self, result: QueryResult, name: str) -> float:
        value = result.values[self.metrics.index(name)]
        return math.inf if value is None else value


def checked_metrics(names: Iterable[str]) -> tuple[RetrievalMetric, ...]:
    """Return metrics of these names, each once.

    Raises:
        Invalid: One is no metric of retrieval, or there is none.
    """
    found = []
    for name in dict.fromkeys(names):
        metric = retrieval_metric(name)
        if metric is None:
            kinds = ", ".join(f"{kind}@10" for kind in KINDS)
            raise Invalid(f"{name!r} is no metric of retrieval.", fix=f"write one such as {kinds}.")
        found.append(metric)
    if not found:
        raise Invalid("An evaluation has no metrics.", fix=f"name some, such as {METRICS[0]}.")
    return tuple(found)


def evaluate(judgements: Judgements, search: Search, *, metrics: Sequence[str] = METRICS) -> SearchEvaluation:
    """Return the measures of a search. A query for which less was found than asked is judged by what was found.

    Where relevant ids are of documents, a document's rank is that of its first chunk among the documents; more chunks
    are searched until there are documents enough.

    Raises:
        Invalid: A metric is unknown, or the search refuses a query.
    """
    wanted = checked_metrics(metrics)
    depth = max(metric.k for metric in wanted)
    rankings: dict[int, list[str]] = {}
    by_tenant: dict[str | None, list[int]] = {}
    for at, query in enumerate(judgements.queries):
        by_tenant.setdefault(query.tenant, []).append(at)
    for tenant, places in by_tenant.items():
        for start in range(0, len(places), _BATCH):
            part = places[start : start + _BATCH]
            texts = [judgements.queries[at].text for at in part]
            found = _ranked(texts, depth, search, tenant, documents=judgements.of == DOCUMENT)
            rankings |= zip(part, found, strict=True)
    return _evaluation(judgements, [rankings[at] for at in range(len(judgements.queries))], wanted)


def _ranked(
    texts: Sequence[str], depth: int, search: Search, tenant: str | None, *, documents: bool
) -> list[list[str]]:
    """Return the best ids of each query: chunks, or documents each once."""
    found: dict[int, list[str]] = {}
    chunks, asked = min(depth, MOST_CHUNKS), list(range(len(texts)))
    while asked:
        more = []
        for at, hits in zip(asked, search([texts[each] for each in asked], chunks, tenant), strict=True):
            ids = list(dict.fromkeys(hit.document if documents else hit.id for hit in hits))
            found[at] = ids[:depth]
            if documents and len(ids) < depth and len(hits) >= chunks and chunks < MOST_CHUNKS:
                more.append(at)
        chunks, asked = min(4 * chunks, MOST_CHUNKS), more
    return [found[at] for at in range(len(texts))]


def _evaluation(
    judgements: Judgements, rankings: Sequence[Sequence[str]], metrics: Sequence[RetrievalMetric]
) -> SearchEvaluation:
    queries = judgements.queries
    given = gains(rankings, [each.relevant for each in queries])
    columns = [measured(metric, given) for metric in metrics]
    results = [
        _result(query, ranking, [column[at] for column in columns])
        for at, (query, ranking) in enumerate(zip(queries, rankings, strict=True))
    ]
    return summarise(judgements, [metric.name for metric in metrics], results)


def summarise(judgements: Judgements, metrics: Sequence[str], results: Sequence[QueryResult]) -> SearchEvaluation:
    """Return an evaluation of each query's measures, in the order of the judgements.

    Args:
        metrics: Names of the values, each in [0, 1]; the first is `None` where nothing is relevant, and only there.
    """
    bare = SearchEvaluation(
        set=judgements.set,
        set_version=judgements.version,
        set_digest=judgements.digest,
        metrics=tuple(metrics),
        figures={},
        by_tag={},
        queries=tuple(results),
    )
    tags = sorted({tag for query in judgements.queries for tag in query.tags})
    return msgspec.structs.replace(bare, figures=_figures(bare), by_tag={tag: _figures(bare, tag) for tag in tags})


def _result(query: JudgedQuery, ranking: Sequence[str], values: Sequence[float]) -> QueryResult:
    return QueryResult(
        key=query.key,
        values=tuple(None if math.isnan(value) else float(value) for value in values),
        hits=len(ranking),
        tags=query.tags,
        text=query.text,
        found=tuple(ranking),
    )


def _figures(given: SearchEvaluation, tag: str = "") -> dict[str, Figure]:
    return {name: figure(mean(given.values(name, tag))) for name in (*given.metrics, UNANSWERED, FALSE_HITS)}


def figure(found: Mean) -> Figure:
    """Return a mean as it is stored and shown."""
    if found.interval is None:
        return Figure(value=None, low=None, high=None, queries=0)
    return Figure(value=found.value, low=found.interval.low, high=found.interval.high, queries=found.queries)


def paired(evaluation: SearchEvaluation, other: SearchEvaluation, name: str, tag: str = "") -> tuple[Floats, Floats]:
    """Return a figure's values of the queries that two evaluations share, with equal judgements.

    Raises:
        Invalid: One of them did not measure it.
    """
    theirs = dict(zip([each.key for each in other.queries], other.values(name), strict=True))
    chosen = [each for each in evaluation.queries if not tag or tag in each.tags]
    ours = zip(chosen, evaluation.values(name, tag), strict=True)
    pairs = [(value, theirs[each.key]) for each, value in ours if each.key in theirs]
    columns: Floats = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def compare(evaluation: SearchEvaluation, other: SearchEvaluation) -> dict[str, Figure]:
    """Return the mean difference to another evaluation for each figure of both, paired by query."""
    shared = [name for name in (*evaluation.metrics, UNANSWERED, FALSE_HITS)
              if name in (*other.metrics, UNANSWERED, FALSE_HITS)]  # fmt: skip
    return {name: figure(mean_difference(*paired(evaluation, other, name))) for name in shared}

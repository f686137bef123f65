"""Comparison of one column's recent distribution with its training reference, from the sketches of the log."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from mainspring.core.errors import NotFound
from mainspring.features.describe.personal import personal_names
from mainspring.monitoring.served import Served, served
from mainspring.operations.models.cards import personal
from mainspring.project import Project
from mainspring.stats.column_counting import placing
from mainspring.stats.reference import CATEGORICAL, QUANTILES, ColumnReference
from mainspring.stats.sketches import Sketch
from mainspring.stats.summaries import Summary

_FREQUENT = 10  # values
_GROUPS = 16  # of a numeric column's bins, each with about as many training values


class BinShares(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of the values in one bin.

    Attributes:
        category: Value of a text column; empty for numbers and for a bin of several categories.
        low: Numbers are above it; null without bound.
        high: Numbers are at most this; null without bound.
        training: Share of the training values.
        current: Share of the values of the predictions.
    """

    category: str = ""
    low: float | None = None
    high: float | None = None
    training: float
    current: float


class RowShares(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of some rows. What training cannot have, or what an old reference does not say, is 0.

    Attributes:
        missing: Null, NaN or infinite.
        type_errors: Of a wrong type.
        unseen: Texts that training did not have.
        below: Numbers below the range of training.
        above: Numbers above it.
    """

    rows: int
    missing: float
    type_errors: float = 0.0
    unseen: float = 0.0
    below: float = 0.0
    above: float = 0.0


class ValueFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a column's values; null if unknown, as of old bundles, and of texts where they are of numbers.

    Attributes:
        distinct: Different values; of the predictions an estimate, with a standard error of 3.3%.
        p01: Quantiles; of the predictions within 2% of a standard deviation near the mean, 4% at the ends.
    """

    distinct: int | None = None
    p01: float | None = None
    p50: float | None = None
    p99: float | None = None


class FrequentValue(msgspec.Struct, frozen=True, kw_only=True):
    """One of the most frequent texts of the predictions.

    Attributes:
        training: Share of the training values; null if the text is not among training's commonest.
        current: Share of the predictions' values, a lower bound.
    """

    value: str
    training: float | None
    current: float


class ColumnComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the predictions in `[since, until)` beside its training reference.

    Attributes:
        version: The version with most predictions there; `digest` is its bundle, whose reference is compared.
        kind: numeric or categorical.
        bins: Ascending for numbers, the commonest of training first for texts; empty if `withheld`.
        withheld: True if the column identifies a person, so that none of its values is shown.
        low: Range of the training values; null if unknown.
        current_values: Of the hours with summaries, which those before an upgrade lack; null if there are none, or
            `withheld`. So are `training_values`.
        frequent: The most frequent texts of the predictions.
    """

    endpoint: str
    column: str
    version: str
    digest: str
    since: int
    until: int
    kind: str
    training: RowShares
    current: RowShares
    bins: list[BinShares]
    withheld: bool
    low: float | None = None
    high: float | None = None
    training_values: ValueFigures | None = None
    current_values: ValueFigures | None = None
    frequent: list[FrequentValue] = []


def column_comparison(project: Project, endpoint: str, column: str, since: int, until: int) -> ColumnComparison:
    """Return a column's distribution in some hours beside that of training.

    Raises:
        NotFound: No prediction of these hours was sketched, or none has the column.
    """
    sketches = project.sketches.column(endpoint, column, since, until)
    if not sketches:
        raise NotFound(
            f"No prediction of {endpoint} in this time has the column {column!r} in its sketches.",
            fix="choose another time or column; the worker of `mainspring up` sketches new predictions.",
        )
    (version, digest), sketch = max(sketches.items(), key=lambda item: int(item[1].count("rows")[0]))
    bundle = project.bundles.load(digest)
    reference = _reference(served(bundle), column)
    withheld = column in personal(bundle) | _declared_personal(project, bundle.manifest.model)
    summary = None if withheld else project.sketches.summaries(endpoint, column, since, until).get((version, digest))
    return ColumnComparison(
        endpoint=endpoint,
        column=column,
        version=version,
        digest=digest,
        since=since,
        until=until,
        kind=reference.kind,
        training=_training(reference),
        current=_current(sketch),
        bins=[] if withheld else _bins(reference, sketch.bins[0].tolist()),
        withheld=withheld,
        low=None if withheld else reference.low,
        high=None if withheld else reference.high,
        training_values=None if withheld else _training_values(reference),
        current_values=None if summary is None else _current_values(reference, summary),
        frequent=[] if summary is None else _frequent(reference, summary, int(sketch.present[0])),
    )


def _declared_personal(project: Project, model: str) -> frozenset[str]:
    """Return what identifies a person by the current declaration: a mark may have come after the training."""
    declared = project.definitions.models.get(model)
    return frozenset() if declared is None else personal_names(declared.features, declared.observations)


def _reference(description: Served, column: str) -> ColumnReference:
    known = {} if description.reference is None else description.reference.columns
    if column not in known:
        raise NotFound(f"The training reference has no column {column!r}.", fix=f"it has {', '.join(known)}.")
    return known[column]


def _training(reference: ColumnReference) -> RowShares:
    rows = reference.count or 1
    return RowShares(
        rows=reference.count,
        missing=(reference.nulls + reference.nans) / rows,
        below=reference.below / rows,
        above=reference.above / rows,
    )


def _current(sketch: Sketch) -> RowShares:
    counts = {name: int(sketch.count(name)[0]) for name in ("rows", "nulls", "nans", "type_errors", "unseen")}
    counts |= {name: int(sketch.count(name)[0]) for name in ("below", "above")}
    rows = counts["rows"] or 1
    return RowShares(
        rows=counts["rows"],
        missing=(counts["nulls"] + counts["nans"]) / rows,
        type_errors=counts["type_errors"] / rows,
        unseen=counts["unseen"] / rows,
        below=counts["below"] / rows,
        above=counts["above"] / rows,
    )


def _training_values(reference: ColumnReference) -> ValueFigures:
    p01, p50, p99 = reference.quantiles or (None, None, None)
    return ValueFigures(distinct=reference.distinct, p01=p01, p50=p50, p99=p99)


def _current_values(reference: ColumnReference, summary: Summary) -> ValueFigures:
    if reference.kind == CATEGORICAL:
        return ValueFigures(distinct=summary.distinct())
    p01, p50, p99 = (summary.quantile(share, *placing(reference)) for share in QUANTILES)
    return ValueFigures(distinct=summary.distinct(), p01=p01, p50=p50, p99=p99)


def _frequent(reference: ColumnReference, summary: Summary, present: int) -> list[FrequentValue]:
    shares = dict(zip(reference.categories, reference.bins, strict=False))
    first = sorted(summary.frequent.items(), key=lambda item: (-item[1], item[0]))[:_FREQUENT]
    return [
        FrequentValue(
            value=text,
            training=shares[text] / (reference.binned or 1) if text in shares else None,
            current=count / (present or 1),
        )
        for text, count in first
    ]


def _bins(reference: ColumnReference, counts: Sequence[int]) -> list[BinShares]:
    total, of_training = sum(counts) or 1, reference.binned or 1
    if reference.kind == CATEGORICAL:
        found = [
            BinShares(category=name, training=reference.bins[place] / of_training, current=counts[place] / total)
            for place, name in enumerate(reference.categories)
        ]
        found.sort(key=lambda each: -each.training)
        rest = len(reference.categories)
        others = BinShares(training=reference.others / of_training, current=sum(counts[rest:]) / total)
        return [*found, others] if others.training or others.current else found
    return _number_bins(reference, counts, total, of_training)


def _number_bins(reference: ColumnReference, counts: Sequence[int], total: int, of_training: int) -> list[BinShares]:
    """Return bins of about equal shares of training. A value that is common in training has one by itself."""
    bounds = [-math.inf, *reference.edges, math.inf]
    found: list[BinShares] = []
    first, before, now = 0, 0, 0
    for place in range(len(bounds) - 1):
        before += reference.bins[place] if place < len(reference.bins) else 0
        now += counts[place]
        if before * _GROUPS >= of_training or place == len(bounds) - 2:
            low, high = bounds[first], bounds[place + 1]
            found.append(
                BinShares(
                    low=low if math.isfinite(low) else None,
                    high=high if math.isfinite(high) else None,
                    training=before / of_training,
                    current=now / total,
                )
            )
            first, before, now = place + 1, 0, 0
    return [each for each in found if each.training or each.current]

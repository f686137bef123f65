"""Reference profiles of training columns: bins, range, spread, and the categories seen.

Bins are fixed at training: 64 of them, at the quantiles of the training data. Counts over fixed bins are exact and
mergeable, and a test on them is nearly as powerful as one on all values, unlike a test on sketches.

A text column with more than 64 categories has bins for those that are the commonest on one half of the rows, and its
bins are counted on the other half: categories that are chosen and counted on the same rows look commoner than they are.
All other categories share 16 buckets by their hash.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.stats.text_hash import text_hash
from mainspring.stats.unusual import Scoring

BINS = 64
MOST_CATEGORIES = 64
BUCKETS = 16  # for the categories beyond those
MOST_KNOWN = 10_000  # categories whose hashes a reference keeps, to tell unseen ones
QUANTILES = 0.01, 0.5, 0.99  # shares of a column's training values, for display
TAIL = 0.0002  # share of the training values on each side of the range `low` to `high`
NUMERIC, CATEGORICAL = "numeric", "categorical"

Values = npt.NDArray[Any] | Sequence[Any]

_SAME = 1e-12  # a relative spread below this is rounding
_LARGEST = 1e150  # values are clipped to this in the moments, so that sums of squares stay finite


class ColumnReference(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the training data.

    `edges` are the 63 inner edges of a numeric column, ascending: bin i holds the values in (edges[i-1], edges[i]].
    `categories` are the most frequent values of a categorical column; its last `buckets` bins hold all others, each by
    its hash (`text_hash`). The bins of a column with more categories than bins are counted on half of the rows.

    The fields after `buckets` are missing from bundles of older releases. What is missing is not tested. `low` and
    `high` are the quantiles .0002 and .9998; `center`, `scale` (standard deviation) and `kurtosis` (3 for a normal
    distribution) are of the values clipped to this range. `scale` is 0 for a constant column.

    A column of vectors is categorical: its categories are cells, and `high` is the largest usual distance from one.
    """

    kind: str  # numeric, categorical
    count: int  # rows, nulls included
    nulls: int
    nans: int
    mean: float
    sd: float
    bins: tuple[int, ...]
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    buckets: int = 1
    low: float | None = None
    high: float | None = None
    below: int = 0  # values smaller than `low`
    above: int = 0  # values larger than `high`
    center: float | None = None
    scale: float | None = None
    kurtosis: float | None = None
    commonest: float | str | None = None
    commonest_count: int = 0  # of a categorical column among the values in `bins`
    float32: bool = False  # True if every value is exact in float32; later values are then rounded to it
    known: bytes | None = None  # hashes of the categories seen, ascending 32-bit little-endian integers
    unseen: float | None = None  # expected number of values outside `known` ...
    centres: bytes | None = None  # of a column of vectors: its cells, little-endian float32, row by row
    unseen_of: float = 0.0  # ... among so many values of the same distribution
    distinct: int | None = None  # different values, exact
    quantiles: tuple[float, ...] = ()  # of numbers, at the shares `QUANTILES`, for display

    @property
    def n(self) -> int:
        """Number of values that are neither null nor NaN."""
        return self.count - self.nulls - self.nans

    @property
    def binned(self) -> int:
        """Number of values in `bins`: `n`, or about half of it for a column with many categories."""
        return sum(self.bins)

    @property
    def others(self) -> int:
        """Number of binned values of a categorical column outside `categories`."""
        return sum(self.bins[len(self.categories) :])


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """References of all training columns, by name. Its JSON is a bundle's `reference.json`.

    `history` are the days of training, packed by `sketch_history.pack`, `crossed` the features whose bins are
    searched for segments, the most important first, and `scoring` tells rows that are unlike the training rows; all
    three are missing from bundles of older releases.
    """

    columns: dict[str, ColumnReference]
    history: bytes = b""
    crossed: tuple[str, ...] = ()
    scoring: Scoring | None = None


def profile(columns: Mapping[str, Values]) -> Reference:
    """Return the reference of a table.

    Args:
        columns: Name -> shape (rows,): numbers, booleans (as 0 and 1) or strings; None is null, NaN is NaN.
    """
    return Reference({name: profile_column(values) for name, values in columns.items()})


def profile_column(values: Values) -> ColumnReference:
    """Return the reference of one column; it is categorical if it holds a string."""
    if _has_strings(values):
        return _profile_text(_plain(values))
    numbers, nulls, nans = _numbers(values)
    ordered = np.sort(numbers)
    edges = _edges(ordered)
    clipped = np.clip(ordered, -_LARGEST, _LARGEST)
    reference = ColumnReference(
        kind=NUMERIC,
        count=len(values),
        nulls=nulls,
        nans=nans,
        mean=float(clipped.mean()) if ordered.size else 0.0,
        sd=float(clipped.std()) if ordered.size else 0.0,
        bins=tuple(np.bincount(np.searchsorted(edges, ordered), minlength=BINS).tolist()),
        edges=tuple(edges),
    )
    return _with_range(reference, ordered) if ordered.size else reference


def _with_range(reference: ColumnReference, ordered: npt.NDArray[np.float64]) -> ColumnReference:
    """Return the reference with what the ascending values say about range, spread and commonest value."""
    beyond = int(TAIL * ordered.size)
    low, high = float(ordered[beyond]), float(ordered[-1 - beyond])
    clipped = np.clip(ordered, *np.clip([low, high], -_LARGEST, _LARGEST))
    center, scale = float(clipped.mean()), float(clipped.std())
    if scale <= _SAME * np.abs(clipped[[0, -1]]).max():
        center, scale = float(clipped[0]), 0.0
    z = (clipped - center) / (scale or 1.0)
    values, counts = np.unique(ordered, return_counts=True)
    with np.errstate(over="ignore"):
        narrow = bool((ordered.astype(np.float32) == ordered).all())
    return msgspec.structs.replace(
        reference,
        low=low,
        high=high,
        below=int(np.searchsorted(ordered, low)),
        above=int(ordered.size - np.searchsorted(ordered, high, side="right")),
        center=center,
        scale=scale,
        kurtosis=float(np.square(z * z).mean()) if scale else None,
        commonest=float(values[counts.argmax()]),
        commonest_count=int(counts.max()),
        float32=narrow,
        distinct=len(values),
        quantiles=tuple(float(ordered[max(0, math.ceil(share * ordered.size) - 1)]) for share in QUANTILES),
    )


def _profile_text(values: Sequence[Any]) -> ColumnReference:
    """Return the reference of a categorical column.

    The expected share of unseen values is Good and Turing's: the share of values that occur once. Its error is that of
    a share among fewer rows, by the numbers of categories that occur once and twice (Good, Biometrika 40, 1953).
    """
    texts = [value for value in values if isinstance(value, str)]
    whole = Counter(texts)
    chosen, counted, buckets = whole, whole, 1
    if len(whole) > MOST_CATEGORIES:
        first = np.random.default_rng(0).random(len(texts)) < 0.5
        chosen = Counter(text for text, mine in zip(texts, first.tolist(), strict=True) if mine)
        counted, buckets = whole - chosen, BUCKETS
    # Among equally frequent categories the smaller hash wins, so that the choice is not by the order of rows.
    common = sorted(chosen, key=lambda text: (-chosen[text], text_hash(text), text))
    categories = tuple(sorted(common[:MOST_CATEGORIES]))
    if len(whole) <= MOST_KNOWN:
        known = set(whole)
        frequencies = Counter(whole.values())
        inflation = 1.0 + 2.0 * frequencies[2] / frequencies[1] if frequencies[1] else 1.0
        unseen, unseen_of = frequencies[1] / inflation, len(texts) / inflation
    else:
        known = set(common[:MOST_KNOWN])
        unseen = float(sum(count for text, count in counted.items() if text not in known))
        unseen_of = float(counted.total())
    bins = [counted[category] for category in categories] + [0] * buckets
    for text in counted.keys() - {*categories}:
        bins[len(categories) + text_hash(text) % buckets] += counted[text]
    place = int(np.argmax(bins[: len(categories)]))
    nulls = sum(value is None for value in values)
    return ColumnReference(
        kind=CATEGORICAL,
        count=len(values),
        nulls=nulls,
        nans=len(values) - nulls - len(texts),
        mean=0.0,
        sd=0.0,
        bins=tuple(bins),
        categories=categories,
        buckets=buckets,
        commonest=categories[place],
        commonest_count=bins[place],
        known=np.unique(np.array([text_hash(text) for text in known], "<u4")).tobytes(),
        unseen=unseen,
        unseen_of=unseen_of,
        distinct=len(whole),
    )


def _plain(values: Values) -> Sequence[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _has_strings(values: Values) -> bool:
    if isinstance(values, np.ndarray) and values.dtype != np.object_:
        return values.dtype.kind in "UT"
    return any(isinstance(value, str) for value in values)


def _numbers(values: Values) -> tuple[npt.NDArray[np.float64], int, int]:
    """Return the finite numbers, the number of nulls, and the number of NaN and infinities."""
    if isinstance(values, np.ndarray) and values.dtype != np.object_:
        present = values.astype(np.float64)
    else:
        present = np.array([value for value in values if value is not None], dtype=np.float64)
    finite = present[np.isfinite(present)]
    return finite, len(values) - present.size, present.size - finite.size


def _edges(numbers: npt.NDArray[np.float64]) -> list[float]:
    """Return the 63 inner quantiles of ascending numbers as edges.

    A value that fills a whole bin or more gets its own bin, with an edge just below it: otherwise a drop below a
    constant would not be detected.
    """
    if not numbers.size:
        return [0.0] * (BINS - 1)
    shares = np.arange(1, BINS) / BINS
    edges = np.quantile(numbers, shares, method="inverted_cdf")
    repeated = np.flatnonzero(edges[1:] == edges[:-1])
    first = repeated[np.isin(repeated - 1, repeated, invert=True)]
    edges[first] = np.nextafter(edges[first], -np.inf)
    found: list[float] = edges.tolist()
    return found

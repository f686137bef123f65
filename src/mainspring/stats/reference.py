"""Reference profiles of training columns, and counts of later values over the same bins.

Bins are fixed at training: 64 of them, at the quantiles of the training data. Counts over fixed bins are exact and
mergeable, and a test on them is nearly as powerful as one on all values, unlike a test on sketches.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

BINS = 64
MOST_CATEGORIES = 64
NUMERIC, CATEGORICAL = "numeric", "categorical"

Values = npt.NDArray[Any] | Sequence[Any]

_LARGEST = 1e150  # values are clipped to this in the moments, so that sums of squares stay finite


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one column in one batch or window. `n` is the number of values in bins: neither null nor NaN.

    `mean` and `m2` (the sum of squared differences from the mean) are over these values, 0 for categories. Infinities
    count as NaN. `bins` are the reference's: 64, or one per category and a last one for all others.
    """

    n: int
    nulls: int
    nans: int
    mean: float
    m2: float
    bins: tuple[int, ...]

    @property
    def rows(self) -> int:
        return self.n + self.nulls + self.nans

    @property
    def null_share(self) -> float:
        """Share of rows that are null or NaN; 0 without rows."""
        return (self.nulls + self.nans) / self.rows if self.rows else 0.0

    @property
    def sd(self) -> float:
        """Population standard deviation; 0 without values."""
        return math.sqrt(self.m2 / self.n) if self.n else 0.0

    def merge(self, other: Counts) -> Counts:
        """Return the combined counts (Chan, Golub and LeVeque, 1979); the order of merging does not matter.

        Raises:
            ValueError: The numbers of bins differ.
        """
        n = self.n + other.n
        difference = other.mean - self.mean
        return Counts(
            n=n,
            nulls=self.nulls + other.nulls,
            nans=self.nans + other.nans,
            mean=(self.mean * self.n + other.mean * other.n) / n if n else 0.0,
            m2=self.m2 + other.m2 + (difference * difference * self.n * other.n / n if n else 0.0),
            bins=tuple(a + b for a, b in zip(self.bins, other.bins, strict=True)),
        )


class ColumnReference(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the training data.

    `edges` are the 63 inner edges of a numeric column, ascending: bin i holds the values in (edges[i-1], edges[i]].
    `categories` are the most frequent values of a categorical column, whose last bin holds all others.
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

    @property
    def n(self) -> int:
        """Number of values that are neither null nor NaN."""
        return self.count - self.nulls - self.nans

    def with_counts(self, counts: Counts) -> ColumnReference:
        """Return the same bins filled with `counts`, for example to use a window as the next one's reference."""
        return msgspec.structs.replace(
            self,
            count=counts.rows,
            nulls=counts.nulls,
            nans=counts.nans,
            mean=counts.mean,
            sd=counts.sd,
            bins=counts.bins,
        )


class Reference(msgspec.Struct, frozen=True):
    """References of all training columns, by name. Its JSON is a bundle's `reference.json`."""

    columns: dict[str, ColumnReference]


def profile(columns: Mapping[str, Values]) -> Reference:
    """Return the reference of a table.

    Args:
        columns: Name -> shape (rows,): numbers, booleans (as 0 and 1) or strings; None is null, NaN is NaN.
    """
    return Reference({name: profile_column(values) for name, values in columns.items()})


def profile_column(values: Values) -> ColumnReference:
    """Return the reference of one column; it is categorical if it holds a string."""
    if _has_strings(values):
        common = Counter(value for value in _plain(values) if isinstance(value, str)).most_common(MOST_CATEGORIES)
        categories = tuple(sorted(category for category, _ in common))
        empty = ColumnReference(
            kind=CATEGORICAL,
            count=0,
            nulls=0,
            nans=0,
            mean=0.0,
            sd=0.0,
            bins=(0,) * (len(categories) + 1),
            categories=categories,
        )
        return empty.with_counts(count_bins(empty, values))
    numbers, _, _ = _numbers(values)
    empty = ColumnReference(
        kind=NUMERIC, count=0, nulls=0, nans=0, mean=0.0, sd=0.0, bins=(0,) * BINS, edges=_edges(numbers)
    )
    return empty.with_counts(count_bins(empty, values))


def count_bins(reference: ColumnReference, values: Values) -> Counts:
    """Return the counts of `values`, shape (rows,), over the reference's bins."""
    if reference.kind == CATEGORICAL:
        return _count_categories(reference, values)
    numbers, nulls, nans = _numbers(values)
    places = np.searchsorted(np.asarray(reference.edges), numbers, side="left")
    clipped = np.clip(numbers, -_LARGEST, _LARGEST)
    mean = float(clipped.mean()) if numbers.size else 0.0
    return Counts(
        n=numbers.size,
        nulls=nulls,
        nans=nans,
        mean=mean,
        m2=float(np.square(clipped - mean).sum()),
        bins=tuple(np.bincount(places, minlength=BINS).tolist()),
    )


def _count_categories(reference: ColumnReference, values: Values) -> Counts:
    found = Counter(_plain(values))
    nulls = found.pop(None, 0)
    nans = sum(found.pop(value) for value in list(found) if isinstance(value, float) and math.isnan(value))
    known = [found.get(category, 0) for category in reference.categories]
    n = found.total()
    return Counts(n=n, nulls=nulls, nans=nans, mean=0.0, m2=0.0, bins=(*known, n - sum(known)))


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


def _edges(numbers: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Return the 63 inner quantiles as edges.

    A value that fills a whole bin or more gets its own bin, with an edge just below it: otherwise a drop below a
    constant would not be detected.
    """
    if not numbers.size:
        return (0.0,) * (BINS - 1)
    shares = np.arange(1, BINS) / BINS
    edges = np.quantile(numbers, shares, method="inverted_cdf")
    repeated = np.flatnonzero(edges[1:] == edges[:-1])
    first = repeated[np.isin(repeated - 1, repeated, invert=True)]
    edges[first] = np.nextafter(edges[first], -np.inf)
    return tuple(edges.tolist())

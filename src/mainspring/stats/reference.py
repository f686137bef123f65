"""Reference profiles of training columns, and counts of later values over the same bins.

Bins are fixed at training: 64 of them, at the quantiles of the training data. Counts over fixed bins are exact and
mergeable, and a test on them is nearly as powerful as one on all values, unlike a test on sketches.

A text column with more than 64 categories has bins for those that are the commonest on one half of the rows, and its
bins are counted on the other half: categories that are chosen and counted on the same rows look commoner than they are.
All other categories share 16 buckets by their hash.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

BINS = 64
MOST_CATEGORIES = 64
BUCKETS = 16  # for the categories beyond those
MOST_KNOWN = 10_000  # categories whose hashes a reference keeps, to tell unseen ones
TAIL = 0.0005  # share of the training values on each side of the range `low` to `high`
NUMERIC, CATEGORICAL = "numeric", "categorical"

Values = npt.NDArray[Any] | Sequence[Any]

_SAME = 1e-12  # a relative spread below this is rounding
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
    `categories` are the most frequent values of a categorical column; its last `buckets` bins hold all others, each by
    its hash (`text_hash`). The bins of a column with more categories than bins are counted on half of the rows.

    The fields after `buckets` are missing from bundles of older releases. What is missing is not tested. `low` and
    `high` are the quantiles .0005 and .9995; `center`, `scale` (standard deviation) and `kurtosis` (3 for a normal
    distribution) are of the values clipped to this range. `scale` is 0 for a constant column.
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
    unseen_of: float = 0.0  # ... among so many values of the same distribution

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
        return _profile_text(_plain(values))
    ordered = np.sort(_numbers(values)[0])
    empty = ColumnReference(
        kind=NUMERIC, count=0, nulls=0, nans=0, mean=0.0, sd=0.0, bins=(0,) * BINS, edges=_edges(ordered)
    )
    counted = empty.with_counts(count_bins(empty, values))
    return _with_range(counted, ordered) if ordered.size else counted


def text_hash(text: str) -> int:
    """Return the 32-bit hash of a category, the same in each process and release."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def _with_range(reference: ColumnReference, ordered: npt.NDArray[np.float64]) -> ColumnReference:
    """Return the reference with what the ascending values say about range, spread and commonest value."""
    beyond = int(TAIL * ordered.size)
    low, high = float(ordered[beyond]), float(ordered[-1 - beyond])
    clipped = np.clip(ordered, *np.clip([low, high], -_LARGEST, _LARGEST))
    center, scale = float(clipped.mean()), float(clipped.std())
    if scale <= _SAME * max(abs(low), abs(high)):
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
    empty = ColumnReference(
        kind=CATEGORICAL,
        count=0,
        nulls=0,
        nans=0,
        mean=0.0,
        sd=0.0,
        bins=(),
        categories=categories,
        buckets=buckets,
        known=np.unique(np.array([text_hash(text) for text in known], "<u4")).tobytes(),
        unseen=unseen,
        unseen_of=unseen_of,
    )
    bins = _bins(empty, counted)
    place = int(np.argmax(bins[: len(categories)]))
    missing = Counter(values)
    nulls = missing[None]
    return msgspec.structs.replace(
        empty,
        count=len(values),
        nulls=nulls,
        nans=len(values) - nulls - len(texts),
        bins=bins,
        commonest=categories[place],
        commonest_count=bins[place],
    )


def _bins(reference: ColumnReference, found: Mapping[str, int]) -> tuple[int, ...]:
    bins = [0] * (len(reference.categories) + reference.buckets)
    places = {category: place for place, category in enumerate(reference.categories)}
    for value, count in found.items():
        bins[places[value] if value in places else len(places) + text_hash(value) % reference.buckets] += count
    return tuple(bins)


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
    n = found.total()
    bins = _bins(reference, {value: count for value, count in found.items() if isinstance(value, str)})
    return Counts(n=n, nulls=nulls, nans=nans, mean=0.0, m2=0.0, bins=(*bins[:-1], bins[-1] + n - sum(bins)))


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

"""Counting of one column's values in the bins of its training reference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.stats import summaries
from mainspring.stats.binning import Binning
from mainspring.stats.reference import BINS, BUCKETS, MOST_CATEGORIES, ColumnReference, Values
from mainspring.stats.summaries import Summary
from mainspring.stats.text_hash import text_hash

COUNTS = ("rows", "nulls", "nans", "type_errors", "unseen", "below", "above", "commonest")
WIDTH = max(BINS, MOST_CATEGORIES + BUCKETS)  # bins of a column in a sketch; unused ones are 0

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Sums = tuple[float, float, float, float]

_ROWS, _NULLS, _NANS, _TYPE_ERRORS, _UNSEEN, _BELOW, _ABOVE, _COMMONEST = range(len(COUNTS))
_NULL, _NAN, _TYPE_ERROR = WIDTH, WIDTH + 1, WIDTH + 2  # codes of a text column after those of the bins
_UNSEEN_BINS = WIDTH + 3  # ... and from here on those of unseen values, by their bin
_CODES = _UNSEEN_BINS + WIDTH
_MOST_CODES = 100_000  # texts whose codes a ruler remembers
_LARGEST = 1e150  # as in the reference: values are clipped to this where it has no range
_LARGEST_Z = 1e60
_NO_SUMS = 0.0, 0.0, 0.0, 0.0


class NumberCounter:
    """Numeric column."""

    def __init__(self, reference: ColumnReference, *, float32: bool) -> None:
        self._binning = Binning(np.asarray(reference.edges, np.float64))
        self._float32 = float32
        self._low = -math.inf if reference.low is None else reference.low
        self._high = math.inf if reference.high is None else reference.high
        self._clip = np.clip([self._low, self._high], -_LARGEST, _LARGEST).tolist()
        self._center, self._scale = placing(reference)
        self._has_values = reference.n > 0
        self._commonest = reference.commonest if isinstance(reference.commonest, float) else None
        self.ranks = _ranks(reference)
        self._ranks = self.ranks[self._binning.places]

    def count(
        self, values: Any, counts: Ints, bins: Ints, ranks: Floats | None, *, summarise: bool
    ) -> tuple[Sums, Summary | None]:
        numbers, nulls, type_errors = as_numbers(values)
        finite = np.isfinite(numbers)
        whole = bool(finite.all())
        present = numbers if whole else numbers[finite]
        counts[[_ROWS, _NULLS, _NANS, _TYPE_ERRORS]] = (
            len(numbers),
            nulls,
            len(numbers) - len(present) - nulls - type_errors,
            type_errors,
        )
        if not len(present):
            return _NO_SUMS, None
        if self._float32:
            present = _rounded(present)
        places = self._binning(present)
        bins[self._binning.places] = np.bincount(places, minlength=len(self._binning.places))
        counts[_BELOW] = np.count_nonzero(present < self._low)
        counts[_ABOVE] = np.count_nonzero(present > self._high)
        if self._commonest is not None:
            counts[_COMMONEST] = np.count_nonzero(present == self._commonest)
        if ranks is not None:
            ranks[slice(None) if whole else finite] = self._ranks[places]
        summary = summaries.of_numbers(present, self._center, self._scale) if summarise else None
        return self._sums(present) if self._has_values else _NO_SUMS, summary

    def _sums(self, present: Floats) -> Sums:
        z = np.clip(present, *self._clip)
        z -= self._center
        z /= self._scale
        if math.isinf(self._high):
            np.clip(z, -_LARGEST_Z, _LARGEST_Z, out=z)
        square = z * z
        return float(z.sum()), float(square.sum()), float(square @ z), float(square @ square)


class TextCounter:
    """Categorical column."""

    def __init__(self, reference: ColumnReference) -> None:
        self._codes = _Codes(reference)
        self._commonest = (
            reference.categories.index(reference.commonest) if isinstance(reference.commonest, str) else None
        )
        self.ranks = _ranks(reference)
        self._ranks = np.concatenate([self.ranks, np.zeros(3), self.ranks])

    def count(
        self, values: Any, counts: Ints, bins: Ints, ranks: Floats | None, *, summarise: bool
    ) -> tuple[Sums, Summary | None]:
        if hasattr(values, "dictionary_encode"):
            texts, places = _encoded(values)
            codes = np.append(self._of_list(texts), _NULL)[places]  # -1, a null, is the last
        else:
            texts, places = values.tolist() if isinstance(values, np.ndarray) else values, None
            codes = self._of_list(texts)
        found = np.bincount(codes, minlength=_CODES)
        unseen = found[_UNSEEN_BINS:]
        bins[:] = found[:WIDTH] + unseen
        counts[[_ROWS, _NULLS, _NANS, _TYPE_ERRORS]] = len(codes), found[_NULL], found[_NAN], found[_TYPE_ERROR]
        counts[_UNSEEN] = unseen.sum()
        if self._commonest is not None:
            counts[_COMMONEST] = found[self._commonest]
        if ranks is not None:
            ranks[:] = self._ranks[codes]
        return _NO_SUMS, self._summary(texts, places) if summarise else None

    def _summary(self, values: Sequence[Any], places: npt.NDArray[np.intp] | None) -> Summary:
        """Return the summary of texts, or of a dictionary's values at `places`."""
        if places is None:
            counted = Counter(value for value in values if isinstance(value, str))
            values, counts = [*counted], np.fromiter(counted.values(), np.int64, len(counted))
        else:
            counts = np.bincount(places + 1, minlength=len(values) + 1)[1:]
        known = self._codes[""] != _NULL  # else an empty text is a missing value
        kept = [at for at, value in enumerate(values) if isinstance(value, str) and (value or known)]
        texts = [values[at] for at in kept]
        return summaries.of_texts(texts, np.fromiter(map(text_hash, texts), np.uint64, len(texts)), counts[kept])

    def _of_list(self, values: Sequence[Any]) -> npt.NDArray[np.intp]:
        self._codes.forget()
        try:
            return np.fromiter(map(self._codes.__getitem__, values), np.intp, len(values))
        except TypeError:  # a value that cannot be hashed
            codes = self._codes
            hashable = (str, int, float, type(None))
            each = (codes[value] if isinstance(value, hashable) else _TYPE_ERROR for value in values)
            return np.fromiter(each, np.intp, len(values))


def _encoded(values: Any) -> tuple[Sequence[Any], npt.NDArray[np.intp]]:
    """Return the distinct values of an Arrow array, and the place of each row's among them, -1 for null."""
    array = values.combine_chunks() if hasattr(values, "combine_chunks") else values
    encoded = array if hasattr(array, "dictionary") else array.dictionary_encode()
    places: npt.NDArray[np.intp] = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.intp)
    return encoded.dictionary.to_pylist(), places


class _Codes(dict[Any, int]):
    """Codes of a text column's values, made when first asked for."""

    def __init__(self, reference: ColumnReference) -> None:
        super().__init__((category, place) for place, category in enumerate(reference.categories))
        self._first = len(reference.categories)
        self._buckets = reference.buckets
        # An old reference that has no hashes knows all categories if no training value is outside them.
        complete = reference.known is None and not reference.others
        self._known = {text_hash(category) for category in reference.categories} if complete else None
        if reference.known is not None:
            self._known = set(np.frombuffer(reference.known, "<u4").tolist())
        self._kept = dict(self)

    def __missing__(self, value: Any) -> int:
        code = self._code(value)
        if value is None or isinstance(value, str):
            self[value] = code
        return code

    def forget(self) -> None:
        """Drop the codes of texts that training did not choose, once there are too many."""
        if len(self) > _MOST_CODES:
            self.clear()
            self.update(self._kept)

    def _code(self, value: Any) -> int:
        if value is None:
            return _NULL
        if isinstance(value, float) and math.isnan(value):
            return _NAN
        if not isinstance(value, str):
            return _TYPE_ERROR
        hashed = text_hash(value)
        unseen = self._known is not None and hashed not in self._known
        if not value and (unseen or self._known is None):
            return _NULL  # as a model treats it
        place = self._first + hashed % self._buckets
        return place + _UNSEEN_BINS if unseen else place


def placing(reference: ColumnReference) -> tuple[float, float]:
    """Return the center and the scale, above 0, by which the numbers of a column are standardised."""
    scale = reference.sd if reference.scale is None else reference.scale
    return reference.mean if reference.center is None else reference.center, scale or 1.0


def as_numbers(values: Values | Any) -> tuple[Floats, int, int]:
    """Return the values as numbers, shape (rows,), the number of nulls, and the number of values that are no numbers.

    Nulls and values of other types become NaN; whole numbers beyond 2**53 are rounded, those beyond 1e308 infinite.
    """
    if hasattr(values, "null_count"):
        return _numbers_of_arrow(values)
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return values.astype(np.float64, copy=False), 0, 0
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        return np.full(len(values), np.nan), 0, len(values)
    given = values.tolist() if isinstance(values, np.ndarray) else values
    if {*map(type, given)} <= _PLAIN:
        try:
            return np.array(given, np.float64), given.count(None), 0
        except OverflowError:
            pass
    numbers = [_number(value) for value in given]
    nulls = sum(value is None for value in given)
    errors = sum(number is None for number in numbers) - nulls
    return np.array([math.nan if number is None else number for number in numbers]), nulls, errors


_PLAIN = {int, float, bool, type(None)}


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float | np.bool_ | np.integer | np.floating):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _numbers_of_arrow(values: Any) -> tuple[Floats, int, int]:
    kind = str(values.type)
    if kind == "bool":
        values = values.cast("int8")
    elif kind == "null":
        return np.full(len(values), np.nan), len(values), 0
    elif not kind.startswith(("int", "uint", "float", "double", "halffloat")):
        return np.full(len(values), np.nan), values.null_count, len(values) - values.null_count
    # Nulls become NaN; a chunked array takes no argument.
    array = values.to_numpy() if hasattr(values, "chunks") else values.to_numpy(zero_copy_only=False)
    return array.astype(np.float64, copy=False), values.null_count, 0


def _rounded(numbers: Floats) -> Floats:
    with np.errstate(over="ignore"):
        narrow = numbers.astype(np.float32).astype(np.float64)
    beyond = np.isinf(narrow)  # beyond the range of float32
    return np.where(beyond, numbers, narrow) if beyond.any() else narrow


def _ranks(reference: ColumnReference) -> Floats:
    """Return the rank of each bin: the middle of its training values' ranks, in [-1, 1]."""
    shares = np.zeros(WIDTH)
    if not reference.binned:
        return shares
    shares[: len(reference.bins)] = np.asarray(reference.bins) / reference.binned
    ranks: Floats = 2.0 * (np.cumsum(shares) - shares / 2.0) - 1.0
    return ranks

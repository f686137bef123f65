"""Segments by the values of a feature: its categories, its few numbers, or the quarters of its numbers in training.

A segment is the same in each window and on each machine, since the reference of training alone decides: the traffic of
a day does not. So a column of a million values has as many segments as one of fifty.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.stats.column_counting import as_numbers
from mainspring.stats.reference import CATEGORICAL, ColumnReference

AND = " and "  # between the parts of a segment by several features
OTHER, MISSING = "(other)", "null"  # values that have no segment of their own
MOST_VALUES = 64  # segments of a feature without a reference
_FEW = 31  # different numbers in training, each of which is a segment,
_NEARLY = 0.9  # if they are this share of the values
_QUARTERS = (15, 31, 47)  # inner edges of a numeric reference at a quarter, the half and three quarters
_LONGEST = 128  # characters
_OTHER, _MISSING = -2, -1  # places, until the number of names is known

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def segments_of(name: str, values: Any, column: ColumnReference | None) -> tuple[Ints, list[str]]:
    """Return the place of each value's segment, shape (rows,), and the names, such as `Schedule.carrier=UA`.

    Args:
        values: Python values, or a pyarrow array.
        column: The feature's reference. Without one, the commonest 64 of these values are the segments.
    """
    given = values.to_pylist() if hasattr(values, "to_pylist") else values
    if column is None or not column.binned:
        places, names = _of_texts(given)
    elif column.kind == CATEGORICAL:
        known = {category: place for place, category in enumerate(column.categories)}
        places = _numbered(known.get(value, _OTHER) if isinstance(value, str) else _absent(value) for value in given)
        names = [*column.categories]
    else:
        places, names = _of_numbers(column, given)
    places[places < 0] += len(names) + 2  # OTHER is -2 from the end, MISSING the last
    return places, [f"{name}={each[:_LONGEST]}" for each in (*names, OTHER, MISSING)]


def quarters(column: ColumnReference) -> tuple[Floats, tuple[str, ...]]:
    """Return the inner edges of the quarters of a numeric column's training values, and the quarters' names.

    Quarters with the same edge are one.
    """
    edges: Floats = np.unique(np.array([column.edges[place] for place in _QUARTERS]))
    texts = [f"{edge:.4g}" for edge in edges]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(texts)]
    return edges, (f"up to {texts[0]}", *between, f"over {texts[-1]}")


def _of_numbers(column: ColumnReference, given: Sequence[Any]) -> tuple[Ints, list[str]]:
    numbers = as_numbers(given)[0]
    if column.float32:
        with np.errstate(over="ignore"):
            numbers = numbers.astype(np.float32).astype(np.float64)
    values, missing = _few_values(column), np.isnan(numbers)
    if not values.size:
        edges, names = quarters(column)
        places = np.searchsorted(edges, numbers, side="left").astype(np.int64)
    else:
        are_truths = any(isinstance(value, bool) for value in given)
        names = tuple(str(bool(each)).lower() if are_truths else f"{each:.6g}" for each in values)
        places = np.minimum(np.searchsorted(values, numbers), values.size - 1).astype(np.int64)
        places[values[places] != numbers] = _OTHER
    places[missing] = _MISSING
    return places, [*names]


def _few_values(column: ColumnReference) -> Floats:
    """Return the numbers that nearly all training values equal; none of a column that has no such few."""
    edges = np.array(column.edges)
    alone = np.r_[False, edges[:-1] == np.nextafter(edges[1:], -np.inf)]  # bins of one value have an edge just below it
    rows = np.array(column.bins[: edges.size])[alone].sum()
    few = 0 < alone.sum() <= _FEW and rows >= _NEARLY * column.binned
    values: Floats = edges[alone] if few else edges[:0]
    return values


def _absent(value: Any) -> int:
    return _MISSING if value is None else _OTHER


def _of_texts(given: Sequence[Any]) -> tuple[Ints, list[str]]:
    texts = [*map(text_of, given)]
    common = [text for text, _ in Counter(text for text in texts if text != MISSING).most_common(MOST_VALUES)]
    known = {text: place for place, text in enumerate(common)} | {MISSING: _MISSING}
    return _numbered(known.get(text, _OTHER) for text in texts), common


def _numbered(places: Any) -> Ints:
    return np.array([*places], np.int64)


def text_of(value: Any) -> str:
    """Return a value as a person writes it, at most 128 characters."""
    if value is None or (isinstance(value, float) and isnan(value)):
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)[:_LONGEST]

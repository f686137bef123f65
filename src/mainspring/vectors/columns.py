"""Entries as their indexes store them: checked, the fields as typed columns; and filters over these columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.expr.evaluate import Vector, evaluate, vector
from mainspring.core.expr.tree import Node
from mainspring.core.expr.types import dtype_of
from mainspring.core.schema import DType, Schema
from mainspring.vectors.model import Entries, Floats, IndexSpec, Metric, checked

LONGEST_ID = 512  # characters
LONGEST_TEXT = 32_768  # bytes of a field's text: indexes of terms have no room for more
Doubles = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def check_entries(spec: IndexSpec, entries: Entries) -> tuple[list[str], Floats, dict[str, Vector]]:
    """Return the ids, the vectors, and a column for each of the index's fields.

    Raises:
        Invalid: As `VectorIndex.upsert`.
    """
    ids, vectors = check_ids(entries.ids), checked(spec, entries.vectors)
    return ids, vectors, check_fields(spec.fields, ids, entries.fields, vectors=len(vectors))


def check_fields(
    fields: Schema, ids: Sequence[str], given: Mapping[str, Sequence[Any]], **lengths: int
) -> dict[str, Vector]:
    """Return a column for each of an index's fields.

    Args:
        lengths: Number of values of whatever else there is of each id, by its name.

    Raises:
        Invalid: An id stands twice, a field is unknown or of another type, or a column has another length.
    """
    if len(set(ids)) != len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise Invalid(f"The id {twice!r} stands twice among {len(ids)} entries.", fix="give each entry its own id.")
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise Invalid(
            f"Entries have the field {unknown[0]!r}; the index has {sorted(fields)}.",
            fix="leave it out, or build the index anew with it.",
        )
    for what, length in (*lengths.items(), *((name, len(values)) for name, values in given.items())):
        if length != len(ids):
            raise Invalid(f"There are {len(ids)} ids and {length} of {what}.")
    nulls = [None] * len(ids)
    return {name: _column(name, given.get(name, nulls), dtype) for name, dtype in fields.items()}


def check_ids(ids: Sequence[str]) -> list[str]:
    """Return ids.

    Raises:
        Invalid: One is empty, too long, or no text that every store can keep.
    """
    given: Sequence[object] = ids  # callers may give anything
    for each in given:
        if not isinstance(each, str) or not 0 < len(each) <= LONGEST_ID or not storable(each):
            shown = repr(each)[:80]
            raise Invalid(
                f"{shown} cannot be the id of an entry.",
                fix=f"use 1 to {LONGEST_ID} characters of text, without NUL.",
            )
    return list(ids)


def storable(text: str) -> bool:
    """Return whether every store can keep a text: it has no NUL and no lone surrogate."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _column(name: str, values: Sequence[Any], dtype: DType) -> Vector:
    try:
        column = vector(values, dtype)
    except InvalidData as error:
        raise Invalid(f"The field {name!r}: {error.what}") from error
    if dtype is DType.String:
        for text in column.values:
            if not storable(text):
                raise Invalid(f"The field {name!r}: {text[:80]!r} is no text that every store can keep.")
            if len(text.encode()) > LONGEST_TEXT:
                raise Invalid(
                    f"The field {name!r} has a text of more than {LONGEST_TEXT} bytes.",
                    fix="keep long texts elsewhere: fields are what filters compare.",
                )
    return column


def check_search(spec: IndexSpec, k: int, where: Node | None, effort: float = 1.0) -> None:
    """Raise if a search is asked for that cannot be answered.

    Raises:
        Invalid: `k` is below 1, the effort is no positive number, or the condition is not one on the index's fields.
    """
    if k < 1:
        raise Invalid(f"A search is for the {k} nearest.", fix="ask for 1 or more.")
    if not 0 < effort < math.inf:
        raise Invalid(f"A search has the effort {effort}.", fix="give it a positive number; 1 is usual.")
    check_where(spec, where)


def check_where(spec: IndexSpec, where: Node | None) -> None:
    """Raise if a filter is no condition on the index's fields.

    Raises:
        Invalid: It names an unknown field, or is not true or false.
    """
    if where is not None and (found := dtype_of(where, spec.fields)) is not DType.Boolean:
        raise Invalid(f"A filter of an index is {found!r}, not Boolean.", fix="write a comparison.")


def passing(where: Node | None, columns: Mapping[str, Vector], spec: IndexSpec, rows: int) -> Mask:
    """Return for each row whether it fulfils a condition; one that is null is not fulfilled."""
    if where is None:
        return np.ones(rows, dtype=np.bool_)
    found = evaluate(where, columns, spec.fields, rows)
    return np.asarray(found.values & found.valid, dtype=np.bool_)


def similarities(metric: Metric, rows: Floats, query: Floats) -> Doubles:
    """Return the similarity of each row to a query, computed in float64 row by row: equal rows have equal scores.

    Args:
        rows: Shape (..., dimension).
        query: Shape (dimension,), or one that broadcasts with `rows`.
    """
    wide, asked = rows.astype(np.float64), query.astype(np.float64)
    if metric == "euclidean":
        return -np.sqrt(_inner(wide - asked, wide - asked))
    if metric == "dot":
        return _inner(wide, asked)
    return np.asarray(_inner(wide, asked) / (np.sqrt(_inner(wide, wide)) * np.sqrt(_inner(asked, asked))))


def _inner(left: Doubles, right: Doubles) -> Doubles:
    return np.asarray(np.vecdot(left, right))

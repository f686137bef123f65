"""Slices of held-out rows: the rows of each value of a column."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.core.errors import Invalid
from mainspring.stats.jackknife import Ints

MOST_SLICES = 200  # of one column
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of one value of a column; `rows` are their numbers, ascending."""

    name: str  # "carrier=AA"
    rows: Ints


def column_named(table: pa.Table, name: str) -> str:
    """Return the table's column that a gate names: in full, or by the part after the dot if only one column has it.

    Raises:
        Invalid: There is none, or several.
    """
    if name in table.column_names:
        return name
    found = [each for each in table.column_names if each.rpartition(".")[2] == name]
    if len(found) == 1:
        return found[0]
    have = ", ".join(each for each in table.column_names if not each.startswith("_"))
    raise Invalid(
        f"The held-out rows have {'no' if not found else 'several'} columns {name!r}: they have {have}.",
        fix="name one of them in full; a version trained before the gate named a column has to be trained again.",
    )


def slices_of(table: pa.Table, name: str, hidden: Collection[str] = ()) -> list[Slice]:
    """Return the slices by a column, the largest first. Null is a slice of its own.

    Args:
        hidden: Columns whose values identify a person; their slices are numbered.

    Raises:
        Invalid: There is no such column, or it has too many values.
    """
    full = column_named(table, name)
    column = table[full].combine_chunks()
    try:
        codes = column.dictionary_encode("encode")
    except pa.ArrowNotImplementedError:
        raise Invalid(
            f"The column {full} has values of the type {column.type}, which are no slices.",
            fix="slice by a text, a number or a Boolean.",
        ) from None
    if len(codes.dictionary) > MOST_SLICES:
        raise Invalid(
            f"The column {full} has {len(codes.dictionary):,} values in the held-out rows; slices can be at most "
            f"{MOST_SLICES}.",
            fix="declare a feature that groups its values, and slice by that.",
        )
    values = codes.dictionary.to_pylist()
    indices: Any = codes.indices.to_numpy(zero_copy_only=False)
    places = np.asarray(indices, np.int64)
    order = np.argsort(places, kind="stable")
    found = np.split(order, np.flatnonzero(np.diff(places[order])) + 1) if places.size else []
    ordered = sorted(found, key=lambda rows: (-rows.size, _text(values[places[rows[0]]])))
    if full in hidden:
        return [Slice(f"{name} group {number}", rows) for number, rows in enumerate(ordered, 1)]
    return [Slice(f"{name}={_text(values[places[rows[0]]])}", rows) for rows in ordered]


def intersections_of(table: pa.Table, names: Sequence[str], hidden: Collection[str] = ()) -> list[Slice]:
    """Return the slices by the combinations of the values of columns, the largest first; arguments as of `slices_of`.

    Raises:
        Invalid: There is no such column, it has too many values, or there are too many combinations.
    """
    parts = [slices_of(table, name, hidden) for name in names]
    if len(parts) == 1:
        return parts[0]
    place = np.zeros(table.num_rows, np.int64)
    for part in parts:
        place *= len(part)
        for number, each in enumerate(part):
            place[each.rows] += number
    found, of_row, sizes = np.unique(place, return_inverse=True, return_counts=True)
    if found.size > MOST_SLICES:
        raise Invalid(
            f"The columns {', '.join(names)} have {found.size:,} combinations of values in the held-out rows; groups "
            f"can be at most {MOST_SLICES}.",
            fix="declare features with fewer values, or name fewer columns.",
        )
    rows = np.split(np.argsort(of_row, kind="stable"), np.cumsum(sizes)[:-1]) if found.size else []
    slices = []
    sizes_of_parts = [len(part) for part in parts]
    for code, of in zip(found.tolist(), rows, strict=True):
        numbers = np.unravel_index(code, sizes_of_parts)
        words = [part[int(number)].name for part, number in zip(parts, numbers, strict=True)]
        slices.append(Slice(" and ".join(words), of))
    return sorted(slices, key=lambda each: (-each.rows.size, each.name))


def _text(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def listed(parts: Sequence[str]) -> str:
    """Return the first five parts, and how many more there are."""
    more = len(parts) - _NAMED
    return ", ".join(parts[:_NAMED]) + (f" and {more} more" if more > 0 else "")

"""Lossless Arrow columns of summaries, as the lake stores them beside the rows of sketches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.stats.summaries import Summary

if TYPE_CHECKING:
    import pyarrow as pa


def summary_fields() -> list[pa.Field[Any]]:
    """Return the fields of a summary; all are null where there is none."""
    import pyarrow as pa

    return [
        pa.field("registers", pa.binary()),
        pa.field("places", pa.list_(pa.int64())),
        pa.field("weights", pa.list_(pa.int64())),
        pa.field("frequent", pa.list_(pa.string())),
        pa.field("occurrences", pa.list_(pa.int64())),
        pa.field("missed", pa.int64()),
    ]


def with_summaries(rows: pa.Table, summaries: Sequence[Summary | None]) -> pa.Table:
    """Return the rows with the columns of one summary for each."""
    import pyarrow as pa

    values = [
        (None,) * 6
        if each is None
        else (
            each.registers.tobytes(),
            each.places,
            each.weights,
            [*each.frequent],
            [*each.frequent.values()],
            each.missed,
        )
        for each in summaries
    ]
    columns: list[Any] = [[row[at] for row in values] for at in range(6)]
    for field, column in zip(summary_fields(), columns, strict=True):
        rows = rows.append_column(field, pa.array(column, field.type))
    return rows


def summaries_of(rows: pa.Table) -> list[Summary | None]:
    """Return the summary of each row; `None` for rows of an older release, which has none."""
    names = [field.name for field in summary_fields()]
    if not set(names) <= {*rows.column_names}:
        return [None] * len(rows)
    return [
        None
        if registers is None
        else Summary(
            np.frombuffer(registers, np.uint8),
            np.array(places, np.int64),
            np.array(weights, np.int64),
            dict(zip(frequent, occurrences, strict=True)),
            missed,
        )
        for registers, places, weights, frequent, occurrences, missed in zip(
            *(rows[name].to_pylist() for name in names), strict=True
        )
    ]

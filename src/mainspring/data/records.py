"""The record-setting rule as SQL: it decides which rows count for last values.

Among an entity's rows, a row counts if its (event time, recorded time, `_seq`) exceeds that of every other row visible
by then. Rows that do not count never affect others, so new rows are compared only with existing counting rows, and
among these only with the last before an entity's first new row and those after it (`data.heads` finds them).
"""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.expr.sql import quote_name
from mainspring.data.model import SEQUENCE, VISIBLE_AT, Source


def rank_columns(source: Source) -> tuple[str, str, str]:
    """Return the quoted columns that rank rows of one entity; without a recorded time, event time is repeated."""
    return quote_name(source.event_time), quote_name(source.recorded_time or source.event_time), quote_name(SEQUENCE)


def counting(source: Source, rows: str, keys: Sequence[str]) -> str:
    """Return a SQL query of the relation `rows` (without null keys) with the column `_counts`, true if a row counts.

    Ranks are numbered once, so the running maximum is over one integer. Among rows visible at the same time the highest
    rank comes first, so it shadows the others.
    """
    partition = ", ".join(map(quote_name, keys))
    return f"""
        SELECT * EXCLUDE (_rank), _rank = max(_rank) OVER (
            PARTITION BY {partition} ORDER BY {VISIBLE_AT}, _rank DESC ROWS UNBOUNDED PRECEDING) AS _counts
        FROM (SELECT *, row_number() OVER (ORDER BY {", ".join(rank_columns(source))}) AS _rank FROM ({rows}))"""


def present(keys: Sequence[str]) -> str:
    """Return the SQL condition that no key is null."""
    return " AND ".join(f"{quote_name(key)} IS NOT NULL" for key in keys)

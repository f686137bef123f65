"""The record-setting rule as SQL: which rows count for last values.

Of an entity's rows, one counts if its (event time, recorded time, `_seq`) exceeds that of every other row that was
visible by then. Rows that do not count can never make a difference to others, so new rows are compared with the
counting rows that are there, and of these only with the last before an entity's first new row and those after it
(`data.heads` finds them).
"""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.expr.sql import quote_name
from mainspring.data.model import SEQUENCE, VISIBLE_AT, Source


def rank_columns(source: Source) -> tuple[str, str, str]:
    """Return the columns by which rows of one entity are ranked, quoted; facts without a recorded time repeat it."""
    return quote_name(source.event_time), quote_name(source.recorded_time or source.event_time), quote_name(SEQUENCE)


def counting(source: Source, rows: str, keys: Sequence[str]) -> str:
    """Return SQL: the relation `rows` (rows without a null key) with the column `_counts`, true where a row counts.

    Ranks are numbered once, so the running maximum is of one integer; of rows visible at one instant the highest
    comes first, so it shadows the others.
    """
    partition = ", ".join(map(quote_name, keys))
    return f"""
        SELECT * EXCLUDE (_rank), _rank = max(_rank) OVER (
            PARTITION BY {partition} ORDER BY {VISIBLE_AT}, _rank DESC ROWS UNBOUNDED PRECEDING) AS _counts
        FROM (SELECT *, row_number() OVER (ORDER BY {", ".join(rank_columns(source))}) AS _rank FROM ({rows}))"""


def present(keys: Sequence[str]) -> str:
    """Return SQL: no key is null."""
    return " AND ".join(f"{quote_name(key)} IS NOT NULL" for key in keys)

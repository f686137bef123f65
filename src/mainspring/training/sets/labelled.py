"""The labelled observations of a model, read from the lake: into memory, or into a file where they exceed it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.data import duck
from mainspring.data.model import SEQUENCE
from mainspring.features.model import Observations
from mainspring.features.offline.observed import AT, open_observed
from mainspring.features.offline.pieces import Observed, count, pieces
from mainspring.features.offline.query import connection, execute
from mainspring.features.offline.stored import Scan
from mainspring.training.label import Label
from mainspring.training.sets.labels import LABEL, WHY, LeftOut, joins_of


def labelled(
    observations: Observations,
    labels: Sequence[Label],
    scan: Scan,
    *,
    since: int | None,
    until: int | None,
    memory_limit: str = "2GB",
) -> tuple[pa.Table, LeftOut]:
    """Return the observations in `[since, until)` that have every label, by time, and the reasons for the others.

    The columns are those of `features.offline.observe` and `_label`. If a key has several label rows, the newest value
    counts (largest event time, then recorded time, then order of arrival) among those visible at `until`; for a label
    that matures, among those visible when the observation matured. A null label counts as none. For several labels,
    `_label` is a struct of their columns.

    Args:
        since: UTC epoch microseconds, `None` from the first.
        until: Likewise; labels that became visible later are ignored. `None` for no limit.
        memory_limit: DuckDB's memory before it spills to disk.

    Raises:
        Invalid: A table was not ingested by the id that its source declares.
    """
    with _joined(observations, labels, scan, since, until, memory_limit, None) as (con, query, left_out):
        return _nullable(con.sql(query).to_arrow_table()), left_out


def write_labelled(
    path: Path,
    observations: Observations,
    labels: Sequence[Label],
    scan: Scan,
    *,
    since: int | None,
    until: int | None,
    memory_limit: str,
    temp: Path,
) -> tuple[Observed, int, LeftOut]:
    """Write what `labelled` returns to a Parquet file.

    Args:
        path: The file, not read by others before it is complete.
        temp: Folder for spilling.

    Returns:
        A function that yields the rows in pieces, the number of rows, and the reasons for the observations left out.

    Raises:
        Invalid: A table was not ingested by the id that its source declares.
        StorageFull: There is no space for the file, or for sorting.
    """
    with _joined(observations, labels, scan, since, until, memory_limit, temp) as (con, query, left_out):
        execute(con, f"COPY ({query}) TO {quote_text(str(path))} (FORMAT parquet, COMPRESSION lz4)")
    return (lambda: map(_nullable, pieces(path))), count(path), left_out


@contextmanager
def _joined(
    observations: Observations,
    labels: Sequence[Label],
    scan: Scan,
    since: int | None,
    until: int | None,
    memory_limit: str,
    temp: Path | None,
) -> Iterator[tuple[Any, str, LeftOut]]:
    """Give a connection, the query of the labelled observations, and the reasons for those left out."""
    with connection(memory_limit, temp=temp) as con, duck.duck_errors(observations.source.name):
        open_observed(con, observations, scan, since, until)
        joins = joins_of(observations, labels, until=until)
        joins.open(con, scan)
        # Joined once, without the columns that take no part: they are fetched for the rows that are labelled.
        execute(con, f"CREATE TEMP TABLE marked AS SELECT {SEQUENCE}, {LABEL}, {WHY} FROM ({joins.sql})")
        counted = con.execute(f"SELECT {WHY}, count(*) FROM marked WHERE {WHY} IS NOT NULL GROUP BY {WHY}")
        left_out = joins.left_out(con, dict(counted.fetchall()))
        names = ", ".join(quote_name(name) for name in (*observations.source.columns, AT, LABEL))
        yield (
            con,
            (
                f"SELECT {names} FROM observed JOIN marked USING ({SEQUENCE}) WHERE {LABEL} IS NOT NULL "
                f"ORDER BY {AT}, {SEQUENCE}"
            ),
            left_out,
        )


def _nullable(table: pa.Table) -> pa.Table:
    """Return a table whose columns may have nulls; in a file DuckDB marks those that have none."""
    return table.cast(pa.schema([field.with_nullable(True) for field in table.schema]))

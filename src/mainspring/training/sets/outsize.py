"""Labelled observations that exceed memory, written from the lake to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.data import duck
from mainspring.data.model import SEQUENCE, TableScan
from mainspring.features.offline.pieces import pieces
from mainspring.features.offline.query import execute
from mainspring.features.offline.read import connection, observed_sql
from mainspring.features.offline.versions import open_versions
from mainspring.training.model import Model
from mainspring.training.sets.labels import LABEL, WHY, LeftOut, joins_of

AT = "_at"


def write_labelled(
    path: Path,
    model: Model,
    scan: Callable[[str], TableScan],
    *,
    since: int | None,
    until: int | None,
    memory_limit: str,
    temp: Path,
) -> tuple[int, LeftOut]:
    """Write the model's labelled observations in `[since, until)`, ordered by time, to a Parquet file.

    Rows, columns and types equal those of `features.offline.observe` and `training.sets.labels.join_labels`.

    Args:
        path: The file, not read by others before it is complete.
        temp: Folder for spilling.

    Returns:
        The number of rows written, and the reasons for the observations left out.

    Raises:
        Invalid: A table was not ingested by the id that its source declares.
        StorageFull: There is no space for the file, or for sorting.
    """
    observations = model.observations
    names = ", ".join(quote_name(name) for name in (*observations.source.columns, AT, LABEL))
    with connection(memory_limit, temp=temp) as con, duck.duck_errors(observations.source.name):
        open_versions(con, "source", scan(observations.source.name), observations.source)
        con.execute(f"CREATE TEMP VIEW observed AS {observed_sql(observations, since, until)}")
        joins = joins_of(observations, model.labels, row=SEQUENCE, until=until)
        joins.open(con, scan)
        query = f"SELECT {names} FROM ({joins.sql}) WHERE {LABEL} IS NOT NULL ORDER BY {AT}, {SEQUENCE}"
        execute(con, f"COPY ({query}) TO {quote_text(str(path))} (FORMAT parquet, COMPRESSION lz4)")
        counted = f"SELECT {WHY}, count(*) FROM ({joins.sql}) WHERE {WHY} IS NOT NULL GROUP BY {WHY}"
        left_out = joins.left_out(con, dict(con.execute(counted).fetchall()))
        (rows,) = duck.one_row(con, f"SELECT count(*) FROM read_parquet({quote_text(str(path))})")
    return rows, left_out


def labelled(path: Path) -> Iterator[pa.Table]:
    """Yield the rows of `write_labelled` in pieces."""
    for piece in pieces(path):
        fields = [field.with_nullable(True) for field in piece.schema]  # DuckDB marks columns that have no null
        yield piece.cast(pa.schema(fields))

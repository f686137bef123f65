"""Labelled observations of more rows than memory holds: from the lake to a file."""

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
    """Write the model's observations made in `[since, until)` that have a label, by time, as a Parquet file.

    The same rows, columns and types as `features.offline.observe` and `training.sets.labels.join_labels` return.

    Args:
        path: Where nobody reads before it is written.
        temp: The folder under which to spill.

    Returns:
        How many rows were written, and why other observations have no label.

    Raises:
        Invalid: A table was not landed by the id that its source declares.
        StorageFull: There is no room for them, or to sort them.
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
    """Yield what `write_labelled` wrote, in pieces."""
    for piece in pieces(path):
        fields = [field.with_nullable(True) for field in piece.schema]  # DuckDB marks columns that have no null
        yield piece.cast(pa.schema(fields))

"""Statements for warehouses, compared with the oracle: the same histories for DuckDB, Spark and fakesnow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
from hypothesis import strategies as st

from kit.histories import FIELDS, KEYS, History, lake_table, near
from kit.oracle import value_at
from mainspring.core.expr.dialects import Dialect
from mainspring.core.schema import DType
from mainspring.features.layout import SKETCHES, feature_dtype, layout_of
from mainspring.features.model import FeatureView
from mainspring.features.warehouse import Tables, statement

ASKED = [*KEYS, ("never", 7), (None, 1)]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Runs a statement over `observations` and `facts`: the rows, as dictionaries.
Execute = Callable[[str, pa.Table, pa.Table], list[dict[str, Any]]]


def without_sketches(view: FeatureView) -> FeatureView:
    """The view without what no dialect has an equal of, and without what is derived from that."""
    sketches = {each.name for each in layout_of(view).windows if set(each.parts) & set(SKETCHES)}
    kept = {name: feature for name, feature in view.features.items() if name not in sketches}
    return FeatureView(view.name, view.entity, view.source, kept)


def as_run_here(history: History, dialect: Dialect) -> History:
    """The history without NaN for a dialect in which no number is above or below it: DuckDB, which runs its statements
    here, has it above all.
    """
    if dialect.nan_is_largest:
        return history
    rows = [
        replace(row, values={name: None if x != x else x for name, x in row.values.items()}) for row in history.rows
    ]
    return replace(history, rows=rows)


def instants_of(history: History) -> st.SearchStrategy[list[int]]:
    return st.lists(near(st.sampled_from(history.edges())), min_size=1, max_size=8)


def observed(instants: list[int]) -> pa.Table:
    asked = [(key, now) for now in instants for key in ASKED]
    return pa.table(
        {
            "k": pa.array([key[0] for key, _ in asked], pa.string()),
            "n": pa.array([key[1] for key, _ in asked], pa.int64()),
            "q": pa.array([1.5] * len(asked), pa.float64()),
            "w": pa.array([2] * len(asked), pa.int64()),
            "_at": pa.array([now for _, now in asked], pa.timestamp("us", tz="UTC")),
        }
    )


def check(history: History, instants: list[int], dialect: Dialect, arrival: str | None, execute: Execute) -> int:
    """Return the number of values that are the oracle's; every observation must be one row of the answer.

    Args:
        arrival: See `Tables`; `None` reads the columns of ingestion.
    """
    view = without_sketches(history.view)
    if not view.features:
        return 0
    text = statement([view], dialect, Tables(at="_at", arrival=arrival), fields=FIELDS)
    asked = observed(instants)
    answer = execute(text, asked, lake_table(history, history.rows, 0).rows)
    assert len(answer) == asked.num_rows
    checked = 0
    for row in answer:
        key, now = (row["k"], _plain(row["n"])), _plain(row["_at"])
        for name in view.features:
            found = _plain(row[f"{view.name}{'.' if dialect.dotted else '__'}{name}"])
            wanted, _ = value_at(history.features[name], history.rows, key, now, history.lag)
            dtype = feature_dtype(view, name)
            assert agrees(found, wanted, dtype), (dialect.name, arrival, name, key, now, found, wanted, text)
            checked += 1
    return checked


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return round((value - _EPOCH) / timedelta(microseconds=1))
    return int(value) if isinstance(value, Decimal) else value


def agrees(found: Any, wanted: Any, dtype: DType) -> bool:
    if found is None or wanted is None:
        return found is wanted
    if dtype not in (DType.Float32, DType.Float64):
        # A declared default is a float in the oracle.
        return (type(found) is type(wanted) or type(wanted) is float) and bool(found == wanted)
    if wanted != wanted or found != found:
        return wanted != wanted and found != found
    tolerance = 1.2e-7 if dtype == DType.Float32 else 1e-9
    return bool(found == wanted or abs(found - wanted) <= max(tolerance * abs(wanted), 1e-30))


def in_utc(value: Any) -> Any:
    """A timestamp that an emulator lost the zone of, as UTC."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def by_duckdb(dialect: Dialect) -> Execute:
    """Run a dialect's statements in DuckDB, as sqlglot translates them: it proves their meaning, not the warehouse."""

    def execute(text: str, observations: pa.Table, facts: pa.Table) -> list[dict[str, Any]]:
        translated = text
        if dialect.name != "duckdb":
            (translated,) = sqlglot.transpile(text, read=dialect.name, write="duckdb")
        with duckdb.connect() as con:
            con.execute("SET timezone = 'UTC'")
            con.execute("CREATE MACRO timestamp_micros(us) AS make_timestamptz(us)")
            con.register("observations", observations)
            con.register("facts", facts)
            found = con.sql(translated).to_arrow_table().to_pylist()
        # sqlglot makes BigQuery's TIMESTAMP a timestamp without a zone.
        return [{name: in_utc(value) for name, value in row.items()} for row in found]

    return execute

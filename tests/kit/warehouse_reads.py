"""Reads of random histories by a warehouse, compared with the local read: for each adapter, in its own environment."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from kit.histories import FIELDS, History, lake_table, landed
from kit.warehouse import agrees, as_run_here, instants_of, observed
from mainspring.core.expr.dialects import DIALECTS
from mainspring.core.schema import DType
from mainspring.data.warehouse.ports import Warehouse
from mainspring.features.layout import SKETCHES, feature_dtype, layout_of
from mainspring.features.model import FeatureGroup
from mainspring.features.needed import needed_for
from mainspring.features.offline import point_in_time_pieces
from mainspring.features.warehouse import Tables, WarehouseRead

SCHEMA: Mapping[str, DType] = {"k": DType.String, "n": DType.Int64, **FIELDS}
FEW = settings(  # of histories that a server reads
    deadline=None, max_examples=25, database=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
TABLE = "raw facts"  # of a history's rows, unless they are loaded


def rows_of(history: History, *, arrives: bool) -> pa.Table:
    """The rows as the source brings them, in a column `loaded` in their order; or as the lake has them."""
    rows = lake_table(history, history.rows, 0).rows
    return landed(history, history.rows).append_column("loaded", rows["_seq"]) if arrives else rows


def exact_columns(history: History) -> list[str]:
    """The features that no sketch is needed for."""
    groups: list[FeatureGroup] = [history.view, history.ask]
    sketches = {f"Facts.{each.name}" for each in layout_of(history.view).windows if set(each.parts) & set(SKETCHES)}
    return [name for group in groups for name in group.columns if not needed_for(groups, [name]) & sketches]


def check_read(
    warehouse: Warehouse, history: History, data: st.DataObject, temp: Path, *, arrives: bool, table: str = TABLE
) -> int:
    """Read a history's features at some instants here and there; return the number of equal values."""
    asked, whole = observed(data.draw(instants_of(history))), data.draw(st.booleans())
    scan, only = lake_table(history, history.rows, 0), exact_columns(history)
    groups: list[FeatureGroup] = [history.view, history.ask]

    def read(**how: Any) -> pa.Table:
        found = point_in_time_pieces(
            asked, groups, lambda _: scan, schema=SCHEMA, temp=temp, whole=whole, only=only, **how
        )
        with closing(found):
            return pa.concat_tables(found)

    tables = Tables(sources={"facts": table}, arrivals={"facts": "loaded"} if arrives else {})
    stored = WarehouseRead(warehouse, "here", tables, versioned=False)
    found, wanted = read(stored=stored), read()
    assert found.schema == wanted.schema
    is_asked = bool(needed_for(groups, only) & set(history.view.columns))
    assert [job.observations for job in stored.jobs] == [asked.num_rows] * is_asked
    for name in wanted.column_names:
        group = history.view if name.startswith("Facts.") else history.ask
        dtype = feature_dtype(group, name.partition(".")[2], FIELDS) if "." in name else DType.Int64
        for row, (one, other) in enumerate(zip(plain(found[name]), plain(wanted[name]), strict=True)):
            assert one == other or agrees(one, other, dtype), (name, asked.slice(row, 1).to_pylist(), one, other)
    return asked.num_rows * len(only)


def check_loaded(warehouse: Warehouse, history: History, data: st.DataObject, temp: Path) -> int:
    """Like `check_read`, with the history's rows in a table that is loaded."""
    arrives, history = data.draw(st.booleans()), as_run_here(history, DIALECTS[warehouse.dialect])
    rows = rows_of(history, arrives=arrives)
    with warehouse.loaded(rows.to_batches(), rows.schema) as table:
        return check_read(warehouse, history, data, temp, arrives=arrives, table=table)


def plain(column: pa.ChunkedArray[Any]) -> list[Any]:
    return (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()

"""Features that a warehouse reads are those of the local read, whatever the rows, in pieces and in memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.histories import FIELDS, History, histories, lake_table, landed
from kit.warehouse import agrees, instants_of, observed
from mainspring.core.schema import DType
from mainspring.data.adapters.warehouse_duckdb import DuckdbWarehouse
from mainspring.features.layout import SKETCHES, feature_dtype, layout_of
from mainspring.features.model import FeatureGroup
from mainspring.features.needed import needed_for
from mainspring.features.offline import pieces, placing, point_in_time_pieces
from mainspring.features.warehouse import Tables, WarehouseRead

COMMON = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    max_examples=examples(gate=6, deep=300),
)
FULL_NAMES: Mapping[str, DType] = {"k": DType.String, "n": DType.Int64, **FIELDS}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_ROWS", 7)
    monkeypatch.setattr(placing, "PIECE_ROWS", 5)


def file_of(path: Path, tables: Mapping[str, pa.Table]) -> Path:
    """A new file of DuckDB with some tables."""
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as con:
        con.execute("SET timezone = 'UTC'")
        for name, table in tables.items():
            con.register("_given", table)
            con.execute(f'CREATE TABLE "{name}" AS FROM _given')
    return path


def exact_columns(history: History) -> list[str]:
    """The features that no sketch is needed for."""
    groups: list[FeatureGroup] = [history.view, history.ask]
    sketches = {f"Facts.{each.name}" for each in layout_of(history.view).windows if set(each.parts) & set(SKETCHES)}
    return [name for group in groups for name in group.columns if not needed_for(groups, [name]) & sketches]


def plain(column: pa.ChunkedArray[Any]) -> list[Any]:
    return (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()


@COMMON
@given(history=histories(), data=st.data())
def test_a_read_of_a_warehouse_is_the_local_read(tmp_path: Path, history: History, data: st.DataObject) -> None:
    asked = observed(data.draw(instants_of(history)))
    arrives, whole = data.draw(st.booleans()), data.draw(st.booleans())
    scan = lake_table(history, history.rows, 0)
    rows = scan.rows
    if arrives:  # as the source brings it
        rows = landed(history, history.rows).append_column("loaded", scan.rows["_seq"])
    only = exact_columns(history)
    groups: list[FeatureGroup] = [history.view, history.ask]

    def read(**how: Any) -> pa.Table:
        found = point_in_time_pieces(
            asked, groups, lambda _: scan, schema=FULL_NAMES, temp=tmp_path, whole=whole, only=only, **how
        )
        with closing(found):
            return pa.concat_tables(found)

    there = DuckdbWarehouse(file_of(tmp_path / "rows.duckdb", {"raw facts": rows}))
    tables = Tables(sources={"facts": "raw facts"}, arrivals={"facts": "loaded"} if arrives else {})
    told: list[int] = []
    with closing(there):
        found = read(stored=WarehouseRead(there, "here", tables, told=lambda job: told.append(job.observations)))
    wanted = read()
    assert found.schema == wanted.schema
    assert told == [asked.num_rows] * bool(needed_for(groups, only) & set(history.view.columns))
    for name in wanted.column_names:
        group = history.view if name.startswith("Facts.") else history.ask
        dtype = feature_dtype(group, name.partition(".")[2], FIELDS) if "." in name else DType.Int64
        for row, (one, other) in enumerate(zip(plain(found[name]), plain(wanted[name]), strict=True)):
            assert one == other or agrees(one, other, dtype), (name, asked.slice(row, 1).to_pylist(), one, other)

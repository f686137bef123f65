"""Tables of a warehouse that a read cannot trust are refused, by name and with the fix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import mainspring as ms
from mainspring.core.errors import Corrupt, Invalid, InvalidData, MainspringError, NotFound
from mainspring.data.adapters.warehouse_duckdb import DuckdbWarehouse
from mainspring.features.declaring import feature_view
from mainspring.features.model import Entity, FeatureView
from mainspring.features.offline import point_in_time
from mainspring.features.warehouse import Tables, WarehouseRead

COURIER = Entity("courier", keys={"courier": ms.String})
RIDES = ms.Source("rides", schema={"courier": ms.String, "km": ms.Float64, "n": ms.Int64}, event_time="at")
WANTED = 'courier TEXT, km DOUBLE, n BIGINT, "at" TIMESTAMPTZ, loaded BIGINT'
ASKED = pa.table(
    {"courier": ["ana", "bob", None], "_at": pa.array([3_000_000, 3_000_000, None], pa.timestamp("us", "UTC"))}
)
ARRIVALS = Tables(arrivals={"rides": "loaded"})


def view_of(**features: Any) -> FeatureView:
    return feature_view(entity=COURIER, source=RIDES)(type("Rides", (), features))


VIEW = view_of(km=ms.last("km"), rides=ms.count(window="1h"))


class Doubling(DuckdbWarehouse):
    """One that returns each row twice."""

    @contextmanager
    def read(self, statement: str) -> Iterator[pa.RecordBatchReader]:
        with super().read(f"SELECT * FROM ({statement}) UNION ALL SELECT * FROM ({statement})") as rows:
            yield rows


class Ending(DuckdbWarehouse):
    """One that fails after some rows."""

    @contextmanager
    def read(self, statement: str) -> Iterator[pa.RecordBatchReader]:
        with super().read(statement) as rows:

            def some() -> Iterator[pa.RecordBatch]:
                yield rows.read_next_batch().slice(0, 1)
                raise InvalidData("the second row is broken")

            yield pa.RecordBatchReader.from_batches(rows.schema, some())


def read(path: Path, columns: str, tables: Tables, view: FeatureView = VIEW, kind: Any = DuckdbWarehouse) -> pa.Table:
    with duckdb.connect(str(path / "w.duckdb")) as con:
        con.execute("SET timezone = 'UTC'")
        con.execute(f"CREATE OR REPLACE TABLE rides ({columns})")
        if columns == WANTED:
            con.execute("INSERT INTO rides VALUES ('ana', 2.5, 1, TIMESTAMPTZ '1970-01-01 00:00:01Z', 1)")
    there = kind(path / "w.duckdb")
    try:
        stored = WarehouseRead(there, "here", tables)
        return point_in_time(ASKED, [view], lambda _: None, schema={}, stored=stored, only=view.columns)
    finally:
        there.close()


def test_what_fits_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, WANTED, ARRIVALS)
    assert found["Rides.km"].to_pylist() == [2.5, None, None]
    assert found["Rides.rides"].to_pylist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("columns", "tables", "kind", "told", "fix"),
    [
        (WANTED, Tables(sources={"rides": "ride"}), NotFound, "no table 'ride'", "rides"),
        (WANTED, Tables(), InvalidData, "'_visible_at', which the lake adds", 'arrivals = { rides = "COLUMN" }'),
        (WANTED, Tables(arrivals={"rides": "when"}), InvalidData, "no column 'when'", "correct `arrivals`"),
        (WANTED.replace("km", "KM_"), ARRIVALS, InvalidData, "no column 'km'", "case of letters"),
        (WANTED.replace("TIMESTAMPTZ", "TIMESTAMP"), ARRIVALS, InvalidData, "no time zone", "cast it in a view"),
        (WANTED.replace("DOUBLE", "DECIMAL(9, 2)"), ARRIVALS, InvalidData, "rides is read as decimal", ""),
        (WANTED.replace("courier TEXT", "courier BIGINT"), ARRIVALS, InvalidData, "'courier' of table rides", ""),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(
    tmp_path: Path, columns: str, tables: Tables, kind: type[MainspringError], told: str, fix: str
) -> None:
    with pytest.raises(kind) as refused:
        read(tmp_path, columns, tables)
    assert told in refused.value.what
    assert fix in (refused.value.fix or "")


def test_a_sketch_is_refused_and_others_of_its_view_are_not(tmp_path: Path) -> None:
    view = view_of(km=ms.last("km"), kinds=ms.distinct("n", window="1h"))
    with pytest.raises(Invalid, match=r"no exact equal of 'Rides\.kinds, a distinct'") as refused:
        read(tmp_path, WANTED, ARRIVALS, view)
    assert "--engine lake" in (refused.value.fix or "")


def test_an_error_amid_the_rows_is_the_warehouses_own(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="the second row"):
        read(tmp_path, WANTED, ARRIVALS, kind=Ending)


def test_rows_that_come_twice_are_no_result(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="returned 6 rows for 3 observations"):
        read(tmp_path, WANTED, ARRIVALS, kind=Doubling)

"""Conformance suite of warehouses. Derive a test class and provide its fixtures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.core.errors import Invalid, InvalidData, NotFound
from mainspring.core.expr.dialects import Dialect, dialect
from mainspring.core.schema import DType
from mainspring.core.settings import Url
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT
from mainspring.data.arrow import ARROW_TYPES, INSTANT
from mainspring.data.warehouse.ports import UnloadedFile, Warehouse

_VALUES: dict[DType, st.SearchStrategy[Any]] = {
    DType.String: st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
    | st.sampled_from(["it's", 'a "b"', "a\\'b", "\n\t", "null", "NaN", ""]),
    DType.Boolean: st.booleans(),
    DType.Int32: st.integers(-(2**31), 2**31 - 1),
    DType.Int64: st.integers(-(2**63), 2**63 - 1),
    DType.Float32: st.floats(width=32),
    DType.Float64: st.floats(),
    DType.Timestamp: st.integers(FIRST_INSTANT, LAST_INSTANT) | st.sampled_from([FIRST_INSTANT, LAST_INSTANT]),
}
_READ = {pa.int32(): pa.int64(), pa.float32(): pa.float64()}  # of the lake's types; the others are read as they are
KINDS = [ARROW_TYPES[each] for each in _VALUES]


@dataclass(frozen=True)
class Shop:
    """The table `deliveries` that a warehouse has when a test begins.

    Attributes:
        table: Its name.
        bucket: Place to which the warehouse can unload.
        content: Returns the bytes of an unloaded file.
    """

    table: str
    bucket: Url
    content: Callable[[UnloadedFile], bytes]


DELIVERIES = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.int64()),
        "courier": pa.array(["ana", "it's", None], pa.string()),
        "late": pa.array([True, None, False], pa.bool_()),
        "km": pa.array([1.5, math.nan, None], pa.float64()),
        "at": pa.array([1_000_001, -1, None], INSTANT),
    }
)


def rows_of(warehouse: Warehouse, statement: str) -> list[dict[str, Any]]:
    """Return the rows of a statement; instants as microseconds, NaN as text so that it is equal to itself."""
    with warehouse.read(statement) as found:
        return plain(found.read_all())


def plain(rows: pa.Table) -> list[dict[str, Any]]:
    for index, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            rows = rows.set_column(index, field.name, rows.column(index).cast(pa.int64()))
    return [{name: _comparable(value) for name, value in row.items()} for row in rows.to_pylist()]


def _comparable(value: Any) -> Any:
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def _selected(spoken: Dialect, names: Sequence[str], table: str, rest: str = "") -> str:
    return f"SELECT {', '.join(map(spoken.column, names))} FROM {spoken.table(table)} {rest}"


class WarehouseConformance:
    """Needs the fixtures `warehouse`, a `Warehouse`, and `shop`, whose table has the rows `DELIVERIES`."""

    def test_it_says_what_it_is(self, warehouse: Warehouse) -> None:
        assert warehouse.ping()

    def test_columns_are_those_that_are_read(self, warehouse: Warehouse, shop: Shop) -> None:
        assert list(warehouse.columns(shop.table).items()) == [(each.name, each.type) for each in DELIVERIES.schema]

    def test_a_table_that_is_not_there_is_named_with_those_that_are_like_it(
        self, warehouse: Warehouse, shop: Shop
    ) -> None:
        wrong = shop.table.replace("deliveries", "delivereis")
        with pytest.raises(NotFound, match=wrong) as raised:
            warehouse.columns(wrong)
        assert shop.table in str(raised.value.fix)
        with pytest.raises(NotFound):
            rows_of(warehouse, _selected(dialect(warehouse.dialect), ["id"], wrong))

    def test_rows_are_read_with_their_types(self, warehouse: Warehouse, shop: Shop) -> None:
        spoken = dialect(warehouse.dialect)
        text = _selected(spoken, DELIVERIES.column_names, shop.table, f"ORDER BY {spoken.column('id')}")
        with warehouse.read(text) as found:
            assert found.schema.equals(DELIVERIES.schema)
            assert plain(found.read_all()) == plain(DELIVERIES)

    def test_no_row_has_a_schema_too(self, warehouse: Warehouse, shop: Shop) -> None:
        text = _selected(dialect(warehouse.dialect), DELIVERIES.column_names, shop.table, "WHERE 1 = 0")
        with warehouse.read(text) as found:
            assert found.schema.equals(DELIVERIES.schema)
            assert found.read_all().num_rows == 0

    def test_a_statement_that_is_wrong_is_refused(self, warehouse: Warehouse, shop: Shop) -> None:
        spoken = dialect(warehouse.dialect)
        for wrong in ("SELEC 1", _selected(spoken, ["speed"], shop.table)):
            with pytest.raises(Invalid):
                rows_of(warehouse, wrong)

    def test_a_number_of_more_than_64_bits_is_refused(self, warehouse: Warehouse) -> None:
        with pytest.raises(InvalidData, match="wide"):
            rows_of(warehouse, f"SELECT {self.wide} AS {dialect(warehouse.dialect).column('wide')}")

    wide = "CAST('9223372036854775808' AS DECIMAL(38, 0))"

    @pytest.mark.parametrize("kind", KINDS, ids=map(str, KINDS))
    @settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=5)
    @given(data=st.data())
    def test_every_type_comes_back_as_it_went(
        self, warehouse: Warehouse, kind: pa.DataType, data: st.DataObject
    ) -> None:
        (dtype,) = (each for each, arrow in ARROW_TYPES.items() if arrow == kind and each in _VALUES)
        values = data.draw(st.lists(st.none() | _VALUES[dtype], min_size=1, max_size=20))
        rows = pa.table({"n": pa.array(range(len(values)), pa.int64()), "x": pa.array(values, kind)})
        spoken = dialect(warehouse.dialect)
        with (
            warehouse.loaded(rows.to_batches(), rows.schema) as name,
            warehouse.read(_selected(spoken, ["n", "x"], name)) as found,
        ):
            read = found.read_all().sort_by("n")
        assert read.schema.field("x").type == _READ.get(kind, kind)
        assert plain(read) == plain(rows)

    def test_loaded_rows_are_joined_with_tables_and_are_gone_at_the_end(self, warehouse: Warehouse, shop: Shop) -> None:
        spoken = dialect(warehouse.dialect)
        asked = pa.table({"id": pa.array([3, 1], pa.int64())})
        km = spoken.column("km")
        with warehouse.loaded(asked.to_batches(), asked.schema) as name:
            text = (
                f"SELECT d.{spoken.column('id')}, d.{km} FROM {spoken.table(shop.table)} AS d "
                f"JOIN {spoken.table(name)} AS a ON a.{spoken.column('id')} = d.{spoken.column('id')}"
            )
            assert sorted(map(str, rows_of(warehouse, text))) == ["{'id': 1, 'km': 1.5}", "{'id': 3, 'km': None}"]
        with pytest.raises(NotFound):
            rows_of(warehouse, _selected(spoken, ["id"], name))

    def test_no_rows_are_loaded_as_a_table_with_their_columns(self, warehouse: Warehouse) -> None:
        spoken = dialect(warehouse.dialect)
        with warehouse.loaded([], DELIVERIES.schema) as name:
            assert rows_of(warehouse, _selected(spoken, DELIVERIES.column_names, name)) == []

    def test_rows_that_fail_on_their_way_leave_no_table(self, warehouse: Warehouse) -> None:
        def broken() -> Any:
            yield DELIVERIES.to_batches()[0]
            raise InvalidData("The third row is damaged.")

        with pytest.raises(InvalidData, match="third row"), warehouse.loaded(broken(), DELIVERIES.schema):
            raise AssertionError

    def test_an_error_of_the_reader_is_its_own(self, warehouse: Warehouse, shop: Shop) -> None:
        text = _selected(dialect(warehouse.dialect), ["id"], shop.table)
        with pytest.raises(ZeroDivisionError), warehouse.read(text) as found:
            _ = found.read_next_batch().num_rows / 0
        assert len(rows_of(warehouse, text)) == 3

    def test_a_read_that_ends_early_is_cancelled(self, warehouse: Warehouse) -> None:
        with warehouse.read(self.many) as found:
            assert found.read_next_batch().num_rows > 0
        assert warehouse.ping()

    many: str  # a statement with a million rows of one column
    has_ids = True  # whether the warehouse gives statements ids

    def test_a_statement_that_ran_has_an_id_of_its_own(self, warehouse: Warehouse, shop: Shop) -> None:
        ran = []
        for _ in range(2):
            with warehouse.read(_selected(dialect(warehouse.dialect), ["id"], shop.table)) as found:
                found.read_all()
            ran.append(warehouse.last())
        ids = [each.id for each in ran if each is not None]
        assert len(ids) == len({*ids}) == (2 if self.has_ids else 0)
        assert all(each is None or each.scanned_bytes is None or each.scanned_bytes >= 0 for each in ran)

    def test_an_estimate_runs_nothing(self, warehouse: Warehouse, shop: Shop) -> None:
        estimate = warehouse.estimate(_selected(dialect(warehouse.dialect), ["id", "km"], shop.table))
        assert estimate is None or estimate.scanned_bytes >= 0
        with pytest.raises(Invalid):
            warehouse.estimate(_selected(dialect(warehouse.dialect), ["speed"], shop.table))

    def test_rows_are_unloaded_to_files(self, warehouse: Warehouse, shop: Shop) -> None:
        text = _selected(dialect(warehouse.dialect), DELIVERIES.column_names, shop.table)
        first, second = warehouse.unload(text, shop.bucket), warehouse.unload(text, shop.bucket)
        assert not {each.at for each in first} & {each.at for each in second}
        for files in (first, second):
            contents = [shop.content(each) for each in files]
            assert [len(each) for each in contents] == [each.size_bytes for each in files]
            tables = [pq.read_table(pa.BufferReader(each)) for each in contents]
            assert [len(each) for each in tables] == [each.rows for each in files]
            assert all(len(each) for each in tables)
            rows = [row for each in tables for row in plain(each)]
            assert sorted(rows, key=lambda row: int(row["id"])) == plain(DELIVERIES)

    def test_no_rows_are_no_file(self, warehouse: Warehouse, shop: Shop) -> None:
        text = _selected(dialect(warehouse.dialect), ["id"], shop.table, "WHERE 1 = 0")
        assert warehouse.unload(text, shop.bucket) == []

    def test_it_does_not_write_anywhere(self, warehouse: Warehouse, shop: Shop) -> None:
        with pytest.raises(Invalid, match="ftp://there/x"):
            warehouse.unload(_selected(dialect(warehouse.dialect), ["id"], shop.table), Url("ftp://there/x"))

    def test_it_opens_again_after_it_was_closed(self, warehouse: Warehouse, shop: Shop) -> None:
        with closing(warehouse):
            assert warehouse.columns(shop.table)
        assert warehouse.columns(shop.table)

"""Conformance suites of lakes and of snapshot stores. Derive a test class and provide its fixture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from mainspring.core.errors import Invalid, InvalidData, NotFound
from mainspring.data import duck
from mainspring.data.arrow import INSTANT
from mainspring.data.model import DatasetCommit, TableScan
from mainspring.data.ports import LakeTables, Snapshots
from mainspring.data.write_keys import numbered

_FIELDS: list[pa.Field[Any]] = [
    pa.field("_seq", pa.int64()),
    pa.field("depDelay", pa.float32()),
    pa.field("select", pa.string()),
    pa.field("at", INSTANT),
    pa.field("_record_One", pa.bool_(), metadata={b"keys": b"select"}),
]
SCHEMA = pa.schema(_FIELDS)

Row = tuple[Any, ...]


def table(*rows: Row, schema: pa.Schema = SCHEMA) -> pa.Table:
    """Return rows as a table; times are given in microseconds."""
    columns = list(zip(*rows, strict=True)) or [() for _ in schema]
    return pa.table([pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)], schema=schema)


@cache
def _database() -> duckdb.DuckDBPyConnection:
    return duck.connect()  # costs more than most reads


def read(lake: LakeTables, name: str, version: int | None = None) -> list[Row]:
    """Return a version's rows ordered by `_seq`, as DuckDB reads them; times in microseconds."""
    with _database().cursor() as con:
        duck.register(con, "scanned", lake.scan(name, version))
        rows = con.execute('SELECT * REPLACE (epoch_us(scanned."at") AS "at") FROM scanned ORDER BY _seq').fetchall()
    return [tuple(row) for row in rows]


def _numbers(scan: TableScan) -> list[int]:
    with _database().cursor() as con:
        duck.register(con, "scanned", scan)
        return [number for (number,) in con.execute("SELECT _seq FROM scanned ORDER BY _seq").fetchall()]


def schema_of(lake: LakeTables, name: str) -> pa.Schema:
    schema = lake.scan(name).schema
    assert schema is not None
    return schema


A: Row = (0, 1.5, "a", 1_000_001, True)
B: Row = (1, None, "b", None, True)
C: Row = (2, 2.5, "ç'\"", -1, None)


class LakeTablesConformance:
    """Needs the fixture `lake`: an empty `LakeTables`, always the same one or another on the same storage."""

    def test_what_is_appended_is_read(self, lake: LakeTables) -> None:
        assert lake.append("flights", table(A, B).to_batches(), SCHEMA, key="one") == 0
        assert lake.append("flights", table(C).to_batches(), SCHEMA, key="two") == 1
        assert read(lake, "flights") == [A, B, C]
        assert schema_of(lake, "flights").equals(SCHEMA, check_metadata=True)
        assert lake.version("flights") == 1

    def test_a_version_never_changes(self, lake: LakeTables) -> None:
        lake.append("flights", table(A).to_batches(), SCHEMA, key="one")
        lake.rewrite("flights", table(B), pa.table({"_seq": [0], "_record_One": [False]}), "_seq", key="two")
        lake.replace("flights", table(C).to_batches(), SCHEMA, key="three")
        assert [read(lake, "flights", version) for version in range(3)] == [[A], [(*A[:4], False), B], [C]]

    def test_one_key_writes_once(self, lake: LakeTables) -> None:
        write: list[Callable[[str], int | None]] = [
            lambda key: lake.append("flights", table(A).to_batches(), SCHEMA, key=key),
            lambda key: lake.rewrite(
                "flights", table(B), pa.table({"_seq": [0], "_record_One": [False]}), "_seq", key=key
            ),
            lambda key: lake.replace("flights", table(C).to_batches(), SCHEMA, key=key),
        ]
        assert not lake.has("flights", "one")
        assert write[0]("one") == 0
        assert lake.has("flights", "one")
        assert not lake.has("flights", "two")
        assert not lake.has("weather", "one")
        assert [each("one") for each in write] == [None, None, None]
        assert lake.version("flights") == 0
        assert read(lake, "flights") == [A]

    def test_an_append_of_nothing_makes_the_table(self, lake: LakeTables) -> None:
        assert lake.append("flights", [], SCHEMA, key="one") == 0
        assert read(lake, "flights") == []
        assert lake.has("flights", "one")
        assert lake.append("flights", table(A).to_batches(), SCHEMA, key="two") == 1
        assert read(lake, "flights") == [A]

    def test_many_batches_are_one_version(self, lake: LakeTables) -> None:
        def batches() -> Iterator[pa.RecordBatch]:
            for number in range(20):
                yield from table((number, 0.0, "x", number, None)).to_batches()

        assert lake.append("flights", batches(), SCHEMA, key="one") == 0
        assert [row[0] for row in read(lake, "flights")] == list(range(20))

    def test_a_new_column_is_null_before(self, lake: LakeTables) -> None:
        wider = SCHEMA.append(pa.field("_record_Two", pa.bool_(), metadata={b"keys": b"at"}))
        lake.append("flights", table(A).to_batches(), SCHEMA, key="one")
        lake.append("flights", table((*B, True), schema=wider).to_batches(), wider, key="two")
        assert read(lake, "flights") == [(*A, None), (*B, True)]
        assert schema_of(lake, "flights").equals(wider, check_metadata=True)
        # A write without the column leaves it null.
        lake.append("flights", table(C).to_batches(), SCHEMA, key="three")
        assert read(lake, "flights") == [(*A, None), (*B, True), (*C, None)]

    def test_another_type_is_refused(self, lake: LakeTables) -> None:
        lake.append("flights", table(A).to_batches(), SCHEMA, key="one")
        other = SCHEMA.set(1, pa.field("depDelay", pa.float64()))
        with pytest.raises(InvalidData, match=r"'depDelay'.*float.*double"):
            lake.append("flights", table((9, 1.0, "x", 0, None), schema=other).to_batches(), other, key="two")
        assert read(lake, "flights") == [A]
        assert lake.version("flights") == 0

    def test_what_fails_while_it_is_written_leaves_nothing(self, lake: LakeTables) -> None:
        def broken() -> Iterator[pa.RecordBatch]:
            yield from table(B).to_batches()
            raise LookupError("the source went away")

        with pytest.raises(LookupError, match="went away"):
            lake.append("flights", broken(), SCHEMA, key="one")
        assert lake.tables() == []
        assert lake.version("flights") is None
        lake.append("flights", table(A).to_batches(), SCHEMA, key="two")
        with pytest.raises(LookupError, match="went away"):
            lake.append("flights", broken(), SCHEMA, key="one")
        assert read(lake, "flights") == [A]
        assert not lake.has("flights", "one")

    def test_rewrite_changes_what_matches_and_adds(self, lake: LakeTables) -> None:
        lake.append("flights", table(A, B).to_batches(), SCHEMA, key="one")
        changes = pa.table(
            {
                "_seq": pa.array([1, 0, 77], pa.int64()),  # 77 does not exist
                "_record_One": pa.array([False, None, False], pa.bool_()),
                "depDelay": pa.array([None, 7.5, 1.0], pa.float32()),
            }
        )
        assert lake.rewrite("flights", table(C), changes, "_seq", key="two") == 1
        assert read(lake, "flights") == [(0, 7.5, *A[2:]), (*B[:4], False), C]
        assert schema_of(lake, "flights").equals(SCHEMA, check_metadata=True)

    def test_rewrite_never_takes_a_new_row_for_an_old_one(self, lake: LakeTables) -> None:
        lake.append("flights", table(A).to_batches(), SCHEMA, key="one")
        lake.rewrite("flights", table(A), pa.table({"_seq": [0], "_record_One": [False]}), "_seq", key="two")
        assert sorted(row[4] for row in read(lake, "flights")) == [False, True]

    def test_rewrite_of_no_table_is_not_found(self, lake: LakeTables) -> None:
        with pytest.raises(NotFound):
            lake.rewrite("flights", table(A), pa.table({"_seq": [0], "_record_One": [False]}), "_seq", key="one")

    def test_replace_takes_the_place_of_all(self, lake: LakeTables) -> None:
        narrow = pa.schema([pa.field("_seq", pa.int64()), pa.field("at", INSTANT, metadata={b"keys": b"x"})])
        lake.append("flights", table(A, B).to_batches(), SCHEMA, key="one")
        assert lake.replace("flights", table((5, 6), schema=narrow).to_batches(), narrow, key="two") == 1
        assert read(lake, "flights") == [(5, 6)]
        assert schema_of(lake, "flights").equals(narrow, check_metadata=True)
        assert read(lake, "flights", 0) == [A, B]
        assert lake.replace("weather", table(A).to_batches(), SCHEMA, key="one") == 0

    def test_unknown_tables_and_versions_are_not_found(self, lake: LakeTables) -> None:
        assert lake.version("flights") is None
        with pytest.raises(NotFound, match="flights"):
            lake.scan("flights")
        lake.append("flights", table(A).to_batches(), SCHEMA, key="one")
        for version in (-1, 1):
            with pytest.raises(NotFound, match=str(version)):
                lake.scan("flights", version)

    @pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "-x", ".hidden", "a b", "x" * 129])
    def test_only_ids_name_tables(self, lake: LakeTables, name: str) -> None:
        with pytest.raises(Invalid):
            lake.append(name, table(A).to_batches(), SCHEMA, key="one")
        with pytest.raises(Invalid):
            lake.scan(name)
        assert lake.tables() == []

    def test_tables_are_sorted(self, lake: LakeTables) -> None:
        for name in ("weather", "flights", "Zeta.1", "flights__quarantine"):
            lake.append(name, table(A).to_batches(), SCHEMA, key="one")
        assert lake.tables() == ["Zeta.1", "flights", "flights__quarantine", "weather"]

    def test_vacuum_keeps_what_it_is_told_and_the_newest(self, lake: LakeTables) -> None:
        for number in range(4):
            lake.replace("flights", table((number, 0.0, "x", 0, True)).to_batches(), SCHEMA, key=f"{number}")
        would = lake.vacuum("flights", [1], dry_run=True)
        assert would > 0
        assert [len(read(lake, "flights", version)) for version in range(4)] == [1, 1, 1, 1]
        assert lake.readable("flights", range(5)) == [0, 1, 2, 3]
        assert lake.vacuum("flights", [1]) == would
        assert lake.readable("flights", range(5)) == [1, 3]
        assert lake.readable("nowhere", [0]) == []
        assert lake.vacuum("flights", [1]) == 0
        assert lake.version("flights") == 3
        assert [read(lake, "flights", version)[0][0] for version in (1, 3)] == [1, 3]
        for version in (0, 2):
            with pytest.raises(NotFound, match=f"not have version {version}"):
                lake.scan("flights", version)
        # Vacuumed versions stay gone; written keys stay written.
        assert lake.has("flights", "0")
        assert lake.append("flights", table(A).to_batches(), SCHEMA, key="later") == 4

    def test_rows_appended_since_a_version_are_told_where_nothing_else_happened(self, lake: LakeTables) -> None:
        for number in range(3):
            lake.append("flights", table((number, 0.0, "x", 0, True)).to_batches(), SCHEMA, key=f"{number}")
        found = [lake.appended("flights", since) for since in range(3)]
        assert [scan.version for scan in found if scan] == [2, 2, 2]
        assert [_numbers(scan) for scan in found if scan] == [[1, 2], [2], []]
        until = lake.appended("flights", 0, 1)
        assert until is not None
        assert (until.version, _numbers(until)) == (1, [1])
        lake.replace("flights", table((7, 0.0, "x", 0, True)).to_batches(), SCHEMA, key="other")
        assert lake.appended("flights", 2) is None
        with pytest.raises(NotFound):
            lake.appended("nowhere", 0)

    def test_expired_rows_are_gone_and_what_was_written_stays_written(self, lake: LakeTables) -> None:
        for number in range(4):
            row = (number, 0.0, "x", number * 1_000, True)
            lake.append("flights", table(row).to_batches(), SCHEMA, key=f"{number}")
        assert lake.expire("flights", "at", 2_000) == 2
        assert [row[0] for row in read(lake, "flights")] == [2, 3]
        version = lake.version("flights")
        assert lake.expire("flights", "at", 2_000) == 0
        lake.shorten("flights", 1, replaced_before=2**62)
        assert lake.version("flights") == version
        assert lake.append("flights", table(A).to_batches(), SCHEMA, key="0") is None
        assert [row[0] for row in read(lake, "flights")] == [2, 3]

    def test_erased_rows_are_in_no_version_and_what_was_written_stays_written(self, lake: LakeTables) -> None:
        hostile = ["%", "_", "x' OR '1'='1", 'a"b', "\\", "../x", "x;--", "ä\n\t", "42"]
        rows = [(number, 0.5, text, number * 1_000, True) for number, text in enumerate((*hostile, "x", None))]
        lake.append("flights", table(*rows).to_batches(), SCHEMA, key="one", marks={"at": 7})
        lake.append("flights", table((90, 0.0, "42", 0, True)).to_batches(), SCHEMA, key="two")
        left = [*rows, (90, 0.0, "42", 0, True)]
        would = lake.erase("flights", {"select": ["42"]}, dry_run=True)
        assert (would.rows, lake.version("flights"), len(read(lake, "flights", 0))) == (2, 1, 11)
        for text in hostile:
            found = lake.erase("flights", {"select": [text]})
            assert found.rows == (2 if text == "42" else 1), text
            left = [row for row in left if row[2] != text]
            assert sorted(read(lake, "flights")) == sorted(left), text
        newest = lake.version("flights")
        assert newest is not None
        assert lake.readable("flights", [0, 1, 2, newest]) == [newest]
        with pytest.raises(NotFound, match="vacuumed"):
            lake.scan("flights", 0)
        assert lake.describe("flights", 0).rows == 11
        assert lake.append("flights", table(A).to_batches(), SCHEMA, key="one") is None
        assert lake.marks("flights", ["at"]) == {"at": 7}
        assert lake.append("flights", table((91, 0.0, "%", 0, True)).to_batches(), SCHEMA, key="three") == newest + 1
        assert len(read(lake, "flights")) == 3

    def test_an_erasure_of_nothing_leaves_every_version(self, lake: LakeTables) -> None:
        for number in range(2):
            lake.append("flights", table((number, 0.0, "x", 0, True)).to_batches(), SCHEMA, key=f"{number}")
        wheres: tuple[dict[str, list[str | int | bool]], ...] = (
            {"select": ["y"]}, {"select": [1]}, {"_seq": ["0"]}, {"_seq": [2**70]}, {"nowhere": ["x"]}, {"select": []},
            {"select": ["x"], "_seq": [7]}, {"_record_One": [False]},
        )  # fmt: skip
        for where in wheres:
            assert not lake.erase("flights", where), where
        assert lake.version("flights") == 1
        assert lake.readable("flights", [0, 1]) == [0, 1]
        with pytest.raises(Invalid):
            lake.erase("flights", {})
        with pytest.raises(NotFound):
            lake.erase("nowhere", {"select": ["x"]})
        lake.replace("flights", table(A).to_batches(), SCHEMA, key="new")
        lake.forget("flights")
        assert lake.readable("flights", [0, 1, 2]) == [2]
        with pytest.raises(NotFound):
            lake.forget("nowhere")

    def test_rows_are_erased_by_several_columns_and_from_older_versions_alone(self, lake: LakeTables) -> None:
        for number in range(3):
            lake.append("flights", table((number, 0.0, "x", 1_000, True)).to_batches(), SCHEMA, key=f"{number}")
        found = lake.erase("flights", {"select": ["x"], "_seq": [1, 7], "at": [1_000], "_record_One": [True]})
        assert (found.rows, [row[0] for row in read(lake, "flights")]) == (1, [0, 2])
        lake.replace("flights", table((5, 0.0, "x", 0, True)).to_batches(), SCHEMA, key="new")
        found = lake.erase("flights", {"_seq": [0]})
        assert (found.rows, found.past > 0) == (0, True)
        assert [row[0] for row in read(lake, "flights")] == [5]
        assert lake.readable("flights", range(4)) == []
        assert not lake.erase("flights", {"_seq": [0]})

    def test_the_rows_of_a_span_are_folded_in_one_version(self, lake: LakeTables) -> None:
        for number in range(4):
            rows = table((number, float(number), "x", number * 1_000, True), (10 + number, 1.0, None, 5_000, False))
            lake.append("flights", rows.to_batches(), SCHEMA, key=f"{number}")
        version = lake.version("flights")
        seen: list[list[int]] = []

        def one(rows: pa.Table) -> pa.Table:
            numbers: list[Any] = rows["_seq"].to_pylist()
            seen.append(sorted(numbers))
            return table((99, 7.0, "y", 2_500, None))

        assert lake.fold("flights", "at", 1_000, 3_000, lambda _: None, key="none") is None
        assert (lake.version("flights"), lake.has("flights", "none")) == (version, False)
        folded = lake.fold("flights", "at", 1_000, 3_000, one, key="fold")
        assert (folded, seen) == (lake.version("flights"), [[1, 2]])
        assert [row[0] for row in read(lake, "flights")] == [0, 3, 10, 11, 12, 13, 99]
        assert [row[0] for row in read(lake, "flights", version)] == [0, 1, 2, 3, 10, 11, 12, 13]
        assert lake.fold("flights", "at", 0, 9_000, one, key="fold") is None
        assert len(seen) == 1
        assert lake.append("flights", table(A).to_batches(), SCHEMA, key="0") is None
        assert lake.fold("flights", "at", 5_000, 5_001, lambda rows: rows.slice(0, 1), key="again") is not None
        assert len(read(lake, "flights")) == 4
        assert lake.fold("flights", "at", 0, 9_000, lambda rows: rows.slice(0, 0), key="all") is not None
        assert read(lake, "flights") == []
        with pytest.raises(NotFound):
            lake.fold("nowhere", "at", 0, 1, one, key="fold")

    def test_nothing_of_a_sound_table_is_damaged_or_taken_back(self, lake: LakeTables) -> None:
        for number in range(2):
            lake.append("flights", table((number, 0.0, "x", 0, True)).to_batches(), SCHEMA, key=f"{number}")
        assert (lake.damage("flights"), lake.recover("flights")) == ([], False)
        assert (lake.damage("nowhere"), lake.recover("nowhere")) == ([], False)
        assert len(read(lake, "flights")) == 2

    def test_a_restore_makes_an_earlier_version_the_newest(self, lake: LakeTables) -> None:
        wider = SCHEMA.append(pa.field("gate", pa.int32(), metadata={b"x": b"y"}))
        lake.append("flights", table(A).to_batches(), SCHEMA, key="one")
        lake.append("flights", table((*B, 1), schema=wider).to_batches(), wider, key="two")
        lake.rewrite("flights", table((*C, 2), schema=wider), pa.table({"_seq": [0], "select": ["z"]}), "_seq", key="3")
        after = read(lake, "flights")
        assert lake.restore("flights", 0) == 3
        assert read(lake, "flights") == [A]
        assert schema_of(lake, "flights").equals(SCHEMA, check_metadata=True)
        assert read(lake, "flights", 2) == after
        assert lake.restore("flights", 2) == 4
        assert read(lake, "flights") == after
        assert schema_of(lake, "flights").equals(wider, check_metadata=True)
        assert lake.append("flights", table((*A, 3), schema=wider).to_batches(), wider, key="four") == 5
        assert len(read(lake, "flights")) == 4

    def test_a_restore_takes_back_what_was_written_later_and_nothing_else(self, lake: LakeTables) -> None:
        for number, key in enumerate(("one", "two", "three")):
            lake.append("flights", table((number, 0.0, "x", 0, True)).to_batches(), SCHEMA, key=key)

        def known() -> list[str]:
            return [key for key in ("one", "two", "three", "four") if lake.has("flights", key)]

        lake.restore("flights", 0)
        assert known() == ["one"]
        assert lake.append("flights", table(B).to_batches(), SCHEMA, key="one") is None
        assert lake.append("flights", table((7, 0.0, "x", 0, True)).to_batches(), SCHEMA, key="three") == 4
        assert lake.append("flights", table((8, 0.0, "x", 0, True)).to_batches(), SCHEMA, key="four") == 5
        assert [row[0] for row in read(lake, "flights")] == [0, 7, 8]
        # And forward again, to a version in which "three" was another write.
        lake.restore("flights", 2)
        assert known() == ["one", "two", "three"]
        assert [row[0] for row in read(lake, "flights")] == [0, 1, 2]
        lake.restore("flights", 5)
        assert known() == ["one", "three", "four"]
        assert lake.append("flights", table(B).to_batches(), SCHEMA, key="two") == 8

    def test_a_restore_of_what_is_there_makes_no_version(self, lake: LakeTables) -> None:
        lake.append("flights", table(A).to_batches(), SCHEMA, key="one")
        assert lake.restore("flights", 0) is None
        lake.append("flights", table(B).to_batches(), SCHEMA, key="two")
        assert lake.restore("flights", 0) == 2
        assert lake.restore("flights", 0) is None
        assert lake.restore("flights", 2) is None
        assert lake.version("flights") == 2
        # An empty write counts too: its key is reset.
        lake.append("flights", [], SCHEMA, key="empty")
        assert lake.restore("flights", 2) == 4
        assert not lake.has("flights", "empty")

    def test_a_restore_to_nothing_leaves_an_empty_table(self, lake: LakeTables) -> None:
        lake.append("flights", table(A).to_batches(), SCHEMA, key="one")
        assert lake.restore("flights", None) == 1
        assert read(lake, "flights") == []
        assert schema_of(lake, "flights").equals(SCHEMA, check_metadata=True)
        assert not lake.has("flights", "one")
        assert lake.restore("flights", None) is None
        assert lake.append("flights", table(B).to_batches(), SCHEMA, key="one") == 2
        assert read(lake, "flights") == [B]
        assert read(lake, "flights", 0) == [A]

    def test_a_restore_to_what_is_gone_changes_nothing(self, lake: LakeTables) -> None:
        with pytest.raises(NotFound):
            lake.restore("flights", None)
        for number in range(3):
            lake.replace("flights", table((number, 0.0, "x", 0, True)).to_batches(), SCHEMA, key=f"{number}")
        lake.vacuum("flights", [])
        for version in (0, 3):
            with pytest.raises(NotFound, match=f"not have version {version}"):
                lake.restore("flights", version)
        assert (lake.version("flights"), lake.has("flights", "2")) == (2, True)

    def test_a_version_is_described_without_its_rows(self, lake: LakeTables) -> None:
        with pytest.raises(NotFound):
            lake.describe("flights")
        lake.append("flights", table(A, B).to_batches(), SCHEMA, key="one")
        wider = SCHEMA.append(pa.field("gate", pa.int32()))
        lake.append("flights", table((*C, 2), schema=wider).to_batches(), wider, key="two")
        lake.restore("flights", 0)
        lake.append("flights", table(C).to_batches(), SCHEMA, key="three")
        lake.vacuum("flights", [])
        described = [lake.describe("flights", version) for version in range(4)]
        assert [each.version for each in described] == [0, 1, 2, 3]
        assert [each.rows for each in described] == [2, 3, 2, 3]
        assert [each.restored for each in described] == [None, None, 2, 2]
        assert described[1].schema.equals(wider, check_metadata=True)
        assert described[3].schema.equals(SCHEMA, check_metadata=True)
        assert lake.describe("flights") == described[3]
        assert len({frozenset(described[version].files) for version in (0, 1, 3)}) == 3
        assert all(each.files for each in described)
        for version in (-1, 4):
            with pytest.raises(NotFound, match=f"never had a version {version}"):
                lake.describe("flights", version)

    def test_marks_are_stored_with_the_rows(self, lake: LakeTables) -> None:
        names = ["p/0", "p/1", "p/2"]
        assert lake.marks("flights", names) == {}
        marks = {"p/0": 0, "p/1": 2**186 + 5}
        lake.append("flights", table(A).to_batches(), SCHEMA, key="one", marks=marks)
        assert lake.marks("flights", names) == marks
        assert lake.append("flights", table(B).to_batches(), SCHEMA, key="one", marks={"p/0": 9}) is None
        assert lake.marks("flights", names) == marks
        changes = pa.table({"_seq": [0], "_record_One": [False]})
        lake.rewrite("flights", table(B), changes, "_seq", key="two", marks={"p/0": 2**62 - 1, "p/2": 7})
        lake.append("flights", table(C).to_batches(), SCHEMA, key="three")
        assert lake.marks("flights", names) == {**marks, "p/0": 2**62 - 1, "p/2": 7}
        assert lake.marks("flights", ["p"]) == lake.marks("weather", names) == {}
        lake.append("flights", [], SCHEMA, key="four", marks={"p/1": 3, "p/0": 2**62})
        assert lake.marks("flights", names) == {"p/0": 2**62, "p/1": 3, "p/2": 7}

    def test_a_restore_takes_back_marks(self, lake: LakeTables) -> None:
        for number, mark in enumerate((5, 2**130, 7)):
            rows = table((number, 0.0, "x", 0, True)).to_batches()
            lake.append("flights", rows, SCHEMA, key=f"{number}", marks={"p": mark} if number else {"q": mark})
        lake.restore("flights", 1)
        assert lake.marks("flights", ["p", "q"]) == {"p": 2**130, "q": 5}
        lake.restore("flights", 0)
        assert lake.marks("flights", ["p", "q"]) == {"q": 5}
        lake.restore("flights", 2)
        assert lake.marks("flights", ["p", "q"]) == {"p": 7, "q": 5}
        lake.restore("flights", None)
        assert lake.marks("flights", ["p", "q"]) == {}

    def test_of_numbered_keys_the_newest_counts(self, lake: LakeTables) -> None:
        def put(number: int, rest: str = ".0.0") -> int | None:
            key = numbered("pay", number) + rest
            return lake.append("flights", table((number, 0.0, "x", 0, True)).to_batches(), SCHEMA, key=key)

        assert [put(1), put(2), put(2, ".0.1"), put(2, ".1.0"), put(10)] == [0, 1, 2, 3, 4]
        assert [put(1), put(2, ".0.9"), put(9), put(10)] == [None] * 4
        assert lake.has("flights", numbered("pay", 9) + ".0.0")
        assert not lake.has("flights", numbered("pay", 10) + ".0.1")
        assert not lake.has("flights", numbered("other", 1) + ".0.0")
        lake.restore("flights", 1)
        assert not lake.has("flights", numbered("pay", 2) + ".0.1")
        assert [put(2), put(2, ".0.1")] == [None, 6]

    def test_writers_at_once_with_one_key_write_once(self, lake: LakeTables) -> None:
        versions = together(lambda _: lake.append("flights", table(A).to_batches(), SCHEMA, key="one"))
        assert sorted(versions, key=str) == [0, None, None, None]
        assert read(lake, "flights") == [A]

    def test_writers_at_once_with_their_own_keys_all_write(self, lake: LakeTables) -> None:
        lake.append("flights", [], SCHEMA, key="made")

        def write(number: int) -> int | None:
            rows = table((number, 0.0, "x", 0, True))
            if number % 2:
                return lake.rewrite(
                    "flights", rows, pa.table({"_seq": [99], "_record_One": [False]}), "_seq", key=f"{number}"
                )
            return lake.append("flights", rows.to_batches(), SCHEMA, key=f"{number}")

        assert sorted(together(write), key=str) == [1, 2, 3, 4]
        assert [row[0] for row in read(lake, "flights")] == [0, 1, 2, 3]


def together(work: Callable[[int], int | None], threads: int = 4) -> list[int | None]:
    """Run `work(0)`, `work(1)`, ... concurrently, started by a barrier, and return their results."""
    start = threading.Barrier(threads)
    results: list[int | None] = [-1] * threads

    def run(number: int) -> None:
        start.wait()
        results[number] = work(number)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return results


def dataset_commit(number: int, parent: str | None = None) -> DatasetCommit:
    return DatasetCommit(f"{number:032x}", {"flights": number, "weather": 0}, parent, f"Day {number}", 1_000 + number)


class SnapshotsConformance:
    """Needs the fixture `snapshots`: an empty `Snapshots`."""

    def test_what_is_added_is_found(self, snapshots: Snapshots) -> None:
        first, second = dataset_commit(1), dataset_commit(2, dataset_commit(1).id)
        snapshots.add(first)
        snapshots.add(second)
        assert snapshots.get(first.id) == first
        assert snapshots.get(second.id) == second
        assert snapshots.log() == [second, first]
        assert snapshots.log(1) == [second]

    def test_adding_again_changes_nothing(self, snapshots: Snapshots) -> None:
        first, second = dataset_commit(1), dataset_commit(2)
        for commit in (first, second, DatasetCommit(first.id, {"other": 5}, None, "Other", 9)):
            snapshots.add(commit)
        assert snapshots.log() == [second, first]

    def test_a_tag_names_a_commit_and_moves(self, snapshots: Snapshots) -> None:
        first, second = dataset_commit(1), dataset_commit(2)
        snapshots.add(first)
        snapshots.add(second)
        snapshots.tag("live", first.id)
        assert snapshots.get("live") == first
        snapshots.tag("live", second.id)
        snapshots.tag("old", first.id)
        assert snapshots.get("live") == second
        assert snapshots.tags() == {"live": second.id, "old": first.id}
        snapshots.untag("live")
        snapshots.untag("live")
        assert snapshots.tags() == {"old": first.id}

    def test_an_id_is_never_shadowed_by_a_tag(self, snapshots: Snapshots) -> None:
        first, second = dataset_commit(1), dataset_commit(2)
        snapshots.add(first)
        snapshots.add(second)
        snapshots.tag(first.id, second.id)
        assert snapshots.get(first.id) == first

    def test_what_is_unknown_is_not_found(self, snapshots: Snapshots) -> None:
        with pytest.raises(NotFound, match="nothing"):
            snapshots.get("nothing")
        with pytest.raises(NotFound, match="nothing"):
            snapshots.tag("live", "nothing")
        assert snapshots.tags() == {}
        assert snapshots.log() == []

    @pytest.mark.parametrize("name", ["", "../x", "a b", "'"])
    def test_only_ids_name_tags(self, snapshots: Snapshots, name: str) -> None:
        snapshots.add(dataset_commit(1))
        with pytest.raises(Invalid):
            snapshots.tag(name, dataset_commit(1).id)

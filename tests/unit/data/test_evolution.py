"""A source that is declared anew over a table that is there: done to the table where nothing is lost, else refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mainspring.core.errors import InvalidData
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Boolean, Float32, Float64, Int32, Int64, Schema, String, Timestamp
from mainspring.core.time import ManualClock
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.arrow import ARROW_TYPES, times_of
from mainspring.data.ingest import Ingestor
from mainspring.data.model import IngestReport, Source, unique
from mainspring.data.ports import LakeTables

pytestmark = pytest.mark.slow

KEYINGS = {"one": ("name",)}


@pytest.fixture(params=["memory", "delta"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> LakeTables:
    return MemoryLake() if request.param == "memory" else DeltaLake(tmp_path)


def facts(schema: Schema, **more: Any) -> Source:
    return Source("facts", **{"schema": schema, "event_time": "at", **more})


def land(lake: LakeTables, source: Source, *rows: dict[str, Any], batch: str = "one") -> IngestReport:
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock())
    return ingestor.ingest(source, [{"at": at, **row} for at, row in enumerate(rows)], keyings=KEYINGS, batch_id=batch)


@cache
def database() -> duckdb.DuckDBPyConnection:
    return duck.connect()


def read(lake: LakeTables, *columns: str, version: int | None = None) -> list[tuple[Any, ...]]:
    with database().cursor() as con:
        duck.register(con, "scanned", lake.scan("facts", version))
        return con.sql(f"SELECT {', '.join(columns)} FROM scanned ORDER BY _seq").fetchall()


def kinds(lake: LakeTables) -> dict[str, Any]:
    schema = lake.scan("facts").schema
    assert schema is not None
    return {column.name: column.type for column in schema}


OLD = {"name": String, "seats": Int32, "delay": Float32}
ROWS = [{"name": "a", "seats": 2**31 - 1, "delay": 0.1}, {"name": "b", "seats": None, "delay": None}]


def test_a_new_column_is_null_in_what_is_there_and_changes_no_file(lake: LakeTables) -> None:
    land(lake, facts(OLD), *ROWS)
    before = lake.scan("facts")
    new = facts({**OLD, "gate": String, "opened": Timestamp})
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock())
    assert ingestor.needed(new, KEYINGS) == ("+ gate string", "+ opened timestamp[us, tz=UTC]")
    assert lake.version("facts") == 0
    assert ingestor.conform(new, KEYINGS) == ("+ gate string", "+ opened timestamp[us, tz=UTC]")
    assert (ingestor.needed(new, KEYINGS), ingestor.conform(new, KEYINGS), lake.version("facts")) == ((), (), 1)
    assert lake.scan("facts").files == before.files
    assert read(lake, "name", "gate") == [("a", None), ("b", None)]
    report = land(lake, new, {**ROWS[0], "gate": "G", "opened": 5}, batch="two")
    assert report.changed == ()
    assert read(lake, "name", "gate") == [("a", None), ("b", None), ("a", "G")]


def test_a_wider_type_is_given_to_every_row(lake: LakeTables) -> None:
    land(lake, facts(OLD), *ROWS)
    new = facts({**OLD, "seats": Int64, "delay": Float64})
    report = land(lake, new, {"name": "c", "seats": 2**40, "delay": 0.1}, batch="two")
    assert report.changed == ("seats int32 -> int64", "delay float -> double")
    single = 0.10000000149011612  # what 0.1 was, when it was a Float32
    assert read(lake, "name", "seats", "delay", "_record_one") == [
        ("a", 2**31 - 1, single, True),
        ("b", None, None, True),
        ("c", 2**40, 0.1, True),
    ]
    assert {name: kinds(lake)[name] for name in ("seats", "delay")} == {
        "seats": ARROW_TYPES[Int64],
        "delay": ARROW_TYPES[Float64],
    }
    assert read(lake, "seats", version=0) == [(2**31 - 1,), (None,)]
    # A correction changes the flag of a row that was widened, and a batch from before is still known.
    land(lake, new, {"name": "a", "seats": 1, "delay": 0.0}, batch="three")
    assert read(lake, "name", "_record_one") == [("a", False), ("b", True), ("c", True), ("a", True)]
    assert land(lake, new, *ROWS).already == 2


def test_new_columns_wider_types_and_new_flags_at_once(lake: LakeTables) -> None:
    land(lake, facts(OLD), *ROWS)
    new = facts({**OLD, "seats": Int64, "gate": String}, checks=[unique("gate")])
    keyings = {**KEYINGS, "two": ("gate", "seats")}
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock())
    lines = ("seats int32 -> int64", "+ gate string", "+ _record_two for gate, seats")
    assert ingestor.needed(new, keyings) == lines
    assert ingestor.conform(new, keyings) == lines
    assert read(lake, "name", "gate", "_record_two") == [("a", None, False), ("b", None, False)]


def test_what_is_no_longer_declared_stays_and_comes_back(lake: LakeTables) -> None:
    land(lake, facts(OLD), *ROWS)
    less = facts({"name": String, "seats": Int32})
    report = land(lake, less, {"name": "c", "seats": 1}, batch="two")
    assert report.changed == ()
    assert [delay for _, delay in read(lake, "name", "delay")][1:] == [None, None]
    land(lake, facts(OLD), {"name": "d", "seats": 1, "delay": 2.5}, batch="three")
    assert read(lake, "delay")[2:] == [(None,), (2.5,)]
    # With another type it does not come back.
    with pytest.raises(InvalidData, match="'delay' of table 'facts' is float, not string"):
        land(lake, facts({**OLD, "delay": String}), batch="four")


def test_a_key_that_is_no_longer_declared_has_nothing_of_what_lands(lake: LakeTables) -> None:
    """As when the tutorial's source takes the place of the scaffolding's, of the same name, that was tried first."""
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock(9))

    def lands(source: Source, keyings: dict[str, tuple[str, ...]], at: int, row: dict[str, Any]) -> None:
        report = ingestor.ingest(source, [{"at": at, **row}], keyings=keyings, batch_id=str(at))
        assert (report.rows, report.warnings) == (1, ())

    named, gated = {"one": ("name",)}, {"two": ("gate",)}
    lands(facts(OLD), named, 0, {"name": "a", "seats": 1, "delay": 0.5})
    for at in (2, 3):
        lands(facts({"gate": String}), gated, at, {"gate": "x"})
    flags = [("a", None, True, False), (None, "x", False, True), (None, "x", False, True)]
    assert read(lake, "name", "gate", "_record_one", "_record_two") == flags
    # It is declared again: what landed without it takes no part, and changes of earlier flags are made again.
    both = {"name": "a", "seats": 2, "delay": 0.5, "gate": "x"}
    lands(facts({**OLD, "gate": String}), {**named, **gated}, 1, both)
    assert read(lake, "_record_one", "_record_two") == [(True, False), (False, True), (False, True), (True, True)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seats": String}, "'seats' of table 'facts' is int32, not string"),
        ({"seats": Float64}, "'seats' of table 'facts' is int32, not double"),
        ({"delay": Int32}, "'delay' of table 'facts' is float, not int32"),
        ({"name": Boolean}, "'name' of table 'facts' is string, not bool"),
        ({"Seats": Int32}, "declares 'Seats', but its table has 'seats'"),
    ],
)
def test_another_type_is_refused_with_the_way_out(lake: LakeTables, change: Schema, said: str) -> None:
    land(lake, facts(OLD), *ROWS)
    schema = {name: kind for name, kind in OLD.items() if name.casefold() != next(iter(change)).casefold()}
    with pytest.raises(InvalidData, match=said) as caught:
        land(lake, facts({**schema, **change}), {**ROWS[0], **dict.fromkeys(change)}, batch="two")
    assert "declare" in str(caught.value.fix)
    assert lake.version("facts") == 0


def test_a_narrower_type_is_refused(lake: LakeTables) -> None:
    land(lake, facts({**OLD, "seats": Int64}), *ROWS)
    with pytest.raises(InvalidData, match="is int64, not int32"):
        land(lake, facts(OLD), *ROWS, batch="two")


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ({"event_time": "seen"}, "ingested with the times at, but the source declares seen"),
        ({"event_time": "at", "recorded_time": "seen"}, "with the times at, but .* declares at, seen"),
        ({"event_time": "other"}, "has no column 'other'"),
    ],
)
def test_other_times_are_refused(lake: LakeTables, times: dict[str, str], said: str) -> None:
    """The column is there, so only what the table remembers can tell that rows were ranked by another."""
    land(lake, facts({"name": String, "seen": Timestamp}), {"name": "a", "seen": 9})
    with pytest.raises(InvalidData, match=said) as caught:
        land(lake, facts({"name": String}, **times), *({"name": "a", name: 1} for name in times.values()), batch="two")
    assert "another name, and ingest its data again" in str(caught.value.fix)
    assert lake.version("facts") == 0


def test_a_table_remembers_its_times_whatever_is_done_to_it(lake: LakeTables) -> None:
    source = facts(OLD, recorded_time="seen")
    land(lake, source, *({**row, "seen": 3} for row in ROWS))
    new = facts({**OLD, "seats": Int64}, recorded_time="seen")
    land(lake, new, *({**row, "seen": 3} for row in ROWS), batch="two")
    Ingestor(lake, MemoryLocks(), ManualClock()).conform(new, {"two": ("seats",)})
    lake.restore("facts", 0)
    for version in range((lake.version("facts") or 0) + 1):
        schema = lake.scan("facts", version).schema
        assert schema is not None
        assert times_of(schema) == ("at", "seen")

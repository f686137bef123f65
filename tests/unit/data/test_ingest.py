"""Landing: nothing twice, nothing lost, every failing row in the quarantine with all its reasons."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit.depth import examples
from kit.landing import ROW, Landing, source
from mainspring.core.errors import Conflict, Invalid, InvalidData
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Float32, Float64, Int32, Int64, String
from mainspring.core.time import DAY, HOUR, ManualClock, to_datetime
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.arrow import INSTANT
from mainspring.data.ingest import Ingestor
from mainspring.data.landing import LOAD_ROWS
from mainspring.data.model import Check, IngestReport, Source, fresh, in_range, not_null, one_of, unique

pytestmark = pytest.mark.slow


def fact(at: int, **values: Any) -> dict[str, Any]:
    return {**ROW, "at": at, **values}


def test_our_columns() -> None:
    declared = source(recorded_time="recorded", lag="2s", schema={"name": String})
    landing = Landing(declared)
    landing.ingest(
        [{"at": 9_000_000, "recorded": 1, "name": "a"}, {"at": 5, "recorded": 7, "name": None}], batch_id="x"
    )
    first, second = landing.landed()
    assert (first["_visible_at"], second["_visible_at"]) == (to_datetime(9_000_000), to_datetime(2_000_007))
    assert (first["_seq"], second["_seq"]) == (0, 1)
    assert first["_batch"] == second["_batch"] == "x.0"


def test_sequence_numbers_grow_from_batch_to_batch() -> None:
    landing = Landing()
    for batch in range(3):
        landing.ingest([fact(-batch), fact(5)])
    assert [row["_seq"] for row in landing.landed()] == [
        0,
        1,
        *(LOAD_ROWS + n for n in (0, 1)),
        *(2 * LOAD_ROWS + n for n in (0, 1)),
    ]
    assert [row["at"] for row in landing.landed()] == [to_datetime(at) for at in (0, 5, -1, 5, -2, 5)]


def test_rows_of_a_version_are_in_the_order_in_which_they_became_visible() -> None:
    landing = Landing()
    landing.ingest([fact(3), fact(1), fact(2)])
    rows = landing.lake.scan("facts").rows
    assert rows["at"].to_pylist() == [to_datetime(at) for at in (1, 2, 3)]
    assert rows["_seq"].to_pylist() == [1, 2, 0]


@pytest.mark.parametrize("lateness", [60, 90_000])
def test_many_rows_land_alike_whether_they_are_sorted_or_not(lateness: int) -> None:
    """In one version they may stay as they came, in several they are sorted."""
    chance = np.random.default_rng(0)
    at = np.arange(100_000)
    known = at + np.where(chance.random(len(at)) < 0.02, lateness, 0)
    rows = pa.table(
        {
            "at": pa.array(at).cast(INSTANT),
            "known": pa.array(known).cast(INSTANT),
            "key": pa.array(chance.integers(0, 1_000, len(at))),
        }
    )
    source = Source("facts", schema={"key": Int64}, event_time="at", recorded_time="known")
    landed = []
    for batch_rows in (1 << 20, 30_000):
        lake = MemoryLake()
        ingestor = Ingestor(lake, MemoryLocks(), ManualClock(1_000_000), batch_rows)
        ingestor.ingest(source, rows, keyings={"key": ("key",)}, batch_id="x")
        landed.append(lake.scan("facts").rows)
    one, several = landed
    assert one.sort_by("_seq").equals(several.sort_by("_seq"))
    visible = several["_visible_at"].cast(pa.int64()).to_numpy()
    assert (np.diff(visible) >= 0).all()
    assert one["_seq"].to_pylist() == (list(range(100_000)) if lateness == 60 else several["_seq"].to_pylist())


@pytest.mark.parametrize("again", ["the same rows", "another iterable", "cut differently"])
def test_the_same_batch_twice_changes_nothing(again: str) -> None:
    landing = Landing(batch_rows=2)
    rows = [fact(at, name=None if at % 2 else "") for at in range(5)]
    first = landing.ingest(rows)
    landed = landing.landed()
    second = landing.ingest(
        {"the same rows": rows, "another iterable": (dict(row) for row in rows), "cut differently": rows}[again]
    )
    assert (first.rows, first.already, second.rows, second.already) == (5, 0, 0, 5)
    assert second.version == first.version
    assert landing.landed() == landed


def test_a_table_cut_differently_is_the_same_batch() -> None:
    table = pa.table({"at": pa.array(range(9), pa.timestamp("us", "UTC")), "name": ["x", None, "y"] * 3})
    landing = Landing(source(schema={"name": String}))
    landing.ingest(table)
    sliced = pa.concat_tables([table.slice(0, 2), table.slice(2, 3), table.slice(5)])
    assert landing.ingest(sliced).already == 9
    assert landing.ingest(table.slice(1)).rows == 8
    assert landing.ingest(table.set_column(1, "name", [["x", "", "y"] * 3])).rows == 9


def test_a_file_is_known_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    table = pa.table({"at": pa.array([1, 2], pa.timestamp("us", "UTC")), "name": ["x", "y"]})
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table, tmp_path / "b.parquet")
    landing = Landing(source(schema={"name": String}))
    assert landing.ingest(tmp_path / "a.parquet").rows == 2
    assert landing.ingest(tmp_path / "b.parquet").already == 2


def test_a_batch_id_takes_the_place_of_the_content() -> None:
    landing = Landing()
    assert landing.ingest([fact(1)], batch_id="monday").rows == 1
    assert landing.ingest([fact(1)], batch_id="tuesday").rows == 1
    assert landing.ingest([fact(7)], batch_id="monday").already == 1
    assert len(landing.landed()) == 2


def test_a_batch_with_quarantined_rows_twice_changes_nothing() -> None:
    landing = Landing(source(checks=[not_null("name")]))
    rows = [fact(1), fact(2, name=None), fact(3, small="x")]
    assert (landing.ingest(rows).rows, landing.ingest(rows).already) == (1, 3)
    assert len(landing.quarantined()) == 2
    # Also where nothing of it landed.
    bad = [fact(4, name=None)]
    assert (landing.ingest(bad).quarantined, landing.ingest(bad).already) == (1, 1)
    assert len(landing.quarantined()) == 3


def test_a_row_has_all_its_reasons() -> None:
    checks = [
        not_null("name", "small"),
        in_range("single", 0, 1),
        in_range("big", high=10),
        one_of("name", ["a", "it's"]),
        unique("double"),
    ]
    landing = Landing(source(checks=checks))
    report = landing.ingest(
        [
            fact(1),
            fact(2, name="it's", double=1.0, single=0, big=10),
            fact(3, name=None, small=None, single=1.5, big=11, double=2.0),
            fact(None, name="b", single=math.nan),
            fact(5, small="x", single="y", double=3.0),
            fact(6, double=0.25),
            fact(7, name="a", big=None, single=None, double=None),
            fact(8, name="a", big=None, single=None, double=None),
        ]
    )
    assert [row["_seq"] for row in landing.landed()] == [0, 1, 6, 7]
    assert [row["_reason"] for row in landing.quarantined()] == [
        "fails not_null(name, small); fails single in [0, 1]; fails big in [-inf, 10]",
        'at is null; fails single in [0, 1]; fails name one of "a", "it\'s"',
        "small is not an int32; single is not a float32",
        "fails unique(double)",
    ]
    assert report.quarantined == 4
    assert report.reasons["fails single in [0, 1]"] == 2
    assert sum(report.reasons.values()) == 9
    assert landing.quarantined()[2]["single"] == "y"


@pytest.mark.parametrize(
    ("dtype", "low", "high", "passing", "failing"),
    [
        (Float64, 0.1, 0.3, [0.1, 0.3, None], [0.09999999999999999, 0.30000000000000004, math.nan, math.inf]),
        (Float32, 0.5, None, [0.5, math.inf, None], [0.4999, math.nan, -math.inf]),
        (Float32, None, None, [1.0, math.inf], [math.nan]),
        (Int32, -1.5, 2, [-1, 2, None], [-2, 3]),
        (Int64, 0, None, [0, 2**62], [-1]),
    ],
)
def test_ranges_hold_their_ends_and_never_a_nan(
    dtype: Any, low: float | None, high: float | None, passing: list[Any], failing: list[Any]
) -> None:
    landing = Landing(source(schema={"value": dtype}, checks=[in_range("value", low, high)]))
    report = landing.ingest([{"at": at, "value": value} for at, value in enumerate(passing + failing)])
    assert (report.rows, report.quarantined) == (len(passing), len(failing))


@pytest.mark.parametrize(
    ("values", "passing", "failing"),
    [(["EWR", "'; DROP TABLE"], ["EWR", "'; DROP TABLE", None], ["ewr", ""]), ([], [None], ["x"])],
)
def test_one_of_a_set(values: list[Any], passing: list[Any], failing: list[Any]) -> None:
    landing = Landing(source(schema={"value": String}, checks=[one_of("value", values)]))
    report = landing.ingest([{"at": at, "value": value} for at, value in enumerate(passing + failing)])
    assert (report.rows, report.quarantined) == (len(passing), len(failing))


@pytest.mark.parametrize(
    ("column", "landed", "coming", "new"),
    [
        ("name", ["a\0", "é"], ["e", "a\0"], 1),
        ("flag", [True, None], [False, None], 2),
        ("small", [-3, 7], [7, 2], 1),
        ("single", [0.1, math.inf], [0.1, math.nan], 1),
        ("double", [math.nan, 0.0], [-0.0, math.nan], 0),
        ("other", ["2013-07-01T00:00:00.000001Z", None], ["2013-07-01T02:00:00.000001+02:00", None], 1),
    ],
)
def test_a_unique_value_of_any_type_is_known_again(column: str, landed: list[Any], coming: list[Any], new: int) -> None:
    landing = Landing(source(checks=[unique(column)]))
    assert landing.ingest([fact(1, **{column: value}) for value in landed]).rows == 2
    assert landing.ingest([fact(2, **{column: value}) for value in coming]).rows == new


def test_unique_is_among_all_that_landed() -> None:
    landing = Landing(source(checks=[unique("name", "small"), not_null("double")]))
    assert landing.ingest([fact(9), fact(1, small=2), fact(0)]).rows == 2  # the first to come, not the earliest
    assert landing.ingest([fact(5, small=2), fact(6, small=3, double=None), fact(7, small=3)]).rows == 1
    assert landing.ingest([fact(8, small=None), fact(8, small=None)]).rows == 2  # a null agrees with nothing
    assert [row["small"] for row in landing.landed()] == [1, 2, 3, None, None]
    assert [row["at"] for row in landing.landed()][:2] == [to_datetime(9), to_datetime(1)]


@pytest.mark.parametrize(
    "checks",
    [
        [in_range("name", 0, 1)],
        [one_of("name", [1])],
        [one_of("small", ["1"])],
        [one_of("small", [True])],
        [one_of("flag", [1])],
        [not_null("nothing")],
        [Check("unheard_of", ("name",))],
    ],
)
def test_checks_that_cannot_be_are_refused_when_declared(checks: list[Check]) -> None:
    with pytest.raises(Invalid):
        source(checks=checks)


def test_old_data_is_a_warning() -> None:
    landing = Landing(source(checks=[fresh("1h")]), now=DAY)
    assert landing.ingest([]).warnings == ("facts has no events yet.",)
    assert landing.ingest([fact(DAY - HOUR)]).warnings == ()
    landing.clock.advance(1)
    (warning,) = landing.ingest([fact(0)]).warnings
    assert warning == "The newest event of facts is 1h 1us old, more than 1h."
    assert len(landing.landed()) == 2


def test_progress_counts_every_row_once() -> None:
    calls: list[tuple[int, int | None]] = []
    landing = Landing(source(checks=[not_null("name")]), batch_rows=2)
    rows = [fact(at, name="a" if at % 3 else None) for at in range(9)]
    landing.ingest(rows, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(3, 9), (5, 9), (7, 9), (9, 9)]
    calls.clear()
    landing.ingest(iter(rows), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(9, None)]


def test_nothing_makes_an_empty_table() -> None:
    landing = Landing()
    report = landing.ingest([], keyings={"one": ("name",)})
    assert (report.rows, report.version) == (0, 0)
    assert landing.ingest([]).version == 0
    assert "_record_one" in landing.lake.scan("facts").schema.names


def test_a_load_that_ends_in_the_middle_goes_on() -> None:
    class Dying(MemoryLake):
        """A lake that gives out after some writes."""

        left = 99

        def append(self, table: str, *arguments: Any, **options: Any) -> int | None:
            self.left -= 1
            if self.left < 0:
                raise OSError("gone")
            return super().append(table, *arguments, **options)

    declared = source(checks=[not_null("name"), unique("big")])
    rows = [fact(-at, name=None if at % 7 == 3 else "a", big=at % 20) for at in range(40)]
    whole = Landing(declared, batch_rows=3, load_rows=16)
    whole.lake = Dying()
    whole.ingestor = Ingestor(whole.lake, MemoryLocks(), whole.clock, 3, load_rows=16)
    whole.ingest(rows, keyings={"one": ("name",)})
    writes = 99 - whole.lake.left
    assert writes > 8
    for after in range(0, writes, examples(gate=2, deep=1)):
        lake = Dying()
        landing = Landing(declared, batch_rows=3, load_rows=16)
        landing.lake = lake
        lake.left = after
        with pytest.raises(OSError, match="gone"):
            Ingestor(lake, MemoryLocks(), landing.clock, 3, load_rows=16).ingest(
                declared, rows, keyings={"one": ("name",)}
            )
        lake.left = 99
        there = len(landing.landed()) + len(landing.quarantined())
        # It is resumed with another size of batches, and says what was there.
        report = Ingestor(lake, MemoryLocks(), landing.clock, 5, load_rows=16).ingest(
            declared, rows, keyings={"one": ("name",)}
        )
        assert report.already == there
        assert report.rows + report.quarantined + report.already == 40
        assert landing.landed() == whole.landed()
        assert landing.quarantined() == whole.quarantined()


@pytest.mark.parametrize("their_batch_rows", [3, 5])
def test_whoever_is_overtaken_by_the_same_batch_goes_on_from_there(their_batch_rows: int) -> None:
    """Where no lock keeps two ingestions apart: another one lands some or all of it just before one of our writes."""

    class Overtaken(MemoryLake):
        left = -1

        def append(self, table: str, *arguments: Any, **options: Any) -> int | None:
            self.left -= 1
            if self.left == -1:
                theirs = Ingestor(self, MemoryLocks(), Landing().clock, their_batch_rows, load_rows=16)
                them.append(theirs.ingest(declared, rows, keyings={"one": ("name",)}))
            return super().append(table, *arguments, **options)

    declared = source(checks=[not_null("name"), unique("big")])
    rows = [fact(-at, name=None if at % 7 == 3 else "a", big=at % 20) for at in range(40)]
    whole = Landing(declared, batch_rows=3, load_rows=16)
    whole.ingest(rows, keyings={"one": ("name",)})
    for before in range(0, 8, examples(gate=2, deep=1)):
        them: list[IngestReport] = []
        landing = Landing(declared)
        landing.lake = lake = Overtaken()
        lake.left = before
        ours = Ingestor(lake, MemoryLocks(), landing.clock, 3, load_rows=16).ingest(
            declared, rows, keyings={"one": ("name",)}
        )
        (their,) = them
        assert landing.landed() == whole.landed()
        assert landing.quarantined() == whole.quarantined()
        assert ours.rows + ours.quarantined + ours.already == 40
        assert (ours.rows + their.rows, ours.quarantined + their.quarantined) == (
            len(whole.landed()),
            len(whole.quarantined()),
        )


def test_another_batch_between_does_no_harm() -> None:
    declared = source(schema={"name": String})
    landing = Landing(declared, batch_rows=2)
    landing.ingest([{"at": at, "name": "a"} for at in (5, 1, 4, 2)], batch_id="one")
    table = landing.lake.scan("facts").rows
    half = MemoryLake()  # as it is after the first chunk of "one"
    half.append("facts", table.slice(0, 2).to_batches(), table.schema, key="one.0.0")
    landing.lake = half
    landing.ingestor = Ingestor(half, MemoryLocks(), landing.clock, 2)
    assert landing.ingest([{"at": 9, "name": "b"}], batch_id="two").rows == 1
    report = landing.ingest([{"at": at, "name": "a"} for at in (5, 1, 4, 2)], batch_id="one")
    assert (report.rows, report.already) == (2, 2)
    assert [(row["_seq"], row["at"]) for row in landing.landed()] == [
        *((number, to_datetime(at)) for number, at in enumerate((5, 1, 4, 2))),
        (LOAD_ROWS, to_datetime(9)),
    ]


def test_a_column_that_comes_later_is_null_before() -> None:
    landing = Landing(source(schema={"name": String}))
    landing.ingest([{"at": 1, "name": "a"}], keyings={"one": ("name",)})
    landing.source = source(schema={"name": String, "more": Int32}, checks=[unique("name", "more")])
    keyings = {"one": ("name",), "two": ("name", "more")}
    landing.ingest([{"at": 2, "name": "a", "more": 1}, {"at": 3, "name": "a", "more": 1}], keyings=keyings)
    assert [(row["more"], row["_record_one"], row["_record_two"]) for row in landing.landed()] == [
        (None, True, False),
        (1, True, True),
    ]


def test_a_column_of_another_type_is_refused() -> None:
    landing = Landing(source(schema={"name": String}))
    landing.ingest([{"at": 1, "name": "a"}])
    landing.source = source(schema={"name": Int32})
    with pytest.raises(InvalidData, match="'name' of table 'facts' is string, not int32"):
        landing.ingest([{"at": 1, "name": 1}])
    landing.source = Source("facts", schema={"name": String}, event_time="later")
    with pytest.raises(InvalidData, match="'facts' has no column 'later'"):
        landing.ingest([{"later": 1, "name": "a"}])


def test_names_that_sql_knows_are_only_names() -> None:
    words = ["select", "kept", "raw", "typed", "first", "rank", "counts", "group", "reason", "why", "since", "landed"]
    declared = Source(
        "order",
        schema=dict.fromkeys(words, String),
        event_time="at",
        recorded_time="timestamp",
        checks=[not_null("group"), unique("first", "rank"), one_of("why", ["x", "y"])],
    )
    landing = Landing(declared)
    row = {"at": 1, "timestamp": 2, **dict.fromkeys(words, "x")}
    rows = [row, {**row, "first": "b", "why": "z"}, {**row, "rank": "c", "at": 0}, row]
    report = landing.ingest(rows, keyings={"table": ("group", "select"), "Not-an_identifier.1": ("since",)})
    assert (report.rows, report.quarantined) == (2, 2)
    assert [row["_record_table"] for row in landing.landed()] == [True, False]
    report = landing.ingest([{**row, "first": "d", "at": 2}], keyings={})
    assert [row["_record_Not-an_identifier.1"] for row in landing.landed()] == [False, False, True]
    assert landing.ingestor.conform(declared, {"user": ("kept", "raw")}) == ("+ _record_user for kept, raw",)
    assert landing.lake.version("order") == report.version + 1
    assert [row["_record_user"] for row in landing.landed()] == [False, False, True]


def test_keyings_are_checked() -> None:
    landing = Landing()
    for keyings in ({"one": ("nothing",)}, {"one": ()}, {"One": ("name",), "one": ("name",)}):
        with pytest.raises(Invalid, match="one"):
            landing.ingest([fact(1)], keyings=keyings)
    assert landing.lake.tables() == []


def test_a_keying_with_other_columns_is_computed_anew() -> None:
    def flags() -> list[bool]:
        return [row["_record_one"] for row in landing.landed()]

    landing = Landing()
    landing.ingest([fact(1), fact(1, name="b")], keyings={"one": ("name",)})
    assert flags() == [True, True]
    landing.ingest([fact(1, name="b", small=2)], keyings={"one": ("small",)})
    assert flags() == [False, True, True]
    assert landing.ingestor.conform(landing.source, {"one": ("name",)}) == ("+ _record_one for name",)
    assert flags() == [True, False, True]
    landing.ingest([fact(1, name="a", small=2)], keyings={})
    assert flags() == [False, False, True, True]
    assert landing.ingestor.conform(landing.source, {"one": ("name",)}) == ()
    assert landing.ingestor.conform(Source("other", schema={"x": String}, event_time="at"), {"x": ("x",)}) == ()


def test_two_cannot_land_one_source_at_once() -> None:
    locks = MemoryLocks()
    landing = Landing()
    landing.ingestor = Ingestor(landing.lake, locks, landing.clock, wait_s=0.01)
    with locks.hold("ingest.facts"), pytest.raises(Conflict, match="is in use by another thread"):
        landing.ingest([fact(1)])
    assert landing.ingest([fact(1)]).rows == 1


_WITHOUT_PANDAS = """
import sys
from pathlib import Path

from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import String
from mainspring.core.time import SystemClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source

facts = Source("facts", schema={"name": String}, event_time="at")
for _ in range(2):
    ingestor = Ingestor(DeltaLake(Path(sys.argv[1])), MemoryLocks(), SystemClock(), many_rows=1)
    for batch in ("a", "b"):
        ingestor.ingest(facts, sys.argv[2], keyings={"name": ("name",)}, batch_id=batch)
sys.exit("pandas" in sys.modules)
"""


def test_a_file_lands_without_pandas(tmp_path: Path) -> None:
    rows = pa.table({"at": pa.array([1, 2], pa.timestamp("us", tz="UTC")), "name": ["a", None]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    command = [sys.executable, "-c", _WITHOUT_PANDAS, str(tmp_path / "lake"), str(tmp_path / "rows.parquet")]
    subprocess.run(command, check=True)

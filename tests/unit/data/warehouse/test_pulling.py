"""Each row of a warehouse's table is in the source's table once, however it was committed and wherever a pull dies."""

import itertools
import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import deep, examples
from kit.pulls import INSTANTS, NOW, NUMBERS, PARCELS, Depot, House, check_pull_store, check_pulls
from mainspring.core.errors import Conflict, Corrupt, Invalid, InvalidData
from mainspring.core.schema import Int64, String
from mainspring.core.time import DAY
from mainspring.data.adapters.pulls_catalog import CatalogPulls
from mainspring.data.adapters.warehouse_duckdb import DuckdbWarehouse
from mainspring.data.model import Source
from mainspring.data.warehouse.pulled import as_mark, as_position
from mainspring.project.catalog import memory_catalog

pytestmark = pytest.mark.slow


TESTS = Path(__file__).resolve().parents[3]


class Dead(Exception): ...


class Dying:
    """Passes calls on, and dies before or after one of the writes."""

    WRITES = ("append", "rewrite", "record", "keep", "deem_known", "shed")

    def __init__(self, counter: list[int], of: Any, *, after: bool) -> None:
        self._counter, self._of, self._after = counter, of, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._of, name)
        if name not in self.WRITES:
            return method

        def write(*args: Any, **named: Any) -> Any:
            self._counter[0] -= 1
            if self._counter[0] == 0 and not self._after:
                raise Dead
            found = method(*args, **named)
            if self._counter[0] == 0:
                raise Dead
            return found

        return write


def dying_at(write: int, *, after: bool) -> tuple[list[int], Any]:
    counter = [write]
    return counter, lambda of: Dying(counter, of, after=after)


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "depot.db")


ROWS = [(parcel, 10 * (parcel // 4)) for parcel in (*range(30), 2_000, 2_001)]
FEW = [(parcel, 10 * (parcel // 4)) for parcel in (*range(10), 2_000)]


@pytest.mark.parametrize("kind", [INSTANTS, NUMBERS])
def test_rows_come_once_in_their_order(tmp_path: Path, kind: str) -> None:
    house = House(Depot(tmp_path / "depot.db", kind), lateness="100us" if kind == INSTANTS else "100")
    house.depot.add(reversed(ROWS))
    first = house.pull(batch_rows=7)
    assert (first.read, first.rows, first.quarantined, first.known, first.batches) == (32, 30, 2, 0, 5)
    assert first.reasons == {"fails parcel in [0, 1000]": 2}
    rows = house.lake.scan("parcels").rows
    assert rows is not None
    came = rows.sort_by("_seq")["parcel"].to_pylist()
    assert [each // 4 for each in came] == [each // 4 for each in range(30)]
    again = house.pull()
    assert (again.rows, again.quarantined, again.batches, again.version) == (0, 0, 0, first.version)
    assert again.known == again.read > 0
    assert again.until == first.until
    house.depot.add([(3, 0), (31, 4_950), (31, 5_050)])
    later = house.pull()
    assert (later.rows, later.batches) == (2, 1)  # parcel 3 arrived before the lateness
    assert house.parcels() == Counter([*range(30), 2_000, 2_001, 31, 31])


def test_the_statements_of_bigquery_mean_the_same(tmp_path: Path) -> None:
    class Translated(DuckdbWarehouse):
        dialect = "bigquery"

        def read(self, statement: str) -> Any:
            (translated,) = sqlglot.transpile(statement, read="bigquery", write="duckdb")
            return super().read(translated.replace("TIMESTAMP_MICROS", "MAKE_TIMESTAMPTZ"))

    class BigQuery(Depot):
        def open(self) -> DuckdbWarehouse:
            return Translated(self.path)

    check_pulls(BigQuery(tmp_path / "depot.db"))


@pytest.mark.parametrize("batch_rows", [4, 100])
def test_rows_that_come_out_of_order_are_refused(tmp_path: Path, batch_rows: int) -> None:
    class Unordered(DuckdbWarehouse):
        def read(self, statement: str) -> Any:
            return super().read(statement.replace('ORDER BY "loaded"', 'ORDER BY "loaded" DESC'))

    class Place(Depot):
        def open(self) -> DuckdbWarehouse:
            return Unordered(self.path)

    house = House(Place(tmp_path / "depot.db"))
    house.depot.add(ROWS)
    with pytest.raises(Corrupt, match="not in the order of their arrival"):
        house.pull(batch_rows=batch_rows)
    assert not house.parcels()


def test_of_one_arrival_each_row_comes_once_whenever_it_is_committed(depot: Depot) -> None:
    house = House(depot, lateness="0us")
    depot.add([(parcel, 50) for parcel in range(20)])
    assert house.pull(batch_rows=6).batches == 4
    depot.add([(parcel, 50) for parcel in (20, 21, 5, 5)])  # a copy of a row is one more row
    again = house.pull(batch_rows=6)
    assert (again.read, again.known, again.rows) == (24, 20, 4)
    assert house.parcels() == Counter([*range(22), 5, 5])
    assert house.pull().rows == 0


@settings(max_examples=examples(gate=4, deep=200), deadline=None)
@given(data=st.data())
def test_a_pull_that_dies_at_any_write_is_followed_by_one_that_completes_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Rows commit in any order within the lateness, pulls die anywhere, and what they read may be gone afterwards."""
    kind = data.draw(st.sampled_from([INSTANTS, NUMBERS]))
    house = House(Depot(tmp_path_factory.mktemp("d") / "depot.db", kind), "30us" if kind == INSTANTS else "30")
    wanted, newest, parcel = Counter[int](), 0, 0
    for _ in range(data.draw(st.integers(1, 4))):
        rows = []
        for arrival in data.draw(st.lists(st.integers(newest - 30, newest + 40), min_size=1, max_size=12)):
            parcel += data.draw(st.sampled_from([0, 1, 1, 97]))
            rows.append((parcel, arrival))
        house.depot.add(rows)
        wanted.update(each for each, _ in rows)
        newest = max(newest, *(arrival for _, arrival in rows))
        for _ in range(data.draw(st.integers(0, 2))):
            counter, wrap = dying_at(data.draw(st.integers(1, 9)), after=data.draw(st.booleans()))
            try:
                house.pull(batch_rows=data.draw(st.integers(1, 8)), wrap=wrap)
            except Dead:
                assert counter[0] == 0
        assert not house.parcels() - wanted
    house.pull(batch_rows=5)
    assert house.parcels() == wanted
    assert house.pull().rows == 0
    puller, warehouse = house.puller()
    assert puller.plan().warnings == ()
    warehouse.close()
    late = data.draw(st.integers(0, 2))
    house.depot.add([(parcel, newest - 40)] * late)
    puller, warehouse = house.puller()
    assert [each.partition(" ")[0] for each in puller.plan().warnings] == [str(late)] * (late > 0)
    warehouse.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_pull_dies_before_and_after_each_of_its_writes(depot: Depot, after: bool) -> None:
    depot.add(FEW)
    for write in itertools.count(1 + after, examples(gate=2, deep=1)):
        house = House(depot, lateness="10us")
        counter, wrap = dying_at(write, after=after)
        try:
            house.pull(batch_rows=6, wrap=wrap)
        except Dead:
            pass
        else:
            break
        there = house.parcels()
        done = house.pull(batch_rows=20)
        assert house.parcels() == Counter(parcel for parcel, _ in FEW), write
        assert done.rows + done.quarantined == len(FEW) - there.total()
    assert write > 6
    assert counter[0] > 0


def test_what_a_killed_pull_read_may_be_gone_afterwards(depot: Depot) -> None:
    house = House(depot)
    depot.add(ROWS)
    for write in range(2, 5):
        with suppress(Dead):
            house.pull(batch_rows=9, wrap=dying_at(write, after=True)[1])
        depot.run(f"DELETE FROM parcels WHERE parcel = {write}")
    there = house.parcels()
    house.pull()
    with_both = Counter(parcel for parcel, _ in ROWS if parcel not in (2, 3, 4)) | there
    assert house.parcels() == with_both


def test_a_restored_table_is_filled_again(depot: Depot) -> None:
    house = House(depot, lateness="20us")
    for number in range(3):
        depot.add([(parcel, 10 * number + parcel % 3) for parcel in range(10 * number, 10 * number + 8)])
        house.pull(batch_rows=6)
    wanted = house.parcels()
    assert wanted.total() == 24
    for version in reversed(range(house.lake.version("parcels") or 0)):
        house.lake.restore("parcels", version)
        house.pull()
        assert house.parcels() == wanted
    house.lake.restore("parcels", None)
    assert house.pull().rows == 24


def test_a_restored_table_of_which_too_much_is_forgotten_is_refused(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mainspring.data.warehouse.pulling._KEPT", 3)
    house = House(depot, lateness="20us")
    for number in range(4):
        depot.add([(10 * number + each, 100 * number) for each in range(2)])
        house.pull()
    house.lake.restore("parcels", 1)
    with pytest.raises(Conflict, match=r"no longer known which rows up to 1970-01-01T00:00:00\.000100Z"):
        house.pull()
    house.pull(since=101)
    assert house.parcels() == Counter([0, 1, 10, 11, 20, 21, 30, 31])
    assert house.pull().rows == 0


def test_since_passes_over_rows_for_good(depot: Depot) -> None:
    house = House(depot)
    depot.add([(parcel, parcel) for parcel in range(10)])
    first = house.pull(since=6)
    assert (first.rows, first.since) == (4, "1970-01-01T00:00:00.000006Z")
    depot.add([(10, 9), (11, 3)])
    assert house.pull().rows == 1
    assert house.parcels() == Counter([6, 7, 8, 9, 10])
    house.pull(since=50)
    depot.add([(12, 49), (13, 50)])
    assert house.pull().rows == 1
    assert house.pull(since=0).rows == 8  # 0 to 5, 11 and 12 were never read
    assert house.parcels() == Counter(range(14))


def test_rows_are_recognised_when_columns_are_declared_or_no_longer(depot: Depot) -> None:
    house = House(depot, source=Source("parcels", schema={"parcel": Int64}, event_time="packed_at"))
    depot.add([(parcel, parcel) for parcel in range(5)])
    house.pull()
    house.source = PARCELS
    depot.add([(5, 5)])
    added = house.pull()
    assert (added.known, added.rows) == (5, 1)
    assert added.changed
    house.source = Source("parcels", schema={"parcel": Int64, "place": String}, event_time="packed_at")
    depot.add([(6, 5)])
    removed = house.pull()
    assert (removed.known, removed.rows) == (6, 1)
    depot.run("ALTER TABLE parcels DROP COLUMN kg")
    with pytest.raises(Conflict, match="no longer has column 'kg', by which rows are recognised"):
        house.pull()
    assert house.pull(since=6).rows == 0
    assert house.parcels() == Counter(range(7))


def test_rows_without_arrival_and_of_the_future_are_told_of(depot: Depot) -> None:
    house = House(depot)
    depot.add([(1, 1), (2, None), (3, NOW + 5), (4, NOW)])
    report = house.pull()
    assert house.parcels() == Counter([1, 4])
    assert report.warnings[:2] == (
        "1 rows of parcels are never read, because their loaded is null.",
        "1 rows of parcels have a loaded after now, and are read then: its clock is ahead of this machine's, or the "
        "times are wrong.",
    )
    house.clock.advance(5)
    assert house.pull().rows == 1


def test_rows_that_came_too_late_are_counted_once_a_day_and_by_a_plan(depot: Depot) -> None:
    house = House(depot, lateness="10us")

    def planned() -> tuple[str, ...]:
        puller, warehouse = house.puller()
        try:
            return puller.plan().warnings
        finally:
            warehouse.close()

    depot.add([(parcel, 10 * parcel) for parcel in range(10)])
    with suppress(Dead):
        house.pull(batch_rows=4, wrap=dying_at(4, after=True)[1])  # of a batch some rows are there
    assert 0 < house.parcels().total() < 10
    house.pull(batch_rows=4)
    assert planned() == ()
    depot.add([(20, 70), (21, 79), (22, 80), (23, None)])
    late = "2 rows of parcels came later than the lateness of 10us, and were not read: raise it in the profile."
    never = "1 rows of parcels are never read, because their loaded is null."
    assert [each[: len(late)] for each in planned()] == [never, late]
    assert house.pull().warnings == (never,)
    house.clock.advance(DAY)
    assert house.pull().warnings == (never,)  # it brought nothing, so nothing was counted
    depot.add([(24, 95)])
    assert [each[: len(late)] for each in house.pull().warnings] == [never, late]
    depot.add([(25, 96)])
    assert house.pull().warnings == (never,)
    assert house.pull(since=70).rows == 3  # 20 and 21, and once more 7, which is no longer known
    assert planned() == (never,)


def test_a_table_that_was_replaced_or_cut_is_told_of(depot: Depot) -> None:
    house = House(depot, lateness="5us")
    depot.add([(parcel, 10 * parcel) for parcel in range(10)])
    house.pull()
    depot.run("DELETE FROM parcels WHERE parcel = 9")
    with pytest.raises(Conflict, match=r"ends at 1970-01-01T00:00:00.000080Z, before 1970-01-01T00:00:00.000085Z"):
        house.pull()
    with pytest.raises(Conflict, match="or it was replaced"):
        house.puller()[0].plan()
    wider = house.pull(since=60)
    assert (wider.rows, wider.known) == (3, 0)  # of 60, 70 and 80 it is no longer known
    depot.run("DELETE FROM parcels")
    assert house.pull().warnings == ("parcels is empty; rows are read from 1970-01-01T00:00:00.000075Z on.",)
    depot.add([(20, 79)])
    changed = house.pull()
    assert changed.rows == 1
    assert changed.warnings[0].startswith("parcels ends at 1970-01-01T00:00:00.000079Z, before")
    assert changed.warnings[1].startswith("None of the 2 rows of parcels that are read again is as it was")


def test_another_order_needs_a_new_beginning(depot: Depot) -> None:
    house = House(depot)
    depot.add([(1, 1)])
    house.pull()
    depot.run("CREATE TABLE others AS FROM parcels")
    house.table = "others"
    with pytest.raises(Conflict, match="parcels was ingested from parcels in the order of loaded; now it is others"):
        house.pull()
    house.pull(since=2)
    assert house.pull().rows == 0
    house.store = House(depot).store
    with pytest.raises(Conflict, match="has batch 2 of a warehouse, which the catalog does not know"):
        house.pull()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE parcels RENAME kg TO kgs", r"parcels has no column 'kg' .* did you mean 'kgs'\?"),
        ("ALTER TABLE parcels ALTER kg TYPE BOOLEAN", "'kg' of parcels is bool, but the source declares float64"),
        ("ALTER TABLE parcels ALTER packed_at TYPE TIMESTAMP", "Column 'packed_at' of parcels has times without a UTC"),
        ("ALTER TABLE parcels ALTER loaded TYPE TIMESTAMP", "Column 'loaded' of parcels has times without a UTC"),
        ("ALTER TABLE parcels ALTER loaded TYPE VARCHAR", "is string, which does not say when a row arrived"),
        ("ALTER TABLE parcels RENAME loaded TO loaded_at", r"no column 'loaded', which .* did you mean 'loaded_at'"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_refused_by_name(depot: Depot, change: str, said: str) -> None:
    depot.run(change)
    with pytest.raises(InvalidData, match=said):
        House(depot).pull()


def test_values_that_do_not_fit_are_quarantined(depot: Depot) -> None:
    depot.add([(1, 1), (2, 2)])
    depot.run("ALTER TABLE parcels ALTER kg TYPE VARCHAR USING CASE parcel WHEN 1 THEN '1.5' ELSE 'heavy' END")
    depot.run("ALTER TABLE parcels ALTER parcel TYPE DECIMAL(38, 0)")
    report = House(depot).pull()
    assert (report.rows, report.reasons) == (1, {"kg is not a float64": 1})


@pytest.mark.parametrize(
    ("kind", "lateness", "said"),
    [(INSTANTS, "10", "is a duration"), (NUMBERS, "10m", "so it is one"), (NUMBERS, "-1", "The lateness of parcels")],
)
def test_a_lateness_is_of_the_kind_of_the_arrivals(tmp_path: Path, kind: str, lateness: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        House(Depot(tmp_path / "depot.db", kind), lateness).pull()


def test_signed_sources_take_no_rows_of_a_warehouse(depot: Depot) -> None:
    signed = Source("parcels", schema={"parcel": Int64}, event_time="packed_at", signed_by="0" * 64)
    with pytest.raises(Invalid, match="takes signed files alone"):
        House(depot, source=signed).pull()


def test_a_plan_says_what_a_pull_would_read_and_changes_nothing(depot: Depot) -> None:
    house = House(depot)
    depot.add([(1, 1), (2, 700), (3, None)])
    puller, _ = house.puller()
    plan = puller.plan()
    assert (plan.rows, plan.since, plan.until) == (2, "the start", "1970-01-01T00:00:00.000700Z")
    assert (plan.table, plan.arrival, plan.scanned_bytes, len(plan.warnings)) == ("parcels", "loaded", None, 1)
    assert puller.plan(since=2).rows == 1
    assert house.lake.tables() == []
    assert house.store.last("parcels") is None


_MANY = """
import resource, sys
from pathlib import Path
from kit.pulls import Depot, House

depot = Depot(Path(sys.argv[1]))
depot.run('''INSERT INTO parcels SELECT n % 1000, 'p' || n % 3, n / 7, make_timestamptz(n * 10),
    make_timestamptz(n // 200 * 100), 'x' FROM range(10_000_000) t(n)''')
house = House(depot, lateness="1ms")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = house.pull(batch_rows=1 << 18)
lake = sum(each.nbytes for each in [house.lake.scan("parcels").rows])
print(report.rows, report.batches, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before * 1024 - lake)
"""


@deep
def test_ten_million_rows_are_pulled_in_bounded_memory(tmp_path: Path) -> None:
    """Beside what DuckDB needs to sort them, at most 2 GB, and the lake, which is in memory here."""
    command = [sys.executable, "-c", _MANY, str(tmp_path / "depot.db")]
    paths = f"{TESTS.parent / 'src'}:{TESTS}"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    rows, batches, grown = map(int, done.stdout.splitlines()[-1].split())
    assert (rows, batches) == (10_000_000, 39)
    assert grown < 3_000_000_000


def test_batches_are_stored() -> None:
    engine = memory_catalog()
    check_pull_store(CatalogPulls(engine, "lake"), CatalogPulls(engine, "other"))


@pytest.mark.parametrize("position", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_positions_are_marks(position: int) -> None:
    assert as_mark(position) >= 0
    assert as_position(as_mark(position)) == position

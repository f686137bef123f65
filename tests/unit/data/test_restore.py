"""Going back to a commit: the rows are those of then, and what lands afterwards lands as if it had never come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mainspring.core.errors import Conflict, NotFound
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Int32, String
from mainspring.core.time import ManualClock
from mainspring.data import duck
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.commits import RESTORING, commit, find, vacuum
from mainspring.data.conformance import SCHEMA, table
from mainspring.data.ingest import Ingestor
from mainspring.data.model import TILES_PREFIX, DatasetCommit, IngestReport, Source, not_null
from mainspring.data.ports import LakeTables
from mainspring.data.restore import RestoreReport, restore
from mainspring.project.catalog import memory_catalog

pytestmark = pytest.mark.slow

KEYINGS = {"one": ("name",)}
FACTS = Source("facts", schema={"name": String, "value": Int32}, event_time="at", checks=[not_null("value")])
OTHERS = Source("others", schema={"name": String}, event_time="at")


class Place:
    """A lake with what is needed around it."""

    def __init__(self, lake: LakeTables) -> None:
        self.lake = lake
        self.database = duck.connect()
        self.snapshots = CatalogSnapshots(memory_catalog())
        self.clock = ManualClock()
        self.locks = MemoryLocks()
        self.ingestor = Ingestor(lake, self.locks, self.clock, wait_s=0.01)

    def land(self, batch: str, *names: str | None, source: Source = FACTS, bad: int = 0) -> IngestReport:
        rows = [{"at": at, "name": name, "value": 1} for at, name in enumerate(names)]
        rows += [{"at": 9, "name": "bad", "value": None}] * bad
        return self.ingestor.ingest(source, rows, keyings=KEYINGS, batch_id=batch)

    def commit(self, message: str = "") -> DatasetCommit:
        self.clock.advance(1)
        return commit(self.lake, self.snapshots, self.clock, message)

    def restore(self, name: str, **more: Any) -> RestoreReport:
        return restore(self.lake, self.snapshots, self.locks, self.clock, name, **{"wait_s": 0.01, **more})

    def rows(self, name: str, version: int | None = None) -> list[dict[str, Any]]:
        with self.database.cursor() as con:
            duck.register(con, "scanned", self.lake.scan(name, version))
            return con.sql("SELECT * FROM scanned ORDER BY _seq").to_arrow_table().to_pylist()

    def names(self, name: str = "facts") -> list[str]:
        return [row["name"] for row in self.rows(name)]


@pytest.fixture(params=["memory", "delta"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(MemoryLake() if request.param == "memory" else DeltaLake(tmp_path))


def test_every_table_is_as_it_was_and_history_is_whole(place: Place) -> None:
    place.land("one", "a", "b", bad=1)
    place.land("one", "x", source=OTHERS)
    then = place.commit("then")
    were = {name: place.rows(name) for name in place.lake.tables()}
    place.land("two", "a", "c", bad=2)
    place.land("two", "y", source=OTHERS)
    now = {name: place.rows(name) for name in place.lake.tables()}
    report = place.restore(then.id)
    assert {name: place.rows(name) for name in place.lake.tables()} == were
    made, before, first = place.snapshots.log()
    assert (report.target, report.before, report.commit) == (first.id, before.id, made.id)
    assert (before.message, made.message) == (f"before the restore of {then.id}", f"restored all to {then.id}")
    assert {each.table: (each.rows_before, each.rows) for each in report.tables} == {
        "facts": (4, 2),
        "facts__quarantine": (3, 1),
        "others": (2, 1),
    }
    assert place.snapshots.tags() == {}
    # What was there is a commit too: the way back.
    place.restore(before.id)
    assert {name: place.rows(name) for name in place.lake.tables()} == now


def test_where_everything_is_as_the_commit_names_it_nothing_happens(place: Place) -> None:
    place.land("one", "a")
    then = place.commit()
    report = place.restore(then.id)
    assert (report.before, report.commit, [each.version for each in report.tables]) == (then.id, then.id, [None])
    assert place.lake.version("facts") == 0


def test_a_batch_that_was_taken_back_lands_again(place: Place) -> None:
    """The lake remembers which writes it has seen: it must forget those that are gone, or landing would never end."""
    place.land("one", "a", bad=1)
    then = place.commit()
    place.land("two", "b", "c", bad=1)
    was = place.rows("facts")
    place.restore(then.id)
    assert place.names() == ["a"]
    again = place.land("two", "b", "c", bad=1)
    assert (again.rows, again.quarantined, again.already) == (2, 1, 0)
    assert [{**row, "_seq": 0} for row in place.rows("facts")] == [{**row, "_seq": 0} for row in was]
    assert place.land("two", "b", "c", bad=1).already == 3
    assert place.land("one", "a", bad=1).already == 2


def test_numbers_of_rows_that_are_gone_never_come_again(place: Place) -> None:
    place.land("one", "a")
    then = place.commit()
    given = {row["_seq"] for row in place.rows("facts")}
    for round_number in range(3):
        place.land(f"two {round_number}", "b", "c", bad=1)
        place.land(f"bad {round_number}", bad=2)
        place.land(f"three {round_number}", "d")
        new = {row["_seq"] for name in ("facts", "facts__quarantine") for row in place.rows(name)} - {0}
        assert not given & new
        assert min(new) > max(given)
        given |= new
        place.restore(then.id)
        assert {row["_seq"] for row in place.rows("facts")} == {0}


def test_a_load_that_was_half_there_goes_on(place: Place) -> None:
    place.ingestor = Ingestor(place.lake, place.locks, place.clock, 2)
    place.land("one", "a", "b", "c", "d", "e", bad=1)
    whole = place.rows("facts")
    half = DatasetCommit("0" * 32, {"facts": 1, "facts__quarantine": 0}, None, "half", 0)
    place.snapshots.add(half)
    place.restore(half.id)
    assert place.names() == ["a", "b", "c", "d"]
    report = place.land("one", "a", "b", "c", "d", "e", bad=1)
    assert (report.rows, report.quarantined, report.already) == (1, 0, 5)
    assert place.rows("facts") == whole


def test_flags_for_last_values_are_those_of_then(place: Place) -> None:
    place.ingestor.ingest(FACTS, [{"at": 5, "name": "a", "value": 1}], keyings=KEYINGS, batch_id="one")
    then = place.commit()
    place.ingestor.ingest(FACTS, [{"at": 5, "name": "a", "value": 2}], keyings=KEYINGS, batch_id="two")
    assert [row["_record_one"] for row in place.rows("facts")] == [False, True]
    place.restore(then.id)
    assert [row["_record_one"] for row in place.rows("facts")] == [True]
    place.ingestor.ingest(FACTS, [{"at": 4, "name": "a", "value": 2}], keyings=KEYINGS, batch_id="three")
    assert [row["_record_one"] for row in place.rows("facts")] == [True, True]


def test_a_table_that_came_later_becomes_empty(place: Place) -> None:
    place.land("one", "a")
    then = place.commit()
    place.land("one", "x", source=OTHERS)
    place.land("two", bad=1)
    report = place.restore(then.id)
    assert (place.names("others"), place.names("facts__quarantine")) == ([], [])
    assert {each.table: each.target for each in report.tables} == {
        "facts": 0,
        "facts__quarantine": None,
        "others": None,
    }
    assert place.land("one", "x", source=OTHERS).rows == 1
    assert place.land("two", bad=1).quarantined == 1


def test_one_source_goes_back_alone(place: Place) -> None:
    place.land("one", "a", bad=1)
    then = place.commit()
    place.land("two", "b", bad=1)
    place.land("two", "y", source=OTHERS)
    report = place.restore(then.id, source="facts")
    assert [each.table for each in report.tables] == ["facts", "facts__quarantine"]
    assert report.left == ("others",)
    assert (place.names(), place.names("others")) == (["a"], ["y"])
    with pytest.raises(NotFound, match=r"has no table 'others'\..*`mainspring ingest others FILE`"):
        place.restore(then.id, source="others")


def test_what_did_not_land_stays(place: Place) -> None:
    """A log of what happened, such as the predictions, is not a data set; tiles are made from others."""
    place.land("one", "a")
    then = place.commit()
    for name in ("predictions", f"{TILES_PREFIX}abc"):
        place.lake.append(name, table((0, 0.0, "x", 0, True)).to_batches(), SCHEMA, key="one")
    place.land("two", "b")
    report = place.restore(then.id)
    assert report.left == ("predictions",)
    assert len(place.rows("predictions")) == len(place.rows(f"{TILES_PREFIX}abc")) == 1
    assert set(place.snapshots.get(report.commit).versions) == {"facts", "predictions"}


def test_a_version_that_was_vacuumed_says_what_would_have_kept_it(place: Place) -> None:
    place.land("one", "a")
    then = place.commit()
    place.ingestor.conform(FACTS, {"two": ("value",)})  # which writes every row anew
    place.land("two", "b", source=OTHERS)
    place.snapshots.tag("kept", place.commit().id)
    vacuum(place.lake, place.snapshots)
    versions = {name: place.lake.version(name) for name in place.lake.tables()}
    with pytest.raises(NotFound, match=rf"Version 0 of table 'facts'.*tag NAME {then.id}.*would have kept.*'kept'"):
        place.restore(then.id)
    assert {name: place.lake.version(name) for name in place.lake.tables()} == versions
    assert set(place.snapshots.tags()) == {"kept"}


def test_a_tag_and_the_beginning_of_an_id_name_a_commit(place: Place) -> None:
    place.land("one", "a")
    then = place.commit()
    place.snapshots.tag("good", then.id)
    place.land("two", "b")
    assert find(place.snapshots, then.id[:8]) == then
    with pytest.raises(NotFound, match="'nothing'"):
        place.restore("nothing")
    place.restore("good")
    assert place.names() == ["a"]
    assert place.snapshots.log(1)[0].message == "restored all to good"


def test_no_ingestion_goes_on_meanwhile(place: Place) -> None:
    place.land("one", "a")
    then = place.commit()
    place.land("two", "b")
    with place.locks.hold("ingest.facts"), pytest.raises(Conflict, match=r"ingest\.facts"):
        place.restore(then.id)
    assert place.names() == ["a", "b"]
    assert place.snapshots.tags() == {}


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_restore_that_was_cut_short_is_run_again(place: Place, after: int) -> None:
    place.land("one", "a", bad=1)
    place.land("one", "x", source=OTHERS)
    then = place.commit()
    were = {name: place.rows(name) for name in place.lake.tables()}
    place.land("two", "b", bad=1)
    place.land("two", "y", source=OTHERS)

    def die(done: int, _: int) -> None:
        if done > after:
            raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        place.restore(then.id, progress=die)
    commits = place.snapshots.log()
    # Nobody names half of it.
    with pytest.raises(Conflict, match=f"being restored to dataset commit {then.id}") as caught:
        place.commit()
    assert f"mainspring data restore {then.id}`" in str(caught.value.fix)
    vacuum(place.lake, place.snapshots)
    report = place.restore(then.id)
    assert {name: place.rows(name) for name in place.lake.tables()} == were
    assert report.before is None
    assert len(place.snapshots.log()) == len(commits) + 1
    assert place.snapshots.tags() == {}
    assert place.commit().id == report.commit


def test_of_one_source_that_was_cut_short_the_rest_is_named(place: Place) -> None:
    place.land("one", "a", bad=1)
    then = place.commit()
    place.land("two", "b", bad=1)

    def die(_: list[str]) -> None:
        raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        place.restore(then.id, source="facts", settle=die)
    assert place.snapshots.tags() == {f"{RESTORING}.facts": then.id}
    with pytest.raises(Conflict) as caught:
        place.commit()
    assert f"mainspring data restore {then.id} --table facts`" in str(caught.value.fix)
    settled: list[str] = []
    place.restore(then.id, source="facts", settle=settled.extend)
    assert settled == ["facts"]
    assert place.snapshots.tags() == {}


def test_tiles_are_in_no_commit_and_only_their_newest_version_is_kept(place: Place) -> None:
    tiles = f"{TILES_PREFIX}abc"
    place.land("one", "a")
    for number in range(3):
        rows = pa.table({"n": [number]})
        place.lake.replace(tiles, rows.to_batches(), rows.schema, key=f"{number}")
        place.snapshots.tag(f"t{number}", place.commit().id)
    assert [set(each.versions) for each in place.snapshots.log()] == [{"facts"}]
    assert vacuum(place.lake, place.snapshots) == {"facts": 0, tiles: 2}

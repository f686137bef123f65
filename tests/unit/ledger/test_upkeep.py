"""Upkeep of the predictions' table: old predictions and files go, its log stays short, and readers lose nothing."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mainspring.core.errors import NotFound
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, ManualClock, SystemClock
from mainspring.data import history
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.commits import commit
from mainspring.data.model import DatasetCommit
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.conformance import prediction
from mainspring.ledger.model import PREDICTIONS
from mainspring.project.catalog import memory_catalog

pytestmark = pytest.mark.slow


def filled(root: Path, commits: int, *, start: int = 0, days: int = 1) -> LakePredictions:
    """Return a store with one more prediction a commit, the number of its day times ten thousand after it."""
    store = LakePredictions(root / "ledger", DeltaLake(root / "lake"), MemoryLocks())
    log = SegmentLog(root / "ledger")
    for number in range(start, commits):
        log.append([prediction(number, at=number % days * DAY + number)])
        store.compact()
    log.close()
    store.compact()
    return store


@dataclass(frozen=True)
class Grown:
    """A store of 140 commits, the commit of its data after three of them, and the files it had then."""

    root: Path
    first: DatasetCommit
    early: list[Path]

    def copied(self, root: Path) -> LakePredictions:
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return LakePredictions(root / "ledger", DeltaLake(root / "lake"), MemoryLocks())


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    root = tmp_path_factory.mktemp("grown")
    filled(root, 3)
    lake = DeltaLake(root / "lake")
    first = commit(lake, CatalogSnapshots(memory_catalog()), ManualClock(), "first")
    early = [Path(file).relative_to(root) for file in lake.scan(PREDICTIONS).files]
    filled(root, 140, start=3)
    return Grown(root, first, early)


def test_files_that_were_replaced_and_old_entries_of_the_log_are_deleted(grown: Grown, tmp_path: Path) -> None:
    store = grown.copied(tmp_path)
    table = tmp_path / "lake" / PREDICTIONS
    (table / "left by a killed writer.parquet").write_bytes(b"half")
    before = len(list((table / "_delta_log").glob("*.json")))
    store.tidy(replaced_before=SystemClock().now() + DAY, entries=20)
    names = {Path(each).name for each in DeltaLake(tmp_path / "lake").scan(PREDICTIONS).files}
    assert {path.name for path in table.glob("*.parquet")} == names
    left = sorted((table / "_delta_log").glob("*.json"))
    assert 20 <= len(left) < before - 60
    lake = DeltaLake(tmp_path / "lake")
    for read in (lake.scan, lake.describe):
        with pytest.raises(NotFound, match="does not have version 3"):
            read(PREDICTIONS, 3)
    assert lake.readable(PREDICTIONS, [3, 140]) == [140]
    again = LakePredictions(tmp_path / "ledger", lake, MemoryLocks())
    assert len(again.recent(limit=200)) == 140
    position = again.arrivals("late", 0).position
    log = SegmentLog(tmp_path / "ledger")
    log.append([prediction(999)])
    assert again.compact() == 1
    (came,) = again.arrivals("late", 0, after=position).batches
    assert came["id"].to_pylist() == ["p999"]
    assert again.arrivals("late", 0, after=1) is None  # the entry is gone: whoever asks reads all
    log.close()


def test_the_log_of_the_data_goes_over_versions_whose_entries_were_deleted(grown: Grown, tmp_path: Path) -> None:
    store, lake = grown.copied(tmp_path), DeltaLake(tmp_path / "lake")
    snapshots = CatalogSnapshots(memory_catalog())
    snapshots.add(grown.first)
    commit(lake, snapshots, ManualClock(), "second")
    store.tidy(replaced_before=SystemClock().now() + DAY, entries=20)
    second, first = history.log(lake, snapshots)
    assert [(each.rows_before, each.rows) for each in second.changes] == [(None, 140)]
    assert [(each.rows_before, each.rows) for each in first.changes] == [(0, None)]


def test_what_was_replaced_lately_stays_for_whoever_reads_it(grown: Grown, tmp_path: Path) -> None:
    store = grown.copied(tmp_path)
    for _ in range(2):  # the second time, the log tells only what the first left of it
        store.tidy(replaced_before=0, entries=1)
    assert grown.early
    assert all(pq.read_table(tmp_path / file).num_rows for file in grown.early)


def test_predictions_before_an_instant_are_removed_and_no_others(tmp_path: Path) -> None:
    store = filled(tmp_path, 12, days=3)
    position = store.arrivals("late", 0).position
    assert store.tidy(made_before=DAY, replaced_before=SystemClock().now() + DAY) == 4
    assert {each.id for each in store.recent()} == {f"p{number}" for number in range(12) if number % 3}
    assert store.tidy(made_before=DAY, replaced_before=0) == 0
    # What is left of a file is not taken for new.
    assert list(store.arrivals("late", 0, after=position).batches) == []
    assert store.tidy(made_before=9 * DAY, replaced_before=0) == 8
    assert store.recent() == []


def test_upkeep_of_no_table_does_nothing(tmp_path: Path) -> None:
    store = LakePredictions(tmp_path / "ledger", DeltaLake(tmp_path / "lake"), MemoryLocks())
    assert store.tidy(made_before=DAY, replaced_before=0) == 0

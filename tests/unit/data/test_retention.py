"""Retention: what batches leave behind goes, what somebody named stays, and what was just replaced waits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from mainspring.core.errors import NotFound
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Int64, String
from mainspring.core.time import ManualClock, SystemClock
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.deltaplaces import FolderPlace
from mainspring.data.commits import commit
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.data.retention import retain
from mainspring.project.catalog import memory_catalog

FACTS = Source("facts", schema={"place": String, "value": Int64}, event_time="at", recorded_time="known")
FAR = 10**18  # long after the test


def backwards(batches: int) -> list[list[dict[str, Any]]]:
    # What happened last is known first: each batch takes the flags of the rows before.
    rows = [{"at": at, "known": 999 - at, "place": f"p{at % 3}", "value": at} for at in range(batches * 4)]
    return [rows[start : start + 4] for start in range(0, len(rows), 4)]


def test_versions_that_nobody_named_go_and_named_ones_stay(tmp_path: Path) -> None:
    lake, snapshots = DeltaLake(tmp_path), CatalogSnapshots(memory_catalog())
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock())
    named = []
    for number, batch in enumerate(backwards(12)):
        ingestor.ingest(FACTS, batch, keyings={"place": ("place",)})
        if number in (2, 5):
            named.append(commit(lake, snapshots, ManualClock(number)))
    snapshots.tag("first", named[0].id)
    needed = {
        file
        for version in (*(each.versions["facts"] for each in named), None)
        for file in lake.scan("facts", version).files or ()
    }
    before = files(tmp_path)
    assert needed < before

    started = SystemClock().now() - 3_600_000_000
    assert retain(lake, snapshots, started) == {"facts": 0}  # all of it was replaced within the hour
    assert files(tmp_path) == before

    seen: dict[str, int] = {}
    assert retain(lake, snapshots, FAR, seen) == {"facts": len(before - needed)}
    assert files(tmp_path) == needed
    assert retain(lake, snapshots, FAR, seen) == {}  # nothing has changed since
    for each, rows in zip(named, (12, 24), strict=True):
        assert lake.describe("facts", each.versions["facts"]).rows == rows
        assert len(lake.scan("facts", each.versions["facts"]).files or ()) > 0


def test_a_log_keeps_the_entries_of_named_versions_and_the_newest(tmp_path: Path) -> None:
    lake, snapshots = DeltaLake(tmp_path), CatalogSnapshots(memory_catalog())
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock())
    batches = backwards(16)
    for number, batch in enumerate(batches):
        ingestor.ingest(FACTS, batch, keyings={})
        if number == 6:
            named = commit(lake, snapshots, ManualClock(number)).versions["facts"]
        if number % 4 == 1:  # as after each hundredth version
            DeltaTable(tmp_path / "facts").create_checkpoint()
    log = tmp_path / "facts" / "_delta_log"
    entries = len([*log.glob("*.json")])
    hour_ago = SystemClock().now() - 3_600_000_000
    retain(lake, snapshots, hour_ago, entries=2)
    assert len([*log.glob("*.json")]) == entries  # a vacuum may need them
    retain(lake, snapshots, FAR, entries=2)
    assert len([*log.glob("*.json")]) < entries - 4
    fresh = DeltaLake(tmp_path)
    assert fresh.describe("facts", named).rows == 28
    assert len(fresh.scan("facts", named).files or ()) > 0
    for gone in (0, named + 1):
        with pytest.raises(NotFound, match=f"not have version {gone}"):
            fresh.describe("facts", gone)
    assert fresh.describe("facts").rows == 64
    ingestor.ingest(FACTS, batches[0], keyings={})  # its key is in the log still
    ingestor.ingest(FACTS, [{"at": 900, "known": 999, "place": "p", "value": 1}], keyings={})
    assert DeltaLake(tmp_path).describe("facts").rows == 65


def test_a_named_version_that_is_gone_keeps_nothing_from_being_tidied(tmp_path: Path) -> None:
    lake, snapshots = DeltaLake(tmp_path), CatalogSnapshots(memory_catalog())
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock())
    for number, batch in enumerate(backwards(4)):
        ingestor.ingest(FACTS, batch, keyings={"place": ("place",)})
        commit(lake, snapshots, ManualClock(number))
    lake.vacuum("facts", [])
    assert retain(lake, snapshots, FAR) == {"facts": 0}
    assert lake.describe("facts").rows == 16


class RemotePlace(FolderPlace):
    """A folder from which nothing may be fetched."""

    def fetch(self, table: str, names: Iterable[str]) -> dict[str, str]:
        raise AssertionError(f"{list(names)} of {table} were fetched")


def test_nothing_is_fetched_to_find_out_what_goes(tmp_path: Path) -> None:
    lake, snapshots = DeltaLake(tmp_path), CatalogSnapshots(memory_catalog())
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock())
    for number, batch in enumerate(backwards(4)):
        ingestor.ingest(FACTS, batch, keyings={"place": ("place",)})
        if number == 1:
            commit(lake, snapshots, ManualClock(number))
    assert retain(DeltaLake(RemotePlace(tmp_path)), snapshots, FAR)["facts"] > 0
    assert len(lake.scan("facts", snapshots.log(1)[0].versions["facts"]).files or ()) > 0


def files(lake: Path) -> set[str]:
    return {str(path) for path in (lake / "facts").glob("*.parquet")}

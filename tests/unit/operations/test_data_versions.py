"""Versions of data where the table of predictions, a log in which nobody goes back, has lost its old ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from mainspring.core.errors import NotFound
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Int64
from mainspring.core.time import ManualClock
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.commits import commit
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.operations.data.versions import diff
from mainspring.project import Project
from mainspring.project.catalog import memory_catalog

FACTS = Source("facts", schema={"value": Int64}, event_time="at")


def test_commits_are_compared_without_predictions_that_are_gone(tmp_path: Path) -> None:
    lake, snapshots = DeltaLake(tmp_path), CatalogSnapshots(memory_catalog())
    declared = SimpleNamespace(sources={}, collections={})
    project: Any = SimpleNamespace(lake=lake, snapshots=snapshots, definitions=declared)
    logged = pa.table({"id": ["p1"]})
    for number in range(2):
        Ingestor(lake, MemoryLocks(), ManualClock()).ingest(FACTS, [{"at": number, "value": 1}], keyings={})
        lake.replace("predictions", logged.to_batches(), logged.schema, key=f"{number}")
        snapshots.tag(f"commit-{number}", commit(lake, snapshots, ManualClock(number)).id)

    def compared(table: str | None = None) -> list[str]:
        return [each.table for each in diff(cast(Project, project), "commit-0", "commit-1", table=table)]

    assert compared() == ["facts", "predictions"]
    lake.vacuum("predictions", [])
    assert compared() == ["facts"]
    with pytest.raises(NotFound, match="does not have version 0"):
        compared("predictions")

"""What the tests of ingestion share: a source, a lake and what is in it."""

from typing import Any

import pyarrow as pa

from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Boolean, Float32, Float64, Int32, Int64, String, Timestamp
from mainspring.core.time import ManualClock
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import IngestReport, Source

SCHEMA = {
    "name": String,
    "flag": Boolean,
    "small": Int32,
    "big": Int64,
    "single": Float32,
    "double": Float64,
    "other": Timestamp,
}
ROW = {
    "at": "2013-07-01T00:00:00Z",
    "name": "a",
    "flag": True,
    "small": 1,
    "big": 2,
    "single": 0.5,
    "double": 0.25,
    "other": None,
}


def source(**more: Any) -> Source:
    return Source("facts", **{"schema": SCHEMA, "event_time": "at", **more})


class Landing:
    """An ingestor over a lake in memory."""

    def __init__(self, declared: Source | None = None, now: int = 0, **options: Any) -> None:
        self.source = declared or source()
        self.lake = MemoryLake()
        self.clock = ManualClock(now)
        self.ingestor = Ingestor(self.lake, MemoryLocks(), self.clock, **options)

    def ingest(self, data: Any, **more: Any) -> IngestReport:
        return self.ingestor.ingest(self.source, data, **{"keyings": {}, **more})

    def landed(self) -> list[dict[str, Any]]:
        return self._rows(self.source.name)

    def quarantined(self) -> list[dict[str, Any]]:
        return self._rows(self.source.name + "__quarantine")

    def _rows(self, table: str) -> list[dict[str, Any]]:
        if self.lake.version(table) is None:
            return []
        rows = self.lake.scan(table).rows
        assert isinstance(rows, pa.Table)
        return rows.sort_by("_seq").to_pylist()

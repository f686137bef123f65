"""What the tests of pulls share: a DuckDB file that others write to, and a house that pulls from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from mainspring.core.expr.dialects import dialect
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Float64, Int64, String
from mainspring.core.time import ManualClock
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.adapters.pulls_catalog import CatalogPulls
from mainspring.data.adapters.warehouse_duckdb import DuckdbWarehouse
from mainspring.data.ingest import Ingestor
from mainspring.data.model import QUARANTINE_SUFFIX, Source, in_range
from mainspring.data.warehouse.arrivals import arrivals, check_table
from mainspring.data.warehouse.pulling import Puller, PullReport
from mainspring.project.catalog import memory_catalog

NOW = 1_000_000_000
PARCELS = Source(
    "parcels",
    schema={"parcel": Int64, "place": String, "kg": Float64},
    event_time="packed_at",
    checks=[in_range("parcel", 0, 1_000)],
)
INSTANTS, NUMBERS = "TIMESTAMPTZ", "BIGINT"
Row = tuple[int, int | None]  # parcel (its other values follow from it) and arrival


class Depot:
    """A table of parcels in a DuckDB file."""

    def __init__(self, path: Path, kind: str = INSTANTS) -> None:
        self.path = path
        self._instant = kind == INSTANTS
        self.run(f"""CREATE TABLE parcels (
            parcel BIGINT, place VARCHAR, kg DOUBLE, packed_at TIMESTAMPTZ, loaded {kind}, unused VARCHAR)""")

    def run(self, sql: str) -> None:
        with duckdb.connect(str(self.path)) as con:
            con.execute("SET timezone = 'UTC'")
            con.execute(sql)

    def add(self, rows: Iterable[Row]) -> None:
        """Commit rows in one transaction."""
        values = ", ".join(f"({parcel}, {self._at(arrival)})" for parcel, arrival in rows)
        if values:
            self.run(f"""INSERT INTO parcels SELECT p, CASE WHEN p % 5 = 0 THEN NULL ELSE 'p' || p % 3 END, p / 7,
                make_timestamptz(p * 1000), arrived, 'x' FROM (VALUES {values}) t(p, arrived)""")

    def _at(self, arrival: int | None) -> str:
        if arrival is None:
            return "NULL"
        return f"make_timestamptz({arrival})" if self._instant else str(arrival)


class House:
    """A lake and a catalog that pull from a depot.

    Args:
        lake, store: Wrap what the house has.
    """

    def __init__(self, depot: Depot, lateness: str = "100us", source: Source = PARCELS) -> None:
        self.depot, self.source, self.lateness = depot, source, lateness
        self.lake, self.locks = MemoryLake(), MemoryLocks()
        self.store = CatalogPulls(memory_catalog(), "lake")
        self.clock = ManualClock(NOW)
        self.table, self.arrival = "parcels", "loaded"

    def puller(
        self, batch_rows: int = 100, wrap: Callable[[Any], Any] = lambda each: each, lateness: str | None = None
    ) -> tuple[Puller, DuckdbWarehouse]:
        warehouse = DuckdbWarehouse(self.depot.path)
        lake = wrap(self.lake)
        columns = warehouse.columns(self.table)
        check_table(self.table, columns, self.source)
        order = arrivals(dialect("duckdb"), self.table, self.arrival, lateness or self.lateness, columns)
        return Puller(
            self.source,
            order,
            warehouse,
            lake,
            Ingestor(lake, self.locks, self.clock),
            wrap(self.store),
            self.locks,
            self.clock,
            {},
            batch_rows,
        ), warehouse

    def pull(self, since: int | None = None, **more: Any) -> PullReport:
        puller, warehouse = self.puller(**more)
        try:
            return puller.pull(since)
        finally:
            warehouse.close()

    def parcels(self) -> Counter[int]:
        """Return parcel -> how often it is in the table or the quarantine."""
        found: Counter[int] = Counter()
        for table in (self.source.name, self.source.name + QUARANTINE_SUFFIX):
            if self.lake.version(table) is not None:
                rows = self.lake.scan(table).rows
                assert isinstance(rows, pa.Table)
                found.update(map(int, rows["parcel"].to_pylist()))
        return found

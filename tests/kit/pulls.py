"""What the tests of pulls share: a DuckDB file that others write to, and a house that pulls from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

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
from mainspring.data.warehouse.ports import Warehouse
from mainspring.data.warehouse.pull_store import ALL, PulledBatch, PullStore
from mainspring.data.warehouse.pulling import Puller, PullReport
from mainspring.data.warehouse.row_digests import ROW
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

    def open(self) -> DuckdbWarehouse:
        return DuckdbWarehouse(self.path)

    def _at(self, arrival: int | None) -> str:
        if arrival is None:
            return "NULL"
        return f"make_timestamptz({arrival})" if self._instant else str(arrival)


class Place(Protocol):
    """A table of parcels in a warehouse."""

    def add(self, rows: Iterable[Row]) -> None: ...

    def open(self) -> Warehouse: ...


class Through:
    """Passes calls on to a lake, or to what has been put before it."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


class House:
    """A lake and a catalog that pull from a depot, or another place."""

    def __init__(self, depot: Place, lateness: str = "100us", source: Source = PARCELS) -> None:
        self.depot, self.source, self.lateness = depot, source, lateness
        self.lake, self.locks = MemoryLake(), MemoryLocks()
        self.store = CatalogPulls(memory_catalog(), "lake")
        self.clock = ManualClock(NOW)
        self.table, self.arrival = "parcels", "loaded"
        self._through = Through(self.lake)
        self._ingestor = Ingestor(self._through, self.locks, self.clock)  # it keeps a database, which is slow to open

    def puller(
        self, batch_rows: int = 100, wrap: Callable[[Any], Any] = lambda each: each, lateness: str | None = None
    ) -> tuple[Puller, Warehouse]:
        """Return what pulls, and what is to be closed.

        Args:
            wrap: Returns what the lake and the store are called through.
        """
        warehouse = self.depot.open()
        self._through.of = wrap(self.lake)
        columns = warehouse.columns(self.table)
        check_table(self.table, columns, self.source)
        order = arrivals(dialect(warehouse.dialect), self.table, self.arrival, lateness or self.lateness, columns)
        return Puller(
            self.source,
            order,
            warehouse,
            self._through,
            self._ingestor,
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


def check_pulls(place: Place) -> None:
    """Check pulls from an empty table of parcels whose arrivals are instants."""
    house = House(place)
    place.add([(parcel, 10 * (parcel // 4)) for parcel in (*range(30), 2_000)])
    first = house.pull(batch_rows=7)
    assert (first.read, first.rows, first.quarantined, first.known) == (31, 30, 1, 0)
    place.add([(31, 4_950), (31, 5_050), (2_000, 5_000), (32, NOW + 1), (33, None)])
    again = house.pull(batch_rows=7)
    assert (again.read, again.rows, again.quarantined, again.known) == (4, 2, 1, 1)
    assert len(again.warnings) == 2
    assert house.parcels() == Counter([*range(30), 2_000, 2_000, 31, 31])
    assert house.pull().rows == 0
    rows = house.lake.scan("parcels").rows
    assert rows is not None
    for row in rows.to_pylist():
        parcel = row["parcel"]
        assert row["place"] == (None if parcel % 5 == 0 else f"p{parcel % 3}")
        assert abs(row["kg"] - parcel / 7) < 1e-9
        assert row["packed_at"].microsecond == parcel * 1_000


def check_pull_store(store: PullStore, other: PullStore) -> None:
    """Check an empty store of batches, beside one of another lake."""

    def batch(number: int, until: int) -> PulledBatch:
        before = until - 5 if number > 1 else None
        return PulledBatch("s", number, "raw.s", "at", True, ("a", "b"), before, until, 3, NOW)

    def digests(count: int) -> bytes:
        return bytes(ROW.itemsize) * count

    def kept() -> list[tuple[int, int]]:
        return [(each.number, len(found) // ROW.itemsize) for each, found in store.digests("s", ALL)]

    assert store.last("s") is None
    assert (store.batches("s"), store.known_from("s", 9), store.digests_of("s", 1)) == ([], ALL, b"")
    made = [batch(1, 10), batch(2, 20), batch(3, (1 << 63) - 1)]
    for each in made:
        store.record(each, digests(each.number))
    assert store.last("s") == made[2]
    assert (store.batches("s", 1), store.numbered("s", [1, 9])) == (made[1:], {1: made[0]})
    assert [each.number for each, _ in store.digests("s", 20)] == [2, 3]
    store.keep("s", 2, digests(1), 15)
    assert (store.known_from("s", 1), store.known_from("s", 2), kept()) == (ALL, 15, [(1, 1), (2, 1), (3, 3)])
    store.deem_known("s", 12)
    assert store.known_from("s", 3) == 12
    store.shed("s", 20, 3)  # the second does not end before
    assert (kept(), store.known_from("s", 1)) == ([(2, 1), (3, 3)], 11)
    store.shed("s", (1 << 63) - 1, 0)
    assert (kept(), store.known_from("s", 2)) == ([(3, 3)], 21)
    assert other.last("s") is None

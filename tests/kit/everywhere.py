"""A view read in every way there is: offline by DuckDB, online from every kind of store. All must say the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

import mainspring as ms
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.declaring import feature_view
from mainspring.features.keys import encode_key
from mainspring.features.layout import slot
from mainspring.features.materialise import Materialiser
from mainspring.features.model import Entity, FeatureView
from mainspring.features.offline import point_in_time
from mainspring.features.online import OnlineReader
from mainspring.features.ports import OnlineStore

ENTITY = Entity("pair", keys={"a": ms.String, "b": ms.String})
FACTS = Source(
    "facts", schema={"a": ms.String, "b": ms.String, "x": ms.Float64}, event_time="at", recorded_time="known_at"
)
SCHEMA = {"a": ms.String, "b": ms.String}
KEY = ("1", "11")
TIME = pa.timestamp("us", tz="UTC")
_COLUMNS = {"at": TIME, "known_at": TIME, "a": pa.string(), "b": pa.string(), "x": pa.float64()}


def view(**features: Any) -> FeatureView:
    return feature_view(entity=ENTITY, source=FACTS)(type("Facts", (), features))


class Everywhere:
    """What landed so far, and the reads. Instants only go forward, as a clock does.

    Args:
        behind: How long before each instant the online stores were last brought up to date, microseconds.
    """

    def __init__(
        self, features: FeatureView, stores: Mapping[str, OnlineStore], *, behind: int = 0, tiles: float = 0
    ) -> None:
        self.view = features
        self.stores = stores
        self.clock = ManualClock()
        self.lake = MemoryLake()
        self._ingestor = Ingestor(self.lake, MemoryLocks(), self.clock)
        self._made = MemoryOnlineStore()
        self._materialiser = Materialiser(self.lake.scan, self._made, self.clock)
        self._behind = behind
        self._tiles = tiles
        self._keys: set[tuple[str, str]] = set()
        self.statuses: dict[str, str] = {}

    def land(self, event: int, x: float | None, known: int | None = None, key: Sequence[str | None] = KEY) -> None:
        self.land_all([(event, x, event if known is None else known, key)])

    def land_all(self, rows: Sequence[tuple[int, float | None, int, Sequence[str | None]]]) -> None:
        values = {
            "at": [event for event, *_ in rows],
            "known_at": [known for _, _, known, _ in rows],
            "a": [key[0] for *_, key in rows],
            "b": [key[1] for *_, key in rows],
            "x": [x for _, x, _, _ in rows],
        }
        table = pa.table({name: pa.array(values[name], kind) for name, kind in _COLUMNS.items()})
        self.land_table(FACTS, table, {(key[0], key[1]) for *_, key in rows if None not in key})

    def land_table(self, source: Source, table: pa.Table, keys: Collection[tuple[Any, Any]]) -> None:
        report = self._ingestor.ingest(source, table, keyings={"pair": ("a", "b")})
        assert report.rows == len(table)
        self._keys |= set(keys)

    def read(self, now: int, key: Sequence[str | None] = KEY) -> dict[str, Any]:
        """Return the features by name. Statuses are left in `statuses`."""
        asked = pa.table({"a": pa.array([key[0]], pa.string()), "b": pa.array([key[1]], pa.string()),
                          "_at": pa.array([now], TIME)})  # fmt: skip
        (row,) = point_in_time(
            asked, [self.view], self.lake.scan, schema=SCHEMA, rows_worth_a_tile=self._tiles
        ).to_pylist()
        offline = {name: row[f"Facts.{name}"] for name in self.view.names}
        self.materialise(now)
        for name, store in self.stores.items():
            found = OnlineReader([self.view], store).read({"a": [key[0]], "b": [key[1]]}, now)
            online = {full.partition(".")[2]: values[0] for full, values in found.features.items()}
            assert _same(online, offline), f"{name}: {online}, offline: {offline}"
            statuses = {full.partition(".")[2]: values[0] for full, values in found.statuses.items()}
            assert name == next(iter(self.stores)) or statuses == self.statuses
            self.statuses = statuses
        return offline

    def materialise(self, now: int) -> None:
        """Bring every store up to date as a worker did a while ago, with what was to become visible since."""
        if now - self._behind > self.clock.now():
            self.clock.set(now - self._behind)
        self._materialiser.run(self.view, horizon=max(0, now - self.clock.now()))
        name = slot(self.view)
        keys = [encode_key(key) for key in sorted(self._keys)]
        states = self._made.read([(name, key) for key in keys])
        rows = [(key, state) for key, state in zip(keys, states, strict=True) if state is not None]
        for store in self.stores.values():
            store.write(name, rows)


def _same(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Equal, NaN to NaN; sums in another order may differ in their last bits."""

    def near(a: Any, b: Any) -> bool:
        if isinstance(a, float) and isinstance(b, float):
            return a == b or (a != a and b != b) or abs(a - b) <= 1e-9 * abs(b)
        return type(a) is type(b) and bool(a == b)

    return left.keys() == right.keys() and all(near(left[name], right[name]) for name in left)

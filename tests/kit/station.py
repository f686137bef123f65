"""A small world to test features in: trains that leave stations, ingested for real, read offline and online."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

import mainspring as ms
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import HOUR, ManualClock, parse_instant
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.data.ports import LakeTables
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.declaring import feature_view
from mainspring.features.materialise import Materialiser
from mainspring.features.model import Entity, FeatureView
from mainspring.features.offline import point_in_time
from mainspring.features.online import OnlineReader

STATION = Entity("station", keys={"station": ms.String})
TRAINS = Source(
    "trains", schema={"station": ms.String, "delay": ms.Float64}, event_time="left_at", recorded_time="known_at"
)
SCHEMA = {"station": ms.String}


def instant(text: str) -> int:
    """`10:05` on a day in March, or any ISO time."""
    return parse_instant(f"2013-03-05T{text}:00Z" if len(text) == 5 else text)


def train(left: str, delay: float | None, known: str | None = None, station: str | None = "mile end") -> dict[str, Any]:
    times = [pa.scalar(instant(at), pa.timestamp("us", tz="UTC")).as_py() for at in (left, known or left)]
    return {"left_at": times[0], "known_at": times[1], "station": station, "delay": delay}


def view(source: Source = TRAINS, entity: Entity = STATION, **features: Any) -> FeatureView:
    return feature_view(entity=entity, source=source)(type("Trains", (), features))


class World:
    """A lake, an online store, and the two reads of one view."""

    def __init__(
        self, features: FeatureView, *batches: Sequence[dict[str, Any]], lake: LakeTables | None = None
    ) -> None:
        self.view = features
        self.lake = lake or MemoryLake()
        self.clock = ManualClock()
        self.store = MemoryOnlineStore()
        self.ingestor = Ingestor(self.lake, MemoryLocks(), self.clock)
        self.materialiser = Materialiser(self.lake, self.store, self.clock)
        for batch in batches:
            self.land(*batch)

    def land(self, *rows: dict[str, Any]) -> None:
        entity = self.view.entity
        self.ingestor.ingest(self.view.source, list(rows), keyings={entity.name: tuple(entity.keys)})

    def offline(self, at: str | int, station: str | None = "mile end") -> dict[str, Any]:
        now = instant(at) if isinstance(at, str) else at
        observations = pa.table(
            {"station": pa.array([station], pa.string()), "_at": pa.array([now], pa.timestamp("us", tz="UTC"))}
        )
        row = point_in_time(observations, [self.view], self.lake.scan, schema=SCHEMA).to_pylist()[0]
        return {name: row[f"Trains.{name}"] for name in self.view.names}

    def online(self, at: str | int, station: str | None = "mile end") -> dict[str, Any]:
        return {name: values[0] for name, values in self._read(at, station).features.items()}

    def statuses(self, at: str | int, station: str | None = "mile end") -> dict[str, str]:
        return {name: values[0] for name, values in self._read(at, station).statuses.items()}

    def both(self, at: str | int, station: str | None = "mile end") -> dict[str, Any]:
        """Read offline and online, at a time whose past has just been materialised, and check that they agree."""
        offline = self.offline(at, station)
        online = {name.partition(".")[2]: value for name, value in self.online(at, station).items()}
        assert online == offline
        return offline

    def _read(self, at: str | int, station: str | None) -> Any:
        now = instant(at) if isinstance(at, str) else at
        if now > self.clock.now():
            # As far behind as a worker is that materialises every hour.
            self.clock.set(now - HOUR)
            self.materialiser.run(self.view, horizon=HOUR)
        return OnlineReader([self.view], self.store).read({"station": [station]}, now)

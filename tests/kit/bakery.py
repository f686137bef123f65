"""A small world to train on: orders of two bakeries, of which some come late.

An order is predicted when it is placed; whether it came late is known three hours later. What decides it is the traffic
of the last hour, the weight and the kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import mainspring as ms
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import HOUR, MINUTE, ManualClock, parse_instant, to_datetime
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.ports import LakeTables, Snapshots
from mainspring.project.catalog import memory_catalog
from mainspring.registry.adapters.memory import MemoryBlobs, MemoryTracking, MemoryVersions
from mainspring.registry.bundles import Bundles
from mainspring.registry.ports import Blobs, ModelVersions, Tracking
from mainspring.security.signing import SigningKey
from mainspring.training.trainer import Trainer

START = parse_instant("2024-01-01T00:00:00Z")
ORDERS = 3000

order = ms.Entity("order", keys={"order": ms.Int64})
shop = ms.Entity("shop", keys={"shop": ms.String})
orders = ms.Source(
    "orders",
    schema={"order": ms.Int64, "shop": ms.String, "weight": ms.Float32, "kind": ms.String, "gift": ms.Boolean},
    event_time="placed_at",
)
visits = ms.Source("visits", schema={"shop": ms.String, "spent": ms.Float32}, event_time="came_at")
outcomes = ms.Source(
    "outcomes", schema={"order": ms.Int64, "late": ms.Boolean, "minutes": ms.Float32}, event_time="delivered_at"
)


@ms.feature_view(entity=shop, source=visits)
class Traffic:
    visits_1h = ms.count(window="1h")
    mean_spent_24h = ms.mean("spent", window="24h")


@ms.request_features
class Order:
    weight = ms.col("weight")
    kind = ms.col("kind")
    gift = ms.col("gift")
    hour = ms.col("placed_at").hour()


placed = ms.Observations(orders, keys=[order, shop], at=ms.col("placed_at"))


@dataclass
class Bakery:
    """A lake with the three tables, and everything a trainer needs."""

    root: Path
    lake: LakeTables = field(default_factory=MemoryLake)
    snapshots: Snapshots = field(default_factory=lambda: CatalogSnapshots(memory_catalog()))
    tracking: Tracking = field(default_factory=MemoryTracking)
    versions: ModelVersions = field(default_factory=MemoryVersions)
    blobs: Blobs = field(default_factory=MemoryBlobs)
    clock: ManualClock = field(default_factory=lambda: ManualClock(START + 200 * 24 * HOUR))

    def __post_init__(self) -> None:
        self.signing_key = SigningKey(b"b" * 32)
        self.bundles = Bundles(self.blobs, self.signing_key.public)

    @property
    def trainer(self) -> Trainer:
        return Trainer(
            lake=self.lake,
            snapshots=self.snapshots,
            tracking=self.tracking,
            versions=self.versions,
            bundles=self.bundles,
            signing_key=self.signing_key,
            clock=self.clock,
            root=self.root,
        )

    def ingest(self) -> None:
        ingestor = Ingestor(self.lake, MemoryLocks(), self.clock)
        made = rows()
        for source, keyings in (
            (orders, {"order": ("order",)}),
            (visits, {"shop": ("shop",)}),
            (outcomes, {"order": ("order",)}),
        ):
            ingestor.ingest(source, made[source.name], keyings=keyings)


def rows(count: int = ORDERS, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Return the three sources' rows. An order is placed every 10 minutes; every 50th never gets an outcome."""
    rng = np.random.default_rng(seed)
    made: dict[str, list[dict[str, Any]]] = {"orders": [], "visits": [], "outcomes": []}
    for number in range(count):
        at = START + number * 10 * MINUTE
        where = "north" if number % 2 else "south"
        weight = float(np.float32(rng.gamma(2.0, 1.0)))
        kind = [None, "bread", "cake"][int(rng.integers(0, 3))]
        rush = int(rng.poisson(3 if where == "north" else 1))
        for visit in range(rush):
            came = at - int(rng.integers(1, 9 * MINUTE))
            made["visits"].append({"came_at": to_datetime(came), "shop": where, "spent": float(visit) + 0.5})
        made["orders"].append(
            {
                "placed_at": to_datetime(at),
                "order": number,
                "shop": where,
                "weight": None if number % 17 == 0 else weight,
                "kind": kind,
                "gift": bool(number % 3 == 0),
            }
        )
        pull = 0.9 * weight + (1.2 if kind == "cake" else 0.0) + 0.5 * rush - 3.0
        if number % 50:
            made["outcomes"].append(
                {
                    "delivered_at": to_datetime(at + 3 * HOUR),
                    "order": number,
                    "late": bool(rng.random() < 1 / (1 + np.exp(-pull))),
                    "minutes": float(np.float32(30 + 10 * pull + rng.normal())),
                }
            )
    return made


def fit_trees(data: ms.TrainingSet, run: ms.Run) -> Any:
    """Histogram trees over numbers and ordinal codes."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    run.log_param("trees", 30)
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("codes", codes, data.categorical), ("numbers", "passthrough", data.numeric)])
    trees = HistGradientBoostingClassifier(max_iter=30, random_state=run.seed)
    return Pipeline([("columns", columns), ("trees", trees)]).fit(data.train.X, data.train.y)


def regress(data: ms.TrainingSet, run: ms.Run) -> Any:
    """Logistic regression over the numbers."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    columns = ColumnTransformer([("numbers", SimpleImputer(), data.numeric)])
    return make_pipeline(columns, LogisticRegression(max_iter=300)).fit(data.train.X, data.train.y)


def late_model(train: Any = fit_trees, **changed: Any) -> ms.training.model.Model:  # type: ignore[name-defined]
    """The model of late orders, with another training function or other settings where given."""
    settings: dict[str, Any] = {
        "observations": placed,
        "features": [Traffic, Order],
        "label": outcomes.late,
        "task": "binary",
        "gates": [ms.beats("auc", by=0.005)],
        "baseline": [Order],
        "seed": 7,
        **changed,
    }
    return ms.model("late-order", **settings)(train)

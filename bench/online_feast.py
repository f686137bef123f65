"""Feast's side, run by the Python of its own environment: fills its online store, then reads when asked.

Arguments: the `online_store` of its configuration as JSON, how many entities. A line of input is the number of rows and
of views; the answer, the microseconds of one call.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

FEATURES = [f"f{n}" for n in range(10)]
TURN_S = 0.2


def opened(online: dict[str, Any], repository: Path) -> FeatureStore:
    (repository / "feature_store.yaml").write_text(
        json.dumps({
            "project": "bench", "provider": "local", "registry": str(repository / "registry.db"),
            "online_store": online | ({"path": str(repository / "online.db")} if online["type"] == "sqlite" else {}),
            "entity_key_serialization_version": 3,
        })
    )  # fmt: skip
    store = FeatureStore(repo_path=str(repository))
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
    store.apply([user, *(view(user, number, repository) for number in range(3))])
    return store


def view(user: Entity, number: int, repository: Path) -> FeatureView:
    rows = FileSource(path=str(repository / f"facts{number}.parquet"), timestamp_field="at")
    return FeatureView(
        name=f"view{number}", entities=[user], ttl=timedelta(days=30), source=rows,
        schema=[Field(name=name, dtype=Float64) for name in FEATURES],
    )  # fmt: skip


def fill(store: FeatureStore, users: list[str]) -> None:
    rng = random.Random(7)
    for number in range(3):
        for start in range(0, len(users), 5_000):
            part = users[start : start + 5_000]
            columns = {name: [rng.gauss(0, 1) for _ in part] for name in FEATURES}
            rows = pd.DataFrame({"user": part, "at": datetime.now(UTC), **columns})
            store.write_to_online_store(f"view{number}", rows)


def main() -> None:
    online, count = json.loads(sys.argv[1]), int(sys.argv[2])
    warnings.simplefilter("ignore")
    users = [f"user-{number:06d}" for number in range(count)]
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as repository:
        store = opened(online, Path(repository))
        fill(store, users)
        for line in sys.stdin:
            rows, views = map(int, line.split())
            features = [f"view{number}:{name}" for number in range(views) for name in FEATURES]
            sets = [[{"user": name} for name in rng.sample(users, rows)] for _ in range(64)]
            calls, before = 0, time.perf_counter()
            while (took := time.perf_counter() - before) < TURN_S:
                store.get_online_features(features, sets[calls % 64], full_feature_names=views > 1)
                calls += 1
            print(took / calls * 1e6, flush=True)


if __name__ == "__main__":
    main()

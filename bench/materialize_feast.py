"""Feast's side, run by the Python of its own environment: `materialize` from Parquet files to its SQLite store.

Arguments: a folder with `facts.parquet`, the offline store (dask or duckdb). The last line of output is JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

FEATURES = [f"f{n}" for n in range(10)]
START = datetime.fromtimestamp(1_700_000_000, UTC)


def main() -> None:
    folder, offline = Path(sys.argv[1]), sys.argv[2]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "feature_store.yaml").write_text(
            json.dumps({
                "project": "bench", "provider": "local", "registry": f"{made}/registry.db",
                "online_store": {"type": "sqlite", "path": f"{made}/online.db"}, "offline_store": {"type": offline},
                "entity_key_serialization_version": 3,
            })
        )  # fmt: skip
        store = FeatureStore(repo_path=made)
        user = Entity(name="user", join_keys=["k"], value_type=ValueType.STRING)
        rows = FileSource(path=str(folder / "facts.parquet"), timestamp_field="at")
        view = FeatureView(
            name="facts", entities=[user], ttl=timedelta(0), source=rows,
            schema=[Field(name=name, dtype=Float64) for name in FEATURES],
        )  # fmt: skip
        store.apply([user, view])
        before = time.perf_counter()
        store.materialize(START - timedelta(days=1), START + timedelta(days=100))
        seconds = time.perf_counter() - before
        asked = [{"k": "user-0000000"}]
        found = store.get_online_features(features=["facts:f0"], entity_rows=asked).to_dict()
    lines = Path("/proc/self/status").read_text().splitlines()
    megabytes = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10
    print(json.dumps({"seconds": seconds, "megabytes": megabytes, "found": found["f0"][0] is not None}))


if __name__ == "__main__":
    main()

"""Feast's side, run by the Python of its own environment: as `pit_side.py`, without our package.

Arguments: the offline store (duckdb or dask), a folder that `pit_lake.prepare` made.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

FEATURES = [f"f{n}" for n in range(10)]


def opened(kind: str, facts: Path, repository: Path) -> FeatureStore:
    (repository / "feature_store.yaml").write_text(f"""
project: bench
provider: local
registry: {repository}/registry.db
online_store: {{type: sqlite, path: {repository}/online.db}}
offline_store: {{type: {kind}}}
entity_key_serialization_version: 3
""")
    store = FeatureStore(repo_path=str(repository))
    text = pa.types.is_string(pq.read_schema(facts).field("k").type)
    user = Entity(name="user", join_keys=["k"], value_type=ValueType.STRING if text else ValueType.INT64)
    rows = FileSource(path=str(facts), timestamp_field="at", created_timestamp_column="known_at")
    view = FeatureView(
        name="facts", entities=[user], ttl=timedelta(0), source=rows,
        schema=[Field(name=name, dtype=Float64) for name in FEATURES],
    )  # fmt: skip
    store.apply([user, view])
    return store


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as repository:
        store = opened(kind, folder / "facts.parquet", Path(repository))
        asked = pq.read_table(folder / "observed.parquet").rename_columns(["k", "event_timestamp"]).to_pandas()
        for _ in sys.stdin:
            before = time.perf_counter()
            found = store.get_historical_features(asked, features=[f"facts:{name}" for name in FEATURES]).to_arrow()
            print(json.dumps({"seconds": time.perf_counter() - before, "rows": found.num_rows}), flush=True)
            del found
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    print(json.dumps({"megabytes": int(line.split()[1]) >> 10}), flush=True)


if __name__ == "__main__":
    main()

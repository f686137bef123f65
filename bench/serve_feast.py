"""Feast's side of bench/serve_keys.py, run by the Python of its environment: serve_feast.py FOLDER ROWS FEATURE...

Makes a repository in FOLDER with one view of the rows of a Parquet file, and materialises it into SQLite. `feast serve`
serves it.
"""

from __future__ import annotations

import json
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64


def main() -> None:
    folder, rows, features = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    warnings.simplefilter("ignore")
    (folder / "feature_store.yaml").write_text(
        json.dumps({
            "project": "bench", "provider": "local", "registry": str(folder / "registry.db"),
            "online_store": {"type": "sqlite", "path": str(folder / "online.db")}, "offline_store": {"type": "dask"},
            "entity_key_serialization_version": 3,
        })
    )  # fmt: skip
    store = FeatureStore(repo_path=str(folder))
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
    view = FeatureView(
        name="facts", entities=[user], ttl=timedelta(days=30),
        source=FileSource(path=rows, timestamp_field="at"),
        schema=[Field(name=name, dtype=Float64) for name in features],
    )  # fmt: skip
    store.apply([user, view])
    now = datetime.now(UTC)
    store.materialize(now - timedelta(days=1), now)


if __name__ == "__main__":
    main()

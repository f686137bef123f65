"""Our side of batch scoring. Arguments: `plain` or `keyed`, a folder with the rows and the network, threads."""

from __future__ import annotations

import json
import resource
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq

import mainspring as ms
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import DType
from mainspring.data.ingest import Ingestor
from mainspring.features.definitions import dump
from mainspring.operations.batch.running import run_batch
from mainspring.operations.batch.values import Request
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.registry.bundles import FEATURES, seal
from mainspring.registry.model import Input, Manifest

TOML = 'name = "batch"\nmodules = []\n\n[profiles.local]\n'


def main() -> None:
    kind, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    root = folder / "project"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    (root / "mainspring.toml").write_text(TOML)
    project = open_project(load_settings(root))
    files = {"model.onnx": (folder / "mlp.onnx").read_bytes()}
    source, as_of = folder / "rows.parquet", "now"
    if kind == "keyed":
        user = ms.Entity("user", keys={"user": ms.Int64})
        values = [f"v{number}" for number in range(10)]
        columns = {"user": ms.Int64, **dict.fromkeys(values, ms.Float32)}
        facts = ms.Source("facts", schema=columns, event_time="came_at")
        asked = ms.Source("asked", schema={"user": ms.Int64}, event_time="asked_at")
        view = ms.feature_view(entity=user, source=facts)(type("View", (), {name: ms.last(name) for name in values}))
        observations = ms.Observations(asked, keys=[user], at=ms.col("asked_at"))
        files[FEATURES] = dump([view], observations)
        Ingestor(project.lake, MemoryLocks(), project.clock).ingest(
            facts, folder / "facts.parquet", keyings={"user": ("user",)}
        )
        names, source, as_of = [f"View.{name}" for name in values], folder / "keyed.parquet", "asked_at"
    else:
        names = pq.read_schema(source).names
    manifest = Manifest(
        model="mlp", task="multiclass", flavour="onnx", inputs=tuple(Input(name, DType.Float32) for name in names),
        outputs=("y0", "y1"), run_id="bench", dataset_commit="", features_digest="", code_version="", created_at=0,
    )  # fmt: skip
    bundle = seal(manifest, files, project.signing_key)
    project.bundles.save(bundle)
    project.versions.register("mlp", bundle.digest, "bench", {}, 0)
    done = run_batch(project, Request("mlp:1", str(source), str(root / "out"), as_of, threads=threads))
    assert done.predicted == done.rows, done.reasons
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"rows_per_s": done.rows_per_s, "peak_mb": peak}))


if __name__ == "__main__":
    main()

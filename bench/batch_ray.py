"""Ray Data's side of batch scoring, run by the Python of its own environment. Arguments: a folder, workers."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # of a busy machine

import ray


class Predictor:
    """A session of one thread in each worker."""

    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(path, options)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        answers = self._session.run(None, {"x": np.column_stack([batch[f"x{place}"] for place in range(len(batch))])})[
            0
        ]
        return {"y0": answers[:, 0], "y1": answers[:, 1]}


def main() -> None:
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    # Two more processors than predictors, for the tasks that read and write: without them none of those ever starts.
    ray.init(
        address="local", num_cpus=workers + 2, include_dashboard=False, log_to_driver=False, logging_level="warning"
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    begun = time.perf_counter()
    rows = ray.data.read_parquet(str(folder / "rows.parquet"))
    total = pq.ParquetFile(folder / "rows.parquet").metadata.num_rows
    answers = rows.map_batches(
        Predictor, fn_constructor_args=(str(folder / "mlp.onnx"),), batch_size=4096, concurrency=workers, num_cpus=1
    )
    answers.write_parquet(str(folder / "ray"))
    seconds = time.perf_counter() - begun
    ray.shutdown()
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024
    print(json.dumps({"rows_per_s": round(total / seconds), "peak_mb": peak}))


if __name__ == "__main__":
    main()

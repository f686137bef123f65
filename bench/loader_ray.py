"""Ray Data's side of bench/loader.py, run by the Python of its own environment. Arguments: a file, rows to shuffle."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # of a busy machine

import ray

BATCH, LONGEST_S = 256, 30.0


def main() -> None:
    path, window = sys.argv[1], int(sys.argv[2])
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="warning")
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.read_parquet(path)
    names = [name for name in rows.schema().names if name != "y"]
    count, begun = 0, None
    for batch in rows.iter_batches(batch_size=BATCH, local_shuffle_buffer_size=window, local_shuffle_seed=1):
        if begun is None:  # without the start of the workers
            begun = time.perf_counter()
        inputs = np.column_stack([batch[name] for name in names])
        count += len(inputs) if len(batch["y"]) == len(inputs) else 0
        if time.perf_counter() - begun > LONGEST_S:
            break
    seconds = time.perf_counter() - (begun or 0.0)
    ray.shutdown()
    print(json.dumps({"rows_per_s": round(count / seconds), "rows": count}))


if __name__ == "__main__":
    main()

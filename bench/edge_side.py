"""One side of bench/edge.py, in a process of its own: the device's runtime, or bare ONNX Runtime with arrays at hand.

Prints one JSON object: when the first answer was there (time.time()), latencies, rows a second, and memory.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 3.0
BATCH = 256


def device(folder: Path, key: str) -> tuple[Callable[[], object], Callable[[], object]]:
    import mainspring_edge

    loaded = mainspring_edge.load(folder, key)
    row = json.loads((folder.parent / "row.json").read_bytes())
    many = [row] * BATCH
    return lambda: loaded.predict([row]), lambda: loaded.predict(many)


def bare(folder: Path, _: str) -> tuple[Callable[[], object], Callable[[], object]]:
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    features = json.loads((folder.parent / "features_of_row.json").read_bytes())
    one = {name: np.array([[value]], np.float32) for name, value in features.items()}
    many = {name: np.repeat(array, BATCH, axis=0) for name, array in one.items()}
    return lambda: session.run(None, one), lambda: session.run(None, many)


def resident_mb() -> float:
    """Return the most memory that this process ever held."""
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(peak.split()[1]) / 1024, 1)


def measured(call: Callable[[], object]) -> list[float]:
    times = []
    end = time.perf_counter() + SECONDS
    while (before := time.perf_counter()) < end:
        call()
        times.append(time.perf_counter() - before)
    return sorted(times)


def main() -> None:
    side, folder, key = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    one, many = {"device": device, "bare": bare}[side](folder, key)
    one()
    answered = time.time()
    found: dict[str, Any] = {"answered": answered, "memory_mb": resident_mb()}
    if len(sys.argv) == 4:
        times, batches = measured(one), measured(many)
        found |= {
            "p50_us": times[len(times) // 2] * 1e6,
            "p99_us": times[len(times) * 99 // 100] * 1e6,
            "rows_s": BATCH / batches[len(batches) // 2],
            "memory_after_mb": resident_mb(),
        }
    print(json.dumps(found))


main()

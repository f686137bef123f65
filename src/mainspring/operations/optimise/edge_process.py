"""Cost of a model on a device, in a process that is as small: one processor, little memory, ONNX Runtime alone.

`python edge_process.py FOLDER MEMORY_BYTES`: opens `model.onnx` of the folder as `mainspring_edge` does, runs the rows
of `inputs.npz`, and prints its cost as JSON. It imports nothing of Mainspring, as the runtime on a device does not.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

_TURNS, _LONGEST_S, _WARM = 1000, 1.0, 3


def main() -> None:
    folder, limit = Path(sys.argv[1]), int(sys.argv[2])
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    begun = time.perf_counter_ns()
    session = ort.InferenceSession((folder / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"])
    load_ns = time.perf_counter_ns() - begun
    with np.load(folder / "inputs.npz", allow_pickle=False) as stored:
        feeds = {
            name: each.astype(object) if (each := stored[name]).dtype.kind == "U" else each for name in stored.files
        }
    rows = len(next(iter(feeds.values())))
    one = _timed(lambda turn: session.run(None, {n: v[turn % rows : turn % rows + 1] for n, v in feeds.items()}))
    many = _timed(lambda _: session.run(None, feeds))
    peak = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        if line.startswith("VmHWM:")
    )
    sys.stdout.write(json.dumps({"load_ns": load_ns, "one_ns": one, "many_ns": many, "peak": peak, "rows": rows}))


def _timed(call: Callable[[int], object]) -> list[int]:
    for turn in range(_WARM):
        call(turn)
    taken: list[int] = []
    until = time.perf_counter() + _LONGEST_S
    while len(taken) < _TURNS and time.perf_counter() < until:
        begun = time.perf_counter_ns()
        call(len(taken))
        taken.append(time.perf_counter_ns() - begun)
    return taken


if __name__ == "__main__":
    main()

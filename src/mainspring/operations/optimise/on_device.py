"""Cost of variants on a device: each in processes of its own with one processor and little memory, by turns."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.core.environment import for_foreign_code
from mainspring.operations.optimise import edge_process
from mainspring.operations.optimise.model import Cost
from mainspring.registry.bundles import MODEL
from mainspring.training.frames import Array

_ROUNDS = 2
_LONGEST_S = 60.0


def device_costs(
    contents: Mapping[str, bytes], feeds: Mapping[str, Mapping[str, Array]], memory_bytes: int
) -> tuple[dict[str, Cost], dict[str, str]]:
    """Return the cost of each model by its name, and for those that do not run there, why.

    Args:
        contents: Models in ONNX.
        feeds: Rows of each as inputs of its graph.
        memory_bytes: Memory of the device that the process may take for data.
    """
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in contents}
    failed: dict[str, str] = {}
    for turn in range(_ROUNDS):
        for name in contents if turn % 2 == 0 else reversed(list(contents)):
            if name in failed:
                continue
            found = _measured(contents[name], feeds[name], memory_bytes)
            if isinstance(found, str):
                failed[name] = found
            else:
                measured[name].append(found)
    return {name: _cost(contents[name], measured[name]) for name in contents if name not in failed}, failed


def _cost(content: bytes, rounds: list[dict[str, Any]]) -> Cost:
    one = np.concatenate([each["one_ns"] for each in rounds])
    many = np.concatenate([each["many_ns"] for each in rounds])
    rows, batch = rounds[0]["rows"], float(np.median(many)) / 1e3
    return Cost(
        bytes=len(content),
        load_ms=min(each["load_ns"] for each in rounds) / 1e6,
        p50_us=float(np.median(one)) / 1e3,
        p99_us=float(np.quantile(one, 0.99)) / 1e3,
        batch_rows=rows,
        batch_p50_us=batch,
        rows_a_second=rows / batch * 1e6,
        memory_bytes=max(each["peak"] for each in rounds),
        energy_uj_a_row=None,
    )


def _measured(content: bytes, feeds: Mapping[str, Array], memory_bytes: int) -> dict[str, Any] | str:
    """Return the measurement, or why there is none."""
    limit = f"in a process with one processor and {memory_bytes / 2**20:,.0f} MiB"
    with tempfile.TemporaryDirectory(prefix="mainspring-device-") as place:
        (Path(place) / MODEL).write_bytes(content)
        plain: dict[str, Any] = {
            name: each.astype(str) if each.dtype == object else each for name, each in feeds.items()
        }
        np.savez(Path(place) / "inputs.npz", allow_pickle=False, **plain)
        command = [sys.executable, "-P", str(edge_process.__file__), place, str(memory_bytes)]
        alone = for_foreign_code({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False, env=alone)
        except subprocess.TimeoutExpired:
            return f"it does not answer within {_LONGEST_S:.0f} s {limit}."
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return f"it does not run {limit}: {lines[-1][:200] if lines else f'the process ended with {done.returncode}'}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found

"""What does the edge runtime cost? Size, start, latency of a row, rows a second and memory, beside bare ONNX Runtime.

The model is an MLP (30-128-64-1) of 30 features; 20 are fields of the row as they are, 10 are computed from fields. The
floor is bare ONNX Runtime with one thread, without a signature, with the features' arrays ready: it computes none of
them. A start is a new process, from its launch to its first answer. Sides take turns; the median of the turns counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import mainspring as ms
from environments import ROOT
from mainspring.deploy.edge.building import content_of
from mainspring.deploy.edge.package import MODEL, write_package
from mainspring.features.definitions import dump
from mainspring.features.model import Observations, RequestFeatures
from mainspring.registry.bundles import seal
from mainspring.registry.model import Bundle, Input, Manifest
from mainspring.security.signing import SigningKey
from mainspring.training.flavours.scoring import open_session
from mainspring.training.optimise.static_int8 import quantised
from report import Case, report

KEY = SigningKey(b"k" * 32)
SIDE = Path(__file__).with_name("edge_side.py")
RUNTIME = ROOT / "edge-runtime"
PLAIN, COMPUTED, HIDDEN = 20, 10, (128, 64)
TOLERANCE = 0.05  # of INT8, whose accuracy is not what is measured here


def features() -> tuple[RequestFeatures, Observations]:
    fields = {f"x{n}": ms.Float32 for n in range(PLAIN)}
    source = ms.Source("rows", schema={"id": ms.String, "city": ms.String, **fields}, event_time="at")
    entity = ms.Entity("row", keys={"id": ms.String})
    x, at = [ms.col(name) for name in fields], ms.col("at")
    computed = {
        "hour": at.hour("Europe/Berlin"), "weekday": at.weekday("America/New_York"), "month": at.month(),
        "ratio": x[0] / (x[1] + 10), "log": (x[2].clip(0) + 1).log(), "near": abs(x[3] - x[4]) < 0.5,
        "largest": ms.greatest(x[5], x[6], x[7]), "filled": x[8].coalesce(0.0).round(),
        "city": ms.when(ms.col("city").lower().starts_with("b"), 1.0, 0.0), "product": x[9] * x[10] - x[11],
    }  # fmt: skip
    columns = {name: ms.col(name) for name in fields} | {name: each.cast(ms.Float32) for name, each in computed.items()}
    return RequestFeatures("Row", columns), Observations(source, keys=[entity], at=at)


def network(names: list[str]) -> bytes:
    rng = np.random.default_rng(0)
    sizes = (len(names), *HIDDEN, 1)
    nodes, constants, last = [helper.make_node("Concat", names, ["h0"], axis=1)], [], len(sizes) - 2
    for layer, (wide, narrow) in enumerate(pairwise(sizes)):
        weights = (rng.normal(size=(wide, narrow)) / np.sqrt(wide)).astype(np.float32)
        constants += [numpy_helper.from_array(weights, f"w{layer}")]
        constants += [numpy_helper.from_array(np.zeros(narrow, np.float32), f"b{layer}")]
        nodes += [helper.make_node("Gemm", [f"h{layer}", f"w{layer}", f"b{layer}"], [f"g{layer}"])]
        nodes += [helper.make_node("Sigmoid" if layer == last else "Relu", [f"g{layer}"], [f"h{layer + 1}"])]
    nodes += [helper.make_node("Reshape", [f"h{last + 1}", "flat"], ["probability"])]
    constants += [numpy_helper.from_array(np.array([-1]), "flat")]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in names],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None])],
        constants,
    )
    opsets = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def bundle() -> Bundle:
    group, observations = features()
    names = list(group.columns)
    content = network(names)
    values = np.random.default_rng(1).normal(size=(200, len(names))).astype(np.float32)
    feeds = {name: values[:, [at]] for at, name in enumerate(names)}
    (answers,) = open_session(content).run(None, feeds)
    golden = {
        "inputs": {name: values[:, at].tolist() for at, name in enumerate(names)},
        "outputs": {"probability": answers.tolist()},
    }
    manifest = Manifest(
        model="bench", task="binary", flavour="onnx", inputs=tuple(Input(name, ms.Float32) for name in names),
        outputs=("probability",), run_id="r", dataset_commit="", features_digest="", code_version="", created_at=0,
    )  # fmt: skip
    files = {
        MODEL: content,
        "features.json": dump([group], observations),
        "golden.json": json.dumps(golden).encode(),
    }
    return seal(manifest, files, KEY)


def lay_out(folder: Path) -> None:
    """Write both packages, and the row that every side is asked."""
    sys.path.insert(0, str(RUNTIME / "src"))  # as its sides do: it is a distribution of its own
    from mainspring_edge import load

    made = bundle()
    rng = np.random.default_rng(2)
    calibration = {each.name: rng.normal(size=(500, 1)).astype(np.float32) for each in made.manifest.inputs}
    small = quantised(made.files[MODEL], calibration)
    for name, content in (("fp32", content_of(made)), ("int8", content_of(made, model=small, tolerance=TOLERANCE))):
        write_package(folder / name, {**content.about, "project": "bench", "version": 1}, content.files, KEY)
    row: dict[str, Any] = {f"x{n}": float(rng.normal()) for n in range(PLAIN)}
    row |= {"city": "Berlin", "at": "2026-11-28T09:30:00+01:00"}
    (folder / "row.json").write_text(json.dumps(row))
    device = load(folder / "fp32", KEY.public)
    device.self_test()
    values = {name: float(value) for name, (value,) in device.features([row]).items()}
    (folder / "features_of_row.json").write_text(json.dumps(values))


def run(side: str, folder: Path, *, start_only: bool = False) -> dict[str, float]:
    path = os.pathsep.join([str(RUNTIME / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(SIDE), side, str(folder), KEY.public.hex(), *(["start"] if start_only else [])]
    began = time.time()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    found: dict[str, float] = json.loads(done.stdout)
    found["start_ms"] = (found.pop("answered") - began) * 1e3
    return found


def medians(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Return side -> measured name -> the median of its turns."""
    sides = {
        "ours": ("device", "fp32"),
        "floor": ("bare", "fp32"),
        "int8": ("device", "int8"),
        "bare8": ("bare", "int8"),
    }
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name, (side, package) in sides.items():
            turns[name].append(run(side, folder / package, start_only=turn > 0 and turn < rounds - 1))
    return {
        name: {what: round(statistics.median(each[what] for each in found if what in each), 1) for what in found[0]}
        for name, found in turns.items()
    }


def wheel_bytes() -> int:
    """Return the size of the runtime's own code."""
    return sum(path.stat().st_size for path in (RUNTIME / "src").rglob("*") if path.suffix in (".py", ".typed"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="bench-edge-") as name:
        folder = Path(name)
        lay_out(folder)
        found = medians(folder, max(2, rounds))
        sizes = {
            kind: (
                sum(path.stat().st_size for path in (folder / kind).iterdir()) / 1e3,
                (folder / kind / MODEL).stat().st_size / 1e3,
            )
            for kind in ("fp32", "int8")
        }
    notes = {"floor": "bare ONNX Runtime computes no features and verifies nothing"}
    cases = [
        Case("size of a package beside its model, FP32", "kB", round(sizes["fp32"][0], 1), round(sizes["fp32"][1], 1)),
        Case("size of a package beside its model, INT8", "kB", round(sizes["int8"][0], 1), round(sizes["int8"][1], 1)),
        Case("the runtime's own code", "kB", round(wheel_bytes() / 1e3, 1), notes={"floor": "none"}),
    ]
    for what, unit, more in (
        ("start_ms", "ms", False),
        ("p50_us", "µs", False),
        ("p99_us", "µs", False),
        ("rows_s", "rows/s", True),
        ("memory_after_mb", "MB", False),
    ):
        label = {
            "start_ms": "from launch to the first answer",
            "p50_us": "one row, p50",
            "p99_us": "one row, p99",
            "rows_s": "batches of 256",
            "memory_after_mb": "most memory of the process",
        }[what]
        for kind, ours, floor in (("FP32", "ours", "floor"), ("INT8", "int8", "bare8")):
            cases.append(
                Case(f"{label}, {kind}", unit, found[ours][what], found[floor][what], notes=notes, more_is_better=more)
            )
    report("edge", cases)


if __name__ == "__main__":
    main()

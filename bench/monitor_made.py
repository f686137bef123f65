"""What the parts of bench/monitor.py have in common: an endpoint of 25 features, its bundle, and measures."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

import mainspring as ms
from mainspring.core.locks import FileLocks
from mainspring.core.time import DAY
from mainspring.data.adapters.delta import DeltaLake
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.model import Heading
from mainspring.monitoring.adapters.lake import LakeSketches
from mainspring.monitoring.served import served
from mainspring.monitoring.sketching import Sketching
from mainspring.registry.model import Bundle, Input, Manifest
from mainspring.stats.reference import profile

START = 19_700 * DAY
FEATURES = [f"Traffic.f{number}" for number in range(25)]
HEADING = Heading("late", "late", "1", "d1", keys=("order",), features=tuple(FEATURES), outputs=("probability",))
BATCH = 20  # predictions that are answered together
MORE = 1_000
INSTANT = pa.timestamp("us", tz="UTC")

outcomes = ms.Source(
    "outcomes", schema={"order": ms.String, "late": ms.Boolean}, event_time="at", recorded_time="known"
)


def bundle() -> Bundle:
    rng = np.random.default_rng(0)
    reference = profile({**{name: rng.normal(size=50_000) for name in FEATURES}, "probability": rng.random(50_000)})
    inputs = tuple(Input(name, ms.Float64) for name in FEATURES)
    manifest = Manifest(
        model="late",
        task="binary",
        flavour="onnx",
        inputs=inputs,
        outputs=("probability",),
        run_id="r",
        dataset_commit="c",
        features_digest="f",
        code_version="v",
        created_at=0,
    )
    return Bundle("d1", manifest, {"reference.json": msgspec.json.encode(reference)})


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return round(int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024, 1)


def cpu(do: Callable[[], object]) -> float:
    began = time.process_time()
    do()
    return time.process_time() - began


def store(root: Path, segment_folder: str, lake: DeltaLake, *, sketched: bool = True) -> LakePredictions:
    observer = Sketching(LakeSketches(lake), lambda _: described)
    described = served(bundle())
    locks = FileLocks(root / "locks")
    return LakePredictions(root / segment_folder, lake, locks, observer=observer if sketched else None)

"""A small world to monitor: flights that are predicted, arrivals that label them, a bundle with its reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.core.schema import DType
from mainspring.core.time import HOUR
from mainspring.data.model import SEQUENCE, VISIBLE_AT, Source, SourceColumn, TableScan
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.model import Prediction
from mainspring.ledger.ports import Past
from mainspring.monitoring.adapters.memory import MemorySketches
from mainspring.monitoring.model import LabelRows
from mainspring.monitoring.ports import SketchStore
from mainspring.monitoring.served import served
from mainspring.monitoring.sketching import Sketching
from mainspring.registry.model import Bundle, Input, Manifest
from mainspring.stats.reference import Reference, profile
from mainspring.training.label import Label

INSTANT = pa.timestamp("us", tz="UTC")
ARRIVALS = Source(
    "arrivals",
    schema={"flight": DType.String, "late": DType.Boolean, "delay": DType.Float32, "why": DType.String},
    event_time="landed",
    recorded_time="reported",
)


def prediction(number: int, at: int, score: float | None = 0.5, **changes: Any) -> Prediction:
    made = Prediction(
        id=f"p{number}",
        endpoint="late",
        model="late",
        version="1",
        digest="d1",
        at=at,
        keys={"flight": f"f{number}"},
        request={},
        features={},
        statuses={},
        outputs={"probability": score},
        latency_us=1_000,
        principal="test",
    )
    return msgspec.structs.replace(made, **changes)


def ledger(predictions: Sequence[Prediction]) -> MemoryLedger:
    log = MemoryLedger()
    log.append(predictions)
    log.compact()
    return log


def sketching(sketches: SketchStore, load: Callable[[str], Bundle], *, slot_us: int = HOUR) -> Sketching:
    """Return the observer of a prediction log that keeps sketches by the bundles' references."""
    return Sketching(sketches, lambda digest: served(load(digest)), slot_us=slot_us)


def sketched(past: Past, load: Callable[[str], Bundle]) -> MemorySketches:
    """Return the sketches of the predictions in a store that nobody observed."""
    sketches = MemorySketches()
    observer = sketching(sketches, load)
    observer.doubt("all", None, None)
    observer.settle(past)
    return sketches


def read(predictions: Sequence[Prediction]) -> pa.Table:
    return ledger(predictions).read("late", 0, 2**62)


def label(
    flight: str | None, late: bool | None, visible_at: int, *, landed: int = 0, reported: int = 0
) -> dict[str, Any]:
    return {"flight": flight, "late": late, VISIBLE_AT: visible_at, "landed": landed, "reported": reported}


def arrivals(rows: Sequence[Mapping[str, Any]], column: str = "late") -> LabelRows:
    """Return label rows as they landed, in the order given."""
    table = pa.table(
        {
            "flight": pa.array([row["flight"] for row in rows], pa.string()),
            "late": pa.array([row.get("late") for row in rows], pa.bool_()),
            "delay": pa.array([row.get("delay") for row in rows], pa.float32()),
            "why": pa.array([row.get("why") for row in rows], pa.string()),
            "landed": pa.array([row["landed"] for row in rows], INSTANT),
            "reported": pa.array([row["reported"] for row in rows], INSTANT),
            VISIBLE_AT: pa.array([row[VISIBLE_AT] for row in rows], INSTANT),
            SEQUENCE: pa.array(range(len(rows)), pa.int64()),
        }
    )
    return LabelRows(Label(SourceColumn(ARRIVALS, column)), {"flight": DType.String}, TableScan(0, rows=table))


def bundle(
    reference: Reference | None = None, *, digest: str = "d1", task: str = "binary", dtype: DType = DType.Float64
) -> Bundle:
    columns = reference.columns if reference else {}
    inputs = tuple(Input(name, dtype) for name in columns if name.startswith("View."))
    manifest = Manifest(
        model="late",
        task=task,
        flavour="onnx",
        inputs=inputs,
        outputs=("probability",),
        run_id="r",
        dataset_commit="c",
        features_digest="f",
        code_version="v",
        created_at=0,
    )
    files = {} if reference is None else {"reference.json": msgspec.json.encode(reference)}
    return Bundle(digest, manifest, files)


def normal_reference(columns: Sequence[str], rng: np.random.Generator, rows: int = 50_000) -> Reference:
    """Return the reference of standard normal columns, of a category "View.kind", and of a uniform probability."""
    values: dict[str, Any] = {name: rng.normal(size=rows) for name in columns}
    values["View.kind"] = rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1])
    return profile({**values, "probability": rng.random(rows)})

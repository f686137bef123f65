"""Predictions as columns: the lake's table and what monitoring reads. Imports pyarrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from mainspring.core.time import from_datetime
from mainspring.ledger.model import Prediction, Value

INSTANT = pa.timestamp("us", tz="UTC")
_TEXTS = ("id", "endpoint", "model", "version", "digest", "principal")
_DOCUMENTS = ("keys", "request", "features", "statuses", "outputs")  # JSON
_TYPES: dict[str, pa.DataType] = {
    **{name: pa.string() for name in _TEXTS},
    "at": INSTANT,
    "latency_us": pa.int64(),
    **{name: pa.string() for name in _DOCUMENTS},
    "score": pa.float64(),
}
SCHEMA = pa.schema(list(_TYPES.items()))
READ = ("id", "version", "digest", "at", "latency_us", "keys", "request", "features", "statuses", "score")
_json = msgspec.json.Encoder()


def to_batch(predictions: Sequence[Prediction]) -> pa.RecordBatch:
    """Return the predictions as one batch of `SCHEMA`. NaN and infinities become null inside the JSON documents."""
    columns: dict[str, list[Any]] = {
        name: [getattr(prediction, name) for prediction in predictions] for name in (*_TEXTS, "at", "latency_us")
    }
    for name in _DOCUMENTS:
        columns[name] = [_json.encode(getattr(prediction, name)).decode() for prediction in predictions]
    columns["score"] = [_score(prediction.outputs) for prediction in predictions]
    return pa.RecordBatch.from_arrays([pa.array(columns[name], kind) for name, kind in _TYPES.items()], schema=SCHEMA)


def from_table(table: pa.Table) -> list[Prediction]:
    """Return the rows of a table of `SCHEMA` as predictions."""
    return [_prediction(row) for row in table.to_pylist()]


def _prediction(row: Mapping[str, Any]) -> Prediction:
    documents = {name: msgspec.json.decode(row[name]) for name in _DOCUMENTS}
    texts = {name: row[name] for name in _TEXTS}
    return Prediction(**texts, **documents, at=from_datetime(row["at"]), latency_us=row["latency_us"])


def _score(outputs: Mapping[str, Value | list[float]]) -> float | None:
    first = next(iter(outputs.values()), None)
    if isinstance(first, list):
        first = first[0] if first else None
    return float(first) if isinstance(first, (int, float)) else None

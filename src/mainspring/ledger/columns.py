"""Predictions as columns: the lake's table, and the batches that monitoring reads. Imports pyarrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from mainspring.core.time import from_datetime
from mainspring.ledger.batches import GROUPS
from mainspring.ledger.model import Failure, KeptExplanation, Prediction, score_of
from mainspring.ledger.sealing import Opener

INSTANT = pa.timestamp("us", tz="UTC")
_TEXTS = ("id", "endpoint", "model", "version", "digest", "principal")
_SEALED = ("keys", "request", "features")  # columns that may be sealed
_TYPES: dict[str, pa.DataType] = {
    **{name: pa.string() for name in _TEXTS},
    "at": INSTANT,
    "latency_us": pa.int64(),
    **{name: pa.string() for name in GROUPS},  # JSON objects
    "score": pa.float64(),
    # Columns added later; null for older predictions.
    "request_id": pa.string(),
    "share": pa.float64(),
    "personal": pa.string(),  # a JSON list
    "sealed": pa.binary(),
    # Of rollouts; of other predictions, and of those before these columns, they are null.
    "rollout": pa.string(),
    "weight": pa.float64(),
    "unit": pa.int64(),
    "row": pa.int64(),
    "cached": pa.bool_(),  # null before the column
    "arrival": pa.int64(),  # grows with every write into the table; null before the column
}
SCHEMA = pa.schema(list(_TYPES.items()))
_FAILURE_TYPES: dict[str, pa.DataType] = {
    **{name: pa.string() for name in ("id", "endpoint", "model", "version", "digest")},
    "at": INSTANT,
    "kind": pa.string(),
    "status": pa.int64(),
    "latency_us": pa.int64(),
    "rollout": pa.string(),
    "weight": pa.float64(),
    "unit": pa.int64(),
    "principal": pa.string(),
    "request_id": pa.string(),
    "share": pa.float64(),
    "count": pa.int64(),
    "arrival": pa.int64(),
}
FAILURE_SCHEMA = pa.schema(list(_FAILURE_TYPES.items()))
_EXPLANATION_TYPES: dict[str, pa.DataType] = {
    **{name: pa.string() for name in ("id", "endpoint", "model", "version", "digest")},
    "at": INSTANT,
    **{name: pa.string() for name in ("origin", "method", "space")},
    "exact": pa.bool_(),
    "residual": pa.float64(),
    "document": pa.string(),  # JSON
    "arrival": pa.int64(),
}
EXPLANATION_SCHEMA = pa.schema(list(_EXPLANATION_TYPES.items()))
_OBSERVED = ("id", "version", "at", "latency_us", "share", "weight", "unit")  # of predictions and failures alike
OBSERVED_SCHEMA = pa.schema(
    [
        *((name, _TYPES[name]) for name in (*_OBSERVED, "row", "score", "cached")),
        ("status", pa.int64()),
        ("kind", pa.string()),
        ("count", pa.int64()),
    ]
)
OBSERVED_PREDICTION = (*_OBSERVED, "row", "score", "cached")  # what of the tables that is
OBSERVED_FAILURE = (*_OBSERVED, "status", "kind", "count")
_OTHERWISE = {"row": 0, "status": 200, "count": 1, "cached": False}
READ = (
    "id",
    "version",
    "digest",
    "at",
    "latency_us",
    "keys",
    "request",
    "features",
    "statuses",
    "score",
    "share",
    "personal",
)
WATCHED = ("id", "version", "digest", "at", "latency_us", "keys", "features", "score", "share", "personal")
READ_BY_ROW = {*_SEALED, "share", "personal"}  # columns that `read_of` may change
_ASSIGNED = ("rollout", "weight", "unit", "row")
_PLAIN = ("at", "latency_us", "request_id", "share", "sealed", "cached")
_json = msgspec.json.Encoder()


def to_batch(predictions: Sequence[Prediction], arrival: int | None = None) -> pa.RecordBatch:
    """Return the predictions as one batch of `SCHEMA`. NaN and infinities become null inside the JSON documents."""
    columns: dict[str, list[Any]] = {
        name: [getattr(prediction, name) for prediction in predictions] for name in (*_TEXTS, *_PLAIN)
    }
    for name in (*GROUPS, "personal"):
        columns[name] = [_json.encode(getattr(prediction, name)).decode() for prediction in predictions]
    columns["score"] = [score_of(prediction) for prediction in predictions]
    for name in _ASSIGNED:
        columns[name] = [getattr(prediction, name) if prediction.rollout else None for prediction in predictions]
    columns["arrival"] = [arrival] * len(predictions)
    return pa.RecordBatch.from_arrays([pa.array(columns[name], kind) for name, kind in _TYPES.items()], schema=SCHEMA)


def failures_batch(failures: Sequence[Failure], arrival: int | None = None) -> pa.RecordBatch:
    """Return the failures as one batch of `FAILURE_SCHEMA`."""
    rows = [{**msgspec.structs.asdict(each), "arrival": arrival} for each in failures]
    return pa.RecordBatch.from_pylist(rows, schema=FAILURE_SCHEMA)


def failures_from(table: pa.Table) -> list[Failure]:
    """Return the rows of a table of `FAILURE_SCHEMA` as failures, oldest first."""
    rows = table.drop_columns(["arrival"]).sort_by([("at", "ascending"), ("id", "ascending")]).to_pylist()
    return [Failure(**{**row, "at": from_datetime(row["at"])}) for row in rows]


def explanations_batch(explanations: Sequence[KeptExplanation], arrival: int | None = None) -> pa.RecordBatch:
    """Return the explanations as one batch of `EXPLANATION_SCHEMA`."""
    rows = [{**msgspec.structs.asdict(each), "arrival": arrival} for each in explanations]
    return pa.RecordBatch.from_pylist(rows, schema=EXPLANATION_SCHEMA)


def explanations_from(table: pa.Table) -> list[KeptExplanation]:
    """Return the rows of a table of `EXPLANATION_SCHEMA`."""
    rows = table.drop_columns(["arrival"]).to_pylist()
    return [KeptExplanation(**{**row, "at": from_datetime(row["at"])}) for row in rows]


def observed(table: pa.Table) -> pa.Table:
    """Return predictions or failures of a rollout as `OBSERVED_SCHEMA`: the status of a prediction is 200."""
    columns = [
        table[each.name]
        if each.name in table.column_names
        else pa.repeat(pa.scalar(_OTHERWISE.get(each.name), each.type), len(table))
        for each in OBSERVED_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=OBSERVED_SCHEMA)


def from_table(table: pa.Table) -> list[Prediction]:
    """Return the rows of a table of `SCHEMA` as predictions."""
    return [_prediction(row) for row in table.to_pylist()]


def _prediction(row: Mapping[str, Any]) -> Prediction:
    documents = {name: msgspec.json.decode(row[name]) for name in GROUPS}
    texts = {name: row[name] for name in _TEXTS}
    return Prediction(
        **texts,
        **documents,
        at=from_datetime(row["at"]),
        latency_us=row["latency_us"],
        request_id=row["request_id"] or "",
        share=_whole(row["share"]),
        personal=tuple(msgspec.json.decode(row["personal"] or "[]")),
        sealed=row["sealed"] or b"",
        rollout=row["rollout"] or "",
        weight=_whole(row["weight"]),
        unit=row["unit"] or 0,
        row=row["row"] or 0,
        cached=bool(row["cached"]),
    )


def read_of(table: pa.Table, opener: Opener, columns: Sequence[str] = READ) -> pa.Table:
    """Return `columns` of a table that also has `sealed`, with the sealed values decrypted in place.

    Raises:
        Corrupt: The values were sealed by another installation's key.
    """
    shares = pa.array([_whole(share) for share in table["share"].to_pylist()], pa.float64())
    table = table.set_column(table.column_names.index("share"), "share", shares)
    sealed: list[Any] = table["sealed"].to_pylist()
    ids = [str(each) for each in table["id"].to_pylist()]
    values_by_row = opener.open_all(ids, [each or b"" for each in sealed])
    opened = {row: values for row, values in enumerate(values_by_row) if values is not None}
    personal = ["[]" if row in opened else names or "[]" for row, names in enumerate(table["personal"].to_pylist())]
    table = table.set_column(table.column_names.index("personal"), "personal", pa.array(personal, pa.string()))
    for name in set(columns).intersection(_SEALED) if opened else ():
        documents: list[Any] = table[name].to_pylist()
        for row, values in opened.items():
            if values[name]:
                documents[row] = _json.encode(msgspec.json.decode(documents[row]) | values[name]).decode()
        table = table.set_column(table.column_names.index(name), name, pa.array(documents, pa.string()))
    return table.select(list(columns))


def _whole(share: float | None) -> float:
    return 1.0 if share is None else share

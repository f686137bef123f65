"""Outputs and dead letters of stream endpoints as rows of tables. Imports pyarrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from mainspring.serving.streaming.event import DeadLetter, Output

_INSTANT = pa.timestamp("us", "UTC")
_encode = msgspec.json.Encoder(order="deterministic").encode


def outputs(rows: Sequence[Output]) -> Any:
    """Return outputs as a table: the columns of the key as text, the first number as `score`, all outputs as JSON.

    The types of outputs may change with a version, so they are no columns.
    """
    names = list(rows[0].keys)
    columns: dict[str, Any] = {
        "event_id": pa.array([row.event_id for row in rows], pa.string()),
        "event_time": pa.array([row.at for row in rows], pa.int64()).cast(_INSTANT),
        "model": pa.array([row.model for row in rows], pa.string()),
        "version": pa.array([row.version for row in rows], pa.string()),
        **{name: pa.array([_text(row.keys.get(name)) for row in rows], pa.string()) for name in names},
        "score": pa.array([_score(row.outputs) for row in rows], pa.float64()),
        "outputs": pa.array([_encode(row.outputs).decode() for row in rows], pa.string()),
    }
    return pa.table(columns)


def dead_letters(rows: Sequence[DeadLetter]) -> Any:
    """Return dead letters as a table."""
    return pa.table(
        {
            "partition": pa.array([row.partition for row in rows], pa.int32()),
            "offset": pa.array([row.offset for row in rows], pa.string()),
            "key": pa.array([row.key for row in rows], pa.binary()),
            "value": pa.array([row.value for row in rows], pa.binary()),
            "at": pa.array([row.at for row in rows], pa.int64()).cast(_INSTANT),
            "reason": pa.array([row.reason for row in rows], pa.string()),
        }
    )


def _text(value: Any) -> str | None:
    return None if value is None else value if isinstance(value, str) else _encode(value).decode()


def _score(of: Mapping[str, Any]) -> float | None:
    return next((float(value) for value in of.values() if type(value) in (int, float)), None)

"""The files of a bundle beside the model: reference statistics, golden rows, held-out rows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mainspring.core.schema import DType
from mainspring.registry.model import Input
from mainspring.stats import reference
from mainspring.training.frames import Array, exact_in_float32
from mainspring.training.sets import Split

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

GOLDEN_ROWS = 200
_MOST_CATEGORIES = 1000


def inputs_of(train: Split, dtypes: dict[str, DType]) -> tuple[Input, ...]:
    """Return the model's inputs; of strings with the categories seen in training, unless there are over 1,000."""
    found = []
    for name, dtype in dtypes.items():
        seen: list[str] = []
        if dtype == DType.String:
            seen = sorted({value for value in train.X[name] if value is not None})
        found.append(Input(name, dtype, tuple(seen) if len(seen) <= _MOST_CATEGORIES else ()))
    return tuple(found)


def wide_columns(splits: Sequence[Split], dtypes: dict[str, DType]) -> list[str]:
    """Return the numeric columns with a value that float32 cannot hold."""
    numeric = [name for name, dtype in dtypes.items() if dtype not in (DType.String, DType.Float32, DType.Boolean)]
    return [name for name in numeric if not all(exact_in_float32(split.X[name].to_numpy()) for split in splits)]


def reference_file(train: Split, scores: Array, outputs: Sequence[str]) -> bytes:
    """Return the reference of every training column, and of the held-out scores under the outputs' names."""
    columns: dict[str, Any] = {name: train.X[name].to_numpy() for name in train.X.columns}
    columns.update({name: scores[:, position] for position, name in enumerate(outputs)})
    return msgspec.json.encode(reference.profile(columns))


def golden_file(held_out: pd.DataFrame, dtypes: Mapping[str, DType], scores: Array, outputs: Sequence[str]) -> bytes:
    """Return some 200 held-out rows, spread over time, and the answers that the bundle must give to them.

    JSON: `inputs` has name -> values (null for null), `outputs` has name -> values.
    """
    rows = np.unique(np.linspace(0, len(held_out) - 1, min(GOLDEN_ROWS, len(held_out))).astype(int))
    golden = {
        "inputs": {
            name: [_json(value, dtype) for value in held_out[name].to_numpy()[rows]] for name, dtype in dtypes.items()
        },
        "outputs": {name: [float(value) for value in scores[rows, at]] for at, name in enumerate(outputs)},
    }
    return msgspec.json.encode(golden)


def parquet_file(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def _json(value: Any, dtype: DType) -> Any:
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return None
    if dtype == DType.Boolean:
        return bool(value)
    if dtype in (DType.Int32, DType.Int64):
        return int(value)
    return value if dtype == DType.String else float(value)

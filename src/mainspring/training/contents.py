"""Files of a bundle beside the model: reference statistics, golden rows, held-out rows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mainspring.core.schema import DType
from mainspring.registry.column_codec import pack
from mainspring.registry.model import Input
from mainspring.stats import reference
from mainspring.training.equivalence.probes import THRESHOLD
from mainspring.training.frames import Array, exact_in_float32, seen_texts
from mainspring.training.sets.training_set import Split

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

GOLDEN_ROWS, GOLDEN_PROBES = 200, 500
_MOST_CATEGORIES = 1000


def inputs_of(train: Split, dtypes: dict[str, DType]) -> tuple[Input, ...]:
    """Return the model's inputs; string inputs list the categories seen in training, unless there are over 1,000."""
    found = []
    for name, dtype in dtypes.items():
        seen: tuple[str, ...] = ()
        if dtype == DType.String:
            seen = seen_texts(train.X[name])
        found.append(Input(name, dtype, seen if len(seen) <= _MOST_CATEGORIES else ()))
    return tuple(found)


def wide_columns(splits: Sequence[Split], dtypes: dict[str, DType]) -> list[str]:
    """Return the numeric columns with a value that is not exact in float32."""
    numeric = [name for name, dtype in dtypes.items() if dtype not in (DType.String, DType.Float32, DType.Boolean)]
    return [name for name in numeric if not all(exact_in_float32(split.X[name].to_numpy()) for split in splits)]


def reference_file(train: Split, scores: Array, outputs: Sequence[str]) -> bytes:
    """Return the reference profile of every training column, and of the held-out scores under the outputs' names."""
    columns: dict[str, Any] = {name: train.X[name].to_numpy() for name in train.X.columns}
    columns.update({name: scores[:, position] for position, name in enumerate(outputs)})
    return msgspec.json.encode(reference.profile(columns))


def golden_file(
    held_out: pd.DataFrame,
    dtypes: Mapping[str, DType],
    scores: Array,
    outputs: Sequence[str],
    probes: tuple[pd.DataFrame, Array] | None = None,
    plain: tuple[pd.DataFrame, Array] | None = None,
) -> bytes:
    """Return about 200 held-out rows, spread over time, with the predictions that the bundle must reproduce.

    JSON: `inputs` maps name -> values (null for null), `outputs` maps name -> values. `probes` has both for rows with
    nulls, unseen categories and values at split thresholds; `held_out` has them, packed, for up to 10,000 others. Each
    load replays all of them.

    Args:
        probes: Probe rows, and the model's predictions for them.
        plain: Rows of `rows.plain_rows`, and the model's predictions for them.
    """
    rows = np.unique(np.linspace(0, len(held_out) - 1, min(GOLDEN_ROWS, len(held_out))).astype(int))
    golden: dict[str, Any] = _golden(held_out, dtypes, scores, outputs, rows)
    if probes is not None:
        golden["probes"] = _golden(probes[0], dtypes, probes[1], outputs, np.arange(len(probes[0])))
    if plain is not None:
        columns = {name: plain[0][name].to_numpy() for name in dtypes}
        golden["held_out"] = pack(columns, {name: plain[1][:, at] for at, name in enumerate(outputs)})
    return msgspec.json.encode(golden)


def golden_probes(probes: pd.DataFrame, words: Sequence[str], dtypes: Mapping[str, DType]) -> pd.DataFrame:
    """Return the probe rows that each load replays: one of each kind, and at most 500 at thresholds.

    Only rows that a request could hold: whole numbers in integer columns, 0 or 1 in Boolean columns.
    """
    fine = np.ones(len(probes), bool)
    for name, dtype in dtypes.items():
        if dtype in (DType.Int32, DType.Int64, DType.Boolean):
            values = probes[name].to_numpy(np.float64)
            whole = np.isin(values, (0, 1)) if dtype == DType.Boolean else np.floor(values) == values
            fine &= whole | np.isnan(values)
    near = np.array([THRESHOLD in word for word in words])
    kinds = {words[row]: row for row in np.flatnonzero(fine & ~near).tolist()}
    thresholds = np.flatnonzero(fine & near)
    some = np.linspace(0, len(thresholds) - 1, min(len(thresholds), GOLDEN_PROBES)).astype(int)
    return probes.iloc[[*kinds.values(), *thresholds[some]]].reset_index(drop=True)


def _golden(
    frame: pd.DataFrame, dtypes: Mapping[str, DType], scores: Array, outputs: Sequence[str], rows: Array
) -> dict[str, Any]:
    return {
        "inputs": {
            name: [_json(value, dtype) for value in frame[name].to_numpy()[rows]] for name, dtype in dtypes.items()
        },
        "outputs": {name: [float(value) for value in scores[rows, at]] for at, name in enumerate(outputs)},
    }


def parquet_file(table: pa.Table) -> bytes:
    """Encode a table as a Parquet file."""
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

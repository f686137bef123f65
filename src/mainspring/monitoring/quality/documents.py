"""Documents of predictions (keys, features, outputs), and the segments of rows by their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.monitoring.joins import json_rows
from mainspring.stats.quality_sums import Ints
from mainspring.stats.reference import ColumnReference
from mainspring.stats.segmenting import AND, OTHER, segments_of

FEATURES = "features"
_MOST_COMBINATIONS = 200  # of the columns of fairness in one window


def segments_by(name: str, values: Sequence[Any], column: ColumnReference | None) -> npt.NDArray[Any]:
    """Return the segment of each value, shape (rows,)."""
    place, names = segments_of(name, values, column)
    return np.array(names, dtype=object)[place]


def combined(names: Sequence[str], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return one segment a row: `Customer.sex=f and Customer.age_band=old`. The rarest of very many are one."""
    common = {row for row, _ in Counter(rows).most_common(_MOST_COMBINATIONS)}
    others = tuple(f"{name}={OTHER}" for name in names)
    return [AND.join(row if row in common else others) for row in rows]


class Documents:
    """Keys, features and outputs of predictions, decoded when they are asked for."""

    def __init__(self, predictions: pa.Table) -> None:
        self._predictions = predictions
        self._decoded: dict[str, list[dict[str, Any]]] = {}

    def of(self, column: str) -> list[dict[str, Any]]:
        if column not in self._decoded:
            there = column in self._predictions.column_names
            self._decoded[column] = json_rows(self._predictions[column]) if there else [{}] * self._predictions.num_rows
        return self._decoded[column]

    def features(self, names: Sequence[str], rows: Ints) -> dict[str, list[Any]]:
        """Return the values of some features in some rows; `None` where one is missing."""
        fields = {f"f{place}": name for place, name in enumerate(names)}
        row = msgspec.defstruct("Features", [(field, Any, None) for field in fields], rename=fields)
        texts = self._predictions[FEATURES].take(pa.array(rows, pa.int64())).to_pylist()
        kind: Any = list[row]  # type: ignore[valid-type]
        decoded = msgspec.json.decode("[" + ",".join(text or "{}" for text in texts) + "]", type=kind)
        return {name: [getattr(each, field) for each in decoded] for field, name in fields.items()}

    def values(self, name: str, rows: Ints) -> list[Any]:
        """Return a feature, key or field of the request of some rows; `None` where it is missing."""
        features, keys, request = self.of(FEATURES), self.of("keys"), self.of("request")
        return [features[row].get(name, keys[row].get(name, request[row].get(name))) for row in rows.tolist()]

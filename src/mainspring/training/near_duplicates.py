"""Search of a model's training data for rows that nearly repeat an earlier one, in any part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.core.schema import DType
from mainspring.core.time import format_instant
from mainspring.stats import near_duplicates
from mainspring.training.row_table import csv_table, keys_of
from mainspring.training.sets.training_set import Split, TrainingSet

PARTS = ("train", "validation", "holdout")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the training data.

    Attributes:
        keys: The key columns of the label.
        at: Time of the prediction, UTC epoch microseconds.
        part: Of the training set, one of `PARTS`.
    """

    keys: dict[str, Any]
    at: int
    part: str
    label: Any


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A row that nearly repeats an earlier one; of several the first.

    Attributes:
        similarity: Of their features, at most 1; see `stats.near_duplicates`.
    """

    row: Row
    of: Row
    similarity: float


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Rows that nearly repeat an earlier one, in the order of time.

    Attributes:
        rows: Part -> number of rows.
        repeats: Part -> number of rows that nearly repeat an earlier one.
        of_training: Part -> number of those that repeat a training row.
        most_repeated: Row -> how many rows repeat it, those with the most first.
    """

    rows: dict[str, int]
    repeats: dict[str, int]
    of_training: dict[str, int]
    most_repeated: tuple[tuple[Row, int], ...]
    found: tuple[NearDuplicate, ...]


def find(data: TrainingSet, threshold: float, *, seed: int = 0, most: int = 10) -> NearDuplicates:
    """Return the rows whose features have a similarity of at least `threshold` with those of an earlier row.

    Args:
        most: Number of `most_repeated`.
    """
    parts = (data.train, data.validation, data.holdout)
    rows = Split.joined(parts)
    sizes = np.cumsum([len(part) for part in parts])
    columns = {
        name: rows.X[name].to_numpy() if dtype == DType.String else rows.X[name].to_numpy(np.float64)
        for name, dtype in data.dtypes.items()
    }
    repeats = near_duplicates.find(columns, threshold, seed)

    def told(places: np.ndarray[Any, Any]) -> list[Row]:
        part = np.searchsorted(sizes, places, side="right").tolist()
        labels, at = rows.y[places].tolist(), rows.at[places].tolist()
        return [
            Row(keys, *each) for keys, *each in zip(
                keys_of(rows, places), at, [PARTS[place] for place in part], labels, strict=True
            )
        ]  # fmt: skip

    found = tuple(map(NearDuplicate, told(repeats.rows), told(repeats.of), repeats.similarity.tolist()))
    often = Counter(repeats.of.tolist()).most_common(most)
    return NearDuplicates(
        dict(zip(PARTS, map(len, parts), strict=True)),
        _by_part(each.row.part for each in found),
        _by_part(each.row.part for each in found if each.of.part == PARTS[0]),
        tuple(zip(told(np.array([place for place, _ in often], np.int64)), (many for _, many in often), strict=True)),
        found,
    )


def _by_part(parts: Any) -> dict[str, int]:
    counts = Counter(parts)
    return {part: counts[part] for part in PARTS}


def table_of(found: NearDuplicates, *, hidden: Collection[str] = ()) -> bytes:
    """Return the near-duplicates as CSV, without key columns that identify a person."""
    names = [name for name in (found.found[0].row.keys if found.found else ()) if name not in hidden]

    def cells(row: Row) -> list[Any]:
        label = "; ".join(map(str, row.label)) if isinstance(row.label, list) else row.label
        return [*(row.keys[name] for name in names), format_instant(row.at), row.part, label]

    columns = [*names, "at", "part", "label"]
    return csv_table(
        [*columns, *(f"of_{name}" for name in columns), "similarity"],
        ([*cells(each.row), *cells(each.of), f"{each.similarity:.6g}"] for each in found.found),
    )

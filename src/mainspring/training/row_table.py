"""Rows of a training set as people read them: by their keys, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.training.model import Model
from mainspring.training.sets.training_set import Split


def keys_of(rows: Split, places: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the keys of some rows, as JSON has them; empty ones if they are unknown."""
    if rows.keys is None:
        return [{} for _ in places]
    found = rows.keys.iloc[places].astype(object).to_dict("records")  # as objects: whole numbers stay whole
    return [{str(name): _plain(value) for name, value in of.items()} for of in found]


def personal_keys(model: Model) -> frozenset[str]:
    """Return the names of columns that identify a person, in the observations' source or a label's."""
    return frozenset(
        name for source in (model.observations.source, *(each.source for each in model.labels)) for name in source.pii
    )


def csv_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return rows as CSV in which no spreadsheet takes a text for a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value

"""Rows with which an explanation compares a row: the background of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from mainspring.registry.bundles import GOLDEN
from mainspring.registry.model import Bundle
from mainspring.serving.explanation import Array, NotExplainable, takes_tensors
from mainspring.serving.ports import Executor

MOST_ROWS = 100


class _Golden(msgspec.Struct, frozen=True):
    inputs: dict[str, list[Any]]


def owner_of(bundle: Bundle) -> str:
    return f"{bundle.manifest.model} (bundle {bundle.digest[:12]})"


def background_of(bundle: Bundle, rows: int = MOST_ROWS) -> tuple[dict[str, list[Any]], int]:
    """Return up to `rows` held-out rows of a bundle of columns, evenly spaced, and their number.

    Raises:
        NotExplainable: The bundle takes tensors, or has no such rows.
    """
    if bundle.manifest.tensors:
        raise takes_tensors(owner_of(bundle))
    try:
        golden = msgspec.json.decode(bundle.files[GOLDEN], type=_Golden).inputs
        count = len(next(iter(golden.values())))
    except (KeyError, StopIteration, msgspec.DecodeError):
        count = 0
    if not count:
        why = "the bundle has no rows to compare with"
        raise NotExplainable(owner_of(bundle), why, fix="train the model again: new bundles have held-out rows.")
    chosen = np.unique(np.linspace(0, count - 1, min(rows, count)).astype(int)).tolist()
    return {name: [values[row] for row in chosen] for name, values in golden.items()}, len(chosen)


def answers_of(executor: Executor, inputs: Mapping[str, Sequence[Any]], rows: int) -> Array:
    """Return the model's answers, shape (rows, outputs)."""
    found = executor.predict(inputs, rows)
    return np.column_stack([np.asarray(found[name], np.float64) for name in executor.outputs])

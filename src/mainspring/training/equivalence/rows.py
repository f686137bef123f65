"""Ordinary comparison rows: held-out rows, supplemented by recombined ones where there are too few."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mainspring.training.frames import Array

if TYPE_CHECKING:
    import pandas as pd

ROWS = 10_000
MOST_ROWS = 40_000
HELD_OUT, MADE = "held out", "made of held-out values"


def plain_rows(
    held_out: pd.DataFrame, rng: np.random.Generator, most: int = MOST_ROWS
) -> tuple[pd.DataFrame, list[str]]:
    """Return at least `ROWS` rows, and the kind of each: `HELD_OUT` or `MADE`.

    A made row takes each column's value from a random held-out row: the combination is new, every value is real.
    Repeating held-out rows instead would prove nothing more.

    Args:
        held_out: At least one row.
        most: Maximum number of held-out rows; more are sampled at even steps.
    """
    import pandas as pd

    count = len(held_out)
    kept = held_out if count <= most else held_out.iloc[_spread(count, most)]
    missing = max(0, ROWS - len(kept))
    if not missing:
        return kept.reset_index(drop=True), [HELD_OUT] * len(kept)
    drawn = {name: held_out[name].to_numpy()[rng.integers(0, count, missing)] for name in held_out.columns}
    made = pd.DataFrame({name: pd.Series(values, dtype=held_out[name].dtype) for name, values in drawn.items()})
    return pd.concat([kept, made], ignore_index=True), [HELD_OUT] * len(kept) + [MADE] * missing


def _spread(count: int, most: int) -> Array:
    return np.linspace(0, count - 1, most).astype(np.int64)

"""Small training sets, made by rule: what the tests of training take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mainspring.core.schema import DType
from mainspring.core.time import HOUR
from mainspring.training.sets.training_set import Split, TrainingSet


def toy(rows: int = 2000, task: str = "binary", seed: int = 0, **extra: Any) -> TrainingSet:
    """Rows an hour apart with three honest features of moderate worth; `extra` columns by name, of shape (rows,),
    or functions of (X, y, rng) that make them."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "V.a": rng.normal(size=rows).astype(np.float32),
            "V.b": rng.normal(size=rows).astype(np.float32),
            "V.c": pd.Series(rng.choice(["north", "south", "west"], rows), dtype=object),
        }
    )
    X.loc[rng.random(rows) < 0.1, "V.b"] = np.nan
    pull = X["V.a"].to_numpy(np.float64) + 0.7 * X["V.b"].fillna(0).to_numpy() + 0.5 * (X["V.c"] == "north").to_numpy()
    if task == "regression":
        y: Any = pull + rng.normal(size=rows)
    elif task == "binary":
        y = (rng.random(rows) < 1 / (1 + np.exp(-1.5 * pull))).astype(np.int64)
    else:
        y = np.array(["low", "middle", "high"], object)[np.digitize(pull + rng.normal(size=rows), [-0.7, 0.7])]
    for name, values in extra.items():
        column = values(X, y, rng) if callable(values) else values
        X[f"V.{name}"] = pd.Series(column, dtype=column.dtype)  # as objects, not as pandas' own texts
    dtypes = {name: DType.String if X[name].dtype == object else DType.Float32 for name in X}
    every = Split(X, y, np.arange(rows) * HOUR, pd.DataFrame({"id": np.arange(rows)}))
    cut = (slice(0, int(0.7 * rows)), slice(int(0.7 * rows), int(0.8 * rows)), slice(int(0.8 * rows), rows))
    train, validation, holdout = (every.rows(part) for part in cut)
    return TrainingSet(train, validation, holdout, dtypes, task)

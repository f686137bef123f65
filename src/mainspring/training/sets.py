"""What a training function is given: rows in order of time, cut where the future begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mainspring.core import html
from mainspring.core.schema import DType
from mainspring.core.time import format_instant

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Split:
    """Some of the rows, oldest first.

    `X` has shape (rows, features), one column a feature by its full name. Float32 and Boolean come as float32 (NaN for
    null), Float64 and the integers as float64 (NaN for null: a null may come later even where training has none),
    String as object (`None` for null; an empty string counts as null, since a bundle cannot tell them apart).
    `y` has shape (rows,): int64 0 and 1 for a binary task, int64 or strings for multiclass, float64 for regression.
    `at` has shape (rows,): the instants at which the predictions were to be made, UTC epoch microseconds.
    """

    X: pd.DataFrame
    y: np.ndarray[Any, Any]
    at: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.y)

    @property
    def span(self) -> tuple[str, str]:
        """The first and the last instant, in words; empty where there is no row."""
        return (format_instant(int(self.at[0])), format_instant(int(self.at[-1]))) if len(self) else ("", "")


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Rows whose features were known at `at` and whose labels were known when the training began.

    `train` comes first in time, then `validation` (for early stopping and choices), then `holdout`, on which the
    finished model is judged: fit nothing on it. `dropped` counts the observations that had no label yet.
    """

    train: Split
    validation: Split
    holdout: Split
    dtypes: Mapping[str, DType]
    task: str
    dropped: int = 0

    @property
    def features(self) -> list[str]:
        """The columns' full names, in order."""
        return list(self.dtypes)

    @property
    def categorical(self) -> list[str]:
        """The names of the string columns."""
        return [name for name, dtype in self.dtypes.items() if dtype == DType.String]

    @property
    def numeric(self) -> list[str]:
        """The names of all other columns."""
        return [name for name, dtype in self.dtypes.items() if dtype != DType.String]

    def __repr__(self) -> str:
        rows = f"{len(self.train):,} + {len(self.validation):,} + {len(self.holdout):,}"
        return f"<training set of {len(self.dtypes)} features, rows {rows} (train, validation, holdout)>"

    def _repr_html_(self) -> str:
        parts = {"train": self.train, "validation": self.validation, "holdout": self.holdout}
        spans = [(name, f"{len(part):,}", *part.span) for name, part in parts.items()]
        nulls = self.train.X.isna().mean()
        columns = [
            (html.code(name), dtype.name, f"{nulls[name]:.1%}", *self.train.X[name].head(5).tolist())
            for name, dtype in self.dtypes.items()
        ]
        first = [f"row {row}" for row in range(min(5, len(self.train)))]
        note = f"{self.task}, {len(self.dtypes)} features, {self.dropped:,} observations without a label left out"
        return html.joined(
            html.title("Training set", note),
            html.table(("", "rows", "from", "to"), spans),
            html.table(("feature", "type", "nulls", *first), columns),
        )

    def only(self, features: Sequence[str]) -> TrainingSet:
        """Return the same rows with only these columns."""

        def narrow(split: Split) -> Split:
            return replace(split, X=split.X[list(features)])

        return replace(
            self,
            train=narrow(self.train),
            validation=narrow(self.validation),
            holdout=narrow(self.holdout),
            dtypes={name: self.dtypes[name] for name in features},
        )

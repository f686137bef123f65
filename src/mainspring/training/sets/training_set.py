"""Input of a training function: rows ordered by time, split into training, validation and holdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mainspring.core import html
from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.schema import DType
from mainspring.core.time import format_instant, parse_duration

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of one part, oldest first.

    `X` has shape (rows, features), one column per feature under its full name. Float32 and Boolean are float32 (NaN for
    null), Float64 and the integers float64 (NaN for null: serving may bring a null where training had none), String is
    object (`None` for null; an empty string counts as null, since a bundle cannot distinguish them).

    `y` has shape (rows,): int64 0 and 1 for a binary task, int64 or strings for multiclass, float64 for regression; for
    several labels, float64 of shape (rows, labels).

    `at` has shape (rows,): the times of the predictions, UTC epoch microseconds.

    `keys` has a column for each key of the label; `None` if unknown.
    """

    X: pd.DataFrame
    y: np.ndarray[Any, Any]
    at: np.ndarray[Any, Any]
    keys: pd.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def span(self) -> tuple[str, str]:
        """The first and the last time as text; empty if there are no rows."""
        return (format_instant(int(self.at[0])), format_instant(int(self.at[-1]))) if len(self) else ("", "")

    def rows(self, chosen: slice) -> Split:
        """Return a slice of the rows, numbered from 0."""
        return Split(
            self.X.iloc[chosen].reset_index(drop=True),
            self.y[chosen],
            self.at[chosen],
            None if self.keys is None else self.keys.iloc[chosen].reset_index(drop=True),
        )

    @classmethod
    def joined(cls, parts: Sequence[Split]) -> Split:
        """Return the rows of several parts, one after another."""
        import numpy as np
        import pandas as pd

        keys = [part.keys for part in parts if part.keys is not None]
        return cls(
            pd.concat([part.X for part in parts], ignore_index=True),
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.at for part in parts]),
            pd.concat(keys, ignore_index=True) if len(keys) == len(parts) else None,
        )


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold of a cross-validation by time.

    `indices` are its rows in `TrainingSet.development`, as scikit-learn's `cv` takes them: (train, validation), each of
    shape (rows,).
    """

    train: Split
    validation: Split
    indices: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Rows with the features known at `at` and the labels known when the training began.

    `train` is the earliest part, then come `validation` (for early stopping and choices) and `holdout`, on which the
    finished model is evaluated: fit nothing on it. `dropped` counts the observations without a label, `left_out` the
    same by reason. `embargo_us` is the time before each later part in which rows were left out. `own` maps a feature to
    the column of its own observation that it repeats (`leakage.own_columns`). `labels` are the column names of `y` if
    there are several.
    """

    train: Split
    validation: Split
    holdout: Split
    dtypes: Mapping[str, DType]
    task: str
    dropped: int = 0
    embargo_us: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    @property
    def features(self) -> list[str]:
        """The full names of the columns, in order."""
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

    def with_categories(self) -> TrainingSet:
        """Return the same rows with texts as pandas categories, for categorical splits of XGBoost and LightGBM.

        A column's categories are its texts in `train`, sorted. Null and every other text are missing. The name of a
        category is its text, or the text's JSON if it is not ASCII or begins with a quotation mark.

        Raises:
            InvalidData: A column has no text in `train`, or over 65,536.
        """
        from mainspring.training.frames import MOST_CATEGORIES, category_name, seen_texts, to_categories

        plain = [name for name in self.categorical if self.train.X[name].dtype == object]
        known = {name: seen_texts(self.train.X[name]) for name in plain}
        names = {name: [category_name(text) for text in texts] for name, texts in known.items()}
        for name, texts in known.items():
            if not 0 < len(texts) <= MOST_CATEGORIES:
                raise InvalidData(
                    f"Feature {name!r} has {len(texts):,} texts in the training part; a column of categories can "
                    f"have 1 to {MOST_CATEGORIES:,}.",
                    fix="leave it out, or derive coarser categories in a feature.",
                )
        parts = (self.train, self.validation, self.holdout)
        train, validation, holdout = (replace(part, X=to_categories(part.X, names)) for part in parts)
        return replace(self, train=train, validation=validation, holdout=holdout)

    @property
    def development(self) -> Split:
        """The rows of `train` followed by those of `validation`: all rows that may be fitted on."""
        return Split.joined([self.train, self.validation])

    def folds(self, count: int, *, embargo: str | int | None = None, window: str | int | None = None) -> list[Fold]:
        """Return `count` folds of the development rows for a cross-validation by time, oldest first.

        Fold k is validated on part k + 1 of `count + 1` parts and trained on the rows before it.

        Args:
            embargo: Duration before the validation in which rows are left out; by default the model's embargo.
            window: Duration that the training covers (a sliding window); by default everything before the validation
                (an expanding one).

        Raises:
            Invalid: `count` is less than 1, or a duration is invalid.
            InvalidData: A fold has no rows to train or to validate on.
        """
        import numpy as np

        from mainspring.training.sets.splits import folds_by_time

        rows = self.development
        cuts = folds_by_time(
            rows.at,
            count,
            embargo=self.embargo_us if embargo is None else parse_duration(embargo),
            window=None if window is None else parse_duration(window),
        )
        every = np.arange(len(rows))
        return [
            Fold(rows.rows(cut.train), rows.rows(cut.validation), (every[cut.train], every[cut.validation]))
            for cut in cuts
        ]

    def class_weights(self) -> dict[Any, float]:
        """Return class -> weight that balances the classes in `train`, in the form of `class_weight=`.

        Raises:
            Invalid: The task is regression.
        """
        from mainspring.training.sets.weights import class_weights

        if self.task == "regression":
            raise Invalid("A regression has no classes to weigh.", fix="use data.sample_weights(balanced=False, ...).")
        return class_weights(self.train.y)

    def sample_weights(self, *, balanced: bool | None = None, half_life: str | int | None = None) -> Any:
        """Return the weight of each row of `train`, float64 of shape (rows,) with mean 1, in the form of
        `sample_weight=`.

        Args:
            balanced: Give every class the same total weight; by default for tasks with classes.
            half_life: Duration after which a row's weight halves, by its age; by default age has no effect.

        Raises:
            Invalid: `half_life` is not a positive duration, or `balanced` is set for a regression.
        """
        from mainspring.training.sets.weights import sample_weights

        classes = self.task != "regression"
        if balanced and not classes:
            raise Invalid("A regression has no classes to balance.", fix="leave balanced out.")
        return sample_weights(
            self.train.y,
            self.train.at,
            balanced=classes if balanced is None else balanced,
            half_life=None if half_life is None else parse_duration(half_life),
        )

"""Call of the project's training function: seeded, with errors that name the failing line."""

from __future__ import annotations

import random
import sys
import traceback
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid, MainspringError
from mainspring.training.flavours import fitted_columns, output_names, predicts
from mainspring.training.frames import CATEGORIES
from mainspring.training.model import Model
from mainspring.training.runs.run import Run
from mainspring.training.sets.training_set import TrainingSet
from mainspring.training.stages import Fitted


def fit_model(model: Model, data: TrainingSet, run: Run) -> Fitted:
    """Return the estimator that the model's function fits on `data`, with the columns that it takes and its outputs.

    Raises:
        Invalid, MainspringError: See `fit`.
        NotConvertible: The estimator does not fit the task.
    """
    estimator = fit(model, data, run)
    data = data.only(fitted_columns(estimator, data.features))
    return Fitted(model, estimator, data, output_names(estimator, model.task, model.label_columns))


def fit(model: Model, data: TrainingSet, run: Run) -> Any:
    """Return the estimator that the model's function fits on `data`.

    Python's, NumPy's and, if loaded, torch's random generators are seeded.

    Raises:
        Invalid: The function returned nothing, or an object that cannot predict or was not fitted.
        MainspringError: The function raised; the message names the line.
    """
    random.seed(model.seed)
    np.random.seed(model.seed % 2**32)  # scikit-learn's generator where no random_state is given
    if "torch" in sys.modules:  # torch loaded later has a fixed default seed
        sys.modules["torch"].manual_seed(model.seed % 2**63)
    try:
        estimator = model.train(data, run)
    except MainspringError:
        raise
    except Exception as error:
        if _is_out_of_memory(error):
            raise _out_of_memory(model, data, error) from error
        frame = traceback.extract_tb(error.__traceback__)[-1]
        own_frames = [
            candidate for candidate in traceback.extract_tb(error.__traceback__) if candidate.filename == _file(model)
        ]
        frame = own_frames[-1] if own_frames else frame
        raise MainspringError(
            f"Training {model.name!r} on {len(data.features)} features failed at {frame.filename}:{frame.lineno}: "
            f"{type(error).__name__}: {error}",
            fix=_remedy(error, data),
        ) from error
    if estimator is None:
        raise Invalid(
            f"The training function of {model.name!r} returned nothing ({_where(model)}).",
            fix="return the fitted estimator at the end of the function.",
        )
    if not predicts(estimator):
        raise Invalid(
            f"The training function of {model.name!r} returned {type(estimator).__name__}, which has no predict "
            "method.",
            fix="return the fitted estimator.",
        )
    if not _is_fitted(estimator):
        raise Invalid(
            f"The training function of {model.name!r} returned {type(estimator).__name__}, which is not fitted.",
            fix="return estimator.fit(data.train.X, data.train.y).",
        )
    return estimator


def _is_fitted(estimator: Any) -> bool:
    """Return whether an estimator was fitted; true if it does not follow scikit-learn's convention for telling."""
    if any(kind.__module__ == "sklearn.pipeline" for kind in type(estimator).__mro__) and hasattr(estimator, "steps"):
        return _is_fitted(estimator.steps[-1][1])  # which may not follow the convention
    if not (type(estimator).__module__.startswith("sklearn.") or hasattr(estimator, "__sklearn_is_fitted__")):
        return True
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def _is_out_of_memory(error: Exception) -> bool:
    # libraries' own error types are matched by name, to avoid importing any of them
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _out_of_memory(model: Model, data: TrainingSet, error: Exception) -> MainspringError:
    said = f": {str(error).splitlines()[0][:200]}" if str(error).strip() else ""
    return MainspringError(
        f"Training {model.name!r} ran out of memory: {len(data.train):,} rows of {len(data.features)} features{said}.",
        fix="train on fewer rows (--since), on fewer or narrower features (ms.Float32), or in smaller batches.",
    )


def _remedy(error: Exception, data: TrainingSet) -> str:
    text = str(error).lower()
    if data.labels and ("1d array" in text or "multidimensional target" in text):  # scikit-learn's, CatBoost's
        return (
            f"data.train.y has a column for each of {', '.join(data.labels)}: use an estimator for several "
            "outputs, such as Ridge, RandomForestRegressor or XGBRegressor, or wrap one in "
            "MultiOutputRegressor(...)."
        )
    if "is already active" in str(error) and "start_run" in str(error):  # MLflow's
        return "remove mlflow.start_run(): the run is already open; or start a nested run: start_run(nested=True)."
    if "must be int, float" in str(error):  # XGBoost's and LightGBM's of columns of texts
        return f"{CATEGORIES}."
    return "correct it there; --debug shows how it was reached."


def _where(model: Model) -> str:
    code = getattr(model.train, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(model.train)


def _file(model: Model) -> str:
    code = getattr(model.train, "__code__", None)
    return code.co_filename if code else ""

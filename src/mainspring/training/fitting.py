"""Calling the project's training function: seeded, and with errors that say where it failed."""

from __future__ import annotations

import random
import traceback
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid, MainspringError
from mainspring.training.model import Model
from mainspring.training.run import Run
from mainspring.training.sets import TrainingSet


def fit(model: Model, data: TrainingSet, run: Run) -> Any:
    """Return the estimator that the model's function makes of `data`, with Python's and NumPy's seeds set.

    Raises:
        Invalid: It returned nothing that predicts.
        MainspringError: It raised; the message names the line.
    """
    random.seed(model.seed)
    np.random.seed(model.seed % 2**32)  # what scikit-learn uses where no random_state is given
    try:
        estimator = model.train(data, run)
    except MainspringError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        own = [each for each in traceback.extract_tb(error.__traceback__) if each.filename == _file(model)]
        place = own[-1] if own else place
        raise MainspringError(
            f"Training {model.name!r} on {len(data.features)} features failed at {place.filename}:{place.lineno}: "
            f"{type(error).__name__}: {error}",
        ) from error
    if not hasattr(estimator, "predict"):
        raise Invalid(
            f"The training function of {model.name!r} returned {type(estimator).__name__}, which does not predict.",
            fix="return the fitted estimator.",
        )
    return estimator


def _file(model: Model) -> str:
    code = getattr(model.train, "__code__", None)
    return code.co_filename if code else ""

"""XGBoost's estimators: their own file (UBJSON), run by XGBoost itself.

XGBoost rounds every number to float32 before it looks at it, in training and after, so columns that float32 does not
hold are answered as the estimator answers them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.registry.model import Input
from mainspring.training.flavours.estimators import Estimators, fitted_on, native, only_numbers
from mainspring.training.flavours.model import Artefact
from mainspring.training.frames import Array

if TYPE_CHECKING:
    import pandas as pd


class XgboostFlavour(Estimators):
    def columns(self, estimator: Any) -> list[str]:
        """Return the columns that it was fitted on; none where it does not say."""
        return list(estimator.get_booster().feature_names or ()) if hasattr(estimator, "get_booster") else []

    def convert(self, estimator: Any, inputs: Sequence[Input], _task: str, _wide: Collection[str]) -> Artefact:
        only_numbers(estimator, inputs, fix="encode them as numbers in a feature, or use CatBoost, which takes texts.")
        if not hasattr(estimator, "get_booster"):
            raise NotConvertible(
                f"xgboost.{type(estimator).__name__} takes matrices of XGBoost's own, not columns.",
                fix="return an XGBClassifier or XGBRegressor.",
            )
        booster = estimator.get_booster()
        fitted_on(estimator, booster.feature_names or [each.name for each in inputs], inputs)
        if getattr(estimator, "booster", None) == "gblinear":
            raise NotConvertible(
                f"{type(estimator).__name__}(booster='gblinear') has no trees; only trees are served.",
                fix="use booster='gbtree', or scikit-learn's LogisticRegression or Ridge.",
            )
        missing = getattr(estimator, "missing", math.nan)
        if missing is not None and not math.isnan(missing):
            raise NotConvertible(
                f"{type(estimator).__name__}(missing={missing!r}) takes that number for null, which no bundle does.",
                fix="leave missing out: nulls are NaN in data.train.X.",
            )
        if "c" in (booster.feature_types or ()):
            raise NotConvertible(
                f"{type(estimator).__name__} splits on categories, which its file holds only with pandas' codes.",
                fix="encode them as numbers in a feature, or use CatBoost, which takes texts.",
            )
        return native(estimator, "xgboost", "model.ubj", booster.save_raw("ubj"))

    def thresholds(self, estimator: Any, _held_out: pd.DataFrame, numeric: Sequence[str]) -> Mapping[str, Array]:
        learner = msgspec.json.decode(bytes(estimator.get_booster().save_raw("json")))["learner"]
        model = learner["gradient_booster"]
        trees = model.get("gbtree", model)["model"]["trees"]  # dart has its trees one deeper
        found: dict[str, list[float]] = defaultdict(list)
        for tree in trees:
            for feature, value, left in zip(
                tree["split_indices"], tree["split_conditions"], tree["left_children"], strict=True
            ):
                if left != -1:
                    found[numeric[feature]].append(value)
        return {name: np.unique(values) for name, values in found.items()}


FLAVOUR = XgboostFlavour()

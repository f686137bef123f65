"""LightGBM's estimators: their own file (text), run by LightGBM itself, which takes float64."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.registry.model import Input
from mainspring.training.flavours.estimators import Estimators, fitted_on, native, only_numbers
from mainspring.training.flavours.model import Artefact
from mainspring.training.frames import Array

if TYPE_CHECKING:
    import pandas as pd


class LightgbmFlavour(Estimators):
    def columns(self, estimator: Any) -> list[str]:
        """Return the columns that it was fitted on; none where it does not say."""
        return list(getattr(estimator, "feature_name_", ()))

    def convert(self, estimator: Any, inputs: Sequence[Input], task: str, _wide: Collection[str]) -> Artefact:
        only_numbers(estimator, inputs, fix="encode them as numbers in a feature, or use CatBoost, which takes texts.")
        if not hasattr(estimator, "booster_"):
            raise NotConvertible(
                f"lightgbm.{type(estimator).__name__} does not know its labels.",
                fix="return an LGBMClassifier or LGBMRegressor.",
            )
        booster = estimator.booster_
        if booster.pandas_categorical:
            raise NotConvertible(
                f"{type(estimator).__name__} was fitted on pandas' categories, whose codes are not the model's.",
                fix="encode them as numbers in a feature, or use CatBoost, which takes texts.",
            )
        if estimator.n_features_ != len(inputs):
            fitted_on(estimator, list(estimator.feature_name_), inputs)
        content = booster.model_to_string().encode()
        objective = content.partition(b"objective=")[2].partition(b"\n")[0].split(b" ")[0]
        if task == "multiclass" and objective == b"binary":
            raise NotConvertible(
                f"{type(estimator).__name__} saw two classes; its file answers one probability.",
                fix="declare the task as binary, with the labels 0 and 1.",
            )
        return native(estimator, "lightgbm", "model.txt", content)

    def thresholds(self, estimator: Any, _held_out: pd.DataFrame, numeric: Sequence[str]) -> Mapping[str, Array]:
        found: dict[str, list[float]] = defaultdict(list)
        for tree in estimator.booster_.dump_model()["tree_info"]:
            for feature, value in _splits(tree["tree_structure"]):
                found[numeric[feature]].append(value)
        return {name: np.unique(values) for name, values in found.items()}


def _splits(root: dict[str, Any]) -> Iterator[tuple[int, float]]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if "split_feature" not in node:
            continue
        waiting += [node["left_child"], node["right_child"]]
        # a split on categories lists them: 1||4||7
        for value in str(node["threshold"]).split("||"):
            yield node["split_feature"], float(value)


FLAVOUR = LightgbmFlavour()

"""Flavour of LightGBM estimators: the native text file, run by LightGBM itself, which takes float64.

Texts are pandas categories in training, and their codes in the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.core.schema import DType
from mainspring.registry.model import Input
from mainspring.training.flavours.estimators import Estimators, fitted_on, native, text_categories
from mainspring.training.flavours.flavour import Artefact
from mainspring.training.frames import Array, to_categories

if TYPE_CHECKING:
    import pandas as pd


class LightgbmFlavour(Estimators):
    def columns(self, estimator: Any) -> list[str]:
        """Return the columns that the estimator was fitted on; empty if it does not record them."""
        return list(getattr(estimator, "feature_name_", ()))

    def scores(self, estimator: Any, frame: pd.DataFrame, task: str) -> Array:
        texts = [name for name in frame.columns if frame[name].dtype.kind not in "bif"]
        return super().scores(estimator, to_categories(frame, _categories(estimator, texts)), task)

    def convert(
        self, estimator: Any, inputs: Sequence[Input], task: str, _wide: Collection[str], _labels: Sequence[str] = ()
    ) -> Artefact:
        if not hasattr(estimator, "booster_"):
            raise NotConvertible(
                f"lightgbm.{type(estimator).__name__} has no labels.",
                fix="return an LGBMClassifier or LGBMRegressor.",
            )
        booster = estimator.booster_
        texts = [each.name for each in inputs if each.dtype == DType.String]
        categories = text_categories(estimator, inputs, _categories(estimator, texts))
        if estimator.n_features_ != len(inputs):
            fitted_on(estimator, list(estimator.feature_name_), inputs)
        content = booster.model_to_string().encode()
        objective = content.partition(b"objective=")[2].partition(b"\n")[0].split(b" ")[0]
        if task == "multiclass" and objective == b"binary":
            raise NotConvertible(
                f"{type(estimator).__name__} was fitted on two classes; its file returns one probability.",
                fix="declare the task as binary, with the labels 0 and 1.",
            )
        return replace(native(estimator, "lightgbm", "model.txt", content), categories=categories)

    def thresholds(self, estimator: Any, held_out: pd.DataFrame, numeric: Sequence[str]) -> Mapping[str, Array]:
        found: dict[str, list[float]] = defaultdict(list)
        names = list(held_out.columns)
        for tree in estimator.booster_.dump_model()["tree_info"]:
            for feature, value in _splits(tree["tree_structure"]):
                found[names[feature]].append(value)
        return {name: np.unique(values) for name, values in found.items() if name in numeric}


def _categories(estimator: Any, texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return the categories of the columns `texts`: the booster stores them in column order, without names.

    Raises:
        NotConvertible: The booster has categories for another number of columns.
    """
    known = getattr(getattr(estimator, "booster_", None), "pandas_categorical", None) or []
    if known and len(known) != len(texts):
        raise NotConvertible(
            f"{type(estimator).__name__} was fitted on pandas categories of {len(known)} columns, but the text "
            f"columns are {list(texts)}.",
            fix="create categories of exactly the texts, by data.with_categories(), and keep numbers as numbers.",
        )
    return dict(zip(texts, known, strict=False))


def _splits(root: dict[str, Any]) -> Iterator[tuple[int, float]]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if "split_feature" not in node:
            continue
        waiting += [node["left_child"], node["right_child"]]
        # a categorical split lists its codes: 1||4||7
        for value in str(node["threshold"]).split("||"):
            yield node["split_feature"], float(value)


FLAVOUR = LightgbmFlavour()

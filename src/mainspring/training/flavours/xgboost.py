"""Flavour of XGBoost estimators: the native file (UBJSON), run by XGBoost itself.

XGBoost rounds every number to float32, in training and in serving, so predictions match even for columns that are not
exact in float32. Texts are pandas categories in training, and their codes in the model.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.registry.model import Input
from mainspring.training.flavours.estimators import Estimators, fitted_on, native, text_categories
from mainspring.training.flavours.flavour import Artefact
from mainspring.training.frames import Array, to_categories

if TYPE_CHECKING:
    import pandas as pd


class XgboostFlavour(Estimators):
    def columns(self, estimator: Any) -> list[str]:
        """Return the columns that the estimator was fitted on; empty if it does not record them."""
        return list(estimator.get_booster().feature_names or ()) if hasattr(estimator, "get_booster") else []

    def scores(self, estimator: Any, frame: pd.DataFrame, task: str) -> Array:
        return super().scores(estimator, to_categories(frame, _categories(estimator)), task)

    def convert(
        self, estimator: Any, inputs: Sequence[Input], _task: str, _wide: Collection[str], _labels: Sequence[str] = ()
    ) -> Artefact:
        if not hasattr(estimator, "get_booster"):
            raise NotConvertible(
                f"xgboost.{type(estimator).__name__} takes XGBoost's own matrices, not columns.",
                fix="return an XGBClassifier or XGBRegressor.",
            )
        booster = estimator.get_booster()
        fitted_on(estimator, booster.feature_names or [each.name for each in inputs], inputs)
        if getattr(estimator, "booster", None) == "gblinear":
            raise NotConvertible(
                f"{type(estimator).__name__}(booster='gblinear') has no trees; only trees are supported.",
                fix="use booster='gbtree', or scikit-learn's LogisticRegression or Ridge.",
            )
        missing = getattr(estimator, "missing", math.nan)
        if missing is not None and not math.isnan(missing):
            raise NotConvertible(
                f"{type(estimator).__name__}(missing={missing!r}) treats that number as null, which bundles do "
                "not support.",
                fix="leave missing out: nulls are NaN in data.train.X.",
            )
        categories = text_categories(estimator, inputs, _categories(estimator))
        return replace(native(estimator, "xgboost", "model.ubj", booster.save_raw("ubj")), categories=categories)

    def thresholds(self, estimator: Any, held_out: pd.DataFrame, numeric: Sequence[str]) -> Mapping[str, Array]:
        names = list(held_out.columns)
        learner = msgspec.json.decode(bytes(estimator.get_booster().save_raw("json")))["learner"]
        model = learner["gradient_booster"]
        trees = model.get("gbtree", model)["model"]["trees"]  # dart nests its trees one level deeper
        found: dict[str, list[float]] = defaultdict(list)
        for tree in trees:
            for feature, value, left in zip(
                tree["split_indices"], tree["split_conditions"], tree["left_children"], strict=True
            ):
                if left != -1:
                    found[names[feature]].append(value)
        return {name: np.unique(values) for name, values in found.items() if name in numeric}


def _categories(estimator: Any) -> dict[str, list[Any]]:
    """Return column -> category names, for columns with categorical splits; no names for a column of bare codes.

    Raises:
        NotConvertible: A name is not ASCII; XGBoost may have altered it.
    """
    if not hasattr(estimator, "get_booster") or "c" not in (estimator.get_booster().feature_types or ()):
        return {}
    booster, categories = estimator.get_booster(), {}
    stored = dict(booster.get_categories(export_to_arrow=True).to_arrow())
    for name, kind in zip(booster.feature_names, booster.feature_types, strict=True):
        if kind != "c":
            continue
        names = stored.get(name)
        categories[name] = (
            [] if names is None else (names.cast("binary") if names.type == "string" else names).to_pylist()
        )
        if any(isinstance(text, bytes) and not text.isascii() for text in categories[name]):
            raise NotConvertible(
                f"{type(estimator).__name__} was fitted on categories of {name} that are not ASCII, which XGBoost "
                "does not store correctly.",
                fix="create the categories by data.with_categories(), which spells them as JSON.",
            )
        categories[name] = [text.decode() if isinstance(text, bytes) else text for text in categories[name]]
    return categories


FLAVOUR = XgboostFlavour()

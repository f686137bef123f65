"""Flavour of CatBoost estimators: the native file (`.cbm`), run by CatBoost itself, with text columns as categories.

CatBoost's ONNX export does not support categories and sums in float32: a regression around 1e7 is off by half a unit.
Its JSON of a model with categories cannot be loaded again. The native file is exact. CatBoost itself rounds numbers to
float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.core.schema import DType
from mainspring.registry.catboost_file import check_catboost
from mainspring.registry.model import Input
from mainspring.training.flavours.estimators import Estimators, fitted_on, imported, native
from mainspring.training.flavours.flavour import Artefact
from mainspring.training.frames import Array

if TYPE_CHECKING:
    import pandas as pd

_CHANCE = ("train_finish_time", "model_guid")  # metadata that differs between identical trainings


class CatboostFlavour(Estimators):
    def scores(self, estimator: Any, frame: pd.DataFrame, task: str) -> Array:
        return super().scores(estimator, _with_empty_nulls(frame), task)

    def convert(
        self, estimator: Any, inputs: Sequence[Input], _task: str, _wide: Collection[str], _labels: Sequence[str] = ()
    ) -> Artefact:
        catboost = imported("catboost", "A model of CatBoost", "catboost")
        fitted_on(estimator, estimator.feature_names_, inputs)
        with tempfile.TemporaryDirectory(prefix="mainspring-catboost-") as folder:
            path = Path(folder) / "model.cbm"
            estimator.save_model(str(path), format="cbm")
            native(estimator, "catboost", path.name, path.read_bytes())  # checked before CatBoost loads it
            reloaded = catboost.CatBoost().load_model(str(path))
            metadata = reloaded.get_metadata()
            for name in _CHANCE:
                metadata[name] = ""
            reloaded.save_model(str(path), format="cbm")
            artefact = native(estimator, "catboost", path.name, path.read_bytes())
        checked = check_catboost(artefact.content)
        texts = tuple(position for position, column in enumerate(inputs) if column.dtype == DType.String)
        if texts != checked.categories:
            categories = [inputs[position].name for position in checked.categories]
            raise NotConvertible(
                f"{type(estimator).__name__} has the categories {categories}, "
                f"but the text columns are {[inputs[position].name for position in texts]}.",
                fix="give exactly the text columns as cat_features.",
            )
        return artefact

    def thresholds(self, estimator: Any, held_out: pd.DataFrame, numeric: Sequence[str]) -> Mapping[str, Array]:
        names = list(held_out.columns)
        borders = {names[place]: np.asarray(values) for place, values in estimator.get_borders().items()}
        return {name: values for name, values in borders.items() if name in numeric and len(values)}


def _with_empty_nulls(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with "" for null texts, as in a bundle: CatBoost does not accept null categories."""
    texts = [name for name in frame.columns if frame[name].dtype == object]
    return frame.assign(**{name: [value or "" for value in frame[name]] for name in texts}) if texts else frame


FLAVOUR = CatboostFlavour()

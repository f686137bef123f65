"""CatBoost as it is: no conversion, one thread. Numbers are rounded to float32 by CatBoost, texts are categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import catboost
import numpy as np

from mainspring.core.errors import Corrupt
from mainspring.registry.catboost_file import check_catboost
from mainspring.registry.model import Bundle, TensorSpec
from mainspring.serving.adapters.explaining import recorded_method
from mainspring.serving.explanation import Contributions
from mainspring.serving.plane.executor import Array, ModelFailed, closed, column, column_specs, first_line, given

_FLOAT64, _OBJECT = np.dtype(np.float64), np.dtype(np.object_)
_TEXT = "BYTES"
_SUM = "RawFormulaVal"


class CatboostExecutor:
    """The trees of one bundle's `model.cbm`. A null number is NaN, a null text is "".

    Raises:
        Corrupt: CatBoost does not load it, or it is not what the manifest says.
    """

    inline = True

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self._name = f"model.cbm of bundle {bundle.digest[:12]}"
        content = bundle.files["model.cbm"]
        found = check_catboost(content, self._name)
        if bundle.manifest.tensors:
            raise Corrupt(f"{self._name} takes columns, but its manifest declares tensors.")
        self.inputs: Mapping[str, TensorSpec] = column_specs(bundle.manifest.inputs)
        kinds = [spec.datatype == _TEXT for spec in self.inputs.values()]
        if tuple(place for place, text in enumerate(kinds) if text) != found.categories or len(kinds) != found.features:
            raise Corrupt(
                f"{self._name} takes {found.features} columns, of which {list(found.categories)} are texts, but "
                f"its manifest declares {list(self.inputs)}."
            )
        names = bundle.manifest.outputs
        if len(names) != found.outputs:
            raise Corrupt(
                f"{self._name} returns {found.outputs} values per row, but its manifest declares {list(names)}."
            )
        self.outputs: Mapping[str, TensorSpec] = {name: TensorSpec(name, "FP64", (-1,)) for name in names}
        try:
            self._model: Any = catboost.CatBoost().load_model(blob=content)
        except catboost.CatBoostError as error:
            raise Corrupt(f"{self._name} does not load: {first_line(error)}") from error
        self._threads, self._answer = threads, found.answer
        self._one = found.answer == "Probability" and found.outputs == 1  # of two columns the second is meant

    def nullable(self, name: str) -> bool:
        return name in self.inputs

    def predict(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> dict[str, Array]:
        if self._model is None:
            raise closed()
        answers = self._predicted(self._rows(inputs, rows), self._answer)
        answers = answers[:, 1:] if self._one else answers
        if answers.shape[1] != len(self.outputs):
            raise ModelFailed(f"{self._name} returns {answers.shape[1]} values per row, not {len(self.outputs)}.")
        return {name: answers[:, place] for place, name in enumerate(self.outputs)}

    def close(self) -> None:
        self._model = None

    def _rows(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> Array:
        matrix = np.empty((rows, len(self.inputs)), np.object_)
        for place, (name, spec) in enumerate(self.inputs.items()):
            values = given(inputs, name)
            dtype = _OBJECT if spec.datatype == _TEXT else _FLOAT64
            matrix[:, place] = column(values, dtype, name, rows)
        return matrix

    def _predicted(self, matrix: Array, kind: str) -> Array:
        try:
            found = self._model.predict(matrix, prediction_type=kind, thread_count=self._threads)
        except catboost.CatBoostError as error:
            raise ModelFailed(f"The model failed: {first_line(error)}") from error
        return np.asarray(found, np.float64).reshape(len(matrix), -1)


class CatboostExplainer(CatboostExecutor):
    """Contributions by CatBoost itself (`ShapValues`).

    Raises:
        NotExplainable: The answers do not follow from the sum of the trees.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        super().__init__(bundle, threads=threads)
        try:
            self.method = recorded_method(
                self, lambda inputs, rows: self._predicted(self._rows(inputs, rows), _SUM), bundle
            )
        except BaseException:
            self.close()
            raise

    def explain(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> Contributions:
        if self._model is None:
            raise closed()
        matrix = self._rows(inputs, rows)
        texts = [place for place, spec in enumerate(self.inputs.values()) if spec.datatype == _TEXT]
        try:
            pool = catboost.Pool(matrix, cat_features=texts)
            found = self._model.get_feature_importance(pool, type="ShapValues", thread_count=self._threads)
        except catboost.CatBoostError as error:
            raise ModelFailed(f"The model failed: {first_line(error)}") from error
        parts = np.asarray(found, np.float64).reshape(rows, -1, len(self.inputs) + 1)
        return Contributions(parts[:, :, :-1].swapaxes(1, 2), parts[:, :, -1], self._predicted(matrix, _SUM))

"""XGBoost as it is: no conversion, one thread, through the C interface (docs/adr/0015-executors.md says why).

The C interface: https://xgboost.readthedocs.io/en/stable/c.html. Several threads may predict by one forest at once.
What it returns belongs to the booster and the thread, so it is copied before anything else happens.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xgboost

from mainspring.core.errors import Corrupt
from mainspring.registry.model import Bundle
from mainspring.registry.xgboost_file import check_xgboost
from mainspring.serving.adapters.explaining import recorded_method
from mainspring.serving.adapters.matrix import Matrix
from mainspring.serving.explanation import Contributions
from mainspring.serving.plane.executor import Array, ModelFailed, closed, first_line

_VALUE = 0  # the kind of prediction: as `Booster.predict` gives it, margins made probabilities
_LIBRARY: Any = xgboost.core._LIB
_Shape = ctypes.POINTER(ctypes.c_uint64)
_Values = ctypes.POINTER(ctypes.c_float)


class XgboostExecutor:
    """A booster of one bundle's `model.ubj` or `model.json`. Numbers enter as float32, null as NaN.

    A model that stopped early answers with its best iteration, as XGBoost's own estimators do.

    Raises:
        Corrupt: XGBoost does not load it, it is not a forest, or it is not what the manifest says.
    """

    inline = True

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        file = next(name for name in ("model.ubj", "model.json") if name in bundle.files)
        name = f"{file} of bundle {bundle.digest[:12]}"
        learner = check_xgboost(bundle.files[file], name)
        if learner.booster not in ("gbtree", "dart"):
            raise Corrupt(
                f"{name} is a {learner.booster!r}; only trees are served.", fix="train with booster='gbtree'."
            )
        try:
            self._booster: Any = xgboost.Booster({"nthread": threads}, model_file=bytearray(bundle.files[file]))
        except xgboost.core.XGBoostError as error:
            raise Corrupt(f"{name} does not load: {first_line(error)}") from error
        if self._booster.num_features() != learner.features:  # a field that stands twice, of which the library took one
            raise Corrupt(
                f"{name} takes {learner.features} features, but {self._booster.num_features()} after loading."
            )
        self._matrix = Matrix(bundle, datatype="FP32", features=learner.features, answers="FP32")
        self.inputs, self.outputs = self._matrix.inputs, self._matrix.outputs
        self._range = (0, 0 if learner.best_iteration is None else learner.best_iteration + 1)
        self._config = json.dumps(
            {
                "type": _VALUE,
                "training": False,
                "iteration_begin": self._range[0],
                "iteration_end": self._range[1],
                "strict_shape": False,
                "cache_id": 0,
                "missing": float("nan"),
            }
        ).encode()

    def nullable(self, name: str) -> bool:
        return name in self.inputs

    def predict(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> dict[str, Array]:
        if self._booster is None:
            raise closed()
        matrix = self._matrix.feed(inputs, rows)
        return self._matrix.split(self._answers(matrix), rows)

    def close(self) -> None:
        self._booster = None

    def _answers(self, matrix: Array) -> Array:
        shape, rank, values = _Shape(), ctypes.c_uint64(), _Values()
        described = {
            "data": (matrix.ctypes.data, True),
            "shape": matrix.shape,
            "strides": None,
            "typestr": "<f4",
            "version": 3,
        }
        failed = _LIBRARY.XGBoosterPredictFromDense(
            self._booster.handle,
            json.dumps(described).encode(),
            self._config,
            None,
            ctypes.byref(shape),
            ctypes.byref(rank),
            ctypes.byref(values),
        )
        if failed:
            said = _LIBRARY.XGBGetLastError().decode(errors="replace")
            raise ModelFailed(f"The model failed: {first_line(ValueError(said))}")
        sizes = [shape[place] for place in range(rank.value)]
        return np.array(np.ctypeslib.as_array(values, sizes))  # a copy


class XgboostExplainer(XgboostExecutor):
    """Contributions by XGBoost itself (`pred_contribs`), in float32.

    Raises:
        NotExplainable: The bundle takes a tensor, or the answers do not follow from the sum of the trees.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        super().__init__(bundle, threads=threads)
        self._threads = threads
        try:
            self.method = recorded_method(self, lambda inputs, rows: self._sums(self._data(inputs, rows)), bundle)
        except BaseException:
            self.close()
            raise

    def explain(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> Contributions:
        if self._booster is None:
            raise closed()
        data = self._data(inputs, rows)
        found = self._predicted(data, pred_contribs=True).reshape(rows, -1, len(self.inputs) + 1)
        return Contributions(found[:, :, :-1].swapaxes(1, 2), found[:, :, -1], self._sums(data))

    def _data(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> Any:
        return xgboost.DMatrix(self._matrix.feed(inputs, rows), nthread=self._threads)

    def _sums(self, data: Any) -> Array:
        return self._predicted(data, output_margin=True).reshape(data.num_row(), -1)

    def _predicted(self, data: Any, **how: bool) -> Array:
        try:
            found = self._booster.predict(data, iteration_range=self._range, validate_features=False, **how)
        except xgboost.core.XGBoostError as error:
            raise ModelFailed(f"The model failed: {first_line(error)}") from error
        return np.asarray(found, np.float64)

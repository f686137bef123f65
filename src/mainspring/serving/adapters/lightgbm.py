"""LightGBM as it is: no conversion, one thread. Numbers enter as float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np

from mainspring.core.errors import Corrupt
from mainspring.registry.lightgbm_file import check_lightgbm
from mainspring.registry.model import Bundle
from mainspring.serving.adapters.explaining import recorded_method
from mainspring.serving.adapters.matrix import Matrix
from mainspring.serving.background import owner_of
from mainspring.serving.explanation import Contributions, NotExplainable
from mainspring.serving.plane.executor import Array, ModelFailed, closed, first_line


class LightgbmExecutor:
    """A booster of one bundle's `model.txt`. Null is NaN.

    Raises:
        Corrupt: LightGBM does not load it, or it is not what the manifest says.
    """

    inline = True

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        name = f"model.txt of bundle {bundle.digest[:12]}"
        content = bundle.files["model.txt"]
        forest = check_lightgbm(content, name)
        try:
            self._booster: Any = lightgbm.Booster(model_str=content.decode())
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise Corrupt(f"{name} does not load: {first_line(error)}") from error
        if self._booster.num_feature() != forest.features:  # a line that stands twice, of which the library took one
            raise Corrupt(f"{name} takes {forest.features} features, but {self._booster.num_feature()} after loading.")
        self._threads = threads
        self._matrix = Matrix(bundle, datatype="FP64", features=forest.features, answers="FP64")
        self.inputs, self.outputs = self._matrix.inputs, self._matrix.outputs

    def nullable(self, name: str) -> bool:
        return name in self.inputs

    def predict(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> dict[str, Array]:
        if self._booster is None:
            raise closed()
        return self._matrix.split(self._predicted(self._matrix.feed(inputs, rows)), rows)

    def close(self) -> None:
        self._booster = None

    def _predicted(self, matrix: Array, **how: bool) -> Array:
        try:
            return np.asarray(self._booster.predict(matrix, num_threads=self._threads, **how))
        except lightgbm.basic.LightGBMError as error:
            raise ModelFailed(f"The model failed: {first_line(error)}") from error


class LightgbmExplainer(LightgbmExecutor):
    """Contributions by LightGBM itself (`pred_contrib`).

    Raises:
        NotExplainable: The bundle takes a tensor, its trees have linear leaves, or the answers do not follow from the
            sum of the trees.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        if b"\nis_linear=1\n" in bundle.files["model.txt"]:
            raise NotExplainable(owner_of(bundle), "the leaves of its trees are linear functions")
        super().__init__(bundle, threads=threads)
        try:
            self.method = recorded_method(
                self, lambda inputs, rows: self._sums(self._matrix.feed(inputs, rows)), bundle
            )
        except BaseException:
            self.close()
            raise

    def explain(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> Contributions:
        if self._booster is None:
            raise closed()
        matrix = self._matrix.feed(inputs, rows)
        found = self._predicted(matrix, pred_contrib=True).reshape(rows, -1, len(self.inputs) + 1)
        return Contributions(found[:, :, :-1].swapaxes(1, 2), found[:, :, -1], self._sums(matrix))

    def _sums(self, matrix: Array) -> Array:
        return self._predicted(matrix, raw_score=True).reshape(len(matrix), -1)

"""LightGBM as it is: no conversion, one thread. Numbers enter as float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np

from mainspring.core.errors import Corrupt
from mainspring.registry.lightgbm_file import check_lightgbm
from mainspring.registry.model import Bundle
from mainspring.serving.adapters.matrix import Matrix
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
        matrix = self._matrix.feed(inputs, rows)
        try:
            found = self._booster.predict(matrix, num_threads=self._threads)
        except lightgbm.basic.LightGBMError as error:
            raise ModelFailed(f"The model failed: {first_line(error)}") from error
        return self._matrix.split(np.asarray(found), rows)

    def close(self) -> None:
        self._booster = None

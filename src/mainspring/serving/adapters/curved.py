"""A model that its own framework runs, and behind it the calibration curve of its bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.core.errors import Corrupt
from mainspring.registry.model import TensorSpec
from mainspring.serving.plane.executor import Array
from mainspring.serving.ports import Executor
from mainspring.stats.curves import Curve


class CurvedExecutor:
    """Answers the curve of the executor's probability, as float64.

    Raises:
        Corrupt: The model gives more than one value a row.
    """

    def __init__(self, executor: Executor, curve: Curve) -> None:
        if len(executor.outputs) != 1:
            executor.close()
            raise Corrupt(f"A calibrated model returns one probability, not {list(executor.outputs)}.")
        self._executor, self._curve = executor, curve
        self._name = next(iter(executor.outputs))
        self.inputs = executor.inputs
        self.outputs: Mapping[str, TensorSpec] = {self._name: TensorSpec(self._name, "FP64", (-1,))}
        self.inline = executor.inline
        self.nodes = getattr(executor, "nodes", None)

    def nullable(self, name: str) -> bool:
        return self._executor.nullable(name)

    def predict(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> dict[str, Array]:
        return {self._name: self._curve(self._executor.predict(inputs, rows)[self._name])}

    def close(self) -> None:
        self._executor.close()

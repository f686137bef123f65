"""Models of one matrix: columns side by side, or a tensor of shape (rows, features), in; one array out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.schema import DType
from mainspring.registry.model import Bundle, TensorSpec
from mainspring.serving.plane.executor import Array, ModelFailed, by_name, column, column_specs, given, tensor
from mainspring.serving.protocol.tensor import DTYPES

_FLOAT64, _OBJECT = np.dtype(np.float64), np.dtype(np.object_)
_NUMBERS = ("BOOL", "INT32", "INT64", "FP32", "FP64")


class Matrix:
    """Turns a bundle's inputs into a matrix and the matrix's answers into the bundle's outputs.

    Args:
        datatype: Of the matrix, which decides how numbers are rounded.
        features: Number of the model's columns.
        answers: The type of the model's answers.

    Raises:
        Corrupt: The manifest's inputs or outputs are not those of such a model.
    """

    def __init__(self, bundle: Bundle, *, datatype: str, features: int, answers: str) -> None:
        manifest, self._name = bundle.manifest, f"bundle {bundle.digest[:12]}"
        self._dtype = DTYPES[datatype]
        self._answers = DTYPES[answers]
        self._tensor = bool(manifest.tensors)
        self.inputs: Mapping[str, TensorSpec]
        self.outputs: Mapping[str, TensorSpec]
        if manifest.tensors:
            self.inputs, self.outputs = by_name(manifest.tensors), by_name(manifest.output_tensors)
            self._check_tensors(datatype, features, answers)
            self.split: Callable[[Array, int], dict[str, Array]] = self._whole
            return
        self.inputs = column_specs(manifest.inputs)
        self.outputs = {name: TensorSpec(name, answers, (-1,)) for name in manifest.outputs}
        self._codes = {
            each.name: {text: float(code) for code, text in enumerate(each.categories)}
            for each in manifest.inputs
            if each.dtype == DType.String and each.categories
        }
        numbers = [name for name, spec in self.inputs.items() if spec.datatype in _NUMBERS]
        text = [name for name in self.inputs if name not in numbers and name not in self._codes]
        if text or len(self.inputs) != features:
            raise Corrupt(
                (
                    f"The model of {self._name} takes {features} numbers, but its manifest declares {len(self.inputs)} "
                    "columns"
                )
                + (f", of which {text} are not numbers." if text else ".")
            )
        self.split = self._by_column

    def _check_tensors(self, datatype: str, features: int, answers: str) -> None:
        takes = [(spec.datatype, spec.shape) for spec in self.inputs.values()]
        if takes != [(datatype, (-1, features))]:
            raise Corrupt(
                f"The model of {self._name} takes {datatype}[-1, {features}], but its manifest declares "
                f"{', '.join(f'{kind}{list(shape)}' for kind, shape in takes)}."
            )
        if [spec.datatype for spec in self.outputs.values()] != [answers]:
            raise Corrupt(
                f"The model of {self._name} returns one {answers}, but its manifest declares {sorted(self.outputs)}."
            )

    def feed(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> Array:
        """Return the matrix, shape (rows, features), row-major: null, and a text that is not a category, as NaN.

        Raises:
            Invalid: A value is not a number (in a text column: not text), or is infinite in the matrix's type: no tree
                was grown on such values.
        """
        if self._tensor:
            ((name, spec),) = self.inputs.items()
            matrix = np.ascontiguousarray(tensor(given(inputs, name), spec, rows, nullable=True))
        else:
            matrix = np.empty((rows, len(self.inputs)), self._dtype)
            with np.errstate(over="ignore"):  # it is refused below
                for position, name in enumerate(self.inputs):
                    values, codes = given(inputs, name), self._codes.get(name)
                    matrix[:, position] = (
                        _numbers(values, name, rows)
                        if codes is None
                        else [codes.get(text, np.nan) for text in column(values, _OBJECT, name, rows)]
                    )
        if np.isinf(matrix).any():
            raise Invalid(self._infinite(matrix))
        return matrix

    def _infinite(self, matrix: Array) -> str:
        row, place = (int(each[0]) for each in np.nonzero(np.isinf(matrix)))
        names = list(self.inputs)
        name = names[0] if self._tensor else names[place]
        return f"Input {name!r} is infinite, or too large for {self._dtype}, in row {row}."

    def _whole(self, found: Array, rows: int) -> dict[str, Array]:
        ((name, spec),) = self.outputs.items()
        if found.shape[:1] != (rows,) or found[0].size != int(np.prod(spec.shape[1:])):
            raise ModelFailed(f"The model of {self._name} returns {list(found.shape)} for {rows} rows.")
        return {name: found.reshape(rows, *spec.shape[1:])}

    def _by_column(self, found: Array, rows: int) -> dict[str, Array]:
        matrix = found.reshape(rows, -1)
        if matrix.shape[1] != len(self.outputs):
            raise ModelFailed(
                f"The model of {self._name} returns {matrix.shape[1]} values per row, not {len(self.outputs)}."
            )
        return {name: matrix[:, position] for position, name in enumerate(self.outputs)}


def _numbers(values: Sequence[Any] | Array, name: str, rows: int) -> Array:
    """Return a column as the numbers it holds: integers stay integers, so that the matrix's type rounds them once."""
    array = values if isinstance(values, np.ndarray) else np.array(values)
    exact = array.dtype.kind in "biuf" and array.shape == (rows,)
    return array if exact else column(values, _FLOAT64, name, rows)

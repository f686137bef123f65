"""A device: a verified package whose features are computed and whose model is run here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mainspring_edge.errors import EdgeError, Refused, SelfTestFailed
from mainspring_edge.features import Features
from mainspring_edge.model import Model
from mainspring_edge.package import FEATURES, GOLDEN, MODEL, SKETCH, Package, open_package
from mainspring_edge.values import from_json

_SAME = 1e-12  # relative: C libraries differ in the last bits of log and exp


class Device:
    """A package, ready to predict.

    Args:
        package: A verified package.

    Raises:
        Refused: This runtime does not know one of its operations, or ONNX Runtime cannot run its model.

    Attributes:
        inputs: Input of a row -> type.
        outputs: The names of the outputs.
        sketch: Content of `sketch.json`, if the package has one.
    """

    def __init__(self, package: Package) -> None:
        index = package.index
        self.name, self.version = package.name, package.version
        try:
            self._features = Features(package.files[FEATURES])
            self._model = Model(package.files[MODEL], index["model"], self._features.names)
            self._columns: dict[str, str] = index["columns"]
            self.outputs = [output["name"] for output in index["model"]["outputs"]]
            self._tolerance = float(index["tolerance"])
        except (KeyError, ValueError, TypeError) as error:
            raise Refused("format", f"The package is signed, but cannot be read: {error!r:.200}.") from error
        self.inputs = self._features.inputs
        self._golden = package.files[GOLDEN]
        self.sketch = package.files.get(SKETCH)

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Return output -> one value a row.

        Args:
            rows: The inputs of each row by name; see `values.reader` for what each type accepts.

        Raises:
            InvalidRow: A row lacks an input, or has a value that is not of its type.
        """
        if not rows:
            return {name: [] for name in self.outputs}
        return self._model.answer(self._features.rows(rows))

    def features(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Return feature -> one value a row, null as `None`. Raises as `predict` does."""
        found = self._features.rows(rows)
        return {name: [row[place] for row in found] for place, name in enumerate(self._features.names)}

    def self_test(self) -> None:
        """Compute the golden rows and compare them with what the package says.

        Raises:
            SelfTestFailed: A feature or an output differs; the message names the first, with both values.
        """
        try:
            self._test(json.loads(self._golden))
        except EdgeError:
            raise
        except Exception as error:  # the runtime's errors have no common base
            raise SelfTestFailed(f"The model fails on the golden rows: {error!r:.300}") from error

    def _test(self, golden: Mapping[str, Any]) -> None:
        columns, expected = _decoded(golden["columns"], self._columns), golden["outputs"]
        if expected:
            self._compare(self._model.predict(columns, _rows(expected)), expected, "model")
        inputs = _decoded(golden["rows"], self.inputs)
        if not golden["answers"]:
            return
        rows = [dict(zip(inputs, row, strict=True)) for row in zip(*inputs.values(), strict=True)]
        found = self.features(rows)
        for name, values in _decoded(golden["features"], self._columns).items():
            for row, (one, other) in enumerate(zip(found[name], values, strict=True)):
                if not _same(one, other):
                    raise SelfTestFailed(f"Feature {name} of golden row {row} is {one!r}; expected {other!r}.")
        self._compare(self.predict(rows), golden["answers"], "row")

    def _compare(self, found: Mapping[str, Sequence[Any]], expected: Mapping[str, Sequence[Any]], kind: str) -> None:
        for name, values in expected.items():
            for row, (one, other) in enumerate(zip(found[name], values, strict=True)):
                if not _near(one, other, self._tolerance):
                    raise SelfTestFailed(
                        f"Output {name} of golden {kind} {row} is {one!r:.80}; expected {other!r:.80} within "
                        f"{self._tolerance:g}."
                    )


def load(folder: str | Path, trusted_key: bytes | str, *, name: str | None = None) -> Device:
    """Return the device of the package in a folder. Arguments and errors are those of `open_package` and `Device`."""
    return Device(open_package(folder, trusted_key, name=name))


def _rows(columns: Mapping[str, Sequence[Any]]) -> int:
    return len(next(iter(columns.values())))


def _decoded(columns: Mapping[str, Sequence[Any]], types: Mapping[str, str]) -> dict[str, list[Any]]:
    return {name: _column(values, types.get(name, "")) for name, values in columns.items()}


def _column(values: Sequence[Any], dtype: str) -> list[Any]:
    # A tensor has no type of a column; its values are plain JSON.
    return [from_json(value, dtype) for value in values] if dtype else list(values)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return math.isclose(one, other, rel_tol=_SAME, abs_tol=0.0)
    return type(one) is type(other) and bool(one == other)


def _near(one: Any, other: Any, tolerance: float) -> bool:
    """Return whether outputs are equal within the tolerance, absolute and relative; a null expected is NaN."""
    if isinstance(other, list):
        return len(one) == len(other) and all(
            _near(each, wanted, tolerance) for each, wanted in zip(one, other, strict=True)
        )
    if isinstance(other, str | bool) or isinstance(one, str):
        return bool(one == other)
    if other is None:
        return math.isnan(one)
    return bool(abs(one - other) <= tolerance * (1 + abs(other)))

"""Golden rows of a package: what a device has to reproduce before its answers count.

Two parts: rows of the model's columns with the outputs that training recorded; and rows of inputs, made for the
constants and corners of the features, with the features as `core.expr` computes them and the model's outputs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Corrupt
from mainspring.core.expr.evaluate import Vector, evaluate, vector
from mainspring.core.expr.types import columns_of
from mainspring.core.schema import DType
from mainspring.core.time import DAY
from mainspring.deploy.edge.package import MODEL
from mainspring.deploy.edge.program import Program, to_json
from mainspring.features.layout import layout_of, request_schema
from mainspring.features.model import FeatureGroup, FeatureView, Observations, RequestFeatures, views_of
from mainspring.registry.bundles import GOLDEN
from mainspring.registry.model import Bundle, Manifest
from mainspring.training.flavours import Artefact
from mainspring.training.flavours.scoring import artefact_scores
from mainspring.training.frames import Array

MADE_ROWS = 64
_SEED = 20130101
_NOW = 1_400_000_000_000_000  # µs, an instant of 2014
_NUMBERS: Sequence[float] = (0, 1, -1, 2, 7, 0.5, -0.25, 10, 100, 1000, 2.5, 3.75)
_TEXTS = ("", "a", "B c", "Ünïcode", "0")

Columns = dict[str, list[Any]]


def recorded_rows(bundle: Bundle) -> tuple[Columns, Columns]:
    """Return the model's columns and outputs of the bundle's golden rows and probes, plain JSON values.

    Raises:
        Corrupt: The bundle has no golden rows.
    """
    try:
        golden = msgspec.json.decode(bundle.files[GOLDEN])
        parts = [golden, *([golden["probes"]] if golden.get("probes") else [])]
        inputs = {name: [value for part in parts for value in part["inputs"][name]] for name in golden["inputs"]}
        outputs = {name: [value for part in parts for value in part["outputs"][name]] for name in golden["outputs"]}
    except (KeyError, TypeError, msgspec.DecodeError) as error:
        raise Corrupt(f"The golden rows of bundle {bundle.digest[:12]} cannot be read: {error!r}.") from error
    return inputs, outputs


def golden_file(manifest: Manifest, recorded: tuple[Columns, Columns], made: tuple[Columns, Columns, Columns]) -> bytes:
    """Return `golden.json`.

    Args:
        recorded: The model's columns and outputs of `recorded_rows`, or nothing.
        made: Rows of inputs, their features, and the model's outputs for them, in the JSON of a package.
    """
    inputs, outputs = recorded
    dtypes = {each.name: each.dtype for each in manifest.inputs}
    columns = {
        name: [to_json(value, dtypes[name]) for value in values] if name in dtypes else values
        for name, values in inputs.items()
    }
    rows, features, answers = made
    return msgspec.json.encode(
        {"columns": columns, "outputs": outputs, "rows": rows, "features": features, "answers": answers}
    )


def made_rows(
    program: Program,
    bundle: Bundle,
    model: bytes,
    groups: Sequence[FeatureGroup],
    observations: Observations,
    personal: Collection[str] = (),
    *,
    finite: str | None = None,
) -> tuple[Columns, Columns, Columns]:
    """Return rows of made inputs, their features by the two implementations' rules, and the model's outputs.

    Args:
        model: The package's model, which in INT8 is not the bundle's.
        personal: Columns whose texts of training the rows do not repeat.
        finite: As of `signature_of`.

    A row is left out if the model has no finite output for it, or a feature of it is null where the model has no null,
    or infinite where the model takes finite ones.
    """
    manifest = bundle.manifest
    dtypes = {name: DType(dtype) for name, dtype in program.inputs.items()}
    words = [text for each in manifest.inputs if each.name not in personal for text in each.categories[:20]]
    inputs = _inputs(program, words, dtypes)
    computed = Computed(groups, observations, {name: vector(inputs[name], dtypes[name]) for name in inputs}, MADE_ROWS)
    features = {each.name: computed.feature(each.name).to_list() for each in manifest.inputs}
    given = arrays_of(features, manifest)
    scores = artefact_scores(Artefact("onnx", MODEL, model), given, list(features))
    with np.errstate(over="ignore"):
        refused = [np.isinf(each.astype(finite)) for each in given.values() if finite and each.dtype.kind == "f"]
    kinds = {each.name: each.dtype for each in manifest.inputs}
    nullable = (DType.String, DType.Float32, DType.Float64)
    fine = [
        row
        for row in range(MADE_ROWS)
        if np.isfinite(scores[row]).all()
        and not any(each[row] for each in refused)
        and all(values[row] is not None or kinds[name] in nullable for name, values in features.items())
    ]
    return (
        {name: [to_json(values[row], dtypes[name]) for row in fine] for name, values in inputs.items()},
        {name: [to_json(values[row], kinds[name]) for row in fine] for name, values in features.items()},
        {name: [float(scores[row, at]) for row in fine] for at, name in enumerate(manifest.outputs)},
    )


class Computed:
    """Features of rows of inputs, by `core.expr`: the oracle of a device.

    Args:
        inputs: What a device's row holds, each of shape (rows,).
    """

    def __init__(
        self, groups: Sequence[FeatureGroup], observations: Observations, inputs: Mapping[str, Vector], rows: int
    ) -> None:
        self._views: dict[str, FeatureView] = {view.name: view for view in views_of(groups)}
        self._requests = {group.name: group for group in groups if isinstance(group, RequestFeatures)}
        self._fields = observations.source.columns
        self._known = dict(inputs)
        self._rows = rows

    def feature(self, name: str) -> Vector:
        """Return a feature's values by its full name, or those of an input."""
        if name not in self._known:
            self._known[name] = self._computed(name)
        return self._known[name]

    def _computed(self, name: str) -> Vector:
        group, _, feature = name.partition(".")
        if group in self._views:
            view = self._views[group]
            expression = view.derived[feature]
            columns = {each: self.feature(f"{group}.{each}") for each in columns_of(expression)}
            return evaluate(expression, columns, layout_of(view).stored, self._rows)
        request = self._requests[group]
        expression = request.features[feature]
        columns = {each: self.feature(each) for each in columns_of(expression)}
        return evaluate(expression, columns, request_schema(request, self._fields), self._rows)


def worst_difference(found: Array, wanted: Array) -> float:
    """Return the largest difference of outputs over 1 + the wanted one's size; infinite where only one is NaN."""
    difference = np.abs(found - wanted) / (1 + np.abs(wanted))
    difference[np.isnan(found) & np.isnan(wanted)] = 0.0
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))


def _inputs(program: Program, seen: Sequence[str], dtypes: Mapping[str, DType]) -> Columns:
    """Return made values: the program's constants and their neighbours, seen categories, plain values, and nulls."""
    random = Random(_SEED)  # noqa: S311  (made rows are no secret)
    words, numbers = _constants(program)
    words += seen
    near = [value + change for value in numbers for change in (-1, 0, 1) if abs(value) < 1e6]
    pools: Mapping[DType, Sequence[Any]] = {
        DType.String: (*_TEXTS, *words),
        DType.Boolean: (False, True),
        DType.Int32: sorted({int(value) for value in (*_NUMBERS, *near)}),
        DType.Int64: sorted({int(value) for value in (*_NUMBERS, *near)}),
        DType.Float32: sorted({float(np.float32(value)) for value in (*_NUMBERS, *near)}),
        DType.Float64: sorted({*_NUMBERS, *near}),
        DType.Timestamp: [_NOW + random.randrange(-2000 * DAY, 2000 * DAY) for _ in range(MADE_ROWS)],
    }
    return {
        name: [None if random.random() < 0.1 else random.choice(pools[dtype]) for _ in range(MADE_ROWS)]
        for name, dtype in dtypes.items()
    }


def _constants(program: Program) -> tuple[list[str], list[float]]:
    """Return the texts and the numbers that a program's steps compare and compute with."""
    words: list[str] = []
    numbers: list[float] = []
    for step in program.steps:
        dtype = program.steps[step["args"][0]]["dtype"] if step["args"] else step["dtype"]
        for value in (step.get("value"), *(step.get("options") or ())):
            if dtype == DType.String.value and isinstance(value, str):
                words.append(value)
            elif dtype not in (DType.String.value, DType.Boolean.value) and value is not None:
                numbers.append(float(value))
    return words, numbers


def arrays_of(features: Columns, manifest: Manifest) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for each in manifest.inputs:
        values = features[each.name]
        if each.dtype == DType.String:
            array = np.empty(len(values), np.object_)
            array[:] = values
        else:
            array = np.array(values, np.float64)
        arrays[each.name] = array
    return arrays

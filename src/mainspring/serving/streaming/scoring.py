"""Predictions for the events of a stream: features as of each event's time, by the bundle's own definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mainspring.core.errors import Invalid
from mainspring.core.schema import DType, Schema
from mainspring.serving.plane.runtime import Runtime
from mainspring.serving.protocol.schema import DATATYPES, RequestSchema

Columns = Mapping[str, Sequence[Any]]
_DTYPES: Mapping[str, DType] = {
    datatype: dtype for dtype, datatype in DATATYPES.items() if dtype is not DType.Timestamp
} | {"FP16": DType.Float32}


@dataclass(frozen=True, slots=True)
class Scored:
    """Predictions of some rows, by column; each column has shape (rows,).

    Attributes:
        sent: Keys and fields from which the features were read.
        clamped: Rows whose stored features are of a later instant than their event's, as the online store no longer
            answers for that.
    """

    features: Mapping[str, Sequence[Any]]
    outputs: Mapping[str, Sequence[Any]]
    statuses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sent: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    clamped: int = 0


class Predictor(Protocol):
    """One version of a model, for rows of a stream.

    Attributes:
        types: Types of features and outputs by name, as far as an expression can use them.
    """

    model: str
    version: str
    digest: str
    types: Schema

    def score(self, columns: Columns, at: Sequence[int], /) -> Scored:
        """Return predictions.

        Args:
            columns: Fields and windows of the events, each of shape (rows,).
            at: Instant of each, UTC epoch microseconds, shape (rows,).

        Raises:
            Unavailable: The online store does not answer.
            Invalid: A row holds a value that the model cannot take.
            ModelFailed: The model gave up on these rows.
        """
        ...

    def again(self, features: Columns, rows: int) -> Mapping[str, Sequence[Any]]:
        """Return the outputs for features that were read before."""
        ...


class BundlePredictor:
    """A bundle's model.

    Raises:
        Invalid: The model takes tensors, or needs a key or a field that the stream does not have.
    """

    def __init__(self, model: str, version: str, runtime: Runtime, columns: Schema) -> None:
        if runtime.reader is None or not isinstance(runtime.schema, RequestSchema):
            raise Invalid(f"{model} version {version} takes tensors.", fix="serve a model of features on a stream.")
        fields = runtime.schema.keyed
        missing = sorted(name for name, each in fields.items() if each.required and name not in columns)
        if missing:
            raise Invalid(
                f"{model} version {version} needs {missing}, which the stream's messages do not have.",
                fix=f"add columns to its source, or windows of these names; there are {sorted(columns)}.",
            )
        self.model, self.version, self.digest = model, version, runtime.digest
        self.runtime = runtime
        self._reader = runtime.reader
        self._sent = [name for name in fields if name in columns]
        self._names = [spec.name for spec in runtime.inputs]
        self.types = {name: each.dtype for name, each in runtime.schema.features.items()} | {
            name: _DTYPES[spec.datatype]
            for name, spec in runtime.outputs.items()
            if spec.datatype in _DTYPES and len(spec.shape) == 1
        }

    def score(self, columns: Columns, at: Sequence[int]) -> Scored:
        sent = {name: columns[name] for name in self._sent}
        read, clamped = self._reader.read_each(sent, at)
        features = {name: read.features[name] for name in self._names}
        return Scored(features, self.again(features, len(at)), read.statuses, sent, clamped)

    def again(self, features: Columns, rows: int) -> Mapping[str, Sequence[Any]]:
        return {name: array.tolist() for name, array in self.runtime.executor.predict(features, rows).items()}

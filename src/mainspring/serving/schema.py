"""What a model takes, checked by name and type: its features, or what they are looked up and computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.schema import DType
from mainspring.core.time import parse_instant
from mainspring.serving.codec import InferRequest, InputTensor, flat

DATATYPES = {
    DType.String: "BYTES",
    DType.Boolean: "BOOL",
    DType.Int32: "INT32",
    DType.Int64: "INT64",
    DType.Float32: "FP32",
    DType.Float64: "FP64",
    DType.Timestamp: "INT64",  # UTC epoch microseconds; as BYTES, ISO 8601 with an offset
}


@dataclass(frozen=True, slots=True)
class Field:
    """One input by name. What is not `required` may be left out and is null then."""

    name: str
    dtype: DType
    required: bool = True
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Rows:
    """A request's columns, each of `count` values. `keyed` says that they are keys and request fields, not features."""

    columns: Mapping[str, Sequence[Any]]
    count: int
    keyed: bool


class RequestSchema:
    """What one version of a model can be asked with.

    Args:
        features: Every input of the model; a full request has all of them.
        keyed: The entity keys and request fields from which the features follow; empty where only full ones work.
        max_rows: The most rows in one request.
    """

    def __init__(self, features: Sequence[Field], keyed: Sequence[Field], *, max_rows: int) -> None:
        self.features = {field.name: field for field in features}
        self.keyed = {field.name: field for field in keyed}
        self._max_rows = max_rows
        self._required = {
            False: frozenset(self.features),
            True: frozenset(field.name for field in keyed if field.required),
        }

    def read(self, request: InferRequest) -> Rows:
        """Return the request's columns, checked.

        Raises:
            Invalid: An input is missing, unknown, there twice, of the wrong type or shape, or holds a value that its
                type cannot; the message names it.
        """
        inputs = request.inputs
        keyed = self._is_keyed(inputs)
        fields = self.keyed if keyed else self.features
        columns: dict[str, Sequence[Any]] = {}
        count = -1
        for tensor in inputs:
            field = fields.get(tensor.name)
            if field is None:
                raise self._unknown(tensor.name, keyed)
            if tensor.name in columns:
                raise Invalid(f"Input {tensor.name!r} is given twice.")
            rows = _rows(tensor)
            if count < 0:
                count = self._check_count(rows, tensor.name)
            elif rows != count:
                raise Invalid(f"Input {tensor.name!r} has {rows} rows, {inputs[0].name!r} has {count}.")
            columns[tensor.name] = _values(tensor, field)
        if len(columns) < len(fields):
            missing = self._required[keyed] - columns.keys()
            if missing:
                raise Invalid(f"Inputs are missing: {', '.join(sorted(missing))}.")
        return Rows(columns, count, keyed)

    def _is_keyed(self, inputs: Sequence[InputTensor]) -> bool:
        if not inputs:
            raise Invalid("The request has no inputs.")
        return bool(self.keyed) and inputs[0].name in self.keyed

    def _unknown(self, name: str, keyed: bool) -> Invalid:
        if name in (self.features if keyed else self.keyed):
            return Invalid(f"Input {name!r} cannot stand beside the others: send all features, or keys and fields.")
        known = self.keyed if self.keyed else self.features
        return Invalid(f"There is no input {name[:100]!r}.", fix=f"the inputs are {', '.join(sorted(known))}.")

    def _check_count(self, rows: int, name: str) -> int:
        if rows == 0:
            raise Invalid(f"Input {name!r} has no rows.")
        if rows > self._max_rows:
            raise Invalid(f"Input {name!r} has {rows} rows; a request may have {self._max_rows}.")
        return rows


def _rows(tensor: InputTensor) -> int:
    shape = tensor.shape
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)) or shape[0] < 0:
        raise Invalid(f"Input {tensor.name!r} has the shape {shape[:8]}; it must be [rows] or [rows, 1].")
    return shape[0]


def _values(tensor: InputTensor, field: Field) -> list[Any]:
    try:
        values = flat(tensor.data)
    except Invalid as error:
        raise Invalid(f"Input {tensor.name!r}: {error.what}") from None
    if len(values) != tensor.shape[0]:
        raise Invalid(f"Input {tensor.name!r} has the shape {tensor.shape} and {len(values)} values.")
    if field.dtype is DType.Timestamp and tensor.datatype == "BYTES":
        values = [_instant(value, tensor.name) for value in values]
    elif tensor.datatype != DATATYPES[field.dtype]:
        raise Invalid(
            f"Input {tensor.name!r} has the datatype {tensor.datatype[:20]!r}; it must be {DATATYPES[field.dtype]}."
        )
    fits = _FITS[field.dtype]
    for value in values:
        if value is None:
            if not field.nullable:
                raise Invalid(f"Input {tensor.name!r} holds a null, which it cannot.")
        elif not fits(value):
            raise Invalid(f"Input {tensor.name!r} holds {_shown(value)}, which is no {DATATYPES[field.dtype]}.")
    return values


def _instant(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if type(value) is not str:
        raise Invalid(f"Input {name!r} holds {_shown(value)}, which is no ISO 8601 time.")
    try:
        return parse_instant(value)
    except (Invalid, OverflowError):
        raise Invalid(f"Input {name!r} holds {_shown(value)}, which is no ISO 8601 time with an offset.") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _integer(bits: int) -> Callable[[Any], bool]:
    low, high = -(1 << bits), 1 << bits

    def fits(value: Any) -> bool:
        return type(value) is int and low <= value < high

    return fits


def _float(largest: float) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        kind = type(value)
        return (kind is float or kind is int) and -largest <= value <= largest

    return fits


_FITS: dict[DType, Callable[[Any], bool]] = {
    DType.String: lambda value: type(value) is str,
    DType.Boolean: lambda value: type(value) is bool,
    DType.Int32: _integer(31),
    DType.Int64: _integer(63),
    DType.Timestamp: _integer(63),
    DType.Float32: _float(3.4028234663852886e38),
    DType.Float64: _float(1.7976931348623157e308),
}

"""Inputs of a model, checked by name and type: its features, or what they are looked up and computed from."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Invalid
from mainspring.core.schema import DType
from mainspring.core.time import parse_instant
from mainspring.registry.model import TensorSpec
from mainspring.serving.protocol.tensor import BYTES, DTYPES, Tensor, shown
from mainspring.serving.protocol.values import shown_value

DATATYPES = {
    DType.String: "BYTES",
    DType.Boolean: "BOOL",
    DType.Int32: "INT32",
    DType.Int64: "INT64",
    DType.Float32: "FP32",
    DType.Float64: "FP64",
    DType.Timestamp: "INT64",  # UTC epoch microseconds; as BYTES, ISO 8601 with an offset, or a date: its midnight UTC
}
# The type codes of `array.array`, where they are as wide as the datatype.
_CODES = {
    datatype: code
    for datatype, code in {
        **{"UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i"},
        **{"INT64": "q", "FP32": "f", "FP64": "d"},
    }.items()
    if array(code).itemsize == DTYPES[datatype].itemsize and sys.byteorder == "little"
}


_VALUE = 40  # bytes of a number in a list, and of an empty text


@dataclass(frozen=True, slots=True)
class Field:
    """One input by name. What is not `required` may be left out and is null then."""

    name: str
    dtype: DType
    required: bool = True
    nullable: bool = True


class Rows(msgspec.Struct, eq=False):
    """A request's columns by name: of a model of features, lists of `count` values; of a model of tensors, arrays of
    shape (count, ...).

    `nbytes` is about how much memory they take. `keyed` says that they are keys and request fields, not features. Only
    requests of one `tail`, the shapes without their first dimension, can run together.
    """

    columns: Mapping[str, Any]
    count: int
    nbytes: int = 0
    keyed: bool = False
    tail: tuple[tuple[int, ...], ...] = ()


class RequestSchema:
    """Inputs that one version of a model of features accepts.

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

    def read(self, inputs: Sequence[Tensor]) -> Rows:
        """Return the request's columns, checked.

        Raises:
            Invalid: An input is missing, unknown, there twice, of the wrong type or shape, or holds a value that its
                type cannot; the message names it.
        """
        keyed = self._is_keyed(inputs)
        fields = self.keyed if keyed else self.features
        columns: dict[str, Sequence[Any]] = {}
        count, nbytes = -1, 0
        for tensor in inputs:
            field = fields.get(tensor.name)
            if field is None:
                raise self._unknown(tensor.name, keyed)
            if tensor.name in columns:
                raise _twice(tensor.name)
            shape = tensor.shape
            if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
                raise Invalid(f"Input {tensor.name!r} has the shape {shown(shape)}; it must be [rows] or [rows, 1].")
            if shape[0] != count:
                count = _check_count(shape[0], tensor.name, count, inputs[0].name, self._max_rows)
            values = columns[tensor.name] = _values(tensor, field)
            nbytes += _VALUE * len(values)
            if field.dtype is DType.String:
                nbytes += _characters(values)
        if len(columns) < len(fields):
            missing = self._required[keyed] - columns.keys()
            if missing:
                raise _missing(missing)
        return Rows(columns, count, nbytes, keyed)

    def _is_keyed(self, inputs: Sequence[Tensor]) -> bool:
        if not inputs:
            raise Invalid("The request has no inputs.")
        return bool(self.keyed) and inputs[0].name in self.keyed

    def _unknown(self, name: str, keyed: bool) -> Invalid:
        if name in (self.features if keyed else self.keyed):
            return Invalid(f"Input {name!r} cannot be combined with the others: send all features, or keys and fields.")
        return _unknown(name, self.keyed if self.keyed else self.features)


class TensorSchema:
    """Inputs that one version of a model of tensors accepts: exactly its own.

    Args:
        max_rows: The most rows in one request.
        nullable: The names of those in which a null in a list becomes NaN; elsewhere it is refused.
    """

    keyed: Mapping[str, Field] = {}  # there are no entities behind tensors

    def __init__(self, tensors: Sequence[TensorSpec], *, max_rows: int, nullable: Collection[str] = ()) -> None:
        self._specs = {
            spec.name: (spec, spec.shape[1:], -1 in spec.shape[1:], DTYPES[spec.datatype]) for spec in tensors
        }
        self._ragged = any(ragged for _, _, ragged, _ in self._specs.values())
        self.nullable = frozenset(
            spec.name for spec in tensors if DTYPES[spec.datatype].kind == "f" and spec.name in nullable
        )
        self._max_rows = max_rows

    def read(self, inputs: Sequence[Tensor]) -> Rows:
        """Return the request's tensors as arrays, checked. They may be over the request's own memory, read-only.

        Raises:
            Invalid: See `RequestSchema.read`.
        """
        columns: dict[str, np.ndarray[Any, Any]] = {}
        count, nbytes = -1, 0
        for tensor in inputs:
            found = self._specs.get(tensor.name)
            if found is None:
                raise _unknown(tensor.name, self._specs)
            if tensor.name in columns:
                raise _twice(tensor.name)
            spec, tail, ragged, dtype = found
            if tensor.datatype != spec.datatype:
                raise _wrong_type(tensor, spec.datatype)
            shape = tensor.shape
            if shape[1:] != tail and not (ragged and _fits(shape[1:], tail)):
                raise Invalid(f"Input {tensor.name!r} has the shape {shown(shape)}; it must be {shown(spec.shape)}.")
            if not shape or shape[0] != count:
                count = _check_count(shape[0] if shape else 0, tensor.name, count, inputs[0].name, self._max_rows)
            column = columns[tensor.name] = _array(tensor, dtype, tensor.name in self.nullable)
            nbytes += column.nbytes
            if tensor.datatype == BYTES:
                nbytes += _VALUE * column.size + _characters(column.flat)
        if len(columns) < len(self._specs):
            raise _missing(self._specs.keys() - columns.keys())
        tails: list[tuple[int, ...]] = [columns[name].shape[1:] for name in self._specs] if self._ragged else []
        return Rows(columns, count, nbytes, False, tuple(tails))


def _check_count(rows: int, name: str, others: int, first: str, most: int) -> int:
    if others >= 0:
        raise Invalid(f"Input {name!r} has {rows} rows, but {first!r} has {others}.")
    if rows == 0:
        raise Invalid(f"Input {name!r} has no rows.")
    if rows > most:
        raise Invalid(f"Input {name!r} has {rows} rows; the maximum is {most}.")
    return rows


def _twice(name: str) -> Invalid:
    return Invalid(f"Input {name!r} is given twice.")


def _missing(names: set[str] | frozenset[str]) -> Invalid:
    return Invalid(f"Inputs are missing: {', '.join(sorted(names))}.")


def _unknown(name: str, known: Mapping[str, Any]) -> Invalid:
    return Invalid(f"There is no input {name[:100]!r}.", fix=f"the inputs are {', '.join(sorted(known))}.")


def _wrong_type(tensor: Tensor, datatype: str) -> Invalid:
    return Invalid(f"Input {tensor.name!r} has the datatype {tensor.datatype[:20]!r}; it must be {datatype}.")


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        size == want or (want == -1 and size > 0) for size, want in zip(shape, wanted, strict=True)
    )


def _array(tensor: Tensor, dtype: np.dtype[Any], nullable: bool) -> np.ndarray[Any, Any]:
    data = tensor.data
    if isinstance(data, np.ndarray):
        return data
    try:
        if code := _CODES.get(tensor.datatype):
            # Twice as fast as `np.array`, and refuses nulls.
            return np.ndarray(tensor.shape, dtype, array(code, data))
    except TypeError:
        if not nullable:
            raise _null(tensor.name) from None
    if None in data and not nullable:
        raise _null(tensor.name)
    if tensor.datatype == BYTES:
        found = np.empty(len(data), np.object_)
        found[:] = _texts(tensor.name, data)
        return found.reshape(tensor.shape)
    return np.array(data, dtype).reshape(tensor.shape)


def _characters(values: Iterable[Any]) -> int:
    return sum([len(value) for value in values if value is not None])


def _null(name: str) -> Invalid:
    return Invalid(f"Input {name!r} contains a null, which a tensor cannot represent.")


def _texts(name: str, data: Sequence[Any]) -> list[Any]:
    """Return BYTES as text, which is all that a model here can take."""
    try:
        return [value.decode() if type(value) is bytes else value for value in data]
    except UnicodeDecodeError as error:
        raise Invalid(f"Input {name!r} contains bytes that are not UTF-8: {error.reason}.") from None


def _values(tensor: Tensor, field: Field) -> list[Any]:
    """Return a column. Among arrays, which have no null, NaN is one."""
    data = tensor.data
    values: list[Any] = data if isinstance(data, list) else _plain(tensor.name, data)
    if tensor.datatype == BYTES:
        values = _texts(tensor.name, values)
    if field.dtype is DType.Timestamp and tensor.datatype == BYTES:
        values = [_instant(value, tensor.name) for value in values]
    elif tensor.datatype != DATATYPES[field.dtype]:
        raise _wrong_type(tensor, DATATYPES[field.dtype])
    if not field.nullable and None in values:
        raise Invalid(f"Input {tensor.name!r} contains a null, which is not allowed.")
    return values


def _plain(name: str, data: np.ndarray[Any, Any]) -> list[Any]:
    values: list[Any] = data.ravel().tolist()
    if data.dtype.kind != "f" or np.isfinite(data).all():
        return values
    if any(map(isinf, values)):
        raise Invalid(f"Input {name!r} contains an infinite value, which is not allowed.")
    return [value if value == value else None for value in values]  # noqa: PLR0124  # NaN differs from itself


def _instant(value: Any, name: str) -> int | None:
    if value is None:
        return None
    try:
        return parse_instant(value)
    except (Invalid, OverflowError):
        raise Invalid(
            f"Input {name!r} contains {shown_value(value)}, which is not an ISO 8601 time with an offset.",
            fix="write 2013-07-01T00:00:00Z, or another offset; a date alone is its midnight UTC.",
        ) from None

"""Arrow columns as the values that an executor takes, with the rows that it cannot take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import InvalidData
from mainspring.core.schema import DType
from mainspring.registry.model import Manifest, TensorSpec
from mainspring.serving.ports import Executor
from mainspring.serving.protocol.tensor import DTYPES

Array = np.ndarray[Any, Any]
Faults = dict[str, Array]  # reason -> mask of rows
_WHOLE: Mapping[DType, Any] = {DType.Int32: np.iinfo(np.int32), DType.Int64: np.iinfo(np.int64)}


def check_column(name: str, kind: Any, wanted: DType | TensorSpec, owner: str) -> None:
    """Raise if no value of an Arrow type is one of the model's input.

    Raises:
        InvalidData: It is of another kind.
    """
    if isinstance(wanted, TensorSpec):
        for _ in wanted.shape[1:]:
            kind = kind.value_type if _is_list(kind) else pa.null()
        fits = {"O": _is_text(kind), "b": pa.types.is_boolean(kind)}.get(DTYPES[wanted.datatype].kind, _is_number(kind))
        shown = f"{wanted.datatype}{list(wanted.shape)}"
    else:
        fits = (
            _is_text(kind)
            if wanted is DType.String
            else pa.types.is_boolean(kind)
            if wanted is DType.Boolean
            else _is_number(kind)
        )
        shown = wanted.value
    if not fits:
        raise InvalidData(
            f"Column {name!r} of {owner} is {kind}, but the model takes {shown}.",
            fix=f'convert it, such as by a query: --from "SELECT ..., CAST({name} AS ...)".',
        )


def inputs_of(rows: pa.Table, manifest: Manifest, executor: Executor) -> tuple[dict[str, Array], Faults]:
    """Return the model's inputs, name -> shape (rows, ...), and masks of the rows that it cannot take, by reason.

    A row with a fault has some value of the type.
    """
    inputs, faults = {}, {}
    for spec in manifest.tensors:
        inputs[spec.name], faulty = _tensor(rows[spec.name].combine_chunks(), spec)
        faults[f"{spec.name} is not {spec.datatype}{list(spec.shape)}"] = faulty
    for each in manifest.inputs:
        column: Any = rows[each.name].combine_chunks()
        if each.dtype is DType.String:
            inputs[each.name] = np.array(column.to_pylist(), np.object_)
            continue
        if column.null_count and not executor.nullable(each.name):
            faults[f"{each.name} is null"] = _mask(pc.is_null(column))
            column = column.fill_null(False if pa.types.is_boolean(column.type) else 0)
        inputs[each.name], beyond = _numbers(column, each.dtype)
        if beyond is not None:
            faults[f"{each.name} is no {each.dtype.value}"] = beyond
    return inputs, {reason: mask for reason, mask in faults.items() if mask.any()}


def _numbers(column: Any, dtype: DType) -> tuple[Array, Array | None]:
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_boolean(column.type) and column.null_count:
        column = column.cast(pa.int8())
    values = column.to_numpy(zero_copy_only=False)  # nulls are NaN
    limits = _WHOLE.get(dtype)
    if limits is None or column.null_count or values.dtype.kind == "b":
        return values, None
    if values.dtype.kind in "iu":
        faulty = (values < limits.min) | (values > limits.max)
        return np.where(faulty, 0, values), faulty
    whole = np.isfinite(values) & (np.floor(values) == values)
    faulty = ~(whole & (values >= limits.min) & (values <= float(limits.max)))
    return np.where(faulty, 0.0, values).astype(np.int64), faulty


def _tensor(column: Any, spec: TensorSpec) -> tuple[Array, Array]:
    """Return a column of lists as a tensor, and the rows of another shape."""
    rows, dtype, tail = len(column), DTYPES[spec.datatype], spec.shape[1:]
    inner = column
    for size in tail:
        if inner.null_count or (np.asarray(pc.list_value_length(inner)) != size).any():
            return _row_by_row(column, spec)
        inner = inner.flatten()
    if inner.null_count:
        return _row_by_row(column, spec)
    faulty = np.zeros(rows, bool)
    if dtype.kind == "O":
        return np.array(inner.to_pylist(), np.object_).reshape(rows, *tail), faulty
    values = inner.to_numpy(zero_copy_only=False)
    if dtype.kind in "iu" and values.dtype != dtype and not np.array_equal(values.astype(dtype), values):
        return _row_by_row(column, spec)
    with np.errstate(over="ignore"):  # a value beyond the range of a float becomes infinity, as in a request
        return values.astype(dtype, copy=False).reshape(rows, *tail), faulty


def _row_by_row(column: Any, spec: TensorSpec) -> tuple[Array, Array]:
    dtype, tail = DTYPES[spec.datatype], spec.shape[1:]
    found = np.zeros((len(column), *tail), dtype)
    if dtype.kind == "O":
        found[...] = ""
    faulty = np.zeros(len(column), bool)
    for place, value in enumerate(column.to_pylist()):
        try:
            array = np.array(value)
            right = _texts(array, tail) if dtype.kind == "O" else array.shape == tail and array.dtype.kind != "O"
            with np.errstate(over="ignore", invalid="ignore"):
                cast = array.astype(dtype) if right else array
            faulty[place] = not right or (dtype.kind in "iu" and not np.array_equal(cast, array))
        except (TypeError, ValueError):
            faulty[place] = True
        if not faulty[place]:
            found[place] = cast
    return found, faulty


def _texts(array: Array, tail: tuple[int, ...]) -> bool:
    return array.shape == tail and all(isinstance(each, str) for each in array.flat)


def output_type(spec: TensorSpec) -> pa.DataType:
    """Return the Arrow type of an output's column: numbers or text, in lists for a tensor."""
    dtype = DTYPES[spec.datatype]
    kind: pa.DataType = pa.string() if dtype.kind == "O" else pa.from_numpy_dtype(dtype)
    for size in reversed(spec.shape[1:]):
        kind = pa.list_(kind) if size < 0 else pa.list_(kind, size)
    return kind


def output_column(values: Array, kind: Any) -> Any:
    """Return one output, shape (rows, ...), as a column."""
    flat = values.reshape(-1)
    inner = kind
    while _is_list(inner):
        inner = inner.value_type
    if flat.dtype.kind == "O":
        column = pa.array([each.decode() if isinstance(each, bytes) else each for each in flat], inner)
    else:
        column = pa.array(np.ascontiguousarray(flat)).cast(inner)
    return _nested(column, kind, values.shape)


def _nested(column: Any, kind: Any, shape: tuple[int, ...]) -> Any:
    if len(shape) == 1:
        return column
    inner = _nested(column, kind.value_type, (shape[0] * shape[1], *shape[2:]))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(inner, shape[1])
    offsets: Any = pa.array(np.arange(0, (shape[0] + 1) * shape[1], max(1, shape[1]), dtype=np.int32)[: shape[0] + 1])
    nested: Any = pa.ListArray.from_arrays(offsets, inner)
    return nested


def _mask(column: Any) -> Array:
    return np.array(column.to_numpy(zero_copy_only=False), bool)


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))

"""Shared parts of executors: conversion of values to a model's arrays, and errors of a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid, MainspringError
from mainspring.registry.model import Input, Manifest, TensorSpec
from mainspring.serving.ports import Executor
from mainspring.serving.protocol.schema import DATATYPES
from mainspring.serving.protocol.tensor import DTYPES, datatype_of, shown

# What lists may hold, by the kind of array that is asked for: NumPy itself would also read texts, and cut numbers off.
_TYPES: Mapping[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {float, int}, "O": {str, bytes}}

Array = np.ndarray[Any, Any]


class ModelFailed(MainspringError):
    """The model itself failed on these rows."""


def first_line(error: Exception) -> str:
    """Return the first line of a library's error, short enough to show."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def last_of(found: Any) -> Any:
    """Return what a function returned; of a generator what it yielded last.

    Raises:
        ValueError: It yielded nothing.
    """
    if not isinstance(found, Generator):
        return found
    last = deque(found, maxlen=1)
    if not last:
        raise ValueError("it yielded nothing")
    return last[0]


def by_name(specs: Iterable[TensorSpec]) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in specs}


def column_specs(inputs: Iterable[Input]) -> dict[str, TensorSpec]:
    """Return a model's columns as tensors of shape (-1,)."""
    return {each.name: TensorSpec(each.name, DATATYPES[each.dtype], (-1,)) for each in inputs}


def given(inputs: Mapping[str, Sequence[Any] | Array], name: str) -> Sequence[Any] | Array:
    """Return an input's values.

    Raises:
        Invalid: It was not given.
    """
    try:
        return inputs[name]
    except KeyError:
        raise Invalid(f"Input {name!r} is missing.") from None


def column(values: Sequence[Any] | Array, dtype: np.dtype[Any], name: str, rows: int) -> Array:
    """Return one column's values, shape (rows,): null as NaN among floats, as an empty string among strings.

    Raises:
        Invalid: A value is null where the type has none, or is of another kind, or there are not `rows` of them.
    """
    if len(values) != rows:
        raise Invalid(f"Feature {name!r} has {len(values)} values for {rows} rows.")
    if dtype.kind == "O":
        return texts(np.asarray(values, np.object_), name)
    text = values.dtype.kind in "OUS" if isinstance(values, np.ndarray) else len(values) and type(values[0]) is str
    try:
        if text:
            raise ValueError(name)  # NumPy would read the number in it
        return np.array(values, dtype)
    except (TypeError, ValueError, OverflowError):
        raise Invalid(f"Feature {name!r} contains a null or a value that the model does not accept.") from None


def texts(values: Array, name: str) -> Array:
    """Return an array of `str` in the same shape, null as an empty one.

    Raises:
        Invalid: A value is not text; bytes are, if they are UTF-8.
    """
    found = np.empty(values.size, np.object_)
    try:
        for place, value in enumerate(values.ravel()):
            found[place] = value if type(value) is str else "" if value is None else _decoded(value)
    except (TypeError, UnicodeDecodeError):
        raise Invalid(f"Input {name!r} contains a value that is not text.") from None
    return found.reshape(values.shape)


def _decoded(value: Any) -> str:
    if not isinstance(value, bytes):
        raise TypeError(value)
    return value.decode()


def closed() -> ModelFailed:
    """Return the error of a call to a model that was closed."""
    return ModelFailed("The model was closed.")


def tensor(values: Sequence[Any] | Array, spec: TensorSpec, rows: int, *, nullable: bool = False) -> Array:
    """Return one tensor, shape (rows, ...) as `spec` says.

    Args:
        values: An array of exactly the spec's type, or nested lists.
        nullable: Whether a null in lists of floats is NaN; else it is refused.

    Raises:
        Invalid: The type or the shape is another; the message names both.
    """
    array = values if isinstance(values, np.ndarray) else _from_lists(values, spec, nullable)
    if array.dtype != DTYPES[spec.datatype]:
        found = datatype_of(array.dtype)
        raise Invalid(f"Input {spec.name!r} has the datatype {found}; it must be {spec.datatype}.")
    wanted = (rows, *spec.shape[1:])
    if len(array.shape) != len(wanted) or any(
        want not in (-1, have) for want, have in zip(wanted, array.shape, strict=True)
    ):
        raise Invalid(f"Input {spec.name!r} has the shape {shown(array.shape)}; it must be {shown(wanted)}.")
    return array


def arrays(inputs: Mapping[str, Any], executor: Executor, manifest: Manifest, rows: int) -> Mapping[str, Any]:
    """Return golden rows as a lane hands them over: of a model of tensors as arrays, whose making is not its work."""
    if not manifest.tensors:
        return inputs
    return {
        spec.name: tensor(inputs[spec.name], spec, rows, nullable=executor.nullable(spec.name))
        for spec in manifest.tensors
    }


def _from_lists(values: Sequence[Any], spec: TensorSpec, nullable: bool) -> Array:
    dtype = DTYPES[spec.datatype]
    try:
        allowed = _TYPES[dtype.kind] | ({type(None)} if nullable and dtype.kind == "f" else set())
        if not set(map(type, np.array(values, np.object_).flat)) <= allowed:
            raise ValueError(spec.name)
        return np.array(values, dtype)
    except (TypeError, ValueError, OverflowError):
        raise Invalid(
            f"Input {spec.name!r} contains a value that is not {spec.datatype}, or is unevenly nested."
        ) from None

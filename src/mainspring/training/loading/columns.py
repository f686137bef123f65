"""Columns of Arrow as arrays: a matrix of several, or an array of one."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import Invalid, InvalidData

Columns = str | Sequence[str]  # the name of one column, or the names of those of a matrix
Values = npt.NDArray[Any]

_LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Array:
    """An array of a batch: a matrix of columns, of shape (rows, columns), or one column, of shape (rows, ...).

    `known` are the texts of one column in the order of their codes; `whole` says that no row may lack a value.
    """

    columns: tuple[str, ...]
    dtype: Any
    shape: tuple[int, ...] = ()
    matrix: bool = False
    known: pa.Array[Any] | None = None
    whole: bool = False

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype.itemsize)

    def empty(self, rows: int) -> Values:
        """Return an array for so many rows."""
        return np.empty((rows, *self.shape), self.dtype)

    def takes(self, kind: pa.DataType) -> bool:
        """Return whether columns of this type, which is that of one file, can be written into the array."""
        if pa.types.is_null(kind):
            return True
        if self.known is not None:
            return is_category(kind)
        if self.matrix or not self.shape:
            return _is_number(kind)
        return pa.types.is_list(kind) or (pa.types.is_fixed_size_list(kind) and kind.list_size == self.shape[0])

    def write(self, batch: pa.RecordBatch, into: Values, fill: Mapping[str, Any]) -> None:
        """Write the rows of a batch into an array of as many rows.

        Raises:
            InvalidData: A value has no place in it; the message names the column.
        """
        for place, name in enumerate(self.columns):
            values = _filled(name, batch.column(name), fill.get(name))
            if values.null_count and self.whole:
                raise _no_target(name, values.null_count)
            if self.matrix:
                into[:, place] = _numbers(name, values)
            else:
                into[:] = self._one(name, values)

    def _one(self, name: str, values: pa.Array[Any]) -> Values:
        if self.known is not None:
            return self._codes(name, values, self.known)
        if self.shape:
            return _vectors(name, values, self.shape[0])
        if values.null_count and not np.issubdtype(self.dtype, np.floating):
            raise InvalidData(
                f"Column {name!r} has {values.null_count} nulls, and whole numbers have no place for them.",
                fix=f"give a value for them, fill={{{name!r}: 0}}, or write the rows without them.",
            )
        found = _numbers(name, values)
        if self.dtype == np.int64 and found.dtype.kind == "f":
            raise InvalidData(
                f"Column {name!r} has whole numbers, and its fill is a fraction.", fix="fill a whole one."
            )
        if found.dtype == np.uint64 and len(found) and found.max() > _LARGEST:
            raise InvalidData(
                f"Column {name!r} has {found.max()}, which is more than int64 holds.",
                fix=f"make it one of a matrix, inputs=[{name!r}], which rounds it; or read it as codes, "
                f"categories=[{name!r}].",
            )
        return found

    def _codes(self, name: str, values: pa.Array[Any], known: pa.Array[Any]) -> Values:
        found = pc.index_in(values.cast(pa.string()), value_set=known)
        if not self.whole:
            return np.asarray(pc.add(found.fill_null(-1), 1))
        if found.null_count:
            odd = values.filter(found.is_null())[0].as_py()
            raise InvalidData(
                f"Column {name!r} has {odd!r}, which is none of its {len(known)} categories.",
                fix="add it to `categories`.",
            )
        return np.asarray(found)


class Layout:
    """Arrays of a loader's batches, the inputs before the targets."""

    def __init__(self, inputs: Sequence[Array], targets: Array | None, fill: Mapping[str, Any]) -> None:
        self.arrays = (*inputs, *([] if targets is None else [targets]))
        self._fill = fill
        self.columns = tuple(dict.fromkeys(name for each in self.arrays for name in each.columns))
        self.row_bytes = sum(each.row_bytes for each in self.arrays)
        if odd := fill.keys() - set(self.columns):
            raise Invalid(f"There is a fill for {sorted(odd)}, which no input is.", fix="name columns that are read.")

    @property
    def texts(self) -> bool:
        """Whether texts are read as codes."""
        return any(each.known is not None for each in self.arrays)

    def empty(self, rows: int) -> list[Values]:
        """Return arrays for so many rows."""
        return [each.empty(rows) for each in self.arrays]

    def write(self, batch: pa.RecordBatch, into: Sequence[Values]) -> None:
        """Write the rows of a batch into arrays of as many rows.

        Raises:
            InvalidData: A value has no place in them.
        """
        for each, array in zip(self.arrays, into, strict=True):
            each.write(batch, array, self._fill)


def names(columns: Columns | tuple[Columns, ...]) -> Iterator[Columns]:
    """Yield the columns of each input: a tuple stands for several inputs."""
    yield from columns if isinstance(columns, tuple) else (columns,)


def array_of(
    columns: Columns,
    types: Mapping[str, pa.DataType],
    dtype: str,
    categories: Mapping[str, Collection[str]],
    *,
    whole: bool = False,
) -> Array:
    """Return the array of columns of these types.

    Raises:
        Invalid: A column has a type that is no number, and no categories.
    """
    if isinstance(columns, str):
        return _single(columns, types[columns], dtype, categories.get(columns), whole=whole)
    if not columns:
        raise Invalid("An input has no columns.", fix="name at least one.")
    for name in columns:
        if name in categories:
            raise Invalid(
                f"Column {name!r} has categories, and is one of a matrix.",
                fix=f"make it an input of its own: inputs=([...], {name!r}).",
            )
        _check_number(name, types[name])
    return Array(tuple(columns), np.dtype(dtype), (len(columns),), matrix=True, whole=whole)


def _single(name: str, kind: pa.DataType, dtype: str, known: Collection[str] | None, *, whole: bool) -> Array:
    if known is not None:
        return Array((name,), np.dtype(np.int64), known=pa.array([*known], pa.string()), whole=whole)
    if pa.types.is_fixed_size_list(kind):
        return Array((name,), np.dtype(dtype), (kind.list_size,), whole=whole)
    _check_number(name, kind)
    return Array((name,), np.dtype(dtype if is_fraction(kind) else np.int64), whole=whole)


def _check_number(name: str, kind: pa.DataType) -> None:
    types = pa.types
    if _is_number(kind) or types.is_null(kind):
        return
    fix = "leave it out, or derive numbers from it in a feature."
    if is_text(kind):
        fix = f"read it as codes, categories=[{name!r}] and {name!r} as an input of its own."
    elif types.is_list(kind) or types.is_fixed_size_list(kind):
        fix = "store it with a fixed size (pa.list_(pa.float32(), SIZE)), and make it an input of its own."
    raise Invalid(f"Column {name!r} is {kind}, which is no number.", fix=fix)


def _is_number(kind: pa.DataType) -> bool:
    return is_fraction(kind) or is_whole(kind)


def is_fraction(kind: pa.DataType) -> bool:
    """Return whether a type is one of numbers with fractions."""
    return pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def is_whole(kind: pa.DataType) -> bool:
    """Return whether a type is one of those that are read as whole numbers."""
    return pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_timestamp(kind)


def is_category(kind: pa.DataType) -> bool:
    """Return whether values of a type can be read as codes."""
    return not pa.types.is_nested(kind)


def check_categories(name: str, kind: pa.DataType) -> None:
    """Raise if a column cannot be read as codes.

    Raises:
        Invalid: So it is.
    """
    if not is_category(kind):
        raise Invalid(f"Column {name!r} is {kind}, which is no category.", fix="leave it out of `categories`.")


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is that of texts, in one of Arrow's layouts."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _filled(name: str, values: pa.Array[Any], value: Any) -> pa.Array[Any]:
    if value is None or not values.null_count:
        return values
    if isinstance(value, float) and not value.is_integer() and pa.types.is_integer(values.type):
        values = values.cast(pa.float64())  # PyArrow would cut it
    try:
        return pa.repeat(value, len(values)) if pa.types.is_null(values.type) else values.fill_null(value)
    except (pa.ArrowException, OverflowError) as error:
        raise Invalid(f"Column {name!r} is {values.type}, which the fill {value!r} is not.") from error


def _numbers(name: str, values: pa.Array[Any]) -> Values:
    kind = values.type
    if pa.types.is_decimal(kind):
        values = values.cast(pa.float64())
    elif pa.types.is_timestamp(kind):
        values = values.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64())
    elif pa.types.is_boolean(kind):
        values = values.cast(pa.uint8())
    elif pa.types.is_null(kind):
        values = pa.nulls(len(values), pa.float64())
    try:
        return values.to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise InvalidData(f"Column {name!r} is {kind}, which is no number.", fix="leave it out.") from error


def _vectors(name: str, values: Any, size: int) -> Values:
    flat = values if pa.types.is_null(values.type) else values.flatten()
    if values.null_count or len(flat) != len(values) * size:
        raise InvalidData(
            f"Column {name!r} has rows that are null, or have not {size} numbers.", fix="write the rows without them."
        )
    return _numbers(name, flat).reshape(len(values), size)


def _no_target(name: str, count: int) -> InvalidData:
    return InvalidData(
        f"The target {name!r} is null in {count} rows.", fix="write the rows without them, or give fill= a value."
    )

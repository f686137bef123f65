"""NumPy implementation of operations on strings, as arrays of objects; see `operations`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mainspring.core.expr.parsing import WHITE_SPACE
from mainspring.core.expr.vectors import Array

_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}


def objects(values: list[Any]) -> Array:
    """Return strings as an array of objects."""
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def lower(values: Array) -> Array:
    return objects([text.lower() if text.isascii() else text.translate(_LOWER) for text in values.tolist()])


def upper(values: Array) -> Array:
    return objects([text.upper() if text.isascii() else text.translate(_UPPER) for text in values.tolist()])


def length(values: Array) -> Array:
    return np.array([len(text) for text in values.tolist()], dtype=np.int32)


def strip(values: Array) -> Array:
    return objects([text.strip(WHITE_SPACE) for text in values.tolist()])


def slice_of(start: Any, length: Any) -> Callable[[Array], Array]:
    end = None if length is None else start + length
    return lambda values: objects([text[start:end] for text in values.tolist()])


def replaced(text: str, old: str, new: str) -> str:
    return text.replace(old, new) if old else text


def together(kind: Any, function: Callable[..., Any]) -> Callable[..., tuple[Array, Array]]:
    """Return `function` of several strings, null where one is; its results are of NumPy's type `kind`."""

    def apply(*arguments: tuple[Array, Array]) -> tuple[Array, Array]:
        columns = np.broadcast_arrays(*(values for values, _ in arguments))
        found = [function(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
        valid = arguments[0][1]
        for _, also in arguments[1:]:
            valid = valid & also
        return objects(found) if kind is np.object_ else np.array(found, dtype=kind), valid

    return apply

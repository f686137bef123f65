"""Checks of a feature function on a sample: the same rows give the same values, and each row by itself too."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from mainspring.features.functions.columns import as_lists, compute
from mainspring.features.functions.process import FunctionFailed, FunctionProcess

# Libraries of linear algebra choose their order of summation by the number of rows.
_TOLERANCE = 1e-4
_ALONE = 8  # rows that are computed one by one


def check_repeats(process: FunctionProcess, rows: pa.Table) -> None:
    """Raise if a function is not repeatable on `rows`, or its values depend on the rows beside them.

    The rows are computed twice in one process, then in another, where all values must be equal; then the first ones one
    by one, where numbers may differ by 1e-4 of their size.

    Raises:
        FunctionFailed: A value differs, or the function fails.
    """
    function = process.function
    once = _values(process, rows)
    _compare(function.name, once, _values(process, rows), "called twice on the same rows", 0.0)
    process.close()
    _compare(function.name, once, _values(process, rows), "called in two processes on the same rows", 0.0)
    for row in range(min(_ALONE, len(rows))):
        alone = _values(process, rows.slice(row, 1))
        beside = {name: values[row : row + 1] for name, values in once.items()}
        _compare(function.name, beside, alone, f"called on row {row} alone and among {len(rows)} rows", _TOLERANCE)


def _values(process: FunctionProcess, rows: pa.Table) -> dict[str, list[Any]]:
    return as_lists(compute(process, rows))


def _compare(name: str, one: dict[str, list[Any]], two: dict[str, list[Any]], how: str, tolerance: float) -> None:
    for output, values in one.items():
        for row, (a, b) in enumerate(zip(values, two[output], strict=True)):
            if not _same(a, b, tolerance):
                raise FunctionFailed(
                    f"The feature function {name}, {how}, returns {output}={a!r} and {b!r} (row {row}).",
                    fix="make it depend on nothing but its row: fix its seeds, and use no clock, counter or "
                    "statistics of the batch.",
                )


def _same(one: Any, two: Any, tolerance: float) -> bool:
    if isinstance(one, float) and isinstance(two, float):
        if math.isnan(one) and math.isnan(two):
            return True
        return one == two or (tolerance > 0 and math.isclose(one, two, rel_tol=tolerance, abs_tol=tolerance))
    return bool(one == two) and type(one) is type(two)

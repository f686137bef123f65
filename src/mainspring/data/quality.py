"""Checks of a source as SQL: for each, the condition under which a row fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.core.expr.sql import SQL_TYPES, quote_name, quote_text
from mainspring.core.schema import DType
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT
from mainspring.data.checks import Check
from mainspring.data.flags import numbers
from mainspring.data.model import Source


def row_rules(source: Source) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield (columns, condition, reason) for each rule on single rows; a condition is never null.

    A row's times must not be null, whatever the checks: otherwise its event time would be unknown.
    """
    for name in source.times:
        yield (name,), f"{quote_name(name)} IS NULL", f"{name} is null"
    for name in source.id:
        if name not in source.times:
            yield (name,), f"{quote_name(name)} IS NULL", f"{name} is null, but is part of the id"
    for check in source.checks:
        condition = _CONDITIONS.get(check.kind)
        if condition is not None:
            yield check.columns, condition(check, source.columns[check.columns[0]]), f"fails {check}"


def certainly_pass(rows: pa.Table, source: Source) -> bool:
    """Return True if null counts and extremes prove that no row fails a rule, which is cheaper than checking each row.

    False proves nothing: most rules can only be checked by `row_rules`.

    Args:
        rows: The rows, with columns of the declared types.
    """
    for name, dtype in source.columns.items():
        latest = LAST_INSTANT - (source.lag_us if name == source.times[-1] else 0)
        if dtype is DType.Timestamp and not _within(rows[name], FIRST_INSTANT, latest):
            return False
    checks = [Check("not_null", (*source.times, *source.id)), *source.checks]
    return all(_certain(rows, check) for check in checks if check.kind in _CONDITIONS)


def _certain(rows: pa.Table, check: Check) -> bool:
    if check.kind == "not_null":
        return not any(rows[name].null_count for name in check.columns)
    is_closed = not (check.low_open or check.high_open)
    return check.kind == "in_range" and is_closed and _within(rows[check.columns[0]], check.low, check.high)


def _within(column: pa.ChunkedArray[Any], low: float | None, high: float | None) -> bool:
    floating = pa.types.is_floating(column.type)
    values = numbers(column.drop_null(), pa.float64() if floating else pa.int64())
    if not len(values):
        return True
    least, most = values.min(), values.max()  # both are NaN if any value is
    return bool(not np.isnan(least) and (low is None or least >= low) and (high is None or most <= high))


def unique_rules(source: Source) -> list[tuple[tuple[str, ...], str]]:
    """Return (columns, reason) for each rule that involves other rows."""
    return [(check.columns, f"fails {check}") for check in source.checks if check.kind == "unique"]


def _null(check: Check, _: DType) -> str:
    return "(" + " OR ".join(f"{quote_name(name)} IS NULL" for name in check.columns) + ")"


def _out_of_range(check: Check, dtype: DType) -> str:
    column = quote_name(check.columns[0])
    outside = [f"isnan({column})"] if dtype in (DType.Float32, DType.Float64) else []
    # Bounds are compared as doubles: comparison with a FLOAT column would round them.
    return _outside(check, f"CAST({column} AS DOUBLE)", outside)


def _outside(check: Check, number: str, outside: list[str]) -> str:
    for bound, sign in ((check.low, "<=" if check.low_open else "<"), (check.high, ">=" if check.high_open else ">")):
        if bound is not None:
            outside.append(f"{number} {sign} CAST({quote_text(repr(float(bound)))} AS DOUBLE)")
    return f"coalesce({' OR '.join(outside) or 'false'}, false)"


def _not_listed(check: Check, dtype: DType) -> str:
    column = quote_name(check.columns[0])
    if not check.values:
        return f"{column} IS NOT NULL"
    return f"({column} IS NOT NULL AND {column} NOT IN ({_values(check, dtype)}))"


def _listed(check: Check, dtype: DType) -> str:
    return f"coalesce({quote_name(check.columns[0])} IN ({_values(check, dtype)}), false)" if check.values else "false"


def _values(check: Check, dtype: DType) -> str:
    return ", ".join(f"CAST({quote_text(str(value))} AS {SQL_TYPES[dtype]})" for value in check.values)


def _unmatched(check: Check, _: DType) -> str:
    return f"coalesce(NOT regexp_matches({quote_name(check.columns[0])}, {quote_text(check.re2)}), false)"


def _wrong_length(check: Check, _: DType) -> str:
    return _outside(check, f"length({quote_name(check.columns[0])})", [])


def _not_beginning(check: Check, _: DType) -> str:
    return f"coalesce(NOT starts_with({quote_name(check.columns[0])}, {quote_text(str(check.values[0]))}), false)"


def _not_ending(check: Check, _: DType) -> str:
    return f"coalesce(NOT suffix({quote_name(check.columns[0])}, {quote_text(str(check.values[0]))}), false)"


_CONDITIONS: Mapping[str, Callable[[Check, DType], str]] = {
    "not_null": _null,
    "in_range": _out_of_range,
    "one_of": _not_listed,
    "none_of": _listed,
    "matches": _unmatched,
    "begins_with_match": _unmatched,
    "contains_match": _unmatched,
    "length": _wrong_length,
    "starts_with": _not_beginning,
    "ends_with": _not_ending,
}

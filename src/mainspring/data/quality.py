"""A source's rules as SQL: for each, the condition under which a row fails."""

from __future__ import annotations

from collections.abc import Iterator

from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.schema import DType
from mainspring.data.duck import DUCK_TYPES
from mainspring.data.model import Check, Source


def row_rules(source: Source) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield (columns, condition, reason) for each rule that one row can fail by itself; a condition is never null.

    The times of a row must be there whatever the rules say: without them nobody knows when it was true.
    """
    for name in source.times:
        yield (name,), f"{quote_name(name)} IS NULL", f"{name} is null"
    for check in source.checks:
        condition = _condition(check, source)
        if condition is not None:
            yield check.columns, condition, f"fails {check}"


def _condition(check: Check, source: Source) -> str | None:
    if check.kind == "not_null":
        return "(" + " OR ".join(f"{quote_name(name)} IS NULL" for name in check.columns) + ")"
    if check.kind == "in_range":
        return _out_of_range(check, source.columns[check.columns[0]])
    if check.kind == "one_of":
        kind = DUCK_TYPES[source.columns[check.columns[0]]]
        allowed = ", ".join(f"CAST({quote_text(str(value))} AS {kind})" for value in check.values)
        column = quote_name(check.columns[0])
        return f"({column} IS NOT NULL AND {column} NOT IN ({allowed}))" if allowed else f"{column} IS NOT NULL"
    return None


def _out_of_range(check: Check, dtype: DType) -> str:
    column = quote_name(check.columns[0])
    outside = [f"isnan({column})"] if dtype in (DType.Float32, DType.Float64) else []
    # Bounds are compared as doubles: a FLOAT column would round them.
    if check.low is not None:
        outside.append(f"CAST({column} AS DOUBLE) < CAST({quote_text(repr(float(check.low)))} AS DOUBLE)")
    if check.high is not None:
        outside.append(f"CAST({column} AS DOUBLE) > CAST({quote_text(repr(float(check.high)))} AS DOUBLE)")
    return f"coalesce({' OR '.join(outside) or 'false'}, false)"


def unique_rules(source: Source) -> list[tuple[tuple[str, ...], str]]:
    """Return (columns, reason) for each rule that needs the other rows."""
    return [(check.columns, f"fails {check}") for check in source.checks if check.kind == "unique"]

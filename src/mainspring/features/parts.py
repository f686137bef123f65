"""The mergeable parts of a measure's state, in SQL: made from rows, merged, and read as a feature's value.

`features.tiles` does the same in Python for the online read; tests/property/test_point_in_time.py holds them equal.
Sums and means are of doubles; NaN is a value, ordered above every other, as DuckDB orders it. Whatever order DuckDB
reads rows in, the result is the same to the last bit: sums are compensated (`fsum`), and lists are ordered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mainspring.core.expr.sql import to_sql
from mainspring.core.expr.types import dtype_of
from mainspring.core.schema import DType, Schema
from mainspring.data.duck import DUCK_TYPES
from mainspring.features.layout import Measure

Part = tuple[int, str]  # (measure, part)

_FLOAT32_LIMIT = "3.4028235677973366e38"  # from here on a double rounds to infinity


def measure_sql(measure: Measure, schema: Schema) -> str:
    """The measure's value of one row."""
    value = "TRUE" if measure.of is None else to_sql(measure.of, schema)
    # One zero: -0.0 and 0.0 are equal, so either could be the smaller.
    if measure.of is not None and (dtype := dtype_of(measure.of, schema)) in (DType.Float32, DType.Float64):
        value = f"({value} + CAST(0 AS {DUCK_TYPES[dtype]}))"
    return value if measure.where is None else f"CASE WHEN {to_sql(measure.where, schema)} THEN {value} END"


def column(part: Part) -> str:
    return f"{part[1]}_{part[0]}"


def columns(parts: Iterable[Part], qualifier: str = "") -> str:
    return ", ".join(qualifier + column(part) for part in parts)


def from_rows(parts: Sequence[Part], source: str, where: str, by: str) -> str:
    """SELECT the parts of each group of rows; column `m<i>` of `source` is measure i, `by` a list of columns."""
    leaves = ", ".join(f"{_ROWS[part].format(m=f'm{measure}')} AS {part}_{measure}" for measure, part in parts)
    grouped = f"SELECT {by}, {leaves} FROM {source} WHERE {where} GROUP BY {by}"
    spreads = [measure for measure, part in parts if part == "spread"]
    if not spreads:
        return grouped
    shifted = ", ".join(
        f"spread_{i} AS xs_{i}, list_sum(list_transform(spread_{i}, lambda x: x - spread_{i}[1])) AS shift_{i}"
        for i in spreads
    )
    structs = ", ".join(
        f"CASE WHEN xs_{i} IS NOT NULL THEN [{{n: len(xs_{i}), origin: xs_{i}[1], shift: shift_{i}, m2: list_sum("
        f"list_transform(xs_{i}, lambda x: pow((x - xs_{i}[1]) - shift_{i} / len(xs_{i}), 2)))}}] END AS spread_{i}"
        for i in spreads
    )
    kept = f"EXCLUDE ({', '.join(f'spread_{i}' for i in spreads)})"
    return (
        f"SELECT * EXCLUDE ({', '.join(f'xs_{i}, shift_{i}' for i in spreads)}), {structs} "
        f"FROM (SELECT * {kept}, {shifted} FROM ({grouped}))"
    )


_ROWS = {
    "n": "count({m})",
    "sum": "fsum(CAST({m} AS DOUBLE))",
    "min": "min({m})",
    "max": "max({m})",
    "spread": "list(CAST({m} AS DOUBLE) ORDER BY {m}) FILTER ({m} IS NOT NULL)",
}
_MERGE = {"n": "sum", "sum": "fsum", "min": "min", "max": "max"}


def merged(parts: Sequence[Part], qualifier: str = "") -> str:
    """The aggregate expressions that merge the parts of a group of states. A spread stays a list until it is read."""
    return ", ".join(
        f"flatten(list({qualifier}{column(part)} ORDER BY {qualifier}{column(part)}) "
        f"FILTER ({qualifier}{column(part)} IS NOT NULL)) AS {column(part)}"
        if part[1] == "spread"
        else f"{_MERGE[part[1]]}({qualifier}{column(part)}) AS {column(part)}"
        for part in parts
    )


def combined(parts: Sequence[Part], qualifiers: Sequence[str]) -> str:
    """The expressions that merge one row's states from several tables, each of which may have none."""
    return ", ".join(
        f"{_combine(part[1], [f'{q}.{column(part)}' for q in qualifiers])} AS {column(part)}" for part in parts
    )


def _combine(part: str, states: Sequence[str]) -> str:
    if part == "spread":
        return f"flatten([{', '.join(f'coalesce({state}, [])' for state in states)}])"
    if part == "n":
        return " + ".join(f"coalesce({state}, 0)" for state in states)
    if part == "sum":
        return " + ".join(f"coalesce({state}, 0.0)" for state in states)
    # These pass over nulls.
    return f"{'least' if part == 'min' else 'greatest'}({', '.join(states)})"


def spread_sql(source: str, measures: Iterable[int]) -> str:
    """A table like `source` with the population variance of each measure, `variance_<i>`, beside its spreads.

    Means are compared through differences of origins, which are exact for near values (Sterbenz), then merged as in
    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
    """
    for i in measures:
        spread = f"spread_{i}"
        source = (
            f"(SELECT *, list_sum(list_transform({spread}, lambda s: s.shift + s.n * (s.origin - {spread}[1].origin))) "
            f"/ n_of_{i} AS mean_{i} FROM (SELECT *, list_sum(list_transform({spread}, lambda s: s.n)) AS n_of_{i} "
            f"FROM {source}))"
        )
        between = f"pow((s.origin - {spread}[1].origin) + s.shift / s.n - mean_{i}, 2)"
        source = (
            f"(SELECT *, CASE WHEN n_of_{i} > 0 THEN list_sum(list_transform({spread}, "
            f"lambda s: s.m2 + s.n * {between})) / n_of_{i} END AS variance_{i} FROM {source})"
        )
    return source


def value_sql(kind: str, measure: int) -> str:
    """The feature's value from its merged parts; floats still as doubles."""
    if kind in ("sum", "mean"):
        divisor = "" if kind == "sum" else f" / n_{measure}"
        return f"CASE WHEN n_{measure} > 0 THEN sum_{measure}{divisor} END"
    if kind == "std":
        return f"sqrt(variance_{measure})"
    return f"{'n' if kind == 'count' else kind}_{measure}"


def as_type(name: str, dtype: DType) -> str:
    """The column `name` in its feature's type; a double beyond Float32 becomes infinite, as IEEE 754 rounds it."""
    value = f'"{name}"'
    if dtype == DType.Float32:
        return (
            f"CASE WHEN isnan({value}) THEN CAST({value} AS FLOAT) "
            f"WHEN {value} >= {_FLOAT32_LIMIT} THEN CAST('inf' AS FLOAT) "
            f"WHEN {value} <= -{_FLOAT32_LIMIT} THEN CAST('-inf' AS FLOAT) ELSE CAST({value} AS FLOAT) END"
        )
    return f"CAST({value} AS {DUCK_TYPES[dtype]})"

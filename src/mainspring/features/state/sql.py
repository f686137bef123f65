"""The mergeable parts of a measure's state in SQL: computed from rows, merged, and converted to a feature's value.

`features.state.blobs` does the same in Python for the online read; tests/property/test_point_in_time.py compares them.
Sums and means use doubles; NaN is a value that sorts above all others, as in DuckDB. The result is the same to the last
bit for any order of rows: sums are compensated (`fsum`), and lists are sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mainspring.core.expr import Node
from mainspring.core.expr.sql import SQL_TYPES, to_sql
from mainspring.core.expr.types import dtype_of
from mainspring.core.schema import DType, Schema
from mainspring.features.layout import Measure, WindowFeature
from mainspring.features.state import sketches

Part = tuple[int, str]  # (measure, part)

_BITS = f"(CAST(CAST(abs(CAST({{m}} AS DOUBLE)) AS BIT) AS BIGINT) >> {sketches.CUT})"
# A sketch's entry for a value; see `features.state.sketches`.
ENTRY = {
    "bins": f"CASE WHEN isnan(CAST({{m}} AS DOUBLE)) THEN {sketches.NAN} "
    f"WHEN CAST({{m}} AS DOUBLE) < 0 THEN -{_BITS} ELSE {_BITS} END",
    "hashes": "CAST(md5_number(CAST({m} AS VARCHAR)) >> 65 AS BIGINT)",
    "values": "{m}",
}

_FLOAT32_LIMIT = "3.4028235677973366e38"  # from here on a double rounds to infinity in Float32


def row_sql(expr: Node, schema: Schema) -> str:
    """Return the value of an expression on one row; instants are not converted.

    -0.0 becomes 0.0: the two are equal, so a minimum or a choice between them would be arbitrary.
    """
    value = to_sql(expr, schema)
    dtype = dtype_of(expr, schema)
    return f"({value} + CAST(0 AS {SQL_TYPES[dtype]}))" if dtype in (DType.Float32, DType.Float64) else value


def measure_sql(measure: Measure, schema: Schema) -> str:
    """Return the measure's value of one row, in the form of `row_sql`."""
    value = "TRUE" if measure.of is None else row_sql(measure.of, schema)
    return value if measure.where is None else f"CASE WHEN {to_sql(measure.where, schema)} THEN {value} END"


def column(part: Part) -> str:
    return f"{part[1]}_{part[0]}"


def columns(parts: Iterable[Part], qualifier: str = "") -> str:
    return ", ".join(qualifier + column(part) for part in parts)


def from_rows(parts: Sequence[Part], source: str, where: str, by: str) -> str:
    """SELECT the parts of each group of rows; column `m<i>` of `source` is measure i, `by` a list of columns."""
    leaves = ", ".join(f"{_of_rows(part, f'm{measure}')} AS {part}_{measure}" for measure, part in parts)
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


def _of_rows(part: str, measure: str) -> str:
    name, _, depth = part.partition("_")
    return _ROWS[name if not depth else "newest_k"].format(m=measure, depth=depth)


_COUNTED = (
    "list_transform(map_entries(histogram({x}) FILTER ({{m}} IS NOT NULL)), "
    "lambda t: {{{{x: t.key, n: CAST(t.value AS BIGINT)}}}})"
)
_ROWS = {
    "n": "count({m})",
    "sum": "fsum(CAST({m} AS DOUBLE))",
    "min": "min({m})",
    "max": "max({m})",
    "spread": "list(CAST({m} AS DOUBLE) ORDER BY {m}) FILTER ({m} IS NOT NULL)",
    "oldest": "min({{e: e, s: seq, x: {m}}}) FILTER ({m} IS NOT NULL)",
    "newest": "max({{e: e, s: seq, x: {m}}}) FILTER ({m} IS NOT NULL)",
    "newest_k": "max({{e: e, s: seq, x: {m}}}, {depth}) FILTER ({m} IS NOT NULL)",
    "hashes": f"list_sort(list(DISTINCT {ENTRY['hashes']}) FILTER ({{m}} IS NOT NULL))[1:{sketches.KEPT}]",
    "bins": _COUNTED.format(x=ENTRY["bins"]),
    "values": _COUNTED.format(x=ENTRY["values"]),
}
_MERGE = {"n": "sum", "sum": "fsum", "min": "min", "max": "max", "oldest": "min", "newest": "max"}
_LISTS = ("spread", "hashes", "bins", "values")  # and newest_k


def merged(parts: Sequence[Part], qualifier: str = "") -> str:
    """Return the aggregate expressions that merge the parts of a group of states.

    Spreads and counts of values stay lists until they are read; counts may contain a value several times.
    """
    return ", ".join(f"{_merged(part[1], qualifier + column(part))} AS {column(part)}" for part in parts)


def _merged(part: str, state: str) -> str:
    if part in _MERGE:
        return f"{_MERGE[part]}({state})"
    together = f"flatten(list({state} ORDER BY {state}) FILTER ({state} IS NOT NULL))"
    if part == "hashes":
        return f"list_sort(list_distinct({together}))[1:{sketches.KEPT}]"
    return f"list_sort({together}, 'DESC')[1:{part.partition('_')[2]}]" if part.startswith("newest_") else together


def combined(parts: Sequence[Part], qualifiers: Sequence[str]) -> str:
    """Return the expressions that merge one row's states from several tables, each of which may have none."""
    return ", ".join(
        f"{_combine(part[1], [f'{q}.{column(part)}' for q in qualifiers])} AS {column(part)}" for part in parts
    )


def _combine(part: str, states: Sequence[str]) -> str:
    together = f"flatten([{', '.join(f'coalesce({state}, [])' for state in states)}])"
    if part.startswith("newest_"):
        return f"list_sort({together}, 'DESC')[1:{part.partition('_')[2]}]"
    if part in _LISTS:
        return together
    if part == "n":
        return " + ".join(f"coalesce({state}, 0)" for state in states)
    if part == "sum":
        return " + ".join(f"coalesce({state}, 0.0)" for state in states)
    # These pass over nulls.
    return f"{'least' if part in ('min', 'oldest') else 'greatest'}({', '.join(states)})"


def spread_sql(source: str, measures: Iterable[int]) -> str:
    """Return a table like `source` with the population variance of each measure, `variance_<i>`, beside its spreads.

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


def value_sql(feature: WindowFeature) -> str:
    """Return the feature's value from its merged parts, with floats as doubles. For sketches see
    `features.offline.sketched`.
    """
    kind, measure = feature.kind, feature.measure
    if kind in ("first", "newest"):
        state = column((measure, feature.parts[0]))
        return f"{state}[{feature.nth}].x" if "_" in feature.parts[0] else f"{state}.x"
    if kind in ("sum", "mean"):
        divisor = "" if kind == "sum" else f" / n_{measure}"
        return f"CASE WHEN n_{measure} > 0 THEN sum_{measure}{divisor} END"
    if kind == "std":
        return f"sqrt(variance_{measure})"
    return f"{'n' if kind == 'count' else kind}_{measure}"


def as_type(name: str, dtype: DType) -> str:
    """Return the column `name` in its feature's type; a double beyond Float32 becomes infinite, as by IEEE 754
    rounding.
    """
    value = f'"{name}"'
    if dtype == DType.Float32:
        return (
            f"CASE WHEN isnan({value}) THEN CAST({value} AS FLOAT) "
            f"WHEN {value} >= {_FLOAT32_LIMIT} THEN CAST('inf' AS FLOAT) "
            f"WHEN {value} <= -{_FLOAT32_LIMIT} THEN CAST('-inf' AS FLOAT) ELSE CAST({value} AS FLOAT) END"
        )
    if dtype == DType.Timestamp:
        return f"make_timestamptz({value})"
    return f"CAST({value} AS {SQL_TYPES[dtype]})"

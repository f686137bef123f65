"""Windows of a warehouse: sawtooth windows by a join of each question with the rows inside its window.

A window of width W touches at most three stretches of W, so the join is on the keys and the stretch: its cost is that
of the rows inside the windows, and not that of all rows of an entity for each question.
"""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.expr.dialects import Dialect, no_equal
from mainspring.core.expr.warehouse_sql import floor_sql
from mainspring.core.schema import DType
from mainspring.features.layout import SKETCHES, Layout, WindowFeature
from mainspring.features.model import hop
from mainspring.features.warehouse.rows import Keys, Script

_FLOATS = (DType.Float32, DType.Float64)


def windows_sql(script: Script, layout: Layout, window: int, keys: Keys, asks: str, rows: str) -> str:
    """Add the tables of the features of one width; return the name of the last: the keys, `_t`, and `_f<n>` for each.

    Raises:
        Invalid: A feature is a sketch.
    """
    features = [feature for feature in layout.windows if feature.window == window]
    for feature in features:
        if set(feature.parts) & set(SKETCHES):
            raise no_equal(script.dialect, f"{layout.view.name}.{feature.name}, a {feature.kind}")
    inside = script.table(f"inside_{window}", _inside_sql(layout, window, keys, asks, rows))
    prepared = _prepared_sql(features, keys, script.dialect, inside)
    values = ", ".join(f"{_value_sql(feature, layout, script.dialect)} AS _f{n}" for n, feature in enumerate(features))
    by = f"{keys.listed('d')}, d._t"
    return script.table(f"window_{window}", f"SELECT {by}, {values} FROM ({prepared}) AS d GROUP BY {by}")


def _inside_sql(layout: Layout, window: int, keys: Keys, asks: str, rows: str) -> str:
    """SELECT the keys and `_t` of each question with `_e`, `_seq` and the measures of each row inside its window."""
    measures = "".join(f", n._m{n}" for n in range(len(layout.measures)))
    low = floor_sql(f"_t - {window}", hop(window))
    steps = " UNION ALL ".join(f"SELECT {n * window} AS _step" for n in range(3))
    stretches = (
        f"SELECT {keys.listed('b')}, b._t, b._low, {floor_sql('b._low', window)} + z._step AS _place "
        f"FROM (SELECT {keys.listed()}, _t, {low} AS _low FROM {asks}) AS b CROSS JOIN ({steps}) AS z"
    )
    alive = " AND (n._g IS NULL OR q._t < n._g)" if layout.view.source.id else ""
    return (
        f"SELECT {keys.listed('q')}, q._t, n._e, n._seq{measures} FROM ({stretches}) AS q "
        f"JOIN (SELECT w.*, {floor_sql('w._e', window)} AS _place FROM {rows} AS w) AS n "
        f"ON {keys.equal('q', 'n')} AND n._place = q._place "
        f"WHERE n._e >= q._low AND n._e < q._t AND n._v <= q._t{alive}"
    )


def _prepared_sql(features: Sequence[WindowFeature], keys: Keys, dialect: Dialect, inside: str) -> str:
    """SELECT the rows with what aggregates need: places in time, and differences from a window's smallest and mean."""
    by = f"PARTITION BY {keys.listed('i')}, i._t"
    extra = []
    for kind, order in (("first", "i._e, i._seq"), ("newest", "i._e DESC, i._seq DESC")):
        for n in sorted({feature.measure for feature in features if feature.kind == kind}):
            absent = f"CASE WHEN i._m{n} IS NULL THEN 1 ELSE 0 END"
            extra.append(f"ROW_NUMBER() OVER ({by} ORDER BY {absent}, {order}) AS _{kind}_{n}")
    spreads = sorted({feature.measure for feature in features if feature.kind in ("variance", "std")})
    # Near values differ exactly (Sterbenz), so a large mean costs no digits; the second pass is over differences.
    double = dialect.types[DType.Float64]
    extra += [f"CAST(i._m{n} AS {double}) - MIN(CAST(i._m{n} AS {double})) OVER ({by}) AS _shift_{n}" for n in spreads]
    prepared = f"SELECT i.*{''.join(f', {each}' for each in extra)} FROM {inside} AS i"
    if not spreads:
        return prepared
    means = "".join(f", i._shift_{n} - AVG(i._shift_{n}) OVER ({by}) AS _apart_{n}" for n in spreads)
    return f"SELECT i.*{means} FROM ({prepared}) AS i"


def _value_sql(feature: WindowFeature, layout: Layout, dialect: Dialect) -> str:
    measure = f"d._m{feature.measure}"
    dtype, double = layout.measured[feature.measure], dialect.types[DType.Float64]
    if feature.kind == "count":
        return f"COUNT({measure})"
    if feature.kind == "sum":
        return f"SUM(CAST({measure} AS {double}))"
    if feature.kind == "mean":
        return f"SUM(CAST({measure} AS {double})) / COUNT({measure})"
    if feature.kind in ("variance", "std"):
        variance = f"AVG(d._apart_{feature.measure} * d._apart_{feature.measure})"
        return variance if feature.kind == "variance" else f"SQRT({variance})"
    if feature.kind in ("first", "newest"):
        chosen = f"MAX(CASE WHEN d._{feature.kind}_{feature.measure} = {feature.nth} THEN {measure} END)"
        return f"{chosen} = 1" if dtype is DType.Boolean else chosen
    extreme = f"{feature.kind.upper()}({measure})"
    if dtype in _FLOATS and feature.kind == "min" and not dialect.nan_is_largest:
        # There NaN is the smallest: it is the result only if nothing else is there.
        number = f"CASE WHEN NOT {dialect.write('is_nan', measure)} THEN {measure} END"
        return f"COALESCE(MIN({number}), MAX({measure}))"
    return extreme

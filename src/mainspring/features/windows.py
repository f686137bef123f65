"""The offline read of windows: sawtooth windows over a view's rows, exact in both times, without a cross product.

Which tiles count at an instant: `features.levels`. Windows of one width share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mainspring.core.expr.sql import quote_name
from mainspring.core.expr.types import dtype_of
from mainspring.core.schema import DType
from mainspring.data.duck import DUCK_TYPES
from mainspring.data.model import SEQUENCE, VISIBLE_AT
from mainspring.features import parts as state
from mainspring.features.asof import equal, listed
from mainspring.features.layout import SKETCHES, Layout, Measure, WindowFeature
from mainspring.features.levels import WIDTHS, Levels, ceil, enters, floor
from mainspring.features.model import hop
from mainspring.features.sketched import read_sketches
from mainspring.features.types import default_of, feature_dtype

__all__ = ["WIDTHS", "ceil", "enters", "floor", "read_windows"]


def read_windows(con: Any, layout: Layout, rows_worth_a_tile: float) -> None:
    """Make table `windowed`: `_i` and each windowed feature, a row for each row of `observed`.

    Args:
        con: A DuckDB connection with `observed` (_i, the row; _t, its instant; the key columns) and `source`.
        rows_worth_a_tile: With more rows than this in a tile, the next finer tiles are made too.
    """
    _prepare(con, layout)
    density = _density(con)
    widths = sorted({feature.window for feature in layout.windows})
    for number, window in enumerate(widths):
        features = [feature for feature in layout.windows if feature.window == window]
        tiles = [width for width in WIDTHS if width <= hop(window)]
        worth = [coarse * density > rows_worth_a_tile for coarse in tiles]
        finest = next((n for n, dense in enumerate(worth) if not dense), len(tiles) - 1)
        _read_window(con, layout, Levels(window, tiles[: finest + 1]), features, f"window_{number}")
    joins = " ".join(f"LEFT JOIN window_{number} USING (_i)" for number in range(len(widths)))
    values = ", ".join(_or_default(layout, feature) for feature in layout.windows)
    con.execute(f"CREATE OR REPLACE TEMP TABLE windowed AS SELECT o._i, {values} FROM observed AS o {joins}")
    for table in ("labels", "events", "entities", *(f"window_{number}" for number in range(len(widths)))):
        con.execute(f"DROP TABLE {table}")


def _prepare(con: Any, layout: Layout) -> None:
    """Make tables `labels` (_i, kid, t) and `events` (kid, e, v, m0, m1, ..., seq if needed), times in microseconds.

    `kid` is a small integer for each entity that is asked about; other entities' events are left out.
    """
    view = layout.view
    keys = list(view.entity.keys)
    there = " AND ".join(f"{quote_name(key)} IS NOT NULL" for key in keys)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE entities AS SELECT row_number() OVER () AS kid, {listed(keys)} "
        f"FROM (SELECT DISTINCT {listed(keys)} FROM observed WHERE {there} AND _t IS NOT NULL)"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE labels AS SELECT o._i, k.kid, o._t AS t FROM observed AS o JOIN entities AS k "
        f"ON {equal(keys, 'o', 'k')} WHERE o._t IS NOT NULL"
    )
    measures = "".join(f", {_measure(layout, measure)} AS _m{n}" for n, measure in enumerate(layout.measures))
    renamed = "".join(f", s._m{n} AS m{n}" for n in range(len(layout.measures)))
    if layout.ranked:
        measures, renamed = f"{measures}, {SEQUENCE} AS _s", f"{renamed}, s._s AS seq"
    reach = max(feature.window + hop(feature.window) for feature in layout.windows)
    event = quote_name(view.source.event_time)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE events AS SELECT k.kid, s._e AS e, s._v AS v{renamed} FROM ("
        f"SELECT {listed(keys)}, epoch_us({event}) AS _e, epoch_us({VISIBLE_AT}) AS _v{measures} FROM source) AS s "
        f"JOIN entities AS k ON {equal(keys, 's', 'k')} "
        f"WHERE s._v <= (SELECT max(t) FROM labels) AND s._e >= (SELECT min(t) FROM labels) - {reach}"
    )


def _density(con: Any) -> float:
    """Return how many rows a microsecond the entity of an observation has, on average over the observations."""
    found = con.execute(
        "SELECT sum(asked * there) / sum(asked), (SELECT max(e) - min(e) FROM events) "
        "FROM (SELECT kid, count(*) AS asked FROM labels GROUP BY kid) "
        "JOIN (SELECT kid, count(*) AS there FROM events GROUP BY kid) USING (kid)"
    ).fetchone()
    return 0.0 if found[0] is None else float(found[0]) / max(found[1], 1)


def _or_default(layout: Layout, feature: WindowFeature) -> str:
    name, default = quote_name(feature.name), default_of(layout.view, feature.name)
    if default is None:
        return name
    # The shortest digits that name a double name it exactly, and so the Float32 that it may be.
    return f"coalesce({name}, CAST({default!r} AS {DUCK_TYPES[feature_dtype(layout.view, feature.name)]})) AS {name}"


def _measure(layout: Layout, measure: Measure) -> str:
    columns = layout.view.source.columns
    value = state.measure_sql(measure, columns)
    instant = measure.of is not None and dtype_of(measure.of, columns) == DType.Timestamp
    return f"epoch_us({value})" if instant else value


def _read_window(con: Any, layout: Layout, levels: Levels, features: Sequence[WindowFeature], name: str) -> None:
    """Make table `name`: `_i` and the features of one width of window, a row for each row of `labels`."""
    levels.open(con)
    folded = [feature for feature in features if not set(feature.parts) & set(SKETCHES)]
    made = read_sketches(con, levels, features)
    if folded:
        made.append(_fold(con, layout, levels, folded))
    typed = ", ".join(
        f"{state.as_type(feature.name, feature_dtype(layout.view, feature.name))} AS {quote_name(feature.name)}"
        for feature in features
    )
    joins = " ".join(f"LEFT JOIN {table} USING (_i)" for table in made)
    con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT a._i, {typed} FROM asked AS a {joins}")
    levels.close(con)
    for table in made:
        con.execute(f"DROP TABLE {table}")


def _fold(con: Any, layout: Layout, levels: Levels, features: Sequence[WindowFeature]) -> str:
    """Make table `folded`: `_i` and the values of features whose state is one row."""
    parts = layout.parts(features)
    tables = []
    for level in range(len(levels.widths)):
        query = levels.select(
            level, lambda by: state.from_rows(parts, "rows_in", "TRUE", by), state.merged(parts, "tile.")
        )
        con.execute(f"CREATE OR REPLACE TEMP TABLE level_{level} AS {query}")
        tables.append(f"LEFT JOIN level_{level} AS s{level} ON {levels.same(level, f's{level}', 'a')}")
    con.execute(f"CREATE OR REPLACE TEMP TABLE single AS {state.from_rows(parts, levels.single, 'TRUE', '_i')}")
    merged = state.combined(parts, [*(f"s{level}" for level in range(len(levels.widths))), "single"])
    source = f"(SELECT a._i AS _i, {merged} FROM asked AS a {' '.join(tables)} LEFT JOIN single ON single._i = a._i)"
    source = state.spread_sql(source, sorted({measure for measure, part in parts if part == "spread"}))
    values = ", ".join(f"{state.value_sql(feature)} AS {quote_name(feature.name)}" for feature in features)
    con.execute(f"CREATE OR REPLACE TEMP TABLE folded AS SELECT _i, {values} FROM {source}")
    for table in ("single", *(f"level_{level}" for level in range(len(levels.widths)))):
        con.execute(f"DROP TABLE {table}")
    return "folded"

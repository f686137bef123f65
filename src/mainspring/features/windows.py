"""The offline read of windows: sawtooth windows over a view's rows, exact in both times, without a cross product.

For an observation at T a window holds the rows with event time E in [floor(T - W, hop), T) and visible time V <= T.
Rows are summed up in tiles of (start of the hop that holds E, first hop boundary at which the whole of it counts):

    enters(h) = max(ceil(V, h), floor(E, h) + h)

A row counts at T through a tile of width h exactly if `enters(h) <= floor(T, h)`. What the coarse tiles leave (rows
of T's own hop, and rows that became visible in it) has `enters(h) = floor(T, h) + h`, an equality, so the next finer
width joins on it; what the finest width leaves are single rows, compared with T itself. Tiled results depend on T only
through floor(T, h), so observations share them. Finer tiles than the hop's are made only where they hold many rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mainspring.core.expr.sql import quote_name
from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.data.duck import DUCK_TYPES
from mainspring.data.model import VISIBLE_AT
from mainspring.features import parts as state
from mainspring.features.asof import equal, listed
from mainspring.features.layout import Layout, WindowFeature
from mainspring.features.model import hop
from mainspring.features.types import default_of, feature_dtype

WIDTHS = (DAY, HOUR, 5 * MINUTE)  # of tiles, coarse to fine


def floor(x: str, width: int) -> str:
    # SQL's remainder has the sign of the dividend; instants before 1970 are negative.
    return f"({x} - (({x} % {width}) + {width}) % {width})"


def ceil(x: str, width: int) -> str:
    return f"({x} + ((-{x} % {width}) + {width}) % {width})"


def enters(width: int) -> str:
    return f"greatest({ceil('v', width)}, {floor('e', width)} + {width})"


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
        _read_window(con, layout, window, features, tiles[: finest + 1], f"window_{number}")
    joins = " ".join(f"LEFT JOIN window_{number} USING (_i)" for number in range(len(widths)))
    values = ", ".join(_or_default(layout, feature) for feature in layout.windows)
    con.execute(f"CREATE OR REPLACE TEMP TABLE windowed AS SELECT o._i, {values} FROM observed AS o {joins}")
    for table in ("labels", "events", "entities", *(f"window_{number}" for number in range(len(widths)))):
        con.execute(f"DROP TABLE {table}")


def _prepare(con: Any, layout: Layout) -> None:
    """Make tables `labels` (_i, kid, t) and `events` (kid, e, v, m0, m1, ...), times in microseconds.

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
    measures = "".join(
        f", {state.measure_sql(measure, view.source.columns)} AS _m{n}" for n, measure in enumerate(layout.measures)
    )
    renamed = "".join(f", s._m{n} AS m{n}" for n in range(len(layout.measures)))
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


def _read_window(
    con: Any, layout: Layout, window: int, features: Sequence[WindowFeature], widths: Sequence[int], name: str
) -> None:
    parts = layout.parts(features)
    low = floor(f"t - {window}", widths[0])
    bounds = ", ".join(f"{floor('t', width)} AS b{n}" for n, width in enumerate(widths))
    con.execute(f"CREATE OR REPLACE TEMP TABLE asked AS SELECT _i, kid, t, {low} AS low, {bounds} FROM labels")
    entries = ", ".join(f"{enters(width)} AS enters{n}" for n, width in enumerate(widths))
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW rows_in AS SELECT *, {floor('e', widths[0])} AS start, {entries} "
        f"FROM events WHERE e >= (SELECT min(low) FROM asked)"
    )
    tables = []
    for level, width in enumerate(widths):
        table = f"level_{level}"
        con.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {_level(level, width, widths, window, parts)}")
        tables.append(
            f"LEFT JOIN {table} AS s{level} ON s{level}.kid = a.kid AND s{level}.low = a.low AND {_same(level)}"
        )
    con.execute(f"CREATE OR REPLACE TEMP TABLE single AS {_single(len(widths) - 1, widths[-1], parts)}")
    merged = state.combined(parts, [*(f"s{level}" for level in range(len(widths))), "single"])
    source = f"(SELECT a._i AS _i, {merged} FROM asked AS a {' '.join(tables)} LEFT JOIN single ON single._i = a._i)"
    source = state.spread_sql(source, sorted({measure for measure, part in parts if part == "spread"}))
    values = ", ".join(f'{state.value_sql(f.kind, f.measure)} AS "{f.name}"' for f in features)
    typed = ", ".join(f'{state.as_type(f.name, feature_dtype(layout.view, f.name))} AS "{f.name}"' for f in features)
    con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT _i, {typed} FROM (SELECT _i, {values} FROM {source})")
    con.execute("DROP VIEW rows_in")
    for table in ("asked", "single", *(f"level_{level}" for level in range(len(widths)))):
        con.execute(f"DROP TABLE {table}")


def _same(level: int) -> str:
    return " AND ".join(f"s{level}.b{n} = a.b{n}" for n in range(max(0, level - 1), level + 1))


def _level(level: int, width: int, widths: Sequence[int], window: int, parts: Sequence[state.Part]) -> str:
    """SELECT the merged tiles of one width, one row for each place that observations ask about."""
    merged = state.merged(parts, "tile.")
    if level == 0:
        tiles = state.from_rows(parts, "rows_in", "TRUE", "kid, start, enters0")
        # Equality on groups of tiles, about a quarter of the window wide, keeps the join a hash join.
        group = max(width, window // 4 // width * width)
        return (
            f"SELECT ask.kid, ask.low, ask.b0, {merged} FROM ("
            f"SELECT *, unnest(range({floor('low', group)}, b0, {group})) AS place "
            f"FROM (SELECT DISTINCT kid, low, b0 FROM asked)) AS ask "
            f"JOIN (SELECT *, {floor('start', group)} AS place FROM ({tiles})) AS tile ON tile.kid = ask.kid "
            f"AND tile.place = ask.place AND tile.start >= ask.low AND tile.enters0 <= ask.b0 GROUP BY ALL"
        )
    above, coarse = f"b{level - 1}", f"enters{level - 1}"
    tiles = state.from_rows(parts, "rows_in", "TRUE", f"kid, start, {coarse}, enters{level}")
    return (
        f"SELECT ask.kid, ask.low, ask.{above}, ask.b{level}, {merged} "
        f"FROM (SELECT DISTINCT kid, low, {above}, b{level} FROM asked) AS ask JOIN ({tiles}) AS tile "
        f"ON tile.kid = ask.kid AND tile.{coarse} = ask.{above} + {widths[level - 1]} "
        f"AND tile.start >= ask.low AND tile.enters{level} <= ask.b{level} GROUP BY ALL"
    )


def _single(level: int, width: int, parts: Sequence[state.Part]) -> str:
    """SELECT the parts of the rows that no tile holds yet, for each observation that has any."""
    source = f"asked JOIN rows_in ON rows_in.kid = asked.kid AND rows_in.enters{level} = asked.b{level} + {width}"
    return state.from_rows(parts, source, "v <= t AND e < t AND e >= low", "_i")

"""The offline read of windows: sawtooth windows over a view's rows, exact in both times, without a cross product.

For an observation at T a window holds the rows with event time E in [floor(T - W, hop), T) and visible time V <= T.
Rows are summed up in tiles of (start of the hop that holds E, first hop boundary at which the whole of it counts):

    enters(h) = max(ceil(V, h), floor(E, h) + h)

A row counts at T through a tile of width h exactly if `enters(h) <= floor(T, h)`. What the coarse tiles leave (rows
of T's own hop, and rows that became visible in it) has `enters(h) = floor(T, h) + h`, an equality, so the next finer
width joins on it; what the finest width leaves are single rows, compared with T itself. Tiled results depend on T only
through floor(T, h), so observations share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.features import parts as state
from mainspring.features.layout import Layout, WindowFeature
from mainspring.features.model import hop

WIDTHS = (DAY, HOUR, 5 * MINUTE)  # of tiles, coarse to fine


def floor(x: str, width: int) -> str:
    # SQL's remainder has the sign of the dividend; instants before 1970 are negative.
    return f"({x} - (({x} % {width}) + {width}) % {width})"


def ceil(x: str, width: int) -> str:
    return f"({x} + ((-{x} % {width}) + {width}) % {width})"


def enters(width: int) -> str:
    return f"greatest({ceil('v', width)}, {floor('e', width)} + {width})"


def read_windows(con: Any, layout: Layout) -> None:
    """Make table `windowed`: `_i` and a column for each windowed feature, for every row of `labels` with a key.

    Args:
        con: A DuckDB connection with `labels` (_i, kid, t) and `events` (kid, e, v, m0, m1, ...), times in microseconds.
    """
    widths = sorted({feature.window for feature in layout.windows})
    for number, window in enumerate(widths):
        features = [feature for feature in layout.windows if feature.window == window]
        _read_window(con, layout, window, features, f"window_{number}")
    joins = " ".join(f"LEFT JOIN window_{number} USING (_i)" for number in range(1, len(widths)))
    con.execute(f"CREATE OR REPLACE TEMP TABLE windowed AS SELECT * FROM window_0 {joins}")
    for number in range(len(widths)):
        con.execute(f"DROP TABLE window_{number}")


def _read_window(con: Any, layout: Layout, window: int, features: Sequence[WindowFeature], name: str) -> None:
    parts = layout.parts(features)
    widths = [width for width in WIDTHS if width <= hop(window)]
    low = floor(f"t - {window}", widths[0])
    bounds = ", ".join(f"{floor('t', width)} AS b{n}" for n, width in enumerate(widths))
    con.execute(f"CREATE OR REPLACE TEMP TABLE asked AS SELECT _i, kid, t, {low} AS low, {bounds} FROM labels")
    entries = ", ".join(f"{enters(width)} AS enters{n}" for n, width in enumerate(widths))
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE rows_in AS SELECT *, {floor('e', widths[0])} AS start, {entries} "
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
    con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT _i, {values} FROM {source}")
    for table in ("asked", "rows_in", "single", *(f"level_{level}" for level in range(len(widths)))):
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
            f"SELECT ask.kid, ask.low, ask.b0, {merged} FROM (SELECT *, unnest(range({floor('low', group)}, b0, {group})) "
            f"AS place FROM (SELECT DISTINCT kid, low, b0 FROM asked)) AS ask "
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

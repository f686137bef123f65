"""The offline read of windows: sawtooth windows over a view's rows, exact in both times, without a cross product.

The join of an observation with its rows is in `features.offline.levels`. Windows of one width share it. Tables:
`labels` (_i, kid, t) are the observations that can match a row, `events` (kid, e, v, m0, m1, ..., seq if needed) the
rows that can matter.
"""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.expr.sql import quote_name
from mainspring.core.schema import DType
from mainspring.data.model import SEQUENCE, SUPERSEDED_AT, VISIBLE_AT
from mainspring.features.layout import SKETCHES, Layout, WindowFeature
from mainspring.features.model import hop
from mainspring.features.offline.asof import equal, listed
from mainspring.features.offline.levels import WIDTHS, Levels, ceil, enters, floor
from mainspring.features.offline.query import COUNTS_FROM, NEWEST, OLDEST, Query, Script
from mainspring.features.offline.sketched import make_sketches
from mainspring.features.offline.versions import MORTAL, STANDING, mortals_sql
from mainspring.features.state import sql as state

__all__ = ["WIDTHS", "ceil", "enters", "events_query", "floor", "labels_query", "levels_of", "window_query"]

_SWEEP = 4  # multiple of `rows_worth_a_tile` from which sketches are swept: there the costs are equal
_SAMPLE = 10_000  # observations used to estimate the rows of an entity


def labels_query(layout: Layout) -> Query:
    """Return the query that creates `labels`. Its result: their number, the rows of the entity of one, and their time
    span in microseconds.
    """
    keys = list(layout.view.entity.keys)
    there = " AND ".join(f"{quote_name(key)} IS NOT NULL" for key in (*keys, "_t"))
    script = Script()
    if _is_number(layout):
        script.view("labels", f"SELECT _i, {listed(keys)} AS kid, _t AS t FROM observed WHERE {there}")
    else:
        # A small integer for each observed entity; rows of others are left out.
        distinct = f"SELECT DISTINCT {listed(keys)} FROM observed WHERE {there}"
        script.table("entities", f"SELECT row_number() OVER () AS kid, {listed(keys)} FROM ({distinct})")
        script.table(
            "labels",
            f"SELECT o._i, k.kid, o._t AS t FROM observed AS o JOIN entities AS k ON {equal(keys, 'o', 'k')} "
            "WHERE o._t IS NOT NULL",
        )
    rows = _rows(layout, f"epoch_us({quote_name(layout.view.source.event_time)}) AS e")
    # Evenly spaced observations; with a random sample the plan, and so the last bit of a sum, would be random.
    some = f"SELECT kid FROM labels WHERE _i % (1 + (SELECT max(_i) FROM labels) // {_SAMPLE}) = 0"
    # Counted by entity: a join of many observations of an entity with its many rows would be a product.
    asks = f"SELECT kid, count(*) AS asks FROM ({some}) GROUP BY kid"
    return script.query(
        f"SELECT (SELECT count(*) FROM labels), coalesce(sum(asks) / (SELECT count(*) FROM ({some})), 0), "
        f"coalesce(greatest(max(e) - min(e), 1), 1) FROM ({rows}) AS event JOIN ({asks}) AS ask USING (kid)"
    )


def levels_of(
    layout: Layout, observations: int, rows: float, span: int, rows_worth_a_tile: float, *, versions: bool = False
) -> list[Levels]:
    """Return the levels of each window width: the next finer tiles are added while a tile has more rows than
    `rows_worth_a_tile`.

    The coarsest are used from half as many rows: without them every row of the window is joined.

    Args:
        observations, rows, span: See `labels_query`.
    """
    levels = []
    rows_a_microsecond = rows / span
    for window in sorted({feature.window for feature in layout.windows}):
        tiles = [width for width in WIDTHS if width <= hop(window)]
        are_dense = [width * rows_a_microsecond > rows_worth_a_tile for width in tiles]
        finest = next((n for n, dense in enumerate(are_dense) if not dense), len(tiles) - 1)
        widths = tiles[: finest + 1] if tiles[0] * rows_a_microsecond > rows_worth_a_tile / 2 else []
        rows_in_window = rows * min(1.0, window / span)
        sweeps = rows_in_window > _SWEEP * rows_worth_a_tile
        mortal = _columns(layout) if versions else ()
        levels.append(Levels(window, widths, observations, rows_in_window, sweeps, mortal))
    return levels


def events_query(layout: Layout, levels: Sequence[Levels], *, versions: bool = False) -> Query:
    """Create `events`: a table, unless they are read only once. If rows are versions of facts, `mortals` has some of
    them.
    """
    event = f"epoch_us({quote_name(layout.view.source.event_time)}) AS e"
    measures = [f"{_measure(layout, n)} AS m{n}" for n in range(len(layout.measures))]
    values = ", ".join([event, *measures, *([f"{SEQUENCE} AS seq"] if layout.ranked else [])])
    script = Script()
    rows = _rows(layout, f"{values}, {COUNTS_FROM} AS v", STANDING if versions else "true")
    if versions:
        few = _rows(layout, f"{values}, {VISIBLE_AT}, {SUPERSEDED_AT}", MORTAL)
        script.table("mortals", mortals_sql(f"kid, {', '.join(_columns(layout))}", f"FROM ({few})"))
    once = len(levels) == 1 and not levels[0].widths and len(_summaries(layout.windows)) <= 1
    (script.view if once else script.table)("events", rows)
    return script.query("SELECT * FROM events")


def window_query(layout: Layout, levels: Levels) -> Query:
    """Return the read of the features of one width of window."""
    features = [feature for feature in layout.windows if feature.window == levels.window]
    folded = [feature for feature in features if not set(feature.parts) & set(SKETCHES)]
    script = Script()
    levels.open(script)
    made = make_sketches(script, levels, features)
    if folded:
        made.append(_fold(script, layout, levels, folded))
    typed = ", ".join(
        f"{state.as_type(feature.name, layout.dtype(feature.name))} AS {quote_name(feature.name)}"
        for feature in features
    )
    if len(made) == 1:
        return script.query(f"SELECT _i, {typed} FROM {made[0]}")
    joins = " ".join(f"LEFT JOIN {table} USING (_i)" for table in made)
    return script.query(f"SELECT a._i, {typed} FROM asked AS a {joins}")


def _fold(script: Script, layout: Layout, levels: Levels, features: Sequence[WindowFeature]) -> str:
    """Create `folded`: `_i` and the values of features whose state is one row."""
    parts = layout.parts(features)
    joins = []
    for level in range(len(levels.widths)):
        query = levels.select(
            level, lambda by: state.from_rows(parts, "rows_in", "TRUE", by), state.merged(parts, "tile.")
        )
        script.table(f"level_{level}", query)
        joins.append(f"LEFT JOIN level_{level} AS s{level} ON {levels.same(level, f's{level}', 'a')}")
    single = state.from_rows(parts, levels.single(), "TRUE", "_i")
    if joins:
        script.table("single", single)
        merged = state.combined(parts, [*(f"s{level}" for level in range(len(joins))), "single"])
        source = f"(SELECT a._i, {merged} FROM asked AS a {' '.join(joins)} LEFT JOIN single ON single._i = a._i)"
    else:
        source = f"(SELECT _i, {state.combined(parts, ['single'])} FROM ({single}) AS single)"
    source = state.spread_sql(source, sorted({measure for measure, part in parts if part == "spread"}))
    values = ", ".join(f"{state.value_sql(feature)} AS {quote_name(feature.name)}" for feature in features)
    script.view("folded", f"SELECT _i, {values} FROM {source}")
    return "folded"


def _columns(layout: Layout) -> tuple[str, ...]:
    """The columns of a single row that its window reads."""
    return ("e", *(f"m{n}" for n in range(len(layout.measures))), *(["seq"] if layout.ranked else []))


def _rows(layout: Layout, columns: str, condition: str = "true") -> str:
    """SELECT kid and `columns` of the rows that can matter."""
    view = layout.view
    keys = list(view.entity.keys)
    reach = max(feature.window + hop(feature.window) for feature in layout.windows)
    where = (
        f"{VISIBLE_AT} < make_timestamptz({NEWEST}) "
        f"AND {quote_name(view.source.event_time)} >= make_timestamptz({OLDEST} - {reach}) AND {condition}"
    )
    if _is_number(layout):
        (key,) = map(quote_name, keys)
        return f"SELECT {key} AS kid, {columns} FROM source WHERE {key} IS NOT NULL AND {where}"
    return f"SELECT kid, {columns} FROM source JOIN entities USING ({listed(keys)}) WHERE {where}"


def _is_number(layout: Layout) -> bool:
    """Return whether an entity's key is a single integer, which can identify the entity directly."""
    return [*layout.view.entity.keys.values()] in ([DType.Int64], [DType.Int32])


def _summaries(features: Sequence[WindowFeature]) -> set[tuple[int, str] | None]:
    """Return the summaries that are read separately: each sketch, and all others together."""
    return {(f.measure, part) if part in SKETCHES else None for f in features for part in f.parts}


def _measure(layout: Layout, n: int) -> str:
    value = state.measure_sql(layout.measures[n], layout.view.source.columns)
    return f"epoch_us({value})" if layout.measured[n] == DType.Timestamp else value

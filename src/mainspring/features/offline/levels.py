"""The rows of a sawtooth window in SQL: single rows if they are few, else tiles of exactly the counting rows.

A window at T holds the rows with event time E in [floor(T - W, hop), T) that count from an instant V <= T on. If an
entity has few rows, each observation is joined with the rows themselves. Else they are aggregated in tiles of (start of
E's hop, first hop boundary at which the whole tile counts):

    enters(h) = max(ceil(V, h), floor(E, h) + h)

A row counts at T through a tile of width h exactly if `enters(h) <= floor(T, h)`. The rows outside the coarse tiles
(rows of T's own hop, and rows that became visible in it) have `enters(h) = floor(T, h) + h`, an equality on which the
next finer width joins. The rows outside the finest width are single rows, compared with T itself. Tiled results depend
on T only through floor(T, h), so observations share them. Tiles finer than the hop are made only if they contain many
rows.

Tables: `asked` (_i, kid, t, low, b0, b1, ...) are the observations, with the window's start and T rounded down to each
width; `rows_in` (kid, e, v, ..., start, enters0, enters1, ...) are the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.features.model import hop
from mainspring.features.offline.query import Script
from mainspring.features.offline.versions import alive_sql

WIDTHS = (DAY, HOUR, 5 * MINUTE)  # widths of tiles, coarse to fine


def floor(x: str, width: int) -> str:
    # SQL's remainder has the sign of the dividend; instants before 1970 are negative.
    return f"(({x}) - ((({x}) % {width}) + {width}) % {width})"


def ceil(x: str, width: int) -> str:
    return f"(({x}) + ((-({x}) % {width}) + {width}) % {width})"


def enters(width: int) -> str:
    return f"greatest({ceil('v', width)}, {floor('e', width)} + {width})"


@dataclass(frozen=True)
class Levels:
    """Levels of one window: its width, and those of its tiles, coarse to fine; none if rows are joined.

    `observations` is their number, and `rows` the approximate number of rows in each window. `sweeps` is true if that
    is so many that a sweep (`features.offline.sweep`) computes sketches faster than a join. `mortal` are the columns of
    a single row if rows are versions of facts: then rows in `mortals` also count while they are alive, one by one.
    """

    window: int
    widths: Sequence[int]
    observations: int = 0
    rows: float = 0.0
    sweeps: bool = False
    mortal: Sequence[str] = ()

    def open(self, script: Script) -> None:
        """Create `asked` from `labels` (_i, kid, t), and `rows_in` from `events` (kid, e, v, ...)."""
        low = floor(f"t - {self.window}", hop(self.window))
        if not self.widths:
            script.view("asked", f"SELECT _i, kid, t, {low} AS low FROM labels")
            script.view("rows_in", "SELECT * FROM events")
            return
        bounds = ", ".join(f"{floor('t', width)} AS b{n}" for n, width in enumerate(self.widths))
        script.table("asked", f"SELECT _i, kid, t, {low} AS low, {bounds} FROM labels")
        entries = ", ".join(f"{enters(width)} AS enters{n}" for n, width in enumerate(self.widths))
        script.view("rows_in", f"SELECT *, {floor('e', self.widths[0])} AS start, {entries} FROM events")

    def select(self, level: int, tiles: Callable[[str], str], merged: str, asked: str = "asked") -> str:
        """SELECT the merged tiles of one width, one row per place that observations need.

        Columns: kid, low, b<level - 1> and b<level> (b0 alone for the coarsest), then `merged`.

        Args:
            tiles: Given a list of columns, returns a SELECT of them and of the parts merged from `rows_in`, grouped by
                them.
            merged: Expressions over the tiles, called `tile`: plain columns group, aggregates merge.
            asked: `asked`, or a table of some of its rows.
        """
        width = self.widths[level]
        if level == 0:
            # Equality on groups of tiles, about a quarter of the window wide, keeps the join a hash join.
            group = max(width, self.window // 4 // width * width)
            return (
                f"SELECT ask.kid, ask.low, ask.b0, {merged} FROM ("
                f"SELECT *, unnest(range({floor('low', group)}, b0, {group})) AS place "
                f"FROM (SELECT DISTINCT kid, low, b0 FROM {asked})) AS ask "
                f"JOIN (SELECT *, {floor('start', group)} AS place FROM ({tiles('kid, start, enters0')})) AS tile "
                f"ON tile.kid = ask.kid AND tile.place = ask.place AND tile.start >= ask.low "
                f"AND tile.enters0 <= ask.b0 GROUP BY ALL"
            )
        above, coarse = f"b{level - 1}", f"enters{level - 1}"
        return (
            f"SELECT ask.kid, ask.low, ask.{above}, ask.b{level}, {merged} "
            f"FROM (SELECT DISTINCT kid, low, {above}, b{level} FROM {asked}) AS ask "
            f"JOIN ({tiles(f'kid, start, {coarse}, enters{level}')}) AS tile "
            f"ON tile.kid = ask.kid AND tile.{coarse} = ask.{above} + {self.widths[level - 1]} "
            f"AND tile.start >= ask.low AND tile.enters{level} <= ask.b{level} GROUP BY ALL"
        )

    def same(self, level: int, left: str, right: str) -> str:
        """Condition that a row of `select(level)` matches an observation."""
        bounds = [f"b{n}" for n in range(max(0, level - 1), level + 1)]
        return " AND ".join(f"{left}.{name} = {right}.{name}" for name in ("kid", "low", *bounds))

    def single(self, asked: str = "asked") -> str:
        """FROM clause of the rows outside all tiles, each joined with the observations whose window contains it."""
        if not self.mortal:
            return self._standing(asked)
        columns = ", ".join(("_i", *self.mortal))
        alive = alive_sql(f"{columns}, low, t", asked, "mortals", "row.kid = ask.kid")
        return (
            f"(SELECT {columns} FROM {self._standing(asked)} UNION ALL "
            f"SELECT {columns} FROM ({alive}) WHERE e < t AND e >= low)"
        )

    def _standing(self, asked: str) -> str:
        inside = "v <= t AND e < t AND e >= low"
        if not self.widths:
            # As in `select`: an observation at each group of instants that its window touches, a row at its own.
            width = self.window
            return (
                f"(SELECT * FROM (SELECT *, unnest(range({floor('low', width)}, t, {width})) AS place FROM {asked}) "
                f"AS ask JOIN (SELECT *, {floor('e', width)} AS place FROM rows_in) AS event "
                f"ON event.kid = ask.kid AND event.place = ask.place WHERE {inside})"
            )
        last = len(self.widths) - 1
        return (
            f"(SELECT * FROM {asked} AS ask JOIN rows_in ON rows_in.kid = ask.kid "
            f"AND rows_in.enters{last} = ask.b{last} + {self.widths[last]} WHERE {inside})"
        )

"""The offline read of sketched windows: distinct values, quantiles, the most frequent values.

A summary is kept as rows here, one for each value in it, instead of in one row: rows are joined, grouped and sorted by
operators that spill. Where there would be very many such rows, observations are taken some at a time: a sort of a few
million rows is over before one of a billion has spilled. See `features.offline.levels` for the tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mainspring.core.expr.sql import quote_name
from mainspring.features.layout import SKETCHES, WindowFeature
from mainspring.features.offline.levels import Levels
from mainspring.features.offline.query import Script
from mainspring.features.state.sketches import CUT, KEPT, millionths
from mainspring.features.state.sql import ENTRY

ROWS_AT_ONCE = 2_000_000
_MOST_TURNS = 1_000


def make_sketches(script: Script, levels: Levels, features: Sequence[WindowFeature]) -> list[str]:
    """Make a table of `_i` and features for each summary that some of `features` need, and return their names.

    Observations whose window holds no value are not in it.
    """
    made = []
    for measure, part in sorted({(f.measure, part) for f in features for part in f.parts if part in SKETCHES}):
        wanted = [f for f in features if f.measure == measure and part in f.parts]
        made.append(f"sketch_{part}_{measure}")
        _make(script, levels, part, measure, wanted, made[-1])
    return made


def _make(
    script: Script, levels: Levels, part: str, measure: int, features: Sequence[WindowFeature], name: str
) -> None:
    entry = ENTRY[part].format(m=f"m{measure}")
    depth = range(len(levels.widths))

    def counted(by: str, rows: str = "rows_in") -> str:
        return f"SELECT {by}, {entry} AS x, count(*) AS n FROM {rows} WHERE m{measure} IS NOT NULL GROUP BY ALL"

    def values(asked: str) -> str:
        selects = [counted("_i", levels.single(asked))]
        for level in depth:
            merged = "tile.x, CAST(sum(tile.n) AS BIGINT) AS n"
            script.table(f"entries_{level}", levels.select(level, counted, merged, asked))
            same = levels.same(level, f"entries_{level}", "ask")
            selects.append(f"SELECT _i, x, n FROM {asked} AS ask JOIN entries_{level} ON {same}")
        return _VALUES[part](f"({' UNION ALL '.join(selects)})", features)

    turns = min(math.ceil(levels.rows / ROWS_AT_ONCE), _MOST_TURNS)
    for turn in range(max(turns, 1)):
        asked = "asked"
        if turns > 1:
            # Observations that ask about the same place go together.
            asked = "asked_now"
            script.table(asked, f"SELECT * FROM asked WHERE hash(kid, low) % {turns} = {turn}")
        query = values(asked)
        if part == "hashes":
            script.table("different", query)
            query = _distinct("different", features)
        if turn:
            script.insert(name, query)
        else:
            script.table(name, query)
        script.drop(*(f"entries_{level}" for level in depth), *(["asked_now"] if turns > 1 else []))
        script.drop(*(["different"] if part == "hashes" else []))


def _different(entries: str, _: Sequence[WindowFeature]) -> str:
    return f"SELECT DISTINCT _i, x FROM {entries}"


def _distinct(different: str, features: Sequence[WindowFeature]) -> str:
    """Few are counted; only where there are many are the smallest looked for."""
    counted = f"SELECT _i, count(*) AS n FROM {different} GROUP BY _i"
    largest = (
        f"SELECT _i, max(x) AS x FROM (SELECT _i, x FROM {different} "
        f"SEMI JOIN (SELECT _i FROM ({counted}) WHERE n >= {KEPT}) USING (_i) "
        f"QUALIFY row_number() OVER (PARTITION BY _i ORDER BY x) <= {KEPT}) GROUP BY _i"
    )
    n = f"CAST(CASE WHEN n < {KEPT} THEN n ELSE {(KEPT - 1) << 63}::HUGEINT // (x + 1) END AS BIGINT)"
    values = ", ".join(f"{n} AS {quote_name(feature.name)}" for feature in features)
    return f"SELECT _i, {values} FROM ({counted}) LEFT JOIN ({largest}) USING (_i)"


def _quantiles(entries: str, features: Sequence[WindowFeature]) -> str:
    values = []
    for feature in features:
        rank = f"greatest(1, (total * {millionths(feature.share)} + 999999) // 1000000)"
        bin_ = f"min(x) FILTER (upto >= {rank})"
        size = f"CAST(CAST(abs({bin_}) << {CUT} AS BIT) AS DOUBLE)"
        values.append(f"CASE WHEN {bin_} < 0 THEN -{size} ELSE {size} END AS {quote_name(feature.name)}")
    # Entries of one bin are peers in the order, so each has the sum up to the last of them.
    return (
        f"SELECT _i, {', '.join(values)} FROM (SELECT _i, x, sum(n) OVER (PARTITION BY _i ORDER BY x) AS upto, "
        f"sum(n) OVER (PARTITION BY _i) AS total FROM {entries}) GROUP BY _i"
    )


def _top(entries: str, features: Sequence[WindowFeature]) -> str:
    most = max(feature.nth for feature in features)
    values = ", ".join(f"min(x) FILTER (place = {f.nth}) AS {quote_name(f.name)}" for f in features)
    return (
        f"SELECT _i, {values} FROM (SELECT _i, x, row_number() OVER (PARTITION BY _i ORDER BY n DESC, x) AS place "
        f"FROM (SELECT _i, x, CAST(sum(n) AS BIGINT) AS n FROM {entries} GROUP BY _i, x) "
        f"QUALIFY place <= {most}) GROUP BY _i"
    )


_VALUES = {"hashes": _different, "bins": _quantiles, "values": _top}

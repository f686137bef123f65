"""The offline read of sketched windows: distinct values, quantiles, the most frequent values.

A summary is kept as rows here, one for each value in it, instead of in one row: rows are joined, grouped and sorted by
operators that spill, so a summary of any size fits in any memory. See `features.levels` for the tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.expr.sql import quote_name
from mainspring.features.layout import SKETCHES, WindowFeature
from mainspring.features.levels import Levels
from mainspring.features.parts import ENTRY
from mainspring.features.query import Script
from mainspring.features.sketches import CUT, KEPT, millionths


def make_sketches(script: Script, levels: Levels, features: Sequence[WindowFeature]) -> list[str]:
    """Make a table of `_i` and features for each summary that some of `features` need, and return their names.

    Observations whose window holds no value are not in it.
    """
    made = []
    for measure, part in sorted({(f.measure, part) for f in features for part in f.parts if part in SKETCHES}):
        wanted = [f for f in features if f.measure == measure and part in f.parts]
        made.append(f"sketch_{part}_{measure}")
        script.table(made[-1], _read(script, levels, part, measure, wanted))
        script.drop(*(f"entries_{level}" for level in range(len(levels.widths))))
    return made


def _read(script: Script, levels: Levels, part: str, measure: int, features: Sequence[WindowFeature]) -> str:
    entry = ENTRY[part].format(m=f"m{measure}")

    def counted(by: str, rows: str = "rows_in") -> str:
        return f"SELECT {by}, {entry} AS x, count(*) AS n FROM {rows} WHERE m{measure} IS NOT NULL GROUP BY ALL"

    selects = [counted("_i", levels.single)]
    for level in range(len(levels.widths)):
        merged = "tile.x, CAST(sum(tile.n) AS BIGINT) AS n"
        script.table(f"entries_{level}", levels.select(level, counted, merged))
        same = levels.same(level, f"entries_{level}", "asked")
        selects.append(f"SELECT _i, x, n FROM asked JOIN entries_{level} ON {same}")
    return _VALUES[part](f"({' UNION ALL '.join(selects)})", features)


def _distinct(entries: str, features: Sequence[WindowFeature]) -> str:
    n = f"CASE WHEN count(*) < {KEPT} THEN count(*) ELSE {(KEPT - 1) << 63}::HUGEINT // (max(x) + 1) END"
    values = ", ".join(f"CAST({n} AS BIGINT) AS {quote_name(feature.name)}" for feature in features)
    return (
        f"SELECT _i, {values} FROM (SELECT DISTINCT _i, x FROM {entries} "
        f"QUALIFY row_number() OVER (PARTITION BY _i ORDER BY x) <= {KEPT}) GROUP BY _i"
    )


def _quantiles(entries: str, features: Sequence[WindowFeature]) -> str:
    values = []
    for feature in features:
        rank = f"greatest(1, (total * {millionths(feature.share)} + 999999) // 1000000)"
        bin_ = f"min(x) FILTER (upto >= {rank})"
        size = f"CAST(CAST(abs({bin_}) << {CUT} AS BIT) AS DOUBLE)"
        values.append(f"CASE WHEN {bin_} < 0 THEN -{size} ELSE {size} END AS {quote_name(feature.name)}")
    return (
        f"SELECT _i, {', '.join(values)} FROM (SELECT _i, x, sum(n) OVER (PARTITION BY _i ORDER BY x) AS upto, "
        f"sum(n) OVER (PARTITION BY _i) AS total FROM ({_summed(entries)})) GROUP BY _i"
    )


def _top(entries: str, features: Sequence[WindowFeature]) -> str:
    most = max(feature.nth for feature in features)
    values = ", ".join(f"min(x) FILTER (place = {f.nth}) AS {quote_name(f.name)}" for f in features)
    return (
        f"SELECT _i, {values} FROM (SELECT _i, x, row_number() OVER (PARTITION BY _i ORDER BY n DESC, x) AS place "
        f"FROM ({_summed(entries)}) QUALIFY place <= {most}) GROUP BY _i"
    )


def _summed(entries: str) -> str:
    return f"SELECT _i, x, CAST(sum(n) AS BIGINT) AS n FROM {entries} GROUP BY _i, x"


_VALUES = {"hashes": _distinct, "bins": _quantiles, "values": _top}

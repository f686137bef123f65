"""The offline read of sketched windows: distinct values, quantiles, the most frequent values.

If windows have few rows, each observation is joined with its rows, some observations at a time, because several sorts
of a few million rows are faster than one of a billion that spills. If they have many, the rows of an entity are swept
once for all of its observations (`features.offline.sweep`). Both count values exactly before they summarise, so they
give equal results in any order of rows. See `features.offline.levels` for the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mainspring.core.expr.sql import quote_name
from mainspring.features.layout import SKETCHES, WindowFeature
from mainspring.features.model import hop
from mainspring.features.offline.levels import Levels, floor
from mainspring.features.offline.query import Script
from mainspring.features.offline.sweep import Answer, Sweep, most_frequent, ranks, smallest
from mainspring.features.offline.versions import first_places_sql
from mainspring.features.state.sketches import CUT, KEPT, millionths
from mainspring.features.state.sql import ENTRY

ROWS_AT_ONCE = 2_000_000
_MOST_TURNS = 1_000


def make_sketches(script: Script, levels: Levels, features: Sequence[WindowFeature]) -> list[str]:
    """Create a table of `_i` and features for each summary that `features` need, and return the tables' names.

    Observations whose window has no value are absent.
    """
    made = []
    for measure, part in sorted({(f.measure, part) for f in features for part in f.parts if part in SKETCHES}):
        wanted = [f for f in features if f.measure == measure and part in f.parts]
        made.append(f"sketch_{part}_{measure}")
        make = _sweep if levels.sweeps else _join
        make(script, levels, _Summary(part, measure, wanted), made[-1])
    return made


@dataclass(frozen=True)
class _Summary:
    """One sketch of one measure, and the features computed from it."""

    part: str
    measure: int
    features: Sequence[WindowFeature]

    @property
    def entry(self) -> str:
        return ENTRY[self.part].format(m=f"m{self.measure}")

    def select(self, columns: str, rows: str) -> str:
        """SELECT `columns` and the sketch's entry (x) of each value."""
        return f"SELECT {columns}, {self.entry} AS x FROM {rows} WHERE m{self.measure} IS NOT NULL"


def _in_turns(script: Script, name: str, rows: float, query: Callable[[str], tuple[str, Sequence[str]]]) -> None:
    """Create table `name` from `query` over a table of observations, split into turns if `rows` are too many at once.

    Args:
        query: Returns the query, and the tables to drop after it.
    """
    turns = min(math.ceil(rows / ROWS_AT_ONCE), _MOST_TURNS)
    for turn in range(max(turns, 1)):
        table = "asked"
        if turns > 1:
            # Observations of the same place are in one turn.
            table = "asked_now"
            script.table(table, f"SELECT * FROM asked WHERE hash(kid, low) % {turns} = {turn}")
        selected, temporary = query(table)
        if turn:
            script.insert(name, selected)
        else:
            script.table(name, selected)
        script.drop(*temporary, *(["asked_now"] if turns > 1 else []))


def _join(script: Script, levels: Levels, summary: _Summary, name: str) -> None:
    """Join each observation with the rows of its window."""
    rows = replace(levels, widths=())

    def query(asked: str) -> tuple[str, Sequence[str]]:
        entries = summary.select("_i", rows.single(asked))
        if summary.part != "hashes":
            counted = f"SELECT _i, x, count(*) AS n FROM ({entries}) GROUP BY ALL"
            return (_quantiles if summary.part == "bins" else _top)(f"({counted})", summary.features), []
        script.table("different", f"SELECT DISTINCT _i, x FROM ({entries})")
        return _distinct("different", summary.features), ["different"]

    _in_turns(script, name, levels.observations * levels.rows, query)


def _sweep(script: Script, levels: Levels, summary: _Summary, name: str) -> None:
    """Sweep the rows of each entity: a row is in the windows of all instants in [f, u)."""
    width = hop(levels.window)
    leaves = f"{floor('e', width)} + {width + levels.window}"
    spans = [summary.select(f"kid, greatest(v, e + 1) AS f, {leaves} AS u", "events")]
    if levels.mortal:
        mortal = first_places_sql("mortals")
        spans.append(summary.select(f"kid, greatest(v, e + 1) AS f, least({leaves}, g) AS u", f"({mortal})"))
    script.table(
        "spans",
        f"SELECT kid, x, f, u, count(*) AS n FROM ({' UNION ALL '.join(spans)}) "
        "WHERE f < u AND kid IN (SELECT kid FROM asked) GROUP BY ALL",
    )
    script.table(
        "places",
        "SELECT kid, x, row_number() OVER (PARTITION BY kid ORDER BY x) - 1 AS place "
        "FROM (SELECT DISTINCT kid, x FROM spans)",
    )
    answer, columns = _answers(summary)

    def query(asked: str) -> tuple[str, Sequence[str]]:
        # At one instant, rows enter and leave before observations are answered.
        changes = "SELECT kid, {instant} * 2 AS moment, place, {n} AS n, -1 AS _i FROM spans JOIN places USING (kid, x)"
        ordered = (
            f"SELECT CAST(kid AS BIGINT) AS kid, CAST(place AS BIGINT) AS place, CAST(n AS BIGINT) AS n, "
            f"CAST(_i AS BIGINT) AS _i FROM ({changes.format(instant='f', n='n')} UNION ALL "
            f"{changes.format(instant='u', n='-n')} UNION ALL SELECT kid, t * 2 + 1, -1, 0, _i FROM {asked}) "
            "ORDER BY kid, moment"
        )
        script.step("answers", Sweep("answers", ordered, answer, columns))
        return _values(summary), ["answers"]

    _in_turns(script, name, levels.observations, query)
    script.drop("places", "spans")


def _answers(summary: _Summary) -> tuple[Answer, int]:
    """Return the answer function for the features of a summary, and the length of its answers."""
    if summary.part == "hashes":
        return smallest, 2
    if summary.part == "bins":
        return ranks([millionths(feature.share) for feature in summary.features]), len(summary.features)
    most = max(feature.nth for feature in summary.features)
    return most_frequent(most), most


def _values(summary: _Summary) -> str:
    """SELECT `_i` and the features from the answers of a sweep."""
    features = summary.features
    if summary.part == "hashes":
        values = ", ".join(f"{_ESTIMATE} AS {quote_name(feature.name)}" for feature in features)
        return (
            f"SELECT _i, {values} FROM (SELECT _i, c0 AS n, x FROM answers LEFT JOIN places "
            "ON places.kid = answers.kid AND places.place = answers.c1 WHERE c0 > 0)"
        )
    width = _answers(summary)[1]
    placed = (
        f"SELECT _i, c, x FROM (SELECT _i, kid, unnest(range({width})) AS c, "
        f"unnest([{', '.join(f'c{n}' for n in range(width))}]) AS place FROM answers) JOIN places USING (kid, place)"
    )
    selected = []
    for n, feature in enumerate(features):
        expression = f"min(x) FILTER (c = {n if summary.part == 'bins' else feature.nth - 1})"
        selected.append(
            f"{_of_bin(expression) if summary.part == 'bins' else expression} AS {quote_name(feature.name)}"
        )
    return f"SELECT _i, {', '.join(selected)} FROM ({placed}) GROUP BY _i"


_ESTIMATE = f"CAST(CASE WHEN n < {KEPT} THEN n ELSE {(KEPT - 1) << 63}::HUGEINT // (x + 1) END AS BIGINT)"


def _distinct(different: str, features: Sequence[WindowFeature]) -> str:
    """Count distinct values; only if there are many, select the smallest hashes."""
    counted = f"SELECT _i, count(*) AS n FROM {different} GROUP BY _i"
    largest = (
        f"SELECT _i, max(x) AS x FROM (SELECT _i, x FROM {different} "
        f"SEMI JOIN (SELECT _i FROM ({counted}) WHERE n >= {KEPT}) USING (_i) "
        f"QUALIFY row_number() OVER (PARTITION BY _i ORDER BY x) <= {KEPT}) GROUP BY _i"
    )
    values = ", ".join(f"{_ESTIMATE} AS {quote_name(feature.name)}" for feature in features)
    return f"SELECT _i, {values} FROM ({counted}) LEFT JOIN ({largest}) USING (_i)"


def _quantiles(entries: str, features: Sequence[WindowFeature]) -> str:
    values = []
    for feature in features:
        rank = f"greatest(1, (total * {millionths(feature.share)} + 999999) // 1000000)"
        values.append(f"{_of_bin(f'min(x) FILTER (upto >= {rank})')} AS {quote_name(feature.name)}")
    # Entries of one bin are peers in the order, so each gets the sum up to the last of them.
    return (
        f"SELECT _i, {', '.join(values)} FROM (SELECT _i, x, sum(n) OVER (PARTITION BY _i ORDER BY x) AS upto, "
        f"sum(n) OVER (PARTITION BY _i) AS total FROM {entries}) GROUP BY _i"
    )


def _of_bin(bin_: str) -> str:
    size = f"CAST(CAST(abs({bin_}) << {CUT} AS BIT) AS DOUBLE)"
    return f"CASE WHEN {bin_} < 0 THEN -{size} ELSE {size} END"


def _top(entries: str, features: Sequence[WindowFeature]) -> str:
    most = max(feature.nth for feature in features)
    values = ", ".join(f"min(x) FILTER (place = {f.nth}) AS {quote_name(f.name)}" for f in features)
    return (
        f"SELECT _i, {values} FROM (SELECT _i, x, row_number() OVER (PARTITION BY _i ORDER BY n DESC, x) AS place "
        f"FROM {entries} QUALIFY place <= {most}) GROUP BY _i"
    )

"""Computation of entities' states from a slice of the lake: a pure function of the rows and of the instant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from mainspring.data import duck
from mainspring.features.keys import encode_key
from mainspring.features.layout import RANKED, SKETCHES, Layout
from mainspring.features.model import hop
from mainspring.features.offline.windows import enters
from mainspring.features.state import sql
from mainspring.features.state.blobs import NO_EVENT, Candidates, Recent, Spread, State, Tiles, as_stored, encode
from mainspring.features.state.coded import many_coded
from mainspring.features.tilelog.landed import key_columns
from mainspring.features.tilelog.loads import LOAD_BITS
from mainspring.features.tilelog.rows import parts_of, tail_of, width_sql
from mainspring.features.tilelog.slices import Slice

_NEVER = 2**63 - 1
Columns = list[list[Any]]

_BATCH_ROWS = 50_000


class Built(NamedTuple):
    """An entity's state: its key, its bytes, and the number of rows that required it."""

    key: bytes
    payload: bytes
    rows: int


class Rebuild:
    """Computation of states at one instant from a slice.

    Rows visible by `settled` and older are merged in tiles; later ones, visible by `until`, stay single. A tile is
    kept while a window that ends at `settled`, or up to `BEHIND` before it, can reach it.
    """

    def __init__(self, con: Any, layout: Layout, rows: Slice, settled: int, until: int) -> None:
        self._con = con
        self._layout = layout
        self._rows = rows
        self._settled = settled
        self._until = until
        self._past = f"v <= {settled} AND e < {settled}"
        self._scope = f"scope_{rows.number}"
        self._oldest = rows.low

    def states(self, changed: str, *, whole: bool) -> Iterator[Built]:
        """Yield the state of each entity in table `changed` (kid, rows), in the order of kid.

        Each has a row visible by `until`. `whole`: see `batches`.
        """
        layout = self._layout
        self._make_scope(changed)

        def groups(query: str | None) -> Groups:
            return Groups(iter(()) if query is None else batches(self._con, query, whole=whole))

        lasts = groups(self._lasts_sql() if layout.lasts else None)
        tiles = [groups(self._tiles_sql(width)) for width in layout.hops]
        recent = groups(self._recent_sql() if layout.windows else None)
        mortals = groups(self._mortals_sql() if layout.lasts and self._rows.versions else None)
        as_tiles = [_tiles_of([part for _, part in parts_of(layout, width)]) for width in layout.hops]
        no_lasts: Columns = [[] for _ in range(2 + 2 * self._rows.versions + len(layout.last_exprs))]
        none_recent: Columns = [[] for _ in range(2 + self._rows.versions + len(layout.measures) + layout.ranked)]
        query = (
            f"SELECT kid, rows, since, {', '.join(key_columns(layout))} FROM {self._rows.entities} "
            f"JOIN {changed} USING (kid) ORDER BY kid"
        )
        for kids, counts, sinces, *keys in batches(self._con, query, whole=whole):
            for kid, count, since, *key in zip(kids, counts, sinces, *keys, strict=True):
                visible, event, *values = lasts.take(kid) or no_lasts
                if self._rows.versions and layout.lasts:
                    rank, values = values[:2], values[2:]
                    ending = mortals.take(kid) or []
                    if ending or not visible or visible[0] > self._settled:
                        standing = (visible, event, rank, values)
                        visible, event, values = standing_rows(standing, ending, since, self._settled)
                recent_visible, recent_event, *measures = recent.take(kid) or none_recent
                seqs = measures.pop() if layout.ranked else []
                ends = measures.pop() if self._rows.versions else []
                ends = ends if any(end is not None for end in ends) else []
                state = State(
                    since,
                    Candidates(visible, event, values),
                    [make(entity_tiles.take(kid)) for entity_tiles, make in zip(tiles, as_tiles, strict=True)],
                    Recent(recent_visible, recent_event, measures, seqs, ends),
                )
                yield Built(encode_key(key), encode(state), count)

    def _make_scope(self, changed: str) -> None:
        """Create table `scope_n`: kid, and when its current last value became visible."""
        con, rows = self._con, self._rows
        if not self._layout.lasts:
            con.execute(f"CREATE OR REPLACE TABLE {self._scope} AS SELECT kid FROM {changed}")
            return
        found = (
            f"SELECT kid, max(v) AS standing FROM {rows.raw} SEMI JOIN {changed} USING (kid) "
            f"WHERE counts AND v <= {self._settled} GROUP BY kid"
        )
        con.execute(
            f"CREATE OR REPLACE TABLE {self._scope} AS SELECT kid, coalesce(found.standing, sv) AS standing "
            f"FROM {changed} JOIN {rows.entities} USING (kid) LEFT JOIN ({found}) AS found USING (kid)"
        )
        # As a constant in a condition, their minimum skips older blocks.
        (least,) = duck.one_row(con, f"SELECT min(standing) FROM {self._scope}")
        self._oldest = rows.low if least is None else least

    def _lasts_sql(self) -> str:
        """SELECT each entity's standing row, and the rows that become visible after it: kid, v, e, x0, ..."""
        values = "".join(f", x{n}" for n in range(len(self._layout.last_exprs)))
        settled, raw = (", sr AS r, sq AS seq", ", r, seq") if self._rows.versions else ("", "")
        return (
            f"SELECT kid, sv AS v, se AS e{settled}{values} FROM {self._rows.entities} JOIN {self._scope} USING (kid) "
            f"WHERE standing = sv UNION ALL SELECT kid, v, e{raw}{values} FROM {self._rows.raw} "
            f"JOIN {self._scope} USING (kid) WHERE counts AND v <= {self._until} AND v >= coalesce(standing, v) "
            f"AND v >= {self._oldest} ORDER BY kid, v"
        )

    def _mortals_sql(self) -> str:
        """SELECT the rows that count for a while after `settled`: kid, v, g, e, r, seq, x0, ..."""
        values = "".join(f", x{n}" for n in range(len(self._layout.last_exprs)))
        return (
            f"SELECT kid, v, g, e, r, seq{values} FROM {self._rows.mortals} SEMI JOIN {self._scope} USING (kid) "
            f"WHERE v <= {self._until} AND g > {self._settled} ORDER BY kid, v, seq"
        )

    def _tiles_sql(self, width: int) -> str:
        """SELECT the merged tiles of one width: kid, start (in hops), the parts.

        These are the settled tiles of the log, and the rest of the past, aggregated by the function that writes the
        log.
        """
        layout, rows = self._layout, self._rows
        parts = parts_of(layout, width)
        names = sql.columns(parts)
        tail, floored = tail_of(layout, width, self._settled), self._settled // width * width
        measures = "".join(f", m{n}" for n in range(len(layout.measures)))
        singles = (
            f"(SELECT kid, e, v, seq{measures} FROM {rows.raw} SEMI JOIN {self._scope} USING (kid) "
            f"WHERE {self._past} AND e >= {tail} AND v >= {rows.low if rows.tiles.any_untiled else floored})"
        )
        unsettled = f"{enters(width)} > {floored}"
        if rows.tiles.any_untiled:
            unsettled = f"({unsettled} OR seq >> {LOAD_BITS} IN (SELECT load FROM {rows.tiles.untiled}))"
        tiles = [
            f"SELECT kid, start, {names} FROM {rows.tiles.tables[width]} SEMI JOIN {self._scope} USING (kid) "
            f"WHERE enters <= {floored} AND start >= {tail}",
            f"SELECT kid, start, {names} FROM ({width_sql(layout, width, singles, unsettled, by='kid')})",
        ]
        typed = ", ".join(
            _typed(name, part, rows.tiles.types) for name, part in zip(map(sql.column, parts), parts, strict=True)
        )
        return (
            f"SELECT kid, start // {width} AS start, {typed} FROM (SELECT kid, start, {sql.merged(parts)} "
            f"FROM ({' UNION ALL '.join(tiles)}) GROUP BY kid, start) ORDER BY kid, start"
        )

    def _recent_sql(self) -> str:
        """SELECT the rows that are not in tiles yet: kid, v, e, m0, ..., and seq if needed."""
        measures = "".join(f", m{n}" for n in range(len(self._layout.measures)))
        oldest = self._settled - max(feature.window + hop(feature.window) for feature in self._layout.windows)
        scoped = f"SEMI JOIN {self._scope} USING (kid) WHERE v <= {self._until} AND e >= {oldest}"
        found = (
            f"SELECT kid, v, e{measures}{', NULL AS g' * self._rows.versions}, seq FROM {self._rows.raw} {scoped} "
            f"AND v >= {self._settled} AND NOT ({self._past})"
        )
        if self._rows.versions:
            found += (
                f" UNION ALL SELECT kid, v, e{measures}, g, seq FROM {self._rows.mortals} {scoped} "
                f"AND g > {self._settled}"
            )
        dropped = "" if self._layout.ranked else " EXCLUDE (seq)"
        return f"SELECT *{dropped} FROM ({found}) ORDER BY kid, v, seq"


def standing_rows(
    standing: tuple[list[int], list[int], list[list[int]], list[list[Any]]], mortals: Columns, since: int, settled: int
) -> tuple[list[int], list[int], list[list[Any]]]:
    """Return an entity's newest row from each instant on: visible, event, values, as in `state.blobs.Candidates`.

    Args:
        standing: Visible, event, (recorded, seq) and values of the rows that were not superseded, in the order in which
            they count.
        mortals: v, g, e, r, seq and values of the rows that count in [v, g).
        since: Instant at which the entity's first row counted.
        settled: Earliest instant of interest.
    """
    visible, event, (recorded, seq), values = standing
    # (from, until, rank, values); among rows that were not superseded, each later one has a higher rank.
    lives = [
        (v, _NEVER, (e, r, n), row) for v, e, r, n, *row in zip(visible, event, recorded, seq, *values, strict=True)
    ]
    lives += [(v, g, (e, r, n), row) for v, g, e, r, n, *row in zip(*mortals, strict=True)]
    instants = {settled, *(instant for life in lives for instant in life[:2] if settled < instant < _NEVER)}
    standings: list[tuple[int, int, list[Any]]] = []
    last: Any = ()
    lives.sort(key=lambda life: life[0])
    begun = 0
    alive: list[tuple[int, int, int, int]] = []  # heap of (negated rank, index in `lives`), highest rank first
    for instant in sorted(instants):
        while begun < len(lives) and lives[begun][0] <= instant:
            e, r, n = lives[begun][2]
            heappush(alive, (-e, -r, -n, begun))
            begun += 1
        while alive and lives[alive[0][-1]][1] <= instant:
            heappop(alive)
        newest = lives[alive[0][-1]] if alive else None
        if newest is last or (newest is None and instant < since):
            continue
        if newest is None:
            standings.append((max(instant, since) if standings else since, NO_EVENT, [None] * len(values)))
        else:
            standings.append((instant if standings else newest[0], newest[2][0], newest[3]))
        last = newest
    columns = [[row[column] for *_, row in standings] for column in range(len(values))]
    return [instant for instant, *_ in standings], [event for _, event, _ in standings], columns


def _typed(name: str, part: sql.Part, types: dict[str, str]) -> str:
    value = f"coalesce({name}, 0)" if part[1] == "sum" else name
    return f"CAST({value} AS {types[name]}) AS {name}"


def _tiles_of(parts: Sequence[str]) -> Callable[[Columns | None], Tiles]:
    """Return the function that converts the columns of one entity's tiles to the tiles of its state."""
    spreads = [index for index, part in enumerate(parts) if part == "spread"]
    transformed = [(index, part) for index, part in enumerate(parts) if part.startswith((*RANKED, *SKETCHES))]
    nothing = Tiles([], [[] for _ in parts])

    def make(columns: Columns | None) -> Tiles:
        if columns is None:
            return nothing
        starts, *values = columns
        for index in spreads:
            values[index] = [None if states is None else _collapsed(states) for states in values[index]]
        for index, part in transformed:
            values[index] = as_stored(part, values[index])
            if part == "values":
                values[index] = many_coded(values[index])
        return Tiles(starts, values)

    return make


def _collapsed(states: list[dict[str, Any]]) -> Spread:
    """Merge the spreads of one tile; see `features.state.sql.spread_sql`."""
    spreads = [tuple(state.values()) for state in states]
    if len(spreads) == 1:
        return spreads[0]
    origin = spreads[0][1]
    n = sum(spread[0] for spread in spreads)
    shift = sum(moved + count * (start - origin) for count, start, moved, _ in spreads)
    m2 = 0.0
    for count, start, moved, squares in spreads:
        apart = (start - origin) + moved / count - shift / n
        m2 += squares + count * (apart * apart)  # a product beyond a double is infinite; a power would raise
    return n, origin, shift, m2


def batches(con: Any, query: str, *, whole: bool) -> Iterator[Columns]:
    """Yield the columns of a query's result, some rows at a time, in the query's order.

    Args:
        whole: Whether to return all rows at once, which costs less if they are few. Otherwise the query's tables must
            not be temporary.
    """
    if whole:
        yield [column.tolist() for column in con.execute(query).fetchnumpy().values()]
        return
    with con.cursor() as cursor, cursor.sql(query).to_arrow_reader(_BATCH_ROWS) as reader:
        for batch in reader:
            yield [column.to_pylist() for column in batch.columns]


class Groups:
    """The rows of a result grouped by its first column, the entity in ascending order."""

    def __init__(self, found: Iterator[Columns]) -> None:
        self._rows = _runs(found)
        self._next = next(self._rows, None)

    def take(self, entity: int) -> Columns | None:
        """Return the other columns of the entity's rows; `None` if there are none. Calls must be in the order of
        entities.
        """
        group = self._next
        if group is None or group[0] != entity:
            return None
        self._next = next(self._rows, None)
        return group[1]


def _runs(chunks: Iterator[Columns]) -> Iterator[tuple[int, Columns]]:
    entity: int | None = None
    pending: Columns = []
    for names, *columns in chunks:
        if not names:
            continue
        edges = [0, *(np.flatnonzero(np.diff(names)) + 1).tolist(), len(names)]
        for start, end in pairwise(edges):
            rows = [column[start:end] for column in columns]
            if names[start] == entity:  # the entity's rows continue from the previous batch
                for column, addition in zip(pending, rows, strict=True):
                    column.extend(addition)
                continue
            if entity is not None:
                yield entity, pending
            entity, pending = names[start], rows
    if entity is not None:
        yield entity, pending

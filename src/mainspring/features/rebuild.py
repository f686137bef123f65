"""States of entities, computed from a slice of the lake: a pure function of the rows and of the instant."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from mainspring.core.time import DAY
from mainspring.features import parts as sql
from mainspring.features.keys import encode_key
from mainspring.features.layout import Layout
from mainspring.features.model import hop
from mainspring.features.slices import Slice
from mainspring.features.state import Candidates, Recent, State, Tiles
from mainspring.features.windows import floor

_Columns = list[list[Any]]
_LATELY = 2 * DAY


def rebuild(con: Any, layout: Layout, rows: Slice, settled: int, until: int) -> Iterator[tuple[bytes, State]]:
    """Yield the key and the state of each entity in table `chunk` (kid), each of which has a row visible by `until`.

    Rows visible by `settled` and older are merged in tiles; later ones, visible by `until`, stay single. A tile is
    kept while a window that ends at the entity's newest settled event, or later, can reach it.
    """
    past = f"v <= {settled} AND e < {settled}"
    _scope(con, layout, rows, settled, past)
    bounds = _bounds(con, layout, settled)
    lasts: dict[int, _Columns] = {}
    if layout.lasts:
        values = "".join(f", x{n}" for n in range(len(layout.last_exprs)))
        lasts = _by_entity(
            con,
            f"SELECT kid, v, e{values} FROM {rows.rows} JOIN scope USING (kid) WHERE counts AND v <= {until} "
            f"AND v >= coalesce(standing, v) AND v >= {bounds['standing']} ORDER BY kid, v, e, r, seq",
        )
    tiles = [_tiles(con, layout, rows, past, width, bounds) for width in layout.hops]
    recent: dict[int, _Columns] = {}
    if layout.windows:
        values = "".join(f", m{n}" for n in range(len(layout.measures)))
        oldest = settled - max(feature.window + hop(feature.window) for feature in layout.windows)
        recent = _by_entity(
            con,
            f"SELECT kid, v, e{values} FROM {rows.rows} SEMI JOIN scope USING (kid) WHERE v >= {settled} "
            f"AND v <= {until} AND NOT ({past}) AND e >= {oldest} ORDER BY kid, v, seq",
        )
    for kid, *key, since in con.execute(f"SELECT * FROM {rows.entities} SEMI JOIN scope USING (kid)").fetchall():
        visible, event, *values_of_lasts = lasts.get(kid) or [[] for _ in range(2 + len(layout.last_exprs))]
        recent_visible, recent_event, *measures = recent.get(kid) or [[] for _ in range(2 + len(layout.measures))]
        yield (
            encode_key(key),
            State(
                since,
                Candidates(visible, event, values_of_lasts),
                [_tile(found.get(kid), width, layout) for found, width in zip(tiles, layout.hops, strict=True)],
                Recent(recent_visible, recent_event, measures),
            ),
        )


def _scope(con: Any, layout: Layout, rows: Slice, settled: int, past: str) -> None:
    """Make table `scope`: kid, newest (settled event), standing (when the current last value became visible), tails.

    Most entities have rows in the last days, and what is newest of those is newest of all: an older row was visible
    before them, so it happened before them. Only the others are looked for in the whole past.
    """
    select = (
        f"SELECT kid, max(e) FILTER ({past}) AS newest, max(v) FILTER (counts AND v <= {settled}) AS standing "
        f"FROM {rows.rows} SEMI JOIN {{entities}} USING (kid) WHERE v <= {settled} {{bound}} GROUP BY kid"
    )
    since = settled - _LATELY
    con.execute("CREATE OR REPLACE TEMP TABLE found AS " + select.format(entities="chunk", bound=f"AND v >= {since}"))
    standing = "AND standing IS NOT NULL" if layout.lasts else ""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE others AS SELECT kid FROM chunk ANTI JOIN "
        f"(SELECT kid FROM found WHERE newest >= {since} {standing}) AS sure USING (kid)"
    )
    tails = "".join(f", {floor(f'newest - {widest}', width)} AS tail_{width}" for width, widest in layout.hops.items())
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE scope AS SELECT kid, newest, standing{tails} FROM chunk LEFT JOIN ("
        f"SELECT * FROM found ANTI JOIN others USING (kid) UNION ALL {select.format(entities='others', bound='')}"
        ") USING (kid)"
    )


def _bounds(con: Any, layout: Layout, settled: int) -> dict[str, int]:
    """Return the least `standing` and tails in `scope`: as constants in a condition they spare reading older blocks."""
    names = ["standing", *(f"tail_{width}" for width in layout.hops)]
    least = ", ".join(f"min(coalesce({name}, {settled}))" for name in names)
    return dict(zip(names, con.execute(f"SELECT {least} FROM scope").fetchone(), strict=True))


def _tiles(con: Any, layout: Layout, rows: Slice, past: str, width: int, bounds: dict[str, int]) -> dict[int, _Columns]:
    parts = layout.parts(layout.of_hop(width))
    tail = f"tail_{width}"
    source = (
        f"(SELECT *, {floor('e', width)} // {width} AS start FROM {rows.rows} JOIN scope USING (kid) "
        f"WHERE {past} AND e >= {tail} AND e >= {bounds[tail]})"
    )
    grouped = sql.from_rows(parts, source, "TRUE", "kid, start")
    columns = ", ".join(f"coalesce({sql.column(p)}, 0)" if p[1] == "sum" else sql.column(p) for p in parts)
    return _by_entity(con, f"SELECT kid, start, {columns} FROM ({grouped}) ORDER BY kid, start")


def _tile(columns: _Columns | None, width: int, layout: Layout) -> Tiles:
    parts = layout.parts(layout.of_hop(width))
    if columns is None:
        return Tiles([], [[] for _ in parts])
    starts, *values = columns
    for place, (_, part) in enumerate(parts):
        if part == "spread":
            values[place] = [None if state is None else tuple(state[0].values()) for state in values[place]]
    return Tiles(starts, values)


def _by_entity(con: Any, query: str) -> dict[int, _Columns]:
    """Run a query whose rows are ordered by their first column, the entity; return the other columns of each entity."""
    names, *columns = con.execute(query).fetchnumpy().values()
    if not len(names):
        return {}
    edges = [0, *(np.flatnonzero(np.diff(names)) + 1).tolist(), len(names)]
    return {int(names[start]): [column[start:end].tolist() for column in columns] for start, end in pairwise(edges)}

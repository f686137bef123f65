"""States of entities, computed from a slice of the lake: a pure function of the rows and of the instant."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from mainspring.features import parts as sql
from mainspring.features.keys import encode_key
from mainspring.features.layout import Layout
from mainspring.features.model import hop
from mainspring.features.slices import Slice
from mainspring.features.state import Candidates, Recent, State, Tiles
from mainspring.features.windows import floor

_Columns = list[list[Any]]


def rebuild(con: Any, layout: Layout, rows: Slice, settled: int, until: int) -> Iterator[tuple[bytes, State]]:
    """Yield the key and the state of each entity in table `chunk` (kid) that has a row visible by `until`.

    Rows visible by `settled` and older are merged in tiles; later ones, visible by `until`, stay single. A tile is
    kept while a window that ends at the entity's newest settled event, or later, can reach it.
    """
    past = f"v <= {settled} AND e < {settled}"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE scope AS SELECT kid, min(v) AS since, max(e) FILTER ({past}) AS newest, "
        f"max(v) FILTER (counts AND v <= {settled}) AS standing FROM {rows.rows} SEMI JOIN chunk USING (kid) "
        f"WHERE v <= {until} GROUP BY kid"
    )
    scoped = f"(SELECT r.*, newest, standing FROM {rows.rows} AS r JOIN scope USING (kid))"
    lasts: dict[int, _Columns] = {}
    if layout.lasts:
        values = "".join(f", x{n}" for n in range(len(layout.last_exprs)))
        lasts = _by_entity(
            con,
            f"SELECT kid, v, e{values} FROM {scoped} WHERE counts AND v <= {until} AND v >= coalesce(standing, v) "
            "ORDER BY kid, v, e, r, seq",
        )
    tiles = [_tiles(con, layout, scoped, past, width, widest) for width, widest in layout.hops.items()]
    recent: dict[int, _Columns] = {}
    if layout.windows:
        values = "".join(f", m{n}" for n in range(len(layout.measures)))
        oldest = settled - max(feature.window + hop(feature.window) for feature in layout.windows)
        recent = _by_entity(
            con,
            f"SELECT kid, v, e{values} FROM {scoped} WHERE v <= {until} AND NOT ({past}) AND e >= {oldest} "
            "ORDER BY kid, v, seq",
        )
    keys = con.execute(f"SELECT * FROM {rows.entities} JOIN (SELECT kid, since FROM scope) USING (kid)").fetchall()
    for kid, *key, since in keys:
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


def _tiles(con: Any, layout: Layout, scoped: str, past: str, width: int, widest: int) -> dict[int, _Columns]:
    parts = layout.parts(layout.of_hop(width))
    start = f"({floor('e', width)} // {width})"
    source = f"(SELECT *, {start} AS start FROM {scoped} WHERE {past} AND e >= {floor(f'newest - {widest}', width)})"
    grouped = sql.from_rows(parts, source, "TRUE", "kid, start")
    return _by_entity(con, f"SELECT kid, start, {sql.columns(parts)} FROM ({grouped}) ORDER BY kid, start")


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

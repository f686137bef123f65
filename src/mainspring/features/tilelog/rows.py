"""Tiles as rows of a table: partial aggregates of a source's rows, computed by one function.

A tile has its entity's keys (k<i>), `_width` (the hop, microseconds), `_start` (of the hop that holds its events),
`_enters` (the first hop boundary at which the whole tile counts, see features.offline.levels) and the parts of its
measures. A row that becomes visible late forms a separate tile, so at every T the tiles with `_enters <= floor(T,
width)` contain exactly the rows that had settled by then.

They belong to a piece of the log: `_append` identifies the write, `_load` the piece in it. A row of width 0 records the
provenance of a piece: the loads numbered `_load` to `_upto`, which had `_rows` rows with the digest `_digest`
(features.tilelog.loads).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mainspring.core.time import HOUR
from mainspring.data.model import TILES_PREFIX
from mainspring.features.layout import Layout
from mainspring.features.offline.windows import enters, floor
from mainspring.features.state import sql
from mainspring.features.state.sql import Part
from mainspring.features.tilelog.landed import key_columns
from mainspring.features.tilelog.loads import LOAD_BITS

# How far a clock may be set back while states still contain everything it can reach; see features.materialise.
BEHIND = HOUR

_LONGEST_NAME = 96  # characters of a view's name in a table's name
# Types that a lake's tables lack -> replacement.
_STORED_AS = {"HUGEINT": "BIGINT", "UBIGINT": "BIGINT", "UINTEGER": "BIGINT", "USMALLINT": "INTEGER"}

_COUNTED = ("bins", "values")  # parts that are lists of values with counts


def tiles_table(slot: str) -> str:
    """Return the name of the table of a view's tiles, from the view's slot."""
    view, _, digest = slot.rpartition("@")
    return f"{TILES_PREFIX}{view[:_LONGEST_NAME]}-{digest}"


def parts_of(layout: Layout, width: int) -> list[Part]:
    return layout.parts(layout.of_hop(width))


def all_parts(layout: Layout) -> list[Part]:
    """Return the parts of tiles of all widths."""
    return sorted({part for width in layout.hops for part in parts_of(layout, width)})


def tail_of(layout: Layout, width: int, settled: int) -> int:
    """Return the start of the oldest tile of a width that a window can reach at `BEHIND` before an instant or later."""
    return (settled - BEHIND - layout.hops[width]) // width * width


def width_sql(layout: Layout, width: int, rows: str, where: str = "TRUE", by: str = "") -> str:
    """SELECT the tiles of one width of the rows in `rows`: `by`, load, start, enters, the parts.

    Args:
        rows: A table of kid or k<i>, e, v, seq, m<i>.
        by: Columns that identify an entity; by default its keys.
    """
    entity = by or ", ".join(key_columns(layout))
    source = (
        f"(SELECT *, seq >> {LOAD_BITS} AS load, {floor('e', width)} AS start, {enters(width)} AS enters "
        f"FROM {rows} WHERE {where})"
    )
    return sql.from_rows(parts_of(layout, width), source, "TRUE", f"{entity}, load, start, enters")


def tile_rows(layout: Layout, width: int, rows: str, where: str, types: dict[str, str]) -> str:
    """SELECT the tiles of one width of the rows in `rows`: load, _width, _start, _enters, the columns of `types`.

    Args:
        types: Types of the key columns and the parts; see `column_types`.
    """
    held = {*key_columns(layout), *map(sql.column, parts_of(layout, width))}
    columns = ", ".join(f"CAST({name if name in held else 'NULL'} AS {kind}) AS {name}" for name, kind in types.items())
    return (
        f"SELECT load, {width}::BIGINT AS _width, start AS _start, enters AS _enters, {columns} "
        f"FROM ({width_sql(layout, width, rows, where)})"
    )


def merged_rows(layout: Layout, tiles: str, types: dict[str, str]) -> str:
    """SELECT the tiles in `tiles`, merged over loads if they have the same time in the same piece (_load)."""
    by = ", ".join(["_load", "_width", "_start", "_enters", *key_columns(layout)])
    parts = all_parts(layout)
    counted = [sql.column(part) for part in parts if part[1] in _COUNTED]
    spreads = [sql.column(part) for part in parts if part[1] == "spread"]
    merged = f"SELECT {by}, {sql.merged(parts)} FROM {tiles} GROUP BY {by}"
    for name in counted:
        merged = (
            f"SELECT merged.* REPLACE (counted.{name} AS {name}) FROM ({merged}) AS merged LEFT JOIN ("
            f"SELECT {by}, list({{x: x, n: n}} ORDER BY x) AS {name} FROM ("
            f"SELECT {by}, entry.x AS x, sum(entry.n)::BIGINT AS n FROM ("
            f"SELECT {by}, unnest({name}) AS entry FROM {tiles}) GROUP BY {by}, entry.x) GROUP BY {by}"
            f") AS counted USING ({by})"
        )
    for name in spreads:
        merged = _folded(merged, name)
    columns = ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in types.items())
    return f"SELECT _load, _width, _start, _enters, {columns} FROM ({merged})"


def _folded(source: str, name: str) -> str:
    """Return a query like `source` with each list of spreads merged into one; see `features.state.sql.spread_sql`."""
    shift = f"list_sum(list_transform({name}, lambda s: s.shift + s.n * (s.origin - {name}[1].origin)))"
    counted = f"SELECT *, list_sum(list_transform({name}, lambda s: s.n)) AS _n, {shift} AS _shift FROM ({source})"
    mean = f"(s.origin - {name}[1].origin) + s.shift / s.n - _shift / _n"
    squares = f"list_sum(list_transform({name}, lambda s: s.m2 + s.n * pow({mean}, 2)))"
    one = f"[{{n: _n, origin: {name}[1].origin, shift: _shift, m2: {squares}}}]"
    return (
        f"SELECT * EXCLUDE (_n, _shift) REPLACE (CASE WHEN len({name}) > 1 THEN {one} ELSE {name} END AS {name}) "
        f"FROM ({counted})"
    )


def column_types(con: Any, layout: Layout, rows: str) -> dict[str, str]:
    """Return the columns of a tile that depend on the view, keys first, with DuckDB types that a lake supports."""
    found: dict[str, str] = {}
    for width in layout.hops:
        for name, kind, *_ in con.execute(f"DESCRIBE {width_sql(layout, width, rows)}").fetchall():
            if name not in ("load", "start", "enters"):
                found.setdefault(name, _STORED_AS.get(kind, kind))
    parts: Sequence[str] = [sql.column(part) for part in all_parts(layout)]
    return {name: found[name] for name in [*key_columns(layout), *parts]}

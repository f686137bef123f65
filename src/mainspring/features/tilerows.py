"""Tiles as rows of a table: partial aggregates of a source's rows, made by one function from any rows.

A tile has its entity's keys (k<i>), `_width` (the hop, microseconds), `_start` (of the hop that holds its events),
`_enters` (the first hop boundary at which the whole of it counts, see features.windows) and the parts of its measures.
A row that becomes visible late forms a tile of its own, so at every T the tiles with `_enters <= floor(T, width)` hold
exactly what had settled by then.

Beside them each write says in rows of width 0 what its tiles were made from: the loads numbered `_load` to `_upto`,
which had `_rows` rows with the digest `_digest` (features.loads). `_append` tells one write from another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mainspring.data.model import TILES_PREFIX
from mainspring.features import parts as sql
from mainspring.features.landed import key_columns
from mainspring.features.layout import Layout
from mainspring.features.loads import LOAD_BITS
from mainspring.features.parts import Part
from mainspring.features.windows import enters, floor

_LONGEST_NAME = 96  # characters of a view's name in a table's
# What a lake's tables cannot hold, as what they can.
_STORED_AS = {"HUGEINT": "BIGINT", "UBIGINT": "BIGINT", "UINTEGER": "BIGINT", "USMALLINT": "INTEGER"}


def tiles_table(slot: str) -> str:
    """Return the name of the table of a view's tiles, from the view's slot."""
    view, _, digest = slot.rpartition("@")
    return f"{TILES_PREFIX}{view[:_LONGEST_NAME]}-{digest}"


def parts_of(layout: Layout, width: int) -> list[Part]:
    return layout.parts(layout.of_hop(width))


def all_parts(layout: Layout) -> list[Part]:
    """Return the parts that tiles of any width have."""
    return sorted({part for width in layout.hops for part in parts_of(layout, width)})


def width_sql(layout: Layout, width: int, rows: str, where: str = "TRUE", by: str = "") -> str:
    """SELECT the tiles of one width of the rows in `rows`: `by`, load, start, enters, the parts.

    Args:
        rows: A table of kid or k<i>, e, v, seq, m<i>.
        by: The columns that name an entity; its keys by default.
    """
    entity = by or ", ".join(key_columns(layout))
    source = (
        f"(SELECT *, seq >> {LOAD_BITS} AS load, {floor('e', width)} AS start, {enters(width)} AS enters "
        f"FROM {rows} WHERE {where})"
    )
    return sql.from_rows(parts_of(layout, width), source, "TRUE", f"{entity}, load, start, enters")


def tile_rows(layout: Layout, rows: str, where: str, types: dict[str, str]) -> str:
    """SELECT the tiles of the rows in `rows`, of every width, as the columns of the table; `_append` is not set.

    Args:
        types: Of the key columns and the parts: see `column_types`.
    """
    selects = []
    for width in layout.hops:
        held = {sql.column(part) for part in parts_of(layout, width)}
        columns = ", ".join(
            f"CAST({name if name in held or name in key_columns(layout) else 'NULL'} AS {kind}) AS {name}"
            for name, kind in types.items()
        )
        selects.append(
            f"SELECT load AS _load, load AS _upto, NULL::BIGINT AS _rows, NULL::VARCHAR AS _digest, "
            f"{width}::BIGINT AS _width, start AS _start, enters AS _enters, {columns} "
            f"FROM ({width_sql(layout, width, rows, where)})"
        )
    return " UNION ALL ".join(selects)


def merged_rows(layout: Layout, tiles: str, types: dict[str, str]) -> str:
    """SELECT the tiles in `tiles`, those of one place in time merged over loads."""
    by = ", ".join(["_width", "_start", "_enters", *key_columns(layout)])
    keys = ", ".join(key_columns(layout))
    parts = ", ".join(
        f"CAST({sql.column(part)} AS {types[sql.column(part)]}) AS {sql.column(part)}" for part in all_parts(layout)
    )
    return (
        f"SELECT _width, _start, _enters, {keys}, {parts} FROM ("
        f"SELECT {by}, {sql.merged(all_parts(layout))} FROM {tiles} GROUP BY {by})"
    )


def column_types(con: Any, layout: Layout, rows: str) -> dict[str, str]:
    """Return the columns of a tile that depend on the view, keys first, with DuckDB's types as a lake can hold them."""
    found: dict[str, str] = {}
    for width in layout.hops:
        for name, kind, *_ in con.execute(f"DESCRIBE {width_sql(layout, width, rows)}").fetchall():
            if name not in ("load", "start", "enters"):
                found.setdefault(name, _STORED_AS.get(kind, kind))
    parts: Sequence[str] = [sql.column(part) for part in all_parts(layout)]
    return {name: found[name] for name in [*key_columns(layout), *parts]}

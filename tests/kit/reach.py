"""States as far as a window can still reach: what a state has from before depends on when it was made."""

from __future__ import annotations

from bisect import bisect_left

from mainspring.features.layout import Layout
from mainspring.features.model import FeatureView, hop
from mainspring.features.state.blobs import SETTLING, Recent, Tiles, decode, encode
from mainspring.features.tilelog.rows import tail_of


def within_reach(payload: bytes, view: FeatureView, position: int) -> bytes:
    """Return a state's bytes without the tiles that no window can reach at `position`, or an hour before it, and
    without the rows for a while that none can reach at `position`: a row that comes late is added all the same."""
    layout = Layout(view)
    state = decode(payload, "")
    for place, (width, tiles) in enumerate(zip(layout.hops, state.tiles, strict=True)):
        first = bisect_left(tiles.starts, tail_of(layout, width, position - SETTLING) // width)
        state.tiles[place] = Tiles(tiles.starts[first:], [part[first:] for part in tiles.parts])
    if layout.windows:
        rows, oldest = state.recent, position - SETTLING - max(f.window + hop(f.window) for f in layout.windows)
        kept = [row for row, event in enumerate(rows.event) if event >= oldest]
        gone = [rows.gone[row] for row in kept] if rows.gone else []
        state.recent = Recent(
            [rows.visible[row] for row in kept],
            [rows.event[row] for row in kept],
            [[column[row] for row in kept] for column in rows.values],
            [rows.seq[row] for row in kept] if rows.seq else [],
            gone if any(at is not None for at in gone) else [],
        )
    return encode(state)

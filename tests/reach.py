"""States as far as a window can still reach: what a state has from before depends on when it was made."""

from __future__ import annotations

from bisect import bisect_left

from mainspring.features.layout import Layout
from mainspring.features.model import FeatureView
from mainspring.features.state.blobs import SETTLING, Tiles, decode, encode
from mainspring.features.tilelog.rows import tail_of


def within_reach(payload: bytes, view: FeatureView, position: int) -> bytes:
    """Return a state's bytes without the tiles that no window can reach at `position`, or an hour before it."""
    layout = Layout(view)
    state = decode(payload, "")
    for place, (width, tiles) in enumerate(zip(layout.hops, state.tiles, strict=True)):
        first = bisect_left(tiles.starts, tail_of(layout, width, position - SETTLING) // width)
        state.tiles[place] = Tiles(tiles.starts[first:], [part[first:] for part in tiles.parts])
    return encode(state)

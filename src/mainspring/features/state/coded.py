"""Counts of very many distinct values as numbers: a dictionary of the values, and pairs of place and count.

A column of tiles of the part `values` is coded if its tiles have many entries: each tile is bytes of little-endian
int64, with the value's place in the dictionary above 32 bits of its count; an entry after the last tile is the
dictionary, the distinct values in order. So counts are merged as arrays, whatever their number, and only the resulting
values are decoded. A column that is not coded has the form in `features.state.sketches`; both can be read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from mainspring.features.state.sketches import BLOCK, merge_values, most_frequent_places, top

MANY = 1024  # entries of a column; fewer are merged as fast uncoded, in fewer bytes
_COUNT_BITS = 32
_COUNTS = (1 << _COUNT_BITS) - 1


def coded(tiles: Sequence[Any]) -> list[Any]:
    """Return a column of tiles of the part `values` (lists of values and of counts, or null) coded.

    If values are neither texts nor integers, or counts exceed 32 bits, the column is unchanged.
    """
    values = sorted({value for tile in tiles if tile is not None for value in tile[0]})
    most = max((n for tile in tiles if tile is not None for n in tile[1]), default=0)
    if not values or type(values[0]) not in (int, str) or most > _COUNTS:
        return list(tiles)
    place = {value: n << _COUNT_BITS for n, value in enumerate(values)}
    return [
        *(None if tile is None else _packed([place[v] for v in tile[0]], tile[1]) for tile in tiles),
        _names(values),
    ]


def many_coded(tiles: list[Any]) -> list[Any]:
    """Return a column of tiles, coded if it has many entries."""
    entries = sum(len(tile[0]) for tile in tiles if tile is not None)
    return coded(tiles) if entries > MANY else tiles


def most_frequent(tiles: Sequence[Any], rows: Sequence[Any], most: int) -> list[Any]:
    """Return the `most` most frequent values of tiles and rows; of equally frequent ones the smaller first.

    Args:
        tiles: The last tiles of a column, coded or not.
        rows: Values of single rows.

    Raises:
        IndexError, TypeError, ValueError, AttributeError: A coded column is damaged.
    """
    if not tiles or type(tiles[-1]) is not dict:
        return top(merge_values(tiles, rows), most)
    names = _Names(tiles[-1])
    entries = np.frombuffer(b"".join(filter(None, tiles[:-1])), dtype="<i8")
    places = entries >> _COUNT_BITS
    if places.max(initial=0) >= len(names):
        raise IndexError("a value is not in the dictionary")
    # Sums of doubles, exact below 2**53.
    counts = np.bincount(places, weights=entries & _COUNTS, minlength=-(-len(names) // BLOCK) * BLOCK).astype(np.int64)
    new: dict[Any, int] = {}
    for value, n in Counter(rows).items():
        place = bisect_left(names, value)
        if place < len(names) and names[place] == value:
            counts[place] += n
        else:
            new[value] = n
    coded_counts = {names[place]: int(counts[place]) for place in most_frequent_places(counts, most).tolist()}
    return top({**coded_counts, **new}, most)


class _Names(Sequence[Any]):
    """The values of a dictionary, each decoded on access."""

    def __init__(self, dictionary: dict[str, bytes]) -> None:
        self._ends = np.frombuffer(dictionary["ends"], dtype="<i8") if "ends" in dictionary else None
        self._text = dictionary.get("text", b"")
        self._whole = np.frombuffer(dictionary.get("whole", b""), dtype="<i8")

    def __len__(self) -> int:
        return len(self._whole) if self._ends is None else len(self._ends)

    def __getitem__(self, place: Any) -> Any:
        if self._ends is None:
            return int(self._whole[place])
        return self._text[self._ends[place - 1] if place else 0 : self._ends[place]].decode()


def _names(values: Sequence[Any]) -> dict[str, bytes]:
    if isinstance(values[0], int):
        return {"whole": np.array(values, dtype="<i8").tobytes()}
    texts = [value.encode() for value in values]
    return {"ends": np.cumsum([len(text) for text in texts], dtype="<i8").tobytes(), "text": b"".join(texts)}


def _packed(places: Sequence[int], counts: Sequence[int]) -> bytes:
    packed: bytes = (np.array(places, dtype="<i8") + np.array(counts, dtype="<i8")).tobytes()
    return packed

"""Summaries of many values that merge exactly: counts of bins, counts of exact values, smallest hashes.

The merged summary is the same for any partition of the rows into tiles, and for either engine, so the offline and the
online read give the same number. `features.state.sql` computes the same summaries in SQL. Why not HLL and KLL:
docs/adr/0011-sketches.md.

In a state, `bins` and `hashes` are bytes of little-endian int64, so that thousands are read at once:

- A bin is the double's sign and upper 18 bits, as a number that sorts like the doubles, above 43 bits of its count.
- A hash is 63 bits of MD5 over the value's text.
- `values` is a list of values and a list of their counts; for many values see `features.state.coded`.
"""

from __future__ import annotations

import hashlib
import heapq
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

CUT = 45  # low bits of a double that a bin omits
NAN = 0x7FF8000000000000 >> CUT  # above the bin of infinity
KEPT = 1024  # hashes
BLOCK = 256  # counts per block, whose maximum is computed together
_NEAR = 1 << 16  # maximum range of bins that are stored in a dense array
_COUNT_BITS = 43
_COUNTS = (1 << _COUNT_BITS) - 1
_double, _bits = struct.Struct("<d"), struct.Struct("<q")

Ints = npt.NDArray[np.int64]
Bins = tuple[Ints, Ints]  # bins in order, possibly empty ones, and the cumulative number of values


def bin_of(value: float) -> int:
    """Return the bin of a value: the value truncated towards zero to 8 significant bits."""
    if value != value:  # noqa: PLR0124  (NaN differs from itself)
        return NAN
    size: int = _bits.unpack(_double.pack(abs(value)))[0] >> CUT
    return -size if value < 0 else size


def value_of(bin_: int) -> float:
    """Return the value nearest to zero in a bin."""
    value: float = _double.unpack(_bits.pack(abs(bin_) << CUT))[0]
    return -value if bin_ < 0 else value


def hash_of(value: str | bool | int) -> int:
    """Return 63 bits of MD5 over the value's text; an instant is its microseconds."""
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:], "little") >> 1


def packed(part: str, entries: Sequence[Any] | None) -> Any:
    """Return a summary from SQL (`features.state.sql`) in the form of a state; `None` if it is empty.

    Args:
        entries: Hashes, or mappings of `x` to a value or bin and `n` to its count; several may have the same `x`.
    """
    if entries is None or len(entries) == 0:
        return None
    if part == "hashes":
        return _bytes(sorted(set(entries))[:KEPT])
    counts = _counted((entry["x"], entry["n"]) for entry in entries)
    if part == "values":
        return [[value for value, _ in counts], [n for _, n in counts]]
    return _bytes([(value << _COUNT_BITS) + n for value, n in counts])


def _counted(pairs: Iterable[tuple[Any, int]]) -> list[tuple[Any, int]]:
    counts: dict[Any, int] = {}
    for value, n in pairs:
        counts[value] = counts.get(value, 0) + n
    return sorted(counts.items())


def _bytes(numbers: Sequence[int]) -> bytes:
    return np.array(numbers, dtype="<i8").tobytes()


def merge_bins(tiles: Iterable[bytes | None], rows: Iterable[float]) -> Bins:
    """Return the bins of some tiles and single values."""
    entries = np.frombuffer(b"".join(filter(None, tiles)), dtype="<i8")
    single = [(bin_of(value) << _COUNT_BITS) + 1 for value in rows]
    if single:
        entries = np.concatenate((entries, np.array(single, dtype=np.int64)))
    values = entries >> _COUNT_BITS
    if len(entries) > 1024 and (least := int(values.min())) > int(values.max()) - _NEAR:
        # Sums of doubles, exact below 2**53.
        counts = np.bincount(values - least, weights=entries & _COUNTS).astype(np.int64)
        return np.arange(least, least + len(counts)), np.cumsum(counts)
    entries = np.sort(entries, kind="stable")  # tiles are sorted, which this algorithm uses
    return entries >> _COUNT_BITS, np.cumsum(entries & _COUNTS)


def quantile(bins: Bins, share: float) -> float | None:
    """Return the ceil(share * n)-th smallest of n values (the smallest for 0), `None` without values.

    `share` is in millionths, so that the rank is exact.
    """
    values, upto = bins
    if not len(values):
        return None
    n = int(upto[-1])
    rank = max(1, -(-n * millionths(share) // 1_000_000))
    return value_of(int(values[np.searchsorted(upto, rank)]))


def millionths(share: float) -> int:
    return round(share * 1_000_000)


def merge_hashes(tiles: Iterable[bytes | None], rows: Iterable[Any]) -> Ints:
    """Return the distinct hashes of some tiles and single values, ascending; at most the `KEPT` smallest."""
    entries = np.frombuffer(b"".join(filter(None, tiles)), dtype="<i8")
    single = [hash_of(value) for value in rows]
    if single:
        entries = np.concatenate((entries, np.array(single, dtype=np.int64)))
    if len(entries) > 4 * KEPT:
        # Of many only the smallest matter. A sample estimates where they end; duplicates move the end up.
        sample = np.sort(entries[:: len(entries) // 512])
        near = 2 * KEPT
        while near < len(entries):
            few = _different(entries[entries <= sample[len(sample) * near // len(entries)]])
            if len(few) >= KEPT:
                return few[:KEPT]
            near *= 3
    return _different(entries)[:KEPT]


def _different(numbers: Ints) -> Ints:
    ordered = np.sort(numbers, kind="stable")
    first = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def distinct(hashes: Ints) -> int:
    """Return the number of distinct values: exact below `KEPT`, above it (KEPT - 1) / (the largest kept hash).

    The unbiased estimator of Beyer, Haas, Reinwald, Sismanis and Gemulla, "On synopses for distinct-value estimation
    under multiset operations" (2007), over the sketch of Bar-Yossef et al., "Counting distinct elements in a data
    stream" (2002), in integers; its standard error is 1 / sqrt(KEPT - 2).
    """
    if len(hashes) < KEPT:
        return len(hashes)
    return ((KEPT - 1) << 63) // (int(hashes[-1]) + 1)


def merge_values(tiles: Iterable[Sequence[Any] | None], rows: Iterable[Any]) -> Mapping[Any, int]:
    """Return the count of each value in some tiles and single values."""
    counts: dict[Any, int] = {}
    for tile in tiles:
        if tile is not None:
            for value, n in zip(*tile, strict=True):
                counts[value] = counts.get(value, 0) + n
    for value in rows:
        counts[value] = counts.get(value, 0) + 1
    return counts


def top(counts: Mapping[Any, int], most: int) -> list[Any]:
    """Return the `most` most frequent values; of equally frequent ones the smaller comes first."""
    return [value for value, _ in heapq.nsmallest(most, counts.items(), key=lambda pair: (-pair[1], pair[0]))]


def most_frequent_places(counts: Ints, most: int) -> Ints:
    """Return the places of the `most` largest counts above zero; of equal counts the first places.

    Args:
        counts: Shape (n,), n being a multiple of `BLOCK`.
    """
    # They are in the blocks with the largest maxima.
    blocks = counts.reshape(-1, BLOCK)
    best = np.sort(np.argsort(-blocks.max(axis=1, initial=0), kind="stable")[:most])
    places = (best[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    among = blocks[best].ravel()
    order = np.argsort(-among, kind="stable")[:most]
    found: Ints = places[order[among[order] > 0]]
    return found
